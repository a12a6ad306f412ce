//! The maker's side: a service as the host calls it.
//!
//! # Invariants
//!
//! - The address that the host keeps is that of a box with the trait object's box in it: one word, whatever the
//!   trait is. It is freed by `drop_value`, and by nothing else once the host has taken it.
#![expect(unsafe_code, reason = "is called by the host through the C ABI")]

use std::ffi::c_void;

use super::Interface;
use super::remote::{tables, type_view};
use super::wire::Malformed;
use crate::abi::{BytesSink, BytesView, ErrorSink, HandleId, ON_CHANGE_KEEP, ServiceView, Status};
use crate::entry::{guard, report};
use crate::error::Error;
use crate::host::{self, CallError, Owned};

/// Why a method did not answer.
#[derive(Debug)]
pub enum Refusal {
    /// It returned an error.
    Failed(Error),
    /// The arguments are not its own, or its answer cannot be written.
    Malformed(Malformed),
    /// There is no method of that number.
    NoMethod,
}

impl From<Malformed> for Refusal {
    fn from(error: Malformed) -> Refusal {
        Refusal::Malformed(error)
    }
}

/// Gives a service to the host.
pub(crate) fn hand_over<I: ?Sized + Interface>(service: Box<I>) -> Result<Owned, CallError> {
    let (host, table) = tables()?;
    let of = type_view::<I>(ON_CHANGE_KEEP);
    let value: *mut Box<I> = Box::into_raw(Box::new(service));
    let view = ServiceView {
        size: size_of::<ServiceView>(),
        value: value.cast(),
        call: call::<I>,
        drop_value: drop_value::<I>,
    };
    let mut id = HandleId::NONE;
    let created = host::call(|error| {
        // SAFETY: the table's own `ctx`; both views and `id` live until the call returns; the functions are those
        // of the value's type.
        unsafe { (table.create)(host.ctx, &of, &view, &mut id, error) }
    });
    match created {
        Ok(()) => Ok(Owned::new(id)),
        Err(error) => {
            // SAFETY: the host did not take it.
            drop(unsafe { Box::from_raw(value) });
            Err(error)
        }
    }
}

/// # Safety
///
/// The contract of [`ServiceView::call`]: `value` is the address of a `Box<I>` that lives until this returns, the
/// rest is valid for this call.
unsafe extern "C" fn call<I: ?Sized + Interface>(
    value: *mut c_void,
    method: u32,
    arguments: BytesView,
    answer: *const BytesSink,
    error: *const ErrorSink,
) -> Status {
    let outcome = guard(|| {
        // SAFETY: this function's contract; shared only, and `I` is `Sync`.
        let service: &I = unsafe { &*value.cast_const().cast::<Box<I>>() };
        // SAFETY: this function's contract.
        let arguments = unsafe { arguments.as_slice() };
        let mut bytes = Vec::new();
        service.serve(method, arguments, &mut bytes).map(|()| bytes)
    });
    let (status, words) = match outcome {
        Ok(Ok(bytes)) => {
            // SAFETY: this function's contract.
            if let Some(BytesSink { data, write: Some(write) }) = unsafe { answer.as_ref() } {
                // SAFETY: `write` and `data` belong together; the view lives until the call returns.
                unsafe { write(*data, BytesView::new(&bytes)) };
            }
            return Status::OK;
        }
        Ok(Err(Refusal::Failed(failed))) => (kind(failed.root_status()), failed.chain()),
        Ok(Err(Refusal::Malformed(words))) => (Status::INVALID, words.to_string()),
        Ok(Err(Refusal::NoMethod)) => (Status::INVALID, format!("there is no method number {method}")),
        Err(panic) => (Status::PANICKED, panic),
    };
    // SAFETY: this function's contract.
    unsafe { report(error, status, &words) }
}

/// What a method's error is on the wire. The kinds that say something of the call itself are not an error's.
fn kind(status: Option<Status>) -> Status {
    match status {
        None | Some(Status::OK | Status::PANICKED | Status::INVALID | Status::CLOSED | Status::NOT_FOUND) => {
            Status::FAILED
        }
        Some(status) => status,
    }
}

/// # Safety
///
/// `value` is the address of a `Box<I>` that nobody uses any more.
unsafe extern "C" fn drop_value<I: ?Sized + Interface>(value: *mut c_void) {
    // A panic has been reported by the hook.
    // SAFETY: this function's contract.
    let _ = guard(|| drop(unsafe { Box::from_raw(value.cast::<Box<I>>()) }));
}
