//! How a transaction begins.

use crate::abi::{
    TX_DEFERRABLE, TX_DEFERRED, TX_IMMEDIATE, TX_READ_COMMITTED, TX_READ_ONLY, TX_REPEATABLE_READ,
    TX_SERIALIZABLE, TxOptionsView,
};

/// What is said of a transaction before its first statement. New options say nothing: the database decides.
///
/// ```no_run
/// use plugin_api::prelude::*;
///
/// fn report(req: &Request, db: &db::Pool) -> Result<String> {
///     let tx = req.transaction_with(db, db::TransactionOptions::new().repeatable_read().read_only())?;
///     let count: i64 = tx.query_one("SELECT count(*) FROM purchase", &[])?.get(0)?;
///     Ok(format!("{count} purchases\n"))
/// }
/// ```
///
/// | | PostgreSQL | SQLite |
/// |---|---|---|
/// | isolation | as asked; else the server's default, mostly read committed | always serializable |
/// | `read_only` | refuses what writes, 25006 | the same, and takes no lock |
/// | `immediate` | no difference | takes the one right to write when it begins, waiting for the busy time-out |
/// | `deferred` | no difference | takes it with the first statement that writes |
/// | neither of these | | a request's: `deferred` for GET and HEAD, else `immediate`; any other: `immediate` |
/// | `deferrable` | as asked | no difference |
///
/// With `deferred`, readers of SQLite run side by side, and none waits for a writer. One that has read, and writes
/// after somebody else has written, gets the error 40001: it would overwrite what it has not seen. A route that is
/// declared `idempotent` is then run again, with `immediate`; any other answers 503 with `Retry-After`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TransactionOptions {
    isolation: u32,
    access: u32,
    flags: u32,
}

impl TransactionOptions {
    /// Options that say nothing.
    #[must_use]
    pub const fn new() -> TransactionOptions {
        TransactionOptions { isolation: 0, access: 0, flags: 0 }
    }

    /// Each statement sees what was committed before it.
    #[must_use]
    pub const fn read_committed(self) -> TransactionOptions {
        TransactionOptions { isolation: TX_READ_COMMITTED, ..self }
    }

    /// All statements see what was committed before the first one.
    #[must_use]
    pub const fn repeatable_read(self) -> TransactionOptions {
        TransactionOptions { isolation: TX_REPEATABLE_READ, ..self }
    }

    /// As if transactions ran one after the other.
    #[must_use]
    pub const fn serializable(self) -> TransactionOptions {
        TransactionOptions { isolation: TX_SERIALIZABLE, ..self }
    }

    /// It reads: a statement that writes is refused, with 25006.
    #[must_use]
    pub const fn read_only(self) -> TransactionOptions {
        TransactionOptions { access: TX_READ_ONLY, ..self }
    }

    /// On SQLite, it takes the right to write when it begins.
    #[must_use]
    pub const fn immediate(self) -> TransactionOptions {
        TransactionOptions { access: TX_IMMEDIATE, ..self }
    }

    /// On SQLite, it takes the right to write with its first statement that writes.
    #[must_use]
    pub const fn deferred(self) -> TransactionOptions {
        TransactionOptions { access: TX_DEFERRED, ..self }
    }

    /// With `serializable` and `read_only` on PostgreSQL: it waits for a moment from which it cannot fail.
    #[must_use]
    pub const fn deferrable(self) -> TransactionOptions {
        TransactionOptions { flags: TX_DEFERRABLE, ..self }
    }

    pub(crate) fn view(self) -> TxOptionsView {
        let TransactionOptions { isolation, access, flags } = self;
        TxOptionsView { size: size_of::<TxOptionsView>(), isolation, access, flags }
    }
}
