//! The settings of a pool, a steady connection or a set of them that is not open yet.

use std::marker::PhantomData;
use std::time::Duration;

use crate::abi::{
    DEFAULT_COUNT, OPEN_FIFO, OPEN_LAZY, OPEN_LEAK_BACKTRACE, OPEN_NO_FAILOVER, OPEN_NOT_CLOSEABLE,
    OPEN_PERSISTENT, OPEN_POOL, OPEN_RESET_ALWAYS, OPEN_RESET_REOPEN, OPEN_STEADY, PING_CHECKOUT, PING_QUERY,
    PING_STATEMENT,
};
use crate::db::{OpenError, Persistent, Pool, Steady, open};
use crate::host::Owned;

/// When a connection is asked whether it still works. DBUtils: the bit mask `ping`, with its values.
///
/// ```
/// use plugin_api::db::Ping;
///
/// assert_eq!((Ping::CHECKOUT | Ping::QUERY).bits(), 5);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ping(u32);

impl Ping {
    /// Never.
    pub const NEVER: Ping = Ping(0);
    /// When it is lent out. The default.
    pub const CHECKOUT: Ping = Ping(PING_CHECKOUT);
    /// Before a statement that is not a query, and before a transaction begins.
    pub const STATEMENT: Ping = Ping(PING_STATEMENT);
    /// Before a query.
    pub const QUERY: Ping = Ping(PING_QUERY);
    /// Whenever it makes sense: never inside a transaction.
    pub const ALWAYS: Ping = Ping(PING_CHECKOUT | PING_STATEMENT | PING_QUERY);

    /// The sum of the constants.
    pub fn bits(self) -> u32 {
        self.0
    }
}

impl std::ops::BitOr for Ping {
    type Output = Ping;

    fn bitor(self, other: Ping) -> Ping {
        Ping(self.0 | other.0)
    }
}

/// What happens to a connection between two borrowers. DBUtils: `reset`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reset {
    /// What the statements may have left behind is undone; nothing if they left nothing.
    #[default]
    IfDirty,
    /// All that can be undone is, for functions that change settings where no text shows it. Costs a
    /// round trip.
    Always,
    /// Each borrower gets a new connection.
    Reopen,
}

/// What a [`Builder`] can open.
pub trait Opens: sealed::Opens {}

impl<T: sealed::Opens> Opens for T {}

pub(super) mod sealed {
    use crate::host::Owned;

    pub trait Opens: Sized {
        const KIND: u32;
        fn opened(handle: Owned) -> Self;
    }
}

impl sealed::Opens for Pool {
    const KIND: u32 = OPEN_POOL;

    fn opened(handle: Owned) -> Pool {
        Pool::from_handle(handle)
    }
}

impl sealed::Opens for Steady {
    const KIND: u32 = OPEN_STEADY;

    fn opened(handle: Owned) -> Steady {
        Steady::from_handle(handle)
    }
}

impl sealed::Opens for Persistent {
    const KIND: u32 = OPEN_PERSISTENT;

    fn opened(handle: Owned) -> Persistent {
        Persistent::from_handle(handle)
    }
}

/// The settings of a [`Pool`], a [`Steady`] or a [`Persistent`] that is not open yet.
///
/// What is not said is the host's default. Wrong values are errors of [`open`](Builder::open), which
/// name the setting.
#[derive(Clone, Copy, Debug)]
#[must_use = "`open` does it"]
pub struct Builder<'a, T> {
    pub(super) settings: Settings<'a>,
    opens: PhantomData<fn() -> T>,
}

/// What the builder collects. `None` is the host's default.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Settings<'a> {
    pub(super) url: &'a str,
    pub(super) flags: u32,
    pub(super) max_size: Option<u32>,
    pub(super) min_idle: u32,
    pub(super) max_idle: Option<u32>,
    pub(super) max_shared: u32,
    pub(super) ping: Option<Ping>,
    pub(super) ping_sql: &'a str,
    pub(super) checkout_timeout: Option<Duration>,
    pub(super) idle_timeout: Option<Option<Duration>>,
    pub(super) max_lifetime: Option<Option<Duration>>,
    pub(super) ping_idle: Option<Option<Duration>>,
    pub(super) leak_after: Option<Option<Duration>>,
    pub(super) ping_after: Option<Duration>,
    pub(super) ping_timeout: Option<Duration>,
    pub(super) max_uses: u64,
    pub(super) session: &'a [&'a str],
    pub(super) is_fatal: &'a [&'a str],
}

impl Settings<'_> {
    /// The boundary's number for "ask at these moments".
    pub(super) fn ping_bits(&self) -> u32 {
        self.ping.map_or(DEFAULT_COUNT, Ping::bits)
    }
}

impl<'a, T: Opens> Builder<'a, T> {
    pub(super) fn new(url: &'a str) -> Builder<'a, T> {
        Builder { settings: Settings { url, ..Settings::default() }, opens: PhantomData }
    }

    /// Statements after which a connection is replaced, outside a transaction; 0, the default: any
    /// number. DBUtils: `maxusage`.
    pub fn max_uses(mut self, statements: u64) -> Self {
        self.settings.max_uses = statements;
        self
    }

    /// Statements that prepare each new connection, in their order. DBUtils: `setsession`.
    ///
    /// PostgreSQL's `application_name` is the host's, `host PLUGIN gN`, unless the address says another.
    ///
    /// ```no_run
    /// # use plugin_api::db;
    /// # fn f() -> Result<db::Pool, db::OpenError> {
    /// db::Pool::builder("postgres://localhost/shop")
    ///     .session(&["SET search_path = shop", "SET statement_timeout = '5s'"])
    ///     .open()
    /// # }
    /// ```
    pub fn session(mut self, statements: &'a [&'a str]) -> Self {
        self.settings.session = statements;
        self
    }

    /// Which refusals mean that the connection is of no more use, beside those by which the server itself
    /// ends it: SQLSTATEs such as `53300`, or their classes, such as `58`. DBUtils: `failures`, `isfatal`.
    ///
    /// A list and not a function, because a function would be code of this plugin, which the pool
    /// outlives.
    pub fn is_fatal(mut self, codes: &'a [&'a str]) -> Self {
        self.settings.is_fatal = codes;
        self
    }

    /// When a connection is asked whether it still works. DBUtils: `ping`.
    pub fn ping(mut self, when: Ping) -> Self {
        self.settings.ping = Some(when);
        self
    }

    /// Ask by this statement instead of the driver's own way. DBUtils: `ping`, given as a string.
    pub fn ping_sql(mut self, sql: &'a str) -> Self {
        self.settings.ping_sql = sql;
        self
    }

    /// Do not ask a connection that worked that recently; by default one second.
    pub fn ping_after(mut self, age: Duration) -> Self {
        self.settings.ping_after = Some(age);
        self
    }

    /// How long the answer to a ping may take; by default one second.
    pub fn ping_timeout(mut self, timeout: Duration) -> Self {
        self.settings.ping_timeout = Some(timeout);
        self
    }

    /// Replaces no broken connection unseen: the first use of one is an error.
    pub fn no_failover(mut self) -> Self {
        self.settings.flags |= OPEN_NO_FAILOVER;
        self
    }

    /// Opens it.
    ///
    /// # Errors
    ///
    /// When the URL or a setting is wrong or the database cannot be reached.
    pub fn open(self) -> Result<T, OpenError> {
        // To the host 0 means its default, which is not what an author who wrote 0 meant.
        if self.settings.max_size == Some(0) {
            let message = "`max_size` is 0: a pool needs at least one connection".to_owned();
            return Err(OpenError::Invalid { message });
        }
        Ok(T::opened(open::open(T::KIND, &self.settings)?))
    }
}

impl Builder<'_, Steady> {
    /// Whether [`Steady::close`] closes the connection, or ends its transaction only. DBUtils: `closeable`.
    pub fn closeable(mut self, is_closeable: bool) -> Self {
        set(&mut self.settings.flags, OPEN_NOT_CLOSEABLE, !is_closeable);
        self
    }
}

impl Builder<'_, Persistent> {
    /// Whether [`ThreadConnection::close`](crate::db::ThreadConnection::close) closes the connection, or
    /// ends its transaction only. DBUtils: `closeable`.
    pub fn closeable(mut self, is_closeable: bool) -> Self {
        set(&mut self.settings.flags, OPEN_NOT_CLOSEABLE, !is_closeable);
        self
    }
}

impl Builder<'_, Pool> {
    /// Most connections at a time, at least 1. A SQLite database in memory has one, whatever this says.
    /// DBUtils: `maxconnections`, whose 0 (any number) does not exist here.
    pub fn max_size(mut self, connections: u32) -> Self {
        self.settings.max_size = Some(connections);
        self
    }

    /// Exactly so many connections, opened at the start and kept. DBUtils: `SimplePooledDB`.
    pub fn fixed(self, connections: u32) -> Self {
        self.max_size(connections).min_idle(connections).idle_timeout(None)
    }

    /// Connections that are opened at the start and kept idle for the next borrower. DBUtils: `mincached`.
    pub fn min_idle(mut self, connections: u32) -> Self {
        self.settings.min_idle = connections;
        self
    }

    /// Most idle connections: one that comes back beyond that is closed. By default `max_size`. DBUtils:
    /// `maxcached`.
    pub fn max_idle(mut self, connections: u32) -> Self {
        self.settings.max_idle = Some(connections);
        self
    }

    /// Most connections that [`Pool::get_shared`] shares; by default none. DBUtils: `maxshared`.
    pub fn max_shared(mut self, connections: u32) -> Self {
        self.settings.max_shared = connections;
        self
    }

    /// How long a checkout waits when all connections are lent out. Zero: fail at once. DBUtils:
    /// `blocking`, which knows only "at once" and "for ever".
    pub fn checkout_timeout(mut self, timeout: Duration) -> Self {
        self.settings.checkout_timeout = Some(timeout);
        self
    }

    /// Lends the connection that has been idle longest, so that all are used alike. By default it is the
    /// one that came back last, so that the others may rest and expire.
    pub fn fifo(mut self) -> Self {
        self.settings.flags |= OPEN_FIFO;
        self
    }

    /// What happens to a connection between two borrowers. DBUtils: `reset`.
    pub fn reset(mut self, reset: Reset) -> Self {
        set(&mut self.settings.flags, OPEN_RESET_ALWAYS, reset == Reset::Always);
        set(&mut self.settings.flags, OPEN_RESET_REOPEN, reset == Reset::Reopen);
        self
    }

    /// How long a connection beyond `min_idle` may be idle; by default ten minutes. `None`: for ever.
    pub fn idle_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.settings.idle_timeout = Some(timeout.into());
        self
    }

    /// How old a connection may get, less up to a tenth by chance; by default half an hour. `None`: any age.
    pub fn max_lifetime(mut self, age: impl Into<Option<Duration>>) -> Self {
        self.settings.max_lifetime = Some(age.into());
        self
    }

    /// How often idle connections are asked whether they work; by default never.
    pub fn ping_idle(mut self, every: impl Into<Option<Duration>>) -> Self {
        self.settings.ping_idle = Some(every.into());
        self
    }

    /// Reports a connection that is lent out for longer, with plugin, generation and route; by default
    /// after a minute. `None`: never.
    pub fn leak_after(mut self, time: impl Into<Option<Duration>>) -> Self {
        self.settings.leak_after = Some(time.into());
        self
    }

    /// Takes a backtrace at each checkout for that report. For the hunt of a leak, not for every day.
    pub fn leak_backtrace(mut self) -> Self {
        self.settings.flags |= OPEN_LEAK_BACKTRACE;
        self
    }

    /// Opens the pool also while the database cannot be reached. It connects when it can; until then
    /// checkouts fail at once.
    pub fn lazy(mut self) -> Self {
        self.settings.flags |= OPEN_LAZY;
        self
    }
}

fn set(flags: &mut u32, flag: u32, is_set: bool) {
    *flags = if is_set { *flags | flag } else { *flags & !flag };
}
