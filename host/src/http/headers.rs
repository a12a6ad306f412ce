//! The headers the server itself is responsible for.

use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::answer::Origin;

const X_PLUGIN: HeaderName = HeaderName::from_static("x-plugin");
const X_PLUGIN_GENERATION: HeaderName = HeaderName::from_static("x-plugin-generation");
const X_RELOAD_FAILED: HeaderName = HeaderName::from_static("x-reload-failed");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// Longest reason in a header, in bytes.
const MAX_HEADER_REASON: usize = 300;

/// Framing and connection are the server's business; a handler's word on them could break both.
pub(super) fn own_the_connection(headers: &mut HeaderMap, method: &Method) {
    let ours = [CONNECTION, TRANSFER_ENCODING, UPGRADE, KEEP_ALIVE, CONTENT_LENGTH];
    // To compare names costs less than to look each of ours up, and next to no handler sets one.
    if !headers.keys().any(|name| ours.contains(name)) {
        return;
    }
    for name in ours {
        // A handler that answers HEAD itself may know a length without having a body.
        if name != CONTENT_LENGTH || method != Method::HEAD {
            headers.remove(name);
        }
    }
}

/// The methods a path answers, with those that are answered without a handler of their own.
pub(super) fn complete(allow: &str) -> String {
    let mut methods: Vec<&str> =
        allow.split(',').map(str::trim).filter(|method| !method.is_empty()).collect();
    if methods.contains(&"GET") && !methods.contains(&"HEAD") {
        methods.push("HEAD");
    }
    if !methods.contains(&"OPTIONS") {
        methods.push("OPTIONS");
    }
    methods.join(", ")
}

/// Development: says in the headers whose code answered, and whether newer code was refused.
pub(super) fn sign(headers: &mut HeaderMap, origin: &Origin) {
    headers.extend(HeaderValue::from_str(&origin.plugin).ok().map(|plugin| (X_PLUGIN, plugin)));
    headers.insert(X_PLUGIN_GENERATION, HeaderValue::from(origin.generation));
    if let Some(reason) = &origin.reload_failed {
        headers.insert(X_RELOAD_FAILED, one_line(reason));
    }
}

/// Any text as a header value: one line of visible ASCII, cut to a decent length.
fn one_line(text: &str) -> HeaderValue {
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() {
            line.push(' ');
        }
        line.extend(word.chars().map(|c| if c.is_ascii_graphic() { c } else { '?' }));
        if line.len() > MAX_HEADER_REASON {
            line.truncate(MAX_HEADER_REASON);
            line.push_str("...");
            break;
        }
    }
    HeaderValue::from_str(&line).expect("visible ASCII and spaces are a valid header value")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allow_lists_what_the_server_answers_by_itself() {
        assert_eq!(complete("GET, POST"), "GET, POST, HEAD, OPTIONS");
        assert_eq!(complete("POST,OPTIONS"), "POST, OPTIONS");
    }

    #[test]
    fn any_text_becomes_one_decent_header_line() {
        assert_eq!(one_line(" two\r\n\tlines\u{1b}[0m "), "two lines?[0m");
        let long = one_line(&"word ".repeat(1000));
        assert!(long.len() < 310 && long.as_bytes().ends_with(b"..."));
    }
}
