//! What a handler or hook returns when it fails.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;

use http::header::{HeaderValue, LOCATION, RETRY_AFTER};
use http::{HeaderMap, StatusCode};

use crate::abi::Status;
use crate::db::{CheckoutError, QueryError};
use crate::registry::RegistryError;
use crate::response::{IntoResponse, Response};
use crate::safe;
use crate::service::ServiceError;

/// `Result` with this crate's [`Error`], the usual return type of handlers and hooks.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Any error, on its way out of a handler or hook.
///
/// Everything that implements [`std::error::Error`] converts into it with `?`. The client of a failed
/// request sees a 500 with a request id; the reason goes to the host's log. An [`HttpError`] is
/// different: it *is* the answer.
pub struct Error(Box<dyn StdError + Send + Sync>);

impl Error {
    /// An error that is only a text.
    pub fn msg(message: impl Into<Cow<'static, str>>) -> Error {
        Error(message.into().into())
    }

    /// The error inside, if it is an `E`.
    pub fn downcast_ref<E: StdError + 'static>(&self) -> Option<&E> {
        self.0.downcast_ref()
    }

    /// What kind of failure this is in the boundary's terms, if it began as one of the host's.
    pub(crate) fn root_status(&self) -> Option<Status> {
        let mut error: Option<&(dyn StdError + 'static)> = Some(&*self.0);
        while let Some(inner) = error {
            let status = inner
                .downcast_ref::<RegistryError>()
                .map(RegistryError::status)
                .or_else(|| inner.downcast_ref::<CheckoutError>().map(CheckoutError::status))
                .or_else(|| inner.downcast_ref::<QueryError>().map(QueryError::status))
                .or_else(|| inner.downcast_ref::<safe::ReadError>().map(safe::ReadError::status))
                .or_else(|| inner.downcast_ref::<safe::WriteError>().map(safe::WriteError::status))
                .or_else(|| inner.downcast_ref::<ServiceError>().map(ServiceError::status));
            if status.is_some() {
                return status;
            }
            error = inner.source();
        }
        None
    }

    /// The text of the error and of its sources, outermost first.
    pub fn chain(&self) -> String {
        chain(&*self.0)
    }
}

/// The text of an error and of its sources, outermost first. A source whose text is already there is left out.
pub(crate) fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let words = inner.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        source = inner.source();
    }
    text
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.chain())
    }
}

impl<E: StdError + Send + Sync + 'static> From<E> for Error {
    fn from(error: E) -> Error {
        Error(Box::new(error))
    }
}

/// Adds a sentence that says what was being done.
pub trait Context<T> {
    /// Puts `context` before the error's own text.
    ///
    /// # Errors
    ///
    /// The same as `self`, with `context` before it.
    fn context(self, context: impl Into<Cow<'static, str>>) -> Result<T>;
}

impl<T, E: Into<Error>> Context<T> for std::result::Result<T, E> {
    fn context(self, context: impl Into<Cow<'static, str>>) -> Result<T> {
        self.map_err(|error| Error(Box::new(WithContext { context: context.into(), error: error.into() })))
    }
}

#[derive(Debug)]
struct WithContext {
    context: Cow<'static, str>,
    error: Error,
}

impl fmt::Display for WithContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.context)
    }
}

impl StdError for WithContext {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&*self.error.0)
    }
}

/// An error that is an answer: a status code with words for the client.
///
/// Returned from a handler (`?` works) it becomes the response, so its text is public. The client
/// gets it as JSON (`{"error": "..."}`) if it asked for JSON, else as plain text.
///
/// ```
/// use plugin_api::prelude::*;
///
/// fn show(req: &Request) -> Result<String> {
///     let id: u64 = req.param("id")?;
///     if id != 1 {
///         return Err(HttpError::not_found(format!("there is no entry {id}")).into());
///     }
///     Ok("the entry".to_owned())
/// }
/// ```
#[derive(Debug, Clone)]
pub struct HttpError {
    status: StatusCode,
    message: Cow<'static, str>,
    /// Boxed: most errors have none, and a `Result` is as large as its error.
    headers: Option<Box<HeaderMap>>,
}

impl HttpError {
    /// An answer with a status code and words for the client.
    pub fn new(status: StatusCode, message: impl Into<Cow<'static, str>>) -> HttpError {
        HttpError { status, message: message.into(), headers: None }
    }

    /// 400: the request makes no sense.
    pub fn bad_request(message: impl Into<Cow<'static, str>>) -> HttpError {
        HttpError::new(StatusCode::BAD_REQUEST, message)
    }

    /// 401: the client has to say who it is.
    pub fn unauthorized(message: impl Into<Cow<'static, str>>) -> HttpError {
        HttpError::new(StatusCode::UNAUTHORIZED, message)
    }

    /// 403: this client may not.
    pub fn forbidden(message: impl Into<Cow<'static, str>>) -> HttpError {
        HttpError::new(StatusCode::FORBIDDEN, message)
    }

    /// 404: there is no such thing.
    pub fn not_found(message: impl Into<Cow<'static, str>>) -> HttpError {
        HttpError::new(StatusCode::NOT_FOUND, message)
    }

    /// 409: the request contradicts what is there.
    pub fn conflict(message: impl Into<Cow<'static, str>>) -> HttpError {
        HttpError::new(StatusCode::CONFLICT, message)
    }

    /// 503 with `Retry-After`, in seconds: not now.
    pub fn unavailable(message: impl Into<Cow<'static, str>>, retry_after: u32) -> HttpError {
        HttpError::new(StatusCode::SERVICE_UNAVAILABLE, message).header(RETRY_AFTER, retry_after.into())
    }

    /// 303: the answer is at `location`, to be fetched with GET. What a form's handler ends with.
    ///
    /// A `location` that is no header value (a line break in it) becomes a 500 instead.
    pub fn redirect(location: &str) -> HttpError {
        match HeaderValue::from_str(location) {
            Ok(value) => HttpError::new(StatusCode::SEE_OTHER, "").header(LOCATION, value),
            Err(_) => HttpError::new(StatusCode::INTERNAL_SERVER_ERROR, "the redirect's target is malformed"),
        }
    }

    /// Adds a header.
    pub fn header(mut self, name: http::HeaderName, value: HeaderValue) -> HttpError {
        self.headers.get_or_insert_default().append(name, value);
        self
    }

    /// The status code.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The response, as JSON or as plain text.
    pub(crate) fn to_response(&self, json: bool) -> Response {
        let mut response = if self.message.is_empty() {
            Response::new(self.status)
        } else if json {
            let body = format!("{{\"error\":{}}}\n", crate::response::json_string(&self.message));
            Response::new(self.status).body("application/json", body)
        } else {
            Response::new(self.status).body("text/plain; charset=utf-8", format!("{}\n", self.message))
        };
        if let Some(headers) = &self.headers {
            response.headers_mut().extend((**headers).clone());
        }
        response
    }
}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.message.is_empty() { write!(f, "{}", self.status) } else { f.write_str(&self.message) }
    }
}

impl StdError for HttpError {}

impl IntoResponse for HttpError {
    fn into_response(self) -> Response {
        self.to_response(false)
    }
}
