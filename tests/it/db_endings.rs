//! Facts about what is left when something ends early: a stream, a COPY, a borrower, a connection.

use std::ops::ControlFlow;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use host::db::{Block, Lease, Pool, PoolConfig, QueryError, Streamed, Value};
use tests::Cluster;
use tests::wait::{SOON, eventually};

/// Would take minutes, and holds a lock on `t` meanwhile.
const LONG: &str = "SELECT t.x, pg_sleep(0.001) FROM t, generate_series(1, 300000)";

/// A database with a table `t` of one row, and a pool on it.
fn pool(max_size: u32) -> (String, Pool) {
    let cluster = Cluster::shared();
    let database = cluster.create_database();
    cluster.connect(&database).batch_execute("CREATE TABLE t (x bigint); INSERT INTO t VALUES (1)").unwrap();
    let config = PoolConfig { max_size, ..PoolConfig::default() };
    let pool = Pool::open(&cluster.url(&database), Path::new("/nowhere"), config).unwrap();
    (database, pool)
}

fn cell(lease: &Lease, sql: &str) -> String {
    let block = Block::parse(lease.query(sql, &[]).unwrap()).unwrap();
    match block.cell(0, 0).unwrap().unwrap() {
        Value::Text(text) => text.to_owned(),
        other => other.to_string(),
    }
}

/// Sessions of a database, but the one that asks: state and statement of each.
fn sessions(database: &str) -> Vec<String> {
    let sql = "SELECT state || ': ' || query FROM pg_stat_activity \
               WHERE datname = $1 AND pid <> pg_backend_pid() AND backend_type = 'client backend'";
    let mut client = Cluster::shared().connect(database);
    client.query(sql, &[&database]).unwrap().iter().map(|row| row.get(0)).collect()
}

/// Waits until nothing runs, nothing is locked, and there are as many sessions as the pool has connections.
fn is_quiet(database: &str, pool: &Pool) {
    eventually(SOON, "nothing to run and no session too many", || {
        let sessions = sessions(database);
        let open = usize::try_from(pool.status().open).unwrap();
        let is_idle = sessions.iter().all(|session| session.starts_with("idle: "));
        if is_idle && sessions.len() == open { Ok(()) } else { Err(format!("{open} open, {sessions:?}")) }
    });
    // None of them keeps a lock: this one waits for nobody.
    let mut client = Cluster::shared().connect(database);
    client
        .batch_execute("SET lock_timeout = '5s'; BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE; ROLLBACK")
        .unwrap();
}

/// Reads the first block of an endless result, and no more.
fn take_one(lease: &Lease, sql: &str) -> Result<Streamed, QueryError> {
    lease.query_each(sql, &[], &mut |_| ControlFlow::Break(()))
}

#[test]
fn a_stream_that_ends_early_runs_no_longer_and_the_next_borrower_waits_for_nothing() {
    let (database, pool) = pool(1);
    let lease = pool.checkout().unwrap();
    let begun = Instant::now();
    assert_eq!(take_one(&lease, LONG).unwrap(), Streamed::Stopped);
    // With the lease in hand still.
    is_quiet(&database, &pool);
    assert_eq!(cell(&lease, "SELECT 2"), "2");
    take_one(&lease, LONG).unwrap();
    drop(lease);
    assert_eq!(cell(&pool.checkout().unwrap(), "SELECT 3"), "3");
    assert!(begun.elapsed() < Duration::from_secs(60), "it was read to its end");
    is_quiet(&database, &pool);
}

#[test]
fn a_stream_that_ends_early_in_a_transaction_spoils_nothing() {
    let (database, pool) = pool(1);
    let lease = pool.checkout().unwrap();
    lease.begin().unwrap();
    lease.execute("INSERT INTO t VALUES (2)", &[]).unwrap();
    take_one(&lease, LONG).unwrap();
    lease.execute("INSERT INTO t VALUES (3)", &[]).unwrap();
    take_one(&lease, LONG).unwrap();
    lease.commit().unwrap();
    assert_eq!(cell(&lease, "SELECT sum(x)::bigint FROM t"), "6");
    lease.begin().unwrap();
    lease.execute("INSERT INTO t VALUES (4)", &[]).unwrap();
    take_one(&lease, LONG).unwrap();
    lease.rollback().unwrap();
    lease.begin().unwrap();
    take_one(&lease, LONG).unwrap();
    drop(lease);
    is_quiet(&database, &pool);
    assert_eq!(cell(&pool.checkout().unwrap(), "SELECT sum(x)::bigint FROM t"), "6");
}

/// Its reader wants no more of the rows; that they were written it wants all the same.
#[test]
fn a_stream_of_what_was_written_is_not_undone_by_its_early_end() {
    let (database, pool) = pool(1);
    let lease = pool.checkout().unwrap();
    let insert = "INSERT INTO t SELECT g FROM generate_series(1, 20000) g RETURNING x, repeat('x', 100)";
    take_one(&lease, insert).unwrap();
    drop(lease);
    is_quiet(&database, &pool);
    assert_eq!(cell(&pool.checkout().unwrap(), "SELECT count(*) FROM t"), "20001");
}

#[test]
fn rows_are_handed_over_as_they_come_and_before_an_error() {
    let (database, pool) = pool(2);
    let lease = pool.checkout().unwrap();
    // The third row waits for somebody who has seen the first.
    let mut other = Cluster::shared().connect(&database);
    other.batch_execute("SELECT pg_advisory_lock(7)").unwrap();
    // As long as what the server gathers before it sends.
    let sql = "SELECT repeat('x', 10000), CASE WHEN g = 3 THEN pg_advisory_xact_lock(7) END FROM generate_series(1, 4) g";
    let (sender, receiver) = mpsc::channel();
    let reader = thread::spawn(move || {
        let mut rows = 0;
        let outcome = lease.query_each(sql, &[], &mut |block| {
            rows += Block::parse(block.to_vec()).unwrap().rows();
            sender.send(rows).unwrap();
            ControlFlow::Continue(())
        });
        (outcome, rows)
    });
    assert_eq!(receiver.recv_timeout(SOON), Ok(1), "the row that is there");
    other.batch_execute("SELECT pg_advisory_unlock(7)").unwrap();
    let (outcome, rows) = reader.join().unwrap();
    assert_eq!((outcome.unwrap(), rows), (Streamed::All(4), 4));

    let lease = pool.checkout().unwrap();
    let mut rows = 0;
    let failing = "SELECT 1 / (10 - g) FROM generate_series(1, 20) g";
    let outcome = lease.query_each(failing, &[], &mut |block| {
        rows += Block::parse(block.to_vec()).unwrap().rows();
        ControlFlow::Continue(())
    });
    assert!(
        matches!(&outcome, Err(QueryError::Database { sqlstate, .. }) if sqlstate == "22012"),
        "{outcome:?}"
    );
    assert_eq!(rows, 9);
}

#[test]
fn a_copy_whose_reader_fails_stores_nothing_and_fails_its_transaction() {
    let (database, pool) = pool(1);
    let lease = pool.checkout().unwrap();
    let mut parts = 0;
    let mut breaks = |part: &mut Vec<u8>| {
        part.extend_from_slice(b"7\n");
        parts += 1;
        if parts > 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    assert_eq!(lease.copy_in("COPY t FROM STDIN", &mut breaks).unwrap(), Streamed::Stopped);
    // At once, not with the next statement.
    is_quiet(&database, &pool);
    lease.begin().unwrap();
    lease.execute("INSERT INTO t VALUES (2)", &[]).unwrap();
    assert_eq!(
        lease.copy_in("COPY t FROM STDIN", &mut |_| ControlFlow::Break(())).unwrap(),
        Streamed::Stopped
    );
    assert!(lease.execute("INSERT INTO t VALUES (3)", &[]).is_err());
    assert!(matches!(lease.commit(), Err(QueryError::RolledBack)));
    let panics = thread::scope(|scope| {
        scope.spawn(|| lease.copy_in("COPY t FROM STDIN", &mut |_| panic!("the reader of a copy"))).join()
    });
    assert!(panics.is_err());
    drop(lease);
    is_quiet(&database, &pool);
    assert_eq!(cell(&pool.checkout().unwrap(), "SELECT sum(x)::bigint FROM t"), "1");
    let endless = "COPY (SELECT t.x, pg_sleep(0.001) FROM t, generate_series(1, 300000)) TO STDOUT";
    let lease = pool.checkout().unwrap();
    assert_eq!(lease.copy_out(endless, &mut |_| ControlFlow::Break(())).unwrap(), Streamed::Stopped);
    assert_eq!(cell(&lease, "SELECT 4"), "4");
    drop(lease);
    is_quiet(&database, &pool);
}

#[test]
fn a_copy_in_the_text_of_a_statement_is_refused_before_it_is_sent() {
    let (database, pool) = pool(1);
    let lease = pool.checkout().unwrap();
    for text in [
        "COPY t FROM STDIN",
        "copy t from stdin with (format csv)",
        "/* a /* b */ */ -- c\n COPY t (x) FROM/**/STDIN",
        "-- a\rCOPY t FROM STDIN",
        "COPY t TO STDOUT",
        "COPY (SELECT 1) TO\n\tstdout",
        "SELECT 1; COPY t FROM STDIN; SELECT 2",
        ";; COPY t FROM STDIN",
        "BEGIN; COPY t FROM STDIN; COMMIT",
    ] {
        let refused = [
            lease.batch_execute(text).err(),
            lease.execute(text, &[]).err(),
            lease.query(text, &[]).err(),
            lease.query_each(text, &[], &mut |_| ControlFlow::Continue(())).err(),
        ];
        for refused in refused {
            assert!(matches!(refused, Some(QueryError::CopyText)), "{text}: {refused:?}");
        }
    }
    // What only looks like one.
    for text in [
        "SELECT 'COPY t FROM STDIN' FROM t",
        "CREATE TABLE stdin (x bigint)",
        "COPY (SELECT x FROM stdin) TO '/dev/null'",
        "DROP TABLE stdin",
    ] {
        lease.batch_execute(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    }
    // The server refuses this one, as any other error.
    let inside = lease.batch_execute("DO $$ BEGIN COPY t FROM STDIN; END $$").unwrap_err();
    assert!(matches!(inside, QueryError::Database { .. }), "{inside}");
    drop(lease);
    assert_eq!(pool.status().connects, 1);
    is_quiet(&database, &pool);
}

/// The quotes of these texts mean something else to the server than by default, which hides the COPY.
#[test]
fn a_copy_that_comes_through_ends_its_connection_and_session() {
    let (database, pool) = pool(2);
    for text in ["SELECT '\\''; COPY t FROM STDIN; --'", "SELECT '\\''; COPY t TO STDOUT; --'"] {
        let lease = pool.checkout().unwrap();
        lease.batch_execute("SET standard_conforming_strings = off").unwrap();
        let broken = lease.batch_execute(text).unwrap_err();
        assert!(matches!(broken, QueryError::Lost { .. }), "{broken}");
        drop(lease);
        is_quiet(&database, &pool);
    }
    pool.close();
    eventually(SOON, "no session", || {
        let left = sessions(&database);
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
}

/// Threads of this process that drivers and pools have made for one connection or statement.
fn threads() -> Vec<String> {
    let of_all = std::fs::read_dir("/proc/self/task").unwrap().filter_map(|task| {
        std::fs::read_to_string(task.ok()?.path().join("comm")).ok().map(|name| name.trim().to_owned())
    });
    of_all.filter(|name| name.starts_with("db-") && name != "db-monitor").collect()
}

/// A process of its own, since others make threads here.
#[test]
fn no_class_of_errors_leaves_a_session_or_a_thread() {
    let this = std::env::current_exe().unwrap();
    let args = ["--exact", "db_endings::errors_of_every_class_leave_nothing", "--nocapture"];
    let output = Command::new(this).args(args).env("LEAVES_NOTHING", "1").output().unwrap();
    let words = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && words.contains("1 passed"),
        "{words}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Alone in its process; see above.
#[test]
fn errors_of_every_class_leave_nothing() {
    let (database, pool) = pool(3);
    for round in 0..3 {
        for fault in FAULTS {
            let lease = pool.checkout().unwrap();
            fault(&lease);
            drop(lease);
            is_quiet(&database, &pool);
            assert!(pool.status().open <= 3, "round {round}");
        }
    }
    if std::env::var_os("LEAVES_NOTHING").is_some() {
        eventually(SOON, "no thread", || match threads() {
            left if left.is_empty() => Ok(()),
            left => Err(format!("{left:?}")),
        });
    }
    pool.close();
    eventually(SOON, "no session", || {
        let left = sessions(&database);
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
}

/// Each leaves something behind, or tries to.
const FAULTS: &[fn(&Lease)] = &[
    |lease| drop(lease.query("SELECT 1 / 0", &[]).unwrap_err()),
    |lease| drop(lease.query("SELEC 1", &[]).unwrap_err()),
    |lease| drop(lease.query("SELECT $1::int", &[Value::Text("x")]).unwrap_err()),
    |lease| drop(lease.query("SELECT $1::int", &[]).unwrap_err()),
    |lease| drop(lease.query("SELECT '\0'", &[]).unwrap_err()),
    |lease| drop(lease.query("SELECT $1::text", &[Value::Text("\0")]).unwrap_err()),
    |lease| drop(lease.query("SELECT ROW(1, 2)::t", &[]).unwrap_err()),
    |lease| drop(lease.batch_execute("SET statement_timeout = 20; SELECT pg_sleep(30)").unwrap_err()),
    |lease| drop(lease.batch_execute("BEGIN; LOCK TABLE t; SELECT 1 / 0").unwrap_err()),
    |lease| lease.batch_execute("BEGIN; LOCK TABLE t").unwrap(),
    |lease| lease.batch_execute("SELECT pg_advisory_lock(1); LISTEN a; CREATE TEMP TABLE t (x int)").unwrap(),
    |lease| drop(lease.query("SELECT pg_terminate_backend(pg_backend_pid())", &[]).unwrap_err()),
    |lease| assert_eq!(take_one(lease, LONG).unwrap(), Streamed::Stopped),
    |lease| {
        lease.begin().unwrap();
        take_one(lease, LONG).unwrap();
    },
    |lease| {
        lease.begin().unwrap();
        lease.query("SELECT 1 / 0", &[]).unwrap_err();
        lease.commit().unwrap_err();
    },
    |lease| {
        lease.batch_execute("SET standard_conforming_strings = off").unwrap();
        lease.batch_execute("SELECT '\\''; COPY t FROM STDIN; --'").unwrap_err();
    },
    |lease| {
        lease.copy_in("COPY t FROM STDIN", &mut |_| ControlFlow::Break(())).unwrap();
    },
    |lease| {
        let mut parts = 0;
        let wrong = lease.copy_in("COPY t FROM STDIN", &mut |part: &mut Vec<u8>| {
            parts += 1;
            part.extend_from_slice(if parts < 9 { b"x\n" } else { b"" });
            ControlFlow::Continue(())
        });
        wrong.unwrap_err();
    },
    |lease| {
        thread::scope(|scope| {
            scope.spawn(|| lease.query_each(LONG, &[], &mut |_| panic!("a reader"))).join().unwrap_err();
        });
    },
];
