//! The entries on the server, as one statement sees them.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::Bound;

use postgres::types::ToSql;

use super::super::backend::{Fault, Report, View};
use super::super::envelope::{self, EntryRef};
use super::super::error::printable;
use super::super::snapshot::{is_empty, opened};
use super::connection::{Session, words};
use super::{signed, unsigned};

/// Rows that are fetched together.
const ROWS: i32 = 64;

/// A connection, for one reader.
pub(super) struct ServerView<'n> {
    session: RefCell<Session>,
    name: &'n str,
}

impl From<postgres::Error> for Fault {
    fn from(error: postgres::Error) -> Fault {
        Fault::Engine(words(&error))
    }
}

impl<'n> ServerView<'n> {
    pub(super) fn new(session: Session, name: &'n str) -> ServerView<'n> {
        ServerView { session: RefCell::new(session), name }
    }

    pub(super) fn into_session(self) -> Session {
        self.session.into_inner()
    }

    /// Shows `body` the rows of a query, key and sealed value, some at a time, until it says `false`.
    fn rows(
        &self,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
        mut body: impl FnMut(&[u8], &[u8]) -> Result<bool, Fault>,
    ) -> Result<(), Fault> {
        let mut session = self.session.borrow_mut();
        let mut transaction = session.client.transaction()?;
        let portal = transaction.bind(sql, parameters)?;
        loop {
            let rows = transaction.query_portal(&portal, ROWS)?;
            for row in &rows {
                if !body(row.get(0), row.get(1))? {
                    return Ok(());
                }
            }
            if rows.is_empty() {
                return Ok(());
            }
        }
    }
}

impl View for ServerView<'_> {
    fn get(&self, keys: &[&[u8]], body: &mut dyn FnMut(usize, EntryRef<'_>)) -> Result<(), Fault> {
        let mut session = self.session.borrow_mut();
        let sql = "SELECT key, sealed FROM safe_entries WHERE safe = $1 AND key = ANY($2)";
        let rows = session.client.query(sql, &[&self.name, &keys])?;
        let found: HashMap<&[u8], &[u8]> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        for (index, key) in keys.iter().enumerate() {
            if let Some(sealed) = found.get(key) {
                body(index, opened(key, sealed)?);
            }
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
        let (start, from) = match range.0 {
            Bound::Unbounded => (&[][..], ">="),
            Bound::Included(key) => (key, ">="),
            Bound::Excluded(key) => (key, ">"),
        };
        let (end, until) = match range.1 {
            Bound::Unbounded => (None, "<"),
            Bound::Included(key) => (Some(key), "<="),
            Bound::Excluded(key) => (Some(key), "<"),
        };
        let order = if is_reverse { "DESC" } else { "ASC" };
        let sql = format!(
            "SELECT key, sealed FROM safe_entries WHERE safe = $1 AND key {from} $2 \
             AND ($3::bytea IS NULL OR key {until} $3) AND (expires_at = 0 OR expires_at > $4) ORDER BY key {order}"
        );
        self.rows(&sql, &[&self.name, &start, &end, &signed(now)], |key, sealed| {
            let entry = opened(key, sealed)?;
            Ok(!entry.is_alive(now) || body(key, entry))
        })
    }

    fn len(&self, now: u64) -> Result<u64, Fault> {
        let mut session = self.session.borrow_mut();
        let sql = "SELECT count(*) FROM safe_entries WHERE safe = $1 AND (expires_at = 0 OR expires_at > $2)";
        Ok(unsigned(session.client.query_one(sql, &[&self.name, &signed(now)])?.get(0)))
    }

    fn sequence(&self) -> Result<u64, Fault> {
        let mut session = self.session.borrow_mut();
        let sql = "SELECT sequence FROM safe_meta WHERE safe = $1";
        Ok(unsigned(session.client.query_one(sql, &[&self.name])?.get(0)))
    }

    fn verify(&self) -> Result<Report, Fault> {
        let mut report = Report { entries: 0, damaged: Vec::new(), is_structure_right: true };
        let mut last: Option<Vec<u8>> = None;
        let sql = "SELECT key, sealed FROM safe_entries WHERE safe = $1 ORDER BY key";
        self.rows(sql, &[&self.name], |key, sealed| {
            report.entries += 1;
            report.is_structure_right &= last.as_deref().is_none_or(|last| last < key);
            last = Some(key.to_vec());
            if envelope::open(key, sealed).is_none() {
                report.damaged.push(printable(key));
            }
            Ok(true)
        })?;
        Ok(report)
    }
}
