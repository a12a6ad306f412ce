//! Plugin -> host: the calls of the database table, and nothing else.
//!
//! # Invariants
//!
//! - Every view passed here borrows from an argument, so it outlives the call.
#![expect(unsafe_code, reason = "calls the host's database functions through the C ABI")]

use std::mem::offset_of;
use std::time::Duration;

use crate::abi::{
    BytesView, DEFAULT_NS, DbTable, ErrorSink, HandleId, HostTable, StatementView, Status, StrView,
    VALUE_ARRAY, VALUE_BOOL, VALUE_BYTES, VALUE_FLOAT, VALUE_INT, VALUE_NULL, VALUE_TEXT, ValueView,
};
use crate::db::rows::Block;
use crate::db::{ErrorDetails, Parameter, QueryError, Rows, ToValue, TransactionOptions, Value};
use crate::host::{CallError, Owned, call, collect, table};

/// Parameters that are converted on the stack: as many as nearly every statement has at most.
const FEW: usize = 8;

/// The host's table and its database functions.
fn db() -> Result<(&'static HostTable, &'static DbTable), CallError> {
    let host = table()?;
    // SAFETY: the host's table holds a pointer that is null or valid for as long as the table itself.
    let db = unsafe { host.db.as_ref() };
    db.map(|db| (host, db)).ok_or_else(|| CallError::new(Status::CLOSED, "this host offers no databases"))
}

/// `None` means the default; a duration beyond 584 years waits that long.
pub(super) fn nanoseconds(timeout: Option<Duration>) -> u64 {
    let Some(timeout) = timeout else { return DEFAULT_NS };
    u64::try_from(timeout.as_nanos()).unwrap_or(DEFAULT_NS - 1).min(DEFAULT_NS - 1)
}

pub(super) fn checkout(pool: &Owned, timeout: Option<Duration>) -> Result<Owned, CallError> {
    let (host, db) = db()?;
    let mut id = HandleId::NONE;
    call(|error| {
        // SAFETY: the table's own `ctx`; `id` and `error` are valid during the call.
        unsafe { (db.checkout)(host.ctx, pool.id(), nanoseconds(timeout), &mut id, error) }
    })?;
    Ok(Owned::new(id))
}

pub(super) fn query(
    conn: &Owned,
    flags: u64,
    sql: &str,
    params: &[&dyn ToValue],
) -> Result<Rows, QueryError> {
    let (host, db) = db()?;
    let mut bytes = Vec::new();
    prepared(flags, sql, params, |statement| {
        collect(&mut bytes, |rows, error| {
            // SAFETY: the table's own `ctx`; statement, `rows` and `error` are valid during the call.
            unsafe { (db.query)(host.ctx, conn.id(), statement, rows, error) }
        })
    })??;
    let block = Block::parse(bytes).map_err(|error| QueryError::Host { message: error.to_string() })?;
    Ok(Rows::from(block))
}

pub(super) fn execute(
    conn: &Owned,
    flags: u64,
    sql: &str,
    params: &[&dyn ToValue],
) -> Result<u64, QueryError> {
    let (host, db) = db()?;
    let mut affected = 0;
    prepared(flags, sql, params, |statement| {
        call(|error| {
            // SAFETY: as in `query`; `affected` is writable during the call.
            unsafe { (db.execute)(host.ctx, conn.id(), statement, &mut affected, error) }
        })
    })??;
    Ok(affected)
}

pub(super) fn batch_execute(conn: &Owned, sql: &str) -> Result<(), CallError> {
    let (host, db) = db()?;
    call(|error| {
        // SAFETY: the table's own `ctx`; the view borrows from `sql`; `error` is valid during the call.
        unsafe { (db.batch_execute)(host.ctx, conn.id(), StrView::new(sql), error) }
    })
}

/// A step of a transaction.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    Begin,
    Commit,
    Rollback,
}

pub(super) fn step(conn: &Owned, step: Step) -> Result<(), CallError> {
    let (host, db) = db()?;
    let function = match step {
        Step::Begin => db.begin,
        Step::Commit => db.commit,
        Step::Rollback => db.rollback,
    };
    call(|error: *const ErrorSink| {
        // SAFETY: the table's own `ctx`; `error` is valid during the call.
        unsafe { function(host.ctx, conn.id(), error) }
    })
}

/// Begins a transaction with a say in how.
pub(super) fn begin_with(conn: &Owned, options: TransactionOptions) -> Result<(), CallError> {
    if options == TransactionOptions::new() {
        return step(conn, Step::Begin);
    }
    let (host, db) = db()?;
    if db.size < offset_of!(DbTable, begin_with) + size_of::<usize>() {
        return Err(CallError::new(Status::INVALID, "this host is older than options of transactions"));
    }
    call(|error| {
        // SAFETY: the table reaches beyond this function, by the check above; its own `ctx`; the view and `error`
        // are valid during the call.
        unsafe { (db.begin_with)(host.ctx, conn.id(), &options.view(), error) }
    })
}

/// What the database said beside its words of the failure that this thread was told a moment ago.
pub(crate) fn last_details() -> Option<Box<ErrorDetails>> {
    let (host, db) = db().ok()?;
    if db.size < offset_of!(DbTable, error_details) + size_of::<usize>() {
        return None;
    }
    let mut bytes = Vec::new();
    collect(&mut bytes, |out, error| {
        // SAFETY: the table reaches beyond this function, by the check above; its own `ctx`; `out` and `error` are
        // valid during the call.
        unsafe { (db.error_details)(host.ctx, out, error) }
    })
    .ok()?;
    Some(Box::new(ErrorDetails::from_block(bytes)))
}

/// Runs `body` with a statement and its parameters as views that are valid for its call.
pub(super) fn prepared<T>(
    flags: u64,
    sql: &str,
    params: &[&dyn ToValue],
    body: impl FnOnce(&StatementView) -> T,
) -> Result<T, QueryError> {
    if params.len() <= FEW {
        let mut values = [const { Parameter::Value(Value::Null) }; FEW];
        let mut views = [view(Value::Null); FEW];
        for (index, param) in params.iter().enumerate() {
            values[index] = parameter(index, *param)?;
        }
        for (view_of, value) in views.iter_mut().zip(&values[..params.len()]) {
            *view_of = view(value.as_value());
        }
        return Ok(body(&statement(flags, sql, &views[..params.len()])));
    }
    let values = params.iter().enumerate().map(|(index, param)| parameter(index, *param));
    let values = values.collect::<Result<Vec<_>, _>>()?;
    let views: Vec<ValueView> = values.iter().map(|value| view(value.as_value())).collect();
    Ok(body(&statement(flags, sql, &views)))
}

/// A statement whose text and parameters are borrowed: the pointers in it are no longer valid than these are.
fn statement(flags: u64, sql: &str, params: &[ValueView]) -> StatementView {
    StatementView {
        size: size_of::<StatementView>(),
        sql: StrView::new(sql),
        params: params.as_ptr(),
        param_count: params.len(),
        flags,
    }
}

/// A parameter as a value, which may be made for it.
fn parameter(index: usize, param: &dyn ToValue) -> Result<Parameter<'_>, QueryError> {
    param.to_value().map_err(|error| QueryError::parameter(index, &error))
}

fn view(value: Value<'_>) -> ValueView {
    let (tag, bits, bytes) = match value {
        Value::Null => (VALUE_NULL, 0, BytesView::EMPTY),
        Value::Bool(value) => (VALUE_BOOL, u64::from(value), BytesView::EMPTY),
        Value::Int(value) => (VALUE_INT, value.cast_unsigned(), BytesView::EMPTY),
        Value::Float(value) => (VALUE_FLOAT, value.to_bits(), BytesView::EMPTY),
        Value::Text(text) => (VALUE_TEXT, 0, BytesView::new(text.as_bytes())),
        Value::Bytes(bytes) => (VALUE_BYTES, 0, BytesView::new(bytes)),
        Value::Array(array) => (VALUE_ARRAY, 0, BytesView::new(array.as_bytes())),
    };
    ValueView { tag, bits, bytes }
}
