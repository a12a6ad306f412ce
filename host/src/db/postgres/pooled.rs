//! Behind a pooler that gives each transaction another session, such as pgbouncer in transaction mode.
//!
//! `?pgbouncer=true` in the address says so. Then nothing may stay in a session: statements are parsed
//! anew each time, in the message that runs them, with their parameters as text; sessions are not named;
//! and what would reach somebody else (settings, temporary tables, session locks, PREPARE, LISTEN) is
//! refused before it is sent. `SET LOCAL` and `SET TRANSACTION` end with their transaction, and are not.

use postgres::Client;
use postgres::fallible_iterator::FallibleIterator as _;
use postgres_types::Type;

use super::cells::{Cells, Plan};
use super::copy::Failure;
use super::params::as_text;
use crate::db::sql::{Dirt, Effect};
use crate::db::{QueryError, Value};

/// Takes `pgbouncer=...` out of an address.
pub(super) fn take_from(url: &str) -> (String, bool) {
    let Some((base, query)) = url.split_once('?') else { return (url.to_owned(), false) };
    let (own, kept): (Vec<&str>, Vec<&str>) =
        query.split('&').partition(|part| part.starts_with("pgbouncer="));
    let is_pooled = own.contains(&"pgbouncer=true");
    let query = if kept.is_empty() { String::new() } else { format!("?{}", kept.join("&")) };
    (format!("{base}{query}"), is_pooled)
}

/// Refuses what would stay behind in a session that is somebody else's a moment later.
pub(super) fn admit(sql: &str, effect: Effect) -> Result<(), QueryError> {
    let mut words = sql.split_ascii_whitespace().map(str::to_ascii_lowercase);
    let ends_with_transaction = words.next().is_some_and(|word| word == "set")
        && words.next().is_some_and(|word| word == "local" || word == "transaction")
        && !sql.trim_end().trim_end_matches(';').contains(';');
    if effect.dirt == Dirt::None || ends_with_transaction {
        return Ok(());
    }
    Err(QueryError::Pooled)
}

/// Runs a statement and reads its rows. A result without rows has no columns either.
pub(super) fn rows(client: &mut Client, sql: &str, params: &[Value<'_>]) -> Result<Vec<u8>, Failure> {
    let params = as_text(params).map_err(Failure::Ours)?;
    let mut rows = client.query_typed_raw(sql, params.iter().map(|param| (param, Type::UNKNOWN)))?;
    let Some(mut row) = rows.next()? else { return Ok(Plan::new(&[]).block().finish()) };
    let plan = Plan::new(row.columns());
    let mut cells = Cells::new(&plan).map_err(Failure::Ours)?;
    let mut block = plan.block();
    loop {
        cells.write(&row, &mut block).map_err(Failure::Ours)?;
        match rows.next()? {
            Some(next) => row = next,
            None => return Ok(block.finish()),
        }
    }
}

/// Runs a statement and counts the rows it changed.
pub(super) fn affected(client: &mut Client, sql: &str, params: &[Value<'_>]) -> Result<u64, Failure> {
    let params = as_text(params).map_err(Failure::Ours)?;
    let mut rows = client.query_typed_raw(sql, params.iter().map(|param| (param, Type::UNKNOWN)))?;
    while rows.next()?.is_some() {}
    Ok(rows.rows_affected().unwrap_or(0))
}
