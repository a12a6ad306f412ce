//! Tests of what is SQLite's own; what both drivers promise is tested on both in `tests/it/db.rs`.

mod ended;
mod errors;
mod numbers;
mod options;
mod place;
mod schema;

use std::path::Path;

use crate::db::{Block, Pool, PoolConfig, QueryError, Value};

fn memory() -> Pool {
    Pool::open("sqlite::memory:", Path::new("/nowhere"), PoolConfig::default()).unwrap()
}

fn one<'a>(block: &'a Block) -> Value<'a> {
    block.cell(0, 0).unwrap().unwrap()
}

/// The names of a block's columns, and its cells.
fn text_of(block: &Block) -> String {
    let names: Vec<&str> = (0..block.columns()).map(|column| block.column(column).unwrap().0).collect();
    let cells = (0..block.rows()).flat_map(|row| (0..block.columns()).map(move |column| (row, column)));
    let cells = cells.map(|(row, column)| format!(" {}", block.cell(row, column).unwrap().unwrap()));
    format!("{}:{}", names.join(" "), cells.collect::<String>())
}

#[test]
fn a_file_is_opened_in_its_new_directory_with_wal_and_foreign_keys() {
    let data = tempfile::tempdir().unwrap();
    let pool = Pool::open("sqlite:deep/a.db", data.path(), PoolConfig::default()).unwrap();
    assert!(data.path().join("deep/a.db").exists());
    let lease = pool.checkout().unwrap();
    let ask = |sql| Block::parse(lease.query(sql, &[]).unwrap()).unwrap();
    assert_eq!(one(&ask("PRAGMA journal_mode")), Value::Text("wal"));
    assert_eq!(one(&ask("PRAGMA foreign_keys")), Value::Int(1));
    assert_eq!(one(&ask("PRAGMA busy_timeout")), Value::Int(5000));
}

#[test]
fn memory_is_one_connection_that_keeps_its_tables() {
    let pool = memory();
    assert_eq!(pool.status().max_size, 1);
    pool.checkout().unwrap().batch_execute("PRAGMA user_version = 7; CREATE TABLE t (a)").unwrap();
    assert_eq!(pool.checkout().unwrap().execute("INSERT INTO t VALUES ($1)", &[Value::Int(1)]).unwrap(), 1);
    assert_eq!(pool.status().connects, 1);
}

#[test]
fn placeholders_are_named_by_number_wherever_they_stand() {
    let pool = memory();
    let lease = pool.checkout().unwrap();
    let params = [Value::Text("a"), Value::Text("b")];
    let sql = "SELECT $2 || $1 || $2 || '$3' /* $4 */ -- $5";
    let block = Block::parse(lease.query(sql, &params).unwrap()).unwrap();
    assert_eq!(one(&block), Value::Text("bab$3"));
    for (sql, found) in [("SELECT ?", "?"), ("SELECT :a", ":a"), ("SELECT $a", "$a"), ("SELECT $0", "$0")] {
        let error = lease.query(sql, &[Value::Null]).unwrap_err();
        assert!(matches!(&error, QueryError::Placeholder { found: name } if name == found), "{error}");
    }
}

#[test]
fn a_connection_with_changed_settings_is_closed_at_checkin() {
    let data = tempfile::tempdir().unwrap();
    let pool = Pool::open("sqlite:a.db", data.path(), PoolConfig::default()).unwrap();
    pool.checkout().unwrap().batch_execute("PRAGMA foreign_keys = OFF").unwrap();
    assert_eq!(pool.status().open, 0);
    let block = pool.checkout().unwrap().query("PRAGMA foreign_keys", &[]).unwrap();
    assert_eq!(one(&Block::parse(block).unwrap()), Value::Int(1));
}

#[test]
fn a_statement_reports_only_its_own_changes() {
    let pool = memory();
    let lease = pool.checkout().unwrap();
    lease.batch_execute("CREATE TABLE t (a)").unwrap();
    assert_eq!(lease.execute("INSERT INTO t VALUES (1), (2)", &[]).unwrap(), 2);
    assert_eq!(lease.execute("CREATE TABLE u (a)", &[]).unwrap(), 0);
    assert_eq!(lease.execute("DELETE FROM t WHERE a > 9", &[]).unwrap(), 0);
    assert_eq!(lease.execute("INSERT INTO t VALUES (3) RETURNING a", &[]).unwrap(), 1);
    assert_eq!(lease.execute("SELECT a FROM t", &[]).unwrap(), 3);
}

#[test]
fn text_that_is_not_utf8_is_an_error_that_names_its_column() {
    let pool = memory();
    let lease = pool.checkout().unwrap();
    let error = lease.query("SELECT CAST(x'ff' AS TEXT) AS broken", &[]).unwrap_err();
    assert!(matches!(&error, QueryError::Cell { column, .. } if column == "broken"), "{error}");
}

#[test]
fn a_file_that_is_no_database_is_refused_when_the_pool_opens() {
    let data = tempfile::tempdir().unwrap();
    std::fs::write(
        data.path().join("a.db"),
        "this is a letter, not a database, and long enough to tell\n".repeat(99),
    )
    .unwrap();
    let error = Pool::open("sqlite:a.db", data.path(), PoolConfig::default()).unwrap_err();
    assert!(error.to_string().contains("a.db: "), "{error}");
}

#[test]
fn a_text_of_two_statements_is_refused_where_one_is_expected() {
    let pool = memory();
    let lease = pool.checkout().unwrap();
    let error = lease.execute("CREATE TABLE t (a); CREATE TABLE u (a)", &[]).unwrap_err();
    assert!(matches!(error, QueryError::Database { .. }), "{error}");
    assert!(lease.query("SELECT * FROM t", &[]).is_err());
}
