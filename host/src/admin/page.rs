//! The status page at `/` of the admin listener: three files inside the binary that draw the JSON.
//!
//! It owns no data and takes no orders: the script asks `/api/...` once a second while somebody looks.
//!
//! # Invariants
//!
//! - Nothing is fetched from another origin; the policy sent along forbids it.
//! - The script sets whatever plugins and clients supplied as text, never as HTML.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue};
use http::{HeaderName, Response};

const INDEX: &str = include_str!("page/index.html");
const STYLE: &str = include_str!("page/page.css");
const SCRIPT: &str = include_str!("page/page.js");

/// What the page may do: load its own two files, ask its own listener.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
                      img-src data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

/// The file at `path`, if it is one of the page's.
pub(super) fn file(path: &str) -> Option<Response<Bytes>> {
    let (kind, text) = match path {
        "/" => ("text/html; charset=utf-8", INDEX),
        "/page.css" => ("text/css; charset=utf-8", STYLE),
        "/page.js" => ("text/javascript; charset=utf-8", SCRIPT),
        _ => return None,
    };
    let mut response = Response::new(Bytes::from_static(text.as_bytes()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    // Another version of the host may listen here tomorrow.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff"));
    Some(response)
}
