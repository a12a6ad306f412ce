//! Names for requests, so that a client's report finds its lines in the log.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

/// The header that carries the id both ways.
pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longest id taken over from a client.
const MAX_LENGTH: usize = 64;

/// Tells the requests of two processes apart. Not a secret.
static PREFIX: LazyLock<u32> =
    LazyLock::new(|| (RandomState::new().hash_one(std::process::id()) >> 32) as u32);
static NEXT: AtomicU64 = AtomicU64::new(1);

/// A request's name, as text and as the header that is sent back.
#[derive(Debug, Clone)]
pub(super) struct RequestId {
    pub(super) text: Arc<str>,
    pub(super) header: HeaderValue,
}

impl RequestId {
    /// Keeps the client's id if it is 1 to 64 characters of `[A-Za-z0-9._-]`, else makes one.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let Some(header) = headers.get(X_REQUEST_ID) else { return Self::fresh() };
        match header.to_str() {
            Ok(text) if is_acceptable(text) => Self { text: Arc::from(text), header: header.clone() },
            _ => Self::fresh(),
        }
    }

    /// A new id: eight digits for the process, a dash, and a counter, all hexadecimal.
    pub(super) fn fresh() -> Self {
        let mut buffer = [0; 25];
        let text = write_id(&mut buffer, *PREFIX, NEXT.fetch_add(1, Relaxed));
        let header = HeaderValue::from_maybe_shared(Bytes::copy_from_slice(text.as_bytes()))
            .expect("hexadecimal digits and a dash are a valid header value");
        Self { text: Arc::from(text), header }
    }
}

fn is_acceptable(text: &str) -> bool {
    (1..=MAX_LENGTH).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

/// Writes `prefix-count` from the right; formatting machinery would cost more than the request id.
fn write_id(buffer: &mut [u8; 25], prefix: u32, count: u64) -> &str {
    let mut at = buffer.len();
    let mut push = |digit: u8| {
        at -= 1;
        buffer[at] = digit;
    };
    let digit = |value: u64| b"0123456789abcdef"[(value & 15) as usize];
    let mut rest = count;
    loop {
        push(digit(rest));
        rest >>= 4;
        if rest == 0 {
            break;
        }
    }
    push(b'-');
    for shift in 0..8 {
        push(digit(u64::from(prefix) >> (4 * shift)));
    }
    std::str::from_utf8(&buffer[at..]).expect("only ASCII was written")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_prefix_and_counter() {
        assert_eq!(write_id(&mut [0; 25], 0xdead_beef, 0x1f), "deadbeef-1f");
        assert_eq!(write_id(&mut [0; 25], 1, 0), "00000001-0");
        assert_eq!(write_id(&mut [0; 25], u32::MAX, u64::MAX), "ffffffff-ffffffffffffffff");
    }

    #[test]
    fn only_short_plain_ids_are_kept() {
        let kept = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(X_REQUEST_ID, HeaderValue::from_str(value).unwrap());
            *RequestId::of(&headers).text == *value
        };
        assert!(kept("a") && kept("A.b_c-9") && kept(&"x".repeat(64)));
        assert!(!kept("") && !kept("a b") && !kept("a\"") && !kept(&"x".repeat(65)));
    }
}
