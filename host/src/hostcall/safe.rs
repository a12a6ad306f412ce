//! Plugin -> host: the safe.
//!
//! Owns the translation between the boundary's views and the room `safe`. Whose safe it is says `own`;
//! what does not wait, or waits for others, is in `later`.
#![expect(unsafe_code, reason = "reads the boundary's views and writes through its out-pointers")]

mod later;
mod own;

use std::ops::Bound;
use std::time::{Duration, Instant};

use plugin_api::abi::{
    BytesSink, BytesView, CHANGE_ADD, CHANGE_DELETE, CHANGE_PUT, ErrorSink, HandleId, HostCtx,
    SAFE_AFTER_START, SAFE_FOR_EVER, SAFE_NO_VALUES, SAFE_REVERSE, SafeChangeView, SafeCheckView,
    SafeRangeView, SafeTable, SafeWriteView, Status,
};
use plugin_api::safe::block;

pub use self::own::OwnSafe;
use self::own::safe;
use super::view::{bytes, slice};
use super::{Caller, Failure, answer_with, call, guard};
use crate::safe::{Change, Check, Commit, EntryRef, Expiry, OpenError, ReadError, Write, WriteError};

/// The functions of the host's table.
pub(super) static SAFE_TABLE: SafeTable = SafeTable {
    size: size_of::<SafeTable>(),
    get,
    list,
    len,
    commit,
    submit: later::submit,
    settle: later::settle,
    watch: later::watch,
    watch_next: later::watch_next,
    open_shared: later::open_shared,
};

/// How long a write waits for its turn.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Most entries of one answer to `list`, and about how many bytes.
const PAGE_ENTRIES: u64 = 1000;
/// Likewise; one entry is always given.
const PAGE_BYTES: usize = 4 << 20;

unsafe extern "C" fn get(
    ctx: HostCtx,
    handle: HandleId,
    keys: *const BytesView,
    key_count: usize,
    flags: u32,
    entries: *const BytesSink,
    error: *const ErrorSink,
) -> Status {
    let body = |caller: &Caller| {
        let safe = safe(caller, handle)?;
        // SAFETY: by the table's contract `keys` and `key_count` describe an array that is valid for this
        // call.
        let keys: &[BytesView] = unsafe { slice(keys, key_count) };
        let with_values = flags & SAFE_NO_VALUES == 0;
        // Most calls ask for one key: its entry goes from the page it lies on to the caller, without a stop.
        if let [key] = keys {
            // SAFETY: the key's view is valid for this call, and so is `entries`, or null, by the table's contract.
            let found = safe
                .get(unsafe { bytes(*key) }, |entry| unsafe { answer_entry(entries, entry, with_values) })?;
            if found.is_none() {
                // SAFETY: as above.
                unsafe { answer_with(entries, &[block::ABSENT]) };
            }
            return Ok(());
        }
        // SAFETY: as above.
        let keys: Vec<&[u8]> = keys.iter().map(|key| unsafe { bytes(*key) }).collect();
        let mut answer = Vec::new();
        for item in safe.get_many(&keys, |entry| encoded(&[], entry, with_values))? {
            match item {
                Some(item) => answer.extend(item),
                None => answer.push(block::ABSENT),
            }
        }
        // SAFETY: as above.
        unsafe { answer_with(entries, &answer) };
        Ok(())
    };
    // SAFETY: `ctx` and `error` by the table's contract.
    unsafe { guard(ctx, error, body) }
}

unsafe extern "C" fn list(
    ctx: HostCtx,
    handle: HandleId,
    range: *const SafeRangeView,
    entries: *const BytesSink,
    error: *const ErrorSink,
) -> Status {
    let body = |caller: &Caller| {
        let safe = safe(caller, handle)?;
        // SAFETY: by the table's contract `range` is null or valid for this call.
        let Some(range) = (unsafe { range.as_ref() }) else {
            return Err(Failure::invalid("no range"));
        };
        // SAFETY: the range's views are valid for this call.
        let bounds = unsafe { bounds(range) };
        let limit = if range.limit == 0 { PAGE_ENTRIES } else { range.limit.min(PAGE_ENTRIES) };
        let with_values = range.flags & SAFE_NO_VALUES == 0;
        let mut answer = Vec::new();
        let (_, has_more) = safe.list(
            bounds,
            range.flags & SAFE_REVERSE != 0,
            usize::try_from(limit).unwrap_or(usize::MAX),
            |key, entry| {
                let value = if with_values { entry.value.len() } else { 0 };
                let has_room = answer.is_empty() || answer.len() + value <= PAGE_BYTES;
                has_room.then(|| answer.extend(encoded(key, entry, with_values)))
            },
        )?;
        answer.push(if has_more { block::MORE } else { block::END });
        // SAFETY: by the table's contract `entries` is null or valid for this call.
        unsafe { answer_with(entries, &answer) };
        Ok(())
    };
    // SAFETY: `ctx` and `error` by the table's contract.
    unsafe { guard(ctx, error, body) }
}

unsafe extern "C" fn len(ctx: HostCtx, handle: HandleId, count: *mut u64, error: *const ErrorSink) -> Status {
    let body = |caller: &Caller| {
        let entries = safe(caller, handle)?.len()?;
        if !count.is_null() {
            // SAFETY: non-null by the check above, and writable during this call by the table's contract.
            unsafe { count.write(entries) };
        }
        Ok(())
    };
    // SAFETY: `ctx` and `error` by the table's contract.
    unsafe { guard(ctx, error, body) }
}

unsafe extern "C" fn commit(
    ctx: HostCtx,
    handle: HandleId,
    write: *const SafeWriteView,
    version: *mut u64,
    results: *mut i64,
    error: *const ErrorSink,
) -> Status {
    let body = |caller: &Caller| {
        let safe = safe(caller, handle)?;
        // SAFETY: by the table's contract `write` is null or valid for this call.
        let (write, timeout) = unsafe { read(write) }?;
        let (number, numbers, outcome) = match safe.write(write, until(timeout))? {
            Commit::Done { version, results } => (version, results, Ok(())),
            Commit::Conflict { check } => (check as u64, Vec::new(), Err(conflict(check))),
        };
        if !version.is_null() {
            // SAFETY: non-null by the check above, and writable during this call by the table's contract.
            unsafe { version.write(number) };
        }
        if !results.is_null() {
            for (index, result) in numbers.iter().enumerate() {
                // SAFETY: there is room for one number per change, and `numbers` has no more; both by
                // contract, the table's and that of `Commit::Done`.
                unsafe { results.add(index).write(*result) };
            }
        }
        outcome
    };
    // SAFETY: `ctx` and `error` by the table's contract.
    unsafe { guard(ctx, error, body) }
}

/// An entry in the block's format.
fn encoded(key: &[u8], entry: EntryRef<'_>, with_value: bool) -> Vec<u8> {
    let value = if with_value { entry.value } else { &[] };
    [&head(key, entry, value), key, value].concat()
}

fn head(key: &[u8], entry: EntryRef<'_>, value: &[u8]) -> [u8; block::HEAD] {
    block::head(entry.encoding, entry.version, entry.expires_at, key.len(), value.len())
        .expect("keys and values are shorter than the block's limits")
}

/// Writes an entry whose key the caller knows.
///
/// # Safety
///
/// `sink` is null or valid for this call.
unsafe fn answer_entry(sink: *const BytesSink, entry: EntryRef<'_>, with_value: bool) {
    let value = if with_value { entry.value } else { &[] };
    // SAFETY: this function's contract.
    unsafe { answer_with(sink, &head(&[], entry, value)) };
    // SAFETY: likewise.
    unsafe { answer_with(sink, value) };
}

/// The keys of a range.
///
/// # Safety
///
/// The range's views are valid for `'a`.
unsafe fn bounds<'a>(range: &SafeRangeView) -> (Bound<&'a [u8]>, Bound<&'a [u8]>) {
    // SAFETY: this function's contract.
    let (start, end) = unsafe { (bytes(range.start), bytes(range.end)) };
    let is_after = range.flags & SAFE_AFTER_START != 0;
    let start = if is_after { Bound::Excluded(start) } else { Bound::Included(start) };
    let end = if end.is_empty() { Bound::Unbounded } else { Bound::Excluded(end) };
    (start, end)
}

fn conflict(check: usize) -> Failure {
    Failure::new(Status::CONFLICT, format!("check {check} of the write does not hold"))
}

/// The moment at which a call that may take this long is given up: at the request's deadline at the latest.
fn until(timeout: Duration) -> Instant {
    let until = Instant::now() + timeout;
    call::deadline().map_or(until, |deadline| deadline.min(until))
}

/// How long a call may wait, by the boundary's number.
fn patience(timeout_ns: u64) -> Duration {
    match timeout_ns {
        0 => TIMEOUT,
        ns => Duration::from_nanos(ns).min(TIMEOUT),
    }
}

/// Copies a write, and how long it may wait.
///
/// # Safety
///
/// `write` is null or points to a write that is valid for this call, and its views with it.
unsafe fn read(write: *const SafeWriteView) -> Result<(Write, Duration), Failure> {
    // SAFETY: this function's contract.
    let Some(view) = (unsafe { write.as_ref() }) else {
        return Err(Failure::invalid("no write"));
    };
    // SAFETY: pointers and counts describe arrays that are valid for this call, likewise.
    let (checks, changes): (&[SafeCheckView], &[SafeChangeView]) =
        unsafe { (slice(view.checks, view.check_count), slice(view.changes, view.change_count)) };
    let check = |check: &SafeCheckView| {
        // SAFETY: the key's view is valid for this call, likewise.
        let key = unsafe { bytes(check.key) }.to_vec();
        Check { key, version: check.version }
    };
    let checks = checks.iter().map(check).collect();
    let mut copied = Vec::with_capacity(changes.len());
    for view in changes {
        // SAFETY: the change's views are valid for this call, likewise.
        copied.push(unsafe { change(view) }?);
    }
    Ok((Write { checks, changes: copied }, patience(view.timeout_ns)))
}

/// # Safety
///
/// The change's views are valid for this call.
unsafe fn change(view: &SafeChangeView) -> Result<Change, Failure> {
    // SAFETY: this function's contract.
    let (key, value) = unsafe { (bytes(view.key).to_vec(), bytes(view.value)) };
    let expiry = match view.expires_in_ms {
        SAFE_FOR_EVER => Expiry::Never,
        ms => Expiry::In(ms),
    };
    let encoding = u8::try_from(view.encoding)
        .map_err(|_| Failure::invalid(format!("a value has the unknown encoding {}", view.encoding)))?;
    match view.kind {
        CHANGE_PUT => Ok(Change::Put { key, encoding, value: value.to_vec(), expiry }),
        CHANGE_DELETE => Ok(Change::Delete { key }),
        CHANGE_ADD => Ok(Change::Add { key, delta: view.delta, initial: view.initial, encoding, expiry }),
        kind => Err(Failure::invalid(format!("a change is of the unknown kind {kind}"))),
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Failure {
        let status = match &error {
            OpenError::Io { .. } | OpenError::InUse { .. } | OpenError::Server { .. } => Status::UNREACHABLE,
            OpenError::Corrupt { .. } => Status::CORRUPT,
            OpenError::Name(_) => Status::INVALID,
            OpenError::Closed => Status::CLOSED,
        };
        Failure::new(status, error.to_string())
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Failure {
        let status = match &error {
            ReadError::Corrupt { .. } => Status::CORRUPT,
            ReadError::Unavailable { .. } => Status::UNREACHABLE,
            ReadError::Closed => Status::CLOSED,
        };
        Failure::new(status, error.to_string())
    }
}

impl From<WriteError> for Failure {
    fn from(error: WriteError) -> Failure {
        let status = match &error {
            WriteError::Invalid(_) => Status::INVALID,
            WriteError::NotANumber { .. } => Status::WRONG_TYPE,
            WriteError::Overflow { .. } => Status::OUT_OF_RANGE,
            WriteError::Corrupt { .. } => Status::CORRUPT,
            WriteError::Overloaded => Status::EXHAUSTED,
            WriteError::TimedOut => Status::TIMED_OUT,
            WriteError::Refused { .. } | WriteError::Unavailable { .. } => Status::UNREACHABLE,
            WriteError::Indeterminate { .. } => Status::INDETERMINATE,
            WriteError::Closed => Status::CLOSED,
        };
        Failure::new(status, error.to_string())
    }
}

#[cfg(test)]
mod tests;
