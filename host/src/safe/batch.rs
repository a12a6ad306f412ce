//! Many writes, one transaction, one sync: of the journal, or of the engine's file.
//!
//! # Invariants
//!
//! - The engine is told of a batch after the journal has it; so whatever the engine makes durable by itself
//!   was acknowledged, or is about to be.
//! - A batch that changes nothing does not touch the disk.
//! - Every entry with an expiry has its row in the index, and no other row is there.

use redb::{Database, Durability, ReadableTable as _, StorageError, Table, WriteTransaction};

use super::backend::{Fault, Outcome};
use super::decide::{self, Present, Rows};
use super::disk::Disk;
use super::envelope::{self, EntryRef};
use super::error::{WriteError, printable};
use super::journal::{Changes, Journal, Row};
use super::snapshot::verify_absence;
use super::store::{ENTRIES, EXPIRIES, META, text};
use super::write::Write;

/// Most expired entries that a batch clears away beside its own work.
const CLEARED: usize = 64;

/// A batch that is on disk, or that had nothing to put there.
pub(super) struct Applied {
    pub(super) results: Vec<Outcome>,
    /// The number of the last write on disk.
    pub(super) sequence: u64,
}

/// A batch that failed as a whole.
pub(super) struct Failure {
    /// The engine's words.
    pub(super) reason: String,
    pub(super) step: Step,
}

/// Where a batch failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Before anything of it could reach the disk.
    Prepare,
    /// On its way to the journal; the engine was told nothing.
    Append,
    /// In the engine.
    Commit,
}

impl Failure {
    fn before(error: impl std::fmt::Display) -> Failure {
        Failure { reason: text(error), step: Step::Prepare }
    }

    fn committing(error: impl std::fmt::Display) -> Failure {
        Failure { reason: text(error), step: Step::Commit }
    }
}

/// Applies the writes, numbered from `sequence` + 1, and makes them durable.
pub(super) fn apply(
    database: &Database,
    journal: &mut Journal,
    disk: &dyn Disk,
    sequence: u64,
    writes: &[&Write],
    now: u64,
) -> Result<Applied, Failure> {
    let mut transaction = database.begin_write().map_err(Failure::before)?;
    let mut tables = Tables::open(&transaction, now).map_err(Failure::before)?;
    let mut last = sequence;
    let mut results = Vec::with_capacity(writes.len());
    for write in writes {
        results.push(decide::write(&mut tables, write, &mut last, now).map_err(Failure::before)?);
    }
    if last == sequence {
        drop(tables);
        // Nothing was written, so there is nothing to lose by a rollback that fails.
        let _ = transaction.abort();
        return Ok(Applied { results, sequence });
    }
    tables.clear_expired().map_err(Failure::before)?;
    let changes = std::mem::take(&mut tables.changes);
    drop(tables);
    number(&transaction, "sequence", last).map_err(Failure::before)?;
    if !journal.has_room(&changes) {
        commit_durably(transaction, journal, disk)?;
        return Ok(Applied { results, sequence: last });
    }
    transaction.set_durability(Durability::None).map_err(Failure::before)?;
    journal
        .append(sequence, last, &changes)
        .map_err(|error| Failure { reason: text(error), step: Step::Append })?;
    transaction.commit().map_err(Failure::committing)?;
    Ok(Applied { results, sequence: last })
}

/// Makes everything durable that was committed, and the journal void.
pub(super) fn checkpoint(database: &Database, journal: &mut Journal, disk: &dyn Disk) -> Result<(), Failure> {
    let transaction = database.begin_write().map_err(Failure::before)?;
    commit_durably(transaction, journal, disk)
}

fn commit_durably(
    transaction: WriteTransaction,
    journal: &mut Journal,
    disk: &dyn Disk,
) -> Result<(), Failure> {
    let salt = Journal::fresh_salt();
    number(&transaction, "journal", salt).map_err(Failure::before)?;
    transaction.commit().map_err(Failure::committing)?;
    journal.begin(disk, salt);
    Ok(())
}

/// Makes the changes of a record once more.
pub(super) fn replay(transaction: &WriteTransaction, rows: &[Row<'_>]) -> Result<(), String> {
    let mut tables = Tables::open(transaction, 0).map_err(text)?;
    for (key, sealed) in rows {
        match sealed {
            Some(sealed) => {
                let entry = envelope::open(key, sealed)
                    .ok_or_else(|| format!("the journal's value under {} is damaged", printable(key)))?;
                tables.put(key, entry).map_err(text)?;
            }
            None => drop(tables.remove(key).map_err(text)?),
        }
    }
    Ok(())
}

/// Sets a number of the safe's own.
pub(super) fn number(transaction: &WriteTransaction, name: &str, number: u64) -> Result<(), redb::Error> {
    transaction.open_table(META)?.insert(name, number)?;
    Ok(())
}

struct Tables<'t> {
    entries: Table<'t, &'static [u8], &'static [u8]>,
    expiries: Table<'t, (u64, &'static [u8]), ()>,
    buffer: Vec<u8>,
    /// What the journal has to know. Not: what is cleared away because it has expired.
    changes: Changes,
    now: u64,
}

impl<'t> Tables<'t> {
    fn open(transaction: &'t WriteTransaction, now: u64) -> Result<Tables<'t>, redb::TableError> {
        Ok(Tables {
            entries: transaction.open_table(ENTRIES)?,
            expiries: transaction.open_table(EXPIRIES)?,
            buffer: Vec::new(),
            changes: Changes::default(),
            now,
        })
    }
}

impl Rows for Tables<'_> {
    type Error = StorageError;

    fn present(&self, key: &[u8]) -> Result<Result<Option<Present>, WriteError>, StorageError> {
        let Some(bytes) = self.entries.get(key)? else {
            return match verify_absence(&self.entries, key) {
                Ok(()) => Ok(Ok(None)),
                Err(Fault::Corrupt(key)) => Ok(Err(WriteError::Corrupt { key })),
                Err(Fault::Engine(reason)) => Err(StorageError::Corrupted(reason)),
            };
        };
        let Some(entry) = envelope::open(key, bytes.value()) else {
            return Ok(Err(WriteError::Corrupt { key: printable(key) }));
        };
        Ok(Ok(entry.is_alive(self.now).then(|| Present::of(entry))))
    }

    fn is_stored(&self, key: &[u8]) -> Result<bool, StorageError> {
        Ok(self.entries.get(key)?.is_some())
    }

    fn put(&mut self, key: &[u8], entry: EntryRef<'_>) -> Result<(), StorageError> {
        envelope::seal(key, entry, &mut self.buffer);
        self.changes.put(key, &self.buffer);
        let old = self.entries.insert(key, self.buffer.as_slice())?;
        let old = old.map_or(0, |bytes| expiry_of(bytes.value()));
        self.index(key, old, entry.expires_at)
    }

    fn remove(&mut self, key: &[u8]) -> Result<bool, StorageError> {
        let Some(old) = self.entries.remove(key)?.map(|bytes| expiry_of(bytes.value())) else {
            return Ok(false);
        };
        self.changes.remove(key);
        self.index(key, old, 0)?;
        Ok(true)
    }
}

impl Tables<'_> {
    /// Replaces an entry's row in the index of expiries.
    fn index(&mut self, key: &[u8], old: u64, new: u64) -> Result<(), StorageError> {
        if old != 0 && old != new {
            self.expiries.remove((old, key))?;
        }
        if new != 0 && old != new {
            self.expiries.insert((new, key), ())?;
        }
        Ok(())
    }

    /// Clears some of what has expired away, so that a safe does not grow for ever.
    fn clear_expired(&mut self) -> Result<(), StorageError> {
        let mut due = Vec::new();
        for row in self.expiries.iter()?.take(CLEARED) {
            let row = row?;
            let (expires_at, key) = row.0.value();
            if expires_at > self.now {
                break;
            }
            due.push((expires_at, key.to_vec()));
        }
        for (expires_at, key) in due {
            let found = self.entries.get(key.as_slice())?.map(|bytes| expiry_of(bytes.value()));
            // A damaged entry that was overwritten may have left a row behind.
            if found == Some(expires_at) {
                self.entries.remove(key.as_slice())?;
            }
            self.expiries.remove((expires_at, key.as_slice()))?;
        }
        Ok(())
    }
}

/// The expiry in a wrapped value, whatever its checksum says: the entry is about to go.
fn expiry_of(bytes: &[u8]) -> u64 {
    let field = bytes.get(18..envelope::HEADER).and_then(|field| field.try_into().ok());
    field.map_or(0, u64::from_le_bytes)
}
