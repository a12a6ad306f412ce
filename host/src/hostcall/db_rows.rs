//! Plugin -> host: rows that the plugin asks for, block after block.
//!
//! A driver hands rows to a function; a reader who asks needs it the other way round. So the statement runs on a
//! thread of its own, which waits with a block in its hand until the reader wants it.
//!
//! # Invariants
//!
//! - Two blocks at most are ahead of the reader: one who stops asking stops the server.
//! - The connection takes other statements again once the reader has been told of the end, or has dropped the
//!   handle; however far the thread has got.
//! - The thread works in the request that asked: for its deadline, its transaction, its name.
#![expect(unsafe_code, reason = "reads the boundary's views and writes through its out-pointers")]

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use parking_lot::Mutex;
use plugin_api::abi::{BytesSink, ErrorSink, HandleId, HostCtx, StatementView, Status};
use plugin_api::db::{ArrayBuf, OwnedArray, Value};

use super::db::{may_block, read};
use super::tx::Target;
use super::{Caller, Failure, Held, answer_with, give, guard};
use crate::db::Steady;
use crate::tx;

/// A statement whose rows are being read.
#[derive(Debug)]
pub struct Reading {
    blocks: Mutex<Option<Receiver<Vec<u8>>>>,
    /// The thread keeps the connection until this is gone.
    reader: Mutex<Option<SyncSender<()>>>,
    thread: Mutex<Option<JoinHandle<Result<(), Failure>>>>,
}

impl Reading {
    /// Begins a statement.
    fn begin(target: Target, sql: String, params: OwnedArray) -> Result<Reading, Failure> {
        let (sender, receiver) = sync_channel(1);
        let (begun, has_begun) = sync_channel(1);
        let (reader, is_read) = sync_channel(0);
        let scope = tx::current();
        let work = move || {
            let body = || run(target, &sql, &params, &begun, sender, &is_read);
            let outcome = crate::panic::catch(|| match &scope {
                Some(scope) => scope.run(body),
                None => body(),
            });
            outcome.unwrap_or_else(|message| {
                Err(Failure::new(Status::PANICKED, format!("the host panicked: {message}")))
            })
        };
        let thread = std::thread::Builder::new()
            .name("db-rows".to_owned())
            .spawn(work)
            .map_err(|error| Failure::new(Status::FAILED, format!("no thread to read the rows: {error}")))?;
        // From here on the connection is taken, and another statement is told so instead of waiting for a reader
        // who waits for it. Nothing is said where the statement could not even begin.
        let _ = has_begun.recv();
        Ok(Reading {
            blocks: Mutex::new(Some(receiver)),
            reader: Mutex::new(Some(reader)),
            thread: Mutex::new(Some(thread)),
        })
    }

    /// The next block; nothing after the last one.
    fn next(&self) -> Result<Option<Vec<u8>>, Failure> {
        let mut blocks = self.blocks.lock();
        if let Some(block) = blocks.as_ref().and_then(|receiver| receiver.recv().ok()) {
            return Ok(Some(block));
        }
        *blocks = None;
        self.end().map(|()| None)
    }

    /// Waits for the statement's end, and says how it was; that is said once.
    fn end(&self) -> Result<(), Failure> {
        *self.reader.lock() = None;
        let Some(thread) = self.thread.lock().take() else { return Ok(()) };
        thread.join().unwrap_or_else(|_| Err(Failure::new(Status::PANICKED, "the host panicked")))
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        // Whoever holds a block finds nobody who takes it.
        *self.blocks.get_mut() = None;
        if let Err(failure) = self.end() {
            tracing::debug!("rows that nobody reads any more: {}", failure.message);
        }
    }
}

/// Runs the statement and offers its blocks.
fn run(
    target: Target,
    sql: &str,
    params: &OwnedArray,
    begun: &SyncSender<()>,
    blocks: SyncSender<Vec<u8>>,
    is_read: &Receiver<()>,
) -> Result<(), Failure> {
    let params: Vec<Value<'_>> = params.as_array().iter().collect();
    let stream = |steady: &mut Steady| {
        // There is room for it, and it may be that nobody waits.
        let _ = begun.try_send(());
        let mut offer = |block: &[u8]| match blocks.send(block.to_vec()) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        };
        let outcome = steady.query_each(sql, &params, &mut offer);
        drop(blocks);
        // Nothing is ever sent: it ends when the reader does.
        let _ = is_read.recv();
        outcome
    };
    target.run(|lease| lease.with(stream)).map(drop)
}

pub(super) unsafe extern "C" fn rows_open(
    ctx: HostCtx,
    conn: HandleId,
    statement: *const StatementView,
    out: *mut HandleId,
    error: *const ErrorSink,
) -> Status {
    let body = |caller: &Caller| {
        let target = Target::of(caller, conn)?;
        // SAFETY: by the table's contract `statement` is null or valid for this call.
        let (_, sql, params) = unsafe { read(statement) }?;
        let mut kept = ArrayBuf::new();
        params.into_iter().for_each(|param| kept.push(param));
        let reading = Reading::begin(target, sql.to_owned(), kept.finish())?;
        // SAFETY: by the table's contract `out` is null or writable during this call.
        unsafe { give(caller, Held::Rows(Arc::new(reading)), out) }
    };
    // SAFETY: `ctx` and `error` by the table's contract.
    unsafe { guard(ctx, error, body) }
}

pub(super) unsafe extern "C" fn rows_next(
    ctx: HostCtx,
    rows: HandleId,
    block: *const BytesSink,
    error: *const ErrorSink,
) -> Status {
    let body = |caller: &Caller| {
        may_block()?;
        let Some(Held::Rows(reading)) = caller.handles.get(rows) else {
            return Err(Failure::new(Status::NOT_FOUND, "this handle names no rows"));
        };
        if let Some(next) = reading.next()? {
            // SAFETY: by the table's contract `block` is null or valid for this call.
            unsafe { answer_with(block, &next) };
        }
        Ok(())
    };
    // SAFETY: `ctx` and `error` by the table's contract.
    unsafe { guard(ctx, error, body) }
}
