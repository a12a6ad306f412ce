//! Request transactions: what a request changes is kept if it ends well, before the client hears of it.
//!
//! Owns the transactions of one request ([`Scope`]), when each begins, and how they end together. Does
//! not know requests, plugins or HTTP: whoever runs a handler makes the scope, runs the handler in it
//! and says how it ended; whoever gives up waiting says so with [`Scope::abandon`].
//!
//! # Invariants
//!
//! - One transaction for each pool, begun by its first statement. A pool that is only named is not
//!   touched.
//! - A transaction is committed by [`Scope::conclude`] alone, on its caller's thread. What was abandoned
//!   before that is rolled back at once and can never be committed.
//! - Transactions are committed in the order in which they began. The first failure rolls back the rest.
//! - Whatever becomes of a scope, no transaction outlives it: dropped, it rolls back.

mod error;
mod scope;
mod transaction;

pub use self::error::{CommitError, TxError};
pub use self::scope::{Ending, Scope, current};
pub use self::transaction::{Joined, Rule};
pub use crate::db::Access;
pub use crate::db::interrupt::Reason;

#[cfg(test)]
mod tests;
