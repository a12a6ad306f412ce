//! Transactions that SQLite ends by itself, or that a text ends behind the host's back.

use std::path::Path;

use tempfile::TempDir;

use super::one;
use crate::db::{Block, Lease, Pool, PoolConfig, QueryError, Value};

/// A database with a table whose triggers end transactions, and a row.
fn pool(dir: &TempDir) -> Pool {
    let url = format!("sqlite:{}/a.db", dir.path().display());
    let pool = Pool::open(&url, Path::new("/nowhere"), PoolConfig::default()).unwrap();
    let tables = "CREATE TABLE t (x INTEGER PRIMARY KEY, y NOT NULL DEFAULT 0); \
                  INSERT INTO t (x) VALUES (1); \
                  CREATE TABLE guarded (x); \
                  CREATE TRIGGER guard BEFORE INSERT ON guarded WHEN NEW.x > 9 \
                  BEGIN SELECT RAISE(ROLLBACK, 'too much'); END; \
                  CREATE TABLE strict (x INTEGER PRIMARY KEY ON CONFLICT ROLLBACK); \
                  INSERT INTO strict VALUES (1)";
    pool.checkout().unwrap().batch_execute(tables).unwrap();
    pool
}

fn rows(pool: &Pool) -> String {
    let block = pool.checkout().unwrap().query("SELECT group_concat(x) FROM t", &[]).unwrap();
    one(&Block::parse(block).unwrap()).to_string()
}

fn insert(lease: &Lease, x: i64) -> Result<u64, QueryError> {
    lease.execute("INSERT INTO t (x) VALUES ($1)", &[Value::Int(x)])
}

fn is_over<T: std::fmt::Debug>(outcome: Result<T, QueryError>) -> bool {
    matches!(outcome, Err(QueryError::TransactionEnded { .. }))
}

/// Statements that fail and take the whole transaction along.
const ENDING: &[&str] = &[
    "INSERT OR ROLLBACK INTO t (x) VALUES (1)",
    "UPDATE OR ROLLBACK t SET y = NULL",
    "INSERT INTO strict VALUES (1)",
    "INSERT INTO guarded VALUES (10)",
    "WITH a AS (SELECT 10) INSERT INTO guarded SELECT * FROM a",
];

/// A way to run a statement.
type Way = fn(&Lease, &str) -> Result<(), QueryError>;

const WAYS: &[Way] = &[
    |lease, sql| lease.execute(sql, &[]).map(drop),
    |lease, sql| lease.query(sql, &[]).map(drop),
    |lease, sql| lease.batch_execute(sql),
    |lease, sql| lease.batch_execute(&format!("SELECT 1; {sql}; INSERT INTO t (x) VALUES (77)")),
    |lease, sql| lease.query_each(sql, &[], &mut |_| std::ops::ControlFlow::Continue(())).map(drop),
];

#[test]
fn nothing_runs_in_the_place_of_a_transaction_that_the_database_ended() {
    let dir = tempfile::tempdir().unwrap();
    let pool = pool(&dir);
    for sql in ENDING {
        for run in WAYS {
            let lease = pool.checkout().unwrap();
            lease.begin().unwrap();
            insert(&lease, 2).unwrap();
            let failed = run(&lease, sql).unwrap_err();
            // Its own class, and words that say what became of the rest.
            assert!(
                matches!(&failed, QueryError::Database { sqlstate, .. } if sqlstate.starts_with("23")),
                "{sql}: {failed}"
            );
            assert!(failed.to_string().contains("rolled the whole transaction back"), "{sql}: {failed}");
            assert!(is_over(insert(&lease, 3)), "{sql}");
            assert!(is_over(lease.query("SELECT 1", &[])), "{sql}");
            assert!(is_over(lease.batch_execute("INSERT INTO t (x) VALUES (4)")), "{sql}");
            assert!(is_over(lease.begin()), "{sql}");
            assert!(is_over(lease.commit()), "{sql}");
            // It is over, and the connection is as good as before.
            assert!(matches!(lease.commit(), Err(QueryError::NoTransaction)));
            assert_eq!(rows(&pool), "\"1\"", "{sql}");
            lease.begin().unwrap();
            insert(&lease, 2).unwrap();
            lease.rollback().unwrap();
        }
    }
    assert_eq!(pool.status().closes, 0);
}

#[test]
fn a_rollback_of_what_the_database_ended_is_what_it_says() {
    let dir = tempfile::tempdir().unwrap();
    let pool = pool(&dir);
    let lease = pool.checkout().unwrap();
    lease.begin().unwrap();
    insert(&lease, 2).unwrap();
    lease.execute(ENDING[0], &[]).unwrap_err();
    assert!(is_over(insert(&lease, 3)));
    lease.rollback().unwrap();
    assert_eq!(rows(&pool), "\"1\"");
}

#[test]
fn savepoints_end_with_the_transaction_around_them() {
    let dir = tempfile::tempdir().unwrap();
    let pool = pool(&dir);
    for is_kept in [true, false] {
        let lease = pool.checkout().unwrap();
        lease.begin().unwrap();
        insert(&lease, 2).unwrap();
        lease.begin().unwrap();
        lease.begin().unwrap();
        lease.execute(ENDING[0], &[]).unwrap_err();
        assert!(is_over(lease.commit()), "the innermost");
        assert!(is_over(insert(&lease, 3)));
        if is_kept {
            assert!(is_over(lease.commit()), "the middle");
        } else {
            lease.rollback().unwrap();
        }
        assert!(is_over(insert(&lease, 4)), "the outermost is over, whatever became of its savepoints");
        assert!(is_over(lease.commit()));
        insert(&lease, 5).unwrap();
        assert_eq!(rows(&pool), "\"1,5\"");
        lease.execute("DELETE FROM t WHERE x = 5", &[]).unwrap();
    }
}

/// `ABORT`, `FAIL` and plain failures leave the transaction as it is.
#[test]
fn a_statement_that_fails_alone_leaves_its_transaction() {
    let dir = tempfile::tempdir().unwrap();
    let pool = pool(&dir);
    let lease = pool.checkout().unwrap();
    lease.begin().unwrap();
    insert(&lease, 2).unwrap();
    for sql in [
        "INSERT INTO t (x) VALUES (1)",
        "INSERT OR FAIL INTO t (x) VALUES (1)",
        "SELEC",
        "SELECT * FROM none",
    ] {
        let failed = lease.execute(sql, &[]).unwrap_err();
        assert!(!failed.to_string().contains("whole transaction"), "{sql}: {failed}");
    }
    lease.begin().unwrap();
    insert(&lease, 3).unwrap();
    lease.rollback().unwrap();
    lease.batch_execute("SAVEPOINT a; INSERT INTO t (x) VALUES (4); ROLLBACK TO a; RELEASE a").unwrap();
    lease.commit().unwrap();
    assert_eq!(rows(&pool), "\"1,2\"");
}

#[test]
fn a_full_disk_ends_the_transaction() {
    let dir = tempfile::tempdir().unwrap();
    let pool = pool(&dir);
    let lease = pool.checkout().unwrap();
    lease.query("PRAGMA max_page_count = 10", &[]).unwrap();
    lease.begin().unwrap();
    insert(&lease, 2).unwrap();
    let full = lease.execute("INSERT INTO t (y) VALUES (zeroblob(100000))", &[]).unwrap_err();
    assert!(matches!(&full, QueryError::Database { sqlstate, .. } if sqlstate == "53100"), "{full}");
    assert!(is_over(insert(&lease, 3)));
    assert!(is_over(lease.commit()));
    assert_eq!(rows(&pool), "\"1\"");
}

/// A text can hide the end of a transaction from who reads its words: SQLite itself has the last word.
#[test]
fn an_end_that_is_hidden_in_a_text_keeps_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let pool = pool(&dir);
    for end in [
        "COMMIT",
        "ROLLBACK",
        "COMMIT; BEGIN",
        "ROLLBACK; BEGIN; INSERT INTO t (x) VALUES (8)",
        "END; SAVEPOINT a",
    ] {
        let lease = pool.checkout().unwrap();
        lease.begin().unwrap();
        insert(&lease, 2).unwrap();
        // To SQLite `$a(')` is one parameter; to a reader of SQL a literal begins in it.
        let hidden = format!("SELECT $a('); {end}; SELECT $a(')");
        assert!(is_over(lease.batch_execute(&hidden)), "{end}");
        assert!(is_over(insert(&lease, 3)), "{end}");
        assert!(is_over(lease.commit()), "{end}");
        assert_eq!(rows(&pool), "\"1\"", "{end}");
    }
}

/// A transaction that was begun by a text is its author's; it does not go on by itself either.
#[test]
fn a_transaction_begun_by_a_text_ends_the_same_way() {
    let dir = tempfile::tempdir().unwrap();
    let pool = pool(&dir);
    for begin in ["BEGIN", "SAVEPOINT mine"] {
        let lease = pool.checkout().unwrap();
        lease.batch_execute(begin).unwrap();
        insert(&lease, 2).unwrap();
        lease.execute(ENDING[0], &[]).unwrap_err();
        assert!(is_over(insert(&lease, 3)), "{begin}");
        lease.batch_execute("COMMIT").unwrap_err();
        insert(&lease, 4).unwrap();
        assert_eq!(rows(&pool), "\"1,4\"", "{begin}");
        lease.execute("DELETE FROM t WHERE x = 4", &[]).unwrap();
        // Ended as its author wished.
        lease.batch_execute(&format!("{begin}; INSERT INTO t (x) VALUES (5)")).unwrap();
        lease
            .batch_execute(if begin == "BEGIN" { "ROLLBACK" } else { "ROLLBACK TO mine; RELEASE mine" })
            .unwrap();
        lease.begin().unwrap();
        lease.commit().unwrap();
    }
    // Left to the next borrower, it is nobody's.
    let lease = pool.checkout().unwrap();
    lease.batch_execute("BEGIN").unwrap();
    lease.execute(ENDING[0], &[]).unwrap_err();
    drop(lease);
    insert(&pool.checkout().unwrap(), 6).unwrap();
    assert_eq!(rows(&pool), "\"1,6\"");
}

#[test]
fn a_stream_whose_statement_ends_the_transaction_is_its_last_word() {
    let dir = tempfile::tempdir().unwrap();
    let pool = pool(&dir);
    let lease = pool.checkout().unwrap();
    lease.begin().unwrap();
    insert(&lease, 2).unwrap();
    let sql = "INSERT OR ROLLBACK INTO t (x) SELECT value FROM generate_series(100, 1) RETURNING x";
    let numbers = "WITH RECURSIVE n (x) AS (SELECT 10 UNION ALL SELECT x - 1 FROM n WHERE x > 1) ";
    let sql = sql.replace("SELECT value FROM generate_series(100, 1)", &format!("{numbers}SELECT x FROM n"));
    let failed = lease.query_each(&sql, &[], &mut |_| std::ops::ControlFlow::Continue(())).unwrap_err();
    assert!(failed.to_string().contains("whole transaction"), "{failed}");
    assert!(is_over(insert(&lease, 3)));
    assert!(is_over(lease.commit()));
    assert_eq!(rows(&pool), "\"1\"");
}
