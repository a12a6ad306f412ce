//! Behind a pooler that gives each transaction another session, such as pgbouncer in transaction mode.
//!
//! `?pgbouncer=true` in the address says so. Then nothing may stay in a session: statements are parsed
//! anew each time, in the message that runs them, with their parameters as text; sessions are not named;
//! and what would reach somebody else (settings, temporary tables, session locks, PREPARE, LISTEN) is
//! refused before it is sent. What ends with its transaction, as `SET LOCAL` does, is not.
//!
//! The driver looks types up that are not the server's own, with statements that it prepares by name. Those would be
//! missing in the next session, so all are looked up at the start, in one transaction. A type that is made later is
//! found by the next connection: the one that meets it is closed.

use tokio_postgres::{Error, SimpleQueryMessage};

use super::cells::{Cells, Plan};
use super::client::{Client, Params};
use crate::db::QueryError;

/// The types that somebody has made, each as a column of a result: enums, domains, ranges, extensions' and their arrays,
/// and composite types that are no table's.
const TYPES: &str = "SELECT format('NULL::%s', t.oid::regtype) FROM pg_catalog.pg_type t WHERE t.oid >= 16384 \
     AND pg_catalog.has_type_privilege(t.oid, 'USAGE') AND (t.typtype IN ('e', 'd', 'r', 'm') \
     OR (t.typtype = 'b' AND (t.typelem = 0 OR EXISTS \
     (SELECT 1 FROM pg_catalog.pg_type e WHERE e.oid = t.typelem AND e.typtype IN ('e', 'd', 'r', 'm', 'b')))) \
     OR (t.typtype = 'c' AND EXISTS \
     (SELECT 1 FROM pg_catalog.pg_class c WHERE c.oid = t.typrelid AND c.relkind = 'c'))) LIMIT 1000";

/// Types that are looked up by one statement.
const TYPES_AT_A_TIME: usize = 100;

/// Has the driver look all types up that it may meet.
///
/// # Errors
///
/// When the connection breaks, or the server refuses; the transaction is over then.
pub(super) fn look_up_types(client: &mut Client) -> Result<(), Error> {
    client.batch_execute("BEGIN")?;
    let outcome = look_up_inside(client);
    // Whatever the driver has prepared stays in the session, and another client would meet the same names there.
    let ended = client.batch_execute(if outcome.is_ok() { "DEALLOCATE ALL; COMMIT" } else { "ROLLBACK" });
    outcome.and(ended)
}

fn look_up_inside(client: &mut Client) -> Result<(), Error> {
    let answer = client.simple_query(TYPES)?;
    let types: Vec<&str> = answer
        .iter()
        .filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0),
            _ => None,
        })
        .collect();
    types.chunks(TYPES_AT_A_TIME).try_for_each(|types| {
        let statement = format!("SELECT {}", types.join(", "));
        client.prepare(&statement).map(drop)
    })
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
