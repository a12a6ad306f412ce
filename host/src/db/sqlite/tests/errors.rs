//! What SQLite's errors tell beside their words.

use super::memory;
use crate::db::{ErrorDetails, QueryError};

fn told(error: QueryError) -> (String, ErrorDetails) {
    match error {
        QueryError::Database { sqlstate, details, .. } => {
            (sqlstate, details.map(|details| *details).unwrap_or_default())
        }
        other => panic!("{other}"),
    }
}

#[test]
fn an_error_names_code_table_column_constraint_and_position() {
    let pool = memory();
    let lease = pool.checkout().unwrap();
    let tables = "CREATE TABLE t (a INTEGER PRIMARY KEY, b NOT NULL DEFAULT 0, c UNIQUE, d CONSTRAINT small CHECK (d < 9)); \
                  CREATE TABLE pair (a, b, UNIQUE (a, b)); CREATE UNIQUE INDEX low ON pair (lower(a)) WHERE b > 2; \
                  CREATE TABLE exact (n INT) STRICT; \
                  INSERT INTO t (a, c) VALUES (1, 1); INSERT INTO pair VALUES ('x', 2), ('y', 3)";
    lease.batch_execute(tables).unwrap();
    let ask = |sql: &str| told(lease.execute(sql, &[]).unwrap_err());
    let part = |text: Option<&str>| text.map(str::to_owned);
    let cases: [(&str, &str, [Option<&str>; 4]); 9] = [
        ("INSERT INTO t (a) VALUES (1)", "23505", [Some("t"), Some("a"), None, None]),
        ("INSERT INTO t (b) VALUES (NULL)", "23502", [Some("t"), Some("b"), None, None]),
        ("INSERT INTO t (c) VALUES (1)", "23505", [Some("t"), Some("c"), None, None]),
        ("INSERT INTO t (d) VALUES (10)", "23514", [None, None, Some("small"), None]),
        (
            "INSERT INTO pair VALUES ('x', 2)",
            "23505",
            [Some("pair"), None, None, Some("Key (a, b) already exists.")],
        ),
        ("INSERT INTO pair VALUES ('Y', 4)", "23505", [None, None, Some("low"), None]),
        ("INSERT INTO exact VALUES ('many')", "42804", [Some("exact"), Some("n"), None, None]),
        ("SELECT * FROM none", "42P01", [Some("none"), None, None, None]),
        ("CREATE TABLE t (x)", "42P07", [None, None, None, None]),
    ];
    for (sql, sqlstate, [table, column, constraint, detail]) in cases {
        let (code, details) = ask(sql);
        assert_eq!(code, sqlstate, "{sql}: {}", lease.execute(sql, &[]).unwrap_err());
        let found = (details.table, details.column, details.constraint, details.detail);
        assert_eq!(found, (part(table), part(column), part(constraint), part(detail)), "{sql}");
    }
    // Characters, not bytes.
    let (code, details) = ask("SELECT '\u{fc}', nought FROM t");
    assert_eq!((code.as_str(), details.position), ("42703", Some(13)));
    assert_eq!(ask("SELEC 1").0, "42601");
    assert_eq!(ask("SELECT '").0, "42601");
    assert_eq!(ask("SELECT f(1)").0, "42883");
}
