//! Plugin -> host: streams of rows and of COPY.
//!
//! # Invariants
//!
//! - The plugin's functions are called on the calling thread, during the call, and never under a lock
//!   that one of the host's other calls would want for another connection.
#![expect(unsafe_code, reason = "calls the plugin's functions with views of the host's memory")]

use std::ffi::c_void;
use std::ops::ControlFlow;

use plugin_api::abi::{
    BytesSink, BytesView, ErrorSink, HandleId, HostCtx, PartSink, PartSource, StatementView, Status, StrView,
    StreamTable,
};

use super::db::read;
use super::db_rows::{rows_next, rows_open};
use super::tx::Target;
use super::view::text;
use super::{Caller, Failure, guard};
use crate::db::Streamed;

/// The functions of the host's table.
pub(super) static STREAM_TABLE: StreamTable =
    StreamTable { size: size_of::<StreamTable>(), query_each, copy_in, copy_out, rows_open, rows_next };

unsafe extern "C" fn query_each(
    ctx: HostCtx,
    conn: HandleId,
    statement: *const StatementView,
    blocks: *const PartSink,
    error: *const ErrorSink,
) -> Status {
    let body = |caller: &Caller| {
        let target = Target::of(caller, conn)?;
        // SAFETY: by the table's contract `statement` is null or valid for this call.
        let (_, sql, params) = unsafe { read(statement) }?;
        // SAFETY: by the table's contract `blocks` is null or valid for this call.
        let mut take = unsafe { taker(blocks) }?;
        all(target.run(|lease| lease.query_each(sql, &params, &mut take))?).map(drop)
    };
    // SAFETY: `ctx` and `error` by the table's contract.
    unsafe { guard(ctx, error, body) }
}

unsafe extern "C" fn copy_in(
    ctx: HostCtx,
    conn: HandleId,
    sql: StrView,
    source: *const PartSource,
    stored: *mut u64,
    error: *const ErrorSink,
) -> Status {
    let body = |caller: &Caller| {
        let target = Target::of(caller, conn)?;
        // SAFETY: the view is valid for this call.
        let sql = unsafe { text(sql, "the statement") }?;
        // SAFETY: by the table's contract `source` is null or valid for this call.
        let mut give = unsafe { giver(source) }?;
        let number = all(target.run(|lease| lease.copy_in(sql, &mut give))?)?;
        if !stored.is_null() {
            // SAFETY: non-null by the check above, and writable during this call by the table's contract.
            unsafe { stored.write(number) };
        }
        Ok(())
    };
    // SAFETY: `ctx` and `error` by the table's contract.
    unsafe { guard(ctx, error, body) }
}

unsafe extern "C" fn copy_out(
    ctx: HostCtx,
    conn: HandleId,
    sql: StrView,
    sink: *const PartSink,
    error: *const ErrorSink,
) -> Status {
    let body = |caller: &Caller| {
        let target = Target::of(caller, conn)?;
        // SAFETY: the view is valid for this call.
        let sql = unsafe { text(sql, "the statement") }?;
        // SAFETY: by the table's contract `sink` is null or valid for this call.
        let mut take = unsafe { taker(sink) }?;
        all(target.run(|lease| lease.copy_out(sql, &mut take))?).map(drop)
    };
    // SAFETY: `ctx` and `error` by the table's contract.
    unsafe { guard(ctx, error, body) }
}

fn all(streamed: Streamed) -> Result<u64, Failure> {
    match streamed {
        Streamed::All(number) => Ok(number),
        Streamed::Stopped => Err(Failure::new(Status::STOPPED, "the stream was ended by its own side")),
    }
}

fn flow(status: Status) -> ControlFlow<()> {
    if status == Status::OK { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
}

/// The plugin's function for parts, as one of ours.
///
/// # Safety
///
/// `sink` is null or valid for as long as the function that is returned.
unsafe fn taker(sink: *const PartSink) -> Result<impl FnMut(&[u8]) -> ControlFlow<()>, Failure> {
    // SAFETY: null or valid, by this function's contract.
    let Some(PartSink { data, take }) = (unsafe { sink.as_ref() }).copied() else {
        return Err(Failure::invalid("nobody takes the stream"));
    };
    Ok(move |part: &[u8]| {
        // SAFETY: `take` and `data` belong together and are valid, by the outer function's contract; the
        // view lives until the call returns.
        flow(unsafe { take(data, BytesView::new(part)) })
    })
}

/// The plugin's source of parts, as a function of ours.
///
/// # Safety
///
/// `source` is null or valid for as long as the function that is returned.
unsafe fn giver(source: *const PartSource) -> Result<impl FnMut(&mut Vec<u8>) -> ControlFlow<()>, Failure> {
    unsafe extern "C" fn append(data: *mut c_void, bytes: BytesView) {
        // SAFETY: `data` is the vector that is borrowed for the call of `give` below.
        let part = unsafe { &mut *data.cast::<Vec<u8>>() };
        // SAFETY: the plugin's bytes are valid for this call.
        part.extend_from_slice(unsafe { bytes.as_slice() });
    }
    // SAFETY: null or valid, by this function's contract.
    let Some(PartSource { data, give }) = (unsafe { source.as_ref() }).copied() else {
        return Err(Failure::invalid("nobody gives the stream"));
    };
    Ok(move |part: &mut Vec<u8>| {
        let sink = BytesSink { data: (&raw mut *part).cast(), write: Some(append) };
        // SAFETY: `give` and `data` belong together and are valid, by the outer function's contract; the
        // sink lives until the call returns, and nobody else uses `part` meanwhile.
        flow(unsafe { give(data, &sink) })
    })
}
