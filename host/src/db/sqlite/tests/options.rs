//! What is said of a transaction before its first statement.

use std::path::Path;

use tempfile::TempDir;

use super::text_of;
use crate::db::{Access, Block, Lease, Pool, PoolConfig, QueryError, SteadyConfig, TransactionOptions};

fn pool(dir: &TempDir) -> Pool {
    let url = format!("sqlite:{}/a.db", dir.path().display());
    // A lock that is held is told at once, so that a test never waits for one.
    let session = vec!["PRAGMA busy_timeout = 0".to_owned()];
    let steady = SteadyConfig { session, ..SteadyConfig::default() };
    let pool =
        Pool::open(&url, Path::new("/nowhere"), PoolConfig { steady, ..PoolConfig::default() }).unwrap();
    pool.checkout().unwrap().batch_execute("CREATE TABLE t (x); INSERT INTO t VALUES (1)").unwrap();
    pool
}

fn begun(pool: &Pool, access: Access) -> Result<Lease, QueryError> {
    let lease = pool.checkout().unwrap();
    lease.begin_with(&TransactionOptions { access: Some(access), ..TransactionOptions::default() })?;
    Ok(lease)
}

fn rows(lease: &Lease) -> String {
    text_of(&Block::parse(lease.query("SELECT x FROM t ORDER BY x", &[]).unwrap()).unwrap())
}

fn code(outcome: Result<impl std::fmt::Debug, QueryError>) -> String {
    outcome.unwrap_err().sqlstate().to_owned()
}

const INSERT: &str = "INSERT INTO t VALUES (2)";

#[test]
fn readers_run_side_by_side_and_beside_a_writer() {
    let dir = tempfile::tempdir().unwrap();
    let pool = pool(&dir);
    let writer = begun(&pool, Access::Immediate).unwrap();
    writer.execute(INSERT, &[]).unwrap();
    let readers: Vec<Lease> = [Access::Deferred, Access::Deferred, Access::ReadOnly]
        .map(|access| begun(&pool, access).unwrap())
        .into();
    for reader in &readers {
        assert_eq!(rows(reader), "x: 1");
    }
    writer.commit().unwrap();
    for reader in &readers {
        assert_eq!(rows(reader), "x: 1", "it sees what it began with");
        reader.commit().unwrap();
        assert_eq!(rows(reader), "x: 1 2");
    }
}

#[test]
fn two_that_want_to_write_at_once_wait_for_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let pool = pool(&dir);
    let _first = begun(&pool, Access::Immediate).unwrap();
    assert_eq!(code(begun(&pool, Access::Immediate)), "55P03");
    let third = begun(&pool, Access::Deferred).unwrap();
    assert_eq!(code(third.execute(INSERT, &[])), "55P03", "it has read nothing that is old by now");
}

/// It would overwrite what it has not seen.
#[test]
fn a_reader_that_writes_after_another_wrote_has_to_begin_again() {
    let dir = tempfile::tempdir().unwrap();
    let pool = pool(&dir);
    let reader = begun(&pool, Access::Deferred).unwrap();
    assert_eq!(rows(&reader), "x: 1");
    pool.checkout().unwrap().execute("INSERT INTO t VALUES (5)", &[]).unwrap();
    assert_eq!(code(reader.execute(INSERT, &[])), "40001");
    reader.rollback().unwrap();
    // And while another one is at it.
    reader
        .begin_with(&TransactionOptions { access: Some(Access::Deferred), ..TransactionOptions::default() })
        .unwrap();
    assert_eq!(rows(&reader), "x: 1 5");
    let writer = begun(&pool, Access::Immediate).unwrap();
    let refused = reader.execute(INSERT, &[]).unwrap_err();
    assert_eq!(refused.sqlstate(), "40001");
    assert!(refused.to_string().contains("`immediate`"), "{refused}");
    drop(writer);
    assert_eq!(reader.execute(INSERT, &[]).unwrap(), 1, "nobody wrote after all");
    reader.commit().unwrap();
    assert_eq!(rows(&reader), "x: 1 2 5");
}

#[test]
fn a_transaction_that_is_read_only_refuses_to_write_in_every_way() {
    let dir = tempfile::tempdir().unwrap();
    let pool = pool(&dir);
    let reader = begun(&pool, Access::ReadOnly).unwrap();
    for sql in
        [INSERT, "CREATE TABLE u (x)", "WITH a AS (SELECT 3) INSERT INTO t SELECT * FROM a RETURNING x"]
    {
        assert_eq!(code(reader.execute(sql, &[])), "25006", "{sql}");
        assert_eq!(code(reader.query(sql, &[])), "25006", "{sql}");
        assert_eq!(code(reader.batch_execute(&format!("SELECT 1; {sql}"))), "25006", "{sql}");
    }
    reader.begin().unwrap();
    assert_eq!(code(reader.execute(INSERT, &[])), "25006", "in a savepoint too");
    reader.commit().unwrap();
    reader.commit().unwrap();
    assert_eq!(reader.execute(INSERT, &[]).unwrap(), 1, "the next one writes");
}

#[test]
fn a_savepoint_has_no_options() {
    let dir = tempfile::tempdir().unwrap();
    let lease = begun(&pool(&dir), Access::Deferred).unwrap();
    let options = TransactionOptions { access: Some(Access::ReadOnly), ..TransactionOptions::default() };
    assert!(matches!(lease.begin_with(&options), Err(QueryError::SavepointOptions)));
    lease.commit().unwrap();
}
