//! Plugin -> host: databases.
//!
//! Owns the translation between the boundary's views and the room `db`: nothing here knows a driver.
//! The table is here, its functions are in one file for each subject.
//!
//! # Invariants
//!
//! - Database calls block. On a thread that is inside a tokio runtime (the I/O thread that runs an
//!   `inline` route) each of them is an error before anything is touched.
#![expect(unsafe_code, reason = "writes through the boundary's out-pointers")]

mod failure;
mod open;
mod pool;
mod statement;
mod transaction;

use plugin_api::abi::{DbTable, HandleId, PoolTable};

use self::open::open;
pub(super) use self::pool::PoolResource;
use self::pool::{checkout, checkout_shared, close, pool_open};
use self::statement::{batch_execute, execute, query};
use self::transaction::{begin, commit, rollback};
use super::{Caller, Failure};
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

/// Writes a handle to `out`; takes it back when there is no `out`.
///
/// # Safety
///
/// `out` is null or writable during this call.
pub(super) unsafe fn give(caller: &Caller, handle: HandleId, out: *mut HandleId) -> Result<(), Failure> {
    if out.is_null() {
        drop(caller.handles.remove(handle));
        return Err(Failure::invalid("no place for the handle"));
    }
    // SAFETY: non-null by the check above, and writable by this function's contract.
    unsafe { out.write(handle) };
    Ok(())
}

#[cfg(test)]
mod tests;
