//! Plugin -> host: the calls of the transaction table, and nothing else.
#![expect(unsafe_code, reason = "calls the host's transaction functions through the C ABI")]

use std::mem::offset_of;

use crate::abi::{HandleId, HostTable, Status, TxTable};
use crate::db::TransactionOptions;
use crate::host::{CallError, Owned, call, table};

/// The host's table and its transaction functions.
fn tx() -> Result<(&'static HostTable, &'static TxTable), CallError> {
    let host = table()?;
    let none = || CallError::new(Status::CLOSED, "this host offers no transactions of requests");
    if host.size < offset_of!(HostTable, tx) + size_of::<*const TxTable>() {
        return Err(none());
    }
    // SAFETY: the table reaches beyond this field, by the check above; it is null or valid for as long
    // as the table itself.
    let tx = unsafe { host.tx.as_ref() };
    tx.map(|tx| (host, tx)).ok_or_else(none)
}

pub(super) fn join(pool: &Owned, rule: u32, options: TransactionOptions) -> Result<Owned, CallError> {
    let (host, tx) = tx()?;
    let mut id = HandleId::NONE;
    let says_nothing = options == TransactionOptions::new();
    if !says_nothing && tx.size < offset_of!(TxTable, join_with) + size_of::<usize>() {
        return Err(CallError::new(Status::INVALID, "this host is older than options of transactions"));
    }
    call(|error| {
        if says_nothing {
            // SAFETY: the table's own `ctx`; `id` and `error` are valid during the call.
            return unsafe { (tx.join)(host.ctx, pool.id(), rule, &mut id, error) };
        }
        // SAFETY: the table reaches beyond this function, by the check above; else as with `join`, and the view is
        // valid during the call.
        unsafe { (tx.join_with)(host.ctx, pool.id(), rule, &options.view(), &mut id, error) }
    })?;
    Ok(Owned::new(id))
}

pub(super) fn doom() -> Result<(), CallError> {
    let (host, tx) = tx()?;
    call(|error| {
        // SAFETY: the table's own `ctx`; `error` is valid during the call.
        unsafe { (tx.doom)(host.ctx, error) }
    })
}
