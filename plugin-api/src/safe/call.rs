//! Plugin -> host: the calls of the safe's table, and nothing else.
//!
//! # Invariants
//!
//! - Every view passed here borrows from an argument, so it outlives the call.
//! - A host whose table ends before the safe is not asked for it.
#![expect(unsafe_code, reason = "calls the host's functions of the safe through the C ABI")]

use std::mem::offset_of;

use crate::abi::{
    BytesView, CHANGE_ADD, CHANGE_DELETE, CHANGE_PUT, ENCODING_MESSAGEPACK, HandleId, HostTable,
    SAFE_AFTER_START, SAFE_FOR_EVER, SAFE_NO_VALUES, SAFE_REVERSE, SafeChangeView, SafeCheckView,
    SafeRangeView, SafeTable, SafeWriteView, Status, StrView,
};
use crate::host::{CallError, Owned, call, collect, table};
use crate::safe::atomic::{Change, Check};
use crate::safe::{Key, Range};

/// Most entries are not longer.
const SMALL: usize = 256;

/// The host's table and its functions of the safe.
fn safe() -> Result<(&'static HostTable, &'static SafeTable), CallError> {
    let host = table()?;
    let none = || CallError::new(Status::CLOSED, "this host offers no safe");
    if host.size < offset_of!(HostTable, safe) + size_of::<*const SafeTable>() {
        return Err(none());
    }
    // SAFETY: the table is long enough to hold the pointer, which is null or valid as long as the table.
    let safe = unsafe { host.safe.as_ref() };
    safe.map(|safe| (host, safe)).ok_or_else(none)
}

/// As [`safe`], if the host's table has the function at `offset`, which early hosts did not.
fn grown(offset: usize) -> Result<(&'static HostTable, &'static SafeTable), CallError> {
    let (host, safe) = safe()?;
    if safe.size < offset + size_of::<usize>() {
        return Err(CallError::new(Status::CLOSED, "this host is too old for it"));
    }
    Ok((host, safe))
}

/// The entry of a key as a block. It begins with room for a small value, so that it is allocated once.
pub(super) fn get_one(safe_id: HandleId, key: &Key, with_value: bool) -> Result<Vec<u8>, CallError> {
    let (host, safe) = safe()?;
    let view = BytesView::new(key.as_bytes());
    let flags = if with_value { 0 } else { SAFE_NO_VALUES };
    let mut block = Vec::with_capacity(SMALL);
    collect(&mut block, |entries, error| {
        // SAFETY: the table's own `ctx`; `view`, one key, borrows from `key`; `entries` and `error` are valid
        // during the call.
        unsafe { (safe.get)(host.ctx, safe_id, &view, 1, flags, entries, error) }
    })?;
    Ok(block)
}

/// The entries of keys as a block.
pub(super) fn get(safe_id: HandleId, keys: &[Key], with_values: bool) -> Result<Vec<u8>, CallError> {
    let (host, safe) = safe()?;
    let views: Vec<BytesView> = keys.iter().map(|key| BytesView::new(key.as_bytes())).collect();
    let flags = if with_values { 0 } else { SAFE_NO_VALUES };
    let mut block = Vec::new();
    collect(&mut block, |entries, error| {
        // SAFETY: the table's own `ctx`; the views borrow from `keys`; `entries` and `error` are valid
        // during the call.
        unsafe { (safe.get)(host.ctx, safe_id, views.as_ptr(), views.len(), flags, entries, error) }
    })?;
    Ok(block)
}

/// A page of a range as a block.
pub(super) fn list(safe_id: HandleId, range: &Range, with_values: bool) -> Result<Vec<u8>, CallError> {
    let (host, safe) = safe()?;
    let reverse = if range.is_reverse { SAFE_REVERSE } else { 0 };
    let view = bounds(range);
    let values = if with_values { 0 } else { SAFE_NO_VALUES };
    let view = SafeRangeView { flags: view.flags + reverse + values, ..view };
    let mut block = Vec::new();
    collect(&mut block, |entries, error| {
        // SAFETY: as in `get`; `view` borrows from `range`.
        unsafe { (safe.list)(host.ctx, safe_id, &view, entries, error) }
    })?;
    Ok(block)
}

/// How many entries there are.
pub(super) fn len(safe_id: HandleId) -> Result<u64, CallError> {
    let (host, safe) = safe()?;
    let mut count = 0;
    call(|error| {
        // SAFETY: the table's own `ctx`; `count` is writable and `error` valid during the call.
        unsafe { (safe.len)(host.ctx, safe_id, &mut count, error) }
    })?;
    Ok(count)
}

/// What became of a write: version and results, or which check did not hold.
pub(super) enum Made {
    Done(u64, Vec<i64>),
    Conflict(usize),
}

pub(super) fn commit(safe_id: HandleId, checks: &[Check], changes: &[Change]) -> Result<Made, CallError> {
    let (host, safe) = safe()?;
    let (checks, changes) = views(checks, changes);
    let write = write(&checks, &changes);
    let (mut version, mut results) = (0, vec![0; changes.len()]);
    let made = call(|error| {
        // SAFETY: the table's own `ctx`; the views borrow from the arguments; `version` and `results`,
        // with room for one number per change, are writable and `error` is valid during the call.
        unsafe { (safe.commit)(host.ctx, safe_id, &write, &mut version, results.as_mut_ptr(), error) }
    });
    match made {
        Ok(()) => Ok(Made::Done(version, results)),
        Err(error) if error.status == Status::CONFLICT => {
            Ok(Made::Conflict(usize::try_from(version).unwrap_or(usize::MAX)))
        }
        Err(error) => Err(error),
    }
}

/// Queues a write; `mode` is one of the boundary's.
pub(super) fn submit(
    safe_id: HandleId,
    checks: &[Check],
    changes: &[Change],
    mode: u32,
) -> Result<(), CallError> {
    let (host, safe) = grown(offset_of!(SafeTable, submit))?;
    let (checks, changes) = views(checks, changes);
    let write = write(&checks, &changes);
    call(|error| {
        // SAFETY: the table's own `ctx`; the views borrow from the arguments; `error` is valid during the call.
        unsafe { (safe.submit)(host.ctx, safe_id, &write, mode, error) }
    })
}

/// Waits until what was queued is decided.
pub(super) fn settle(safe_id: HandleId) -> Result<(), CallError> {
    let (host, safe) = grown(offset_of!(SafeTable, settle))?;
    // SAFETY: the table's own `ctx`; `error` is valid during the call.
    call(|error| unsafe { (safe.settle)(host.ctx, safe_id, 0, error) })
}

/// Watches a range.
pub(super) fn watch(safe_id: HandleId, range: &Range) -> Result<Owned, CallError> {
    let (host, safe) = grown(offset_of!(SafeTable, watch))?;
    let view = bounds(range);
    let mut id = HandleId::NONE;
    call(|error| {
        // SAFETY: the table's own `ctx`; `view` borrows from `range`; `id` is writable and `error` valid during
        // the call.
        unsafe { (safe.watch)(host.ctx, safe_id, &view, &mut id, error) }
    })?;
    Ok(Owned::new(id))
}

/// Waits for a change.
pub(super) fn watch_next(watch: &Owned, timeout_ns: u64) -> Result<(), CallError> {
    let (host, safe) = grown(offset_of!(SafeTable, watch_next))?;
    // SAFETY: the table's own `ctx`; `error` is valid during the call.
    call(|error| unsafe { (safe.watch_next)(host.ctx, watch.id(), timeout_ns, error) })
}

/// Opens a shared safe.
pub(super) fn open_shared(name: &str) -> Result<HandleId, CallError> {
    let (host, safe) = grown(offset_of!(SafeTable, open_shared))?;
    let mut id = HandleId::NONE;
    call(|error| {
        // SAFETY: the table's own `ctx`; the view borrows from `name`; `id` is writable and `error` valid during
        // the call.
        unsafe { (safe.open_shared)(host.ctx, StrView::new(name), &mut id, error) }
    })?;
    Ok(id)
}

fn views(checks: &[Check], changes: &[Change]) -> (Vec<SafeCheckView>, Vec<SafeChangeView>) {
    let check =
        |check: &Check| SafeCheckView { key: BytesView::new(check.key.as_bytes()), version: check.version };
    (checks.iter().map(check).collect(), changes.iter().map(view).collect())
}

/// A write of these views, which it points to.
fn write(checks: &[SafeCheckView], changes: &[SafeChangeView]) -> SafeWriteView {
    SafeWriteView {
        size: size_of::<SafeWriteView>(),
        checks: checks.as_ptr(),
        check_count: checks.len(),
        changes: changes.as_ptr(),
        change_count: changes.len(),
        timeout_ns: 0,
    }
}

fn bounds(range: &Range) -> SafeRangeView {
    SafeRangeView {
        size: size_of::<SafeRangeView>(),
        start: BytesView::new(&range.start),
        end: BytesView::new(&range.end),
        flags: if range.is_start_left_out { SAFE_AFTER_START } else { 0 },
        limit: range.limit,
    }
}

fn view(change: &Change) -> SafeChangeView {
    let none = SafeChangeView {
        kind: 0,
        encoding: 0,
        key: BytesView::EMPTY,
        value: BytesView::EMPTY,
        delta: 0,
        initial: 0,
        expires_in_ms: SAFE_FOR_EVER,
    };
    match change {
        Change::Put { key, encoding, value, expires_in_ms } => SafeChangeView {
            kind: CHANGE_PUT,
            encoding: *encoding,
            key: BytesView::new(key.as_bytes()),
            value: BytesView::new(value),
            expires_in_ms: *expires_in_ms,
            ..none
        },
        Change::Delete { key } => {
            SafeChangeView { kind: CHANGE_DELETE, key: BytesView::new(key.as_bytes()), ..none }
        }
        Change::Add { key, delta, initial, expires_in_ms } => SafeChangeView {
            kind: CHANGE_ADD,
            encoding: ENCODING_MESSAGEPACK,
            key: BytesView::new(key.as_bytes()),
            delta: *delta,
            initial: *initial,
            expires_in_ms: *expires_in_ms,
            ..none
        },
    }
}
