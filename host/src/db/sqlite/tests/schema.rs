//! Statements that were prepared before another connection changed the schema.

use std::ops::ControlFlow;

use super::text_of;
use crate::db::{Block, Lease, Pool, PoolConfig};

/// The ways to read rows.
const WAYS: &[fn(&Lease, &str) -> String] = &[
    |lease, sql| text_of(&Block::parse(lease.query(sql, &[]).unwrap()).unwrap()),
    |lease, sql| {
        let mut read = String::new();
        let each = &mut |block: &[u8]| {
            read += &text_of(&Block::parse(block.to_vec()).unwrap());
            ControlFlow::Continue(())
        };
        lease.query_each(sql, &[], each).unwrap();
        read
    },
];

/// Names and cells are those of the statement as it ran, the first time too.
#[test]
fn a_cached_statement_has_the_columns_of_the_schema_that_it_ran_on() {
    let changes = [
        ("ALTER TABLE t RENAME COLUMN a TO z", "z b: 1 2"),
        ("ALTER TABLE t ADD COLUMN c DEFAULT 3", "a b c: 1 2 3"),
        ("ALTER TABLE t DROP COLUMN a", "b: 2"),
        ("DROP TABLE t; CREATE TABLE t (b, a); INSERT INTO t VALUES (4, 5)", "b a: 4 5"),
        ("DROP TABLE t; CREATE TABLE t (only)", "only:"),
        ("DROP TABLE t; CREATE VIEW t AS SELECT 7 AS seven", "seven: 7"),
        ("ALTER TABLE t RENAME TO u; CREATE TABLE t (x, y, z, n)", "x y z n:"),
    ];
    for (change, expected) in changes {
        for read in WAYS {
            for in_transaction in [false, true] {
                let data = tempfile::tempdir().unwrap();
                let config = || PoolConfig { max_size: 1, ..PoolConfig::default() };
                let pool = Pool::open("sqlite:a.db", data.path(), config()).unwrap();
                let lease = pool.checkout().unwrap();
                lease.batch_execute("CREATE TABLE t (a, b); INSERT INTO t VALUES (1, 2)").unwrap();
                assert_eq!(read(&lease, "SELECT * FROM t"), "a b: 1 2");
                // Another process.
                let other = rusqlite::Connection::open(data.path().join("a.db")).unwrap();
                other.execute_batch(change).unwrap();
                if in_transaction {
                    lease.begin().unwrap();
                }
                assert_eq!(read(&lease, "SELECT * FROM t"), expected, "{change}");
                assert_eq!(read(&lease, "SELECT * FROM t"), expected, "{change}, again");
            }
        }
    }
}

#[test]
fn what_a_cached_statement_returns_has_the_columns_of_the_schema_that_it_ran_on() {
    let data = tempfile::tempdir().unwrap();
    let pool = Pool::open("sqlite:a.db", data.path(), PoolConfig::default()).unwrap();
    let lease = pool.checkout().unwrap();
    lease.batch_execute("CREATE TABLE t (a INTEGER PRIMARY KEY, b DEFAULT 2)").unwrap();
    let insert = "INSERT INTO t (a) VALUES (NULL) RETURNING *";
    let read = || text_of(&Block::parse(lease.query(insert, &[]).unwrap()).unwrap());
    assert_eq!(read(), "a b: 1 2");
    let other = rusqlite::Connection::open(data.path().join("a.db")).unwrap();
    other.execute_batch("ALTER TABLE t ADD COLUMN c DEFAULT 3; ALTER TABLE t RENAME COLUMN b TO y").unwrap();
    assert_eq!(read(), "a y c: 2 2 3");
    // A table that is gone is an error, and none of the connection.
    other.execute_batch("DROP TABLE t").unwrap();
    assert!(lease.query(insert, &[]).is_err());
    assert!(lease.query("SELECT 1", &[]).is_ok());
}
