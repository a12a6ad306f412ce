//! Several changes at once, if what they were decided by still holds.

use std::time::Duration;

use crate::abi::{ENCODING_BYTES, HandleId, SAFE_FOR_EVER};
#[cfg(feature = "serde")]
use crate::safe::Queue;
use crate::safe::call::{self, Made};
use crate::safe::{Entry, Key, ToKey, WriteError};

/// What must hold for a write to be made.
#[derive(Clone, Debug)]
pub(super) struct Check {
    pub(super) key: Key,
    /// 0: there is no entry.
    pub(super) version: u64,
}

/// A change of one key.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Put { key: Key, encoding: u32, value: Vec<u8>, expires_in_ms: u64 },
    Delete { key: Key },
    Add { key: Key, delta: i64, initial: i64, expires_in_ms: u64 },
}

/// What became of an atomic write.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a conflict is no error: look whether the write was made"]
pub enum Outcome {
    /// It is on disk.
    Committed {
        /// The version of every entry it put or added to.
        version: u64,
        /// The sums of its `add`s, in order.
        sums: Vec<i64>,
    },
    /// A check did not hold, and nothing is changed.
    Conflict {
        /// The key of that check.
        key: Key,
    },
}

impl Outcome {
    /// Whether the write was made.
    pub fn is_committed(&self) -> bool {
        matches!(self, Outcome::Committed { .. })
    }
}

/// Changes that are made together or not at all, if all checks hold. Made by
/// [`Safe::atomic`](crate::safe::Safe::atomic).
///
/// ```no_run
/// use plugin_api::prelude::*;
/// use plugin_api::safe::Outcome;
///
/// fn move_one(req: &Request) -> Result<bool> {
///     let safe = req.safe();
///     let Some(from) = safe.entry("left")? else { return Ok(false) };
///     let left: i64 = from.value()?;
///     let outcome = safe.atomic().check(&from).put("left", &(left - 1)).add("right", 1).commit()?;
///     Ok(outcome.is_committed())
/// }
/// ```
#[derive(Debug)]
#[must_use = "`commit` makes it"]
pub struct Atomic {
    safe: HandleId,
    pub(super) checks: Vec<Check>,
    pub(super) changes: Vec<Change>,
    expires_in_ms: u64,
    /// The first value that could not be encoded.
    pub(super) failed: Option<WriteError>,
}

impl Atomic {
    pub(super) fn new(safe: HandleId, expires_in_ms: u64) -> Atomic {
        Atomic { safe, checks: Vec::new(), changes: Vec::new(), expires_in_ms, failed: None }
    }

    /// Holds if the entry is still the one that was read.
    pub fn check(self, entry: &Entry) -> Atomic {
        self.check_version(entry.key(), entry.version())
    }

    /// Holds if the entry of `key` has this version; 0 means that there is none.
    pub fn check_version(mut self, key: impl ToKey, version: u64) -> Atomic {
        self.checks.push(Check { key: key.to_key().into_owned(), version });
        self
    }

    /// Holds if there is no entry of `key`.
    pub fn absent(self, key: impl ToKey) -> Atomic {
        self.check_version(key, 0)
    }

    /// Puts a value.
    #[cfg(feature = "serde")]
    pub fn put<T: serde::Serialize + ?Sized>(mut self, key: impl ToKey, value: &T) -> Atomic {
        let key = key.to_key().into_owned();
        match crate::safe::value::encode(&key, value) {
            Ok(value) => {
                let encoding = crate::abi::ENCODING_MESSAGEPACK;
                let expires_in_ms = self.expires_in_ms;
                self.changes.push(Change::Put { key, encoding, value, expires_in_ms });
            }
            Err(error) => self.failed = self.failed.or(Some(error)),
        }
        self
    }

    /// Puts bytes as they are.
    pub fn put_bytes(mut self, key: impl ToKey, value: impl Into<Vec<u8>>) -> Atomic {
        let (key, value) = (key.to_key().into_owned(), value.into());
        let expires_in_ms = self.expires_in_ms;
        self.changes.push(Change::Put { key, encoding: ENCODING_BYTES, value, expires_in_ms });
        self
    }

    /// Removes an entry, if there is one.
    pub fn delete(mut self, key: impl ToKey) -> Atomic {
        self.changes.push(Change::Delete { key: key.to_key().into_owned() });
        self
    }

    /// Adds to an integer; where there is no entry, to 0.
    pub fn add(self, key: impl ToKey, delta: i64) -> Atomic {
        self.add_to(key, delta, 0)
    }

    /// Adds to an integer; where there is no entry, to `initial`.
    pub fn add_to(mut self, key: impl ToKey, delta: i64, initial: i64) -> Atomic {
        let (key, expires_in_ms) = (key.to_key().into_owned(), self.expires_in_ms);
        self.changes.push(Change::Add { key, delta, initial, expires_in_ms });
        self
    }

    /// Puts a job into a queue of this safe, with the other changes or not at all.
    #[cfg(feature = "serde")]
    pub fn push<T: serde::Serialize + ?Sized>(mut self, queue: &Queue, value: &T) -> Atomic {
        match queue.job(value) {
            Ok(job) => self.changes.push(job),
            Err(error) => self.failed = self.failed.or(Some(error)),
        }
        self
    }

    /// Entries that the *following* changes make cease to be after this time.
    pub fn expires_in(mut self, time: Duration) -> Atomic {
        self.expires_in_ms = milliseconds(time);
        self
    }

    /// Makes the changes, and returns when they are on disk or when a check does not hold.
    ///
    /// # Errors
    ///
    /// [`WriteError`]; a conflict is none.
    pub fn commit(self) -> Result<Outcome, WriteError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        match call::commit(self.safe, &self.checks, &self.changes)? {
            Made::Done(version, results) => {
                let is_sum = |change: &Change| matches!(change, Change::Add { .. });
                let sums = self.changes.iter().zip(results).filter(|(change, _)| is_sum(change));
                Ok(Outcome::Committed { version, sums: sums.map(|(_, sum)| sum).collect() })
            }
            Made::Conflict(check) => match self.checks.into_iter().nth(check) {
                Some(check) => Ok(Outcome::Conflict { key: check.key }),
                None => {
                    Err(WriteError::Host { message: "the host names a check that was not made".to_owned() })
                }
            },
        }
    }
}

/// As the boundary counts; never the number that means "for ever".
pub(super) fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(SAFE_FOR_EVER - 1).min(SAFE_FOR_EVER - 1)
}
