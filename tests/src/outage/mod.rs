//! A database server that is killed under load and comes back.
//!
//! Owns: the clients, the kill, what was answered and when, and the comparison of what clients were told
//! with what the database has. Does not own: the command line (`bin/outage.rs`), nor which times are
//! good enough: they are reported.
//!
//! # Invariants
//!
//! - Every transfer has a number of its own. One that was acknowledged is in the database exactly once;
//!   one that was refused is not there at all; only one whose outcome was called unknown may be either.

mod ledger;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use self::ledger::{ACCOUNTS, Ledger};
use crate::host::{Launch, TestHost};
use crate::http::Client;
use crate::postgres::{Bouncer, Cluster};
use crate::wait::{SOON, eventually};

/// How hard, and for how long the server is away.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Clients in closed loops.
    pub clients: u64,
    /// From the kill to the next start.
    pub outage: Duration,
    /// Requests to be answered before the kill and after the return.
    pub requests: u64,
    /// Whether the plugin is reloaded all the while.
    pub reloads: bool,
    /// Whether the host reaches the server through pgbouncer, in transaction mode, which stays up.
    pub pgbouncer: bool,
}

/// What came of it.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Outcome {
    /// Transfers that were acknowledged.
    pub acknowledged: usize,
    /// Transfers answered with 503: nothing happened.
    pub refused: usize,
    /// Transfers answered with 500: the commit was not answered.
    pub unknown: usize,
    /// Requests that began while the server was away.
    pub during: usize,
    /// Half of those were answered within.
    pub down_p50_ms: f64,
    /// 99 of 100 of them.
    pub down_p99_ms: f64,
    /// All of them.
    pub down_max_ms: f64,
    /// From the first answer of the new server to the first transfer.
    pub back_ms: f64,
    /// Reloads that went live meanwhile.
    pub reloads: u64,
    /// What must not happen and did, a line each. Empty is the goal.
    pub wrong: Vec<String>,
}

/// A transfer and its answer.
struct Answer {
    id: i64,
    status: u16,
    text: String,
    begun: Instant,
    took: Duration,
}

/// Runs the plan.
///
/// # Panics
///
/// When host or server do not come up.
pub fn run(plan: Plan) -> Outcome {
    let cluster = Cluster::private();
    let database = cluster.create_database();
    let ledger = Ledger::create(&cluster, &database);
    let launch = Launch::new();
    launch.plugins().install("ledger", "db_ledger");
    let bouncer = plan.pgbouncer.then(|| Bouncer::start(&cluster));
    let url = match &bouncer {
        Some(bouncer) => format!("{}?pgbouncer=true", bouncer.url(&database)),
        None => cluster.url(&database),
    };
    let host = launch.env("DATABASE_URL", url).start();
    let clients = &Clients::default();
    let (asked, count, mut outcome) = (&host, plan.clients, Outcome::default());
    let (answers, killed, started) = thread::scope(|scope| {
        let threads: Vec<_> =
            (0..plan.clients).map(|seed| scope.spawn(move || clients.run(asked, seed, count))).collect();
        let reloads = plan.reloads.then(|| scope.spawn(|| clients.reload(asked)));
        clients.wait(&clients.served, plan.requests);
        cluster.kill9();
        let killed = Instant::now();
        while killed.elapsed() < plan.outage {
            thread::park_timeout(plan.outage.saturating_sub(killed.elapsed()));
        }
        clients.wait(&clients.refused, 1);
        cluster.start();
        let started = Instant::now();
        clients.wait(&clients.served, plan.requests);
        clients.stop.store(true, Ordering::Relaxed);
        outcome.reloads = reloads.map_or(0, |reloads| reloads.join().expect("reloading does not panic"));
        let answers = threads.into_iter().flat_map(|thread| thread.join().expect("a client does not panic"));
        (answers.collect::<Vec<Answer>>(), killed, started)
    });
    outcome.times(&answers, killed, started);
    outcome.wrong.extend(ledger.compare(&cluster, &database, &answers));
    outcome
}

/// What the clients share.
#[derive(Default)]
struct Clients {
    stop: AtomicBool,
    last_id: AtomicU64,
    served: AtomicU64,
    refused: AtomicU64,
}

impl Clients {
    /// One client, until told to stop.
    fn run(&self, host: &TestHost, seed: u64, clients: u64) -> Vec<Answer> {
        let mut client = Client::new(host.listen());
        let mut answers = Vec::new();
        while !self.stop.load(Ordering::Relaxed) {
            let id = self.last_id.fetch_add(1, Ordering::Relaxed) + 1;
            let from = (id + seed) % ACCOUNTS;
            let to = (from + 1 + id % clients % (ACCOUNTS - 1)) % ACCOUNTS;
            let begun = Instant::now();
            let (status, text) = match client.post(&format!("/ledger/{id}/{from}/{to}"), b"") {
                Ok(response) => (response.status, response.text()),
                Err(error) => (0, error.to_string()),
            };
            match status {
                200 => self.served.fetch_add(1, Ordering::Relaxed),
                _ => self.refused.fetch_add(1, Ordering::Relaxed),
            };
            answers.push(Answer { id: id.cast_signed(), status, text, begun, took: begun.elapsed() });
            if status == 503 {
                // A client that heard "not now" does not shout.
                thread::park_timeout(Duration::from_millis(2));
            }
        }
        answers
    }

    /// Reloads the plugin, again and again; how often.
    fn reload(&self, host: &TestHost) -> u64 {
        let mut reloads = 0;
        while !self.stop.load(Ordering::Relaxed) {
            reloads += 1;
            let number = usize::try_from(reloads).unwrap_or_default();
            host.reload("ledger", |plugins| plugins.rebuild("ledger", "db_ledger", number));
        }
        reloads
    }

    /// Waits for so many more.
    fn wait(&self, counter: &AtomicU64, more: u64) {
        let wanted = counter.load(Ordering::Relaxed) + more;
        eventually(SOON, "the clients to be answered", || match counter.load(Ordering::Relaxed) {
            count if count >= wanted => Ok(()),
            count => Err(format!("{count} of {wanted}")),
        });
    }
}

impl Outcome {
    fn times(&mut self, answers: &[Answer], killed: Instant, started: Instant) {
        let count = |status| answers.iter().filter(|answer| answer.status == status).count();
        (self.acknowledged, self.refused, self.unknown) = (count(200), count(503), count(500));
        let is_unknown = |answer: &&Answer| !matches!(answer.status, 200 | 503);
        for answer in answers.iter().filter(is_unknown) {
            if answer.status != 500 || !answer.text.contains("unknown") {
                self.wrong.push(format!("{} for transfer {}: {}", answer.status, answer.id, answer.text));
            }
        }
        let mut down: Vec<f64> = answers
            .iter()
            .filter(|answer| answer.begun > killed && answer.begun < started)
            .map(|answer| answer.took.as_secs_f64() * 1000.0)
            .collect();
        down.sort_by(f64::total_cmp);
        let quantile = |of: f64| {
            #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            let place = (down.len() as f64 * of) as usize;
            down.get(place.min(down.len().saturating_sub(1))).copied().unwrap_or_default()
        };
        self.during = down.len();
        (self.down_p50_ms, self.down_p99_ms, self.down_max_ms) =
            (quantile(0.5), quantile(0.99), quantile(1.0));
        let first = answers
            .iter()
            .filter(|answer| answer.status == 200 && answer.begun + answer.took > started)
            .map(|answer| answer.begun + answer.took)
            .min();
        self.back_ms = first.map_or(f64::NAN, |first| (first - started).as_secs_f64() * 1000.0);
    }
}
