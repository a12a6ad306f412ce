//! Reloads with data and a service in use: nothing that was counted may be lost or counted twice.
//!
//! Owns: the clients' own books, and the comparison with the plugin's. Does not own: the plugin (`state_probe`).

use std::fs;
use std::time::Instant;

use super::{Memory, Outcome, judge_memory};
use crate::fixture;
use crate::host::{Launch, TestHost};
use crate::http::Client;
use crate::load::{Load, Tally};
use crate::wait::{SOON, eventually};

const SHOP: &str = "shop";
const FIXTURE: &str = "state_probe";

/// Reloads a plugin `reloads` times while `clients` clients count in its data and its service.
///
/// # Panics
///
/// When the host ends or a reload does not go live.
pub fn run_state(reloads: u64, clients: usize) -> Outcome {
    let launch = Launch::new().supervised();
    launch.plugins().install(SHOP, FIXTURE);
    let host = launch.start();
    let pid = host.serving_pid();
    let judge = |response: &crate::http::Response| match response.status {
        200 => Ok("counted".to_owned()),
        status => Err(format!("{status}: {}", response.text())),
    };
    let loads: Vec<Load> = (0..clients)
        .map(|client| Load::start(host.listen(), 1, &format!("/{SHOP}/count/c{client}"), judge))
        .collect();
    let begun = Instant::now();
    let mut memory = Memory::default();
    for reload in 1..=reloads {
        go_live(&host, FIXTURE, "/shop/sums", reload);
        for load in &loads {
            load.wait_answers(1);
        }
        memory.sample(pid);
    }
    let tallies: Vec<Tally> = loads.into_iter().map(Load::finish).collect();
    let mut outcome = Outcome { reloads, seconds: begun.elapsed().as_secs_f64(), ..Outcome::default() };
    memory.fill(&mut outcome);
    audit(&host, &tallies, &mut outcome);
    judge_leftovers(&host, &mut outcome);
    outcome
}

/// Brings new code of `fixture` and waits until it answers at `path`.
pub(super) fn go_live(host: &TestHost, fixture: &str, path: &str, number: u64) {
    let mut client = Client::new(host.listen());
    let mut generation = || {
        let answer = client.get(path).ok()?;
        answer.header("x-plugin-generation")?.parse::<u64>().ok()
    };
    let before = generation();
    let mut bytes = fs::read(fixture::library(fixture)).expect("the fixtures are built");
    // Behind the end of what the headers describe, where nobody looks.
    bytes.extend_from_slice(format!("build {number}").as_bytes());
    host.plugins.put_library(SHOP, &bytes);
    eventually(SOON, "the new code to answer", || match generation() {
        now if now.is_some() && now > before => Ok(()),
        now => Err(format!("generation {now:?} answers, {}", host.plugin(SHOP))),
    });
}

/// Compares what the clients were answered with what data and service say of each of them.
fn audit(host: &TestHost, tallies: &[Tally], outcome: &mut Outcome) {
    let total: usize = tallies.iter().map(Tally::answers).sum();
    let mut expected = total.to_string();
    for (client, tally) in tallies.iter().enumerate() {
        let answers = tally.answers();
        expected.push_str(&format!(" c{client}={answers}/{answers}"));
        outcome.failed += tally.failures.len() as u64;
        outcome
            .wrong
            .extend(tally.failures.iter().take(2).map(|failure| format!("a request failed: {failure}")));
    }
    outcome.requests = total as u64;
    let found = Client::new(host.listen()).get("/shop/sums").map(|answer| answer.text()).unwrap_or_default();
    if found != expected {
        outcome.wrong.push(format!("the plugin counted `{found}`, its clients `{expected}`"));
    }
    for key in ["counts", "counter"] {
        let slot = host.slot(key);
        if slot.created_by() != (SHOP.to_owned(), 1) || slot.reloads_survived() != outcome.reloads {
            outcome.wrong.push(format!("`{key}` was not made once and kept: {slot}"));
        }
    }
}

/// What is left of the generations: the service's own, and as much memory as in the beginning.
fn judge_leftovers(host: &TestHost, outcome: &mut Outcome) {
    let expected = [(1, vec!["service `counter`".to_owned()])];
    eventually(SOON, "every generation but the service's to be unmapped", || {
        let status = host.plugin(SHOP);
        (outcome.unmapped, outcome.parked) = (status.unloaded(), status.parked().len() as u64);
        if status.parked() == expected && outcome.unmapped + 1 == outcome.reloads {
            Ok(())
        } else {
            Err(format!("{} unmapped, parked {:?}", outcome.unmapped, status.parked()))
        }
    });
    judge_memory(outcome);
}
