//! The request, as a handler sees it.
//!
//! # Invariants
//!
//! - A `Request` exists for one call of a handler, which gets it by reference only: what it hands out
//!   borrows from it, so nothing of the host's memory outlives the call.
#![expect(unsafe_code, reason = "reads the views of a request")]

use std::borrow::Cow;
use std::cell::OnceCell;
use std::mem::offset_of;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, Method};
use percent_encoding::percent_decode_str;

use crate::abi::{PairView, RequestView, StrView};
use crate::error::HttpError;

/// A request.
///
/// Everything is borrowed from the host's memory and copied only where a method says so. Belongs to
/// the handler's thread for the handler's call.
#[derive(Debug)]
pub struct Request {
    /// Not null, valid for the handler's call.
    view: *const RequestView,
    method: Method,
    headers: OnceCell<HeaderMap>,
}

impl Request {
    /// A request for one call of a handler.
    ///
    /// # Safety
    ///
    /// `view` and everything it points to stays valid and unchanged for as long as the request lives.
    pub(crate) unsafe fn new(view: *const RequestView) -> Request {
        // SAFETY: valid by this function's contract.
        let method = unsafe { (*view).method.as_bytes() };
        let method = Method::from_bytes(method).unwrap_or_default();
        Request { view, method, headers: OnceCell::new() }
    }

    fn view(&self) -> &RequestView {
        // SAFETY: valid as long as `self` by the contract of `new`.
        unsafe { &*self.view }
    }

    fn text(&self, view: StrView) -> &str {
        // SAFETY: valid as long as `self` by the contract of `new`.
        let bytes = unsafe { view.as_bytes() };
        // The host promises UTF-8; a host that lies gets an empty text instead of undefined behaviour.
        std::str::from_utf8(bytes).unwrap_or_default()
    }

    fn pairs(&self, ptr: *const PairView, len: usize) -> impl Iterator<Item = (&str, &[u8])> {
        let pairs = if ptr.is_null() || len == 0 {
            &[]
        } else {
            // SAFETY: non-null by the check; `len` pairs valid as long as `self` by the contract of `new`.
            unsafe { std::slice::from_raw_parts(ptr, len) }
        };
        pairs.iter().map(|pair| {
            // SAFETY: valid as long as `self` by the contract of `new`.
            let value = unsafe { pair.value.as_slice() };
            (self.text(pair.name), value)
        })
    }

    /// The request's id, as in the log and in the response's `x-request-id`.
    pub fn id(&self) -> &str {
        self.text(self.view().id)
    }

    /// The method.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// The whole path as received, percent-encoded, with the mount.
    pub fn path(&self) -> &str {
        self.text(self.view().path)
    }

    /// Where the plugin is mounted, such as `/guestbook`; empty at the root.
    pub fn mount(&self) -> &str {
        self.text(self.view().mount)
    }

    /// The address of one of the plugin's own pages: the mount and `path`, which begins with a slash.
    ///
    /// The plugin's root is its mount without a trailing slash.
    pub fn url(&self, path: &str) -> String {
        match (self.mount(), path) {
            ("", path) => path.to_owned(),
            (mount, "/") => mount.to_owned(),
            (mount, path) => format!("{mount}{path}"),
        }
    }

    /// A path parameter as text, percent-decoded.
    pub fn param_str(&self, name: &str) -> Option<&str> {
        let view = self.view();
        let (_, value) = self.pairs(view.params, view.param_count).find(|(found, _)| *found == name)?;
        std::str::from_utf8(value).ok()
    }

    /// A path parameter, parsed.
    ///
    /// # Errors
    ///
    /// 400 with the parser's words; 500 if the route has no such parameter.
    pub fn param<T: FromStr<Err: std::fmt::Display>>(&self, name: &str) -> Result<T, HttpError> {
        let text = self.param_str(name).ok_or_else(|| {
            let words = format!("the route has no path parameter `{name}`");
            HttpError::new(http::StatusCode::INTERNAL_SERVER_ERROR, words)
        })?;
        text.parse().map_err(|error| HttpError::bad_request(format!("path parameter `{name}`: {error}")))
    }

    /// The query without its question mark, percent-encoded.
    pub fn query_str(&self) -> &str {
        self.text(self.view().query)
    }

    /// The first value of `name` in the query, decoded.
    pub fn query_value(&self, name: &str) -> Option<Cow<'_, str>> {
        self.query_str().split('&').find_map(|part| {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            (decode(key) == name).then(|| decode(value))
        })
    }

    /// A header, if it is there and visible ASCII. Names are compared without regard to case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let view = self.view();
        self.pairs(view.headers, view.header_count)
            .find(|(found, _)| found.eq_ignore_ascii_case(name))
            .and_then(|(_, value)| std::str::from_utf8(value).ok())
    }

    /// All headers, copied into a map at the first use.
    pub fn headers(&self) -> &HeaderMap {
        self.headers.get_or_init(|| {
            let view = self.view();
            self.pairs(view.headers, view.header_count)
                .filter_map(|(name, value)| {
                    let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
                    Some((name, HeaderValue::from_bytes(value).ok()?))
                })
                .fold(HeaderMap::new(), |mut map, (name, value)| {
                    map.append(name, value);
                    map
                })
        })
    }

    /// The whole body.
    pub fn body(&self) -> &[u8] {
        // SAFETY: valid as long as `self` by the contract of `new`.
        unsafe { self.view().body.as_slice() }
    }

    /// The body as text.
    ///
    /// # Errors
    ///
    /// 400 if it is not UTF-8.
    pub fn body_str(&self) -> Result<&str, HttpError> {
        std::str::from_utf8(self.body())
            .map_err(|error| HttpError::bad_request(format!("the body is not UTF-8: {error}")))
    }

    /// The client's address.
    pub fn remote(&self) -> Option<SocketAddr> {
        self.text(self.view().remote).parse().ok()
    }

    /// How long the client still waits for an answer, as it was when the handler was called; `None`: for ever.
    pub fn deadline(&self) -> Option<Duration> {
        match self.view().deadline_ns {
            0 => None,
            ns => Some(Duration::from_nanos(ns)),
        }
    }

    /// Whether nobody waits for the answer any more: the client has gone, or the deadline has passed.
    ///
    /// A handler that works for long asks now and then, and ends early. What it does in databases ends by itself:
    /// the statement that runs is cancelled, later ones fail, and the request's transactions are rolled back. A
    /// client that leaves an HTTP/1 connection is noticed at once, unless it has sent a further request already;
    /// then within a second or so. In inline handlers this is always `false`. Costs a load; never blocks.
    pub fn is_cancelled(&self) -> bool {
        let view = self.view();
        if view.size < offset_of!(RequestView, cancelled) + size_of::<*const u8>() {
            return false;
        }
        // SAFETY: a host whose view reaches this far has filled the field in: null, or valid as long as `self` by
        // the contract of `new`, and written atomically only.
        unsafe { view.cancelled.as_ref() }.is_some_and(|flag| flag.load(Ordering::Relaxed) != 0)
    }

    /// This plugin's own durable store; the same as [`safe::open`](crate::safe::open).
    pub fn safe(&self) -> crate::safe::Safe {
        crate::safe::open()
    }

    /// Whether the client would rather have JSON than a page or text.
    pub fn wants_json(&self) -> bool {
        self.header("accept").is_some_and(|accept| {
            let json = accept.find("application/json");
            let html = accept.find("text/html");
            json.is_some_and(|json| html.is_none_or(|html| json < html))
        })
    }

    /// Whether the body is of type `expected`, by its `Content-Type`.
    #[cfg(feature = "serde")]
    fn has_type(&self, expected: &str, suffix: Option<&str>) -> bool {
        let found = self.header("content-type").unwrap_or_default();
        let found = found.split(';').next().unwrap_or_default().trim();
        found.eq_ignore_ascii_case(expected)
            || suffix.is_some_and(|suffix| found.to_ascii_lowercase().ends_with(suffix))
    }

    /// The query, read into a struct of the author's.
    ///
    /// # Errors
    ///
    /// 400 with the reader's words.
    #[cfg(feature = "serde")]
    pub fn query<'r, T: serde::Deserialize<'r>>(&'r self) -> Result<T, HttpError> {
        serde_urlencoded::from_str(self.query_str())
            .map_err(|error| HttpError::bad_request(format!("the query: {error}")))
    }

    /// The body as JSON, read into a type of the author's.
    ///
    /// # Errors
    ///
    /// 415 if the `Content-Type` is not JSON, 400 if the body is not, 422 if it is but does not fit `T`.
    #[cfg(feature = "serde")]
    pub fn json<'r, T: serde::Deserialize<'r>>(&'r self) -> Result<T, HttpError> {
        if !self.has_type("application/json", Some("+json")) {
            return Err(self.unsupported("application/json"));
        }
        serde_json::from_slice(self.body()).map_err(|error| {
            let status = match error.classify() {
                serde_json::error::Category::Data => http::StatusCode::UNPROCESSABLE_ENTITY,
                _ => http::StatusCode::BAD_REQUEST,
            };
            HttpError::new(status, format!("the body: {error}"))
        })
    }

    /// The body as a form, read into a struct of the author's.
    ///
    /// # Errors
    ///
    /// 415 if the `Content-Type` is not that of a form, 422 if the form does not fit `T`.
    #[cfg(feature = "serde")]
    pub fn form<'r, T: serde::Deserialize<'r>>(&'r self) -> Result<T, HttpError> {
        if !self.has_type("application/x-www-form-urlencoded", None) {
            return Err(self.unsupported("application/x-www-form-urlencoded"));
        }
        serde_urlencoded::from_bytes(self.body()).map_err(|error| {
            HttpError::new(http::StatusCode::UNPROCESSABLE_ENTITY, format!("the form: {error}"))
        })
    }

    #[cfg(feature = "serde")]
    fn unsupported(&self, expected: &str) -> HttpError {
        HttpError::new(
            http::StatusCode::UNSUPPORTED_MEDIA_TYPE,
            format!("send this body with `Content-Type: {expected}`"),
        )
    }
}

/// Decodes a part of a query: `+` is a space, `%XX` a byte. Bytes that are not UTF-8 become U+FFFD.
fn decode(part: &str) -> Cow<'_, str> {
    if part.contains('+') {
        let spaced = part.replace('+', " ");
        return Cow::Owned(percent_decode_str(&spaced).decode_utf8_lossy().into_owned());
    }
    percent_decode_str(part).decode_utf8_lossy()
}
