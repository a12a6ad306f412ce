//! What a pool shows of itself.

use serde::Serialize;

use super::{Shared, Waits};
use crate::db::{PoolEvent, SlowStatement};

/// A pool at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PoolStatus {
    /// The driver's name.
    pub driver: &'static str,
    /// Where the database is, without a password.
    pub address: String,
    /// Most connections at a time.
    pub max_size: u32,
    /// Connections that the monitor keeps open and idle.
    pub min_idle: u32,
    /// How long a checkout waits.
    pub checkout_timeout_ms: u64,
    /// Connections that are idle, lent out or being made.
    pub open: u32,
    /// Connections that nobody has borrowed.
    pub idle: u32,
    /// Connections that are lent out or being made.
    pub in_use: u32,
    /// Of those, connections that several borrowers may share.
    pub shared: u32,
    /// Borrowers that have a share.
    pub shares: u32,
    /// Callers in line.
    pub waiting: u32,
    /// Connections made so far.
    pub connects: u64,
    /// Connections closed so far.
    pub closes: u64,
    /// Connections that took the place of a broken one.
    pub reopens: u64,
    /// Connections that could not be made.
    pub connect_failures: u64,
    /// Connections lent out so far.
    pub checkouts: u64,
    /// Checkouts that waited in vain.
    pub timeouts: u64,
    /// Connections that were reported as forgotten.
    pub leaks: u64,
    /// How long those that waited did.
    pub waits: Waits,
    /// The database's own numbers of the open connections, such as PostgreSQL's process ids.
    pub backends: Vec<u64>,
    /// Whether the last try to connect failed.
    pub is_down: bool,
    /// Whether the pool has been closed.
    pub is_closed: bool,
    /// The statements with the longest runs.
    pub slowest: Vec<SlowStatement>,
    /// The last events, oldest first.
    pub events: Vec<PoolEvent>,
}

impl Shared {
    pub(super) fn status(&self) -> PoolStatus {
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let tally = self.source.tally();
        let (slowest, events) = (self.source.slowest.all(), self.source.journal.all());
        let state = self.state.lock();
        let idle = count(state.idle_count());
        PoolStatus {
            driver: self.source.driver.name(),
            address: self.source.driver.address().to_owned(),
            max_size: self.config.max_size,
            min_idle: self.config.min_idle,
            checkout_timeout_ms: u64::try_from(self.config.checkout_timeout.as_millis()).unwrap_or(u64::MAX),
            open: state.open,
            idle,
            in_use: state.open - idle,
            shared: count(state.joints.len()),
            shares: count(state.joints.leases()),
            waiting: count(state.waiting()),
            connects: tally.connects,
            closes: tally.closes,
            reopens: tally.reopens,
            connect_failures: tally.failures,
            checkouts: state.checkouts(),
            timeouts: state.counts.timeouts,
            leaks: state.counts.leaks,
            waits: state.waits,
            backends: tally.backends,
            is_down: tally.is_down,
            is_closed: state.is_closed,
            slowest,
            events,
        }
    }
}
