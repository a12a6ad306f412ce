//! `./tests/outage`: a database server killed under load, and the times it took.
//!
//! Exits with 1 when what clients were told and what the database has differ, with 2 when the arguments
//! make no sense.

use std::process::ExitCode;
use std::time::Duration;

use tests::outage::{Plan, run};

const USAGE: &str = "usage: ./tests/outage [--clients N] [--outage-ms N] [--requests N] [--reloads] [--pgbouncer] \
                     [--json]";

fn main() -> ExitCode {
    let mut plan = Plan {
        clients: 32,
        outage: Duration::from_secs(2),
        requests: 2_000,
        reloads: false,
        pgbouncer: false,
    };
    let mut json = false;
    let mut args = std::env::args().skip(1);
    while let Some(flag) = args.next() {
        match flag.as_str() {
            "--json" => json = true,
            "--reloads" => plan.reloads = true,
            "--pgbouncer" => plan.pgbouncer = true,
            _ => {
                let Some(number) = args.next().and_then(|value| value.parse::<u64>().ok()) else {
                    return usage(&format!("{flag} needs a number"));
                };
                match flag.as_str() {
                    "--clients" => plan.clients = number.max(1),
                    "--outage-ms" => plan.outage = Duration::from_millis(number),
                    "--requests" => plan.requests = number,
                    _ => return usage(&format!("there is no {flag}")),
                }
            }
        }
    }
    let outcome = run(plan);
    if json {
        println!("{}", serde_json::to_string(&outcome).expect("numbers and texts are JSON"));
    } else {
        println!("acknowledged          {:>8}", outcome.acknowledged);
        println!("refused (503)         {:>8}", outcome.refused);
        println!("unknown outcome (500) {:>8}", outcome.unknown);
        println!("reloads meanwhile     {:>8}", outcome.reloads);
        println!(
            "while down            {:>8} answered; ms: p50 {:.2}, p99 {:.2}, max {:.2}",
            outcome.during, outcome.down_p50_ms, outcome.down_p99_ms, outcome.down_max_ms
        );
        println!("back                  {:>8.1} ms after the server", outcome.back_ms);
        for wrong in &outcome.wrong {
            println!("wrong: {wrong}");
        }
    }
    if outcome.wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn usage(problem: &str) -> ExitCode {
    eprintln!("{problem}\n{USAGE}");
    ExitCode::from(2)
}
