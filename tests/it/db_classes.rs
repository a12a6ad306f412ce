//! Facts about statements that fail: what they cost others, what is tried again, and what a lost connection has done.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use host::db::{Block, CheckoutError, Lease, Ping, Pool, PoolConfig, QueryError, SteadyConfig, Value};
use host::tx::{CommitError, Ending, Rule, Scope};
use tests::Cluster;
use tests::wait::{SOON, eventually};

const OK: Ending = Ending::Answered { status: 200 };

fn open(url: &str, config: PoolConfig) -> Pool {
    Pool::open(url, Path::new("/nowhere"), config).unwrap()
}

/// A pool on a database of its own, which has run `setup`.
fn pool(setup: &str, max_size: u32) -> (String, Pool) {
    let cluster = Cluster::shared();
    let database = cluster.create_database();
    cluster.connect(&database).batch_execute(setup).unwrap();
    let pool = open(&cluster.url(&database), PoolConfig { max_size, ..PoolConfig::default() });
    (database, pool)
}

fn text(block: Vec<u8>) -> String {
    let block = Block::parse(block).unwrap();
    match block.cell(0, 0).unwrap().unwrap() {
        Value::Text(text) => text.to_owned(),
        other => other.to_string(),
    }
}

fn cell(lease: &Lease, sql: &str, params: &[Value<'_>]) -> String {
    text(lease.query(sql, params).unwrap_or_else(|error| panic!("{sql}: {error}")))
}

/// One author's request, whatever it asks for.
#[test]
fn a_statement_that_cannot_be_sent_costs_nobody_a_connection() {
    let (_, pool) = pool("CREATE TABLE t (x bytea)", 3);
    let leases: Vec<Lease> = (0..3).map(|_| pool.checkout().unwrap()).collect();
    leases.iter().for_each(|lease| assert_eq!(cell(lease, "SELECT 1", &[]), "1"));
    let backends = |pool: &Pool| {
        let mut backends = pool.status().backends;
        backends.sort_unstable();
        backends
    };
    let before = backends(&pool);
    let lease = leases.into_iter().next().unwrap();
    let many = vec![Value::Int(1); 65_536];
    let huge = "x".repeat(1 << 30);
    for outcome in [
        lease.query("SELECT $1::int", &many).err(),
        lease.query("SELECT $65536::int", &[Value::Int(1)]).err(),
        lease.execute("SELECT $70000::int", &many).err(),
        lease.query("SELECT length($1)", &[Value::Text(&huge)]).err(),
        lease.execute("INSERT INTO t VALUES ($1)", &[Value::Bytes(huge.as_bytes())]).err(),
        lease.batch_execute(&format!("SELECT '{huge}'")).err(),
        lease.query(&format!("SELECT '{huge}'"), &[]).err(),
    ] {
        assert!(matches!(outcome, Some(QueryError::Unsendable { .. })), "{outcome:?}");
    }
    let most = vec![Value::Int(1); 65_535];
    let all: Vec<String> = (1..=65_535).map(|number| format!("(${number}::int)")).collect();
    let sum = format!("SELECT sum(x)::bigint FROM (VALUES {}) v (x)", all.join(","));
    assert_eq!(cell(&lease, &sum, &most), "65535");
    let name = "n".repeat(100_000);
    for outcome in [
        lease.query(&format!("SELECT 1 FROM {name}"), &[]).err(),
        lease.query("SELECT '\0'", &[]).err(),
        lease.batch_execute("SELECT '\0'").err(),
        lease.query("SELECT $1::text", &[Value::Text("\0")]).err(),
        lease.query("SELECT repeat('x', 1073741824)", &[]).err(),
        lease.query(&format!("SELECT {}1{}", "(".repeat(20_000), ")".repeat(20_000)), &[]).err(),
        lease.batch_execute("SET statement_timeout = 20; SELECT pg_sleep(30)").err(),
        lease.query("SELECT 1::int2 + 70000::int2", &[]).err(),
    ] {
        assert!(matches!(outcome, Some(QueryError::Database { .. })), "{outcome:?}");
    }
    drop(lease);
    assert_eq!(backends(&pool), before);
    for _ in 0..3 {
        assert_eq!(cell(&pool.checkout().unwrap(), "SELECT 2", &[]), "2");
    }
    assert_eq!((backends(&pool), pool.status().connects), (before, 3));
}

#[test]
fn one_session_that_ends_costs_no_other_one() {
    let (_, pool) = pool("", 3);
    let leases: Vec<Lease> = (0..3).map(|_| pool.checkout().unwrap()).collect();
    let lost = leases[0].query("SELECT pg_terminate_backend(pg_backend_pid())", &[]).unwrap_err();
    assert!(matches!(&lost, QueryError::Lost { sqlstate, .. } if sqlstate == "57P01"), "{lost:?}");
    drop(leases);
    let leases: Vec<Lease> = (0..3).map(|_| pool.checkout().unwrap()).collect();
    leases.iter().for_each(|lease| assert_eq!(cell(lease, "SELECT 1", &[]), "1"));
    assert_eq!(pool.status().connects, 4);
}

const CHANGES: &str = "CREATE TABLE t (x int, e text); INSERT INTO t VALUES (1, 'a'); \
                       CREATE TYPE mood AS ENUM ('a', 'b'); CREATE TABLE moods (m mood); INSERT INTO moods VALUES ('a')";

/// A statement that is known, a change from outside, and the same statement again with a value of the new type.
#[test]
fn a_column_that_changes_its_type_is_seen_by_the_next_statement() {
    let wide = Value::Int(3_000_000_000);
    let cases: &[(&str, Value<'_>, &str, Value<'_>, &str)] = &[
        (
            "INSERT INTO t (x) VALUES ($1) RETURNING x",
            Value::Int(1),
            "ALTER TABLE t ALTER x TYPE bigint",
            wide,
            "3000000000",
        ),
        (
            "SELECT count(*) FROM t WHERE x = $1",
            Value::Int(1),
            "ALTER TABLE t ALTER x TYPE bigint",
            wide,
            "0",
        ),
        (
            "SELECT x FROM t WHERE x = $1",
            Value::Int(1),
            "ALTER TABLE t ALTER x TYPE text",
            Value::Text("1"),
            "1",
        ),
        (
            "SELECT count(*) FROM t WHERE x = $1",
            Value::Int(1),
            "ALTER TABLE t ALTER x TYPE text",
            Value::Text("1"),
            "1",
        ),
        (
            "INSERT INTO t (x) VALUES ($1) RETURNING x",
            Value::Int(1),
            "ALTER TABLE t ALTER x TYPE text",
            Value::Text("z"),
            "z",
        ),
        ("SELECT * FROM t WHERE e = $1", Value::Text("a"), "ALTER TABLE t DROP x", Value::Text("a"), "a"),
        ("SELECT m FROM moods WHERE m = $1", Value::Text("a"), NEW_MOOD, Value::Text("c"), "c"),
        ("INSERT INTO moods VALUES ($1) RETURNING m", Value::Text("a"), NEW_MOOD, Value::Text("c"), "c"),
    ];
    for begins in [false, true] {
        for (sql, before, change, after, expected) in cases {
            let (database, pool) = pool(CHANGES, 1);
            let lease = pool.checkout().unwrap();
            lease.query(sql, &[*before]).unwrap();
            Cluster::shared().connect(&database).batch_execute(change).unwrap();
            let scope = std::sync::Arc::new(Scope::default());
            let found = if begins {
                drop(lease);
                let joined = scope.join(&pool, Rule::Answers).unwrap();
                let found = joined.run(|lease| lease.query(sql, &[*after]));
                let found = text(found.unwrap_or_else(|error| panic!("{sql} after {change}: {error}")));
                scope.conclude(OK).unwrap();
                found
            } else {
                cell(&lease, sql, &[*after])
            };
            assert_eq!(found, *expected, "{sql} after {change}");
            assert_eq!(pool.status().connects, 1);
        }
    }
}

const NEW_MOOD: &str = "ALTER TABLE moods ALTER m TYPE text; DROP TYPE mood; CREATE TYPE mood AS ENUM ('c', 'd'); \
                        UPDATE moods SET m = 'c'; ALTER TABLE moods ALTER m TYPE mood USING m::mood";

/// Its own error is told, nothing runs twice, and a transaction that has failed stays failed.
#[test]
fn a_statement_that_fails_for_itself_is_not_run_again() {
    let (database, pool) = pool("CREATE TABLE t (x int); CREATE SEQUENCE s", 1);
    let lease = pool.checkout().unwrap();
    let sql = "SELECT nextval('s')::int / $1::text::int";
    assert_eq!(cell(&lease, sql, &[Value::Text("1")]), "1");
    for value in ["x", "0"] {
        assert!(matches!(lease.query(sql, &[Value::Text(value)]), Err(QueryError::Database { .. })));
    }
    let used: i64 =
        Cluster::shared().connect(&database).query_one("SELECT last_value FROM s", &[]).unwrap().get(0);
    assert!(used <= 3, "{used}");
    lease.begin().unwrap();
    assert!(lease.query(sql, &[Value::Text("x")]).is_err());
    assert!(lease.execute("INSERT INTO t VALUES (1)", &[]).is_err());
    assert!(matches!(lease.commit(), Err(QueryError::RolledBack)));
    // In the middle of a transaction something would be lost; the next one finds it prepared again.
    lease.query("SELECT x FROM t", &[]).unwrap();
    lease.begin().unwrap();
    lease.execute("INSERT INTO t VALUES (2)", &[]).unwrap();
    lease.batch_execute("ALTER TABLE t ALTER x TYPE bigint").unwrap();
    let stale = lease.query("SELECT x FROM t", &[]).unwrap_err();
    assert!(matches!(&stale, QueryError::Stale { sqlstate, .. } if sqlstate == "0A000"), "{stale:?}");
    assert!(matches!(lease.commit(), Err(QueryError::RolledBack)));
    assert_eq!(cell(&lease, "SELECT count(*) FROM t", &[]), "0");
}

/// The same statement in a handler that may run again.
#[test]
fn a_stale_statement_in_the_middle_of_a_transaction_is_one_to_run_again() {
    let (database, pool) = pool("CREATE TABLE t (x int); INSERT INTO t VALUES (1)", 1);
    pool.checkout().unwrap().query("SELECT * FROM t", &[]).unwrap();
    let scope = std::sync::Arc::new(Scope::default());
    let joined = scope.join(&pool, Rule::Answers).unwrap();
    joined.run(|lease| lease.query("SELECT 1", &[])).unwrap();
    Cluster::shared().connect(&database).batch_execute("ALTER TABLE t ADD y int").unwrap();
    assert!(joined.run(|lease| lease.query("SELECT * FROM t", &[])).is_err());
    assert!(scope.was_serialisation_failure());
    scope.conclude(Ending::Failed).unwrap();
    scope.begin_again().unwrap();
    let joined = scope.join(&pool, Rule::Answers).unwrap();
    joined.run(|lease| lease.query("SELECT * FROM t", &[])).unwrap();
    scope.conclude(OK).unwrap();
}

fn kill_all(database: &str) {
    let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 AND pid <> pg_backend_pid()";
    let mut client = Cluster::shared().connect(database);
    client.query(sql, &[&database]).unwrap();
    eventually(SOON, "the sessions to end", || {
        let left =
            client.query(&sql.replace("pg_terminate_backend(pid)", "pid"), &[&database]).unwrap().len();
        if left == 0 { Ok(()) } else { Err(left) }
    });
}

#[test]
fn a_connection_lost_before_the_commit_is_sent_has_stored_nothing() {
    let (database, pool) = pool("CREATE TABLE t (x int)", 1);
    for (statement, savepoint) in [
        ("INSERT INTO t VALUES (1)", false),
        ("SELECT count(*) FROM t", false),
        ("INSERT INTO t VALUES (1)", true),
    ] {
        let scope = std::sync::Arc::new(Scope::default());
        let joined = scope.join(&pool, Rule::Answers).unwrap();
        joined.run(|lease| lease.query(statement, &[])).unwrap();
        if savepoint {
            joined.begin().unwrap();
        }
        kill_all(&database);
        let error = scope.conclude(OK).unwrap_err();
        assert!(matches!(error, CommitError::Lost { committed: 0, .. }), "{statement}: {error:?}");
        assert!(error.is_nothing_kept() && error.is_passing());
    }
    assert_eq!(cell(&pool.checkout().unwrap(), "SELECT count(*) FROM t", &[]), "0");
}

/// Connections that are lent out come back, so a checkout waits for them, and for room.
#[test]
fn a_server_without_room_is_waited_for() {
    let cluster = Cluster::shared();
    let database = cluster.create_database();
    let role = format!("few_{database}");
    cluster
        .connect(&database)
        .batch_execute(&format!("CREATE ROLE {role} LOGIN CONNECTION LIMIT 2"))
        .unwrap();
    let url = cluster.url(&database).replace("postgres@", &format!("{role}@"));
    let config = |timeout| PoolConfig { max_size: 5, checkout_timeout: timeout, ..PoolConfig::default() };
    // For room that others make.
    let other = open(&url, PoolConfig { max_size: 1, ..config(SOON) });
    let pool = open(&url, config(SOON));
    let lease = pool.checkout().unwrap();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| cell(&pool.checkout().unwrap(), "SELECT 1", &[]));
        eventually(SOON, "it to wait", || if pool.status().waiting > 0 { Ok(()) } else { Err("none") });
        drop(other);
        assert_eq!(waiting.join().unwrap(), "1");
    });
    drop(lease);
    // And for connections of its own.
    let held = [(); 2].map(|()| pool.checkout().unwrap());
    let begun = Instant::now();
    let full = pool.checkout_timeout(Duration::from_millis(150)).unwrap_err();
    assert!(matches!(full, CheckoutError::Full { .. }), "{full}");
    assert!(begun.elapsed() >= Duration::from_millis(150));
    assert!(!pool.status().is_down);
    let [first, _second] = held;
    thread::scope(|scope| {
        let waiting: Vec<_> =
            (0..6).map(|_| scope.spawn(|| cell(&pool.checkout().unwrap(), "SELECT 1", &[]))).collect();
        eventually(SOON, "them to wait", || if pool.status().waiting > 0 { Ok(()) } else { Err("none") });
        drop(first);
        for one in waiting {
            assert_eq!(one.join().unwrap(), "1");
        }
    });
}

#[test]
fn a_server_that_can_be_written_no_more_loses_its_connections() {
    let cluster = Cluster::private();
    let second = Cluster::private();
    let url = format!(
        "postgres://postgres@127.0.0.1:{},127.0.0.1:{}/postgres?target_session_attrs=read-write",
        cluster.port(),
        second.port()
    );
    for server in [&cluster, &second] {
        server.connect("postgres").batch_execute("CREATE TABLE t (x int)").unwrap();
    }
    let steady = SteadyConfig { ping: Ping::NEVER, ..SteadyConfig::default() };
    let pool = open(&url, PoolConfig { max_size: 2, steady, ..PoolConfig::default() });
    let port = |lease: &Lease| cell(lease, "SHOW port", &[]);
    let leases = [(); 2].map(|()| pool.checkout().unwrap());
    assert_eq!(port(&leases[0]), cluster.port().to_string());
    // By the author's own wish nothing is wrong.
    leases[0].batch_execute("BEGIN READ ONLY").unwrap();
    let own = leases[0].execute("INSERT INTO t VALUES (1)", &[]).unwrap_err();
    assert!(matches!(own, QueryError::Database { .. }), "{own}");
    leases[0].batch_execute("ROLLBACK").unwrap();
    let mut client = cluster.connect("postgres");
    for sql in ["ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()"] {
        client.batch_execute(sql).unwrap();
    }
    eventually(SOON, "the first server to be read-only", || {
        match cell(&leases[1], "SHOW transaction_read_only", &[]).as_str() {
            "on" => Ok(()),
            other => Err(other.to_owned()),
        }
    });
    let refused = leases[1].execute("INSERT INTO t VALUES (1)", &[]).unwrap_err();
    assert!(matches!(&refused, QueryError::Lost { sqlstate, .. } if sqlstate == "25006"), "{refused:?}");
    drop(leases);
    for _ in 0..4 {
        let leases = [(); 2].map(|()| pool.checkout().unwrap());
        for lease in &leases {
            lease.execute("INSERT INTO t VALUES (1)", &[]).unwrap();
            assert_eq!(port(lease), second.port().to_string());
        }
    }
}

#[test]
fn an_error_names_what_it_is_about() {
    let (_, pool) =
        pool("CREATE TABLE t (x int CONSTRAINT positive CHECK (x > 0), y int NOT NULL UNIQUE)", 1);
    let lease = pool.checkout().unwrap();
    let details = |sql: &str| match lease.execute(sql, &[]).unwrap_err() {
        QueryError::Database { details, .. } => *details.unwrap(),
        other => panic!("{other}"),
    };
    let check = details("INSERT INTO t VALUES (0, 1)");
    assert_eq!(
        (check.constraint.as_deref(), check.table.as_deref(), check.schema.as_deref()),
        (Some("positive"), Some("t"), Some("public"))
    );
    let null = details("INSERT INTO t VALUES (1, NULL)");
    assert_eq!(null.column.as_deref(), Some("y"));
    lease.execute("INSERT INTO t VALUES (1, 1)", &[]).unwrap();
    let unique = details("INSERT INTO t VALUES (1, 1)");
    assert_eq!(unique.detail.as_deref(), Some("Key (y)=(1) already exists."));
    let unknown = details("SELECT z FROM t");
    assert_eq!((unknown.position, unknown.hint), (Some(8), None));
    assert!(details("SELECT yy FROM t").hint.is_some());
}
