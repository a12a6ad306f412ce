//! What HTTP demands of a request's head, before anybody reads it: one clear host, one transfer coding, one `Cookie`.
//!
//! hyper parses a head and frames the body; it leaves to the server which host a request is for (RFC 9112, section
//! 3.2), which transfer codings it knows (RFC 9112, section 6.1), and how fields of HTTP/2 become those that
//! programs expect (RFC 9113, sections 8.2.3 and 8.3.1).
//!
//! # Invariants
//!
//! - Whatever the version, a handler finds the host of a request in its one `Host` header, if the request has one.

use http::header::{COOKIE, HOST, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderValue, StatusCode, Version};

use super::trouble::Trouble;

/// Checks a head, and brings it into the form that handlers see.
///
/// # Errors
///
/// The answer to a head that cannot be served.
pub(super) fn settle(parts: &mut Parts) -> Result<(), Trouble> {
    if parts.version == Version::HTTP_2 {
        join_cookies(parts);
    } else {
        check_codings(parts)?;
    }
    settle_host(parts)
}

/// A 400 with a sentence.
fn bad(words: &str) -> Trouble {
    Trouble::new(StatusCode::BAD_REQUEST, words)
}

/// Leaves one `Host` header: the authority of the target, if it has one, else the header as received.
fn settle_host(parts: &mut Parts) -> Result<(), Trouble> {
    let mut hosts = parts.headers.get_all(HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(bad("the request has more than one Host header; send one"));
    }
    if host.is_some_and(|host| !is_host(host.as_bytes())) {
        return Err(bad("the Host header is not a host name with an optional port"));
    }
    if let Some(authority) = parts.uri.authority() {
        // A user name before the host is nobody's business.
        let host = authority.as_str().rsplit('@').next().unwrap_or_default();
        let value = HeaderValue::from_str(host).map_err(|_| bad("the request's target names no host"))?;
        parts.headers.insert(HOST, value);
    } else if host.is_none() && parts.version == Version::HTTP_11 {
        return Err(bad("the request has no Host header, which HTTP/1.1 demands"));
    }
    Ok(())
}

/// Whether `host` is a name or an address, maybe with a port. An empty one is, where a target has no host.
fn is_host(host: &[u8]) -> bool {
    let (name, port) = match host {
        [b'[', rest @ ..] => match rest.iter().position(|byte| *byte == b']') {
            Some(end) => (&rest[..end], &rest[end + 1..]),
            None => return false,
        },
        _ => host.split_at(host.iter().position(|byte| *byte == b':').unwrap_or(host.len())),
    };
    let is_bracketed = host.first() == Some(&b'[');
    let is_of_name = |byte: &u8| match byte {
        b':' => is_bracketed,
        byte => byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(byte),
    };
    let is_port = match port {
        [] => true,
        [b':', digits @ ..] => digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    name.iter().all(is_of_name) && is_port && !(is_bracketed && name.is_empty())
}

/// Refuses bodies in codings that would reach the handler undecoded.
fn check_codings(parts: &Parts) -> Result<(), Trouble> {
    if !parts.headers.contains_key(TRANSFER_ENCODING) {
        return Ok(());
    }
    let values = parts.headers.get_all(TRANSFER_ENCODING).iter();
    let text: Vec<&str> = values.filter_map(|value| value.to_str().ok()).collect();
    let codings =
        || text.iter().flat_map(|value| value.split(',')).map(str::trim).filter(|word| !word.is_empty());
    let is_chunked = |coding: &str| coding.eq_ignore_ascii_case("chunked");
    if codings().filter(|coding| is_chunked(coding)).count() > 1 {
        return Err(bad("the body is chunked more than once"));
    }
    match codings().find(|coding| !is_chunked(coding)) {
        Some(_) => Err(Trouble::new(
            StatusCode::NOT_IMPLEMENTED,
            "the only transfer coding that this server knows is `chunked`; compress with Content-Encoding instead",
        )),
        None => Ok(()),
    }
}

/// Makes one `Cookie` header of those that HTTP/2 lets a client split.
fn join_cookies(parts: &mut Parts) {
    let mut cookies = parts.headers.get_all(COOKIE).iter();
    let (Some(first), Some(second)) = (cookies.next(), cookies.next()) else { return };
    let mut joined = first.as_bytes().to_vec();
    for cookie in std::iter::once(second).chain(cookies) {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(cookie.as_bytes());
    }
    if let Ok(joined) = HeaderValue::from_bytes(&joined) {
        parts.headers.insert(COOKIE, joined);
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Request};

    use super::*;

    fn settled(version: Version, target: &str, headers: &[(&str, &str)]) -> Result<HeaderMap, u16> {
        let mut request = Request::builder().version(version).uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut parts = request.body(()).unwrap().into_parts().0;
        settle(&mut parts).map_err(|trouble| trouble.status.as_u16())?;
        Ok(parts.headers)
    }

    fn host(version: Version, target: &str, hosts: &[&str]) -> Result<Option<String>, u16> {
        let headers: Vec<_> = hosts.iter().map(|host| ("host", *host)).collect();
        settled(version, target, &headers)
            .map(|headers| headers.get(HOST).map(|host| host.to_str().unwrap().to_owned()))
    }

    #[test]
    fn the_target_wins_over_the_header() {
        let told = |host: &str| Ok(Some(host.to_owned()));
        assert_eq!(host(Version::HTTP_11, "/", &["a:80"]), told("a:80"));
        assert_eq!(host(Version::HTTP_11, "http://b:81/", &["a:80"]), told("b:81"));
        assert_eq!(host(Version::HTTP_11, "http://b/", &[]), told("b"));
        assert_eq!(host(Version::HTTP_11, "http://user:word@b/", &["a"]), told("b"));
        assert_eq!(host(Version::HTTP_2, "http://b/", &[]), told("b"));
        assert_eq!(host(Version::HTTP_2, "http://b/", &["a"]), told("b"));
        assert_eq!(host(Version::HTTP_10, "/", &[]), Ok(None));
    }

    #[test]
    fn a_head_without_one_clear_host_is_refused() {
        assert_eq!(host(Version::HTTP_11, "/", &[]), Err(400));
        for version in [Version::HTTP_10, Version::HTTP_11, Version::HTTP_2] {
            assert_eq!(host(version, "http://b/", &["a", "a"]), Err(400), "{version:?}");
            for wrong in [
                "a b", "a/b", "a@b", "a:b", "a:1:2", "[::1", "[]", "[::1]x", "a:123456", "a?b", "a#b", "a\\b",
            ] {
                assert_eq!(host(version, "http://b/", &[wrong]), Err(400), "{version:?} {wrong}");
            }
            for right in ["a", "a.b-c_d:8080", "a:", "127.0.0.1:1", "[::1]", "[::1]:80", "xn--a%41", ""] {
                assert!(host(version, "http://b/", &[right]).is_ok(), "{version:?} {right}");
            }
        }
    }

    #[test]
    fn only_one_coding_is_known() {
        let coded = |values: &[&str]| {
            let mut headers: Vec<_> = values.iter().map(|value| ("transfer-encoding", *value)).collect();
            headers.push(("host", "a"));
            settled(Version::HTTP_11, "/", &headers).map(drop)
        };
        assert_eq!(coded(&["chunked"]), Ok(()));
        assert_eq!(coded(&["Chunked"]), Ok(()));
        for chunked_twice in
            [&["chunked, chunked"][..], &["chunked", "chunked"], &["gzip, chunked", "chunked"]]
        {
            assert_eq!(coded(chunked_twice), Err(400), "{chunked_twice:?}");
        }
        for unknown in [&["gzip, chunked"][..], &["gzip", "chunked"], &["identity"], &["xchunked"]] {
            assert_eq!(coded(unknown), Err(501), "{unknown:?}");
        }
    }

    #[test]
    fn cookies_that_http2_splits_are_joined() {
        let headers = [("cookie", "a=1"), ("host", "h"), ("cookie", "b=2; c=3"), ("cookie", "d=4")];
        let cookies = |version| {
            let headers = settled(version, "http://h/", &headers).unwrap();
            headers.get_all(COOKIE).iter().map(|value| value.to_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(cookies(Version::HTTP_2), ["a=1; b=2; c=3; d=4"]);
        assert_eq!(cookies(Version::HTTP_11), ["a=1", "b=2; c=3", "d=4"]);
    }
}
