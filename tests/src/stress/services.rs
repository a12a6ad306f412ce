//! Reloads with services in use that ask for their thread: a runtime, thread-locals and a client of their own.
//!
//! Owns: when services are replaced, and what must be left. Does not own: the plugin (`service_threads`).

use std::time::Instant;

use super::state::go_live;
use super::{Memory, Outcome, judge_memory};
use crate::host::Launch;
use crate::http::{Client, Response};
use crate::load::{Load, Tally};
use crate::wait::{SOON, eventually};

const SHOP: &str = "shop";
const FIXTURE: &str = "service_threads";
/// After so many reloads another service takes the place of the one that serves.
const REPLACED_EVERY: u64 = 10;

/// Reloads a plugin `reloads` times while `clients` clients call its service, which is replaced now and then.
///
/// # Panics
///
/// When the host ends or a reload does not go live.
pub fn run_services(reloads: u64, clients: usize) -> Outcome {
    let launch = Launch::new().supervised();
    launch.plugins().install(SHOP, FIXTURE);
    let host = launch.start();
    let pid = host.serving_pid();
    let judge = |response: &Response| match response.status {
        200 => Ok("answered".to_owned()),
        status => Err(format!("{status}: {}", response.text())),
    };
    let all = format!("/{SHOP}/all?address={}", host.listen());
    let paths = [all.as_str(), "/shop/inline", all.as_str(), "/shop/thread"];
    let loads: Vec<Load> = (0..clients)
        .map(|client| Load::start(host.listen(), 1, paths[client % paths.len()], judge))
        .collect();
    let begun = Instant::now();
    let mut outcome = Outcome { reloads, ..Outcome::default() };
    let mut memory = Memory::default();
    for reload in 1..=reloads {
        go_live(&host, FIXTURE, "/shop/ping", reload);
        if reload % REPLACED_EVERY == 0 {
            let answer = Client::new(host.listen()).get("/shop/replace/asker");
            if !matches!(&answer, Ok(answer) if answer.status == 200) {
                outcome.wrong.push(format!("the service was not replaced: {answer:?}"));
            }
        }
        for load in &loads {
            load.wait_answers(2);
        }
        memory.sample(pid);
    }
    outcome.seconds = begun.elapsed().as_secs_f64();
    for tally in loads.into_iter().map(Load::finish) {
        outcome.requests += Tally::answers(&tally) as u64;
        outcome.failed += tally.failures.len() as u64;
        let told = tally.failures.iter().take(2).map(|failure| format!("a request failed: {failure}"));
        outcome.wrong.extend(told);
    }
    // With the service in the hands of the code that serves, nothing holds any other.
    let last = Client::new(host.listen()).get("/shop/replace/asker").map(|answer| answer.status);
    if !matches!(last, Ok(200)) {
        outcome.wrong.push(format!("the service was not replaced: {last:?}"));
    }
    eventually(SOON, "every generation but the current one to be unmapped", || {
        let status = host.plugin(SHOP);
        (outcome.unmapped, outcome.parked) = (status.unloaded(), status.parked().len() as u64);
        if outcome.unmapped == reloads { Ok(()) } else { Err(format!("{status}")) }
    });
    memory.fill(&mut outcome);
    judge_memory(&mut outcome);
    outcome
}
