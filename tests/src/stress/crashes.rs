//! Crashes under load: how long nobody is answered, and whether anything acknowledged is lost.
//!
//! Owns: the three ways to die, the moment of a death, the comparison of what was acknowledged with what is
//! there. Does not own: the plugin that crashes (`crashes`), those that write: to their safe (`safe_probe`), to SQLite
//! (`ledger_plugin`), to PostgreSQL (`db_ledger`).
//!
//! # Invariants
//!
//! - A crash fails what is in flight, at most one request for each client, and refuses nobody.
//! - After a crash that is a plugin's the code before it answers.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use super::Outcome;
use super::writers::Writer;
use crate::guard;
use crate::host::{Launch, TestHost};
use crate::http::{Client, Response};
use crate::load::{Load, Tally};
use crate::postgres::Cluster;
use crate::wait::{SOON, eventually};

/// Crashes faster than this would be a loop to the supervisor, which then waits on purpose.
const PACE: Duration = Duration::from_millis(2_100);

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Kill,
    Segfault,
    Abort,
}

/// Ends the serving process `crashes` times, by three ways in turn, under `clients` clients.
///
/// # Panics
///
/// When no process serves any more.
pub fn run_crashes(crashes: u64, clients: usize) -> Outcome {
    let launch = Launch::new().supervised();
    launch.plugins().install("shop", "version_a");
    launch.plugins().install("keep", "safe_probe");
    launch.plugins().install("lite", "ledger_plugin");
    launch.plugins().install("ledger", "db_ledger");
    let cluster = Cluster::private();
    let database = cluster.create_database();
    let table = "CREATE TABLE transfer (id bigint NOT NULL, from_id bigint, to_id bigint); \
                 CREATE TABLE account (id bigint PRIMARY KEY, value bigint NOT NULL); \
                 INSERT INTO account VALUES (0, 0), (1, 0)";
    cluster.connect(&database).batch_execute(table).expect("a fresh database takes tables");
    let host = launch.env("DATABASE_URL", cluster.url(&database)).start();
    let right = |response: &Response| match response.status {
        200 => Ok(String::new()),
        status => Err(format!("{status}: {}", response.text())),
    };
    let load = Load::start(host.listen(), clients, "/shop/ping", right);
    let counting = Load::start(host.listen(), 1, "/keep/incr/stress", right);
    let lite = Writer::start(host.listen(), |number| (format!("/lite/{number}"), r#"{"by": 1}"#));
    let ledger = Writer::start(host.listen(), |number| (format!("/ledger/{number}/0/1"), ""));
    let mut outcome = Outcome::default();
    let mut took = Vec::new();
    for crash in 0..crashes {
        let begun = Instant::now();
        let way = [Way::Kill, Way::Segfault, Way::Abort][(crash % 3) as usize];
        if way != Way::Kill {
            bring_code_that_crashes(&host, crash);
            outcome.reloads += 1;
        }
        counting.wait_answers(1);
        lite.wait();
        ledger.wait();
        load.wait_answers(clients);
        thread::park_timeout(PACE.saturating_sub(begun.elapsed()));
        took.push(crash_once(&host, way, &mut outcome.wrong));
        outcome.crashes += 1;
    }
    load.wait_answers(clients);
    took.sort_by(f64::total_cmp);
    outcome.restart_p50_ms = took.get(took.len() / 2).copied().unwrap_or_default();
    outcome.restart_max_ms = took.last().copied().unwrap_or_default();
    let acknowledged = judge_requests(&counting.finish(), crashes, 1, &mut outcome);
    judge_requests(&load.finish(), crashes, clients, &mut outcome);
    let counted = Client::new(host.listen()).get("/keep/incr/stress").map(|answer| answer.text());
    let counted = counted.ok().and_then(|text| text.parse::<u64>().ok()).unwrap_or_default();
    // The last question has added one itself.
    if counted <= acknowledged {
        outcome.wrong.push(format!("{acknowledged} increments were acknowledged, {counted} are there"));
    }
    let (lite, ledger) = (lite.finish(), ledger.finish());
    outcome.wrong.extend(lite.compare("SQLite", &in_sqlite(&host)));
    outcome.wrong.extend(ledger.compare("PostgreSQL", &in_postgres(&cluster, &database)));
    outcome.safe_writes = acknowledged;
    outcome.sqlite_writes = lite.acknowledged.len() as u64;
    outcome.postgres_writes = ledger.acknowledged.len() as u64;
    outcome
}

/// How often each write is in the database of `lite`, read from its file.
fn in_sqlite(host: &TestHost) -> BTreeMap<i64, u64> {
    let file = host.state_dir().join("data/ledger.db");
    let database = rusqlite::Connection::open(file).expect("the plugin has made it");
    let mut rows =
        database.prepare("SELECT name, value FROM account").expect("the plugin has made the table");
    let found =
        rows.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?.cast_unsigned())));
    let found = found.expect("it can be read").map(|row| row.expect("names and counts"));
    found.filter_map(|(name, times)| Some((name.parse().ok()?, times))).collect()
}

/// How often each write is in the database of `ledger`.
fn in_postgres(cluster: &Cluster, database: &str) -> BTreeMap<i64, u64> {
    let sql = "SELECT id, count(*) FROM transfer GROUP BY id";
    let rows = cluster.connect(database).query(sql, &[]).expect("the table is there");
    rows.iter().map(|row| (row.get(0), row.get::<_, i64>(1).cast_unsigned())).collect()
}

/// Makes code live that has not crashed yet, and will.
fn bring_code_that_crashes(host: &TestHost, number: u64) {
    host.plugins.rebuild("shop", "crashes", usize::try_from(number).unwrap_or_default());
    eventually(SOON, "the code that crashes to be live", || {
        match Client::new(host.listen()).get("/shop/ping") {
            Ok(answer) if answer.text() == "c" => Ok(()),
            Ok(answer) => Err(answer.text()),
            Err(error) => Err(error.to_string()),
        }
    });
}

/// Ends the process; returns how many milliseconds later the next one answers.
fn crash_once(host: &TestHost, way: Way, wrong: &mut Vec<String>) -> f64 {
    let address = host.listen();
    let pid = host.serving_pid();
    // The system closes it when the process is gone: that is the moment.
    let mut canary = TcpStream::connect(address).expect("the host listens");
    // An answer proves that this process has it: from the queue it would pass on to the next one.
    canary.write_all(b"GET /shop/ping HTTP/1.1\r\nhost: canary\r\n\r\n").expect("the host reads");
    canary.read_exact(&mut [0; 12]).expect("the host answers");
    let (died, at) = std::sync::mpsc::channel();
    let watching = thread::spawn(move || {
        while matches!(canary.read(&mut [0; 512]), Ok(1..)) {}
        let _ = died.send(Instant::now());
    });
    match way {
        Way::Kill => guard::signal("KILL", &[pid]),
        // No answer comes to these.
        Way::Segfault => drop(Client::new(address).get("/shop/segfault")),
        Way::Abort => drop(Client::new(address).get("/shop/inline-abort")),
    }
    let died = at.recv_timeout(SOON).expect("the process dies");
    watching.join().expect("reading does not panic");
    let answer = eventually(SOON, "the next process to answer", || Client::new(address).get("/shop/ping"));
    let took = died.elapsed().as_secs_f64() * 1e3;
    if answer.status != 200 || answer.text() == "c" && way != Way::Kill {
        wrong.push(format!("after {way:?}: {} {}", answer.status, answer.text()));
    }
    took
}

/// Adds up what clients got, and says what must not be; returns how many were answered.
fn judge_requests(tally: &Tally, crashes: u64, clients: usize, outcome: &mut Outcome) -> u64 {
    outcome.requests += tally.answers() as u64;
    outcome.failed += tally.failures.len() as u64;
    let most = crashes * clients as u64;
    if tally.failures.len() as u64 > most {
        outcome
            .wrong
            .push(format!("{} requests failed, {most} can have been in flight", tally.failures.len()));
    }
    let refused =
        tally.failures.iter().filter(|failure| failure.contains("refused") || failure.starts_with('5'));
    outcome.wrong.extend(refused.take(5).map(|failure| format!("a request failed: {failure}")));
    tally.answers() as u64
}
