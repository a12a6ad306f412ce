//! Values and errors between SQLite and this room.

use rusqlite::ffi;
use rusqlite::types::{Null, ToSqlOutput, ValueRef};

use super::connection::Failed;
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
        statement.raw_bind_parameter(place, output(params[number - 1])?)?;
    }
    Ok(())
}

fn output(value: Value<'_>) -> Result<ToSqlOutput<'_>, QueryError> {
    Ok(match value {
        Value::Null => ToSqlOutput::from(Null),
        Value::Bool(value) => ToSqlOutput::from(value),
        Value::Int(value) => ToSqlOutput::from(value),
        Value::Float(value) => ToSqlOutput::from(value),
        Value::Text(text) => ToSqlOutput::from(text),
        Value::Bytes(bytes) => ToSqlOutput::from(bytes),
        Value::Array(_) => return Err(QueryError::NotOffered { what: "arrays" }),
    })
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

/// SQLite's error, with the SQLSTATE that PostgreSQL has for the same mishap.
pub(super) fn query_error(error: &rusqlite::Error) -> QueryError {
    let message = match error {
        rusqlite::Error::SqliteFailure(_, Some(message)) => message.clone(),
        other => other.to_string(),
    };
    let code = error.sqlite_extended_error_code();
    QueryError::Database { message, sqlstate: code.map_or("", sqlstate).to_owned() }
}

fn sqlstate(extended: i32) -> &'static str {
    match extended {
        ffi::SQLITE_CONSTRAINT_UNIQUE | ffi::SQLITE_CONSTRAINT_PRIMARYKEY | ffi::SQLITE_CONSTRAINT_ROWID => {
            "23505"
        }
        ffi::SQLITE_CONSTRAINT_NOTNULL => "23502",
        ffi::SQLITE_CONSTRAINT_FOREIGNKEY => "23503",
        ffi::SQLITE_CONSTRAINT_CHECK => "23514",
        // The low byte is the primary code.
        other => match other & 0xff {
            ffi::SQLITE_CONSTRAINT => "23000",
            ffi::SQLITE_BUSY | ffi::SQLITE_LOCKED => "55P03",
            ffi::SQLITE_READONLY => "25006",
            ffi::SQLITE_FULL => "53100",
            ffi::SQLITE_INTERRUPT => "57014",
            _ => "",
        },
    }
}
