//! Arrays between PostgreSQL and the boundary: read from its binary format, written in its text format.

use std::fmt::Write as _;

use plugin_api::db::{Array, ArrayBuf, OwnedArray};
use postgres_types::Type;

use super::params::{hex, number_text, param};
use crate::db::{QueryError, Value};

/// PostgreSQL's own limit of dimensions.
const MOST_DIMENSIONS: usize = 6;

/// Reads an array in binary format; `read` reads an element that is not NULL. Nothing for other bytes.
///
/// A matrix becomes an array of its rows. Where its indices begin is not kept.
pub(super) fn read(
    mut bytes: &[u8],
    element: &mut dyn FnMut(&[u8], &mut ArrayBuf) -> Option<()>,
) -> Option<OwnedArray> {
    let count = usize::try_from(take(&mut bytes)?).ok()?;
    let (_has_null, _type) = (take(&mut bytes)?, take(&mut bytes)?);
    if count > MOST_DIMENSIONS {
        return None;
    }
    let mut lengths = Vec::with_capacity(count);
    for _ in 0..count {
        lengths.push(usize::try_from(take(&mut bytes)?).ok().filter(|length| *length > 0)?);
        let _first_index = take(&mut bytes)?;
    }
    // One without elements has no dimensions.
    if lengths.is_empty() {
        return Some(ArrayBuf::new().finish());
    }
    dimension(&lengths, &mut bytes, element)
}

fn dimension(
    lengths: &[usize],
    bytes: &mut &[u8],
    element: &mut dyn FnMut(&[u8], &mut ArrayBuf) -> Option<()>,
) -> Option<OwnedArray> {
    let (length, inner) = lengths.split_first()?;
    let mut array = ArrayBuf::new();
    for _ in 0..*length {
        if !inner.is_empty() {
            let row = dimension(inner, bytes, element)?;
            array.push(Value::Array(row.as_array()));
            continue;
        }
        match usize::try_from(take(bytes)?) {
            Ok(length) => {
                let (cell, rest) = bytes.split_at_checked(length)?;
                *bytes = rest;
                element(cell, &mut array)?;
            }
            // -1.
            Err(_) => array.push(Value::Null),
        }
    }
    Some(array.finish())
}

/// Takes a number from the front.
fn take(bytes: &mut &[u8]) -> Option<i32> {
    let (number, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(i32::from_be_bytes(*number))
}

/// An array in PostgreSQL's text format, for parameter `number`. Elements are checked against `ty`, their type,
/// where it is known.
///
/// # Errors
///
/// When an element does not fit.
pub(super) fn text(number: usize, ty: Option<&Type>, array: Array<'_>) -> Result<String, QueryError> {
    let mut out = String::new();
    write(number, ty, array, &mut out)?;
    Ok(out)
}

fn write(number: usize, ty: Option<&Type>, array: Array<'_>, out: &mut String) -> Result<(), QueryError> {
    out.push('{');
    for (index, value) in array.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        if let (Some(ty), false) = (ty, matches!(value, Value::Array(_))) {
            param(number, ty, value)?;
        }
        match value {
            Value::Null => out.push_str("NULL"),
            Value::Bool(value) => out.push(if value { 't' } else { 'f' }),
            Value::Int(value) => push(out, value),
            Value::Float(value) => out.push_str(&number_text(value)),
            Value::Text(text) => quote(text, out),
            Value::Bytes(bytes) => {
                // Two backslashes for one, as within every pair of quotes.
                out.push_str("\"\\\\x");
                hex(bytes, out);
                out.push('"');
            }
            Value::Array(inner) => write(number, ty, inner, out)?,
        }
    }
    out.push('}');
    Ok(())
}

/// Writing to a `String` cannot fail.
fn push(out: &mut String, value: impl std::fmt::Display) {
    let _ = write!(out, "{value}");
}

fn quote(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
}
