//! Databases: pools, connections, transactions, rows.
//!
//! Everything here is a handle to an object of the host: drivers and connections are the host's, so
//! they survive a reload. The calls block; a route that uses them must not be `inline`.
//!
//! # Invariants
//!
//! - `unsafe` is in `call.rs`, `open.rs` and `tx_call.rs` only.

mod builder;
mod call;
mod connection;
mod error;
mod idempotent;
mod open;
mod persistent;
mod pool;
mod row;
pub mod rows;
mod steady;
mod transaction;
mod tx_call;
mod value;

pub use self::builder::{Builder, Opens, Ping, Reset};
pub use self::connection::{Connection, Transaction};
pub use self::error::{CheckoutError, OpenError, QueryError};
pub use self::idempotent::{Idempotent, IdempotentPool};
pub use self::persistent::{Persistent, ThreadConnection};
pub use self::pool::Pool;
pub use self::row::{Column, ColumnError, ColumnIndex, Iter, OwnedRow, Row, Rows};
pub use self::steady::Steady;
pub use self::transaction::{Keep, PoolTransaction, RequestTransaction};
pub use self::value::{FromValue, Mismatch, OutOfRange, ToValue, Value};

#[cfg(test)]
mod tests;
