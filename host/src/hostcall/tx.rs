//! Plugin -> host: request transactions, and what a connection's handle may name.
//!
//! A transaction of a request is used through the functions of connections: its handle stands where a
//! connection's would, so a plugin's code is the same for both.
#![expect(unsafe_code, reason = "writes through the boundary's out-pointers")]

use std::sync::Arc;

use plugin_api::abi::{
    ErrorSink, HandleId, HostCtx, Status, TX_ACCESS_DEFAULT, TX_DEFERRABLE, TX_DEFERRED, TX_IMMEDIATE,
    TX_ISOLATION_DEFAULT, TX_KEEP_ANSWERS, TX_KEEP_SUCCESSES, TX_READ_COMMITTED, TX_READ_ONLY,
    TX_REPEATABLE_READ, TX_SERIALIZABLE, TxOptionsView, TxTable,
};

use super::db::{Debtor, may_block, pool_of};
use super::view::sized;
use super::{Caller, Failure, Held, give, guard};
use crate::db::label::{self, Label};
use crate::db::{Access, Isolation, Lease, QueryError, TransactionOptions};
use crate::tx::{self, Joined, Rule, TxError};

/// The functions of the host's table.
pub(super) static TX_TABLE: TxTable = TxTable { size: size_of::<TxTable>(), join, doom, join_with };

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
    pub(super) fn begin(self, options: &TransactionOptions) -> Result<(), Failure> {
        label::enter(self.label, || match &self.on {
            On::Connection(lease) => Ok(lease.begin_with(options)?),
            On::Transaction(_) if *options != TransactionOptions::default() => {
                Err(QueryError::SavepointOptions.into())
            }
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
    // SAFETY: the contract is that of `join_with`, for which no options are null.
    unsafe { join_with(ctx, pool, rule, std::ptr::null(), out, error) }
}

unsafe extern "C" fn join_with(
    ctx: HostCtx,
    pool: HandleId,
    rule: u32,
    options: *const TxOptionsView,
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
        // SAFETY: by the table's contract `options` is null or valid for this call.
        let options = unsafe { options_of(options) }?;
        let joined = scope.join_for(Debtor::of(caller), &pool.0, rule, options)?;
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

/// What a plugin says of how a transaction begins.
///
/// # Safety
///
/// `view` is null, which says nothing, or valid for this call.
pub(super) unsafe fn options_of(view: *const TxOptionsView) -> Result<TransactionOptions, Failure> {
    let none =
        TxOptionsView { size: 0, isolation: TX_ISOLATION_DEFAULT, access: TX_ACCESS_DEFAULT, flags: 0 };
    // SAFETY: null or options as long as they say, by this function's contract.
    let view = unsafe { sized(view, none) }.unwrap_or(none);
    let unknown = |number: u32| Failure::invalid(format!("{number} is no option of a transaction"));
    Ok(TransactionOptions {
        isolation: match view.isolation {
            TX_ISOLATION_DEFAULT => None,
            TX_READ_COMMITTED => Some(Isolation::ReadCommitted),
            TX_REPEATABLE_READ => Some(Isolation::RepeatableRead),
            TX_SERIALIZABLE => Some(Isolation::Serializable),
            other => return Err(unknown(other)),
        },
        access: match view.access {
            TX_ACCESS_DEFAULT => None,
            TX_READ_ONLY => Some(Access::ReadOnly),
            TX_IMMEDIATE => Some(Access::Immediate),
            TX_DEFERRED => Some(Access::Deferred),
            other => return Err(unknown(other)),
        },
        is_deferrable: match view.flags {
            0 => false,
            TX_DEFERRABLE => true,
            other => return Err(unknown(other)),
        },
    })
}

impl From<TxError> for Failure {
    fn from(error: TxError) -> Failure {
        let message = error.to_string();
        match error {
            TxError::Checkout(error) => error.into(),
            TxError::Query(error) => error.into(),
            // As a statement that was cancelled.
            TxError::Abandoned { .. } => {
                Failure { sqlstate: "57014".to_owned(), ..Failure::new(Status::DATABASE, message) }
            }
            TxError::Ended | TxError::NotYours | TxError::Overlapping | TxError::OtherOptions => {
                Failure::invalid(message)
            }
        }
    }
}
