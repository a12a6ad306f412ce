//! Numbers that a column's affinity would round.
//!
//! A column of numbers turns text into a number and, where it is one of REAL, integers into floats: silently, with
//! what does not fit into 53 bits gone. Nothing of a statement tells where its parameters go. So a parameter that would
//! suffer is looked for in the rows that the statement wrote; if it is there, rounded, the statement is undone.

use std::sync::Arc;

use parking_lot::Mutex;
use rusqlite::Connection;
use rusqlite::hooks::Action;
use rusqlite::types::ValueRef;

use super::connection::Failed;
use crate::db::{QueryError, Value};

/// How far SQLite's own reading of a number may be from Rust's.
const NEAR: f64 = 1e-12;

/// A parameter that is another number as a float.
pub(super) struct Inexact {
    /// Its place, from 1.
    number: usize,
    text: String,
    rounded: f64,
}

/// A row that was written: schema, table, rowid.
type Written = (String, String, i64);

/// The parameters that a column of numbers would round, and the rows that a statement writes.
pub(super) struct ExactWatch {
    inexact: Vec<Inexact>,
    written: Arc<Mutex<Vec<Written>>>,
}

impl ExactWatch {
    /// Looks at the parameters, and at what is written from now on; `None` if nothing can be rounded.
    ///
    /// # Errors
    ///
    /// SQLite's.
    pub(super) fn begin(db: &mut Connection, params: &[Value<'_>]) -> rusqlite::Result<Option<ExactWatch>> {
        let inexact: Vec<Inexact> =
            params.iter().enumerate().filter_map(|(index, value)| inexact(index + 1, *value)).collect();
        if inexact.is_empty() {
            return Ok(None);
        }
        let written = Arc::<Mutex<Vec<Written>>>::default();
        let by_hook = Arc::clone(&written);
        db.update_hook(Some(move |action, schema: &str, table: &str, row| {
            if action != Action::SQLITE_DELETE {
                by_hook.lock().push((schema.to_owned(), table.to_owned(), row));
            }
        }))?;
        Ok(Some(ExactWatch { inexact, written }))
    }

    /// Looks no longer.
    pub(super) fn end(db: &mut Connection) {
        if let Err(error) = db.update_hook(None::<fn(Action, &str, &str, i64)>) {
            tracing::debug!("cannot take back a hook: {error}");
        }
    }

    /// Runs a statement, and undoes it if it wrote one of the parameters rounded.
    pub(super) fn around<T>(
        &self,
        db: &Connection,
        body: impl FnOnce() -> Result<T, Failed>,
    ) -> Result<T, Failed> {
        let before = db.total_changes();
        db.execute_batch("SAVEPOINT exact")?;
        let outcome = body().and_then(|value| {
            if db.total_changes() > before {
                self.look(db)?;
            }
            db.execute_batch("RELEASE exact")?;
            Ok(value)
        });
        if outcome.is_err() && !db.is_autocommit() {
            // The savepoint is gone if the statement took its transaction along.
            db.execute_batch("ROLLBACK TO exact; RELEASE exact")?;
        }
        outcome
    }

    /// # Errors
    ///
    /// When a row that was written holds a parameter rounded.
    fn look(&self, db: &Connection) -> Result<(), Failed> {
        let written = std::mem::take(&mut *self.written.lock());
        for (schema, table, row) in &written {
            let sql = format!("SELECT * FROM {}.{} WHERE rowid = $1", quoted(schema), quoted(table));
            self.look_at(db, &sql, Some(*row))?;
        }
        if written.is_empty() {
            // Tables without rowid have no hook.
            let tables = "SELECT schema, name FROM pragma_table_list WHERE wr AND NOT name LIKE 'sqlite\\_%' ESCAPE '\\'";
            let mut tables = db.prepare_cached(tables)?;
            let mut rows = tables.query([])?;
            while let Some(row) = rows.next()? {
                let (schema, table): (String, String) = (row.get(0)?, row.get(1)?);
                self.look_at(db, &format!("SELECT * FROM {}.{}", quoted(&schema), quoted(&table)), None)?;
            }
        }
        Ok(())
    }

    fn look_at(&self, db: &Connection, sql: &str, row: Option<i64>) -> Result<(), Failed> {
        let mut statement = db.prepare(sql)?;
        let mut rows = match row {
            Some(row) => statement.query([row])?,
            None => statement.query([])?,
        };
        while let Some(row) = rows.next()? {
            for index in 0..row.as_ref().column_count() {
                let ValueRef::Real(stored) = row.get_ref(index)? else { continue };
                let is_it = |inexact: &&Inexact| {
                    stored == inexact.rounded
                        || (stored - inexact.rounded).abs() <= inexact.rounded.abs() * NEAR
                };
                if let Some(Inexact { number, text, .. }) = self.inexact.iter().find(is_it) {
                    return Err(QueryError::OutOfRange {
                        number: *number,
                        value: text.clone(),
                        type_name:
                            "REAL, to which its column would round it: keep it in a column of type TEXT"
                                .to_owned(),
                    }
                    .into());
                }
            }
        }
        Ok(())
    }
}

/// `None`: every column of numbers holds it as it is.
fn inexact(number: usize, value: Value<'_>) -> Option<Inexact> {
    let (text, rounded) = match value {
        // Exact in a column of integers, and maybe not in one of floats.
        Value::Int(integer) if integer.unsigned_abs() > 1 << 53 => (integer.to_string(), integer as f64),
        Value::Text(text) => {
            let text = text.trim_matches([' ', '\t', '\n', '\x0b', '\x0c', '\r']);
            let first = text.bytes().find(|byte| !matches!(byte, b'+' | b'-'))?;
            if !first.is_ascii_digit() && first != b'.' {
                return None;
            }
            (text.to_owned(), text.parse().ok()?)
        }
        _ => return None,
    };
    let meant = Some(decimal(&text)?);
    // As the shortest number that stands for the float, or as the very float.
    let is_exact = decimal(&format!("{rounded:e}")) == meant || decimal(&format!("{rounded:.1074}")) == meant;
    (!is_exact).then_some(Inexact { number, text, rounded })
}

/// Sign, digits without zeros around them, and the power of ten of the first of them.
fn decimal(text: &str) -> Option<(bool, String, i64)> {
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let exponent: i64 = exponent.parse().ok()?;
    let is_negative = mantissa.starts_with('-');
    let mantissa = mantissa.trim_start_matches(['+', '-']);
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let zeros = digits.len() - digits.trim_start_matches('0').len();
    let power = exponent.checked_add(i64::try_from(whole.len()).ok()? - i64::try_from(zeros).ok()?)?;
    let digits = digits.trim_matches('0').to_owned();
    if digits.is_empty() {
        return Some((false, digits, 0));
    }
    Some((is_negative, digits, power))
}

/// A name as SQL has it.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
