//! A safe's file as one commit left it: what readers share.
//!
//! The engine does not verify a page when it reads it. So an entry is believed only after its own
//! checksum, which covers its key, and a key is believed to be absent only after its neighbours: a bit
//! that flips in a key leaves a neighbour whose checksum does not match, one that flips in an inner page
//! leaves neighbours in the wrong order.
//!
//! # Invariants
//!
//! - Nothing is shown that was not verified, and no key is called absent next to one that is damaged.

use std::ops::Bound;

use redb::{Database, ReadOnlyTable, ReadableDatabase as _, ReadableTableMetadata as _, StorageError};

use super::backend::{Fault, Report, View};
use super::envelope::{self, EntryRef};
use super::error::printable;
use super::store::{ENTRIES, EXPIRIES, META, text};
use super::write::MAX_KEY;

/// The entries as one commit left them.
pub(super) struct Snapshot {
    entries: ReadOnlyTable<&'static [u8], &'static [u8]>,
    expiries: ReadOnlyTable<(u64, &'static [u8]), ()>,
    /// The number of its last write.
    pub(super) sequence: u64,
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshot").field("sequence", &self.sequence).finish_non_exhaustive()
    }
}

impl From<StorageError> for Fault {
    fn from(error: StorageError) -> Fault {
        Fault::Engine(error.to_string())
    }
}

impl Snapshot {
    pub(super) fn of(database: &Database) -> Result<Snapshot, String> {
        let read = database.begin_read().map_err(text)?;
        let meta = read.open_table(META).map_err(text)?;
        Ok(Snapshot {
            sequence: meta.get("sequence").map_err(text)?.map_or(0, |number| number.value()),
            entries: read.open_table(ENTRIES).map_err(text)?,
            expiries: read.open_table(EXPIRIES).map_err(text)?,
        })
    }
}

/// The entry in what is kept under `key`, believed after its checksum only.
pub(super) fn opened<'a>(key: &[u8], sealed: &'a [u8]) -> Result<EntryRef<'a>, Fault> {
    envelope::open(key, sealed).ok_or_else(|| Fault::Corrupt(printable(key)))
}

/// Makes sure that `key`, which was not found in `table`, is not there.
pub(super) fn verify_absence(
    table: &impl redb::ReadableTable<&'static [u8], &'static [u8]>,
    key: &[u8],
) -> Result<(), Fault> {
    let before = table.range::<&[u8]>((Bound::Unbounded, Bound::Excluded(key)))?.next_back();
    let after = table.range::<&[u8]>((Bound::Excluded(key), Bound::Unbounded))?.next();
    for (row, is_before) in [(before, true), (after, false)] {
        let Some(row) = row else { continue };
        let (found, bytes) = row?;
        let found = found.value();
        let is_in_order = if is_before { found < key } else { found > key };
        if !is_in_order || envelope::open(found, bytes.value()).is_none() {
            return Err(Fault::Corrupt(printable(found)));
        }
    }
    Ok(())
}

impl View for Snapshot {
    fn get(&self, keys: &[&[u8]], body: &mut dyn FnMut(usize, EntryRef<'_>)) -> Result<(), Fault> {
        for (index, key) in keys.iter().enumerate() {
            let Some(bytes) = self.entries.get(*key)? else {
                verify_absence(&self.entries, key)?;
                continue;
            };
            body(index, opened(key, bytes.value())?);
        }
        Ok(())
    }

    fn scan(
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
        let mut last: Option<Vec<u8>> = None;
        while let Some(row) = if is_reverse { rows.next_back() } else { rows.next() } {
            let (key, bytes) = row?;
            let key = key.value();
            let entry = opened(key, bytes.value())?;
            if last.as_deref().is_some_and(|last| if is_reverse { key >= last } else { key <= last }) {
                return Err(Fault::Corrupt(printable(key)));
            }
            if entry.is_alive(now) && !body(key, entry) {
                return Ok(());
            }
            let kept = last.get_or_insert_default();
            kept.clear();
            kept.extend_from_slice(key);
        }
        // The scan went to the end of the range: what lies just outside must do so rightly.
        for bound in [range.0, range.1] {
            if let Bound::Included(key) | Bound::Excluded(key) = bound
                && self.entries.get(key)?.is_none()
            {
                verify_absence(&self.entries, key)?;
            }
        }
        Ok(())
    }

    fn len(&self, now: u64) -> Result<u64, Fault> {
        let mut expired = 0;
        for row in self.expiries.range(..=(now, [0xff; MAX_KEY + 1].as_slice()))? {
            row?;
            expired += 1;
        }
        Ok(self.entries.len()?.saturating_sub(expired))
    }

    fn sequence(&self) -> Result<u64, Fault> {
        Ok(self.sequence)
    }

    fn used_bytes(&self) -> Result<Option<u64>, Fault> {
        let stats = [self.entries.stats()?, self.expiries.stats()?];
        let bytes = |stats: &redb::TableStats| {
            stats.stored_bytes() + stats.metadata_bytes() + stats.fragmented_bytes()
        };
        Ok(Some(stats.iter().map(bytes).sum()))
    }

    fn verify(&self) -> Result<Report, Fault> {
        let mut report = Report { entries: 0, damaged: Vec::new(), is_structure_right: true };
        let mut with_expiry = 0;
        let mut last: Option<Vec<u8>> = None;
        for row in self.entries.range::<&[u8]>(..)? {
            let (key, bytes) = row?;
            let key = key.value();
            report.entries += 1;
            report.is_structure_right &= last.as_deref().is_none_or(|last| last < key);
            last = Some(key.to_vec());
            match envelope::open(key, bytes.value()) {
                None => report.damaged.push(printable(key)),
                Some(entry) if entry.expires_at != 0 => {
                    with_expiry += 1;
                    report.is_structure_right &= self.expiries.get((entry.expires_at, key))?.is_some();
                }
                Some(_) => {}
            }
        }
        // A damaged entry may have a row or not.
        let (rows, most) = (self.expiries.len()?, with_expiry + report.damaged.len() as u64);
        report.is_structure_right &= (with_expiry..=most).contains(&rows);
        report.is_structure_right &= self.entries.len()? == report.entries;
        Ok(report)
    }
}

/// Whether nothing can lie between these bounds; the engine wants to be spared the question.
pub(super) fn is_empty((start, end): (Bound<&[u8]>, Bound<&[u8]>)) -> bool {
    match (start, end) {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        (Bound::Included(start), Bound::Included(end)) => start > end,
        (Bound::Included(start) | Bound::Excluded(start), Bound::Included(end) | Bound::Excluded(end)) => {
            start >= end
        }
    }
}
