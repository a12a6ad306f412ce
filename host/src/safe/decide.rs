//! What a write comes to, given what is stored: the same for every backend.
//!
//! # Invariants
//!
//! - A write sees the writes before it in the batch, and its own checks and sums are settled before its
//!   first change: one that fails leaves nothing behind and fails alone.

use super::backend::Outcome;
use super::envelope::EntryRef;
use super::error::{WriteError, printable};
use super::number;
use super::write::{Change, Commit, Write};

/// What is stored, as the batch has left it so far.
pub(super) trait Rows {
    /// How the engine fails; that fails the whole batch.
    type Error;

    /// The entry of a key, if it is there and alive.
    fn present(&self, key: &[u8]) -> Result<Result<Option<Present>, WriteError>, Self::Error>;

    /// Whether anything is stored under a key, alive or damaged.
    fn is_stored(&self, key: &[u8]) -> Result<bool, Self::Error>;

    /// Stores an entry, whatever was there.
    fn put(&mut self, key: &[u8], entry: EntryRef<'_>) -> Result<(), Self::Error>;

    /// Removes what is stored under a key; tells whether there was anything.
    fn remove(&mut self, key: &[u8]) -> Result<bool, Self::Error>;
}

/// An entry that is there, as far as a decision needs it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Present {
    pub(super) version: u64,
    pub(super) expires_at: u64,
    pub(super) encoding: u8,
    /// Its value, if that is an integer.
    pub(super) number: Option<i64>,
}

impl Present {
    pub(super) fn of(entry: EntryRef<'_>) -> Present {
        Present {
            version: entry.version,
            expires_at: entry.expires_at,
            encoding: entry.encoding,
            number: number::read(entry.value),
        }
    }
}

/// What a change comes to, settled before the first change is made.
struct Plan {
    /// The change's result.
    result: i64,
    /// Of the entry that an addition leaves.
    expires_at: u64,
    /// Likewise.
    encoding: u8,
}

/// Makes one write, or says why not. `last` is the number of the last write that changed something; `now`
/// the moment of the batch.
pub(super) fn write<R: Rows>(
    rows: &mut R,
    write: &Write,
    last: &mut u64,
    now: u64,
) -> Result<Outcome, R::Error> {
    for (index, check) in write.checks.iter().enumerate() {
        let version = match rows.present(&check.key)? {
            Ok(present) => present.map_or(0, |present| present.version),
            Err(error) => return Ok(Err(error)),
        };
        if version != check.version {
            return Ok(Ok(Commit::Conflict { check: index }));
        }
    }
    let mut plans = Vec::with_capacity(write.changes.len());
    for change in &write.changes {
        match plan(rows, change, now)? {
            Ok(plan) => plans.push(plan),
            Err(error) => return Ok(Err(error)),
        }
    }
    let version = *last + 1;
    let mut is_changed = false;
    let mut results = Vec::with_capacity(plans.len());
    for (change, plan) in write.changes.iter().zip(plans) {
        results.push(plan.result);
        is_changed |= make(rows, change, &plan, version, now)?;
    }
    if is_changed {
        *last = version;
    }
    Ok(Ok(Commit::Done { version: *last, results }))
}

/// Settles what a change will do.
fn plan<R: Rows>(rows: &R, change: &Change, now: u64) -> Result<Result<Plan, WriteError>, R::Error> {
    let (key, delta, initial, encoding, expiry) = match change {
        Change::Put { .. } => return Ok(Ok(Plan { result: 0, expires_at: 0, encoding: 0 })),
        Change::Delete { key } => {
            let is_there = match rows.present(key)? {
                Ok(present) => present.is_some(),
                // A damaged entry may be deleted: that is how one gets rid of it.
                Err(_) if rows.is_stored(key)? => true,
                Err(error) => return Ok(Err(error)),
            };
            return Ok(Ok(Plan { result: i64::from(is_there), expires_at: 0, encoding: 0 }));
        }
        Change::Add { key, delta, initial, encoding, expiry } => (key, delta, initial, encoding, expiry),
    };
    let present = match rows.present(key)? {
        Ok(present) => present,
        Err(error) => return Ok(Err(error)),
    };
    let (base, expires_at, encoding) = match present {
        None => (*initial, expiry.at(now), *encoding),
        Some(Present { number: Some(number), encoding: found, expires_at, .. }) if found == *encoding => {
            (number, expires_at, found)
        }
        Some(_) => return Ok(Err(WriteError::NotANumber { key: printable(key) })),
    };
    Ok(match base.checked_add(*delta) {
        Some(result) => Ok(Plan { result, expires_at, encoding }),
        None => Err(WriteError::Overflow { key: printable(key) }),
    })
}

/// Makes a planned change; tells whether anything is to be written.
fn make<R: Rows>(
    rows: &mut R,
    change: &Change,
    plan: &Plan,
    version: u64,
    now: u64,
) -> Result<bool, R::Error> {
    match change {
        Change::Put { key, encoding, value, expiry } => {
            let expires_at = expiry.at(now);
            rows.put(key, EntryRef { version, expires_at, encoding: *encoding, value })?;
            Ok(true)
        }
        Change::Add { key, .. } => {
            let value = number::write(plan.result);
            let &Plan { expires_at, encoding, .. } = plan;
            rows.put(key, EntryRef { version, expires_at, encoding, value: &value })?;
            Ok(true)
        }
        Change::Delete { key } => rows.remove(key),
    }
}
