//! Responses, and what converts into one.

use std::borrow::Cow;
use std::fmt::Write as _;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};

use crate::error::{Error, HttpError};

/// A response: status, headers, body.
#[derive(Debug, Clone, Default)]
pub struct Response {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Response {
    /// A response without headers and body.
    pub fn new(status: StatusCode) -> Response {
        Response { status, headers: HeaderMap::new(), body: Bytes::new() }
    }

    /// Sets the body and its `Content-Type`.
    pub fn body(mut self, content_type: &'static str, body: impl Into<Bytes>) -> Response {
        self.headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        self.body = body.into();
        self
    }

    /// Sets the status code.
    pub fn status(mut self, status: StatusCode) -> Response {
        self.status = status;
        self
    }

    /// Sets a header, in place of one of the same name.
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Response {
        self.headers.insert(name, value);
        self
    }

    /// The status code.
    pub fn status_code(&self) -> StatusCode {
        self.status
    }

    /// The headers.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The headers, to be changed.
    pub fn headers_mut(&mut self) -> &mut HeaderMap {
        &mut self.headers
    }

    /// The body.
    pub fn bytes(&self) -> &Bytes {
        &self.body
    }
}

/// What a handler may return: anything that makes a [`Response`].
pub trait IntoResponse {
    /// Makes the response.
    fn into_response(self) -> Response;
}

impl IntoResponse for Response {
    fn into_response(self) -> Response {
        self
    }
}

impl IntoResponse for () {
    /// 204.
    fn into_response(self) -> Response {
        Response::new(StatusCode::NO_CONTENT)
    }
}

impl IntoResponse for StatusCode {
    fn into_response(self) -> Response {
        Response::new(self)
    }
}

impl IntoResponse for &'static str {
    fn into_response(self) -> Response {
        Response::new(StatusCode::OK).body("text/plain; charset=utf-8", self)
    }
}

impl IntoResponse for String {
    fn into_response(self) -> Response {
        Response::new(StatusCode::OK).body("text/plain; charset=utf-8", self)
    }
}

impl IntoResponse for Cow<'static, str> {
    fn into_response(self) -> Response {
        self.into_owned().into_response()
    }
}

impl IntoResponse for Bytes {
    fn into_response(self) -> Response {
        Response::new(StatusCode::OK).body("application/octet-stream", self)
    }
}

impl IntoResponse for Vec<u8> {
    fn into_response(self) -> Response {
        Bytes::from(self).into_response()
    }
}

impl<T: IntoResponse> IntoResponse for (StatusCode, T) {
    fn into_response(self) -> Response {
        self.1.into_response().status(self.0)
    }
}

impl<B: Into<Bytes>> IntoResponse for http::Response<B> {
    fn into_response(self) -> Response {
        let (parts, body) = self.into_parts();
        Response { status: parts.status, headers: parts.headers, body: body.into() }
    }
}

/// An HTML page.
#[derive(Debug, Clone)]
pub struct Html<T>(pub T);

impl<T> From<T> for Html<T> {
    fn from(page: T) -> Html<T> {
        Html(page)
    }
}

impl<T: Into<Bytes>> IntoResponse for Html<T> {
    fn into_response(self) -> Response {
        Response::new(StatusCode::OK).body("text/html; charset=utf-8", self.0)
    }
}

/// Replaces the five characters that mean something in HTML, so that `text` shows as it is, in
/// elements and in quoted attributes.
pub fn escape_html(text: &str) -> Cow<'_, str> {
    if !text.contains(['&', '<', '>', '"', '\'']) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    Cow::Owned(escaped)
}

/// A JSON document. As a return value it is written, in [`Request::json`](crate::Request::json) it is read.
#[cfg(feature = "serde")]
#[derive(Debug, Clone)]
pub struct Json<T>(pub T);

#[cfg(feature = "serde")]
impl<T: serde::Serialize> IntoResponse for Json<T> {
    /// A value that does not serialise (a map whose keys are not text) is logged and becomes a 500.
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(body) => Response::new(StatusCode::OK).body("application/json", body),
            Err(error) => {
                tracing::error!("a response does not serialise as JSON: {error}");
                Response::new(StatusCode::INTERNAL_SERVER_ERROR)
            }
        }
    }
}

/// 303 to `location`: what a form's handler ends with.
#[derive(Debug, Clone)]
pub struct Redirect(String);

impl Redirect {
    /// To `location`, such as `req.url("/")`.
    pub fn to(location: impl Into<String>) -> Redirect {
        Redirect(location.into())
    }
}

impl IntoResponse for Redirect {
    fn into_response(self) -> Response {
        HttpError::redirect(&self.0).into_response()
    }
}

/// What a handler ends with: a response, or the reason why there is none.
#[diagnostic::on_unimplemented(
    message = "a handler cannot return `{Self}`",
    note = "return something that implements `IntoResponse`, or a `Result` of it"
)]
pub trait IntoOutcome {
    /// Makes the outcome.
    ///
    /// # Errors
    ///
    /// What the handler returned.
    fn into_outcome(self) -> Result<Response, Error>;
}

impl<T: IntoResponse> IntoOutcome for T {
    fn into_outcome(self) -> Result<Response, Error> {
        Ok(self.into_response())
    }
}

impl<T: IntoOutcome, E: Into<Error>> IntoOutcome for Result<T, E> {
    fn into_outcome(self) -> Result<Response, Error> {
        self.map_err(Into::into)?.into_outcome()
    }
}

/// `text` as a JSON string, quotes included.
pub(crate) fn json_string(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            c if c.is_control() => {
                // Writing to a `String` cannot fail.
                let _ = write!(quoted, "\\u{:04x}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
