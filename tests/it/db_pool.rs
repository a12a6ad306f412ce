//! What a pool promises, on real databases: what the fake driver cannot show.
//!
//! What is left behind in a session, sharing, and threads are the same for both; restarts and settings
//! are PostgreSQL's.

use std::path::Path;
use std::thread;
use std::time::Duration;

use host::db::{
    Block, CheckoutError, How, Lease, Persistent, Ping, Pool, PoolConfig, QueryError, ResetPolicy, Steady,
    SteadyConfig, Value,
};
use tests::Cluster;
use tests::wait::{SOON, eventually};

fn nowhere() -> &'static Path {
    Path::new("/nowhere")
}

/// A pool on a database of its own.
fn postgres(cluster: &Cluster, config: PoolConfig) -> Pool {
    let database = cluster.create_database();
    Pool::open(&cluster.url(&database), nowhere(), config).unwrap()
}

/// The first cell of the first row, as text.
fn cell(lease: &Lease, sql: &str) -> String {
    let block = Block::parse(lease.query(sql, &[]).unwrap()).unwrap();
    match block.cell(0, 0).unwrap().unwrap() {
        Value::Text(text) => text.to_owned(),
        other => other.to_string(),
    }
}

/// Runs `check` on a pool of SQLite's and on one of PostgreSQL's.
fn on_both(config: PoolConfig, check: impl Fn(&Pool)) {
    let data = tempfile::tempdir().unwrap();
    let sqlite = format!("sqlite:{}/it.db", data.path().display());
    check(&Pool::open(&sqlite, nowhere(), config.clone()).unwrap());
    check(&postgres(Cluster::shared(), config));
}

#[test]
fn settings_temporary_tables_and_transactions_do_not_reach_the_next_borrower() {
    let pool = postgres(Cluster::shared(), PoolConfig { max_size: 1, ..PoolConfig::default() });
    let lease = pool.checkout().unwrap();
    lease.batch_execute("SET statement_timeout = 4321; CREATE TEMP TABLE left_here (id int)").unwrap();
    lease.begin().unwrap();
    lease.batch_execute("CREATE TABLE never (id int)").unwrap();
    drop(lease);
    let lease = pool.checkout().unwrap();
    assert_eq!(cell(&lease, "SHOW statement_timeout"), "0");
    assert_eq!(cell(&lease, "SELECT count(*) FROM pg_class WHERE relname IN ('left_here', 'never')"), "0");
    assert_eq!(pool.status().connects, 1, "and it is the same connection");
}

/// Each way to change a session that there is, hidden as well as it goes.
#[test]
fn nothing_of_a_session_reaches_the_next_borrower_however_it_was_changed() {
    let cluster = Cluster::shared();
    let database = cluster.create_database();
    let setup = "CREATE ROLE left_here; CREATE TABLE t (x int); CREATE SEQUENCE s; \
                 CREATE FUNCTION sly() RETURNS int LANGUAGE plpgsql AS \
                 $$ BEGIN EXECUTE 'SET lock_timeout = 77'; RETURN 1; END $$; \
                 CREATE FUNCTION sly_trigger() RETURNS trigger LANGUAGE plpgsql AS \
                 $$ BEGIN PERFORM set_config('lock_timeout', '77', false); RETURN NEW; END $$; \
                 CREATE TRIGGER sly BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION sly_trigger(); \
                 CREATE PROCEDURE sly_procedure() LANGUAGE plpgsql AS \
                 $$ BEGIN COMMIT; SET lock_timeout = 77; END $$";
    cluster.connect(&database).batch_execute(setup).unwrap();
    let config = PoolConfig { max_size: 1, ..PoolConfig::default() };
    let pool = Pool::open(&cluster.url(&database), nowhere(), config).unwrap();
    let state = "SELECT concat_ws(' ', current_user, session_user, current_setting('lock_timeout'), \
                 current_setting('search_path'), current_setting('default_transaction_read_only'), \
                 current_setting('TimeZone'), \
                 (SELECT count(*) FROM pg_listening_channels()), (SELECT count(*) FROM pg_cursors), \
                 (SELECT count(*) FROM pg_prepared_statements WHERE from_sql), \
                 (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()), \
                 (SELECT count(*) FROM pg_class WHERE relname = 'left_here'))";
    let clean = cell(&pool.checkout().unwrap(), state);
    for text in [
        "SELECT set_config('lock_timeout', '77', false)",
        "SELECT \"set_config\"('lock_timeout', '77', not true)",
        "SELECT U&\"set\\005Fconfig\"('lock_timeout', '77', false)",
        "WITH a AS (SELECT set_config('lock_timeout', '77', false)) SELECT * FROM a",
        "UPDATE pg_settings SET setting = '77' WHERE name = 'lock_timeout'",
        "SELECT sly()",
        "SELECT * FROM sly() AS x",
        "INSERT INTO t VALUES (1)",
        "CREATE TABLE u AS SELECT sly()",
        "DO $$ BEGIN SET lock_timeout = 77; END $$",
        "CALL sly_procedure()",
        "-- a\rSET lock_timeout = 77",
        "SET SESSION AUTHORIZATION left_here",
        "SET ROLE left_here",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
        "SET TIME ZONE 'Asia/Tokyo'",
        "SET SCHEMA 'pg_catalog'",
        "BEGIN; SET LOCAL lock_timeout = 77; DECLARE c CURSOR FOR SELECT 1",
        "BEGIN; SET lock_timeout = 77; COMMIT AND CHAIN",
        "BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT 1; COMMIT",
        "LISTEN left_here",
        "PREPARE p AS SELECT 1",
        "DO $$ BEGIN PERFORM pg_advisory_lock(7); END $$",
        "SELECT pg_try_advisory_lock_shared(7)",
        "CREATE TEMP TABLE left_here (x int)",
        "SELECT 1 AS x INTO TEMPORARY left_here",
        "CREATE OR REPLACE TEMP VIEW left_here AS SELECT 1",
        "DO $$ BEGIN CREATE TEMP TABLE left_here (x int); END $$",
    ] {
        for through_batch in [true, false] {
            let lease = pool.checkout().unwrap();
            let is_one = !text.contains("; ") || text.starts_with("DO");
            match through_batch {
                false if !is_one => continue,
                false if text.starts_with("SELECT") || text.starts_with("WITH") => {
                    lease.query(text, &[]).map(drop).unwrap_or_else(|error| panic!("{text}: {error}"));
                }
                false if text.starts_with("CREATE TABLE") => continue,
                false => drop(lease.execute(text, &[]).unwrap_or_else(|error| panic!("{text}: {error}"))),
                true => lease.batch_execute(text).unwrap_or_else(|error| panic!("{text}: {error}")),
            }
            drop(lease);
            assert_eq!(cell(&pool.checkout().unwrap(), state), clean, "{text}");
        }
    }
}

/// Every borrower would find itself in it, and lose what it writes.
#[test]
fn a_session_that_leaves_a_transaction_open_is_refused() {
    let data = tempfile::tempdir().unwrap();
    let sqlite = format!("sqlite:{}/it.db", data.path().display());
    for url in [super::url(), sqlite] {
        let open = |statements: &[&str]| {
            let session = statements.iter().map(|text| (*text).to_owned()).collect();
            let steady = SteadyConfig { session, ..SteadyConfig::default() };
            Pool::open(&url, nowhere(), PoolConfig { max_size: 1, steady, ..PoolConfig::default() })
        };
        for statements in [&["BEGIN"][..], &["BEGIN; SELECT 1", "SELECT 2"]] {
            let refused = open(statements).unwrap_err().to_string();
            assert!(refused.contains("inside a transaction"), "{url}: {refused}");
        }
        for statements in [&["BEGIN", "COMMIT"][..], &["BEGIN; SELECT 1; COMMIT"]] {
            open(statements).unwrap_or_else(|error| panic!("{url}: {error}"));
        }
    }
}

#[test]
fn reset_always_undoes_a_setting_that_no_text_shows() {
    let config = PoolConfig { max_size: 1, reset: ResetPolicy::Always, ..PoolConfig::default() };
    let pool = postgres(Cluster::shared(), config);
    let lease = pool.checkout().unwrap();
    lease
        .batch_execute(
            "CREATE FUNCTION sly() RETURNS int LANGUAGE plpgsql AS \
             $$ BEGIN EXECUTE 'SET lock_timeout = 77'; RETURN 1; END $$; \
             CREATE VIEW seen AS SELECT sly()",
        )
        .unwrap();
    cell(&lease, "SELECT * FROM seen");
    drop(lease);
    let lease = pool.checkout().unwrap();
    assert_eq!((cell(&lease, "SHOW lock_timeout"), pool.status().connects), ("0".to_owned(), 1));
}

#[test]
fn session_statements_hold_for_every_borrower_whatever_the_last_one_set() {
    let session = vec!["SET lock_timeout = 1234".to_owned()];
    let steady = SteadyConfig { session, ..SteadyConfig::default() };
    let pool = postgres(Cluster::shared(), PoolConfig { max_size: 1, steady, ..PoolConfig::default() });
    let lease = pool.checkout().unwrap();
    assert_eq!(cell(&lease, "SHOW lock_timeout"), "1234ms");
    lease.batch_execute("SET lock_timeout = 1").unwrap();
    drop(lease);
    assert_eq!(cell(&pool.checkout().unwrap(), "SHOW lock_timeout"), "1234ms");
    assert_eq!(pool.status().connects, 1);
}

#[test]
fn shared_connections_serve_many_and_keep_transactions_apart() {
    on_both(PoolConfig { max_size: 2, max_shared: 2, ..PoolConfig::default() }, |pool| {
        let share = || pool.checkout_shared(None, None).unwrap();
        share().batch_execute("CREATE TABLE shared (id integer PRIMARY KEY)").unwrap();
        let leases: Vec<Lease> = (0..8).map(|_| share()).collect();
        assert_eq!((pool.status().open, pool.status().shares), (2, 8));
        thread::scope(|scope| {
            for (number, lease) in (0_i64..).zip(&leases) {
                scope.spawn(move || {
                    lease.begin().unwrap();
                    let id = Value::Int(number);
                    lease.execute("INSERT INTO shared VALUES ($1)", &[id]).unwrap();
                    // Half of them change their mind; nobody else's row goes with it.
                    if number % 2 == 0 { lease.rollback().unwrap() } else { lease.commit().unwrap() }
                });
            }
        });
        assert_eq!(cell(&share(), "SELECT count(*) FROM shared"), "4");
    });
}

#[test]
fn a_killed_session_is_replaced_where_nothing_is_lost_and_raised_where_something_is() {
    let cluster = Cluster::shared();
    let database = cluster.create_database();
    let config = SteadyConfig { ping: Ping::NEVER, ..SteadyConfig::default() };
    let mut steady = Steady::open(&cluster.url(&database), nowhere(), config).unwrap();
    let kill = |steady: &Steady| {
        let pid = steady.backend_id().unwrap();
        let mut other = cluster.connect(&database);
        let sql = format!("SELECT pg_terminate_backend({pid})");
        other.batch_execute(&sql).unwrap();
        eventually(SOON, "the session to end", || {
            let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}");
            let left: i64 = other.query_one(&sql, &[]).unwrap().get(0);
            if left == 0 { Ok(()) } else { Err("it is there") }
        });
    };
    let again = How { is_idempotent: true, failover: true };
    kill(&steady);
    steady.query(again, "SELECT 1", &[]).unwrap();

    steady.begin().unwrap();
    steady.query(again, "SELECT 2", &[]).unwrap();
    kill(&steady);
    assert!(matches!(steady.query(again, "SELECT 3", &[]), Err(QueryError::Lost { .. })));
    assert!(matches!(steady.query(again, "SELECT 4", &[]), Err(QueryError::TransactionLost)));
    assert!(matches!(steady.commit(), Err(QueryError::TransactionLost)));
    steady.query(How::default(), "SELECT 5", &[]).unwrap();

    steady.batch_execute(How::default(), "SET lock_timeout = 5").unwrap();
    kill(&steady);
    // Its setting went with it, so it is not replaced unseen, not even for this.
    assert!(steady.query(again, "SELECT 6", &[]).is_err());
    steady.query(How::default(), "SELECT 7", &[]).unwrap();
}

#[test]
fn the_pool_is_ready_again_before_anybody_asks_after_a_restart() {
    let cluster = Cluster::private();
    let pool = postgres(&cluster, PoolConfig { max_size: 4, min_idle: 3, ..PoolConfig::default() });
    let before = pool.status().backends;
    cluster.kill9();
    // One request finds out; the others hear from it.
    assert!(pool.checkout().and_then(|lease| lease.begin().map_err(|_| closed())).is_err());
    eventually(SOON, "the pool to know", || if pool.status().is_down { Ok(()) } else { Err("up") });
    assert!(matches!(pool.checkout(), Err(CheckoutError::Unreachable(_))));
    cluster.start();
    eventually(SOON, "connections", || match pool.status() {
        status if status.idle == 3 && !status.is_down => Ok(()),
        status => Err(format!("{status:?}")),
    });
    assert!(pool.status().backends.iter().all(|pid| !before.contains(pid)));
}

/// Failed over: the next server of the address takes over, and one that comes back as a copy gets nothing.
#[test]
fn a_pool_moves_to_the_next_server_of_its_address() {
    let clusters = [(); 2].map(|()| Cluster::private());
    let [first, second] = clusters.each_ref().map(Cluster::port);
    let url = format!(
        "postgres://postgres@127.0.0.1:{first},127.0.0.1:{second}/postgres?target_session_attrs=read-write"
    );
    let pool = Pool::open(&url, nowhere(), PoolConfig::default()).unwrap();
    let port = |pool: &Pool| -> Result<String, String> {
        let lease = pool.checkout().map_err(|error| error.to_string())?;
        let block = lease.query("SHOW port", &[]).map_err(|error| error.to_string())?;
        Ok(Block::parse(block).unwrap().cell(0, 0).unwrap().unwrap().to_string())
    };
    assert_eq!(port(&pool), Ok(format!("\"{first}\"")));
    clusters[0].kill9();
    let moved = |pool: &Pool| match port(pool) {
        Ok(port) if port == format!("\"{second}\"") => Ok(()),
        other => Err(format!("{other:?}")),
    };
    eventually(SOON, "the other server to be asked", || moved(&pool));
    clusters[0].start();
    let read_only = "ALTER SYSTEM SET default_transaction_read_only = on; SELECT pg_reload_conf()";
    let mut client = clusters[0].connect("postgres");
    read_only.split("; ").for_each(|statement| client.batch_execute(statement).unwrap());
    eventually(SOON, "the copy to be one", || {
        let row = clusters[0].connect("postgres").query_one("SHOW transaction_read_only", &[]).unwrap();
        if row.get::<_, &str>(0) == "on" { Ok(()) } else { Err("it can be written") }
    });
    let fresh = Pool::open(&url, nowhere(), PoolConfig::default()).unwrap();
    assert_eq!(moved(&fresh), Ok(()));
}

fn closed() -> CheckoutError {
    CheckoutError::Closed { address: String::new() }
}

#[test]
fn a_server_that_stops_answering_is_given_up_within_the_ping_timeout() {
    let cluster = Cluster::private();
    let database = cluster.create_database();
    let steady = SteadyConfig {
        ping_after: Duration::ZERO,
        ping_timeout: Duration::from_millis(100),
        ..SteadyConfig::default()
    };
    let url = format!("{}?connect_timeout=1", cluster.url(&database));
    let pool =
        Pool::open(&url, nowhere(), PoolConfig { max_size: 2, steady, ..PoolConfig::default() }).unwrap();
    drop(pool.checkout().unwrap());
    cluster.pause();
    assert!(matches!(pool.checkout(), Err(CheckoutError::Unreachable(_))));
    // From here on nobody waits for it.
    assert!(pool.status().is_down);
    assert!(matches!(pool.checkout(), Err(CheckoutError::Unreachable(_))));
    cluster.resume();
    eventually(SOON, "a connection", || pool.checkout().map(drop));
}

#[test]
fn a_commit_that_lost_its_answer_is_looked_up() {
    let cluster = Cluster::shared();
    let database = cluster.create_database();
    let mut steady = Steady::open(&cluster.url(&database), nowhere(), SteadyConfig::default()).unwrap();
    steady.batch_execute(How::default(), "CREATE TABLE kept (id int)").unwrap();
    // The server ends the session in the commit itself: a deferred trigger asks for its end, which comes
    // at the next point where the server looks, after the commit or before it.
    steady
        .batch_execute(
            How::default(),
            "CREATE FUNCTION farewell() RETURNS trigger LANGUAGE plpgsql AS \
             $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$; \
             CREATE CONSTRAINT TRIGGER farewell AFTER INSERT ON kept DEFERRABLE INITIALLY DEFERRED \
             FOR EACH ROW EXECUTE FUNCTION farewell()",
        )
        .unwrap();
    steady.begin().unwrap();
    steady.execute(How::default(), "INSERT INTO kept VALUES (1)", &[]).unwrap();
    let outcome = steady.commit();
    let count: i64 = cluster.connect(&database).query_one("SELECT count(*) FROM kept", &[]).unwrap().get(0);
    match outcome {
        Ok(()) => assert_eq!(count, 1),
        Err(QueryError::NotCommitted { .. }) => assert_eq!(count, 0),
        Err(other) => panic!("the server was there to be asked: {other}"),
    }
}

#[test]
fn a_connection_for_each_thread_ends_with_its_thread() {
    let cluster = Cluster::shared();
    let database = cluster.create_database();
    let persistent = Persistent::open(&cluster.url(&database), nowhere(), SteadyConfig::default()).unwrap();
    let here = persistent.get().unwrap().backend_id().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| assert_ne!(persistent.get().unwrap().backend_id().unwrap(), here));
    });
    assert_eq!(persistent.get().unwrap().backend_id().unwrap(), here);
    eventually(SOON, "the thread's connection to end", || match cluster.connections_closed(&database) {
        1 => Ok(()),
        closed => Err(format!("{closed} closed")),
    });
}
