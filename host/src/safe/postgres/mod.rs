//! A safe on a PostgreSQL server, for more than one host.
//!
//! Owns: its two tables, the locks and the order of statements. Does not own: what a write comes to
//! (`decide`), what a value looks like (`envelope`: the server keeps the same sealed bytes as the file).
//!
//! # Invariants
//!
//! - Whoever writes holds the lock on the safe's row in `safe_meta`, so batches of all hosts follow one
//!   another, versions grow, and a check cannot be overtaken.
//! - A batch is acknowledged when the server has committed it, with `synchronous_commit` on. When the
//!   answer to a commit is lost, the row tells whether it was made; if even that is unknown, the writes are
//!   indeterminate.
//! - The time that counts is the server's.

mod connection;
mod listen;
mod overlay;
mod view;

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use postgres::IsolationLevel;
use postgres::error::Severity;

pub(super) use self::connection::Server;
use self::connection::{Session, words};
use self::listen::Listener;
use self::overlay::Overlay;
use self::view::ServerView;
use super::backend::{Backend, Facts, Fault, Outcome, View};
use super::error::{OpenError, ReadError, WriteError};
use super::watch::{Watches, changed_keys};
use super::write::{Change, Commit, Write};
use super::{copy, decide, envelope};

/// Connections that are kept for readers.
const IDLE_READERS: usize = 8;
/// Keys that a commit names to those who watch; of more it says that anything may have changed.
const NAMED_KEYS: usize = 32;
/// Entries that are sent together when a safe is filled.
const CHUNK: usize = 500;

/// One safe on a server.
#[derive(Debug)]
pub(super) struct ServerStore {
    server: Server,
    name: String,
    /// Names this store to the server, so that its own changes are told apart.
    instance: u64,
    /// Held during a commit.
    writer: Mutex<Option<Session>>,
    readers: Mutex<Vec<Session>>,
    /// Milliseconds that the server's clock is ahead. Written with each new session.
    skew_ms: AtomicI64,
    commits: AtomicU64,
    recoveries: AtomicU64,
    listener: Listener,
    is_closed: std::sync::atomic::AtomicBool,
}

/// A batch on its way to the server.
struct Prepared {
    results: Vec<Outcome>,
    before: u64,
    after: u64,
    /// Names the batch in the safe's row.
    batch: i64,
}

impl ServerStore {
    /// Opens the safe of a name, making it if there is none.
    pub(super) fn open(server: &Server, name: &str, watches: Arc<Watches>) -> Result<ServerStore, OpenError> {
        let instance = RandomState::new().build_hasher().finish();
        let listener = Listener::new(server.clone(), name, instance, watches);
        let store = ServerStore {
            server: server.clone(),
            name: name.to_owned(),
            instance,
            writer: Mutex::new(None),
            readers: Mutex::default(),
            skew_ms: AtomicI64::new(0),
            commits: AtomicU64::new(0),
            recoveries: AtomicU64::new(0),
            listener,
            is_closed: std::sync::atomic::AtomicBool::new(false),
        };
        let mut session = store.connect().map_err(|reason| server.refused(reason))?;
        session.make_safe(name).map_err(|error| server.refused(words(&error)))?;
        *store.writer.lock() = Some(session);
        Ok(store)
    }

    fn connect(&self) -> Result<Session, String> {
        let session = self.server.connect()?;
        self.skew_ms.store(session.skew_ms, Ordering::Relaxed);
        Ok(session)
    }

    /// A connection for a reader: one that is idle, or a new one.
    fn reader(&self) -> Result<Session, ReadError> {
        if self.is_closed.load(Ordering::Acquire) {
            return Err(ReadError::Closed);
        }
        let idle = self.readers.lock().pop();
        match idle {
            Some(session) if !session.client.is_closed() => Ok(session),
            _ => self.connect().map_err(|reason| ReadError::Unavailable { reason }),
        }
    }

    /// Decides the writes and sends what they change, without the commit.
    fn prepare(
        &self,
        transaction: &mut postgres::Transaction<'_>,
        writes: &[&Write],
        now: u64,
    ) -> Result<Prepared, postgres::Error> {
        let row = transaction
            .query_one("SELECT sequence FROM safe_meta WHERE safe = $1 FOR UPDATE", &[&self.name])?;
        let before = unsigned(row.get(0));
        let mut overlay = Overlay::read(transaction, &self.name, writes, now)?;
        let mut after = before;
        let results: Vec<Outcome> = writes
            .iter()
            .map(|write| match decide::write(&mut overlay, write, &mut after, now) {
                Ok(outcome) => outcome,
                Err(never) => match never {},
            })
            .collect();
        let batch = RandomState::new().build_hasher().finish().cast_signed();
        if after != before {
            overlay.send(transaction, &self.name)?;
            transaction.execute(
                "DELETE FROM safe_entries WHERE safe = $1 AND key IN (SELECT key FROM safe_entries \
                 WHERE safe = $1 AND expires_at <> 0 AND expires_at <= $2 LIMIT 64)",
                &[&self.name, &signed(now)],
            )?;
            transaction.execute(
                "UPDATE safe_meta SET sequence = $2, batch = $3 WHERE safe = $1",
                &[&self.name, &signed(after), &batch],
            )?;
            transaction.execute(
                "SELECT pg_notify('host_safe', told) FROM unnest($1::text[]) AS told",
                &[&self.tidings(writes, &results)],
            )?;
        }
        Ok(Prepared { results, before, after, batch })
    }

    /// What those who watch on other hosts are told.
    fn tidings(&self, writes: &[&Write], results: &[Outcome]) -> Vec<String> {
        let mut keys: Vec<&[u8]> = Vec::new();
        for (write, result) in writes.iter().zip(results) {
            if let Ok(Commit::Done { results, .. }) = result {
                keys.extend(changed_keys(write, results));
            }
        }
        keys.sort_unstable();
        keys.dedup();
        if keys.len() > NAMED_KEYS {
            return vec![listen::tiding(self.instance, &self.name, None)];
        }
        keys.into_iter().map(|key| listen::tiding(self.instance, &self.name, Some(key))).collect()
    }

    /// What became of a batch whose commit was not answered.
    fn verdict(&self, prepared: Prepared, reason: String) -> Vec<Outcome> {
        let count = prepared.results.len();
        tracing::error!(safe = self.name, "a commit was not answered: {reason}");
        let found = self.connect().and_then(|mut session| {
            // Waits for the lock, hence for the end of what was under way.
            let row = session
                .client
                .query_one("SELECT sequence, batch FROM safe_meta WHERE safe = $1 FOR UPDATE", &[&self.name])
                .map_err(|error| words(&error))?;
            Ok((unsigned(row.get(0)), row.get::<_, i64>(1)))
        });
        match found {
            Ok((_, batch)) if batch == prepared.batch => prepared.results,
            Ok((sequence, _)) if sequence == prepared.before => {
                vec![Err(WriteError::Refused { reason }); count]
            }
            _ => vec![Err(WriteError::Indeterminate { reason }); count],
        }
    }

    fn try_apply(&self, session: &mut Session, writes: &[&Write], now: u64) -> Result<Vec<Outcome>, String> {
        let mut transaction = session
            .client
            .build_transaction()
            .isolation_level(IsolationLevel::ReadCommitted)
            .start()
            .map_err(|error| words(&error))?;
        let prepared = self.prepare(&mut transaction, writes, now).map_err(|error| words(&error))?;
        if prepared.before == prepared.after {
            // Nothing was written, so there is nothing to lose by a rollback that fails.
            let _ = transaction.rollback();
            return Ok(prepared.results);
        }
        match transaction.commit() {
            Ok(()) => {
                self.commits.fetch_add(1, Ordering::Relaxed);
                Ok(prepared.results)
            }
            Err(error) if is_refusal(&error) => Err(words(&error)),
            Err(error) => Ok(self.verdict(prepared, words(&error))),
        }
    }
}

/// Whether the server has refused the commit. A goodbye is no refusal: the driver reports one that follows an
/// answer in the place of the answer.
fn is_refusal(error: &postgres::Error) -> bool {
    error.as_db_error().is_some_and(|error| error.parsed_severity() == Some(Severity::Error))
}

impl Backend for ServerStore {
    fn read(&self, body: &mut dyn FnMut(&dyn View) -> Result<(), Fault>) -> Result<(), ReadError> {
        let mut last = String::new();
        for _ in 0..2 {
            let view = ServerView::new(self.reader()?, &self.name);
            match body(&view) {
                Ok(()) => {
                    let mut readers = self.readers.lock();
                    if readers.len() < IDLE_READERS {
                        readers.push(view.into_session());
                    }
                    return Ok(());
                }
                Err(Fault::Corrupt(key)) => return Err(ReadError::Corrupt { key }),
                Err(Fault::Engine(reason)) => last = reason,
            }
            // All are likely to be as dead as this one.
            self.readers.lock().clear();
            self.recoveries.fetch_add(1, Ordering::Relaxed);
        }
        Err(ReadError::Unavailable { reason: last })
    }

    fn apply(&self, writes: &[&Write], now: u64) -> Vec<Outcome> {
        let fail = |error: WriteError| vec![Err(error); writes.len()];
        let mut writer = self.writer.lock();
        if self.is_closed.load(Ordering::Acquire) {
            return fail(WriteError::Closed);
        }
        let mut last = None;
        // What failed before its commit was not made, so it may be tried again: on a connection that is alive.
        for _ in 0..2 {
            let session = writer.take().filter(|session| !session.client.is_closed());
            let is_fresh = session.is_none();
            let mut session = match session.map_or_else(|| self.connect(), Ok) {
                Ok(session) => session,
                Err(reason) => return fail(WriteError::Unavailable { reason }),
            };
            match self.try_apply(&mut session, writes, now) {
                Ok(outcomes) => {
                    *writer = Some(session);
                    return outcomes;
                }
                Err(reason) => {
                    let is_dead = session.client.is_closed();
                    self.recoveries.fetch_add(1, Ordering::Relaxed);
                    last = Some(reason);
                    if is_fresh || !is_dead {
                        break;
                    }
                }
            }
        }
        fail(WriteError::Refused { reason: last.unwrap_or_default() })
    }

    fn import(&self, from: &dyn View) -> Result<u64, WriteError> {
        let mut session = self.connect().map_err(|reason| WriteError::Unavailable { reason })?;
        let engine = |error: postgres::Error| Fault::Engine(words(&error));
        let mut transaction = session.client.transaction().map_err(engine)?;
        let mut overlay = Overlay::empty();
        let mut buffer = Vec::new();
        let count = copy::everything::<Fault>(from, |key, entry| {
            envelope::seal(key, entry, &mut buffer);
            overlay.put_sealed(key, entry.version, entry.expires_at, buffer.clone());
            if overlay.len() == CHUNK {
                std::mem::replace(&mut overlay, Overlay::empty())
                    .send(&mut transaction, &self.name)
                    .map_err(engine)?;
            }
            Ok(())
        })?;
        overlay.send(&mut transaction, &self.name).map_err(engine)?;
        let sequence = signed(from.sequence()?);
        let sql = "UPDATE safe_meta SET sequence = $2 WHERE safe = $1";
        transaction.execute(sql, &[&self.name, &sequence]).map_err(engine)?;
        transaction.commit().map_err(engine)?;
        Ok(count)
    }

    /// The server clears up by itself.
    fn compact(&self) -> Result<u64, WriteError> {
        Ok(0)
    }

    fn facts(&self) -> Facts {
        let sql = "SELECT coalesce(sum(octet_length(key) + octet_length(sealed)), 0)::bigint FROM safe_entries \
                   WHERE safe = $1";
        let bytes = self.reader().ok().and_then(|mut session| {
            let bytes = session.client.query_one(sql, &[&self.name]).ok()?.get::<_, i64>(0);
            self.readers.lock().push(session);
            Some(unsigned(bytes))
        });
        Facts {
            place: PathBuf::from(self.server.place()),
            bytes: bytes.unwrap_or(0),
            syncs: self.commits.load(Ordering::Relaxed),
            recoveries: self.recoveries.load(Ordering::Relaxed),
        }
    }

    fn listen(&self) -> Result<(), ReadError> {
        self.listener.start().map_err(|reason| ReadError::Unavailable { reason })
    }

    fn skew_ms(&self) -> i64 {
        self.skew_ms.load(Ordering::Relaxed)
    }

    fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        self.listener.stop();
        self.readers.lock().clear();
        drop(self.writer.lock().take());
    }

    #[cfg(test)]
    fn hold(&self) -> Box<dyn std::fmt::Debug + '_> {
        Box::new(self.writer.lock())
    }
}

/// As the server keeps numbers. Versions and milliseconds never reach the sign.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// The keys whose entries decide what a write comes to.
fn decisive_keys<'w>(writes: &[&'w Write]) -> Vec<&'w [u8]> {
    let mut keys: Vec<&[u8]> = Vec::new();
    for write in writes {
        keys.extend(write.checks.iter().map(|check| check.key.as_slice()));
        let decides = |change: &&Change| !matches!(change, Change::Put { .. });
        keys.extend(write.changes.iter().filter(decides).map(Change::key));
    }
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// Milliseconds that another clock, which showed `theirs` between two moments of ours, is ahead.
fn ahead(theirs: i64, asked: Instant, ours_ms: i64) -> i64 {
    let travelled = i64::try_from(asked.elapsed().as_millis() / 2).unwrap_or(0);
    theirs - ours_ms - travelled
}
