//! A safe in memory: all that the host's does, but for the disk.
#![expect(unsafe_code, reason = "plays the host's side of the C ABI")]

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::abi::{
    BytesSink, BytesView, CHANGE_ADD, CHANGE_DELETE, CHANGE_PUT, ENCODING_MESSAGEPACK, ErrorSink, HandleId,
    HostCtx, SAFE_AFTER_START, SAFE_FOR_EVER, SAFE_NO_VALUES, SAFE_REVERSE, SafeChangeView, SafeRangeView,
    SafeTable, SafeWriteView, Status, StrView,
};
use crate::entry::report;
use crate::safe::block;

pub(super) static TABLE: SafeTable = SafeTable {
    size: size_of::<SafeTable>(),
    get,
    list,
    len,
    commit,
    submit,
    settle,
    watch,
    watch_next,
    open_shared,
};

/// Most entries of one answer to `list`.
const PAGE: u64 = 1000;

#[derive(Clone)]
struct Entry {
    encoding: u8,
    version: u64,
    /// Milliseconds since 1970; 0: never.
    expires_at: u64,
    value: Vec<u8>,
}

struct Store {
    entries: BTreeMap<Vec<u8>, Entry>,
    version: u64,
}

static STORE: Mutex<Store> = Mutex::new(Store { entries: BTreeMap::new(), version: 0 });

/// The store, without what has expired.
fn store() -> MutexGuard<'static, Store> {
    let mut store = STORE.lock().unwrap_or_else(PoisonError::into_inner);
    let now = now_ms();
    store.entries.retain(|_, entry| entry.expires_at == 0 || entry.expires_at > now);
    store
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn send(sink: *const BytesSink, bytes: &[u8]) {
    // SAFETY: the plugin passes a sink that is valid for its call, which has not ended.
    let sink = unsafe { &*sink };
    if let Some(write) = sink.write {
        // SAFETY: `write` and `data` belong together; the bytes live until the call returns.
        unsafe { write(sink.data, BytesView::new(bytes)) };
    }
}

fn item(key: &[u8], entry: &Entry, with_value: bool) -> Vec<u8> {
    let value: &[u8] = if with_value { &entry.value } else { &[] };
    let head = block::head(entry.encoding, entry.version, entry.expires_at, key.len(), value.len());
    [&head.expect("tests keep less than 4 GiB"), key, value].concat()
}

unsafe extern "C" fn get(
    _: HostCtx,
    _: HandleId,
    keys: *const BytesView,
    key_count: usize,
    flags: u32,
    entries: *const BytesSink,
    _: *const ErrorSink,
) -> Status {
    let store = store();
    for i in 0..key_count {
        // SAFETY: the plugin passes so many keys, valid for this call.
        let key = unsafe { (*keys.add(i)).as_slice() };
        match store.entries.get(key) {
            Some(entry) => send(entries, &item(&[], entry, flags & SAFE_NO_VALUES == 0)),
            None => send(entries, &[block::ABSENT]),
        }
    }
    Status::OK
}

unsafe extern "C" fn list(
    _: HostCtx,
    _: HandleId,
    range: *const SafeRangeView,
    entries: *const BytesSink,
    _: *const ErrorSink,
) -> Status {
    // SAFETY: the plugin passes a range that is valid for this call.
    let range = unsafe { &*range };
    // SAFETY: as above.
    let (start, end) = unsafe { (range.start.as_slice().to_vec(), range.end.as_slice().to_vec()) };
    let first =
        if range.flags & SAFE_AFTER_START != 0 { Bound::Excluded(start) } else { Bound::Included(start) };
    let store = store();
    let is_before_end = |key: &Vec<u8>| end.is_empty() || *key < end;
    let mut found: Vec<_> =
        store.entries.range((first, Bound::Unbounded)).take_while(|(key, _)| is_before_end(key)).collect();
    if range.flags & SAFE_REVERSE != 0 {
        found.reverse();
    }
    let limit = if range.limit == 0 { PAGE } else { range.limit.min(PAGE) };
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    for (key, entry) in found.iter().take(limit) {
        send(entries, &item(key, entry, range.flags & SAFE_NO_VALUES == 0));
    }
    send(entries, &[if found.len() > limit { block::MORE } else { block::END }]);
    Status::OK
}

unsafe extern "C" fn len(_: HostCtx, _: HandleId, count: *mut u64, _: *const ErrorSink) -> Status {
    // SAFETY: `count` is writable during this call.
    unsafe { count.write(store().entries.len() as u64) };
    Status::OK
}

/// Done at once, in whatever mode: there is no disk to wait for.
unsafe extern "C" fn submit(
    ctx: HostCtx,
    safe: HandleId,
    write: *const SafeWriteView,
    _: u32,
    error: *const ErrorSink,
) -> Status {
    // SAFETY: the plugin passes a write that is valid for this call.
    let changes = unsafe { (*write).change_count };
    let (mut version, mut results) = (0, vec![0; changes]);
    // SAFETY: as above; there is room for a version and one result per change.
    unsafe { commit(ctx, safe, write, &mut version, results.as_mut_ptr(), error) }
}

unsafe extern "C" fn settle(_: HostCtx, _: HandleId, _: u64, _: *const ErrorSink) -> Status {
    Status::OK
}

unsafe extern "C" fn watch(
    _: HostCtx,
    _: HandleId,
    _: *const SafeRangeView,
    _: *mut HandleId,
    error: *const ErrorSink,
) -> Status {
    without(error, "nothing that watches a safe")
}

unsafe extern "C" fn watch_next(_: HostCtx, _: HandleId, _: u64, error: *const ErrorSink) -> Status {
    without(error, "nothing that watches a safe")
}

unsafe extern "C" fn open_shared(
    _: HostCtx,
    _: StrView,
    _: *mut HandleId,
    error: *const ErrorSink,
) -> Status {
    without(error, "no safes that plugins share")
}

fn without(error: *const ErrorSink, what: &str) -> Status {
    let words = format!("`plugin_api::testing` has {what}; test this with `host run`");
    // SAFETY: the plugin passes a sink that is null or valid for its call, which has not ended.
    unsafe { report(error, Status::INVALID, &words) }
}

unsafe extern "C" fn commit(
    _: HostCtx,
    _: HandleId,
    write: *const SafeWriteView,
    version: *mut u64,
    results: *mut i64,
    error: *const ErrorSink,
) -> Status {
    // SAFETY: the plugin passes a write that is valid for this call.
    let write = unsafe { &*write };
    let mut store = store();
    for i in 0..write.check_count {
        // SAFETY: the write has so many checks, valid for this call.
        let (key, wanted) = unsafe {
            let check = &*write.checks.add(i);
            (check.key.as_slice(), check.version)
        };
        if store.entries.get(key).map_or(0, |entry| entry.version) != wanted {
            // SAFETY: `version` is writable during this call.
            unsafe { version.write(i as u64) };
            return Status::CONFLICT;
        }
    }
    let next = store.version + 1;
    let mut entries = store.entries.clone();
    for i in 0..write.change_count {
        // SAFETY: the write has so many changes, valid for this call.
        let change = unsafe { &*write.changes.add(i) };
        match change_one(&mut entries, change, next) {
            // SAFETY: there is room for one number per change.
            Ok(result) => unsafe { results.add(i).write(result) },
            // SAFETY: the plugin passes a sink that is null or valid for this call.
            Err((status, words)) => return unsafe { report(error, status, words) },
        }
    }
    (store.entries, store.version) = (entries, next);
    // SAFETY: `version` is writable during this call.
    unsafe { version.write(next) };
    Status::OK
}

fn change_one(
    entries: &mut BTreeMap<Vec<u8>, Entry>,
    change: &SafeChangeView,
    version: u64,
) -> Result<i64, (Status, &'static str)> {
    // SAFETY: the plugin passes a change that is valid for the call that this is part of.
    let (key, value) = unsafe { (change.key.as_slice().to_vec(), change.value.as_slice().to_vec()) };
    let expires_at = match change.expires_in_ms {
        SAFE_FOR_EVER => 0,
        ms => now_ms().saturating_add(ms),
    };
    match change.kind {
        CHANGE_PUT => {
            let encoding =
                u8::try_from(change.encoding).map_err(|_| (Status::INVALID, "no such encoding"))?;
            entries.insert(key, Entry { encoding, version, expires_at, value });
            Ok(0)
        }
        CHANGE_DELETE => Ok(i64::from(entries.remove(&key).is_some())),
        CHANGE_ADD => {
            let (before, expires_at) = match entries.get(&key) {
                None => (change.initial, expires_at),
                Some(entry) => {
                    let number =
                        integer(&entry.value).filter(|_| u32::from(entry.encoding) == ENCODING_MESSAGEPACK);
                    (number.ok_or((Status::WRONG_TYPE, "the entry is no integer"))?, entry.expires_at)
                }
            };
            let sum =
                before.checked_add(change.delta).ok_or((Status::OUT_OF_RANGE, "the sum is out of range"))?;
            let value = [&[0xd3][..], &sum.to_be_bytes()].concat();
            entries.insert(key, Entry { encoding: ENCODING_MESSAGEPACK as u8, version, expires_at, value });
            Ok(sum)
        }
        _ => Err((Status::INVALID, "no such change")),
    }
}

/// An integer in any of MessagePack's forms that an `i64` can hold.
fn integer(bytes: &[u8]) -> Option<i64> {
    let (mark, rest) = bytes.split_first()?;
    Some(match (*mark, rest) {
        (0..=0x7f, []) => i64::from(*mark),
        (0xe0..=0xff, []) => i64::from(mark.cast_signed()),
        (0xcc, [byte]) => i64::from(*byte),
        (0xcd, rest) => i64::from(u16::from_be_bytes(rest.try_into().ok()?)),
        (0xce, rest) => i64::from(u32::from_be_bytes(rest.try_into().ok()?)),
        (0xcf, rest) => i64::try_from(u64::from_be_bytes(rest.try_into().ok()?)).ok()?,
        (0xd0, [byte]) => i64::from(byte.cast_signed()),
        (0xd1, rest) => i64::from(i16::from_be_bytes(rest.try_into().ok()?)),
        (0xd2, rest) => i64::from(i32::from_be_bytes(rest.try_into().ok()?)),
        (0xd3, rest) => i64::from_be_bytes(rest.try_into().ok()?),
        _ => return None,
    })
}
