//! PostgreSQL's errors: which of them mean that the connection is gone.

use std::error::Error as _;

use postgres::error::Severity;

use crate::db::QueryError;

/// The error with its causes, in one line. A database error speaks for itself.
pub(super) fn chain(error: &postgres::Error) -> String {
    if let Some(error) = error.as_db_error() {
        return describe(error);
    }
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

fn describe(error: &postgres::error::DbError) -> String {
    let mut text = error.message().to_owned();
    for more in [error.detail(), error.hint()].into_iter().flatten() {
        text.push_str("; ");
        text.push_str(more.trim_end_matches('.'));
    }
    if matches!(error.code().code(), "26000" | "42P05") {
        text.push_str("; behind a pooler in transaction mode, add `pgbouncer=true` to the address");
    }
    text
}

/// What a failed statement tells.
pub(super) fn query_error(error: &postgres::Error) -> QueryError {
    let sqlstate = error.code().map_or_else(String::new, |code| code.code().to_owned());
    if is_broken(error) {
        QueryError::Lost { reason: chain(error), sqlstate }
    } else {
        QueryError::Database { message: chain(error), sqlstate, details: None }
    }
}

/// Whether the connection is of no more use.
///
/// The server's own errors are not failures of the connection, whatever they say about the statement
/// (57014, 55P03, 40001, 40P01, 25P02, classes 22, 23 and 42 among them), unless it says goodbye.
/// Every other error is one of the socket or of the protocol: what the driver itself refuses to send
/// has been checked before.
pub(super) fn is_broken(error: &postgres::Error) -> bool {
    let Some(error) = error.as_db_error() else { return true };
    let code = error.code().code();
    let is_goodbye =
        matches!(code, "57P01" | "57P02" | "57P03" | "57P05" | "25P03") || code.starts_with("08");
    is_goodbye || matches!(error.parsed_severity(), Some(Severity::Fatal | Severity::Panic))
}

/// Whether a prepared statement has gone stale: the server has not run anything.
pub(super) fn is_stale(error: &QueryError) -> bool {
    match error {
        QueryError::Database { sqlstate, message, .. } => match sqlstate.as_str() {
            "26000" => true,
            // A code for all that is not supported; only the text tells.
            "0A000" => message.contains("cached plan"),
            _ => false,
        },
        _ => false,
    }
}
