//! Reloads without end, under load: what a year of edits does to one process.
//!
//! Owns: the order of reloads, good and bad, what is counted, and what counts as wrong. Does not own: the
//! command line (`bin/stress.rs`).
//!
//! # Invariants
//!
//! - Every request must be answered rightly, every good library must go live, every bad one be refused, and
//!   every generation but the current one must have left the process in the end, unless its own thread
//!   holds it.

mod clients;
mod crashes;
mod memory;
mod services;
mod state;
mod writers;

use std::fs::{self, File};
use std::time::{Duration, Instant, SystemTime};

use self::clients::Clients;
pub use self::crashes::run_crashes;
pub use self::memory::{Memory, judge_memory};
pub use self::services::run_services;
pub use self::state::run_state;
use crate::fixture;
use crate::host::{Launch, PluginStatus, TestHost};
use crate::http::Client;
use crate::wait::{SOON, eventually};

/// How long and how hard.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Stop after this time.
    pub duration: Duration,
    /// Stop after so many reloads.
    pub reloads: u64,
    /// Clients in closed loops.
    pub clients: usize,
    /// How many of the reloads bring a plugin that leaves a thread behind.
    pub lingerers: u64,
}

/// What came of it.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Outcome {
    /// Requests answered.
    pub requests: u64,
    /// Requests that were not, or not rightly.
    pub failed: u64,
    /// Reloads that went live.
    pub reloads: u64,
    /// Libraries refused, as they had to be.
    pub refused: u64,
    /// Generations that have left the process.
    pub unmapped: u64,
    /// Generations that have not, the current one aside.
    pub parked: u64,
    /// Resident memory, the mean of the first tenth of the reloads, or of the first thousand.
    pub rss_first_kb: u64,
    /// The same of the last tenth.
    pub rss_last_kb: u64,
    /// Mappings, the mean of the same reloads.
    pub maps_first: u64,
    /// The same of the last tenth.
    pub maps_last: u64,
    /// How much the one is more than the other, in percent.
    pub rss_growth_percent: f64,
    /// As above.
    pub maps_growth_percent: f64,
    /// Resident memory, the mean of each tenth of the reloads.
    pub rss_by_tenth_kb: Vec<u64>,
    /// Mappings, the same.
    pub maps_by_tenth: Vec<u64>,
    /// How long it all took, in seconds.
    pub seconds: f64,
    /// Half of the requests took no longer.
    pub p50_ms: f64,
    /// 99 of 100 requests took no longer.
    pub p99_ms: f64,
    /// From a library's rename to the first answer of its code, median.
    pub reload_p50_ms: f64,
    /// The same, 99 of 100.
    pub reload_p99_ms: f64,
    /// Processes that were ended.
    pub crashes: u64,
    /// Writes to a safe that were acknowledged meanwhile.
    pub safe_writes: u64,
    /// The same to SQLite.
    pub sqlite_writes: u64,
    /// The same to PostgreSQL.
    pub postgres_writes: u64,
    /// From the end of a process to the first answer of the next, median.
    pub restart_p50_ms: f64,
    /// The same, the longest.
    pub restart_max_ms: f64,
    /// What must not happen and did, a line each. Empty is the goal.
    pub wrong: Vec<String>,
}

/// Name of the plugin, and of its library.
const SHOP: &str = "shop";
/// Every so many reloads a library comes that must be refused.
const BAD_EVERY: u64 = 8;
/// What a thread that lingers is called by the host.
const LINGERER: &str = "1 thread started by it (`lingerer`)";

/// Runs the plan against a host of its own.
///
/// # Panics
///
/// When the host ends or a reload neither succeeds nor fails.
pub fn run(plan: Plan) -> Outcome {
    // As users run it: the supervisor sets bounds to what the C library keeps.
    let launch = Launch::new().supervised();
    launch.plugins().install(SHOP, "threads_and_locals");
    let host = launch.start();
    let pid = host.serving_pid();
    let clients = Clients::start(host.listen(), plan.clients);
    let mut run = Run {
        host,
        pid,
        plan,
        outcome: Outcome::default(),
        memory: Memory::default(),
        took: Vec::new(),
        lingering: 0,
    };
    let begun = Instant::now();
    let until = begun + plan.duration;
    while run.outcome.reloads < plan.reloads && Instant::now() < until {
        run.step();
    }
    // What serves in the end leaves no thread behind, whatever came last.
    run.reload("threads_and_locals", run.outcome.reloads + 1);
    run.outcome.seconds = begun.elapsed().as_secs_f64();
    run.finish(clients)
}

struct Run {
    host: TestHost,
    /// The process that serves, from start to end: another one would be a crash.
    pid: u32,
    plan: Plan,
    outcome: Outcome,
    memory: Memory,
    /// How long each reload took, in milliseconds.
    took: Vec<f64>,
    /// How many generations have left a thread behind.
    lingering: u64,
}

impl Run {
    fn step(&mut self) {
        let reload = self.outcome.reloads + 1;
        if reload.is_multiple_of(BAD_EVERY) {
            self.refuse(reload / BAD_EVERY);
        }
        let every = (self.plan.reloads / self.plan.lingerers.max(1)).max(1);
        // In the middle of each stretch, so that the last reload ends the last of them.
        let lingers = self.lingering < self.plan.lingerers && reload % every == every / 2;
        self.reload(if lingers { "keeps_thread" } else { "threads_and_locals" }, reload);
        self.lingering += u64::from(lingers);
        self.outcome.reloads = reload;
        if reload.is_multiple_of(BAD_EVERY) && !lingers {
            let status = Client::new(self.host.listen()).get("/shop/panic").map(|answer| answer.status);
            self.expect(matches!(status, Ok(500)), || format!("a panic was answered with {status:?}"));
        }
        self.memory.sample(self.pid);
    }

    /// Brings new code and waits until it answers.
    fn reload(&mut self, fixture: &str, number: u64) {
        let mut client = Client::new(self.host.listen());
        let mut generation = || {
            let answer = client.get("/shop/ping").ok()?;
            answer.header("x-plugin-generation")?.parse::<u64>().ok()
        };
        let before = generation();
        let mut bytes = fs::read(fixture::library(fixture)).expect("the fixtures are built");
        // Behind the end of what the headers describe, where nobody looks.
        bytes.extend_from_slice(format!("build {number}").as_bytes());
        let renamed = self.put(&bytes);
        eventually(SOON, "the new code to answer", || match generation() {
            now if now.is_some() && now > before => Ok(()),
            now => Err(format!("generation {now:?} answers, {}", self.host.plugin(SHOP))),
        });
        self.took.push(renamed.elapsed().as_secs_f64() * 1e3);
    }

    /// Brings code that must not go live.
    fn refuse(&mut self, number: u64) {
        let read = |name: &str| fs::read(fixture::library(name)).expect("the fixtures are built");
        let bytes = match number % 4 {
            0 => b"once upon a time\n".to_vec(),
            1 => {
                let whole = read("threads_and_locals");
                whole[..whole.len() * 2 / 3].to_vec()
            }
            2 => read("on_load_panics"),
            _ => read("on_load_errs"),
        };
        self.put_refusable(&bytes);
        eventually(SOON, "bad code to be refused", || match self.host.plugin(SHOP) {
            status if status.last_outcome() == "refused" => Ok(()),
            status => Err(status),
        });
        self.outcome.refused += 1;
    }

    /// Puts a library in place; returns when the rename began.
    fn put(&self, bytes: &[u8]) -> Instant {
        let hidden = self.host.plugins.path().join(".stress.partial");
        fs::write(&hidden, bytes).expect("the directory is writable");
        let begun = Instant::now();
        fs::rename(&hidden, self.host.plugins.library(SHOP)).expect("a rename within one directory");
        begun
    }

    /// Puts a library in place that looks as if it had been lying there: one that is cut short and fresh could
    /// be the first half of a copy, and the host waits for the second.
    fn put_refusable(&self, bytes: &[u8]) {
        let hidden = self.host.plugins.path().join(".stress.refusable");
        fs::write(&hidden, bytes).expect("the directory is writable");
        let file = File::options().write(true).open(&hidden).expect("it was written just now");
        file.set_modified(SystemTime::UNIX_EPOCH).expect("the owner may");
        fs::rename(&hidden, self.host.plugins.library(SHOP)).expect("a rename within one directory");
    }

    fn finish(mut self, clients: Clients) -> Outcome {
        let tally = clients.finish();
        (self.outcome.requests, self.outcome.failed) = (tally.answered, tally.failures.len() as u64);
        (self.outcome.p50_ms, self.outcome.p99_ms) = (tally.latency.at(0.5), tally.latency.at(0.99));
        for failure in tally.failures.iter().take(5) {
            self.outcome.wrong.push(format!("a request failed: {failure}"));
        }
        self.took.sort_by(f64::total_cmp);
        let took = |share: f64| {
            let at = (self.took.len() as f64 * share) as usize;
            self.took.get(at.min(self.took.len().saturating_sub(1))).copied().unwrap_or_default()
        };
        (self.outcome.reload_p50_ms, self.outcome.reload_p99_ms) = (took(0.5), took(0.99));
        self.memory.fill(&mut self.outcome);
        self.judge_unloading();
        // Every thread that lingers has a stack.
        if self.plan.lingerers == 0 {
            judge_memory(&mut self.outcome);
        }
        self.outcome
    }

    /// Every generation but the current one has to go, those apart that a thread of theirs holds.
    fn judge_unloading(&mut self) {
        let settled = |status: &PluginStatus| {
            let parked = status.parked();
            let holders = parked.iter().flat_map(|(_, holders)| holders);
            holders.filter(|holder| *holder != LINGERER).count() == 0
        };
        let deadline = Instant::now() + SOON;
        let mut status = self.host.plugin(SHOP);
        while !settled(&status) && Instant::now() < deadline {
            std::thread::park_timeout(Duration::from_millis(10));
            status = self.host.plugin(SHOP);
        }
        let parked = status.parked();
        (self.outcome.unmapped, self.outcome.parked) = (status.unloaded(), parked.len() as u64);
        let gone = status.generation().map_or(0, |current| current - 1);
        let expected = self.lingering;
        let outcome = &mut self.outcome;
        if outcome.unmapped + outcome.parked != gone {
            let words = format!(
                "{gone} generations have ended, {} unmapped and {} parked",
                outcome.unmapped, outcome.parked
            );
            outcome.wrong.push(words);
        }
        if outcome.parked != expected || !settled(&status) {
            outcome.wrong.push(format!("parked: {:?}", &parked[..parked.len().min(5)]));
        }
    }

    fn expect(&mut self, holds: bool, words: impl FnOnce() -> String) {
        if !holds {
            self.outcome.wrong.push(words());
        }
    }
}
