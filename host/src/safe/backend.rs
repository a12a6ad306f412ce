//! What a safe is kept in: the seam between its promises and a file or a database server.
//!
//! Owns the trait that both kinds implement and the words they share. The conformance tests
//! (`tests/it/safe_backends.rs`) run the same scripts on both.
//!
//! # Invariants
//!
//! - `apply` decides each write of a batch by itself and makes those that hold together: all are durable
//!   when it returns, or its results say what is known.
//! - A [`View`] is what one commit left, for each call at least.

use std::fmt::Debug;
use std::ops::Bound;
use std::path::PathBuf;

use super::envelope::EntryRef;
use super::error::{ReadError, WriteError};
use super::write::{Commit, Write};

/// What a batch of writes came to, one result for each.
pub(super) type Outcome = Result<Commit, WriteError>;

/// Something that keeps the entries of one safe.
pub(super) trait Backend: Debug + Send + Sync {
    /// Shows `body` the entries as the last commit left them. It may be shown them again from the start
    /// when the first attempt failed.
    fn read(&self, body: &mut dyn FnMut(&dyn View) -> Result<(), Fault>) -> Result<(), ReadError>;

    /// Makes the writes of a batch that can be made, in order and together; `now` is the moment of all.
    fn apply(&self, writes: &[&Write], now: u64) -> Vec<Outcome>;

    /// Takes over all entries of another safe as they are, and its number of the last write; tells how many.
    /// It holds nothing so far.
    fn import(&self, from: &dyn View) -> Result<u64, WriteError>;

    /// Makes it smaller if that can be done; tells by how many bytes.
    fn compact(&self) -> Result<u64, WriteError>;

    /// Verifies what the engine keeps around the entries, where that can be done. All others wait meanwhile.
    fn verify_pages(&self) -> Result<bool, WriteError> {
        Ok(true)
    }

    /// What an operator wants to know of it.
    fn facts(&self) -> Facts;

    /// Begins to tell of changes that others make, where others can make any.
    fn listen(&self) -> Result<(), ReadError> {
        Ok(())
    }

    /// How far its clock is ahead of this machine's, in milliseconds.
    fn skew_ms(&self) -> i64 {
        0
    }

    /// Gives it up, cleanly. Later uses are errors.
    fn close(&self);

    /// Keeps every commit waiting until it is dropped.
    #[cfg(test)]
    fn hold(&self) -> Box<dyn Debug + '_>;
}

/// The entries as one commit left them.
pub(super) trait View {
    /// Shows `body` the entries of `keys`, each with its place in `keys`, whether they have expired or not: most
    /// never do, so the clock is the caller's affair.
    fn get(&self, keys: &[&[u8]], body: &mut dyn FnMut(usize, EntryRef<'_>)) -> Result<(), Fault>;

    /// Shows `body` the entries of a range in order, until it says `false`.
    ///
    /// At `now` 0 nothing has expired yet.
    fn scan(
        &self,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        is_reverse: bool,
        now: u64,
        body: &mut dyn FnMut(&[u8], EntryRef<'_>) -> bool,
    ) -> Result<(), Fault>;

    /// How many entries there are at `now`.
    fn len(&self, now: u64) -> Result<u64, Fault>;

    /// The number of the last write.
    fn sequence(&self) -> Result<u64, Fault>;

    /// Bytes that the entries take with all that belongs to them, where that can be told. Goes through all pages.
    fn used_bytes(&self) -> Result<Option<u64>, Fault> {
        Ok(None)
    }

    /// Verifies every checksum.
    fn verify(&self) -> Result<Report, Fault>;
}

/// Why a reader got no answer.
#[derive(Debug)]
pub(super) enum Fault {
    /// The bytes under this key are wrong.
    Corrupt(String),
    /// The engine failed; it may do better after it was opened anew.
    Engine(String),
}

/// What verifying found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Report {
    /// Entries, expired ones that were not cleared away yet included.
    pub(super) entries: u64,
    /// Keys of entries whose checksum does not match, printable.
    pub(super) damaged: Vec<String>,
    /// Whether what the engine keeps beside the entries is right too: order, index, page checksums.
    pub(super) is_structure_right: bool,
}

/// A backend, for the status.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    /// A file, or a server's address without its secrets.
    pub(super) place: PathBuf,
    /// Bytes it takes there.
    pub(super) bytes: u64,
    /// How often bytes were forced to the disk; commits, where a server does that.
    pub(super) syncs: u64,
    /// How often it was opened anew after a failure.
    pub(super) recoveries: u64,
}
