//! Plugin -> host: databases.
//!
//! Owns the translation between the boundary's views and the room `db`: nothing here knows a driver.
//! The table is here, its functions are in one file for each subject.
//!
//! # Invariants
//!
//! - Database calls block. On a thread that is inside a tokio runtime (the I/O thread that runs an
//!   `inline` route) each of them is an error before anything is touched.

mod failure;
mod open;
mod pool;
mod statement;
mod transaction;

use plugin_api::abi::{DbTable, PoolTable};

use self::open::open;
pub(super) use self::pool::{Debtor, pool_of};
use self::pool::{checkout, checkout_shared, close, pool_open};
pub(super) use self::statement::read;
use self::statement::{batch_execute, error_details, execute, query};
use self::transaction::{begin, begin_with, commit, rollback};
use super::Failure;
use crate::db;

/// The functions of the host's table.
pub(super) static DB_TABLE: DbTable = DbTable {
    size: size_of::<DbTable>(),
    pool_open,
    checkout,
    query,
    execute,
    batch_execute,
    begin,
    commit,
    rollback,
    error_details,
    begin_with,
};

/// The functions of the host's table for pools with all their settings.
pub(super) static POOL_TABLE: PoolTable =
    PoolTable { size: size_of::<PoolTable>(), open, checkout_shared, close };

/// Refuses to block a thread that must not.
pub(super) fn may_block() -> Result<(), Failure> {
    if db::blocking::is_forbidden() {
        return Err(Failure::invalid("database calls block; declare the route without `inline`"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
