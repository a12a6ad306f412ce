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

use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use redb::{
    Builder, Database, DatabaseError, ReadOnlyTable, ReadableDatabase as _, ReadableTableMetadata as _,
    StorageError, TableDefinition,
};

use super::batch;
use super::disk::Disk;
use super::envelope::{self, EntryRef};
use super::error::{OpenError, ReadError, WriteError, printable};
use super::write::{Commit, Write};

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

/// The safe as one commit left it.
pub(super) struct Snapshot {
    pub(super) entries: ReadOnlyTable<&'static [u8], &'static [u8]>,
    pub(super) expiries: ReadOnlyTable<(u64, &'static [u8]), ()>,
    /// The number of its last write.
    pub(super) sequence: u64,
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshot").finish_non_exhaustive()
    }
}

/// Why a reader got no answer.
pub(super) enum Fault {
    /// The bytes under this key are wrong.
    Corrupt(String),
    /// The engine failed; it may do better after it was opened anew.
    Engine(String),
}

impl From<StorageError> for Fault {
    fn from(error: StorageError) -> Fault {
        Fault::Engine(error.to_string())
    }
}

impl Snapshot {
    fn of(database: &Database) -> Result<Snapshot, String> {
        let read = database.begin_read().map_err(text)?;
        let meta = read.open_table(META).map_err(text)?;
        Ok(Snapshot {
            sequence: meta.get("sequence").map_err(text)?.map_or(0, |number| number.value()),
            entries: read.open_table(ENTRIES).map_err(text)?,
            expiries: read.open_table(EXPIRIES).map_err(text)?,
        })
    }

    /// Shows `body` the entry of a key, if there is one at `now`.
    pub(super) fn get<R>(
        &self,
        key: &[u8],
        now: u64,
        body: impl FnOnce(EntryRef<'_>) -> R,
    ) -> Result<Option<R>, Fault> {
        let Some(bytes) = self.entries.get(key)? else { return Ok(None) };
        let entry = envelope::open(key, bytes.value()).ok_or_else(|| Fault::Corrupt(printable(key)))?;
        Ok(entry.is_alive(now).then(|| body(entry)))
    }

    /// Shows `body` the entries of a range in order, until it says `false`.
    pub(super) fn scan(
        &self,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        is_reverse: bool,
        now: u64,
        body: &mut dyn FnMut(&[u8], EntryRef<'_>) -> bool,
    ) -> Result<(), Fault> {
        if is_empty(range) {
            return Ok(());
        }
        let mut rows = self.entries.range::<&[u8]>(range)?;
        while let Some(row) = if is_reverse { rows.next_back() } else { rows.next() } {
            let (key, bytes) = row?;
            let key = key.value();
            let entry = envelope::open(key, bytes.value()).ok_or_else(|| Fault::Corrupt(printable(key)))?;
            if entry.is_alive(now) && !body(key, entry) {
                break;
            }
        }
        Ok(())
    }

    /// How many entries there are at `now`.
    pub(super) fn len(&self, now: u64) -> Result<u64, Fault> {
        let mut expired = 0;
        for row in self.expiries.range(..=(now, [0xff; super::write::MAX_KEY + 1].as_slice()))? {
            row?;
            expired += 1;
        }
        Ok(self.entries.len()?.saturating_sub(expired))
    }
}

/// Whether nothing can lie between these bounds; the engine wants to be spared the question.
fn is_empty((start, end): (Bound<&[u8]>, Bound<&[u8]>)) -> bool {
    match (start, end) {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        (Bound::Included(start), Bound::Included(end)) => start > end,
        (Bound::Included(start) | Bound::Excluded(start), Bound::Included(end) | Bound::Excluded(end)) => {
            start >= end
        }
    }
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

    /// Reads from the last commit. A failure of the engine is answered by opening anew, once.
    pub(super) fn read<R>(
        &self,
        mut body: impl FnMut(&Snapshot) -> Result<R, Fault>,
    ) -> Result<R, ReadError> {
        let mut last = None;
        for _ in 0..2 {
            let snapshot = self.snapshot.load();
            if let Some(snapshot) = &*snapshot {
                match crate::panic::catch(|| body(snapshot)) {
                    Ok(Ok(answer)) => return Ok(answer),
                    Ok(Err(Fault::Corrupt(key))) => return Err(ReadError::Corrupt { key }),
                    Ok(Err(Fault::Engine(reason))) | Err(reason) => last = Some(reason),
                }
            }
            self.heal(snapshot.as_ref())?;
        }
        Err(ReadError::Unavailable { reason: last.unwrap_or_else(|| "it was opened anew".to_owned()) })
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

    /// Makes all writes of a batch that can be made, in order, and forces them to the disk together.
    ///
    /// Each write has its own result; `now` is the moment of all of them.
    pub(super) fn apply(&self, writes: &[&Write], now: u64) -> Vec<Result<Commit, WriteError>> {
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

    /// Gives the file up, cleanly. Later uses are errors.
    pub(super) fn close(&self) {
        let mut writer = self.writer.lock();
        writer.is_closed = true;
        self.snapshot.store(None);
        drop(writer.database.take());
        self.disk.close();
    }

    /// How often a failure made it open anew.
    pub(super) fn recoveries(&self) -> u64 {
        self.recoveries.load(Ordering::Relaxed)
    }

    /// Keeps every commit waiting until it is dropped.
    #[cfg(test)]
    pub(super) fn hold(&self) -> impl Sized + '_ {
        self.writer.lock()
    }

    /// The disk.
    pub(super) fn disk(&self) -> &dyn Disk {
        &*self.disk
    }
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
