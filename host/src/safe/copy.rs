//! Going through a whole safe: copying it to a file, or from one backend to another.

use std::ops::Bound;
use std::path::Path;

use redb::{Database, StorageError};

use super::backend::{Fault, View};
use super::envelope::{self, EntryRef};
use super::store::{ENTRIES, EXPIRIES, FORMAT, META, text};

/// Why a database could not be filled.
#[derive(Debug)]
pub(super) enum CopyFault {
    /// What is copied cannot be read.
    Source(Fault),
    /// Where it goes to cannot be written, which is no fault of the source.
    Target(String),
}

impl From<Fault> for CopyFault {
    fn from(fault: Fault) -> CopyFault {
        CopyFault::Source(fault)
    }
}

/// Makes a database in a new file.
///
/// # Errors
///
/// The system's or the engine's words.
pub(super) fn create(path: &Path) -> Result<Database, String> {
    // The engine itself has no words for a directory that is not there.
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::read_dir(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    Database::create(path).map_err(text)
}

/// Shows `body` every entry, those that have expired and were not cleared away yet included.
pub(super) fn everything<E: From<Fault>>(
    view: &dyn View,
    mut body: impl FnMut(&[u8], EntryRef<'_>) -> Result<(), E>,
) -> Result<u64, E> {
    let (mut count, mut failure) = (0, None);
    view.scan((Bound::Unbounded, Bound::Unbounded), false, 0, &mut |key, entry| {
        failure = body(key, entry).err();
        count += u64::from(failure.is_none());
        failure.is_none()
    })?;
    failure.map_or(Ok(count), Err)
}

/// Puts all entries of another safe, as they are, into an empty database, by one commit.
///
/// # Errors
///
/// Whose fault it is. Damaged entries are refused.
pub(super) fn fill(database: &Database, from: &dyn View) -> Result<u64, CopyFault> {
    let write = database.begin_write().map_err(target)?;
    let count = {
        let mut table = write.open_table(ENTRIES).map_err(target)?;
        let mut expiries = write.open_table(EXPIRIES).map_err(target)?;
        let mut buffer = Vec::new();
        let mut insert = |key: &[u8], entry: EntryRef<'_>| -> Result<(), StorageError> {
            envelope::seal(key, entry, &mut buffer);
            table.insert(key, buffer.as_slice())?;
            if entry.expires_at != 0 {
                expiries.insert((entry.expires_at, key), ())?;
            }
            Ok(())
        };
        everything(from, |key, entry| insert(key, entry).map_err(target))?
    };
    let sequence = from.sequence()?;
    let mut meta = write.open_table(META).map_err(target)?;
    meta.insert("format", FORMAT).map_err(target)?;
    meta.insert("sequence", sequence).map_err(target)?;
    drop(meta);
    write.commit().map_err(target)?;
    Ok(count)
}

fn target(error: impl std::fmt::Display) -> CopyFault {
    CopyFault::Target(text(error))
}
