//! SQLite's errors: the SQLSTATE that PostgreSQL has for the same mishap, and what the words name.
//!
//! SQLite has one code for all that is wrong with a text and puts names into its words only, which are in no
//! language but its own. So the words are read here, and nowhere else.

use rusqlite::ffi;

use crate::db::{ErrorDetails, QueryError};

/// SQLite's error as ours. `was_reading`: it is of a statement in a transaction that had only read before.
pub(super) fn query_error(error: &rusqlite::Error, was_reading: bool) -> QueryError {
    let message = match error {
        rusqlite::Error::SqliteFailure(_, Some(message)) => message.clone(),
        // Where in the text is told apart from what.
        rusqlite::Error::SqlInputError { msg, .. } => msg.clone(),
        other => other.to_string(),
    };
    let code = match error {
        rusqlite::Error::SqliteFailure(error, _) | rusqlite::Error::SqlInputError { error, .. } => {
            error.extended_code
        }
        _ => ffi::SQLITE_OK,
    };
    let is_conflict = code == ffi::SQLITE_BUSY_SNAPSHOT || (was_reading && code & 0xff == ffi::SQLITE_BUSY);
    if is_conflict {
        let message = "another transaction has written, or is writing, since this one began to read: run it \
                       again, or begin it with `immediate`";
        return QueryError::database(message, "40001");
    }
    let details = Some(details(error, &message)).filter(|details| !details.is_empty());
    let sqlstate = sqlstate(code, &message).to_owned();
    QueryError::Database { message, sqlstate, details: details.map(Box::new) }
}

fn sqlstate(extended: i32, message: &str) -> &'static str {
    match extended {
        ffi::SQLITE_CONSTRAINT_UNIQUE | ffi::SQLITE_CONSTRAINT_PRIMARYKEY | ffi::SQLITE_CONSTRAINT_ROWID => {
            "23505"
        }
        ffi::SQLITE_CONSTRAINT_NOTNULL => "23502",
        ffi::SQLITE_CONSTRAINT_FOREIGNKEY => "23503",
        ffi::SQLITE_CONSTRAINT_CHECK => "23514",
        ffi::SQLITE_CONSTRAINT_DATATYPE => "42804",
        // The low byte is the primary code.
        other => match other & 0xff {
            ffi::SQLITE_CONSTRAINT => "23000",
            ffi::SQLITE_BUSY | ffi::SQLITE_LOCKED => "55P03",
            ffi::SQLITE_READONLY => "25006",
            ffi::SQLITE_FULL => "53100",
            ffi::SQLITE_NOMEM => "53200",
            ffi::SQLITE_TOOBIG => "54000",
            ffi::SQLITE_INTERRUPT => "57014",
            ffi::SQLITE_MISMATCH => "42804",
            ffi::SQLITE_IOERR | ffi::SQLITE_CANTOPEN => "58030",
            ffi::SQLITE_CORRUPT | ffi::SQLITE_NOTADB => "XX001",
            ffi::SQLITE_ERROR => of_a_text(message),
            _ => "",
        },
    }
}

/// What is wrong with a text that SQLite cannot run.
fn of_a_text(message: &str) -> &'static str {
    let known = [
        ("no such table", "42P01"),
        ("no such view", "42P01"),
        ("no such column", "42703"),
        ("no such function", "42883"),
        ("ambiguous column name", "42702"),
        ("incomplete input", "42601"),
        ("no such savepoint", "3B001"),
    ];
    if let Some((_, code)) = known.iter().find(|(start, _)| message.starts_with(start)) {
        return code;
    }
    if message.contains("syntax error") || message.starts_with("unrecognized token") {
        return "42601";
    }
    if message.contains(" already exists") { "42P07" } else { "" }
}

/// What the words name.
fn details(error: &rusqlite::Error, message: &str) -> ErrorDetails {
    let mut details = ErrorDetails::default();
    if let rusqlite::Error::SqlInputError { sql, offset, .. } = error
        && let Some(before) = usize::try_from(*offset).ok().and_then(|offset| sql.get(..offset))
    {
        details.position = u32::try_from(before.chars().count() + 1).ok();
    }
    let failed = |kind: &str| message.strip_prefix(kind)?.strip_prefix(" constraint failed: ");
    if let Some(constraint) = failed("CHECK") {
        details.constraint = Some(constraint.to_owned());
    } else if let Some(what) = failed("UNIQUE").or_else(|| failed("NOT NULL")) {
        match what.strip_prefix("index '").and_then(|rest| rest.strip_suffix('\'')) {
            Some(index) => details.constraint = Some(index.to_owned()),
            None => columns(what, &mut details),
        }
    } else if let Some((_, column)) =
        message.strip_prefix("cannot store ").and_then(|rest| rest.split_once(" column "))
    {
        columns(column, &mut details);
    } else if let Some(table) = message.strip_prefix("no such table: ") {
        details.table = Some(table.split(" in ").next().unwrap_or(table).to_owned());
    }
    details
}

/// `t.a` or `t.a, t.b`: the column is told where there is one.
fn columns(list: &str, details: &mut ErrorDetails) {
    let parts: Vec<(&str, &str)> = list.split(", ").filter_map(|name| name.split_once('.')).collect();
    details.table = parts.first().map(|(table, _)| (*table).to_owned());
    match parts.as_slice() {
        [(_, column)] => details.column = Some((*column).to_owned()),
        several => {
            let names: Vec<&str> = several.iter().map(|(_, column)| *column).collect();
            details.detail =
                Some(format!("Key ({}) already exists.", names.join(", "))).filter(|_| !names.is_empty());
        }
    }
}
