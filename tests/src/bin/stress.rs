//! `./tests/stress`: reloads under load, and a table of what came of it.
//!
//! Exits with 1 when anything happened that must not, with 2 when the arguments make no sense.

use std::process::ExitCode;
use std::time::Duration;

use tests::stress::{Outcome, Plan, run, run_crashes, run_services, run_state};

const USAGE: &str = "usage: ./tests/stress [--seconds N] [--reloads N] [--clients N] [--lingerers N] [--state | --services] [--crashes N] [--json]";

fn main() -> ExitCode {
    let mut plan = Plan { duration: Duration::from_secs(60), reloads: u64::MAX, clients: 6, lingerers: 0 };
    let mut json = false;
    let mut is_timed = false;
    let mut with_state = false;
    let mut with_services = false;
    let mut crashes = 0;
    let mut args = std::env::args().skip(1);
    while let Some(flag) = args.next() {
        if flag == "--json" {
            json = true;
            continue;
        }
        if flag == "--state" {
            with_state = true;
            continue;
        }
        if flag == "--services" {
            with_services = true;
            continue;
        }
        let Some(number) = args.next().and_then(|value| value.parse::<u64>().ok()) else {
            return usage(&format!("{flag} needs a number"));
        };
        match flag.as_str() {
            "--seconds" => (plan.duration, is_timed) = (Duration::from_secs(number), true),
            "--crashes" => crashes = number,
            "--reloads" => plan.reloads = number,
            "--clients" => plan.clients = usize::try_from(number).unwrap_or(usize::MAX),
            "--lingerers" => plan.lingerers = number,
            _ => return usage(&format!("there is no {flag}")),
        }
    }
    if plan.reloads != u64::MAX && !is_timed {
        plan.duration = Duration::from_secs(24 * 3600);
    }
    if plan.lingerers > 0 && plan.reloads == u64::MAX {
        return usage("--lingerers needs --reloads, to spread them over");
    }
    if (with_state || with_services) && plan.reloads == u64::MAX {
        return usage("--state and --services need --reloads");
    }
    let outcome = match (crashes, with_state, with_services) {
        (0, false, false) => run(plan),
        (0, true, _) => run_state(plan.reloads, plan.clients),
        (0, false, true) => run_services(plan.reloads, plan.clients),
        (crashes, ..) => run_crashes(crashes, plan.clients),
    };
    if json {
        println!("{}", serde_json::to_string(&outcome).expect("numbers and texts are JSON"));
    } else {
        table(&outcome);
    }
    if outcome.wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn usage(words: &str) -> ExitCode {
    eprintln!("stress: {words}\n{USAGE}");
    ExitCode::from(2)
}

fn table(outcome: &Outcome) {
    for (name, value) in [
        ("requests", outcome.requests),
        ("failed", outcome.failed),
        ("reloads", outcome.reloads),
        ("refused", outcome.refused),
        ("unmapped", outcome.unmapped),
        ("parked", outcome.parked),
        ("rss_first_kb", outcome.rss_first_kb),
        ("rss_last_kb", outcome.rss_last_kb),
        ("maps_first", outcome.maps_first),
        ("maps_last", outcome.maps_last),
        ("crashes", outcome.crashes),
        ("safe_writes", outcome.safe_writes),
        ("sqlite_writes", outcome.sqlite_writes),
        ("postgres_writes", outcome.postgres_writes),
    ] {
        println!("{name:>15}  {value}");
    }
    for (name, value) in [
        ("rss_growth_%", outcome.rss_growth_percent),
        ("maps_growth_%", outcome.maps_growth_percent),
        ("seconds", outcome.seconds),
        ("p50_ms", outcome.p50_ms),
        ("p99_ms", outcome.p99_ms),
        ("reload_p50_ms", outcome.reload_p50_ms),
        ("reload_p99_ms", outcome.reload_p99_ms),
        ("restart_p50_ms", outcome.restart_p50_ms),
        ("restart_max_ms", outcome.restart_max_ms),
    ] {
        println!("{name:>15}  {value:.2}");
    }
    for (name, tenths) in
        [("rss_by_tenth", &outcome.rss_by_tenth_kb), ("maps_by_tenth", &outcome.maps_by_tenth)]
    {
        let tenths: Vec<_> = tenths.iter().map(u64::to_string).collect();
        println!("{name:>15}  {}", tenths.join(" "));
    }
    for wrong in &outcome.wrong {
        println!("wrong: {wrong}");
    }
}
