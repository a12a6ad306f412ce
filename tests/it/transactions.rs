//! Facts about request transactions: kept before the client hears of it, or not at all.

use std::fs;
use std::io::Write as _;
use std::net::TcpStream;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use tests::eventually;
use tests::host::{Launch, TestHost};
use tests::http::Client;
use tests::postgres::Cluster;
use tests::wait::SOON;

/// A host with the probe, and its database.
struct Bench {
    host: TestHost,
    database: String,
    other: String,
    gate: std::path::PathBuf,
}

impl Bench {
    fn start() -> Bench {
        Bench::with_timeout(30_000)
    }

    /// With so many milliseconds for each request.
    fn with_timeout(ms: u32) -> Bench {
        let cluster = Cluster::shared();
        let databases = [(); 2].map(|()| {
            let database = cluster.create_database();
            let tables = "CREATE TABLE t (x bigint PRIMARY KEY); CREATE TABLE counter (x bigint); \
                          INSERT INTO counter VALUES (0)";
            cluster.connect(&database).batch_execute(tables).unwrap();
            database
        });
        let [database, other] = databases;
        let launch = Launch::new();
        launch.plugins().install("tx", "tx_probe");
        let gate = launch.scratch().join("gate");
        let config = launch.scratch().join("host.toml");
        fs::write(&config, format!("[limits]\nhandler_timeout_ms = {ms}\n")).unwrap();
        let host = launch
            .arg("--config")
            .arg(config)
            .env("DATABASE_URL", cluster.url(&database))
            .env("OTHER_URL", cluster.url(&other))
            .env("GATE", &gate)
            .start();
        Bench { host, database, other, gate }
    }

    fn client(&self) -> postgres::Client {
        Cluster::shared().connect(&self.database)
    }

    /// The rows that everybody sees.
    fn kept(&self) -> Vec<i64> {
        rows(&self.database)
    }

    fn post(&self, path: &str) -> (u16, String) {
        let response = self.host.post(path, b"");
        (response.status, response.text())
    }

    /// Has every commit of an insert call `body`, in PL/pgSQL.
    fn at_commit(&self, body: &str) {
        let text = format!(
            "CREATE FUNCTION at_commit() RETURNS trigger LANGUAGE plpgsql AS \
             $$ BEGIN {body}; RETURN NULL; END $$; \
             CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED \
             FOR EACH ROW EXECUTE FUNCTION at_commit()"
        );
        self.client().batch_execute(&text).unwrap();
    }

    /// Waits until a session of the host's meets the condition.
    fn wait_session(&self, condition: &str) {
        let mut client = self.client();
        let sql = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
             AND pid <> pg_backend_pid() AND {condition}"
        );
        eventually(SOON, condition, || match client.query_one(&sql, &[]).unwrap().get::<_, i64>(0) {
            0 => Err("no such session"),
            _ => Ok(()),
        });
    }
}

fn rows(database: &str) -> Vec<i64> {
    let mut client = Cluster::shared().connect(database);
    let rows = client.query("SELECT x FROM t ORDER BY x", &[]).unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// The table of `Request::transaction`, line by line.
#[test]
fn what_a_handler_did_is_kept_or_undone_by_how_it_ended() {
    let bench = Bench::start();
    for (path, status) in [
        ("/tx/ok/1", 200),
        ("/tx/answer/303/2", 303),
        ("/tx/answer/404/3", 404),
        ("/tx/answer/500/4", 500),
        ("/tx/err/5", 500),
        ("/tx/panic/6", 500),
        ("/tx/doom/7", 200),
        ("/tx/strict/201/8", 201),
        ("/tx/strict/404/9", 404),
        ("/tx/strict/503/10", 503),
    ] {
        assert_eq!(bench.post(path).0, status, "{path}");
    }
    assert_eq!(bench.kept(), [1, 2, 3, 4, 8]);
}

/// One connection, lent to each request in turn: nothing of a transaction that ended badly is left in it.
#[test]
fn a_transaction_never_reaches_the_next_request() {
    let bench = Bench::start();
    for round in 0..5 {
        assert_eq!(bench.post(&format!("/tx/panic/{round}")).0, 500);
        assert_eq!(bench.post(&format!("/tx/swallow/{round}")).0, 500);
    }
    assert_eq!(bench.post("/tx/ok/1"), (200, "stored\n".to_owned()));
    assert_eq!(bench.kept(), [1]);
    let sessions = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                    AND state LIKE 'idle in transaction%'";
    assert_eq!(bench.client().query_one(sessions, &[]).unwrap().get::<_, i64>(0), 0);
}

#[test]
fn savepoints_nest_in_a_request_transaction() {
    let bench = Bench::start();
    assert_eq!(bench.post("/tx/savepoints/10").0, 200);
    assert_eq!(bench.kept(), [10, 12]);
}

/// The client must not be told of what is not yet so.
#[test]
fn no_answer_is_sent_before_the_commit() {
    let bench = Bench::start();
    bench.at_commit("PERFORM pg_advisory_xact_lock(1)");
    let mut gate = bench.client();
    gate.batch_execute("SELECT pg_advisory_lock(1)").unwrap();
    let (answers, answer) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(|| answers.send(bench.post("/tx/ok/1")).unwrap());
        bench.wait_session("wait_event_type = 'Lock' AND query LIKE '%COMMIT%'");
        assert!(answer.try_recv().is_err(), "answered while the commit was waiting");
        assert!(bench.kept().is_empty());
        gate.batch_execute("SELECT pg_advisory_unlock(1)").unwrap();
        assert_eq!(answer.recv().unwrap().0, 200);
    });
    assert_eq!(bench.kept(), [1]);
}

/// A handler says `Ok`, the database says no: the client hears the database.
#[test]
fn a_failed_commit_is_never_a_success() {
    let bench = Bench::start();
    bench.at_commit("RAISE EXCEPTION 'not today'");
    let (status, text) = bench.post("/tx/ok/1");
    assert_eq!(status, 500, "{text}");
    assert!(bench.host.log().contains("not today"), "{}", bench.host.log());
    // A redirect, which is an answer as well.
    assert_eq!(bench.post("/tx/answer/303/2").0, 500);
    // The statement's error was swallowed, and the transaction with it.
    let (status, text) = bench.post("/tx/swallow/3");
    assert_eq!(status, 500, "{text}");
    assert!(bench.kept().is_empty());
}

#[test]
fn a_commit_that_may_succeed_later_is_a_503_with_retry_after() {
    let bench = Bench::start();
    bench.at_commit("RAISE SQLSTATE '40001' USING MESSAGE = 'collided'");
    let response = bench.host.post("/tx/ok/1", b"");
    assert_eq!((response.status, response.header("retry-after")), (503, Some("1")), "{}", response.text());
}

#[test]
fn a_handler_that_is_declared_idempotent_runs_again_after_a_collision() {
    let bench = Bench::start();
    let again = bench.post("/tx/collide_again");
    assert_eq!(again, (200, "2".to_owned()), "{}", bench.host.log());
    let value = bench.client().query_one("SELECT x FROM counter", &[]).unwrap().get::<_, i64>(0);
    assert_eq!(value, 101, "the other one's 100, and this one's 1 once");
}

#[test]
fn a_handler_that_is_not_declared_so_runs_once() {
    let bench = Bench::start();
    let response = bench.host.post("/tx/collide", b"");
    assert_eq!((response.status, response.header("retry-after")), (503, Some("1")), "{}", response.text());
    assert_eq!(bench.post("/tx/collide").1, "2");
}

#[test]
fn reruns_are_bounded() {
    let bench = Bench::start();
    let response = bench.host.post("/tx/collide_always", b"");
    assert_eq!((response.status, response.header("retry-after")), (503, Some("1")), "{}", response.text());
    let runs = bench.host.log().matches(": run ").count();
    assert_eq!(runs, 5, "{}", bench.host.log());
}

/// Two databases: committed in the order of their first statements, and the rest rolled back.
#[test]
fn the_first_commit_that_fails_rolls_the_other_database_back() {
    let bench = Bench::start();
    assert_eq!(bench.post("/tx/both/1").0, 200);
    assert_eq!((bench.kept(), rows(&bench.other)), (vec![1], vec![1]));
    // The second one to commit refuses: the first one stays, and the log says so.
    bench.at_commit("RAISE EXCEPTION 'not today'");
    assert_eq!(bench.post("/tx/both/2").0, 500);
    assert_eq!((bench.kept(), rows(&bench.other)), (vec![1], vec![1, 2]));
    assert!(bench.host.log().contains("another one of the request had been"), "{}", bench.host.log());
    // The first one refuses: nothing stays.
    let drop = "DROP TRIGGER at_commit ON t";
    bench.client().batch_execute(drop).unwrap();
    let refuse = "CREATE TABLE never (x bigint REFERENCES t (x) DEFERRABLE INITIALLY DEFERRED); \
                  CREATE RULE also AS ON INSERT TO t DO ALSO INSERT INTO never VALUES (-1)";
    Cluster::shared().connect(&bench.other).batch_execute(refuse).unwrap();
    assert_eq!(bench.post("/tx/both/3").0, 500);
    assert_eq!((bench.kept(), rows(&bench.other)), (vec![1], vec![1, 2]));
}

#[test]
fn outside_of_the_request_a_transaction_is_of_its_closure() {
    let bench = Bench::start();
    assert_eq!(bench.post("/tx/outside/1"), (200, "true\n".to_owned()));
    assert_eq!(bench.kept(), [1]);
}

#[test]
fn a_route_that_must_not_block_is_told_so() {
    let bench = Bench::start();
    assert_eq!(bench.post("/tx/inline/1").0, 500);
    assert!(bench.host.log().contains("declare the route without `inline`"), "{}", bench.host.log());
}

/// The statement is cancelled at the server, and what was done before it is undone.
#[test]
fn a_statement_past_the_deadline_is_cancelled_and_its_transaction_rolled_back() {
    let bench = Bench::with_timeout(500);
    assert_eq!(bench.post("/tx/sleep/1").0, 504);
    let mut client = bench.client();
    eventually(SOON, "the server to be rid of the statement", || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)%' \
                   AND pid <> pg_backend_pid() AND state = 'active' AND datname = current_database()";
        match client.query_one(sql, &[]).unwrap().get::<_, i64>(0) {
            0 => Ok(()),
            running => Err(format!("{running} running")),
        }
    });
    assert!(bench.kept().is_empty());
    // The cancelled connection is not lent out again: a cancellation may come late.
    assert_eq!(bench.post("/tx/ok/2").0, 200);
    assert_eq!(bench.kept(), [2]);
}

/// The handler still runs, and its transaction is over: locks are free, and it can never be committed.
#[test]
fn a_hanging_handler_loses_its_transaction_at_the_deadline() {
    let bench = Bench::with_timeout(500);
    assert_eq!(bench.post("/tx/hang/1").0, 504);
    // Another request may take the row, though the handler has not returned.
    eventually(SOON, "the row's lock to be free", || match bench.post("/tx/ok/1") {
        (200, _) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert!(!bench.host.log().contains("refused: "), "the handler has returned too early");
    fs::write(&bench.gate, "").unwrap();
    eventually(SOON, "the handler to be told", || {
        let log = bench.host.log();
        let words = "refused: the request's deadline has passed, so its transaction was rolled back";
        if log.contains(words) { Ok(()) } else { Err(log) }
    });
    assert_eq!(bench.kept(), [1], "the other request's");
}

/// What has begun to be kept is waited for: a 504 would be a lie.
#[test]
fn a_commit_that_began_before_the_deadline_is_answered() {
    let bench = Bench::with_timeout(2_000);
    // Connected, so that the deadline finds the commit and not the connect.
    assert_eq!(bench.post("/tx/ok/2").0, 200);
    bench.at_commit("PERFORM pg_advisory_xact_lock(1)");
    let mut gate = bench.client();
    gate.batch_execute("SELECT pg_advisory_lock(1)").unwrap();
    let status = thread::scope(|scope| {
        let answer = scope.spawn(|| bench.post("/tx/ok/1").0);
        bench.wait_session(
            "wait_event_type = 'Lock' AND query LIKE '%COMMIT%' \
             AND clock_timestamp() - query_start > interval '2500 ms'",
        );
        gate.batch_execute("SELECT pg_advisory_unlock(1)").unwrap();
        answer.join().unwrap()
    });
    assert_eq!((status, bench.kept()), (200, vec![1, 2]));
}

/// Nobody waits for the answer: the server need not work for it.
#[test]
fn a_client_that_goes_away_has_its_statement_cancelled() {
    let bench = Bench::start();
    let mut client = TcpStream::connect(bench.host.listen()).unwrap();
    client.write_all(b"POST /tx/sleep/1 HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n").unwrap();
    bench.wait_session("state = 'active' AND query LIKE '%pg_sleep(600)%'");
    drop(client);
    let mut watcher = bench.client();
    eventually(SOON, "the statement to be cancelled", || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE state <> 'idle' AND pid <> pg_backend_pid() \
                   AND datname = current_database()";
        match watcher.query_one(sql, &[]).unwrap().get::<_, i64>(0) {
            0 => Ok(()),
            busy => Err(format!("{busy} busy")),
        }
    });
    assert!(bench.kept().is_empty());
    eventually(SOON, "the handler to be told", || {
        let log = bench.host.log();
        if log.contains("the client has gone") { Ok(()) } else { Err(log) }
    });
    let mut again = Client::new(bench.host.listen()).deadline(Duration::from_secs(20));
    assert_eq!(again.post("/tx/ok/2", b"").unwrap().status, 200);
}

/// The port of web.py's recipe: what was done is kept on `HTTPError`, and undone on every other exception.
#[test]
fn a_port_from_webpy_commits_on_http_errors_and_rolls_back_on_others() {
    let launch = Launch::new();
    launch.plugins().install("todo", "from_webpy");
    let host = launch.start();
    let response = host.post("/todo", b"tea");
    assert_eq!((response.status, response.header("location")), (303, Some("/todo")), "{}", response.text());
    for (path, status) in [("/todo/tea/done", 200), ("/todo/milk/done", 404), ("/todo/broken", 500)] {
        assert_eq!(host.post(path, b"").status, status, "{path}");
    }
    assert_eq!(host.get("/todo").text(), "[x] tea\n1 missed\n");
}

/// The port of Flask's thread-local session: functions that share a request share its transaction.
#[test]
fn a_port_from_flask_has_one_session_in_all_functions_of_a_request() {
    let launch = Launch::new();
    launch.plugins().install("shop", "from_flask");
    let host = launch.start();
    let post = |item: &str| {
        let response = host.post(&format!("/shop/order/{item}"), b"");
        (response.status, response.text())
    };
    assert_eq!(post("tea"), (200, "1 notes\n".to_owned()));
    assert_eq!(post("nothing").0, 500);
    assert_eq!(post("milk"), (200, "2 notes\n".to_owned()));
    assert_eq!(host.get("/shop").text(), "2 purchases, 2 notes\n");
}
