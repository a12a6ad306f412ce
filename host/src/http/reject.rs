//! Words for requests that never became one.
//!
//! hyper answers a head it cannot parse by itself, with the right status and no body. Whoever typed
//! that request deserves a sentence, so the wire exchanges such an answer for one made here.

use std::time::SystemTime;

use bytes::Bytes;
use http::StatusCode;
use httpdate::HttpDate;

use super::limits::size;
use super::request_id::{RequestId, X_REQUEST_ID};

/// A whole HTTP/1.1 response to something that was not a request.
#[derive(Debug)]
pub(super) struct Rejection {
    pub(super) status: StatusCode,
    pub(super) id: RequestId,
    pub(super) reason: String,
    /// Status line, headers and body, ready for the socket.
    pub(super) bytes: Bytes,
}

/// A hundred headers and one more take at least so many bytes.
const LEAST_FOR_TOO_MANY: usize = 101 * "a:\r\n".len();

/// The answer instead of hyper's own `head`; `None` if that is not an error without a body. `received`: how many bytes
/// of the request have come.
pub(super) fn instead_of(head: &[u8], max_head: usize, received: usize) -> Option<Rejection> {
    let text = std::str::from_utf8(head).ok()?;
    let text = text.strip_suffix("\r\n\r\n")?;
    let status = text.strip_prefix("HTTP/1.1 4").or_else(|| text.strip_prefix("HTTP/1.0 4"))?;
    let status =
        StatusCode::from_bytes(&[b'4', *status.as_bytes().first()?, *status.as_bytes().get(1)?]).ok()?;
    let mut is_empty = false;
    let mut kept = String::new();
    for line in text.split("\r\n").skip(1) {
        match line.split_once(':') {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                is_empty = value.trim() == "0"
            }
            Some((name, _)) if name.eq_ignore_ascii_case("connection") => {}
            _ => {
                kept.push_str(line);
                kept.push_str("\r\n");
            }
        }
    }
    if !is_empty {
        return None;
    }
    if status == StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE && received < LEAST_FOR_TOO_MANY {
        // hyper says the same of a body whose length it cannot count.
        let words = "the Content-Length is more than a server can count".to_owned();
        return Some(respond(StatusCode::BAD_REQUEST, &kept, words));
    }
    Some(respond(status, &kept, words(status, max_head)))
}

/// The answer to a head that did not come in time.
pub(super) fn late() -> Rejection {
    respond(
        StatusCode::REQUEST_TIMEOUT,
        "",
        "the head of the request did not arrive in time; send it faster or raise header_timeout_ms"
            .to_owned(),
    )
}

/// The answer to a head that ended in the middle.
pub(super) fn cut_short() -> Rejection {
    respond(
        StatusCode::BAD_REQUEST,
        "",
        "the request ended in the middle of its head; a head ends with an empty line".to_owned(),
    )
}

fn words(status: StatusCode, max_head: usize) -> String {
    match status {
        StatusCode::URI_TOO_LONG => "the request's URI is too long; send long values in the body".to_owned(),
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => format!(
            "the head of the request has more than 100 headers or {}; send fewer or smaller headers and cookies",
            size(max_head)
        ),
        _ => "this is not a well-formed HTTP/1.1 request; check its first line and its headers, and use http://, \
              not https://, on this port"
            .to_owned(),
    }
}

/// Whether hyper has said when; every answer of a server with a clock says so (RFC 9110, section 6.6.1).
fn has_date(headers: &str) -> bool {
    headers.lines().any(|line| line.len() >= 5 && line.as_bytes()[..5].eq_ignore_ascii_case(b"date:"))
}

fn respond(status: StatusCode, headers: &str, reason: String) -> Rejection {
    let id = RequestId::fresh();
    let text = format!(
        "HTTP/1.1 {status}\r\n{headers}{date}content-type: text/plain; charset=utf-8\r\ncontent-length: {length}\r\n\
         {X_REQUEST_ID}: {id}\r\nconnection: close\r\n\r\n{code}: {reason}\n",
        date = if has_date(headers) {
            String::new()
        } else {
            format!("date: {}\r\n", HttpDate::from(SystemTime::now()))
        },
        length = reason.len() + "400: \n".len(),
        id = id.text,
        code = status.as_str(),
    );
    Rejection { status, id, reason, bytes: Bytes::from(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_empty_client_error_is_replaced() {
        let replaced = |head: &str| instead_of(head.as_bytes(), 8192, 10).is_some();
        assert!(replaced("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n"));
        assert!(!replaced("HTTP/1.1 400 Bad Request\r\ncontent-length: 3\r\n\r\n"));
        assert!(!replaced("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\nbody"));
        assert!(!replaced("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"));
        assert!(!replaced("HTTP/1.1 4"));
    }

    #[test]
    fn the_length_header_is_the_length_of_the_body() {
        for rejection in [late(), cut_short()] {
            let text = std::str::from_utf8(&rejection.bytes).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{text}");
        }
    }
}
