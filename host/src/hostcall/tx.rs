//! Plugin -> host: request transactions, and what a connection's handle may name.
//!
//! A transaction of a request is used through the functions of connections: its handle stands where a
//! connection's would, so a plugin's code is the same for both.
#![expect(unsafe_code, reason = "writes through the boundary's out-pointers")]

use std::sync::Arc;

use plugin_api::abi::{ErrorSink, HandleId, HostCtx, Status, TX_KEEP_ANSWERS, TX_KEEP_SUCCESSES, TxTable};

use super::db::{Debtor, may_block, pool_of};
use super::{Caller, Failure, Held, give, guard};
use crate::db::label::{self, Label};
use crate::db::{Lease, QueryError};
use crate::tx::{self, Joined, Rule, TxError};

/// The functions of the host's table.
pub(super) static TX_TABLE: TxTable = TxTable { size: size_of::<TxTable>(), join, doom };

/// What statements run on, on behalf of the calling generation.
pub(super) struct Target {
    label: Label,
    on: On,
}

enum On {
    Connection(Arc<Lease>),
    Transaction(Joined),
}

impl Target {
    /// What a handle names.
    pub(super) fn of(caller: &Caller, handle: HandleId) -> Result<Target, Failure> {
        may_block()?;
        let on = match caller.handles.get(handle) {
            Some(Held::Connection(lease)) => On::Connection(lease),
            Some(Held::Transaction(joined)) => On::Transaction(joined),
            _ => return Err(Failure::new(Status::NOT_FOUND, "this handle names no connection")),
        };
        let label = Label { name: Arc::clone(&caller.plugin), number: caller.generation };
        Ok(Target { label, on })
    }

    /// Runs statements.
    pub(super) fn run<T>(self, body: impl FnOnce(&Lease) -> Result<T, QueryError>) -> Result<T, Failure> {
        label::enter(self.label, || match &self.on {
            On::Connection(lease) => Ok(body(lease)?),
            On::Transaction(joined) => Ok(joined.run(body)?),
        })
    }

    /// Begins a transaction, or a savepoint inside one.
    pub(super) fn begin(self) -> Result<(), Failure> {
        label::enter(self.label, || match &self.on {
            On::Connection(lease) => Ok(lease.begin()?),
            On::Transaction(joined) => Ok(joined.begin()?),
        })
    }

    /// Keeps what was begun last.
    pub(super) fn commit(&self) -> Result<(), Failure> {
        match &self.on {
            On::Connection(lease) => Ok(lease.commit()?),
            On::Transaction(joined) => Ok(joined.commit()?),
        }
    }

    /// Undoes what was begun last.
    pub(super) fn rollback(&self) -> Result<(), Failure> {
        match &self.on {
            On::Connection(lease) => Ok(lease.rollback()?),
            On::Transaction(joined) => Ok(joined.rollback()?),
        }
    }
}

unsafe extern "C" fn join(
    ctx: HostCtx,
    pool: HandleId,
    rule: u32,
    out: *mut HandleId,
    error: *const ErrorSink,
) -> Status {
    let body = |caller: &Caller| {
        may_block()?;
        let rule = match rule {
            TX_KEEP_ANSWERS => Rule::Answers,
            TX_KEEP_SUCCESSES => Rule::Successes,
            other => return Err(Failure::invalid(format!("{other} is no rule of a transaction"))),
        };
        let pool = pool_of(caller, pool)?;
        let Some(scope) = tx::current() else {
            return Err(Failure::invalid("there is no request here: use the pool's own `transaction`"));
        };
        let joined = scope.join_for(Debtor::of(caller), &pool.0, rule)?;
        // SAFETY: by the table's contract `out` is null or writable during this call.
        unsafe { give(caller, Held::Transaction(joined), out) }
    };
    // SAFETY: `ctx` and `error` by the table's contract.
    unsafe { guard(ctx, error, body) }
}

unsafe extern "C" fn doom(ctx: HostCtx, error: *const ErrorSink) -> Status {
    let body = |_: &Caller| {
        let scope = tx::current().ok_or_else(|| Failure::invalid("there is no request here to doom"))?;
        scope.doom();
        Ok(())
    };
    // SAFETY: `ctx` and `error` by the table's contract.
    unsafe { guard(ctx, error, body) }
}

impl From<TxError> for Failure {
    fn from(error: TxError) -> Failure {
        let message = error.to_string();
        match error {
            TxError::Checkout(error) => error.into(),
            TxError::Query(error) => error.into(),
            // As a statement that was cancelled.
            TxError::Abandoned { .. } => {
                Failure { status: Status::DATABASE, message, sqlstate: "57014".to_owned() }
            }
            TxError::Ended | TxError::NotYours | TxError::Overlapping => Failure::invalid(message),
        }
    }
}
