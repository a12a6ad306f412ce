//! What a writer asks for: checks that must hold, and changes that are made together.
//!
//! # Invariants
//!
//! - A write is valid before it is queued: within the limits, each key changed once.

use std::collections::HashSet;

use super::error::WriteError;

/// Longest key, in bytes.
pub const MAX_KEY: usize = 1024;
/// Longest value, in bytes.
pub const MAX_VALUE: usize = 16 << 20;
/// Most checks, and most changes, of one write.
pub const MAX_CHANGES: usize = 1000;

/// Holds if the entry under `key` has this version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// The key.
    pub key: Vec<u8>,
    /// The version; 0: there is no entry.
    pub version: u64,
}

/// When an entry that is written ceases to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// Never.
    Never,
    /// So many milliseconds after the write. 0: at once, so the entry is never seen.
    In(u64),
}

impl Expiry {
    /// Milliseconds since 1970, 0 for never.
    pub(super) fn at(self, now: u64) -> u64 {
        match self {
            Expiry::Never => 0,
            Expiry::In(ms) => now.saturating_add(ms),
        }
    }
}

/// A change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Puts a value under the key, whatever was there. Its result is 0.
    Put {
        /// The key.
        key: Vec<u8>,
        /// How the author's types are encoded in `value`.
        encoding: u8,
        /// The value's bytes.
        value: Vec<u8>,
        /// When the entry ceases to be.
        expiry: Expiry,
    },
    /// Removes the key. Its result is 1 if there was an entry, else 0.
    Delete {
        /// The key.
        key: Vec<u8>,
    },
    /// Adds to the integer under the key. Its result is the sum.
    Add {
        /// The key.
        key: Vec<u8>,
        /// How much.
        delta: i64,
        /// What is added to where there is no entry.
        initial: i64,
        /// The encoding of integers, for an entry that this makes.
        encoding: u8,
        /// Of an entry that this makes; one that is there keeps its own.
        expiry: Expiry,
    },
}

impl Change {
    /// The key that changes.
    pub fn key(&self) -> &[u8] {
        match self {
            Change::Put { key, .. } | Change::Delete { key } | Change::Add { key, .. } => key,
        }
    }
}

/// Changes that are made together or not at all, if all checks hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Write {
    /// What must hold.
    pub checks: Vec<Check>,
    /// What is changed then.
    pub changes: Vec<Change>,
}

impl Write {
    /// What the write costs the queue, in bytes.
    pub(super) fn weight(&self) -> usize {
        let checks: usize = self.checks.iter().map(|check| check.key.len()).sum();
        let change = |change: &Change| match change {
            Change::Put { key, value, .. } => key.len() + value.len(),
            Change::Delete { key } | Change::Add { key, .. } => key.len(),
        };
        checks + self.changes.iter().map(change).sum::<usize>() + 64
    }

    /// Refuses what breaks a limit or changes a key twice.
    pub(super) fn validate(&self) -> Result<(), WriteError> {
        if self.checks.len() > MAX_CHANGES || self.changes.len() > MAX_CHANGES {
            let words = format!("a write has at most {MAX_CHANGES} checks and {MAX_CHANGES} changes");
            return Err(WriteError::Invalid(words));
        }
        let mut seen = HashSet::new();
        for key in self.checks.iter().map(|check| check.key.as_slice()) {
            validate_key(key)?;
        }
        for change in &self.changes {
            validate_key(change.key())?;
            if let Change::Put { value, .. } = change
                && value.len() > MAX_VALUE
            {
                let words =
                    format!("the value has {} bytes, and at most {MAX_VALUE} may be put", value.len());
                return Err(WriteError::Invalid(words));
            }
            if self.changes.len() > 1 && !seen.insert(change.key()) {
                let key = super::error::printable(change.key());
                return Err(WriteError::Invalid(format!("one write changes {key} twice")));
            }
        }
        Ok(())
    }
}

/// Refuses keys that the safe cannot hold.
pub(super) fn validate_key(key: &[u8]) -> Result<(), WriteError> {
    match key.len() {
        0 => Err(WriteError::Invalid("a key is not empty".to_owned())),
        1..=MAX_KEY => Ok(()),
        len => {
            Err(WriteError::Invalid(format!("the key has {len} bytes, and at most {MAX_KEY} are possible")))
        }
    }
}

/// What became of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Commit {
    /// All checks held; the changes are on disk.
    Done {
        /// The version of every entry that the write put or added to.
        version: u64,
        /// One result for each change, as [`Change`] says.
        results: Vec<i64>,
    },
    /// A check did not hold; nothing is changed.
    Conflict {
        /// Which, counted from 0.
        check: usize,
    },
}
