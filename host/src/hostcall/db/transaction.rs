//! The steps of a transaction on a connection that is lent out, and of savepoints in a request's transaction.
#![expect(unsafe_code, reason = "passes the boundary's pointers to the guard")]

use plugin_api::abi::{ErrorSink, HandleId, HostCtx, Status, TxOptionsView};

use super::super::tx::{Target, options_of};
use super::super::{Caller, guard};
use crate::db::TransactionOptions;

pub(super) unsafe extern "C" fn begin(ctx: HostCtx, conn: HandleId, error: *const ErrorSink) -> Status {
    // SAFETY: `ctx` and `error` by the table's contract.
    unsafe { guard(ctx, error, |caller| Target::of(caller, conn)?.begin(&TransactionOptions::default())) }
}

pub(super) unsafe extern "C" fn begin_with(
    ctx: HostCtx,
    conn: HandleId,
    options: *const TxOptionsView,
    error: *const ErrorSink,
) -> Status {
    let body = |caller: &Caller| {
        // SAFETY: by the table's contract `options` is null or valid for this call.
        let options = unsafe { options_of(options) }?;
        Target::of(caller, conn)?.begin(&options)
    };
    // SAFETY: `ctx` and `error` by the table's contract.
    unsafe { guard(ctx, error, body) }
}

pub(super) unsafe extern "C" fn commit(ctx: HostCtx, conn: HandleId, error: *const ErrorSink) -> Status {
    // SAFETY: `ctx` and `error` by the table's contract.
    unsafe { guard(ctx, error, |caller| Target::of(caller, conn)?.commit()) }
}

pub(super) unsafe extern "C" fn rollback(ctx: HostCtx, conn: HandleId, error: *const ErrorSink) -> Status {
    // SAFETY: `ctx` and `error` by the table's contract.
    unsafe { guard(ctx, error, |caller| Target::of(caller, conn)?.rollback()) }
}
