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
use super::batch;
use super::copy;
use super::disk::{self, Disk, FileDisk};
use super::error::{OpenError, ReadError, WriteError};
use super::snapshot::Snapshot;
use super::write::Write;

pub(super) const ENTRIES: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("entries");
/// When an entry expires, and its key.
pub(super) const EXPIRIES: TableDefinition<'static, (u64, &[u8]), ()> = TableDefinition::new("expiries");
/// `format` and `sequence`.
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
        let batch::Failure { reason, is_committing } = failure;
        tracing::error!(safe = %self.disk.path().display(), "a commit failed: {reason}");
        match self.reopen(writer) {
            Ok(()) if writer.sequence == before => WriteError::Refused { reason },
            Err(_) if !is_committing => WriteError::Refused { reason },
            _ => WriteError::Indeterminate { reason },
        }
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
        // Readers wait for the new snapshot; those that have the old one are soon done.
        self.snapshot.store(None);
        let database = writer.database.as_mut().expect("opened above, or open before");
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
        let before = writer.sequence;
        let database = writer.database.as_ref().expect("opened above, or open before");
        let applied = crate::panic::catch(|| batch::apply(database, before, writes, now));
        let failure = match applied {
            Ok(Ok(applied)) => {
                if applied.sequence != before {
                    self.snapshot.store(Snapshot::of(database).ok().map(Arc::new));
                }
                writer.sequence = applied.sequence;
                return applied.results;
            }
            Ok(Err(failure)) => failure,
            Err(reason) => batch::Failure { reason, is_committing: true },
        };
        vec![Err(self.verdict(&mut writer, before, failure)); writes.len()]
    }

    fn import(&self, from: &dyn View) -> Result<u64, WriteError> {
        let mut writer = self.writer.lock();
        let Some(database) = &writer.database else { return Err(WriteError::Closed) };
        let count = copy::fill(database, from)?;
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
        drop(writer.database.take());
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
    match crate::panic::catch(|| prepare(&database)) {
        Ok(Ok((FORMAT, sequence))) => Ok((database, sequence)),
        Ok(Ok((format, _))) => {
            let reason = format!("it has format {format}, and this host knows {FORMAT}");
            Err(OpenError::Corrupt { path, reason })
        }
        Ok(Err(reason)) => Err(OpenError::Io { path, reason }),
        Err(reason) => Err(OpenError::Corrupt { path, reason }),
    }
}

/// Makes the tables of a new database; returns its format and sequence.
fn prepare(database: &Database) -> Result<(u64, u64), String> {
    let read = database.begin_read().map_err(text)?;
    if let Ok(meta) = read.open_table(META) {
        let number = |name| -> Result<u64, String> {
            Ok(meta.get(name).map_err(text)?.map_or(0, |number| number.value()))
        };
        return Ok((number("format")?, number("sequence")?));
    }
    drop(read);
    let write = database.begin_write().map_err(text)?;
    write.open_table(META).map_err(text)?.insert("format", FORMAT).map_err(text)?;
    write.open_table(ENTRIES).map_err(text)?;
    write.open_table(EXPIRIES).map_err(text)?;
    write.commit().map_err(text)?;
    Ok((FORMAT, 0))
}

/// An error of the engine in its words: its types are no concern of this room's callers.
pub(super) fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
