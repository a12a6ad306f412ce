//! Host -> plugin: calling handlers and hooks.
//!
//! # Invariants
//!
//! - What a handler gets lives on this stack frame or in the request; what it returns is copied before
//!   the call ends.
//! - A call is attributed: the thread's current call is set around it.
#![expect(unsafe_code, reason = "calls into libraries")]

use std::ffi::c_void;
use std::sync::Arc;
use std::sync::atomic::AtomicU8;
use std::time::Instant;

use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, Method, Response, StatusCode};
use plugin_api::abi::{
    BytesView, ErrorSink, ErrorView, PairView, PreviousView, ReplyView, RequestView, ResponseView, Status,
    StrView,
};

use super::library::{Library, Route};
use crate::hostcall::Failure;
use crate::hostcall::call::{self, Call, Gate};
use crate::hostcall::view;
use crate::pins::Running;

/// A request on its way to a handler.
#[derive(Debug)]
pub struct Invocation<'a> {
    /// The request's id.
    pub id: &'a Arc<str>,
    /// Method.
    pub method: &'a Method,
    /// Path as received.
    pub path: &'a str,
    /// Query without question mark.
    pub query: &'a str,
    /// Where the plugin is mounted; empty at the root.
    pub mount: &'a str,
    /// Path parameters, decoded.
    pub params: &'a [(String, String)],
    /// Headers.
    pub headers: &'a HeaderMap,
    /// Body.
    pub body: &'a [u8],
    /// The client's address and port.
    pub remote: &'a str,
    /// When the client is answered without us.
    pub deadline: Option<Instant>,
    /// 1 once nobody waits for the answer any more; `None` where nobody can tell.
    pub cancelled: Option<&'a AtomicU8>,
}

/// What became of a call.
#[derive(Debug)]
pub enum Outcome {
    /// The handler's response.
    Response(Response<Bytes>),
    /// A typed HTTP error's response.
    HttpError(Response<Bytes>),
    /// The handler failed because something it needs is out of reach for now: a database, a pool.
    Unavailable {
        /// The reason, for the log.
        message: String,
    },
    /// The handler failed.
    Failed {
        /// The reason, for the log.
        message: String,
    },
    /// The handler panicked.
    Panicked {
        /// Message and place of the panic.
        message: String,
    },
}

/// Where a handler's answer is collected.
#[derive(Default)]
struct Reply {
    response: Option<Response<Bytes>>,
    error: Option<(Status, String)>,
}

/// Calls the handler of `route`; returns also what has to come true before a response may be sent.
pub fn handle(library: &Library, route: &Route, request: &Invocation<'_>) -> (Outcome, Vec<Gate>) {
    let params: Vec<PairView> = request
        .params
        .iter()
        .map(|(name, value)| PairView { name: StrView::new(name), value: BytesView::new(value.as_bytes()) })
        .collect();
    let headers: Vec<PairView> = request
        .headers
        .iter()
        .map(|(name, value)| PairView {
            name: StrView::new(name.as_str()),
            value: BytesView::new(value.as_bytes()),
        })
        .collect();
    let left = request.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
    let view = RequestView {
        size: size_of::<RequestView>(),
        id: StrView::new(request.id),
        method: StrView::new(request.method.as_str()),
        path: StrView::new(request.path),
        mount: StrView::new(request.mount),
        query: StrView::new(request.query),
        params: params.as_ptr(),
        param_count: params.len(),
        headers: headers.as_ptr(),
        header_count: headers.len(),
        body: BytesView::new(request.body),
        remote: StrView::new(request.remote),
        // A deadline that has just passed is one nanosecond, since zero means none.
        deadline_ns: left.map_or(0, |left| u64::try_from(left.as_nanos()).unwrap_or(u64::MAX).max(1)),
        cancelled: request.cancelled.map_or(std::ptr::null(), std::ptr::from_ref),
    };
    let mut reply = Reply::default();
    let sink = ReplyView { size: size_of::<ReplyView>(), data: (&raw mut reply).cast(), respond, fail };

    let caller = library.caller();
    let current = Call {
        plugin: Arc::clone(&caller.plugin),
        generation: caller.generation,
        route: Arc::clone(&route.name),
        request_id: Arc::clone(request.id),
        deadline: request.deadline,
    };
    let running = Running { route: &route.name, request: request.id };
    let (status, gates) = call::enter_request(current, || {
        // SAFETY: the contract of `HandlerFn`: the library is mapped while `library` lives; request and
        // reply live on this frame until the call returns.
        library.code().inside_for(&running, || unsafe { (route.handler)(&view, &sink) })
    });
    (outcome(status, reply), gates)
}

/// What a request comes to whose handler has answered, but begun something that failed.
pub fn failed_gate(failure: Failure) -> Outcome {
    let message = format!("what the response waited for was not done: {}", failure.message);
    if is_passing(failure.status) { Outcome::Unavailable { message } } else { Outcome::Failed { message } }
}

fn outcome(status: Status, reply: Reply) -> Outcome {
    let panic = call::take_last_panic();
    match (status, reply.response, reply.error) {
        (Status::OK, Some(response), _) => Outcome::Response(response),
        (Status::HTTP_ERROR, Some(response), _) => Outcome::HttpError(response),
        (Status::OK | Status::HTTP_ERROR, None, None) => {
            Outcome::Failed { message: "the handler returned without a response".to_owned() }
        }
        (Status::PANICKED, _, error) => Outcome::Panicked {
            message: panic.or(error.map(|(_, text)| text)).unwrap_or_else(|| "(no message)".to_owned()),
        },
        (_, _, Some((kind, message))) if is_passing(kind) => Outcome::Unavailable { message },
        (_, _, Some((_, message))) => Outcome::Failed { message },
        (status, _, None) => {
            Outcome::Failed { message: format!("the handler ended with status {} and no reason", status.0) }
        }
    }
}

/// Whether a failure says "not now" and not "never".
fn is_passing(status: Status) -> bool {
    [
        Status::EXHAUSTED,
        Status::UNREACHABLE,
        Status::BACKING_OFF,
        Status::TIMED_OUT,
        Status::INIT_FAILED,
        Status::OUTDATED,
    ]
    .contains(&status)
}

unsafe extern "C" fn respond(data: *mut c_void, response: *const ResponseView) -> Status {
    let copied = crate::panic::catch(|| {
        // SAFETY: the handler passes a response that is valid for this call.
        unsafe { copy_response(response) }
    });
    match copied {
        Ok(Some(response)) => {
            // SAFETY: `data` is the `Reply` of the frame that called the handler, which has not returned;
            // nobody else has a reference to it.
            unsafe { (*data.cast::<Reply>()).response = Some(response) };
            Status::OK
        }
        Ok(None) | Err(_) => Status::INVALID,
    }
}

unsafe extern "C" fn fail(data: *mut c_void, error: *const ErrorView) {
    // A panic here could only be a failed allocation, which aborts anyway; the guard keeps the rule.
    let _ = crate::panic::catch(|| {
        // SAFETY: the handler passes an error that is valid for this call.
        let copied = unsafe { copy_error(error) };
        // SAFETY: as in `respond`.
        unsafe { (*data.cast::<Reply>()).error = Some(copied) };
    });
}

/// Copies a response; `None` if HTTP forbids its status or a header.
///
/// # Safety
///
/// `response` and what it points to are valid for this call.
unsafe fn copy_response(response: *const ResponseView) -> Option<Response<Bytes>> {
    // SAFETY: this function's contract.
    let response = unsafe { response.as_ref() }?;
    let status = StatusCode::from_u16(response.status).ok().filter(|s| (200..600).contains(&s.as_u16()))?;
    // SAFETY: this function's contract.
    let (headers, body) =
        unsafe { (view::slice(response.headers, response.header_count), view::bytes(response.body)) };
    let mut copied = Response::new(Bytes::copy_from_slice(body));
    *copied.status_mut() = status;
    for header in headers {
        // SAFETY: this function's contract.
        let (name, value) = unsafe { (header.name.as_bytes(), header.value.as_slice()) };
        let name = HeaderName::from_bytes(name).ok()?;
        copied.headers_mut().append(name, HeaderValue::from_bytes(value).ok()?);
    }
    Some(copied)
}

/// # Safety
///
/// `error` is null or valid for this call, and its texts with it.
unsafe fn copy_error(error: *const ErrorView) -> (Status, String) {
    // SAFETY: this function's contract.
    let Some(error) = (unsafe { error.as_ref() }) else {
        return (Status::FAILED, "(no reason)".to_owned());
    };
    // SAFETY: this function's contract.
    let message = unsafe { error.message.as_bytes() };
    (error.status, String::from_utf8_lossy(message).into_owned())
}

/// Why a hook did not do its work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HookError {
    /// It returned an error; the text is its own.
    #[error("{0}")]
    Err(String),
    /// It panicked; message and place.
    #[error("panicked: {0}")]
    Panicked(String),
    /// It ended its thread for good; what it did.
    #[error("never returns: {0}")]
    Lost(String),
}

/// Runs `on_load` on this thread.
///
/// # Errors
///
/// [`HookError`].
pub fn on_load(library: &Library) -> Result<(), HookError> {
    let Some(hook) = library.hooks.on_load else { return Ok(()) };
    // SAFETY: the library is mapped while `library` lives; the sink lives until the call returns.
    fallible(library, "on_load", |sink| unsafe { hook(sink) })
}

/// Runs `upgrade` on this thread: another generation of the plugin serves, of this number and version.
///
/// # Errors
///
/// [`HookError`].
pub fn upgrade(library: &Library, generation: u64, version: &str) -> Result<(), HookError> {
    let Some(hook) = library.hooks.upgrade else { return Ok(()) };
    let from = PreviousView { size: size_of::<PreviousView>(), generation, version: StrView::new(version) };
    // SAFETY: the library is mapped while `library` lives; view and sink live until the call returns.
    fallible(library, "upgrade", |sink| unsafe { hook(&from, sink) })
}

/// Runs `check` on this thread.
///
/// # Errors
///
/// [`HookError`].
pub fn check(library: &Library) -> Result<(), HookError> {
    let Some(hook) = library.hooks.check else { return Ok(()) };
    // SAFETY: the library is mapped while `library` lives; the sink lives until the call returns.
    fallible(library, "check", |sink| unsafe { hook(sink) })
}

/// Runs a hook that may refuse its generation.
fn fallible(
    library: &Library,
    name: &str,
    hook: impl FnOnce(*const ErrorSink) -> Status,
) -> Result<(), HookError> {
    unsafe extern "C" fn report(data: *mut c_void, error: *const ErrorView) {
        // SAFETY: the plugin passes an error that is valid for this call.
        let (_, text) = unsafe { copy_error(error) };
        // SAFETY: `data` is the `String` below, alive during the hook's call.
        unsafe { *data.cast::<String>() = text };
    }
    let mut text = String::new();
    let sink = ErrorSink { data: (&raw mut text).cast(), report: Some(report) };
    let running = Running { route: name, request: "" };
    let status =
        call::enter(hook_call(library, name), || library.code().inside_for(&running, || hook(&sink)));
    hook_outcome(status, text)
}

/// Runs `on_unload` on this thread.
///
/// # Errors
///
/// [`HookError`].
pub fn on_unload(library: &Library, reason: u32) -> Result<(), HookError> {
    let Some(hook) = library.hooks.on_unload else { return Ok(()) };
    let status = call::enter(hook_call(library, "on_unload"), || {
        // SAFETY: the library is mapped while `library` lives.
        library.code().inside_for(&Running { route: "on_unload", request: "" }, || unsafe { hook(reason) })
    });
    hook_outcome(status, String::new())
}

fn hook_outcome(status: Status, text: String) -> Result<(), HookError> {
    let panic = call::take_last_panic();
    match status {
        Status::OK => Ok(()),
        Status::PANICKED => Err(HookError::Panicked(panic.unwrap_or(text))),
        _ if text.is_empty() => Err(HookError::Err(format!("ended with status {} and no reason", status.0))),
        _ => Err(HookError::Err(text)),
    }
}

fn hook_call(library: &Library, hook: &str) -> Call {
    let caller = library.caller();
    Call {
        plugin: Arc::clone(&caller.plugin),
        generation: caller.generation,
        route: hook.into(),
        request_id: "".into(),
        deadline: None,
    }
}
