//! `host db`: the pools of a running host.
//!
//! Shows what the control socket answers and knows nothing else; `--json` passes it on as it is.

use std::fmt::Write as _;
use std::process::ExitCode;

use serde_json::Value;

use super::args::AskArgs;
use super::settings::state_dir;
use super::text::{Table, harmless, took, utc};
use super::{CliError, print, print_json};
use crate::admin::Client;

/// `host db`.
pub(super) fn db(args: &AskArgs) -> Result<ExitCode, CliError> {
    let answer = Client::new(&state_dir(&args.place)?).get("/api/db")?;
    let pools = answer["pools"].as_array().map(Vec::as_slice).unwrap_or_default();
    if args.json { print_json(&answer) } else { print(&db_text(pools)) }
}

/// A table of pools, and below it for each how long its borrowers waited, its slowest statements and
/// its last events.
pub(super) fn db_text(pools: &[Value]) -> String {
    if pools.is_empty() {
        return "no pools; a plugin opens one with `db::Pool::open`\n".to_owned();
    }
    let mut table = Table::new(&[
        "DATABASE",
        "STATE",
        "OPEN",
        "IDLE",
        "IN USE",
        "SHARED",
        "WAITING",
        "CONNECTS",
        "CLOSES",
        "REOPENS",
        "CHECKOUTS",
        "TIMEOUTS",
        "LEAKS",
    ]);
    let mut below = String::new();
    for pool in pools {
        let number = |key: &str| pool[key].as_u64().unwrap_or_default();
        let address = harmless(pool["address"].as_str().unwrap_or_default());
        let state = match (pool["is_closed"] == true, pool["is_down"] == true) {
            (true, _) => "closed",
            (false, true) => "down",
            (false, false) => "up",
        };
        let cells = [
            "idle",
            "in_use",
            "shared",
            "waiting",
            "connects",
            "closes",
            "reopens",
            "checkouts",
            "timeouts",
            "leaks",
        ];
        table.row(
            [address.clone(), state.to_owned(), format!("{} of {}", number("open"), number("max_size"))]
                .into_iter()
                .chain(cells.map(|key| number(key).to_string())),
        );
        let more = waits(&pool["waits"]) + &slowest(&pool["slowest"]) + &events(&pool["events"]);
        if !more.is_empty() {
            // Writing to a `String` cannot fail.
            let _ = write!(below, "\n{address}\n{more}");
        }
    }
    table.render("") + &below
}

/// How long those waited who had to.
fn waits(waits: &Value) -> String {
    let number = |key: &str| waits[key].as_u64().unwrap_or_default();
    let buckets = [
        ("below_1ms", "< 1 ms"),
        ("below_10ms", "< 10 ms"),
        ("below_100ms", "< 100 ms"),
        ("below_1s", "< 1 s"),
        ("longer", "longer"),
    ];
    if buckets.iter().all(|(key, _)| number(key) == 0) {
        return String::new();
    }
    let counts = buckets.map(|(key, label)| format!("{label}: {}", number(key)));
    format!("  waited  {}; longest {}\n", counts.join(", "), duration(number("longest_us")))
}

fn slowest(statements: &Value) -> String {
    let mut text = String::new();
    for statement in statements.as_array().into_iter().flatten() {
        let longest = duration(statement["longest_us"].as_u64().unwrap_or_default());
        let words: Vec<&str> =
            statement["statement"].as_str().unwrap_or_default().split_whitespace().collect();
        let words = harmless(&words.join(" "));
        // Writing to a `String` cannot fail.
        let _ = writeln!(text, "  slowest {longest:>9}  {words}");
    }
    text
}

fn events(events: &Value) -> String {
    let mut text = String::new();
    for event in events.as_array().into_iter().flatten() {
        let (date, time) = utc(event["at_ms"].as_u64().unwrap_or_default() / 1000);
        let (what, detail) = (event["event"].as_str(), event["detail"].as_str());
        let (what, detail) = (harmless(what.unwrap_or_default()), detail.unwrap_or_default());
        let first = harmless(detail.lines().next().unwrap_or_default());
        // Writing to a `String` cannot fail.
        let _ = writeln!(text, "  {date} {time}  {what}: {first}");
        for line in detail.lines().skip(1) {
            let _ = writeln!(text, "    {}", harmless(line));
        }
    }
    text
}

#[expect(clippy::cast_precision_loss, reason = "it is shown with three digits")]
fn duration(us: u64) -> String {
    took(us as f64 / 1000.0)
}
