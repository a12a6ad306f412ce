//! Crashes under load: how long nobody is answered, and whether anything acknowledged is lost.
//!
//! Owns: the three ways to die, the moment of a death, the comparison of what was acknowledged with what is
//! there. Does not own: the plugin that crashes (`crashes`), the one that counts (`safe_probe`).
//!
//! # Invariants
//!
//! - A crash fails what is in flight, at most one request for each client, and refuses nobody.
//! - After a crash that is a plugin's the code before it answers.

use std::io::Read;
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use super::Outcome;
use crate::guard;
use crate::host::{Launch, TestHost};
use crate::http::{Client, Response};
use crate::load::{Load, Tally};
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
    let host = launch.start();
    let right = |response: &Response| match response.status {
        200 => Ok(String::new()),
        status => Err(format!("{status}: {}", response.text())),
    };
    let load = Load::start(host.listen(), clients, "/shop/ping", right);
    let counting = Load::start(host.listen(), 1, "/keep/incr/stress", right);
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
    outcome
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
    let (died, at) = std::sync::mpsc::channel();
    let watching = thread::spawn(move || {
        let _ = canary.read(&mut [0]);
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
