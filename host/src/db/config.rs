//! The settings of steady connections and of pools, and which of them make sense together.
//!
//! DBUtils' names for them are in the documentation of each. Where a name or a value differs from
//! there, the reason is, too.

use std::time::Duration;

use super::{Driver, OpenError, ThreadSafety};

/// Connections of a pool whose configuration does not say.
///
/// Enough to keep the cores and disks of a small database server busy; more of them mostly wait for
/// each other there. And few enough that a dozen pools fit into PostgreSQL's default limit of 100.
pub const DEFAULT_MAX_SIZE: u32 = 8;
/// How long a checkout waits when the configuration does not say.
pub const DEFAULT_CHECKOUT_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection that was idle for longer is asked whether it still works before it is lent out.
/// Asking costs a round trip, which a busy pool never pays.
pub const STALE_AFTER: Duration = Duration::from_secs(1);
/// How long the database may take to say that it is there.
pub const DEFAULT_PING_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a connection beyond `min_idle` may be idle.
pub const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_secs(600);
/// How old a connection may get, so that no server's memory of it grows without end.
pub const DEFAULT_MAX_LIFETIME: Duration = Duration::from_secs(1800);
/// A connection that is lent out for longer is probably forgotten.
pub const DEFAULT_LEAK_AFTER: Duration = Duration::from_secs(60);

/// When a connection is asked whether it still works. DBUtils: `ping`, whose values these are.
///
/// Never inside a transaction, where nothing could be gained, and never sooner than `ping_after`
/// after it was last seen to work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ping(u32);

impl Ping {
    /// Never.
    pub const NEVER: Ping = Ping(0);
    /// When it is lent out. The default.
    pub const CHECKOUT: Ping = Ping(1);
    /// Before a statement that is not a query, and before a transaction begins.
    ///
    /// DBUtils asks "when a cursor is created"; there are no cursors here.
    pub const STATEMENT: Ping = Ping(2);
    /// Before a query.
    pub const QUERY: Ping = Ping(4);
    /// Whenever it makes sense.
    pub const ALWAYS: Ping = Ping(7);

    /// The sum of the constants.
    ///
    /// # Errors
    ///
    /// When it has other bits.
    pub fn from_bits(bits: u32) -> Result<Ping, OpenError> {
        if bits > Ping::ALWAYS.0 { Err(OpenError::PingBits { bits }) } else { Ok(Ping(bits)) }
    }

    /// Whether all of `other` are in it.
    pub fn contains(self, other: Ping) -> bool {
        self.0 & other.0 == other.0
    }
}

/// The settings of one steady connection; of a pool, for each of its connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SteadyConfig {
    /// Statements after which a connection is replaced, outside a transaction; 0: any number. DBUtils:
    /// `maxusage`.
    pub max_uses: u64,
    /// Statements that prepare a new connection, each time one is made. DBUtils: `setsession`.
    pub session: Vec<String>,
    /// Which refusals mean that the connection is of no more use, beside those by which the server
    /// itself ends it: SQLSTATEs, or their classes (two characters). DBUtils: `failures`, `isfatal`.
    ///
    /// A list and not a function: a function would be code of a plugin, which the pool outlives.
    pub is_fatal: Vec<String>,
    /// When to ask whether the connection works. DBUtils: `ping`.
    pub ping: Ping,
    /// Ask by this statement instead of the driver's way. DBUtils: `ping`, given as a string.
    pub ping_sql: Option<String>,
    /// Do not ask a connection that worked that recently.
    pub ping_after: Duration,
    /// How long the answer may take.
    pub ping_timeout: Duration,
    /// Whether a broken connection is replaced unseen where nothing can be lost.
    pub failover: bool,
    /// Whether `close` of a steady or persistent connection closes it. DBUtils: `closeable`.
    pub closeable: bool,
}

impl Default for SteadyConfig {
    fn default() -> SteadyConfig {
        SteadyConfig {
            max_uses: 0,
            session: Vec::new(),
            is_fatal: Vec::new(),
            ping: Ping::CHECKOUT,
            ping_sql: None,
            ping_after: STALE_AFTER,
            ping_timeout: DEFAULT_PING_TIMEOUT,
            failover: true,
            closeable: true,
        }
    }
}

impl SteadyConfig {
    /// # Errors
    ///
    /// When a setting has a value that means nothing.
    pub(super) fn check(&self) -> Result<(), OpenError> {
        let is_empty = |sql: &String| sql.trim().is_empty();
        if self.session.iter().any(is_empty) {
            return Err(OpenError::EmptyStatement { name: "session" });
        }
        if self.ping_sql.as_ref().is_some_and(is_empty) {
            return Err(OpenError::EmptyStatement { name: "ping_sql" });
        }
        if self.ping_timeout.is_zero() {
            return Err(OpenError::ZeroDuration { name: "ping_timeout" });
        }
        for code in &self.is_fatal {
            let is_code = matches!(code.len(), 2 | 5)
                && code.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase());
            if !is_code {
                return Err(OpenError::Sqlstate { code: code.clone() });
            }
        }
        Ok(())
    }
}

/// Which idle connection is lent first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// The one that came back last: it is the warmest, and the others may rest and expire. First the one that this
    /// thread gave back itself, so that threads do not meet for each checkout.
    #[default]
    Lifo,
    /// The one that has been idle longest: all are used alike. DBUtils does this.
    Fifo,
}

/// What happens to a connection between two borrowers. DBUtils: `reset`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ResetPolicy {
    /// What the texts that ran may have left behind is undone; nothing if they left nothing. Whatever writes or
    /// calls a function that is not among the server's most common ones may have: a trigger or the function may
    /// change settings in its own body.
    #[default]
    IfDirty,
    /// All that can be undone is, even where no text shows it: for views, operators and row security policies
    /// that change settings when they are read. Costs a round trip at each return.
    Always,
    /// The connection is closed. Costs a new one for each borrower.
    Reopen,
}

/// The settings of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolConfig {
    /// Most connections at a time. DBUtils: `maxconnections`, where 0 means any number; here a limit is
    /// required, since a database server has one, too.
    pub max_size: u32,
    /// Connections made at the start and kept open and idle by the monitor. DBUtils: `mincached`.
    pub min_idle: u32,
    /// Most idle connections; one that comes back beyond that is closed. `None`: `max_size`. DBUtils:
    /// `maxcached`.
    pub max_idle: Option<u32>,
    /// Most connections that several borrowers share; 0: none are shared. DBUtils: `maxshared`.
    pub max_shared: u32,
    /// How long a checkout waits when all are lent out; zero: not at all. DBUtils: `blocking`.
    pub checkout_timeout: Duration,
    /// Which idle connection is lent first.
    pub order: Order,
    /// What happens to a connection between two borrowers.
    pub reset: ResetPolicy,
    /// How long a connection beyond `min_idle` may be idle. `None`: for ever.
    pub idle_timeout: Option<Duration>,
    /// How old a connection may get, less up to a tenth by chance, so that those which were made together
    /// are not closed together. `None`: any age.
    pub max_lifetime: Option<Duration>,
    /// The monitor asks idle connections that often whether they work. `None`: it does not.
    pub ping_idle: Option<Duration>,
    /// Report a connection that is lent out for longer. `None`: never.
    pub leak_after: Option<Duration>,
    /// Take a backtrace at each checkout, for that report. Costs some ten microseconds each.
    pub leak_backtrace: bool,
    /// Open the pool even if the database cannot be reached; the monitor connects when it can.
    pub lazy: bool,
    /// The settings of each connection.
    pub steady: SteadyConfig,
}

impl Default for PoolConfig {
    fn default() -> PoolConfig {
        PoolConfig {
            max_size: DEFAULT_MAX_SIZE,
            min_idle: 0,
            max_idle: None,
            max_shared: 0,
            checkout_timeout: DEFAULT_CHECKOUT_TIMEOUT,
            order: Order::Lifo,
            reset: ResetPolicy::IfDirty,
            idle_timeout: Some(DEFAULT_IDLE_TIMEOUT),
            max_lifetime: Some(DEFAULT_MAX_LIFETIME),
            ping_idle: None,
            leak_after: Some(DEFAULT_LEAK_AFTER),
            leak_backtrace: false,
            lazy: false,
            steady: SteadyConfig::default(),
        }
    }
}

impl PoolConfig {
    /// A pool of exactly `size` connections, which are opened at the start and stay. DBUtils:
    /// `SimplePooledDB`.
    #[must_use]
    pub fn fixed(size: u32) -> PoolConfig {
        PoolConfig { max_size: size, min_idle: size, idle_timeout: None, ..PoolConfig::default() }
    }

    /// The most idle connections.
    pub(super) fn max_idle(&self) -> u32 {
        self.max_idle.unwrap_or(self.max_size)
    }

    /// Fits the settings to the driver.
    ///
    /// # Errors
    ///
    /// When a setting has a value that means nothing, or two contradict each other. (DBUtils raises the
    /// larger limit silently; a contradiction is more often a mistake.)
    pub(super) fn checked(mut self, driver: &dyn Driver) -> Result<PoolConfig, OpenError> {
        if self.max_size == 0 {
            return Err(OpenError::NoSize);
        }
        let too_many = |name, value, limit_name, limit| {
            if value > limit { Err(OpenError::TooMany { name, value, limit_name, limit }) } else { Ok(()) }
        };
        too_many("max_idle", self.max_idle.unwrap_or(0), "max_size", self.max_size)?;
        too_many("min_idle", self.min_idle, "max_size", self.max_size)?;
        too_many("min_idle", self.min_idle, "max_idle", self.max_idle())?;
        too_many("max_shared", self.max_shared, "max_size", self.max_size)?;
        for (name, duration) in [
            ("idle_timeout", self.idle_timeout),
            ("max_lifetime", self.max_lifetime),
            ("ping_idle", self.ping_idle),
            ("leak_after", self.leak_after),
        ] {
            if duration.is_some_and(|duration| duration.is_zero()) {
                return Err(OpenError::ZeroDuration { name });
            }
        }
        self.steady.check()?;
        if self.max_shared > 0 && driver.thread_safety() < ThreadSafety::Connection {
            return Err(OpenError::NotShareable { driver: driver.name(), max_shared: self.max_shared });
        }
        if let Some(most) = driver.max_connections() {
            for limit in [&mut self.max_size, &mut self.min_idle, &mut self.max_shared] {
                *limit = most.min(*limit);
            }
            self.max_idle = self.max_idle.map(|limit| limit.min(most));
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests;
