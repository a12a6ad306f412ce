//! Facts about databases behind pgbouncer in transaction mode, where each transaction gets another session.

use std::path::Path;
use std::thread;

use host::db::{Block, Lease, Listener, Pool, PoolConfig, QueryError, Value};
use tests::postgres::{Bouncer, Cluster};

/// A pool behind a pooler of its own, with a table `t (x, name)`.
fn pooled() -> (Bouncer, Pool, String) {
    let cluster = Cluster::shared();
    let database = cluster.create_database();
    cluster
        .connect(&database)
        .batch_execute("CREATE TABLE t (x bigint PRIMARY KEY, name text, at timestamptz, raw bytea)")
        .unwrap();
    let bouncer = Bouncer::start(cluster);
    let url = format!("{}?pgbouncer=true", bouncer.url(&database));
    let config = PoolConfig { max_size: 8, ..PoolConfig::default() };
    let pool = Pool::open(&url, Path::new("/nowhere"), config).unwrap();
    (bouncer, pool, database)
}

fn cell(lease: &Lease, sql: &str, params: &[Value<'_>]) -> String {
    let block = Block::parse(lease.query(sql, params).unwrap()).unwrap();
    block.cell(0, 0).unwrap().unwrap().to_string()
}

/// Eight clients over two sessions: a statement prepared in one of them would be missing in the other.
#[test]
fn statements_run_in_whatever_session_they_get() {
    let (_bouncer, pool, _) = pooled();
    thread::scope(|scope| {
        for client in 0..8_i64 {
            let pool = &pool;
            scope.spawn(move || {
                for round in 0..25 {
                    let lease = pool.checkout().unwrap();
                    let x = client * 100 + round;
                    let insert = "INSERT INTO t VALUES ($1, $2, '2026-01-02 03:04:05Z', $3)";
                    let params = [Value::Int(x), Value::Text("it's \\ 1"), Value::Bytes(&[0, 255])];
                    assert_eq!(lease.execute(insert, &params).unwrap(), 1);
                    assert_eq!(cell(&lease, "SELECT x FROM t WHERE x = $1", &[Value::Int(x)]), x.to_string());
                }
            });
        }
    });
    let lease = pool.checkout().unwrap();
    assert_eq!(
        cell(
            &lease,
            "SELECT count(*) FROM t WHERE name = $1 AND raw = '\\x00ff'",
            &[Value::Text("it's \\ 1")]
        ),
        "200"
    );
    assert_eq!(cell(&lease, "SELECT $1::float8 + 0.5", &[Value::Float(1.0)]), "1.5");
    assert_eq!(cell(&lease, "SELECT NOT $1", &[Value::Bool(true)]), "false");
    assert_eq!(cell(&lease, "SELECT $1::text", &[Value::Null]), "NULL");
    assert_eq!(Block::parse(lease.query("SELECT x FROM t WHERE x = -1", &[]).unwrap()).unwrap().rows(), 0);
}

#[test]
fn transactions_stay_in_one_session() {
    let (_bouncer, pool, _) = pooled();
    let [one, other] = [(); 2].map(|()| pool.checkout().unwrap());
    one.begin().unwrap();
    one.execute("INSERT INTO t (x) VALUES (1)", &[]).unwrap();
    assert_eq!(cell(&other, "SELECT count(*) FROM t", &[]), "0");
    one.begin().unwrap();
    one.execute("INSERT INTO t (x) VALUES (2)", &[]).unwrap();
    one.rollback().unwrap();
    one.commit().unwrap();
    assert_eq!(cell(&other, "SELECT sum(x)::bigint FROM t", &[]), "1");
    one.begin().unwrap();
    assert!(one.execute("INSERT INTO t (x) VALUES (1)", &[]).is_err());
    assert!(matches!(one.commit(), Err(QueryError::RolledBack)));
}

/// What would reach another client is refused; what ends with the transaction is not.
#[test]
fn nothing_is_left_in_a_session_that_is_somebody_elses_next() {
    let (bouncer, pool, database) = pooled();
    let lease = pool.checkout().unwrap();
    for text in [
        "SET work_mem = '1MB'",
        "SET LOCAL work_mem = '1MB'; SET work_mem = '2MB'",
        "CREATE TEMP TABLE mine (x int)",
        "PREPARE p AS SELECT 1",
        "LISTEN orders",
        "SELECT pg_advisory_lock(1)",
    ] {
        let refused = lease.batch_execute(text).unwrap_err();
        assert!(matches!(refused, QueryError::Pooled), "{text}: {refused}");
        assert!(refused.to_string().contains("SET LOCAL"), "{refused}");
    }
    assert!(matches!(
        lease.query("SELECT set_config('work_mem', '1MB', false)", &[]),
        Err(QueryError::Pooled)
    ));
    lease.begin().unwrap();
    lease.batch_execute("SET LOCAL work_mem = '77kB'").unwrap();
    assert_eq!(cell(&lease, "SHOW work_mem", &[]), "\"77kB\"");
    lease.commit().unwrap();
    let mut copy = |_: &[u8]| std::ops::ControlFlow::Continue(());
    assert!(matches!(lease.copy_out("COPY t TO STDOUT", &mut copy), Err(QueryError::NotOffered { .. })));
    let url = format!("{}?pgbouncer=true", bouncer.url(&database));
    assert!(Listener::open(&url, &["orders"], 1).unwrap_err().to_string().contains("the server itself"));
    // Every session there is, asked by somebody else.
    for _ in 0..4 {
        let lease = pool.checkout().unwrap();
        assert_ne!(cell(&lease, "SHOW work_mem", &[]), "\"77kB\"");
        assert_eq!(cell(&lease, "SELECT count(*) FROM pg_prepared_statements", &[]), "0");
    }
}

/// What ends with its transaction reaches nobody else.
#[test]
fn what_ends_with_its_transaction_is_not_refused() {
    let (_bouncer, pool, _) = pooled();
    let lease = pool.checkout().unwrap();
    for text in [
        "SELECT set_config('work_mem', '77kB', true)",
        "/* a */ SET LOCAL work_mem = '77kB'",
        "-- a\nSET TRANSACTION READ WRITE",
        "SET CONSTRAINTS ALL DEFERRED",
        "DECLARE c CURSOR FOR SELECT 1",
        "DO $$ BEGIN SET LOCAL work_mem = '77kB'; PERFORM 1; END $$",
        "CREATE PROCEDURE p() LANGUAGE sql AS 'SELECT 1'; CALL p()",
    ] {
        lease.begin().unwrap();
        lease.batch_execute(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        if !text.contains(';') {
            let outcome = lease.query(text, &[]);
            // There is a cursor of that name now.
            let may_fail = text.starts_with("DECLARE");
            assert!(may_fail || outcome.is_ok(), "{text}: {outcome:?}");
        }
        lease.rollback().unwrap();
    }
    for text in [
        "SELECT set_config('work_mem', '77kB', false)",
        "DO $$ BEGIN SET work_mem = '77kB'; END $$",
        "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
    ] {
        lease.begin().unwrap();
        assert!(matches!(lease.batch_execute(text), Err(QueryError::Pooled)), "{text}");
        lease.rollback().unwrap();
    }
}

/// The driver looks up what they are, by statements with names.
#[test]
fn types_that_somebody_made_are_read_in_whatever_session_they_come_from() {
    let cluster = Cluster::shared();
    let database = cluster.create_database();
    let setup = "CREATE TYPE mood AS ENUM ('calm', 'glad'); CREATE DOMAIN short AS text CHECK (length(value) < 9); \
                 CREATE TYPE pair AS (a int, b text); CREATE TABLE m (m mood, s short, l mood[], d short[]); \
                 INSERT INTO m SELECT 'glad', 'a', '{calm,glad}', '{b}' FROM generate_series(1, 2000)";
    cluster.connect(&database).batch_execute(setup).unwrap();
    let bouncer = Bouncer::start(cluster);
    let url = format!("{}?pgbouncer=on", bouncer.url(&database));
    let config = PoolConfig { max_size: 8, ..PoolConfig::default() };
    let pool = Pool::open(&url, Path::new("/nowhere"), config).unwrap();
    thread::scope(|scope| {
        for _ in 0..8 {
            let pool = &pool;
            scope.spawn(move || {
                for _ in 0..10 {
                    let lease = pool.checkout().unwrap();
                    assert_eq!(
                        cell(&lease, "SELECT m FROM m WHERE m = $1", &[Value::Text("glad")]),
                        "\"glad\""
                    );
                    assert_eq!(cell(&lease, "SELECT s FROM m", &[]), "\"a\"");
                    lease.query("SELECT * FROM m", &[]).unwrap();
                    lease.begin().unwrap();
                    lease.query("SELECT l, d FROM m LIMIT 1", &[]).unwrap();
                    lease.commit().unwrap();
                }
            });
        }
    });
    // One that is made later costs each connection that meets it, once.
    cluster.connect(&database).batch_execute("CREATE TYPE late AS ENUM ('x')").unwrap();
    for _ in 0..20 {
        let lease = pool.checkout().unwrap();
        let _ = lease.query("SELECT 'x'::late", &[]);
    }
    for _ in 0..20 {
        assert_eq!(cell(&pool.checkout().unwrap(), "SELECT 'x'::late", &[]), "\"x\"");
    }
    // Nothing is left for others to meet.
    let left = "SELECT count(*) FROM pg_prepared_statements";
    assert_eq!(cell(&pool.checkout().unwrap(), left, &[]), "0");
}

/// Who forgets to say that there is a pooler finds statements missing, and is told what to write.
#[test]
fn a_missing_statement_says_what_to_write_in_the_address() {
    let pool = Pool::open(&super::url(), Path::new("/nowhere"), PoolConfig::default()).unwrap();
    let lease = pool.checkout().unwrap();
    lease.begin().unwrap();
    lease.query("SELECT 1", &[]).unwrap();
    // As a pooler does by giving the next statement another session.
    lease.batch_execute("DEALLOCATE ALL").unwrap();
    let missing = lease.query("SELECT 1", &[]).unwrap_err();
    assert!(missing.to_string().contains("add `pgbouncer=true` to the address"), "{missing}");
}
