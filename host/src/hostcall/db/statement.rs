//! Running statements, with their parameters and rows.
#![expect(unsafe_code, reason = "reads the boundary's views and writes through its out-pointers")]

use plugin_api::abi::{
    BytesSink, ErrorSink, HandleId, HostCtx, STATEMENT_IDEMPOTENT, STATEMENT_NO_FAILOVER, StatementView,
    Status, StrView, VALUE_ARRAY, VALUE_BOOL, VALUE_BYTES, VALUE_FLOAT, VALUE_INT, VALUE_NULL, VALUE_TEXT,
    ValueView,
};
use plugin_api::db::Array;
use smallvec::SmallVec;

use super::super::tx::Target;
use super::super::view::{bytes, sized, slice, text};
use super::super::{Caller, Failure, answer_with, guard, last_details};
use crate::db::{How, Value};

pub(super) unsafe extern "C" fn query(
    ctx: HostCtx,
    conn: HandleId,
    statement: *const StatementView,
    rows: *const BytesSink,
    error: *const ErrorSink,
) -> Status {
    let body = |caller: &Caller| {
        let target = Target::of(caller, conn)?;
        // SAFETY: by the table's contract `statement` is null or valid for this call.
        let (how, sql, params) = unsafe { read(statement) }?;
        let block = target.run(|lease| lease.with(|steady| steady.query(how, sql, &params)))?;
        // SAFETY: by the table's contract `rows` is null or valid for this call.
        unsafe { answer_with(rows, &block) };
        Ok(())
    };
    // SAFETY: `ctx` and `error` by the table's contract.
    unsafe { guard(ctx, error, body) }
}

pub(super) unsafe extern "C" fn execute(
    ctx: HostCtx,
    conn: HandleId,
    statement: *const StatementView,
    affected: *mut u64,
    error: *const ErrorSink,
) -> Status {
    let body = |caller: &Caller| {
        let target = Target::of(caller, conn)?;
        // SAFETY: by the table's contract `statement` is null or valid for this call.
        let (how, sql, params) = unsafe { read(statement) }?;
        let number = target.run(|lease| lease.with(|steady| steady.execute(how, sql, &params)))?;
        if !affected.is_null() {
            // SAFETY: non-null by the check above, and writable during this call by the table's contract.
            unsafe { affected.write(number) };
        }
        Ok(())
    };
    // SAFETY: `ctx` and `error` by the table's contract.
    unsafe { guard(ctx, error, body) }
}

pub(super) unsafe extern "C" fn batch_execute(
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

pub(super) unsafe extern "C" fn error_details(
    ctx: HostCtx,
    out: *const BytesSink,
    error: *const ErrorSink,
) -> Status {
    let body = |_: &Caller| {
        let Some(details) = last_details() else {
            return Err(Failure::new(Status::NOT_FOUND, "the database said no more"));
        };
        // SAFETY: by the table's contract `out` is null or valid for this call.
        unsafe { answer_with(out, &details.to_block()) };
        Ok(())
    };
    // SAFETY: `ctx` and `error` by the table's contract.
    unsafe { guard(ctx, error, body) }
}

/// What to make of a statement, its text and its parameters.
///
/// # Safety
///
/// `statement` is null or points to a statement whose views are valid for `'a`.
pub(in crate::hostcall) unsafe fn read<'a>(
    statement: *const StatementView,
) -> Result<(How, &'a str, SmallVec<[Value<'a>; 8]>), Failure> {
    let none =
        StatementView { size: 0, sql: StrView::EMPTY, params: std::ptr::null(), param_count: 0, flags: 0 };
    // SAFETY: null or a statement as long as it says, by this function's contract.
    let Some(statement) = (unsafe { sized(statement, none) }) else {
        return Err(Failure::invalid("no statement"));
    };
    let how = How {
        is_idempotent: statement.flags & STATEMENT_IDEMPOTENT != 0,
        failover: statement.flags & STATEMENT_NO_FAILOVER == 0,
    };
    // SAFETY: the statement's view is valid for `'a` by this function's contract.
    let sql = unsafe { text(statement.sql, "the statement") }?;
    // SAFETY: `params` and `param_count` describe an array that is valid for `'a`, likewise.
    let params: &[ValueView] = unsafe { slice(statement.params, statement.param_count) };
    let mut values = SmallVec::with_capacity(params.len());
    for (index, param) in params.iter().enumerate() {
        // SAFETY: the parameter's view is valid for `'a`, likewise.
        values.push(unsafe { value(index + 1, *param) }?);
    }
    Ok((how, sql, values))
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
        VALUE_ARRAY => {
            // SAFETY: valid for `'a` by this function's contract.
            let array = Array::parse(unsafe { bytes(param.bytes) });
            Value::Array(array.map_err(|_| Failure::invalid(format!("parameter ${number} is no array")))?)
        }
        tag => return Err(Failure::invalid(format!("parameter ${number} has the unknown tag {tag}"))),
    })
}
