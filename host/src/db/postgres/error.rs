//! PostgreSQL's errors: which of them mean that the connection is gone.

use std::error::Error as _;

use tokio_postgres::error::{ErrorPosition, Severity};

use crate::db::{ErrorDetails, QueryError};

/// The error with its causes, in one line. A database error speaks for itself.
pub(super) fn chain(error: &tokio_postgres::Error) -> String {
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

fn describe(error: &tokio_postgres::error::DbError) -> String {
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
pub(super) fn query_error(error: &tokio_postgres::Error) -> QueryError {
    let sqlstate = error.code().map_or_else(String::new, |code| code.code().to_owned());
    if is_unsent(error) {
        QueryError::Unsendable { reason: chain(error) }
    } else if is_broken(error) {
        QueryError::Lost { reason: chain(error), sqlstate }
    } else {
        QueryError::Database { message: chain(error), sqlstate, details: details(error) }
    }
}

/// What the server says beside its words.
fn details(error: &tokio_postgres::Error) -> Option<Box<ErrorDetails>> {
    let error = error.as_db_error()?;
    let own = |text: Option<&str>| text.map(str::to_owned);
    let mut details = ErrorDetails::default();
    details.schema = own(error.schema());
    details.table = own(error.table());
    details.column = own(error.column());
    details.constraint = own(error.constraint());
    details.detail = own(error.detail());
    details.hint = own(error.hint());
    details.position = match error.position() {
        Some(ErrorPosition::Original(position)) => Some(*position),
        _ => None,
    };
    (!details.is_empty()).then(|| Box::new(details))
}

/// Whether the connection is of no more use.
///
/// The server's own errors are not failures of the connection, whatever they say about the statement
/// (57014, 55P03, 40001, 40P01, 25P02, classes 22, 23 and 42 among them), unless it says goodbye.
/// Every other error is one of the socket or of the protocol, unless the driver itself refused to send something.
pub(super) fn is_broken(error: &tokio_postgres::Error) -> bool {
    let Some(error) = error.as_db_error() else { return !is_unsent(error) };
    let code = error.code().code();
    // What a server says of bytes that a type cannot be made from, too; a pooler, of a server that has gone.
    let is_of_bytes = code == "08P01" && error.routine().is_some();
    let is_goodbye = matches!(code, "57P01" | "57P02" | "57P03" | "57P05" | "25P03" | "25P04")
        || (code.starts_with("08") && !is_of_bytes);
    is_goodbye || matches!(error.parsed_severity(), Some(Severity::Fatal | Severity::Panic))
}

/// Whether the driver refused to send it, so that the server knows nothing of it. Only its words tell.
fn is_unsent(error: &tokio_postgres::Error) -> bool {
    let words = error.to_string();
    words.starts_with("error encoding message") || words.starts_with("error serializing parameter")
}

/// Whether a statement that was prepared earlier fits the tables and types no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    /// It does.
    Good,
    /// Maybe: the values were refused, and other types may take them.
    Doubtful,
    /// It does not. The server has said so before it ran anything.
    Gone,
}

/// What the server's words tell of that, whatever its language.
pub(super) fn fit(error: &tokio_postgres::Error) -> Fit {
    let Some(error) = error.as_db_error() else { return Fit::Good };
    match error.code().code() {
        "26000" => Fit::Gone,
        // A code for all that is not supported; the place in the server's source says what.
        "0A000" if error.routine() == Some("RevalidateCachedQuery") => Fit::Gone,
        // Never translated.
        "XX000" if error.message().starts_with("cache lookup failed for") => Fit::Gone,
        "22P02" | "22P03" | "22003" => Fit::Doubtful,
        "08P01" if error.routine().is_some() => Fit::Doubtful,
        code if code.starts_with("42") => Fit::Doubtful,
        _ => Fit::Good,
    }
}

/// The same of an error of our own, before anything was sent.
pub(super) fn own_fit(error: &QueryError) -> Fit {
    match error {
        QueryError::OutOfRange { .. } | QueryError::ParameterType { .. } => Fit::Doubtful,
        _ => Fit::Good,
    }
}
