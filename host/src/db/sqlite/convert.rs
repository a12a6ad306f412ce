//! Values between SQLite and this room.

use rusqlite::types::{Null, ToSqlOutput, ValueRef};

use super::connection::Failed;
use plugin_api::db::Array;

use crate::db::{QueryError, Value};

/// Binds `$1`, `$2`, ... to the parameters.
///
/// To SQLite `$1` is a parameter *named* `$1`: wherever it stands it is the same one, and one in a
/// literal or a comment is none. So the names, not the places, say which value is meant.
pub(super) fn bind(statement: &mut rusqlite::Statement<'_>, params: &[Value<'_>]) -> Result<(), Failed> {
    let mut expected = 0;
    let mut places = Vec::with_capacity(statement.parameter_count());
    for place in 1..=statement.parameter_count() {
        let name = statement.parameter_name(place).unwrap_or("?");
        let number = name.strip_prefix('$').and_then(|digits| digits.parse::<usize>().ok());
        let Some(number) = number.filter(|number| *number > 0) else {
            return Err(QueryError::Placeholder { found: name.to_owned() }.into());
        };
        expected = expected.max(number);
        places.push((place, number));
    }
    if expected != params.len() {
        return Err(QueryError::ParameterCount { expected, given: params.len() }.into());
    }
    for (place, number) in places {
        statement.raw_bind_parameter(place, output(number, params[number - 1])?)?;
    }
    Ok(())
}

fn output(number: usize, value: Value<'_>) -> Result<ToSqlOutput<'_>, QueryError> {
    Ok(match value {
        Value::Float(float) if float.is_nan() => return Err(no_nan(number)),
        Value::Null => ToSqlOutput::from(Null),
        Value::Bool(value) => ToSqlOutput::from(value),
        Value::Int(value) => ToSqlOutput::from(value),
        Value::Float(value) => ToSqlOutput::from(value),
        Value::Text(text) => ToSqlOutput::from(text),
        Value::Bytes(bytes) => ToSqlOutput::from(bytes),
        Value::Array(list) => ToSqlOutput::from(json(number, list)?.to_string()),
    })
}

/// SQLite would store NULL for it.
fn no_nan(number: usize) -> QueryError {
    QueryError::OutOfRange {
        number,
        value: "NaN".to_owned(),
        type_name: "any column of SQLite, which would store NULL".to_owned(),
    }
}

/// A list as a text that `json_each` takes apart: `WHERE id IN (SELECT value FROM json_each($1))`.
fn json(number: usize, list: Array<'_>) -> Result<serde_json::Value, QueryError> {
    let element = |value: Value<'_>| {
        Ok(match value {
            Value::Null => serde_json::Value::Null,
            // As SQLite stores it.
            Value::Bool(value) => i64::from(value).into(),
            Value::Int(value) => value.into(),
            Value::Float(value) if value.is_finite() => value.into(),
            Value::Text(text) => text.into(),
            Value::Array(inner) => json(number, inner)?,
            Value::Float(value) if value.is_nan() => return Err(no_nan(number)),
            Value::Float(_) | Value::Bytes(_) => {
                return Err(QueryError::ParameterType {
                    number,
                    found: value.kind(),
                    type_name:
                        "an element of a list: SQLite takes them as JSON, which has no bytes and no infinity"
                            .to_owned(),
                });
            }
        })
    };
    list.iter().map(element).collect()
}

/// A cell of column `name`.
pub(super) fn cell<'a>(value: ValueRef<'a>, name: &str) -> Result<Value<'a>, QueryError> {
    Ok(match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(value) => Value::Int(value),
        ValueRef::Real(value) => Value::Float(value),
        ValueRef::Text(text) => Value::Text(std::str::from_utf8(text).map_err(|_| QueryError::Cell {
            column: name.to_owned(),
            reason: "the text is not UTF-8; read it as bytes: `CAST(x AS BLOB)`".to_owned(),
        })?),
        ValueRef::Blob(bytes) => Value::Bytes(bytes),
    })
}
