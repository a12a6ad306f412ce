//! Host -> plugin: what the functions in the plugin's table do.
//!
//! Every `extern "C"` function that [`plugin!`](crate::plugin) writes is one call to a function here,
//! and every function here runs the author's code inside [`guard`].
//!
//! # Invariants
//!
//! - No panic leaves this room: host and plugin have different copies of `std`, and a panic that
//!   crossed would abort the process.
//! - The panic hook and the log bridge are installed before the first line of the author's code runs.
#![expect(unsafe_code, reason = "is called by the host through the C ABI")]

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use crate::abi::{
    ABI_VERSION, BytesView, ErrorSink, ErrorView, HostTable, PairView, PanicView, PluginTable, PreviousView,
    ReplyView, RequestView, ResponseView, RouteView, Status, StrView, UNLOAD_REMOVED, UNLOAD_SHUTDOWN,
};
use crate::error::{Error, HttpError};
use crate::request::Request;
use crate::response::{IntoOutcome, Response};
use crate::{host, log};

// SAFETY: the tables are static data of the library: written at link time, never after. Two threads of
// the host may read them at the same time.
unsafe impl Sync for PluginTable {}
// SAFETY: as for `PluginTable`.
unsafe impl Sync for RouteView {}

/// Why a generation is being unloaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum UnloadReason {
    /// A newer generation took over.
    Reloaded,
    /// The plugin was deleted.
    Removed,
    /// The host is shutting down.
    Shutdown,
}

/// The generation that a new one takes over from: what an `upgrade` hook of [`plugin!`](crate::plugin) is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Previous<'a> {
    generation: u64,
    version: &'a str,
}

impl<'a> Previous<'a> {
    /// Its number.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The version in the `Cargo.toml` it was built with; empty if that generation does not say.
    pub fn version(&self) -> &'a str {
        self.version
    }
}

/// The entry symbol: remembers the host and returns the table.
///
/// # Safety
///
/// `host` is null or valid as long as this library is mapped.
pub unsafe fn entry(host: *const HostTable, table: &'static PluginTable) -> *const PluginTable {
    // SAFETY: this function's contract; every version of the table begins with size and version.
    let Some(found) = (unsafe { host.as_ref() }) else { return std::ptr::null() };
    if found.abi_version < ABI_VERSION {
        return std::ptr::null();
    }
    // SAFETY: this function's contract.
    unsafe { host::attach(host) };
    table
}

/// A route's handler: builds the request, runs the author's function, sends what it returned.
///
/// # Safety
///
/// `request` and `reply` are valid for this call.
pub unsafe fn handle<O: IntoOutcome>(
    request: *const RequestView,
    reply: *const ReplyView,
    handler: impl FnOnce(&Request) -> O,
) -> Status {
    // SAFETY: this function's contract.
    let reply = unsafe { &*reply };
    crate::registry::begin_call();
    let outcome = guard(|| {
        // SAFETY: `request` is valid for this call, and the `Request` does not outlive this closure.
        let request = unsafe { Request::new(request) };
        match handler(&request).into_outcome() {
            Ok(response) => respond(reply, &response, Status::OK),
            Err(error) => match error.downcast_ref::<HttpError>() {
                Some(answer) => respond(reply, &answer.to_response(request.wants_json()), Status::HTTP_ERROR),
                None => fail(reply, status_of(&error), &error.chain()),
            },
        }
    });
    outcome.unwrap_or_else(|message| {
        fail(reply, Status::PANICKED, &message);
        Status::PANICKED
    })
}

/// The load hook: installs panic hook and log bridge, then runs the author's hook.
///
/// # Safety
///
/// `error` is null or valid for this call.
pub unsafe fn on_load(error: *const ErrorSink, hook: impl FnOnce() -> Result<(), Error>) -> Status {
    let outcome = guard(|| {
        static INSTALLED: Once = Once::new();
        INSTALLED.call_once(|| {
            std::panic::set_hook(Box::new(forward_panic));
            log::install();
        });
        hook()
    });
    // SAFETY: this function's contract.
    unsafe { hook_ended(error, outcome) }
}

/// The upgrade hook.
///
/// # Safety
///
/// `from` and `error` are valid for this call; `error` may be null.
pub unsafe fn upgrade(
    from: *const PreviousView,
    error: *const ErrorSink,
    hook: impl FnOnce(Previous<'_>) -> Result<(), Error>,
) -> Status {
    let outcome = guard(|| {
        // SAFETY: this function's contract.
        let from = unsafe { &*from };
        // SAFETY: this function's contract: the text is valid for this call, which `from` does not outlive.
        let version = unsafe { from.version.as_bytes() };
        hook(Previous {
            generation: from.generation,
            version: std::str::from_utf8(version).unwrap_or_default(),
        })
    });
    // SAFETY: this function's contract.
    unsafe { hook_ended(error, outcome) }
}

/// The check hook.
///
/// # Safety
///
/// `error` is null or valid for this call.
pub unsafe fn check(error: *const ErrorSink, hook: impl FnOnce() -> Result<(), Error>) -> Status {
    let outcome = guard(hook);
    // SAFETY: this function's contract.
    unsafe { hook_ended(error, outcome) }
}

/// Reports how a hook ended that may refuse the generation.
///
/// # Safety
///
/// `error` is null or valid for this call.
unsafe fn hook_ended(error: *const ErrorSink, outcome: Result<Result<(), Error>, String>) -> Status {
    let (status, message) = match outcome {
        Ok(Ok(())) => return Status::OK,
        Ok(Err(error)) => (Status::FAILED, error.chain()),
        Err(message) => (Status::PANICKED, message),
    };
    // SAFETY: this function's contract.
    unsafe { report(error, status, &message) }
}

/// The unload hook.
pub fn on_unload(reason: u32, hook: impl FnOnce(UnloadReason)) -> Status {
    let reason = match reason {
        UNLOAD_REMOVED => UnloadReason::Removed,
        UNLOAD_SHUTDOWN => UnloadReason::Shutdown,
        _ => UnloadReason::Reloaded,
    };
    let outcome = guard(|| hook(reason));
    // No request comes any more.
    crate::registry::forget_all();
    outcome.map_or(Status::PANICKED, |()| Status::OK)
}

/// Runs the author's code and stops its panics, including one in the `Drop` of the payload.
///
/// # Errors
///
/// The panic's message.
pub(crate) fn guard<R>(body: impl FnOnce() -> R) -> Result<R, String> {
    catch_unwind(AssertUnwindSafe(body)).map_err(|payload| {
        let message = message_of(&*payload).to_owned();
        if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
            // Whoever panics in the drop of a panic may do so again: this one is leaked.
            std::mem::forget(second);
        }
        message
    })
}

/// Reports an error to a sink.
///
/// # Safety
///
/// `sink` is null or valid for this call.
pub(crate) unsafe fn report(sink: *const ErrorSink, status: Status, message: &str) -> Status {
    // SAFETY: this function's contract.
    if let Some(sink) = unsafe { sink.as_ref() }
        && let Some(report) = sink.report
    {
        // SAFETY: `report` and `data` belong together; the view lives until the call returns.
        unsafe { report(sink.data, &error_view(status, message)) };
    }
    status
}

fn error_view(status: Status, message: &str) -> ErrorView {
    ErrorView {
        size: size_of::<ErrorView>(),
        status,
        message: StrView::new(message),
        sqlstate: StrView::EMPTY,
    }
}

fn respond(reply: &ReplyView, response: &Response, status: Status) -> Status {
    let headers: Vec<PairView> = response
        .headers()
        .iter()
        .map(|(name, value)| PairView {
            name: StrView::new(name.as_str()),
            value: BytesView::new(value.as_bytes()),
        })
        .collect();
    let view = ResponseView {
        size: size_of::<ResponseView>(),
        status: response.status_code().as_u16(),
        headers: headers.as_ptr(),
        header_count: headers.len(),
        body: BytesView::new(response.bytes()),
    };
    // SAFETY: `respond` and `data` belong together; the view and what it points to live until the call returns.
    match unsafe { (reply.respond)(reply.data, &view) } {
        Status::OK => status,
        refused => {
            fail(reply, refused, "the host refused the response: its status or a header is not HTTP's")
        }
    }
}

fn fail(reply: &ReplyView, status: Status, message: &str) -> Status {
    // SAFETY: `fail` and `data` belong together; the view lives until the call returns.
    unsafe { (reply.fail)(reply.data, &error_view(status, message)) };
    Status::FAILED
}

/// What kind of failure an error is, as far as the host's answer to the client depends on it.
fn status_of(error: &Error) -> Status {
    error.root_status().unwrap_or(Status::FAILED)
}

fn message_of(payload: &(dyn Any + Send)) -> &str {
    if let Some(text) = payload.downcast_ref::<&'static str>() {
        text
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text
    } else {
        "(the panic has no message)"
    }
}

/// The panic hook: hands the panic to the host. No backtrace is taken here: a plugin's copy of `std`
/// would read debug information for every generation anew (35 MB each), the host does it once.
fn forward_panic(info: &std::panic::PanicHookInfo<'_>) {
    let Ok(host) = host::table() else { return };
    let thread = std::thread::current();
    let location = info.location();
    let view = PanicView {
        size: size_of::<PanicView>(),
        message: StrView::new(message_of(info.payload())),
        file: location.map_or(StrView::EMPTY, |l| StrView::new(l.file())),
        line: location.map_or(0, std::panic::Location::line),
        column: location.map_or(0, std::panic::Location::column),
        thread: StrView::new(thread.name().unwrap_or_default()),
    };
    // SAFETY: the table's own `ctx`; the view and its texts live until the call returns.
    unsafe { (host.panicked)(host.ctx, &view) };
}
