//! Behind a pooler that gives each transaction another session, such as pgbouncer in transaction mode.
//!
//! `?pgbouncer=true` in the address says so. Then nothing may stay in a session: statements are parsed
//! anew each time, in the message that runs them, with their parameters as text; sessions are not named;
//! and what would reach somebody else (settings, temporary tables, session locks, PREPARE, LISTEN) is
//! refused before it is sent. What ends with its transaction, as `SET LOCAL` does, is not.

use tokio_postgres::Error;

use super::cells::{Cells, Plan};
use super::client::{Client, Params};
use crate::db::QueryError;

/// Takes `pgbouncer=...` out of an address.
pub(super) fn take_from(url: &str) -> (String, bool) {
    let Some((base, query)) = url.split_once('?') else { return (url.to_owned(), false) };
    let (own, kept): (Vec<&str>, Vec<&str>) =
        query.split('&').partition(|part| part.starts_with("pgbouncer="));
    let is_pooled = own.contains(&"pgbouncer=true");
    let query = if kept.is_empty() { String::new() } else { format!("?{}", kept.join("&")) };
    (format!("{base}{query}"), is_pooled)
}

/// Runs a statement; its rows as one block, and how many it changed. A result without rows has no columns either.
pub(super) fn run(
    client: &mut Client,
    sql: &str,
    params: &Params<'_>,
) -> Result<Result<(Vec<u8>, u64), QueryError>, Error> {
    let mut rows = client.stream_unprepared(sql, params)?;
    let mut all = Vec::new();
    while let Some(row) = rows.next(client)? {
        all.push(row);
    }
    let plan = Plan::new(all.first().map_or(&[], |row| row.columns()));
    let mut block = plan.block_for(&all);
    let written = Cells::new(&plan).and_then(|mut cells| {
        all.iter().try_for_each(|row| cells.write(row, &mut block))?;
        Ok((block.finish(), rows.affected()))
    });
    Ok(written)
}
