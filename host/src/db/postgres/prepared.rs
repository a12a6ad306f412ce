//! The statements that the server of a connection has parsed, kept by their text.
//!
//! # Invariants
//!
//! - At most [`KEPT`] of them; the one that was used longest ago makes room.
//! - A statement is run as it was written, unless it has a column of a type that has no form here. Then it is a
//!   part of one that asks for that column as text.

use std::collections::HashMap;
use std::sync::Arc;

use tokio_postgres::Statement;

use super::cells::{Plan, Reading};
use super::client::Client;
use crate::db::sql::{Dialect, Effect, single_statement};

/// Prepared statements kept for each connection.
const KEPT: usize = 128;

/// What can stand in `WITH q AS (...)`.
const ROW_STATEMENTS: [&str; 7] = ["select", "values", "table", "with", "insert", "update", "delete"];

/// A statement that the server has parsed.
pub(super) struct Prepared {
    /// As its author wrote it.
    text: Box<str>,
    pub(super) statement: Statement,
    pub(super) effect: Effect,
    pub(super) plan: Plan,
}

impl Prepared {
    /// Whether its parameters and columns have the types that those of `other` have.
    pub(super) fn has_types_of(&self, other: &Prepared) -> bool {
        let columns = |prepared: &Prepared| -> Vec<_> {
            prepared.statement.columns().iter().map(|column| column.type_().clone()).collect()
        };
        self.statement.params() == other.statement.params() && columns(self) == columns(other)
    }
}

/// The statements of one connection.
pub(super) struct Statements {
    /// By text; the number says when the statement was used last.
    kept: HashMap<Box<str>, (Arc<Prepared>, u64)>,
    /// The one that was used last, which is often the one that is used next: to compare a text is less than to look
    /// it up. No other has been used since its use was counted.
    last: Option<Arc<Prepared>>,
    /// Counts uses.
    clock: u64,
}

impl Statements {
    pub(super) fn new() -> Statements {
        Statements { kept: HashMap::with_capacity(KEPT), last: None, clock: 0 }
    }

    pub(super) fn find(&mut self, sql: &str) -> Option<Arc<Prepared>> {
        if let Some(prepared) = &self.last
            && *prepared.text == *sql
        {
            return Some(prepared.clone());
        }
        self.clock += 1;
        let (prepared, used) = self.kept.get_mut(sql)?;
        *used = self.clock;
        self.last = Some(prepared.clone());
        Some(prepared.clone())
    }

    pub(super) fn forget(&mut self, sql: &str) {
        self.last = None;
        self.kept.remove(sql);
    }

    pub(super) fn keep(&mut self, sql: &str, prepared: Prepared) -> Arc<Prepared> {
        let prepared = Arc::new(prepared);
        if self.kept.len() >= KEPT {
            let oldest = self.kept.iter().min_by_key(|(_, (_, used))| *used).map(|(sql, _)| sql.clone());
            oldest.and_then(|sql| self.kept.remove(&sql));
        }
        self.kept.insert(sql.into(), (prepared.clone(), self.clock));
        self.last = Some(prepared.clone());
        prepared
    }
}

/// Has the server parse a statement.
pub(super) fn parse(
    client: &mut Client,
    sql: &str,
    effect: Effect,
) -> Result<Prepared, tokio_postgres::Error> {
    let statement = client.prepare(sql)?;
    let plan = Plan::new(statement.columns());
    let text: Box<str> = sql.into();
    let Some(wrapped) = as_text(sql, &plan) else { return Ok(Prepared { text, statement, effect, plan }) };
    match client.prepare(&wrapped) {
        Ok(statement) => Ok(Prepared { text, statement, effect, plan: plan.with_text() }),
        // It cannot stand there. Whoever runs it is told of the column.
        Err(error) if error.as_db_error().is_some() => Ok(Prepared { text, statement, effect, plan }),
        Err(error) => Err(error),
    }
}

/// The statement within one that asks for the columns without a form as text; nothing, where all have one.
///
/// `MATERIALIZED` keeps the rows in their order, and statements that change something as they are.
fn as_text(sql: &str, plan: &Plan) -> Option<String> {
    if !plan.has_formless() {
        return None;
    }
    let (word, body) = single_statement(Dialect::Postgres, sql)?;
    if !ROW_STATEMENTS.contains(&word.to_ascii_lowercase().as_str()) {
        return None;
    }
    let names: Vec<String> = (1..=plan.readings().len()).map(|place| format!("c{place}")).collect();
    let wanted: Vec<String> = names
        .iter()
        .zip(plan.readings())
        .map(|(name, reading)| match reading {
            Reading::Form(_) | Reading::List(_) => name.clone(),
            Reading::Formless => format!("{name}::text"),
            Reading::FormlessList => format!("{name}::text[]"),
        })
        .collect();
    // The end of the line ends a comment in which the text may end.
    Some(format!(
        "WITH q ({}) AS MATERIALIZED ({body}\n) SELECT {} FROM q",
        names.join(", "),
        wanted.join(", ")
    ))
}
