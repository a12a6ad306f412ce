//! Plugin -> host: databases.
//!
//! Owns the translation between the boundary's views and the room `db`: nothing here knows a driver.
//!
//! # Invariants
//!
//! - Database calls block. On a thread that is inside a tokio runtime (the I/O thread that runs an
//!   `inline` route) each of them is an error before anything is touched.
#![expect(unsafe_code, reason = "reads the boundary's views and writes through its out-pointers")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use plugin_api::abi::{
    BytesSink, BytesView, DEFAULT_NS, DbTable, ErrorSink, HandleId, HostCtx, PoolConfigView, StatementView,
    Status, StrView, VALUE_BOOL, VALUE_BYTES, VALUE_FLOAT, VALUE_INT, VALUE_NULL, VALUE_TEXT, ValueView,
};

use super::tx::Target;
use super::view::{bytes, slice, text};
use super::{Caller, Failure, Held, guard};
use crate::db::{
    self, CheckoutError, ConfigError, ConnectError, OpenError, Pool, PoolConfig, QueryError, Value,
};
use crate::registry::Resource;

/// The functions of the host's table.
pub(super) static DB_TABLE: DbTable = DbTable {
    size: size_of::<DbTable>(),
    pool_open,
    checkout,
    query,
    execute,
    batch_execute,
    begin,
    commit,
    rollback,
};

/// A pool as the registry keeps it.
#[derive(Debug)]
pub(super) struct PoolResource(pub Pool);

impl Resource for PoolResource {
    fn type_name(&self) -> &'static str {
        "db::Pool"
    }

    fn describe(&self) -> serde_json::Value {
        serde_json::to_value(self.0.status()).unwrap_or_default()
    }

    fn close(&self) {
        self.0.close();
    }
}

unsafe extern "C" fn pool_open(
    ctx: HostCtx,
    config: *const PoolConfigView,
    out: *mut HandleId,
    error: *const ErrorSink,
) -> Status {
    let body = |caller: &Caller| {
        may_block()?;
        // SAFETY: by the table's contract `config` is null or valid for this call.
        let Some(config) = (unsafe { config.as_ref() }) else {
            return Err(Failure::invalid("no configuration of the pool"));
        };
        // SAFETY: the view in the configuration is valid for this call.
        let url = unsafe { text(config.url, "the URL of the database") }?;
        let pool = open(url, config.max_size, config.checkout_timeout_ns, &caller.data_dir)?;
        let handle = caller.handles.insert(Held::Resource(Arc::new(PoolResource(pool))));
        // SAFETY: by the table's contract `out` is null or writable during this call.
        unsafe { give(caller, handle, out) }
    };
    // SAFETY: `ctx` and `error` by the table's contract.
    unsafe { guard(ctx, error, body) }
}

unsafe extern "C" fn checkout(
    ctx: HostCtx,
    pool: HandleId,
    timeout_ns: u64,
    out: *mut HandleId,
    error: *const ErrorSink,
) -> Status {
    let body = |caller: &Caller| {
        may_block()?;
        let Some(pool) = caller.handles.resource::<PoolResource>(pool) else {
            return Err(Failure::new(Status::NOT_FOUND, "this handle names no pool"));
        };
        let lease = match timeout_ns {
            DEFAULT_NS => pool.0.checkout(),
            timeout_ns => pool.0.checkout_timeout(Duration::from_nanos(timeout_ns)),
        }?;
        let handle = caller.handles.insert(Held::Connection(Arc::new(lease)));
        // SAFETY: by the table's contract `out` is null or writable during this call.
        unsafe { give(caller, handle, out) }
    };
    // SAFETY: `ctx` and `error` by the table's contract.
    unsafe { guard(ctx, error, body) }
}

unsafe extern "C" fn query(
    ctx: HostCtx,
    conn: HandleId,
    statement: *const StatementView,
    rows: *const BytesSink,
    error: *const ErrorSink,
) -> Status {
    let body = |caller: &Caller| {
        let target = Target::of(caller, conn)?;
        // SAFETY: by the table's contract `statement` is null or valid for this call.
        let (sql, params) = unsafe { read(statement) }?;
        let block = target.run(|lease| lease.query(sql, &params))?;
        // SAFETY: by the table's contract `rows` is null or valid for this call.
        if let Some(BytesSink { data, write: Some(write) }) = unsafe { rows.as_ref() } {
            // SAFETY: `write` and `data` belong together; the view lives until the call returns.
            unsafe { write(*data, BytesView::new(&block)) };
        }
        Ok(())
    };
    // SAFETY: `ctx` and `error` by the table's contract.
    unsafe { guard(ctx, error, body) }
}

unsafe extern "C" fn execute(
    ctx: HostCtx,
    conn: HandleId,
    statement: *const StatementView,
    affected: *mut u64,
    error: *const ErrorSink,
) -> Status {
    let body = |caller: &Caller| {
        let target = Target::of(caller, conn)?;
        // SAFETY: by the table's contract `statement` is null or valid for this call.
        let (sql, params) = unsafe { read(statement) }?;
        let number = target.run(|lease| lease.execute(sql, &params))?;
        if !affected.is_null() {
            // SAFETY: non-null by the check above, and writable during this call by the table's contract.
            unsafe { affected.write(number) };
        }
        Ok(())
    };
    // SAFETY: `ctx` and `error` by the table's contract.
    unsafe { guard(ctx, error, body) }
}

unsafe extern "C" fn batch_execute(
    ctx: HostCtx,
    conn: HandleId,
    sql: StrView,
    error: *const ErrorSink,
) -> Status {
    let body = |caller: &Caller| {
        let target = Target::of(caller, conn)?;
        // SAFETY: the view is valid for this call.
        let sql = unsafe { text(sql, "the statement") }?;
        target.run(|lease| lease.batch_execute(sql))
    };
    // SAFETY: `ctx` and `error` by the table's contract.
    unsafe { guard(ctx, error, body) }
}

unsafe extern "C" fn begin(ctx: HostCtx, conn: HandleId, error: *const ErrorSink) -> Status {
    // SAFETY: `ctx` and `error` by the table's contract.
    unsafe { guard(ctx, error, |caller| Target::of(caller, conn)?.begin()) }
}

unsafe extern "C" fn commit(ctx: HostCtx, conn: HandleId, error: *const ErrorSink) -> Status {
    // SAFETY: `ctx` and `error` by the table's contract.
    unsafe { guard(ctx, error, |caller| Target::of(caller, conn)?.commit()) }
}

unsafe extern "C" fn rollback(ctx: HostCtx, conn: HandleId, error: *const ErrorSink) -> Status {
    // SAFETY: `ctx` and `error` by the table's contract.
    unsafe { guard(ctx, error, |caller| Target::of(caller, conn)?.rollback()) }
}

/// Refuses to block a thread that must not.
pub(super) fn may_block() -> Result<(), Failure> {
    if db::blocking::is_forbidden() {
        return Err(Failure::invalid("database calls block; declare the route without `inline`"));
    }
    Ok(())
}

fn open(url: &str, max_size: u32, timeout_ns: u64, data_dir: &Path) -> Result<Pool, Failure> {
    let mut config = PoolConfig::default();
    if max_size != 0 {
        config.max_size = max_size;
    }
    if timeout_ns != DEFAULT_NS {
        config.checkout_timeout = Duration::from_nanos(timeout_ns);
    }
    Ok(Pool::open(url, data_dir, config)?)
}

/// Writes a handle to `out`; takes it back when there is no `out`.
///
/// # Safety
///
/// `out` is null or writable during this call.
pub(super) unsafe fn give(caller: &Caller, handle: HandleId, out: *mut HandleId) -> Result<(), Failure> {
    if out.is_null() {
        drop(caller.handles.remove(handle));
        return Err(Failure::invalid("no place for the handle"));
    }
    // SAFETY: non-null by the check above, and writable by this function's contract.
    unsafe { out.write(handle) };
    Ok(())
}

/// The text and the parameters of a statement.
///
/// # Safety
///
/// `statement` is null or points to a statement whose views are valid for `'a`.
unsafe fn read<'a>(statement: *const StatementView) -> Result<(&'a str, Vec<Value<'a>>), Failure> {
    // SAFETY: null or valid, by this function's contract.
    let Some(statement) = (unsafe { statement.as_ref() }) else {
        return Err(Failure::invalid("no statement"));
    };
    // SAFETY: the statement's view is valid for `'a` by this function's contract.
    let sql = unsafe { text(statement.sql, "the statement") }?;
    // SAFETY: `params` and `param_count` describe an array that is valid for `'a`, likewise.
    let params: &[ValueView] = unsafe { slice(statement.params, statement.param_count) };
    let mut values = Vec::with_capacity(params.len());
    for (index, param) in params.iter().enumerate() {
        // SAFETY: the parameter's view is valid for `'a`, likewise.
        values.push(unsafe { value(index + 1, *param) }?);
    }
    Ok((sql, values))
}

/// A parameter; `number` counts from 1, for the error.
///
/// # Safety
///
/// The parameter's view is valid for `'a`.
unsafe fn value<'a>(number: usize, param: ValueView) -> Result<Value<'a>, Failure> {
    Ok(match param.tag {
        VALUE_NULL => Value::Null,
        VALUE_BOOL => Value::Bool(param.bits != 0),
        VALUE_INT => Value::Int(param.bits.cast_signed()),
        VALUE_FLOAT => Value::Float(f64::from_bits(param.bits)),
        VALUE_TEXT => {
            // SAFETY: valid for `'a` by this function's contract.
            let text = unsafe { bytes(param.bytes) };
            Value::Text(
                std::str::from_utf8(text)
                    .map_err(|_| Failure::invalid(format!("parameter ${number} is not UTF-8")))?,
            )
        }
        // SAFETY: valid for `'a` by this function's contract.
        VALUE_BYTES => Value::Bytes(unsafe { bytes(param.bytes) }),
        tag => return Err(Failure::invalid(format!("parameter ${number} has the unknown tag {tag}"))),
    })
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Failure {
        Failure::invalid(error.to_string())
    }
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Failure {
        let sqlstate = match &error {
            ConnectError::Unreachable { sqlstate, .. } => sqlstate.clone().unwrap_or_default(),
            ConnectError::Directory { .. } => String::new(),
        };
        Failure { status: Status::UNREACHABLE, message: error.to_string(), sqlstate }
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Failure {
        match error {
            OpenError::Config(error) => error.into(),
            OpenError::Connect(error) => error.into(),
            error @ OpenError::NoSize => Failure::invalid(error.to_string()),
        }
    }
}

impl From<CheckoutError> for Failure {
    fn from(error: CheckoutError) -> Failure {
        let status = match error {
            CheckoutError::Unreachable(error) => return error.into(),
            CheckoutError::Exhausted { .. } => Status::EXHAUSTED,
            CheckoutError::Closed { .. } => Status::CLOSED,
        };
        Failure::new(status, error.to_string())
    }
}

impl From<QueryError> for Failure {
    fn from(error: QueryError) -> Failure {
        let message = error.to_string();
        let (status, sqlstate) = match error {
            QueryError::Database { sqlstate, .. } => (Status::DATABASE, sqlstate),
            QueryError::Lost { sqlstate, .. } => (Status::UNREACHABLE, sqlstate),
            QueryError::Interrupted { .. } => (Status::DATABASE, "57014".to_owned()),
            // The standard's name for a transaction that can only be rolled back.
            QueryError::RolledBack => (Status::DATABASE, "25P02".to_owned()),
            QueryError::OutOfRange { .. } => (Status::OUT_OF_RANGE, String::new()),
            QueryError::NoTransaction
            | QueryError::TransactionText
            | QueryError::ParameterCount { .. }
            | QueryError::Placeholder { .. }
            | QueryError::ParameterType { .. }
            | QueryError::ColumnType { .. }
            | QueryError::Cell { .. }
            | QueryError::Busy => (Status::INVALID, String::new()),
        };
        Failure { status, message, sqlstate }
    }
}

#[cfg(test)]
mod tests;
