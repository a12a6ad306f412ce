//! What a pool shows of itself.

use serde::Serialize;

use super::PoolConfig;
use super::state::State;
use crate::db::Driver;

/// A pool at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PoolStatus {
    /// The driver's name.
    pub driver: &'static str,
    /// Where the database is, without a password.
    pub address: String,
    /// Most connections at a time.
    pub max_size: u32,
    /// How long a checkout waits.
    pub checkout_timeout_ms: u64,
    /// Connections that are idle, lent out or being made.
    pub open: u32,
    /// Connections that nobody has borrowed.
    pub idle: u32,
    /// Connections that are lent out or being made.
    pub in_use: u32,
    /// Callers in line.
    pub waiting: u32,
    /// Connections made so far.
    pub connects: u64,
    /// Connections closed so far.
    pub closes: u64,
    /// Connections that could not be made.
    pub connect_failures: u64,
    /// Connections lent out so far.
    pub checkouts: u64,
    /// Checkouts that waited in vain.
    pub timeouts: u64,
    /// The database's own numbers of the open connections, such as PostgreSQL's process ids.
    pub backends: Vec<u64>,
    /// Whether the pool has been closed.
    pub is_closed: bool,
}

impl PoolStatus {
    pub(super) fn new(driver: &dyn Driver, config: PoolConfig, state: &State) -> PoolStatus {
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let idle = count(state.idle());
        PoolStatus {
            driver: driver.name(),
            address: driver.address().to_owned(),
            max_size: config.max_size,
            checkout_timeout_ms: u64::try_from(config.checkout_timeout.as_millis()).unwrap_or(u64::MAX),
            open: state.open,
            idle,
            in_use: state.open - idle,
            waiting: count(state.waiting()),
            connects: state.counts.connects,
            closes: state.counts.closes,
            connect_failures: state.counts.connect_failures,
            checkouts: state.counts.checkouts,
            timeouts: state.counts.timeouts,
            backends: state.backends(),
            is_closed: state.is_closed,
        }
    }
}
