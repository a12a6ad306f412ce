//! What both database drivers promise, on real databases; then what is PostgreSQL's alone.
//!
//! Drives `host::db` directly. How a plugin reaches it is tested with plugins.

use std::path::Path;

use host::db::{Block, ConnectError, Lease, OpenError, Pool, PoolConfig, QueryError, SteadyConfig, Value};

use super::url;

/// A pool of up to `max_size` connections.
fn open(url: &str, max_size: u32) -> Pool {
    let config = PoolConfig { max_size, ..PoolConfig::default() };
    Pool::open(url, Path::new("/nowhere"), config).unwrap()
}

/// A pool on the throw-away cluster.
fn postgres(max_size: u32) -> Pool {
    open(&url(), max_size)
}

/// Runs `check` on SQLite and on PostgreSQL, each with an empty table `name (id, who, flag)`.
fn on_both(name: &str, check: impl Fn(&Pool)) {
    let data = tempfile::tempdir().unwrap();
    let sqlite = open(&format!("sqlite:{}/it.db", data.path().display()), 2);
    for pool in [sqlite, postgres(2)] {
        let lease = pool.checkout().unwrap();
        lease
            .batch_execute(&format!(
                "DROP TABLE IF EXISTS {name}; \
                 CREATE TABLE {name} (id integer PRIMARY KEY, who text NOT NULL, flag boolean)"
            ))
            .unwrap();
        drop(lease);
        check(&pool);
    }
}

/// The first cell of the first row, as text for comparing.
fn cell(lease: &Lease, sql: &str, params: &[Value<'_>]) -> String {
    let block = Block::parse(lease.query(sql, params).unwrap()).unwrap();
    match block.cell(0, 0).unwrap().unwrap() {
        Value::Text(text) => text.to_owned(),
        other => other.to_string(),
    }
}

fn sqlstate(error: &QueryError) -> &str {
    match error {
        QueryError::Database { sqlstate, .. } => sqlstate,
        other => panic!("no database error: {other}"),
    }
}

#[test]
fn statements_find_and_change_rows() {
    on_both("find_and_change", |pool| {
        let lease = pool.checkout().unwrap();
        let insert = "INSERT INTO find_and_change VALUES ($1, $2, $3)";
        for (id, who) in [(1, "ada"), (2, "gr\u{fc}n")] {
            let params = [Value::Int(id), Value::Text(who), Value::Bool(id == 1)];
            assert_eq!(lease.execute(insert, &params).unwrap(), 1);
        }
        let block =
            lease.query("SELECT who, id FROM find_and_change WHERE id >= $1 ORDER BY id", &[Value::Int(1)]);
        let block = Block::parse(block.unwrap()).unwrap();
        assert_eq!((block.rows(), block.columns()), (2, 2));
        assert_eq!(block.column(0).unwrap().0, "who");
        assert_eq!(block.cell(1, 0), Some(Ok(Value::Text("gr\u{fc}n"))));
        assert_eq!(block.cell(1, 1), Some(Ok(Value::Int(2))));
        assert_eq!(lease.execute("UPDATE find_and_change SET flag = $1", &[Value::Null]).unwrap(), 2);
        assert_eq!(cell(&lease, "SELECT flag FROM find_and_change", &[]), "NULL");
        assert_eq!(
            cell(&lease, "SELECT count(*) FROM find_and_change WHERE id = $1 OR id = $1", &[Value::Int(2)]),
            "1"
        );
    });
}

#[test]
fn failures_carry_the_sqlstate() {
    on_both("sqlstates", |pool| {
        let lease = pool.checkout().unwrap();
        let insert = "INSERT INTO sqlstates (id, who) VALUES ($1, $2)";
        lease.execute(insert, &[Value::Int(1), Value::Text("a")]).unwrap();
        let twice = lease.execute(insert, &[Value::Int(1), Value::Text("a")]).unwrap_err();
        assert_eq!(sqlstate(&twice), "23505");
        let null = lease.execute(insert, &[Value::Int(2), Value::Null]).unwrap_err();
        assert_eq!(sqlstate(&null), "23502");
        assert!(matches!(lease.query("SELEC 1", &[]), Err(QueryError::Database { .. })));
        // The connection is none the worse for it.
        drop(lease);
        assert_eq!(pool.status().closes, 0);
    });
}

#[test]
fn a_text_without_a_statement_is_refused_and_a_batch_of_none_is_done() {
    on_both("without_a_statement", |pool| {
        let lease = pool.checkout().unwrap();
        for text in ["", " \n", ";", "-- nothing", "/* nothing */ ;"] {
            assert!(matches!(lease.query(text, &[]), Err(QueryError::Blank)), "{text}");
            assert!(matches!(lease.execute(text, &[]), Err(QueryError::Blank)), "{text}");
            lease.batch_execute(text).unwrap();
        }
        assert_eq!(cell(&lease, "/* one */ SELECT 1", &[]), "1");
    });
}

#[test]
fn a_wrong_number_of_parameters_is_refused() {
    on_both("parameter_count", |pool| {
        let lease = pool.checkout().unwrap();
        for params in [&[][..], &[Value::Int(1), Value::Int(2)]] {
            let error = lease.query("SELECT who FROM parameter_count WHERE id = $1", params).unwrap_err();
            let QueryError::ParameterCount { expected: 1, given } = error else { panic!("{error}") };
            assert_eq!(given, params.len());
        }
    });
}

#[test]
fn a_commit_keeps_and_a_rollback_undoes_at_every_depth() {
    on_both("depths", |pool| {
        let lease = pool.checkout().unwrap();
        let insert =
            |id| lease.execute("INSERT INTO depths (id, who) VALUES ($1, 'x')", &[Value::Int(id)]).unwrap();
        lease.begin().unwrap();
        insert(1);
        lease.begin().unwrap();
        insert(2);
        lease.rollback().unwrap();
        lease.begin().unwrap();
        insert(3);
        lease.commit().unwrap();
        lease.commit().unwrap();
        lease.begin().unwrap();
        insert(4);
        lease.rollback().unwrap();
        assert_eq!(cell(&lease, "SELECT sum(id) FROM depths", &[]), "4");
        assert!(matches!(lease.commit(), Err(QueryError::NoTransaction)));
        assert!(matches!(lease.rollback(), Err(QueryError::NoTransaction)));
    });
}

#[test]
fn an_open_transaction_never_reaches_the_next_borrower() {
    on_both("left_open", |pool| {
        let lease = pool.checkout().unwrap();
        lease.begin().unwrap();
        lease.begin().unwrap();
        lease.execute("INSERT INTO left_open (id, who) VALUES (1, 'x')", &[]).unwrap();
        drop(lease);
        // Begun by text, which the host does not count.
        let lease = pool.checkout().unwrap();
        lease.batch_execute("BEGIN; INSERT INTO left_open (id, who) VALUES (2, 'x')").unwrap();
        drop(lease);
        let lease = pool.checkout().unwrap();
        assert_eq!(cell(&lease, "SELECT count(*) FROM left_open", &[]), "0");
        lease.begin().unwrap();
        lease.commit().unwrap();
    });
}

#[test]
fn a_text_cannot_end_a_transaction_behind_its_back() {
    on_both("behind_its_back", |pool| {
        let lease = pool.checkout().unwrap();
        lease.begin().unwrap();
        for text in ["COMMIT", "SELECT 1; ROLLBACK", "BEGIN", "/* x */ END"] {
            assert!(matches!(lease.batch_execute(text), Err(QueryError::TransactionText)), "{text}");
            if !text.contains(';') {
                assert!(matches!(lease.execute(text, &[]), Err(QueryError::TransactionText)), "{text}");
            }
        }
        lease.batch_execute("SAVEPOINT mine; ROLLBACK TO mine; RELEASE mine").unwrap();
        lease.commit().unwrap();
    });
}

#[test]
fn temporary_tables_never_reach_the_next_borrower() {
    on_both("temporaries", |pool| {
        let lease = pool.checkout().unwrap();
        lease.execute("CREATE TEMP TABLE leftover (a integer)", &[]).unwrap();
        lease.execute("INSERT INTO leftover VALUES ($1)", &[Value::Int(1)]).unwrap();
        drop(lease);
        let lease = pool.checkout().unwrap();
        assert!(matches!(lease.query("SELECT * FROM leftover", &[]), Err(QueryError::Database { .. })));
        drop(lease);
    });
}

#[test]
fn one_connection_serves_many_borrowers() {
    let pool = postgres(4);
    let pid = |lease: &Lease| cell(lease, "SELECT pg_backend_pid()", &[]);
    let first = pid(&pool.checkout().unwrap());
    for _ in 0..20 {
        assert_eq!(pid(&pool.checkout().unwrap()), first);
    }
    let status = pool.status();
    assert_eq!((status.connects, status.closes), (1, 0));
    assert_eq!(status.backends, [first.parse::<u64>().unwrap()]);
}

#[test]
fn settings_and_locks_never_reach_the_next_borrower() {
    let pool = postgres(1);
    let default = cell(&pool.checkout().unwrap(), "SHOW search_path", &[]);
    let pid = cell(&pool.checkout().unwrap(), "SELECT pg_backend_pid()", &[]);
    for text in [
        "SET search_path = elsewhere",
        "SELECT 1; SET search_path = elsewhere",
        "SELECT set_config('search_path', 'elsewhere', false)",
        "DO $$ BEGIN SET search_path = elsewhere; END $$",
        "BEGIN; SET search_path = elsewhere; COMMIT",
    ] {
        pool.checkout().unwrap().batch_execute(text).unwrap();
        let lease = pool.checkout().unwrap();
        assert_eq!(cell(&lease, "SHOW search_path", &[]), default, "{text}");
        assert_eq!(cell(&lease, "SHOW application_name", &[]), "host");
    }
    let lease = pool.checkout().unwrap();
    cell(&lease, "SELECT pg_advisory_lock(4711)::text", &[]);
    drop(lease);
    let lease = pool.checkout().unwrap();
    assert_eq!(cell(&lease, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'", &[]), "0");
    // All that without a new connection.
    assert_eq!(cell(&lease, "SELECT pg_backend_pid()", &[]), pid);
    lease.batch_execute("PREPARE leftover AS SELECT 1").unwrap();
    drop(lease);
    let lease = pool.checkout().unwrap();
    assert_eq!(cell(&lease, "SELECT count(*) FROM pg_prepared_statements WHERE from_sql", &[]), "0");
    drop(lease);
}

#[test]
fn a_commit_that_became_a_rollback_is_an_error() {
    let pool = postgres(1);
    let lease = pool.checkout().unwrap();
    lease.batch_execute("DROP TABLE IF EXISTS swallowed; CREATE TABLE swallowed (a int)").unwrap();
    let insert = || lease.execute("INSERT INTO swallowed VALUES (1)", &[]).unwrap();
    lease.begin().unwrap();
    insert();
    lease.execute("SELECT 1/0", &[]).unwrap_err();
    assert!(matches!(lease.commit(), Err(QueryError::RolledBack)));
    assert_eq!(cell(&lease, "SELECT count(*) FROM swallowed", &[]), "0");
    // A savepoint that is spoilt leaves the transaction around it whole.
    lease.begin().unwrap();
    insert();
    lease.begin().unwrap();
    lease.execute("SELECT 1/0", &[]).unwrap_err();
    assert!(matches!(lease.commit(), Err(QueryError::RolledBack)));
    lease.commit().unwrap();
    assert_eq!(cell(&lease, "SELECT count(*) FROM swallowed", &[]), "1");
}

#[test]
fn a_constraint_that_fails_at_commit_says_which() {
    let pool = postgres(1);
    let lease = pool.checkout().unwrap();
    lease
        .batch_execute(
            "DROP TABLE IF EXISTS late; CREATE TABLE late (a int UNIQUE DEFERRABLE INITIALLY DEFERRED)",
        )
        .unwrap();
    lease.begin().unwrap();
    lease.execute("INSERT INTO late VALUES (1), (1)", &[]).unwrap();
    assert_eq!(sqlstate(&lease.commit().unwrap_err()), "23505");
    assert_eq!(cell(&lease, "SELECT count(*) FROM late", &[]), "0");
}

#[test]
fn values_are_printed_as_the_server_prints_them() {
    let pool = postgres(1);
    let lease = pool.checkout().unwrap();
    lease
        .batch_execute("SET TimeZone = 'UTC'; SET DateStyle = 'ISO'; SET IntervalStyle = 'postgres'")
        .unwrap();
    for value in [
        "0::numeric",
        "-0.5::numeric",
        "12345678901234567890.000100::numeric",
        "0.00000001234::numeric",
        "1e30::numeric",
        "10000::numeric",
        "1e-20::numeric",
        "'NaN'::numeric",
        "'-Infinity'::numeric",
        "100.00::numeric(10,2)",
        "0.0000::numeric",
        "9999.9999::numeric",
        "'2024-02-29'::date",
        "'1999-12-31'::date",
        "'0044-03-15 BC'::date",
        "'infinity'::date",
        "'294276-12-31 23:59:59.999999'::timestamp",
        "'2000-01-01'::timestamp",
        "'1969-07-20 20:17:40.5'::timestamp",
        "'0001-01-01 00:00:00 BC'::timestamp",
        "'-infinity'::timestamp",
        "'2024-05-06 07:08:09.010203+02'::timestamptz",
        "'infinity'::timestamptz",
        "'24:00:00'::time",
        "'00:00:00.000001'::time",
        "'1 year 2 mons -3 days 04:05:06.789'::interval",
        "'-1 year -1 day'::interval",
        "'0'::interval",
        "'-00:00:01.5'::interval",
        "'-1 day 10:00'::interval",
        "'1 mon'::interval",
        "'100 hours'::interval",
        "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid",
        "'{\"a\": [1, null]}'::jsonb",
        "'{\"a\":  1}'::json",
        "'x'::char(3)",
        "'n'::name",
        "'c'::\"char\"",
    ] {
        let expected = cell(&lease, &format!("SELECT ({value})::text"), &[]);
        let found = cell(&lease, &format!("SELECT {value}"), &[]);
        // `text` strips the padding of `char(n)`; the value itself has it.
        assert_eq!(found.trim_end(), expected.trim_end(), "{value}");
    }
    assert_eq!(cell(&lease, "SELECT 2.5::float4", &[]), "2.5");
    assert_eq!(cell(&lease, "SELECT 4294967295::oid", &[]), "4294967295");
    assert_eq!(cell(&lease, "SELECT true", &[]), "true");
    assert_eq!(cell(&lease, "SELECT '\\x00ff'::bytea", &[]), "2 bytes");
}

#[test]
fn text_becomes_what_its_column_is() {
    let pool = postgres(1);
    let lease = pool.checkout().unwrap();
    lease.batch_execute("DROP TYPE IF EXISTS mood; CREATE TYPE mood AS ENUM ('calm', 'glad')").unwrap();
    lease
        .batch_execute("DROP DOMAIN IF EXISTS small; CREATE DOMAIN small AS int2 CHECK (VALUE < 100)")
        .unwrap();
    for (ty, text) in [
        ("date", "2024-02-29"),
        ("uuid", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
        ("jsonb", "{\"a\": 1}"),
        ("numeric", "1.10"),
        ("mood", "glad"),
        ("int4", "42"),
        ("timestamptz", "2024-01-01 00:00:00+00"),
        ("interval", "1 day"),
        ("text", "it's"),
    ] {
        assert_eq!(cell(&lease, &format!("SELECT $1::{ty}"), &[Value::Text(text)]), text, "{ty}");
    }
    assert_eq!(cell(&lease, "SELECT $1::small", &[Value::Int(42)]), "42");
    assert_eq!(cell(&lease, "SELECT $1::numeric", &[Value::Int(-7)]), "-7");
    assert_eq!(cell(&lease, "SELECT $1::numeric", &[Value::Float(f64::INFINITY)]), "Infinity");
    assert_eq!(cell(&lease, "SELECT length($1::bytea)", &[Value::Bytes(&[0, 1, 2])]), "3");
    let error = lease.query("SELECT $1::date", &[Value::Text("not a date")]).unwrap_err();
    assert_eq!(sqlstate(&error), "22007");
    let error = lease.query("SELECT $1::int2", &[Value::Int(70_000)]).unwrap_err();
    assert_eq!(error.to_string(), "parameter $1: 70000 does not fit int2");
}

#[test]
fn a_stale_statement_is_prepared_afresh_outside_of_a_transaction() {
    let pool = postgres(1);
    let lease = pool.checkout().unwrap();
    lease
        .batch_execute("DROP TABLE IF EXISTS grows; CREATE TABLE grows (a int); INSERT INTO grows VALUES (1)")
        .unwrap();
    let columns = || Block::parse(lease.query("SELECT * FROM grows", &[]).unwrap()).unwrap().columns();
    assert_eq!(columns(), 1);
    lease.batch_execute("ALTER TABLE grows ADD b int").unwrap();
    assert_eq!(columns(), 2);
    // Nothing is lost with a transaction of which it is the first statement.
    lease.batch_execute("ALTER TABLE grows ADD c int").unwrap();
    lease.begin().unwrap();
    assert_eq!(columns(), 3);
    lease.rollback().unwrap();
    // Later the error has spoilt it already; afterwards all is well.
    lease.batch_execute("ALTER TABLE grows DROP c").unwrap();
    lease.begin().unwrap();
    lease.query("SELECT 1", &[]).unwrap();
    let stale = lease.query("SELECT * FROM grows", &[]).unwrap_err();
    assert!(matches!(&stale, QueryError::Stale { sqlstate, .. } if sqlstate == "0A000"), "{stale}");
    lease.rollback().unwrap();
    assert_eq!(columns(), 2);
    lease.batch_execute("DEALLOCATE ALL").unwrap();
    assert_eq!(columns(), 2);
}

#[test]
fn the_statement_cache_is_bounded() {
    let pool = postgres(1);
    let lease = pool.checkout().unwrap();
    for number in 0..300 {
        assert_eq!(cell(&lease, &format!("SELECT {number}"), &[]), number.to_string());
    }
    let kept: u32 = cell(&lease, "SELECT count(*) FROM pg_prepared_statements", &[]).parse().unwrap();
    assert!(kept <= 129, "{kept}");
}

#[test]
fn a_killed_connection_is_discarded_and_one_killed_while_idle_replaced_unseen() {
    let pool = Pool::open(
        &url(),
        Path::new("/nowhere"),
        PoolConfig {
            max_size: 2,
            steady: SteadyConfig { ping_after: std::time::Duration::ZERO, ..SteadyConfig::default() },
            ..PoolConfig::default()
        },
    )
    .unwrap();
    let killer = postgres(1).checkout().unwrap();
    let kill = |pid: u64| {
        let pid = Value::Int(i64::try_from(pid).unwrap());
        assert_eq!(cell(&killer, "SELECT pg_terminate_backend($1::int, 5000)", &[pid]), "true");
    };
    let lease = pool.checkout().unwrap();
    kill(lease.backend_id().unwrap().unwrap());
    let error = lease.query("SELECT 1", &[]).unwrap_err();
    assert!(matches!(error, QueryError::Lost { .. }), "{error}");
    drop(lease);
    assert_eq!(pool.status().open, 0);
    let pid = pool.checkout().unwrap().backend_id().unwrap().unwrap();
    kill(pid);
    let lease = pool.checkout().unwrap();
    assert_ne!(lease.backend_id().unwrap(), Some(pid));
    assert_eq!(cell(&lease, "SELECT 1", &[]), "1");
}

#[test]
fn an_address_nobody_listens_at_shows_at_once_and_without_its_password() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("postgres://ada:s3cret@{free}/x");
    let error = Pool::open(&url, Path::new("/nowhere"), PoolConfig::default()).unwrap_err();
    assert!(matches!(error, OpenError::Connect(ConnectError::Unreachable { sqlstate: None, .. })), "{error}");
    assert!(
        error.to_string().contains(&free.to_string()) && !error.to_string().contains("s3cret"),
        "{error}"
    );
}

#[test]
fn threads_share_a_pool_of_real_connections() {
    let pool = postgres(3);
    let lease = pool.checkout().unwrap();
    lease
        .batch_execute("DROP TABLE IF EXISTS tally; CREATE TABLE tally (n int); INSERT INTO tally VALUES (0)")
        .unwrap();
    drop(lease);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..25 {
                    let lease = pool.checkout().unwrap();
                    lease.begin().unwrap();
                    lease.execute("UPDATE tally SET n = n + $1", &[Value::Int(1)]).unwrap();
                    lease.commit().unwrap();
                }
            });
        }
    });
    assert_eq!(cell(&pool.checkout().unwrap(), "SELECT n FROM tally", &[]), "200");
    assert!(pool.status().connects <= 3);
}
