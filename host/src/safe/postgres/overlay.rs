//! What a batch finds on the server and what it leaves there.
//!
//! # Invariants
//!
//! - What is asked of it was read under the lock, or changed by an earlier write of the batch.

use std::collections::HashMap;
use std::convert::Infallible;

use postgres::Transaction;

use super::super::decide::{Present, Rows};
use super::super::envelope::{self, EntryRef};
use super::super::error::{WriteError, printable};
use super::super::write::Write;
use super::{decisive_keys, signed, unsigned};

/// Sealed values up to this length are read whole, for their numbers; longer ones hold none.
const NUMBERS: i32 = 64;

/// Entries by key.
pub(super) struct Overlay {
    found: HashMap<Vec<u8>, Found>,
    /// What the batch leaves: a new entry, or none.
    changed: HashMap<Vec<u8>, Option<Sealed>>,
    now: u64,
}

enum Found {
    Present(Present),
    Damaged,
}

struct Sealed {
    version: u64,
    expires_at: u64,
    bytes: Vec<u8>,
}

impl Overlay {
    pub(super) fn empty() -> Overlay {
        Overlay { found: HashMap::new(), changed: HashMap::new(), now: 0 }
    }

    /// Reads what the writes are decided by.
    pub(super) fn read(
        transaction: &mut Transaction<'_>,
        name: &str,
        writes: &[&Write],
        now: u64,
    ) -> Result<Overlay, postgres::Error> {
        let mut overlay = Overlay { now, ..Overlay::empty() };
        let keys = decisive_keys(writes);
        if keys.is_empty() {
            return Ok(overlay);
        }
        let rows = transaction.query(
            "SELECT key, version, expires_at, CASE WHEN octet_length(sealed) <= $3 THEN sealed END \
             FROM safe_entries WHERE safe = $1 AND key = ANY($2)",
            &[&name, &keys, &NUMBERS],
        )?;
        for row in rows {
            let key: Vec<u8> = row.get(0);
            let (version, expires_at) = (unsigned(row.get(1)), unsigned(row.get(2)));
            let found = match row.get::<_, Option<Vec<u8>>>(3) {
                None => Found::Present(Present { version, expires_at, encoding: 0, number: None }),
                Some(sealed) => match envelope::open(&key, &sealed) {
                    Some(entry) if (entry.version, entry.expires_at) == (version, expires_at) => {
                        Found::Present(Present::of(entry))
                    }
                    _ => Found::Damaged,
                },
            };
            overlay.found.insert(key, found);
        }
        Ok(overlay)
    }

    pub(super) fn put_sealed(&mut self, key: &[u8], version: u64, expires_at: u64, bytes: Vec<u8>) {
        self.changed.insert(key.to_vec(), Some(Sealed { version, expires_at, bytes }));
    }

    /// How many keys it changes.
    pub(super) fn len(&self) -> usize {
        self.changed.len()
    }

    /// Sends what it changes.
    pub(super) fn send(self, transaction: &mut Transaction<'_>, name: &str) -> Result<(), postgres::Error> {
        let (mut keys, mut versions, mut expiries, mut sealed) = (vec![], vec![], vec![], vec![]);
        let mut gone = Vec::new();
        for (key, change) in self.changed {
            match change {
                Some(entry) => {
                    keys.push(key);
                    versions.push(signed(entry.version));
                    expiries.push(signed(entry.expires_at));
                    sealed.push(entry.bytes);
                }
                None => gone.push(key),
            }
        }
        if !gone.is_empty() {
            transaction
                .execute("DELETE FROM safe_entries WHERE safe = $1 AND key = ANY($2)", &[&name, &gone])?;
        }
        if !keys.is_empty() {
            transaction.execute(
                "INSERT INTO safe_entries (safe, key, version, expires_at, sealed) \
                 SELECT $1, * FROM unnest($2::bytea[], $3::bigint[], $4::bigint[], $5::bytea[]) \
                 ON CONFLICT (safe, key) DO UPDATE SET version = EXCLUDED.version, \
                 expires_at = EXCLUDED.expires_at, sealed = EXCLUDED.sealed",
                &[&name, &keys, &versions, &expiries, &sealed],
            )?;
        }
        Ok(())
    }
}

impl Rows for Overlay {
    type Error = Infallible;

    fn present(&self, key: &[u8]) -> Result<Result<Option<Present>, WriteError>, Infallible> {
        Ok(match self.found.get(key) {
            None => Ok(None),
            Some(Found::Damaged) => Err(WriteError::Corrupt { key: printable(key) }),
            Some(Found::Present(present)) => {
                let is_alive = present.expires_at == 0 || self.now < present.expires_at;
                Ok(is_alive.then_some(*present))
            }
        })
    }

    fn is_stored(&self, key: &[u8]) -> Result<bool, Infallible> {
        Ok(self.found.contains_key(key))
    }

    fn put(&mut self, key: &[u8], entry: EntryRef<'_>) -> Result<(), Infallible> {
        let mut bytes = Vec::new();
        envelope::seal(key, entry, &mut bytes);
        self.found.insert(key.to_vec(), Found::Present(Present::of(entry)));
        self.put_sealed(key, entry.version, entry.expires_at, bytes);
        Ok(())
    }

    fn remove(&mut self, key: &[u8]) -> Result<bool, Infallible> {
        let was_there = self.found.remove(key).is_some();
        if was_there {
            self.changed.insert(key.to_vec(), None);
        }
        Ok(was_there)
    }
}
