//! Databases: pools, connections, transactions, rows.
//!
//! Everything here is a handle to an object of the host: drivers and connections are the host's, so
//! they survive a reload. The calls block; a route that uses them must not be `inline`.
//!
//! # Addresses
//!
//! `sqlite:PATH`, where a relative path lies below the host's data directory; `sqlite::memory:`, a database of the one
//! connection that its pool has, which all borrowers use in turn; or SQLite's own `file:` URIs. Settings follow a `?`
//! and a `&` each: `mode` (`ro`, `rw`, `rwc`, `memory`), `immutable=1` for a file that nobody changes, `busy_timeout`
//! (`5s`; or milliseconds), `foreign_keys` (`on`), `synchronous` (SQLite's default), `journal_mode` (`wal`). What
//! stands in brackets first is so if nothing is said. A file that cannot be written is opened to be read.
//!
//! `postgres://user:password@host:port/database?...`, with libpq's settings; a directory as `host` is that of a
//! Unix socket (`postgres:///shop?host=/run/postgresql`), and several hosts, with `target_session_attrs`, are tried
//! in turn. Of encryption: `sslmode`, `sslrootcert`, and a certificate of the host's own as `sslcert` and `sslkey`.
//!
//! `pgbouncer=true` says that a pooler in transaction mode lies in between: then nothing is prepared and nothing may
//! stay in a session. Set pgbouncer's `server_login_retry` to less than a second, as in `0.2`: after its server
//! restarted it asks again only that often, every 15 s if nobody says so.
//!
//! # Types
//!
//! | PostgreSQL | Rust | SQLite |
//! |---|---|---|
//! | `bool` | `bool` | 0 and 1 |
//! | `int2`, `int4`, `int8`, `oid` | `i8` to `i64`, `u8` to `u64`, `usize`, if the number fits | INTEGER |
//! | `float4`, `float8` | `f32`, `f64` | REAL |
//! | `numeric` | `String`, `&str`: every digit of it; `rust_decimal::Decimal`, with feature `rust_decimal`; [`Number<T>`](Number): an integer or, rounded, `f64`; as a parameter also integers and floats | TEXT |
//! | `text`, `varchar`, `bpchar`, `name`, `citext`, enums, `xml` | `String`, `&str` | TEXT |
//! | `bytea` | `Vec<u8>`, `&[u8]` | BLOB |
//! | `json`, `jsonb` | [`Json<T>`](Json), `serde_json::Value`, with feature `json`; or text | TEXT |
//! | `uuid` | `uuid::Uuid`, with feature `uuid`; or text | TEXT or BLOB |
//! | `date`, `time`, `timestamp`, `timestamptz` | types of `chrono`, `jiff` or `time`, with these features; or text | TEXT |
//! | `inet` | `IpAddr`, `Ipv4Addr`, `Ipv6Addr`; or text | TEXT |
//! | `interval` | `Duration`; or text | TEXT |
//! | `char(1)`, text of one character | `char` | TEXT |
//! | arrays of all these | `Vec<T>`; `Vec<Option<T>>` with NULLs; `Vec<Vec<T>>` for a matrix | as parameters, JSON |
//! | every other type, such as ranges and rows | `String`, `&str`, as `::text` prints it | |
//!
//! A date or time that has more than its Rust type holds (an offset, a time of day) is an error, and so is what no type
//! holds (`infinity`, years before Christ) or a database would alter or order wrongly (years outside of 1 to 9999, leap
//! seconds). Moments are stored in UTC, in SQLite in the form of `datetime('now')` with `+00:00` behind it; text of
//! SQLite without an offset is read as UTC. PostgreSQL rounds to microseconds.
//!
//! SQLite stores no NaN, and its columns of numbers round what has more digits than a float: both are errors, and
//! nothing is stored. Keep long decimals in a column of type TEXT. A list is sent to it as JSON: `WHERE id IN (SELECT
//! value FROM json_each($1))`.
//!
//! Of a column of an *other* type the statement runs inside one that asks for it as text. What cannot stand in
//! `WITH q AS (...)`, and every statement behind a pooler, has to ask itself: `column::text`.
//!
//! # Invariants
//!
//! - `unsafe` is in `call.rs`, `open.rs`, `stream_call.rs` and `tx_call.rs` only.

mod array;
mod builder;
mod call;
mod connection;
mod details;
mod error;
mod idempotent;
mod listen;
mod open;
mod options;
mod persistent;
mod pool;
mod row;
mod row_stream;
pub mod rows;
mod steady;
mod stream;
mod stream_call;
mod transaction;
mod tx_call;
mod value;

pub use self::array::{Array, ArrayBuf, Element, OwnedArray};
pub use self::builder::{Builder, Opens, Ping, Reset};
pub(crate) use self::call::last_details;
pub use self::connection::{Connection, Transaction};
pub use self::details::ErrorDetails;
pub use self::error::{CheckoutError, OpenError, QueryError};
pub use self::idempotent::{Idempotent, IdempotentPool};
pub use self::listen::{Listener, Notice};
pub use self::options::TransactionOptions;
pub use self::persistent::{Persistent, ThreadConnection};
pub use self::pool::Pool;
pub use self::row::{Column, ColumnError, ColumnIndex, Iter, OwnedRow, Row, Rows};
pub use self::row_stream::RowStream;
pub use self::steady::Steady;
pub use self::stream::CopyError;
pub use self::transaction::{Keep, PoolTransaction, RequestTransaction};
#[cfg(feature = "json")]
pub use self::value::Json;
pub use self::value::{FromValue, Mismatch, Number, Parameter, ParameterError, ToValue, Value};

#[cfg(test)]
mod tests;
