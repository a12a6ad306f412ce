//! Plugin -> host: the calls of the stream table and of the subscriptions' table, and nothing else.
//!
//! # Invariants
//!
//! - The author's functions run inside calls of the host, which no panic may cross: one is caught here,
//!   ends the stream, and goes on when the host has returned.
#![expect(unsafe_code, reason = "calls the host's stream functions through the C ABI")]

use std::any::Any;
use std::ffi::c_void;
use std::mem::offset_of;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use crate::abi::{
    BytesSink, BytesView, HandleId, HostTable, ListenTable, ListenView, NOTICE_GAP, NoticeSink, NoticeView,
    PartSink, PartSource, Status, StrView, StreamTable,
};
use crate::db::Notice;
use crate::db::call::prepared;
use crate::db::rows::Block;
use crate::db::{QueryError, ToValue};
use crate::host::{CallError, Owned, call, collect, table};

/// The host's table and its stream functions.
fn stream() -> Result<(&'static HostTable, &'static StreamTable), CallError> {
    let host = table()?;
    let none = || CallError::new(Status::CLOSED, "this host offers no streams of rows");
    if host.size < offset_of!(HostTable, stream) + size_of::<*const StreamTable>() {
        return Err(none());
    }
    // SAFETY: the table reaches beyond this field, by the check above; it is null or valid for as long
    // as the table itself.
    let stream = unsafe { host.stream.as_ref() };
    stream.map(|stream| (host, stream)).ok_or_else(none)
}

/// The host's table and its subscriptions' functions.
fn listen() -> Result<(&'static HostTable, &'static ListenTable), CallError> {
    let host = table()?;
    let none = || CallError::new(Status::CLOSED, "this host offers no subscriptions");
    if host.size < offset_of!(HostTable, listen) + size_of::<*const ListenTable>() {
        return Err(none());
    }
    // SAFETY: as in `stream`.
    let listen = unsafe { host.listen.as_ref() };
    listen.map(|listen| (host, listen)).ok_or_else(none)
}

/// Why the author's side ended a stream.
enum Ended<E> {
    Err(E),
    Panicked(Box<dyn Any + Send>),
}

/// An author's function on its way through the host, and how it ended.
struct Side<F, E> {
    body: F,
    ended: Option<Ended<E>>,
}

impl<F, E> Side<F, E> {
    fn new(body: F) -> Side<F, E> {
        Side { body, ended: None }
    }

    fn run(&mut self, step: impl FnOnce(&mut F) -> Result<(), E>) -> Status {
        let body = &mut self.body;
        self.ended = match catch_unwind(AssertUnwindSafe(|| step(body))) {
            Ok(Ok(())) => return Status::OK,
            Ok(Err(error)) => Some(Ended::Err(error)),
            Err(payload) => Some(Ended::Panicked(payload)),
        };
        Status::FAILED
    }

    /// What the call came to: the author's own ending before the host's words about it.
    fn conclude(self, outcome: Result<(), CallError>) -> Result<(), E>
    where
        E: From<QueryError>,
    {
        match self.ended {
            Some(Ended::Panicked(payload)) => resume_unwind(payload),
            Some(Ended::Err(error)) => Err(error),
            None => outcome.map_err(|error| QueryError::from(error).into()),
        }
    }
}

unsafe extern "C" fn take<F: FnMut(&[u8]) -> Result<(), E>, E>(data: *mut c_void, part: BytesView) -> Status {
    // SAFETY: `data` is the `Side` of the function that made the call, which has not returned.
    let side = unsafe { &mut *data.cast::<Side<F, E>>() };
    // SAFETY: the host's part is valid for this call.
    let part = unsafe { part.as_slice() };
    side.run(|body| body(part))
}

unsafe extern "C" fn give<F: FnMut(&mut dyn FnMut(&[u8])) -> Result<(), E>, E>(
    data: *mut c_void,
    part: *const BytesSink,
) -> Status {
    // SAFETY: as in `take`.
    let side = unsafe { &mut *data.cast::<Side<F, E>>() };
    // SAFETY: the host's sink is valid for this call.
    let BytesSink { data, write: Some(write) } = (unsafe { *part }) else { return Status::INVALID };
    side.run(|body| {
        body(&mut |bytes| {
            // SAFETY: `write` and `data` belong together; the view lives until the call returns.
            unsafe { write(data, BytesView::new(bytes)) };
        })
    })
}

/// The view of a side that takes. The types of function and side are tied here, for a pointer ties none.
fn sink_of<F: FnMut(&[u8]) -> Result<(), E>, E>(side: &mut Side<F, E>) -> PartSink {
    PartSink { data: std::ptr::from_mut(side).cast(), take: take::<F, E> }
}

/// The view of a side that gives.
fn source_of<F: FnMut(&mut dyn FnMut(&[u8])) -> Result<(), E>, E>(side: &mut Side<F, E>) -> PartSource {
    PartSource { data: std::ptr::from_mut(side).cast(), give: give::<F, E> }
}

/// `take_block` gets each block of rows.
pub(super) fn query_each<E: From<QueryError>, F: FnMut(&[u8]) -> Result<(), E>>(
    conn: &Owned,
    sql: &str,
    params: &[&dyn ToValue],
    take_block: F,
) -> Result<(), E> {
    let (host, stream) = stream().map_err(QueryError::from)?;
    let mut side = Side::<F, E>::new(take_block);
    let sink = sink_of(&mut side);
    let outcome = prepared(0, sql, params, |statement| {
        call(|error| {
            // SAFETY: the table's own `ctx`; statement, sink and error are valid during the call, and so is
            // the side that `sink` leads to, which nobody else uses meanwhile.
            unsafe { (stream.query_each)(host.ctx, conn.id(), statement, &sink, error) }
        })
    })?;
    side.conclude(outcome)
}

/// As [`stream`], if the host's table has the functions of rows, which early hosts did not.
fn rows() -> Result<(&'static HostTable, &'static StreamTable), CallError> {
    let (host, stream) = stream()?;
    if stream.size < offset_of!(StreamTable, rows_next) + size_of::<usize>() {
        return Err(CallError::new(Status::CLOSED, "this host is too old for an iterator over rows"));
    }
    Ok((host, stream))
}

/// Begins a statement whose rows are asked for.
pub(super) fn rows_open(conn: &Owned, sql: &str, params: &[&dyn ToValue]) -> Result<Owned, QueryError> {
    let (host, stream) = rows()?;
    let mut id = HandleId::NONE;
    prepared(0, sql, params, |statement| {
        call(|error| {
            // SAFETY: the table's own `ctx`; statement, `id` and `error` are valid during the call.
            unsafe { (stream.rows_open)(host.ctx, conn.id(), statement, &mut id, error) }
        })
    })??;
    Ok(Owned::new(id))
}

/// The next block; nothing after the last one.
pub(super) fn rows_next(rows_handle: &Owned) -> Result<Option<Block>, QueryError> {
    let (host, stream) = rows()?;
    let mut bytes = Vec::new();
    collect(&mut bytes, |block, error| {
        // SAFETY: the table's own `ctx`; `block` and `error` are valid during the call.
        unsafe { (stream.rows_next)(host.ctx, rows_handle.id(), block, error) }
    })?;
    if bytes.is_empty() {
        return Ok(None);
    }
    let malformed = |error: crate::db::rows::MalformedBlock| QueryError::Host { message: error.to_string() };
    Block::parse(bytes).map(Some).map_err(malformed)
}

/// `give_part` hands each part to the function it is given, or nothing at the end.
pub(super) fn copy_in<E: From<QueryError>, F: FnMut(&mut dyn FnMut(&[u8])) -> Result<(), E>>(
    conn: &Owned,
    sql: &str,
    give_part: F,
) -> Result<u64, E> {
    let (host, stream) = stream().map_err(QueryError::from)?;
    let mut side = Side::<F, E>::new(give_part);
    let source = source_of(&mut side);
    let mut stored = 0;
    let outcome = call(|error| {
        // SAFETY: as in `query_each`; `stored` is writable during the call.
        unsafe { (stream.copy_in)(host.ctx, conn.id(), StrView::new(sql), &source, &mut stored, error) }
    });
    side.conclude(outcome)?;
    Ok(stored)
}

/// `take_part` gets each part.
pub(super) fn copy_out<E: From<QueryError>, F: FnMut(&[u8]) -> Result<(), E>>(
    conn: &Owned,
    sql: &str,
    take_part: F,
) -> Result<(), E> {
    let (host, stream) = stream().map_err(QueryError::from)?;
    let mut side = Side::<F, E>::new(take_part);
    let sink = sink_of(&mut side);
    let outcome = call(|error| {
        // SAFETY: as in `query_each`.
        unsafe { (stream.copy_out)(host.ctx, conn.id(), StrView::new(sql), &sink, error) }
    });
    side.conclude(outcome)
}

pub(super) fn listener_open(url: &str, channels: &[&str], capacity: usize) -> Result<Owned, CallError> {
    let (host, listen) = listen()?;
    let channels: Vec<StrView> = channels.iter().map(|channel| StrView::new(channel)).collect();
    let config = ListenView {
        size: size_of::<ListenView>(),
        url: StrView::new(url),
        channels: channels.as_ptr(),
        channel_count: channels.len(),
        capacity,
    };
    let mut id = HandleId::NONE;
    call(|error| {
        // SAFETY: the table's own `ctx`; `config` and what it points to, `id` and `error` are valid during
        // the call.
        unsafe { (listen.open)(host.ctx, &config, &mut id, error) }
    })?;
    Ok(Owned::new(id))
}

pub(super) fn listener_next(listener: &Owned, timeout: Duration) -> Result<Notice, CallError> {
    unsafe extern "C" fn copy(data: *mut c_void, notice: *const NoticeView) {
        // SAFETY: `data` is the `Option` below, alive during the call.
        let slot = unsafe { &mut *data.cast::<Option<Notice>>() };
        // SAFETY: the host's notice is valid for this call.
        let view = unsafe { &*notice };
        let text = |view: StrView| {
            // SAFETY: the notice's texts are valid for this call.
            String::from_utf8_lossy(unsafe { view.as_bytes() }).into_owned()
        };
        *slot = Some(match view.kind {
            NOTICE_GAP => Notice::Gap,
            _ => Notice::Notification {
                channel: text(view.channel),
                payload: text(view.payload),
                backend: view.backend,
            },
        });
    }
    let (host, listen) = listen()?;
    let mut heard: Option<Notice> = None;
    let sink = NoticeSink { data: (&raw mut heard).cast(), take: copy };
    let timeout_ns = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
    call(|error| {
        // SAFETY: the table's own `ctx`; `sink` and `error` are valid during the call.
        unsafe { (listen.next)(host.ctx, listener.id(), timeout_ns, &sink, error) }
    })?;
    heard.ok_or_else(|| CallError::new(Status::FAILED, "the host said that it heard something, and not what"))
}
