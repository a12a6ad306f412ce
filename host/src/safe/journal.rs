//! The journal: what was acknowledged since the engine's file was last made durable.
//!
//! The engine writes whole pages, scattered over its file, and the maps that go with them: some twenty
//! pages for a change of a hundred bytes. So a commit is made in the engine's memory, and what it changed
//! is appended here and synced: one short write, in place, in a file that never grows. When the journal is
//! full, or a batch is too large for it, the next commit is the engine's own, durable, with a new *salt*
//! beside it, which makes everything in the journal void: a checkpoint.
//!
//! ```text
//! checksum (8) | length of the changes (4) | sequence before (8) | sequence after (8) | changes
//! change: kind (1) | length of the key (2) | length of the value (4) | key | sealed value
//! ```
//!
//! Numbers are little-endian. The checksum covers what follows it; its seed is the salt.
//!
//! # Invariants
//!
//! - A record begins at a block of its own, so a write that is cut short cannot hurt one before it.
//! - A record is written after the one before it is on disk. So one that cannot be read is the last, and was
//!   not acknowledged; if one after it can be read, the medium has forgotten something, which is an error.
//! - A record counts if its salt is the one in the engine's file and it continues that file's sequence. So
//!   records of other times, of other files and of a history that was given up are never replayed.

use std::hash::{BuildHasher as _, RandomState};
use std::io;

use redb::StorageBackend;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::disk::Disk;

/// What the medium writes in one piece, or more.
const BLOCK: usize = 4096;
/// Length of what comes before the changes.
const HEADER: usize = 28;
/// After so many checkpoints without room for a journal, room is looked for again.
const PATIENCE: u32 = 64;

/// Where records are appended. Empty, and not used, until [`begin`](Journal::begin).
#[derive(Debug, Default)]
pub(super) struct Journal {
    file: Option<Box<dyn StorageBackend>>,
    salt: u64,
    /// Where the next record goes.
    end: usize,
    /// Length of the file; 0 while there is none to be used.
    capacity: usize,
    /// Checkpoints until room is looked for again.
    rest: u32,
    buffer: Vec<u8>,
}

/// The changes of one batch, for its record.
#[derive(Debug, Default)]
pub(super) struct Changes(Vec<u8>);

/// One change of a record: the sealed value that was put under a key, or `None` if it was removed.
pub(super) type Row<'a> = (&'a [u8], Option<&'a [u8]>);

impl Changes {
    pub(super) fn put(&mut self, key: &[u8], sealed: &[u8]) {
        self.push(1, key, sealed);
    }

    pub(super) fn remove(&mut self, key: &[u8]) {
        self.push(2, key, &[]);
    }

    fn push(&mut self, kind: u8, key: &[u8], sealed: &[u8]) {
        let lengths = (u16::try_from(key.len()), u32::try_from(sealed.len()));
        let (Ok(key_len), Ok(sealed_len)) = lengths else { unreachable!("keys and values have limits") };
        self.0.push(kind);
        self.0.extend_from_slice(&key_len.to_le_bytes());
        self.0.extend_from_slice(&sealed_len.to_le_bytes());
        self.0.extend_from_slice(key);
        self.0.extend_from_slice(sealed);
    }
}

impl Journal {
    /// Whether there is room for a record of these changes.
    pub(super) fn has_room(&self, changes: &Changes) -> bool {
        // A quarter at most: what is larger is written once, by the engine.
        let len = padded(HEADER + changes.0.len());
        len <= self.capacity / 4 && self.end + len <= self.capacity
    }

    /// Appends a record and returns when it is on disk.
    ///
    /// After an error nothing is known of the record, and the journal must not be used before it was begun anew.
    pub(super) fn append(&mut self, before: u64, after: u64, changes: &Changes) -> io::Result<()> {
        let Some(file) = &self.file else { return Err(io::Error::other("there is no journal")) };
        let buffer = &mut self.buffer;
        buffer.clear();
        buffer.extend_from_slice(&[0; 8]);
        // Below the limit of a batch.
        buffer.extend_from_slice(&u32::try_from(changes.0.len()).unwrap_or(u32::MAX).to_le_bytes());
        buffer.extend_from_slice(&before.to_le_bytes());
        buffer.extend_from_slice(&after.to_le_bytes());
        buffer.extend_from_slice(&changes.0);
        let checksum = xxh3_64_with_seed(&buffer[8..], self.salt);
        buffer[..8].copy_from_slice(&checksum.to_le_bytes());
        buffer.resize(padded(buffer.len()), 0);
        file.write(self.end as u64, buffer)?;
        file.sync_data()?;
        self.end += buffer.len();
        Ok(())
    }

    /// A salt that no journal had before.
    pub(super) fn fresh_salt() -> u64 {
        // Keyed by the system's chance, and never the same twice in one process.
        RandomState::new().hash_one("journal").max(1)
    }

    /// Begins anew after a checkpoint that made `salt` durable. Without room for it there is no journal, and
    /// every commit is the engine's own.
    pub(super) fn begin(&mut self, disk: &dyn Disk, salt: u64) {
        (self.salt, self.end) = (salt, 0);
        if self.capacity > 0 {
            return;
        }
        if self.rest > 0 {
            self.rest -= 1;
            return;
        }
        match disk.make_journal() {
            Ok(file) => {
                self.capacity = file.len().ok().and_then(|len| usize::try_from(len).ok()).unwrap_or(0);
                self.file = Some(file);
            }
            Err(error) => {
                self.rest = PATIENCE;
                tracing::warn!(
                    safe = %disk.path().display(),
                    "no room for its journal, so that every commit takes longer: {error}"
                );
            }
        }
    }

    /// Uses the file no more, until a checkpoint begins it anew.
    pub(super) fn give_up(&mut self) {
        *self = Journal::default();
    }
}

/// Why a journal cannot be replayed.
#[derive(Debug)]
pub(super) enum ReplayError {
    /// It cannot be read.
    Io(io::Error),
    /// A record that was acknowledged is damaged.
    Damaged,
    /// The engine's words, about a change that it refused.
    Engine(String),
}

/// Shows `body` the records that continue `sequence`, one after the other; returns the last one's sequence.
pub(super) fn replay(
    file: &dyn StorageBackend,
    salt: u64,
    mut sequence: u64,
    mut body: impl FnMut(&[Row<'_>]) -> Result<(), ReplayError>,
) -> Result<u64, ReplayError> {
    let bytes = read(file).map_err(ReplayError::Io)?;
    let mut at = 0;
    while let Some(record) = Record::at(&bytes, at, salt) {
        at += record.len;
        if record.after <= sequence {
            continue;
        }
        let Some(rows) = record.rows().filter(|_| record.before == sequence) else {
            return Err(ReplayError::Damaged);
        };
        body(&rows)?;
        sequence = record.after;
    }
    let mut later = (at..bytes.len()).step_by(BLOCK).filter_map(|at| Record::at(&bytes, at, salt));
    if later.any(|record| record.after > sequence) {
        return Err(ReplayError::Damaged);
    }
    Ok(sequence)
}

fn read(file: &dyn StorageBackend) -> io::Result<Vec<u8>> {
    let len = usize::try_from(file.len()?).map_err(io::Error::other)?;
    let mut bytes = vec![0; len];
    file.read(0, &mut bytes)?;
    Ok(bytes)
}

/// A record whose checksum was verified.
struct Record<'a> {
    before: u64,
    after: u64,
    changes: &'a [u8],
    /// With what fills its last block.
    len: usize,
}

impl<'a> Record<'a> {
    fn at(bytes: &'a [u8], at: usize, salt: u64) -> Option<Record<'a>> {
        let bytes = bytes.get(at..)?;
        let (checksum, covered) = bytes.split_first_chunk::<8>()?;
        let (len, rest) = covered.split_first_chunk::<4>()?;
        let len = usize::try_from(u32::from_le_bytes(*len)).ok()?;
        let covered = covered.get(..HEADER - 8 + len)?;
        if xxh3_64_with_seed(covered, salt) != u64::from_le_bytes(*checksum) {
            return None;
        }
        let (before, rest) = rest.split_first_chunk::<8>()?;
        let (after, changes) = rest.split_first_chunk::<8>()?;
        Some(Record {
            before: u64::from_le_bytes(*before),
            after: u64::from_le_bytes(*after),
            changes: changes.get(..len)?,
            len: padded(HEADER + len),
        })
    }

    /// `None` if this is no list of changes.
    fn rows(&self) -> Option<Vec<Row<'a>>> {
        let mut rows = Vec::new();
        let mut rest = self.changes;
        while let Some((kind, tail)) = rest.split_first() {
            let (key_len, tail) = tail.split_first_chunk::<2>()?;
            let (sealed_len, tail) = tail.split_first_chunk::<4>()?;
            let (key, tail) = tail.split_at_checked(usize::from(u16::from_le_bytes(*key_len)))?;
            let sealed_len = usize::try_from(u32::from_le_bytes(*sealed_len)).ok()?;
            let (sealed, tail) = tail.split_at_checked(sealed_len)?;
            match kind {
                1 => rows.push((key, Some(sealed))),
                2 => rows.push((key, None)),
                _ => return None,
            }
            rest = tail;
        }
        Some(rows)
    }
}

fn padded(len: usize) -> usize {
    len.next_multiple_of(BLOCK)
}
