//! Plugin -> host: writes that nobody waits for in the call, and waiting for changes.
//!
//! # Invariants
//!
//! - A gated write is queued before its response can be sent, and the response waits for its outcome.
//! - A watch wakes a little before the request's deadline, so that a handler that waits can still answer.
#![expect(unsafe_code, reason = "reads the boundary's views and writes through its out-pointers")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use plugin_api::abi::{
    ErrorSink, HandleId, HostCtx, SAFE_GATED, SAFE_RELAXED, SafeRangeView, SafeWriteView, Status, StrView,
};
use tokio::sync::oneshot;

use super::super::view::text;
use super::super::{Caller, Failure, Held, call, give, guard};
use super::own::{self, safe, safe_if_open};
use super::{bounds, conflict, patience, read, until};
use crate::safe::{Commit, Safe, Woken, Write, WriteError};

/// How long before its request's deadline a watch wakes.
const MARGIN: Duration = Duration::from_millis(250);
/// The longest wait for a change.
const LONGEST_WATCH: Duration = Duration::from_secs(3600);

pub(super) unsafe extern "C" fn submit(
    ctx: HostCtx,
    handle: HandleId,
    write: *const SafeWriteView,
    mode: u32,
    error: *const ErrorSink,
) -> Status {
    let body = |caller: &Caller| {
        let safe = safe_if_open(caller, handle)?;
        // SAFETY: by the table's contract `write` is null or valid for this call.
        let (write, timeout) = unsafe { read(write) }?;
        match mode {
            SAFE_GATED => gated(&safe, write, timeout),
            SAFE_RELAXED => relaxed(caller, handle, &safe, write),
            mode => Err(Failure::invalid(format!("a write is of the unknown mode {mode}"))),
        }
    };
    // SAFETY: `ctx` and `error` by the table's contract.
    unsafe { guard(ctx, error, body) }
}

/// Queues a write that the response waits for; without a request the caller waits.
fn gated(safe: &Safe, write: Write, timeout: Duration) -> Result<(), Failure> {
    match call::open_gate() {
        Some(gate) => {
            let gate = Arc::new(Mutex::new(Some(gate)));
            let of_write = Arc::clone(&gate);
            let queued = safe.submit(write, move |outcome| tell(&of_write, made(outcome)));
            if queued.is_err() {
                // Nothing is under way: the handler is told, and its response is its own affair.
                tell(&gate, Ok(()));
            }
            Ok(queued?)
        }
        None => {
            own::may_block()?;
            made(&safe.write(write, until(timeout)))
        }
    }
}

/// Opens or closes a gate, once.
fn tell(gate: &Mutex<Option<oneshot::Sender<Result<(), Failure>>>>, outcome: Result<(), Failure>) {
    if let Some(gate) = gate.lock().take() {
        // The request may be over: its deadline passed.
        let _ = gate.send(outcome);
    }
}

/// Queues a write that nobody waits for.
fn relaxed(caller: &Caller, handle: HandleId, safe: &Safe, write: Write) -> Result<(), Failure> {
    let (failures, plugin) = (Arc::clone(&caller.safe.relaxed), Arc::clone(&caller.plugin));
    let tell = move |outcome: &Result<Commit, WriteError>| {
        if let Err(failure) = made(outcome) {
            tracing::warn!(plugin = &*plugin, "a relaxed write was not made: {}", failure.message);
            failures.lock().entry(handle.0).or_insert(failure);
        }
    };
    Ok(safe.submit(write, tell)?)
}

fn made(outcome: &Result<Commit, WriteError>) -> Result<(), Failure> {
    match outcome {
        Ok(Commit::Done { .. }) => Ok(()),
        Ok(Commit::Conflict { check }) => Err(conflict(*check)),
        Err(error) => Err(error.clone().into()),
    }
}

pub(super) unsafe extern "C" fn settle(
    ctx: HostCtx,
    handle: HandleId,
    timeout_ns: u64,
    error: *const ErrorSink,
) -> Status {
    let body = |caller: &Caller| {
        safe(caller, handle)?.settle(until(patience(timeout_ns)))?;
        caller.safe.relaxed.lock().remove(&handle.0).map_or(Ok(()), Err)
    };
    // SAFETY: `ctx` and `error` by the table's contract.
    unsafe { guard(ctx, error, body) }
}

pub(super) unsafe extern "C" fn watch(
    ctx: HostCtx,
    handle: HandleId,
    range: *const SafeRangeView,
    out: *mut HandleId,
    error: *const ErrorSink,
) -> Status {
    let body = |caller: &Caller| {
        let safe = safe(caller, handle)?;
        // SAFETY: by the table's contract `range` is null or valid for this call.
        let Some(range) = (unsafe { range.as_ref() }) else {
            return Err(Failure::invalid("no range"));
        };
        // SAFETY: the range's views are valid for this call.
        let (start, end) = unsafe { bounds(range) };
        let watch = safe.watch((start.map(<[u8]>::to_vec), end.map(<[u8]>::to_vec)))?;
        caller.safe.add_watch(&watch);
        // SAFETY: `out` is null or writable during this call, by the table's contract.
        unsafe { give(caller, Held::Watch(watch), out) }
    };
    // SAFETY: `ctx` and `error` by the table's contract.
    unsafe { guard(ctx, error, body) }
}

pub(super) unsafe extern "C" fn watch_next(
    ctx: HostCtx,
    watch: HandleId,
    timeout_ns: u64,
    error: *const ErrorSink,
) -> Status {
    let body = |caller: &Caller| {
        let Some(Held::Watch(watch)) = caller.handles.get(watch) else {
            return Err(Failure::new(Status::NOT_FOUND, "this handle names no watch"));
        };
        if timeout_ns != 0 {
            own::may_block()?;
        }
        let wanted = Instant::now() + Duration::from_nanos(timeout_ns).min(LONGEST_WATCH);
        let latest = call::deadline().and_then(|deadline| deadline.checked_sub(MARGIN));
        match watch.next(latest.map_or(wanted, |latest| latest.min(wanted))) {
            Woken::Changed => Ok(()),
            Woken::TimedOut => Err(Failure::new(Status::TIMED_OUT, "nothing has changed")),
            Woken::Cancelled => Err(Failure::new(
                Status::CLOSED,
                "the watch has ended: this code is no longer the current one",
            )),
        }
    };
    // SAFETY: `ctx` and `error` by the table's contract.
    unsafe { guard(ctx, error, body) }
}

pub(super) unsafe extern "C" fn open_shared(
    ctx: HostCtx,
    name: StrView,
    out: *mut HandleId,
    error: *const ErrorSink,
) -> Status {
    let body = |caller: &Caller| {
        // SAFETY: the name's view is valid for this call.
        let name = unsafe { text(name, "the name of a shared safe") }?;
        let handle = own::open_shared(caller, name)?;
        // SAFETY: `out` is writable during this call by the table's contract.
        unsafe { out.write(handle) };
        Ok(())
    };
    // SAFETY: `ctx` and `error` by the table's contract.
    unsafe { guard(ctx, error, body) }
}
