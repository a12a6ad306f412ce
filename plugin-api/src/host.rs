//! Plugin -> host: the host table of this generation, and the plumbing around its calls.
//!
//! # Invariants
//!
//! - The table is set once, by the entry symbol, before anything else of the plugin runs. Its
//!   lifetime is the library's mapping, so code of the library may call it `'static`.
//! - An error of the host is copied during the call that reports it.
#![expect(unsafe_code, reason = "calls the host through the C ABI")]

use std::ffi::c_void;
use std::fmt;
use std::mem::offset_of;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use crate::abi::{BytesSink, BytesView, ErrorSink, ErrorView, HandleId, HostTable, Status};
use crate::db::ErrorDetails;

/// Written by [`attach`], read by [`table`].
static TABLE: AtomicPtr<HostTable> = AtomicPtr::new(ptr::null_mut());

/// Remembers the host's table.
///
/// # Safety
///
/// `table` is valid as long as this library is mapped.
pub(crate) unsafe fn attach(table: *const HostTable) {
    // SAFETY: this function's contract; every version of the table begins with its size.
    let size = unsafe { (&raw const (*table).size).read() };
    if size >= offset_of!(HostTable, instance) + size_of::<u32>() {
        // SAFETY: a host whose table reaches this far has filled it in.
        crate::sync::is_here(unsafe { (&raw const (*table).instance).read() });
    }
    TABLE.store(table.cast_mut(), Ordering::Release);
}

/// The host's table.
///
/// # Errors
///
/// When this code runs outside of a host, say in a unit test.
pub(crate) fn table() -> Result<&'static HostTable, CallError> {
    // SAFETY: `attach` stored what the host passed to the entry symbol: null never, and valid as
    // long as this library is mapped, hence as long as this code can run.
    unsafe { TABLE.load(Ordering::Acquire).as_ref() }.ok_or_else(|| {
        CallError::new(Status::CLOSED, "there is no host: this code runs outside of `host run`")
    })
}

/// A failed host call: what kind, and the host's words.
#[derive(Debug, Clone)]
pub(crate) struct CallError {
    pub(crate) status: Status,
    pub(crate) message: String,
    pub(crate) sqlstate: String,
    /// What a database says beside its words.
    pub(crate) details: Option<Box<ErrorDetails>>,
}

impl CallError {
    pub(crate) fn new(status: Status, message: impl Into<String>) -> CallError {
        CallError { status, message: message.into(), sqlstate: String::new(), details: None }
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for CallError {}

/// Makes a host call that may fail: passes it a sink and turns its status into a `Result`.
pub(crate) fn call(body: impl FnOnce(*const ErrorSink) -> Status) -> Result<(), CallError> {
    unsafe extern "C" fn report(data: *mut c_void, error: *const ErrorView) {
        // SAFETY: `data` is the `Option` below, alive during the call that reports.
        let slot = unsafe { &mut *data.cast::<Option<CallError>>() };
        // SAFETY: the host passes an error that is valid for this call, and its texts with it.
        let (status, message, sqlstate) = unsafe {
            let error = &*error;
            (error.status, error.message.as_bytes(), error.sqlstate.as_bytes())
        };
        *slot = Some(CallError {
            status,
            message: String::from_utf8_lossy(message).into_owned(),
            sqlstate: String::from_utf8_lossy(sqlstate).into_owned(),
            details: None,
        });
    }
    let mut reported: Option<CallError> = None;
    let sink = ErrorSink { data: (&raw mut reported).cast(), report: Some(report) };
    match body(&sink) {
        Status::OK => Ok(()),
        status => {
            let mut error = reported
                .unwrap_or_else(|| CallError::new(status, format!("the host said {} and no more", status.0)));
            if status == Status::DATABASE {
                // At once: the host knows them until this thread's next failure.
                error.details = crate::db::last_details();
            }
            Err(error)
        }
    }
}

/// Makes a host call that writes bytes, and collects them.
pub(crate) fn collect(
    into: &mut Vec<u8>,
    body: impl FnOnce(*const BytesSink, *const ErrorSink) -> Status,
) -> Result<(), CallError> {
    unsafe extern "C" fn write(data: *mut c_void, bytes: BytesView) {
        // SAFETY: `data` is the vector `into`, borrowed for the whole call.
        let into = unsafe { &mut *data.cast::<Vec<u8>>() };
        // SAFETY: the host's bytes are valid for this call.
        into.extend_from_slice(unsafe { bytes.as_slice() });
    }
    let sink = BytesSink { data: (&raw mut *into).cast(), write: Some(write) };
    call(|error| body(&sink, error))
}

/// An object of the host, held by this plugin and released on drop.
#[derive(Debug)]
pub struct Owned(HandleId);

impl Owned {
    /// Takes over a handle that the host has just handed out.
    pub(crate) fn new(id: HandleId) -> Owned {
        Owned(id)
    }

    /// The handle, still owned by `self`.
    pub(crate) fn id(&self) -> HandleId {
        self.0
    }

    /// The handle, now owned by the caller.
    pub(crate) fn into_id(self) -> HandleId {
        let id = self.0;
        std::mem::forget(self);
        id
    }

    /// A second handle to the same object.
    pub(crate) fn try_clone(&self) -> Result<Owned, CallError> {
        let host = table()?;
        let mut id = HandleId::NONE;
        call(|_| {
            // SAFETY: the table's own `ctx`; `id` is writable during the call.
            unsafe { (host.handle_clone)(host.ctx, self.0, &mut id) }
        })?;
        Ok(Owned(id))
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        if let Ok(host) = table() {
            // SAFETY: the table's own `ctx`. The host ignores a handle that it does not know.
            unsafe { (host.handle_drop)(host.ctx, self.0) };
        }
    }
}
