//! Databases: pools, connections, transactions, rows.
//!
//! Everything here is a handle to an object of the host: drivers and connections are the host's, so
//! they survive a reload. The calls block; a route that uses them must not be `inline`.
//!
//! # Invariants
//!
//! - `unsafe` is in `call.rs`, `stream_call.rs` and `tx_call.rs` only.

mod call;
mod connection;
mod error;
mod listen;
mod pool;
mod row;
pub mod rows;
mod stream;
mod stream_call;
mod transaction;
mod tx_call;
mod value;

pub use self::connection::{Connection, Transaction};
pub use self::error::{CheckoutError, OpenError, QueryError};
pub use self::listen::{Listener, Notice};
pub use self::pool::{Builder, Pool};
pub use self::row::{Column, ColumnError, ColumnIndex, Iter, OwnedRow, Row, Rows};
pub use self::stream::CopyError;
pub use self::transaction::{Keep, PoolTransaction, RequestTransaction};
pub use self::value::{FromValue, Mismatch, OutOfRange, ToValue, Value};

#[cfg(test)]
mod tests;
