//! Plugin -> host: the functions in the host's table.
//!
//! Every `extern "C"` function here is one call to `guard`, which finds the calling generation,
//! catches panics of the host's own code and copies an error to the caller. Behind the guard there
//! are only values of the host.
//!
//! # Invariants
//!
//! - Nothing here knows plugins or HTTP: a call is attributed through its [`Caller`] and the
//!   request that [`call::current`] names.
//! - A pointer from a plugin is read during the call, once, in this room, and copied.
#![expect(unsafe_code, reason = "this room turns the boundary's pointers into values")]

pub mod call;
mod data;
mod db;
mod db_listen;
mod db_rows;
mod db_stream;
mod handles;
mod log;
mod registry;
mod safe;
mod service;
mod table;
mod tx;
pub(crate) mod view;

use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::Arc;

use plugin_api::abi::{BytesSink, BytesView, ErrorSink, ErrorView, HandleId, HostCtx, Status, StrView};

pub use self::handles::{Handles, Held};
pub use self::safe::OwnSafe;
pub use self::table::HostApi;
use crate::db::ErrorDetails;
use crate::pins::{Code, Pin, is_forked};
use crate::registry::{Overlay, Registry};

/// Who calls: one generation of one plugin. The boundary's `ctx` points to it.
#[derive(Debug)]
pub struct Caller {
    /// Name of the plugin.
    pub plugin: Arc<str>,
    /// Number of the generation.
    pub generation: u64,
    /// The process-wide registry.
    pub registry: Arc<Registry>,
    /// What `on_load` registers, until the generation is published.
    pub overlay: Arc<Overlay>,
    /// What this generation holds.
    pub handles: Arc<Handles>,
    /// Where relative paths of databases lead.
    pub data_dir: PathBuf,
    /// Its plugin's safe.
    pub safe: OwnSafe,
    /// Its code. What keeps a pointer into it beyond a call takes a pin, see `Caller::pin`.
    pub code: Arc<Code>,
}

impl Caller {
    /// Keeps the caller's code mapped for something that it has made and that outlives this call.
    ///
    /// # Errors
    ///
    /// [`Status::CLOSED`] when the code has been retired, nothing uses it any more, and threads destroy what they keep of
    /// it: this call comes from a destructor.
    pub(crate) fn pin(&self, reason: String) -> Result<Pin, Failure> {
        self.code.try_pin(reason).ok_or_else(|| {
            let (plugin, generation) = (&self.plugin, self.generation);
            let words = "is being unloaded, and makes nothing that would outlive it";
            Failure::new(Status::CLOSED, format!("{plugin} generation {generation} {words}"))
        })
    }
}

/// Why a host call failed, on its way to the plugin.
#[derive(Debug, Clone)]
pub struct Failure {
    /// What kind of failure.
    pub status: Status,
    /// A sentence fragment for a human.
    pub message: String,
    /// SQLSTATE of a database error, or empty.
    pub sqlstate: String,
    /// What else the database said.
    pub details: Option<Box<ErrorDetails>>,
}

thread_local! {
    /// What else the database said of the last failure that this thread was told.
    static LAST_DETAILS: RefCell<Option<Box<ErrorDetails>>> = const { RefCell::new(None) };
}

/// What else the database said of the last failure that this thread was told. Asked once.
fn last_details() -> Option<Box<ErrorDetails>> {
    LAST_DETAILS.try_with(RefCell::take).ok().flatten()
}

impl Failure {
    /// A failure without SQLSTATE.
    pub fn new(status: Status, message: impl Into<String>) -> Failure {
        Failure { status, message: message.into(), sqlstate: String::new(), details: None }
    }

    /// An argument that breaks the contract.
    pub fn invalid(message: impl Into<String>) -> Failure {
        Failure::new(Status::INVALID, message)
    }

    /// Copies this failure to `sink`, if there is one.
    ///
    /// # Safety
    ///
    /// `sink` is null or points to a sink that is valid for this call.
    pub(crate) unsafe fn report(&self, sink: *const ErrorSink) -> Status {
        let _ = LAST_DETAILS.try_with(|last| *last.borrow_mut() = self.details.clone());
        if sink.is_null() {
            return self.status;
        }
        // SAFETY: non-null by the check above; valid by this function's contract.
        let sink = unsafe { *sink };
        if let Some(report) = sink.report {
            let view = ErrorView {
                size: size_of::<ErrorView>(),
                status: self.status,
                message: StrView::new(&self.message),
                sqlstate: StrView::new(&self.sqlstate),
            };
            // SAFETY: `report` and `data` belong together by this function's contract; the view lives
            // until the call returns.
            unsafe { report(sink.data, &view) };
        }
        self.status
    }
}

/// Runs the body of a host call: finds the caller, stops panics, reports the error.
///
/// # Safety
///
/// `ctx` is the `ctx` of a host table whose library is mapped; `sink` is null or valid for the call.
pub(crate) unsafe fn guard(
    ctx: HostCtx,
    sink: *const ErrorSink,
    body: impl FnOnce(&Caller) -> Result<(), Failure>,
) -> Status {
    // SAFETY: a host table's `ctx` points to the `Caller` of its generation, which outlives the
    // library's mapping (see `table::HostApi`); by this function's contract the library is mapped.
    let caller = unsafe { &*ctx.cast::<Caller>() };
    if is_forked() {
        // The host's threads, its locks and its connections are not this process's.
        let failure = Failure::new(
            Status::FAILED,
            "this process was forked off the host, which cannot be called from here; \
             start a program with `std::process::Command` instead",
        );
        // SAFETY: `sink` by this function's contract.
        return unsafe { failure.report(sink) };
    }
    let failure = match crate::panic::catch(|| body(caller)) {
        Ok(Ok(())) => return Status::OK,
        Ok(Err(failure)) => failure,
        Err(message) => {
            // The log itself may be what panicked, at the end of a thread; then there is nobody left to tell.
            let _ = crate::panic::catch(|| {
                tracing::error!(plugin = %caller.plugin, generation = caller.generation, "host call panicked: {message}");
            });
            Failure::new(Status::PANICKED, format!("the host panicked: {message}"))
        }
    };
    // SAFETY: `sink` by this function's contract.
    unsafe { failure.report(sink) }
}

/// Enters an object in the caller's table and writes its handle to `out`; keeps nothing when there is no `out`.
///
/// # Safety
///
/// `out` is null or writable during this call.
unsafe fn give(caller: &Caller, held: Held, out: *mut HandleId) -> Result<(), Failure> {
    if out.is_null() {
        return Err(Failure::invalid("no place for the handle"));
    }
    let handle = caller.handles.insert(held);
    // SAFETY: non-null by the check above, and writable by this function's contract.
    unsafe { out.write(handle) };
    Ok(())
}

/// Writes an answer of bytes, if there is somebody who takes it.
///
/// # Safety
///
/// `sink` is null or valid for this call.
unsafe fn answer_with(sink: *const BytesSink, answer: &[u8]) {
    // SAFETY: this function's contract.
    if let Some(BytesSink { data, write: Some(write) }) = unsafe { sink.as_ref() } {
        // SAFETY: `write` and `data` belong together; the view lives until the call returns.
        unsafe { write(*data, BytesView::new(answer)) };
    }
}
