//! Where connections come from: a driver, what is known of its database, and the books of what was
//! made and closed.
//!
//! # Invariants
//!
//! - A connection that leaves here has run the statements of its session.
//! - Every [`Made`] is in `living` from its making to its drop, and in no count twice.
//! - No I/O under a lock.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::clock::Moment;
use super::gate::Gate;
use super::journal::{Journal, Slowest};
use super::{ConnectError, Connection, Driver, QueryError, Reset, SteadyConfig, blocking, monitor};

/// How long a connection may take to show that it works after another one was lost.
const SUSPECT_TIMEOUT: Duration = Duration::from_millis(500);

/// Makes connections to one database, and knows how that went.
pub(super) struct Source {
    pub(super) driver: Box<dyn Driver>,
    pub(super) config: SteadyConfig,
    max_lifetime: Option<Duration>,
    gate: Gate,
    /// Raised when the server went away; a connection of an earlier epoch that has not worked since is
    /// not to be trusted.
    epoch: AtomicU64,
    books: Mutex<Books>,
    pub(super) journal: Journal,
    pub(super) slowest: Slowest,
}

/// Numbers that only grow, and the connections that are open.
#[derive(Debug, Default)]
struct Books {
    connects: u64,
    closes: u64,
    failures: u64,
    reopens: u64,
    /// Serial, and the database's own number.
    living: Vec<(u64, Option<u64>)>,
}

/// The books at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    pub(super) connects: u64,
    pub(super) closes: u64,
    pub(super) failures: u64,
    pub(super) reopens: u64,
    pub(super) backends: Vec<u64>,
    pub(super) is_down: bool,
}

impl Source {
    pub(super) fn new(
        driver: Box<dyn Driver>,
        config: SteadyConfig,
        max_lifetime: Option<Duration>,
    ) -> Arc<Source> {
        let max_lifetime = max_lifetime.filter(|_| !driver.is_its_connection());
        Arc::new(Source {
            driver,
            config,
            max_lifetime,
            gate: Gate::default(),
            epoch: AtomicU64::new(0),
            books: Mutex::default(),
            journal: Journal::default(),
            slowest: Slowest::default(),
        })
    }

    /// Makes a connection and prepares its session.
    ///
    /// # Errors
    ///
    /// When the database cannot be reached, is known to be down, or refuses a statement of the session.
    pub(super) fn connect(self: &Arc<Source>) -> Result<Made, ConnectError> {
        let attempt = self.gate.enter(self.driver.address())?;
        let epoch = self.epoch.load(Ordering::Acquire);
        let conn = match self.driver.connect() {
            Ok(conn) => conn,
            Err(error) => {
                self.books.lock().failures += 1;
                if error.is_full() && !self.has_none() {
                    // The server is there, and serves the connections that are open.
                    return Err(error);
                }
                if attempt.failed(&error) {
                    tracing::warn!("{error}");
                    self.journal.note("down", error.to_string());
                    monitor::wake();
                }
                return Err(error);
            }
        };
        if let Some(down_for) = attempt.succeeded() {
            let address = self.driver.address();
            tracing::info!(down_ms = down_for.as_millis(), "{address} answers again");
            self.journal.note("back", format!("after {:.1} s", down_for.as_secs_f64()));
        }
        let mut made = Made::new(self, conn, epoch);
        self.prepare(made.conn.as_mut()).inspect_err(|error| {
            self.books.lock().failures += 1;
            tracing::warn!("{error}");
        })?;
        made.seen = Moment::now();
        Ok(made)
    }

    /// Runs the statements of the session.
    pub(super) fn prepare(&self, conn: &mut dyn Connection) -> Result<(), ConnectError> {
        let refused = |statement: &str, sqlstate: String, reason: String| ConnectError::Session {
            address: self.driver.address().to_owned(),
            statement: statement.to_owned(),
            sqlstate,
            reason,
        };
        for statement in &self.config.session {
            conn.batch_execute(statement).map_err(|error| {
                let sqlstate = match &error {
                    QueryError::Database { sqlstate, .. } => sqlstate.clone(),
                    _ => String::new(),
                };
                refused(statement, sqlstate, error.to_string())
            })?;
        }
        if conn.has_foreign_transaction() {
            let last = self.config.session.last().map_or("", String::as_str);
            let reason = "the session is left inside a transaction: end it with COMMIT".to_owned();
            return Err(refused(last, String::new(), reason));
        }
        conn.settle();
        Ok(())
    }

    /// Whether an error means that the connection is of no more use.
    pub(super) fn is_fatal(&self, error: &QueryError) -> bool {
        match error {
            QueryError::Lost { .. } | QueryError::OutcomeUnknown { .. } | QueryError::NotCommitted { .. } => {
                true
            }
            QueryError::Database { sqlstate, .. } => {
                self.config.is_fatal.iter().any(|code| sqlstate.starts_with(code.as_str()))
            }
            _ => false,
        }
    }

    /// Takes note of an error after which a connection was given up.
    pub(super) fn lost(&self, error: &QueryError) {
        tracing::debug!(address = self.driver.address(), "gave up a connection: {error}");
        // A goodbye to this one alone: idle for too long, in a transaction or at all.
        let is_its_own = matches!(
            error,
            QueryError::Lost { sqlstate, .. } if matches!(sqlstate.as_str(), "25P03" | "25P04" | "57P05")
        );
        if !is_its_own && !matches!(error, QueryError::Database { .. }) {
            self.epoch.fetch_add(1, Ordering::AcqRel);
            self.journal.note("lost", error.to_string());
            monitor::wake();
        }
    }

    /// Counts a connection that took a broken one's place.
    pub(super) fn reopened(&self) {
        self.books.lock().reopens += 1;
    }

    /// Whether no connection is open.
    pub(super) fn has_none(&self) -> bool {
        self.books.lock().living.is_empty()
    }

    /// When to try again, if the database is gone.
    pub(super) fn next_outage_try(&self) -> Option<Instant> {
        self.gate.next_try()
    }

    pub(super) fn tally(&self) -> Tally {
        let books = self.books.lock();
        Tally {
            connects: books.connects,
            closes: books.closes,
            failures: books.failures,
            reopens: books.reopens,
            backends: books.living.iter().filter_map(|(_, backend)| *backend).collect(),
            is_down: self.gate.is_down(),
        }
    }
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source")
            .field("driver", &self.driver)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// A connection with what is known of it. Dropping it closes it, on a thread where that may block.
pub(super) struct Made {
    pub(super) conn: Conn,
    source: Arc<Source>,
    serial: u64,
    /// The source's epoch when the connection last worked.
    epoch: u64,
    /// Statements so far.
    pub(super) uses: u64,
    /// When the connection last worked.
    pub(super) seen: Moment,
    /// When it is too old.
    expires: Option<Moment>,
}

/// A connection that is dropped where dropping may block.
pub(super) struct Conn(Option<Box<dyn Connection>>);

impl Conn {
    pub(super) fn as_mut(&mut self) -> &mut dyn Connection {
        self.0.as_deref_mut().expect("emptied when it is dropped, and not before")
    }

    pub(super) fn as_ref(&self) -> &dyn Connection {
        self.0.as_deref().expect("emptied when it is dropped, and not before")
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        blocking::run(self.0.take(), drop);
    }
}

impl Made {
    fn new(source: &Arc<Source>, conn: Box<dyn Connection>, epoch: u64) -> Made {
        let mut books = source.books.lock();
        books.connects += 1;
        let serial = books.connects;
        books.living.push((serial, conn.backend_id()));
        drop(books);
        let seen = Moment::now();
        let expires = source.max_lifetime.and_then(|lifetime| seen.after(shortened(lifetime)));
        Made { conn: Conn(Some(conn)), source: source.clone(), serial, epoch, uses: 0, seen, expires }
    }

    /// Takes note that the connection worked at that moment.
    pub(super) fn worked(&mut self, at: Moment) {
        self.seen = at;
        self.epoch = self.source.epoch.load(Ordering::Acquire);
    }

    /// Whether the server went away since the connection last worked.
    pub(super) fn is_suspect(&self) -> bool {
        self.epoch != self.source.epoch.load(Ordering::Acquire)
    }

    /// Whether it is too old.
    pub(super) fn has_expired(&self, now: Moment) -> bool {
        self.expires.is_some_and(|expires| now >= expires)
    }

    /// Whether it has been used too often.
    pub(super) fn is_worn(&self) -> bool {
        let most = self.source.config.max_uses;
        most > 0 && self.uses >= most && !self.source.driver.is_its_connection()
    }

    /// Whether the connection works, although another one of its source was lost since it last did. One session that
    /// ended costs no other one, and a server that is gone costs a moment.
    pub(super) fn survived(&mut self) -> bool {
        let timeout = self.source.config.ping_timeout.min(SUSPECT_TIMEOUT);
        let is_alive = !self.is_suspect() || self.conn.as_mut().is_valid(timeout);
        if is_alive {
            self.worked(Moment::now());
        }
        is_alive
    }

    /// Asks the database whether the connection works.
    pub(super) fn ping(&mut self) -> bool {
        let config = &self.source.config;
        let conn = self.conn.as_mut();
        let is_alive = match &config.ping_sql {
            Some(sql) => conn.query(sql, &[]).is_ok() && !conn.has_broken(),
            None if self.source.driver.has_ping() => conn.is_valid(config.ping_timeout),
            None => return true,
        };
        if is_alive {
            self.worked(Moment::now());
        }
        is_alive
    }

    /// Undoes what a borrower left, and prepares the session again if it went with it.
    pub(super) fn reset(&mut self) -> bool {
        let conn = self.conn.as_mut();
        match conn.reset() {
            Reset::Ready => true,
            Reset::Bare => self.source.prepare(conn).is_ok(),
            Reset::Close => false,
        }
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        let mut books = self.source.books.lock();
        books.closes += 1;
        let serial = self.serial;
        books.living.retain(|(living, _)| *living != serial);
    }
}

/// Less up to a tenth, by chance.
fn shortened(lifetime: Duration) -> Duration {
    let chance = RandomState::new().build_hasher().finish() % 1000;
    let tenth = u32::try_from(chance).unwrap_or_default();
    lifetime.saturating_sub(lifetime / 10_000 * tenth)
}
