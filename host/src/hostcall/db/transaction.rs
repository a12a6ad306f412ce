//! The steps of a transaction on a connection that is lent out, and of savepoints in a request's transaction.
#![expect(unsafe_code, reason = "passes the boundary's pointers to the guard")]

use plugin_api::abi::{ErrorSink, HandleId, HostCtx, Status};

use super::super::guard;
use super::super::tx::Target;

pub(super) unsafe extern "C" fn begin(ctx: HostCtx, conn: HandleId, error: *const ErrorSink) -> Status {
    // SAFETY: `ctx` and `error` by the table's contract.
    unsafe { guard(ctx, error, |caller| Target::of(caller, conn)?.begin()) }
}

pub(super) unsafe extern "C" fn commit(ctx: HostCtx, conn: HandleId, error: *const ErrorSink) -> Status {
    // SAFETY: `ctx` and `error` by the table's contract.
    unsafe { guard(ctx, error, |caller| Target::of(caller, conn)?.commit()) }
}

pub(super) unsafe extern "C" fn rollback(ctx: HostCtx, conn: HandleId, error: *const ErrorSink) -> Status {
    // SAFETY: `ctx` and `error` by the table's contract.
    unsafe { guard(ctx, error, |caller| Target::of(caller, conn)?.rollback()) }
}
