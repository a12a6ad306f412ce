//! One safe's database: committed batches, the snapshot that readers share, recovery.
//!
//! Owns: the tables and their meaning, opening, opening anew after a failure. Does not own: who waits
//! for whom (`group`), the bytes' place (`disk`).
//!
//! # Invariants
//!
//! - Readers see what is on disk and nothing else: the snapshot is replaced after a commit has returned.
//! - After any failure of the engine the database is dropped and opened again before it is used: what it
//!   holds in memory is not trusted, what is on disk is.
//! - `sequence` is part of every commit, so the disk itself tells whether a commit that failed was made.
//! - What is on disk is the engine's file and, after it, what the journal has: opened together, always.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use redb::{
    Builder, CompactionError, Database, DatabaseError, ReadableDatabase as _, StorageError, TableDefinition,
};

use super::backend::{Backend, Facts, Fault, Outcome, View};
use super::batch::{self, Step};
use super::copy::{self, CopyFault};
use super::disk::{self, Disk, FileDisk};
use super::error::{OpenError, ReadError, WriteError};
use super::journal::{self, Journal, ReplayError};
use super::snapshot::Snapshot;
use super::write::Write;

pub(super) const ENTRIES: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("entries");
/// When an entry expires, and its key.
pub(super) const EXPIRIES: TableDefinition<'static, (u64, &[u8]), ()> = TableDefinition::new("expiries");
/// `format`, `sequence` and, as `journal`, the salt of what continues the file.
pub(super) const META: TableDefinition<'static, &str, u64> = TableDefinition::new("meta");

/// The format of the tables and of what is in them.
pub(super) const FORMAT: u64 = 1;
/// Pages kept in memory, per safe.
const CACHE: usize = 64 << 20;
/// How long a database that could not be opened is left alone.
const BACK_OFF: Duration = Duration::from_millis(100);
/// How often who wants the database alone waits for a reader that is still at it, and how long each time.
const ALONE_TRIES: usize = 100;
const ALONE_REST: Duration = Duration::from_millis(5);

/// The database of one safe.
#[derive(Debug)]
pub(super) struct Store {
    disk: Box<dyn Disk>,
    /// Held by who commits or opens anew. Readers of a healthy safe never touch it.
    writer: Mutex<Writer>,
    /// What readers read; `None` while the database is not open. Written under `writer`.
    snapshot: ArcSwapOption<Snapshot>,
    /// How often a failure made it open anew. Written under `writer`, read by the status.
    recoveries: AtomicU64,
}

#[derive(Debug)]
struct Writer {
    /// `None` after a failure, until it could be opened anew; and once closed.
    database: Option<Database>,
    /// The number of the last write on disk.
    sequence: u64,
    journal: Journal,
    /// Why the last opening failed, and when the next is due.
    failure: Option<(String, Instant)>,
    is_closed: bool,
}

impl Store {
    /// Opens the database on `disk`, repairing what a crash left.
    pub(super) fn open(disk: Box<dyn Disk>) -> Result<Store, OpenError> {
        let (database, sequence) = open_database(&*disk)?;
        let corrupt = |reason| OpenError::Corrupt { path: disk.path().to_owned(), reason };
        let snapshot = Snapshot::of(&database).map_err(corrupt)?;
        Ok(Store {
            writer: Mutex::new(Writer {
                database: Some(database),
                sequence,
                journal: Journal::default(),
                failure: None,
                is_closed: false,
            }),
            snapshot: ArcSwapOption::from_pointee(snapshot),
            recoveries: AtomicU64::new(0),
            disk,
        })
    }

    /// Opens the database anew unless somebody did since `failed` was read.
    fn heal(&self, failed: Option<&Arc<Snapshot>>) -> Result<(), ReadError> {
        let mut writer = self.writer.lock();
        let current = self.snapshot.load_full();
        let is_same = match (failed, &current) {
            (Some(failed), Some(current)) => Arc::ptr_eq(failed, current),
            (None, Some(_)) | (Some(_), None) => false,
            (None, None) => true,
        };
        if is_same || current.is_none() {
            self.reopen(&mut writer)?;
        }
        Ok(())
    }

    /// Opens anew after a failed commit and says what became of it.
    fn verdict(&self, writer: &mut Writer, before: u64, failure: batch::Failure) -> WriteError {
        let batch::Failure { reason, step } = failure;
        tracing::error!(safe = %self.disk.path().display(), "a commit failed: {reason}");
        if step == Step::Append && self.settle(writer) {
            return WriteError::Refused { reason };
        }
        match self.reopen(writer) {
            Ok(()) if writer.sequence == before => WriteError::Refused { reason },
            Err(_) if step == Step::Prepare => WriteError::Refused { reason },
            _ => WriteError::Indeterminate { reason },
        }
    }

    /// Makes what was committed durable, and so what the journal may have of a batch that failed void; tells
    /// whether it could.
    fn settle(&self, writer: &mut Writer) -> bool {
        writer.journal.give_up();
        let Writer { database: Some(database), journal, .. } = writer else { return false };
        crate::panic::catch(|| batch::checkpoint(database, journal, &*self.disk))
            .is_ok_and(|made| made.is_ok())
    }

    /// Has the database to itself: nobody reads or writes while `body` runs. `Err(None)`: a reader is at it.
    fn alone<R>(
        &self,
        mut body: impl FnMut(&mut Database) -> Result<R, Option<String>>,
    ) -> Result<R, WriteError> {
        let mut writer = self.writer.lock();
        if writer.database.is_none() {
            self.reopen(&mut writer)?;
        }
        let Writer { database: Some(database), journal, .. } = &mut *writer else {
            return Err(WriteError::Closed);
        };
        // The engine is left with a file that is whole without the journal.
        let made = crate::panic::catch(|| batch::checkpoint(database, journal, &*self.disk));
        if let Ok(Err(batch::Failure { reason, .. })) | Err(reason) = made {
            self.reopen(&mut writer)?;
            return Err(WriteError::Refused { reason });
        }
        // Readers wait for the new snapshot; those that have the old one are soon done.
        self.snapshot.store(None);
        let mut outcome = Err(None);
        for attempt in 0..ALONE_TRIES {
            if attempt > 0 {
                std::thread::sleep(ALONE_REST);
            }
            outcome = crate::panic::catch(|| body(database)).unwrap_or_else(|panic| Err(Some(panic)));
            if !matches!(outcome, Err(None)) {
                break;
            }
        }
        match Snapshot::of(database) {
            Ok(snapshot) if !matches!(outcome, Err(Some(_))) => self.snapshot.store(Some(Arc::new(snapshot))),
            _ => self.reopen(&mut writer)?,
        }
        let busy = || "somebody reads it all the time; try again later".to_owned();
        outcome.map_err(|reason| WriteError::Refused { reason: reason.unwrap_or_else(busy) })
    }

    /// Drops the database and opens it again.
    fn reopen(&self, writer: &mut Writer) -> Result<(), ReadError> {
        self.snapshot.store(None);
        writer.journal.give_up();
        drop(writer.database.take());
        if writer.is_closed {
            return Err(ReadError::Closed);
        }
        if let Some((reason, due)) = &writer.failure
            && Instant::now() < *due
        {
            return Err(ReadError::Unavailable { reason: reason.clone() });
        }
        self.disk.distrust();
        let opened = open_database(&*self.disk)
            .map_err(|error| error.to_string())
            .and_then(|(database, sequence)| Ok((Snapshot::of(&database)?, database, sequence)));
        match opened {
            Ok((snapshot, database, sequence)) => {
                self.recoveries.fetch_add(1, Ordering::Relaxed);
                writer.database = Some(database);
                writer.sequence = sequence;
                writer.failure = None;
                self.snapshot.store(Some(Arc::new(snapshot)));
                Ok(())
            }
            Err(reason) => {
                writer.failure = Some((reason.clone(), Instant::now() + BACK_OFF));
                Err(ReadError::Unavailable { reason })
            }
        }
    }
}

impl Backend for Store {
    /// A failure of the engine is answered by opening anew, once.
    fn read(&self, body: &mut dyn FnMut(&dyn View) -> Result<(), Fault>) -> Result<(), ReadError> {
        let mut last = None;
        for _ in 0..2 {
            let snapshot = self.snapshot.load();
            if let Some(snapshot) = &*snapshot {
                match crate::panic::catch(|| body(&**snapshot)) {
                    Ok(Ok(())) => return Ok(()),
                    Ok(Err(Fault::Corrupt(key))) => return Err(ReadError::Corrupt { key }),
                    Ok(Err(Fault::Engine(reason))) | Err(reason) => last = Some(reason),
                }
            }
            self.heal(snapshot.as_ref())?;
        }
        Err(ReadError::Unavailable { reason: last.unwrap_or_else(|| "it was opened anew".to_owned()) })
    }

    fn apply(&self, writes: &[&Write], now: u64) -> Vec<Outcome> {
        let mut writer = self.writer.lock();
        if writer.database.is_none()
            && let Err(error) = self.reopen(&mut writer)
        {
            return vec![Err(error.into()); writes.len()];
        }
        if let Some(reason) = self.disk.refusal() {
            return vec![Err(WriteError::Refused { reason }); writes.len()];
        }
        let before = writer.sequence;
        let Writer { database: Some(database), journal, .. } = &mut *writer else {
            return vec![Err(WriteError::Closed); writes.len()];
        };
        let applied =
            crate::panic::catch(|| batch::apply(database, journal, &*self.disk, before, writes, now));
        let failure = match applied {
            Ok(Ok(applied)) => {
                if applied.sequence != before {
                    self.snapshot.store(Snapshot::of(database).ok().map(Arc::new));
                }
                writer.sequence = applied.sequence;
                return applied.results;
            }
            Ok(Err(failure)) => failure,
            Err(reason) => batch::Failure { reason, step: Step::Commit },
        };
        vec![Err(self.verdict(&mut writer, before, failure)); writes.len()]
    }

    fn import(&self, from: &dyn View) -> Result<u64, WriteError> {
        let mut writer = self.writer.lock();
        let Some(database) = &writer.database else { return Err(WriteError::Closed) };
        let count = copy::fill(database, from).map_err(|fault| match fault {
            CopyFault::Source(fault) => fault.into(),
            CopyFault::Target(reason) => WriteError::Unavailable { reason },
        })?;
        let snapshot = Snapshot::of(database).map_err(|reason| WriteError::Unavailable { reason })?;
        writer.sequence = snapshot.sequence;
        self.snapshot.store(Some(Arc::new(snapshot)));
        Ok(count)
    }

    fn compact(&self) -> Result<u64, WriteError> {
        let before = disk::len_of(self.disk.path());
        self.alone(|database| match database.compact() {
            Err(CompactionError::TransactionInProgress) => Err(None),
            other => other.map(|_| ()).map_err(|error| Some(text(error))),
        })?;
        Ok(before.saturating_sub(disk::len_of(self.disk.path())))
    }

    fn verify_pages(&self) -> Result<bool, WriteError> {
        self.alone(|database| match database.check_integrity() {
            Err(DatabaseError::TransactionInProgress) => Err(None),
            Ok(is_sound) => Ok(is_sound),
            Err(DatabaseError::Storage(StorageError::Corrupted(_))) => Ok(false),
            Err(error) => Err(Some(text(error))),
        })
    }

    fn facts(&self) -> Facts {
        Facts {
            place: self.disk.path().to_owned(),
            bytes: disk::len_of(self.disk.path()),
            syncs: self.disk.syncs(),
            recoveries: self.recoveries.load(Ordering::Relaxed),
        }
    }

    fn close(&self) {
        let mut writer = self.writer.lock();
        writer.is_closed = true;
        self.snapshot.store(None);
        // The engine makes durable what it has committed; the journal is then older than its file.
        drop(writer.database.take());
        writer.journal.give_up();
        self.disk.close();
    }

    #[cfg(test)]
    fn hold(&self) -> Box<dyn std::fmt::Debug + '_> {
        Box::new(self.writer.lock())
    }
}

/// Makes the file of an empty safe, whole or not at all.
///
/// The engine's first steps on an empty file do not survive a power cut, so they are made under another
/// name.
pub(super) fn create(path: &Path) -> Result<(), OpenError> {
    let fresh = path.with_extension("new");
    let failed = |error: std::io::Error| OpenError::Io { path: path.to_owned(), reason: error.to_string() };
    match std::fs::remove_file(&fresh) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    Store::open(Box::new(FileDisk::open(&fresh)?))?.close();
    std::fs::rename(&fresh, path).map_err(failed)
}

/// Opens the database of a disk, made ready if it is new, and reads its sequence.
fn open_database(disk: &dyn Disk) -> Result<(Database, u64), OpenError> {
    let path = disk.path().to_owned();
    let opened = crate::panic::catch(|| {
        let mut builder = Builder::new();
        builder.set_cache_size(CACHE);
        disk.open(&builder)
    });
    let database = match opened {
        Ok(Ok(database)) => database,
        Ok(Err(DatabaseError::Storage(StorageError::Io(error)))) => {
            return Err(match error.kind() {
                // What an engine says about a file that is none of its own.
                std::io::ErrorKind::InvalidData => OpenError::Corrupt { path, reason: error.to_string() },
                _ => OpenError::Io { path, reason: error.to_string() },
            });
        }
        Ok(Err(DatabaseError::DatabaseAlreadyOpen)) => return Err(OpenError::InUse { path }),
        Ok(Err(error)) => return Err(OpenError::Corrupt { path, reason: error.to_string() }),
        Err(panic) => return Err(OpenError::Corrupt { path, reason: panic }),
    };
    let numbers = match crate::panic::catch(|| prepare(&database)) {
        Ok(Ok(numbers)) => numbers,
        Ok(Err(reason)) => return Err(OpenError::Io { path, reason }),
        Err(reason) => return Err(OpenError::Corrupt { path, reason }),
    };
    if numbers.format != FORMAT {
        let reason = format!("it has format {}, and this host knows {FORMAT}", numbers.format);
        return Err(OpenError::Corrupt { path, reason });
    }
    let sequence = crate::panic::catch(|| replay(&database, disk, &numbers))
        .unwrap_or_else(|reason| Err(OpenError::Corrupt { path, reason }))?;
    Ok((database, sequence))
}

/// The numbers of a safe's own.
struct MetaNumbers {
    format: u64,
    sequence: u64,
    /// The salt of its journal; 0: it has none.
    salt: u64,
}

/// Makes what the journal has durable in the database, by one commit; returns the sequence after it.
fn replay(database: &Database, disk: &dyn Disk, numbers: &MetaNumbers) -> Result<u64, OpenError> {
    let path = disk.path().to_owned();
    let failed = |reason: String| OpenError::Io { path: path.clone(), reason };
    if numbers.salt == 0 {
        return Ok(numbers.sequence);
    }
    let Some(file) = disk.journal().map_err(|error| failed(text(error)))? else {
        return Ok(numbers.sequence);
    };
    let write = database.begin_write().map_err(|error| failed(text(error)))?;
    let sequence = journal::replay(&*file, numbers.salt, numbers.sequence, |rows| {
        batch::replay(&write, rows).map_err(ReplayError::Engine)
    });
    let sequence = sequence.map_err(|error| match error {
        ReplayError::Io(error) => failed(text(error)),
        ReplayError::Engine(reason) => failed(reason),
        ReplayError::Damaged => {
            let reason = format!(
                "its journal {} is damaged, so that writes which were acknowledged are lost; without the journal it \
                 opens as it was before them",
                disk::journal_of(&path).display()
            );
            OpenError::Corrupt { path: path.clone(), reason }
        }
    })?;
    if sequence == numbers.sequence {
        // Nothing was written, so there is nothing to lose by a rollback that fails.
        let _ = write.abort();
        return Ok(sequence);
    }
    // With a salt of its own: the journal is void from here on.
    let made = [("sequence", sequence), ("journal", Journal::fresh_salt())]
        .iter()
        .try_for_each(|(name, number)| batch::number(&write, name, *number));
    made.map_err(|error| failed(text(error)))?;
    write.commit().map_err(|error| failed(text(error)))?;
    Ok(sequence)
}

/// Makes the tables of a new database; returns its numbers.
fn prepare(database: &Database) -> Result<MetaNumbers, String> {
    let read = database.begin_read().map_err(text)?;
    if let Ok(meta) = read.open_table(META) {
        let number = |name| -> Result<u64, String> {
            Ok(meta.get(name).map_err(text)?.map_or(0, |number| number.value()))
        };
        let (format, sequence, salt) = (number("format")?, number("sequence")?, number("journal")?);
        return Ok(MetaNumbers { format, sequence, salt });
    }
    drop(read);
    let write = database.begin_write().map_err(text)?;
    write.open_table(META).map_err(text)?.insert("format", FORMAT).map_err(text)?;
    write.open_table(ENTRIES).map_err(text)?;
    write.open_table(EXPIRIES).map_err(text)?;
    write.commit().map_err(text)?;
    Ok(MetaNumbers { format: FORMAT, sequence: 0, salt: 0 })
}

/// An error of the engine in its words: its types are no concern of this room's callers.
pub(super) fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
