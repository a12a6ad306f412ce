//! Going through a whole snapshot: verifying it, copying it.

use std::path::Path;

use redb::{Database, ReadableTable as _, ReadableTableMetadata as _};

use super::envelope;
use super::error::printable;
use super::store::{ENTRIES, EXPIRIES, FORMAT, Fault, META, Snapshot, text};

/// What verifying found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Report {
    /// Entries, expired ones that were not cleared away yet included.
    pub(super) entries: u64,
    /// Keys of entries whose checksum does not match, printable.
    pub(super) damaged: Vec<String>,
    /// Whether the index of expiries has the right rows.
    pub(super) is_index_right: bool,
}

impl Snapshot {
    /// Verifies every checksum.
    pub(super) fn verify(&self) -> Result<Report, Fault> {
        let mut report = Report { entries: 0, damaged: Vec::new(), is_index_right: true };
        let mut with_expiry = 0;
        for row in self.entries.iter()? {
            let (key, bytes) = row?;
            report.entries += 1;
            match envelope::open(key.value(), bytes.value()) {
                None => report.damaged.push(printable(key.value())),
                Some(entry) if entry.expires_at != 0 => {
                    with_expiry += 1;
                    report.is_index_right &= self.expiries.get((entry.expires_at, key.value()))?.is_some();
                }
                Some(_) => {}
            }
        }
        // A damaged entry may have a row or not.
        let (rows, most) = (self.expiries.len()?, with_expiry + report.damaged.len() as u64);
        report.is_index_right &= (with_expiry..=most).contains(&rows);
        Ok(report)
    }

    /// Copies everything to a new file, made durable; returns how many entries. Damaged ones are refused.
    pub(super) fn copy_to(&self, path: &Path) -> Result<u64, String> {
        let database = Database::create(path).map_err(text)?;
        let write = database.begin_write().map_err(text)?;
        let mut count = 0;
        {
            let mut entries = write.open_table(ENTRIES).map_err(text)?;
            let mut expiries = write.open_table(EXPIRIES).map_err(text)?;
            for row in self.entries.iter().map_err(text)? {
                let (key, bytes) = row.map_err(text)?;
                let entry = envelope::open(key.value(), bytes.value())
                    .ok_or_else(|| format!("the value under {} is damaged", printable(key.value())))?;
                entries.insert(key.value(), bytes.value()).map_err(text)?;
                if entry.expires_at != 0 {
                    expiries.insert((entry.expires_at, key.value()), ()).map_err(text)?;
                }
                count += 1;
            }
            let mut meta = write.open_table(META).map_err(text)?;
            meta.insert("format", FORMAT).map_err(text)?;
            meta.insert("sequence", self.sequence).map_err(text)?;
        }
        write.commit().map_err(text)?;
        Ok(count)
    }
}
