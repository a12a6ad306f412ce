//! Tests of the room: what a safe promises, on a disk that fails as told.

mod basics;
mod disk;
mod fake;
mod faults;
mod grouping;
mod journal;
mod operating;
mod power;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::{Duration, Instant};

use super::{Change, Check, Commit, Expiry, Safe, Write, WriteError};

/// Far enough.
fn soon() -> Instant {
    Instant::now() + Duration::from_secs(30)
}

fn put(key: &str, value: &[u8]) -> Change {
    Change::Put { key: key.into(), encoding: 0, value: value.to_vec(), expiry: Expiry::Never }
}

fn put_for(key: &str, value: &[u8], ms: u64) -> Change {
    Change::Put { key: key.into(), encoding: 0, value: value.to_vec(), expiry: Expiry::In(ms) }
}

fn delete(key: &str) -> Change {
    Change::Delete { key: key.into() }
}

fn add(key: &str, delta: i64) -> Change {
    Change::Add { key: key.into(), delta, initial: 0, encoding: 1, expiry: Expiry::Never }
}

fn check(key: &str, version: u64) -> Check {
    Check { key: key.into(), version }
}

fn changes(changes: impl Into<Vec<Change>>) -> Write {
    Write { checks: Vec::new(), changes: changes.into() }
}

/// A write's version; a conflict is a failed test.
#[track_caller]
fn version(outcome: Result<Commit, WriteError>) -> u64 {
    match outcome.unwrap() {
        Commit::Done { version, .. } => version,
        Commit::Conflict { check } => panic!("check {check} did not hold"),
    }
}

#[track_caller]
fn results(outcome: Result<Commit, WriteError>) -> Vec<i64> {
    match outcome.unwrap() {
        Commit::Done { results, .. } => results,
        Commit::Conflict { check } => panic!("check {check} did not hold"),
    }
}

fn value(safe: &Safe, key: &str) -> Option<Vec<u8>> {
    safe.get(key.as_bytes(), |entry| entry.value.to_vec()).unwrap()
}

/// Everything: key -> version, expiry, value.
type Contents = BTreeMap<Vec<u8>, (u64, u64, Vec<u8>)>;

fn contents(safe: &Safe) -> Contents {
    let all = (Bound::Unbounded, Bound::Unbounded);
    let item = |key: &[u8], entry: super::EntryRef<'_>| {
        Some((key.to_vec(), (entry.version, entry.expires_at, entry.value.to_vec())))
    };
    let (items, has_more) = safe.list(all, false, usize::MAX, item).unwrap();
    assert!(!has_more);
    items.into_iter().collect()
}
