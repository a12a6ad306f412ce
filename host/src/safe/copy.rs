//! Going through a whole safe: copying it to a file, or from one backend to another.

use std::ops::Bound;
use std::path::Path;

use redb::{Database, StorageError};

use super::backend::{Fault, View};
use super::envelope::{self, EntryRef};
use super::store::{ENTRIES, EXPIRIES, FORMAT, META, text};

/// Copies everything to a new file, made durable; returns how many entries. Damaged ones are refused.
pub(super) fn to_file(view: &dyn View, path: &Path) -> Result<u64, Fault> {
    let database = Database::create(path).map_err(engine)?;
    fill(&database, view)
}

/// Shows `body` every entry, those that have expired and were not cleared away yet included.
pub(super) fn everything(
    view: &dyn View,
    mut body: impl FnMut(&[u8], EntryRef<'_>) -> Result<(), Fault>,
) -> Result<u64, Fault> {
    let (mut count, mut failure) = (0, None);
    view.scan((Bound::Unbounded, Bound::Unbounded), false, 0, &mut |key, entry| {
        failure = body(key, entry).err();
        count += u64::from(failure.is_none());
        failure.is_none()
    })?;
    failure.map_or(Ok(count), Err)
}

/// Puts all entries of another safe, as they are, into an empty database, by one commit.
pub(super) fn fill(database: &Database, from: &dyn View) -> Result<u64, Fault> {
    let write = database.begin_write().map_err(engine)?;
    let count = {
        let mut table = write.open_table(ENTRIES).map_err(engine)?;
        let mut expiries = write.open_table(EXPIRIES).map_err(engine)?;
        let mut buffer = Vec::new();
        let mut insert = |key: &[u8], entry: EntryRef<'_>| -> Result<(), StorageError> {
            envelope::seal(key, entry, &mut buffer);
            table.insert(key, buffer.as_slice())?;
            if entry.expires_at != 0 {
                expiries.insert((entry.expires_at, key), ())?;
            }
            Ok(())
        };
        everything(from, |key, entry| insert(key, entry).map_err(engine))?
    };
    let sequence = from.sequence()?;
    let mut meta = write.open_table(META).map_err(engine)?;
    meta.insert("format", FORMAT).map_err(engine)?;
    meta.insert("sequence", sequence).map_err(engine)?;
    drop(meta);
    write.commit().map_err(engine)?;
    Ok(count)
}

fn engine(error: impl std::fmt::Display) -> Fault {
    Fault::Engine(text(error))
}
