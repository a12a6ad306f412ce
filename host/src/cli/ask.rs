//! Commands that ask a running host: `status`, `events`, `routes`.
//!
//! Shows what the control socket answers and knows nothing else; `--json` passes it on as it is.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::args::AskArgs;
use super::settings::state_dir;
use super::text::{Table, count, harmless, lasted, size, took, url, utc};
use super::{CliError, print, print_json};
use crate::admin::Client;

/// `host status`.
pub(super) fn status(args: &AskArgs) -> Result<ExitCode, CliError> {
    let client = Client::new(&state_dir(&args.place)?);
    let host = client.get("/api/host")?;
    let plugins = client.get("/api/plugins")?;
    if args.json {
        let registry = client.get("/api/registry")?;
        return print_json(
            &json!({ "host": host, "plugins": plugins["plugins"], "slots": registry["slots"] }),
        );
    }
    print(&status_text(&host, list(&plugins["plugins"]), now_ms()))
}

/// `host events`.
pub(super) fn events(args: &AskArgs) -> Result<ExitCode, CliError> {
    let answer = Client::new(&state_dir(&args.place)?).get("/api/events")?;
    if args.json { print_json(&answer) } else { print(&events_text(list(&answer["events"]))) }
}

/// `host routes`.
pub(super) fn routes(args: &AskArgs) -> Result<ExitCode, CliError> {
    let answer = Client::new(&state_dir(&args.place)?).get("/api/plugins")?;
    let mut all = Vec::new();
    for plugin in list(&answer["plugins"]) {
        for route in list(&plugin["routes"]) {
            let mut route = route.clone();
            route["plugin"] = plugin["name"].clone();
            route["generation"] = plugin["generation"].clone();
            all.push(route);
        }
    }
    if args.json {
        return print_json(&json!({ "routes": all }));
    }
    if all.is_empty() {
        return print("no routes: no plugin serves; `host status` tells why\n");
    }
    let mut table = Table::new(&["METHOD", "PATH", "KIND", "PLUGIN", "GENERATION"]);
    for route in &all {
        table.row(["method", "path", "kind", "plugin", "generation"].map(|key| word(&route[key])));
    }
    print(&table.render(""))
}

/// The host in two lines, a table of plugins, and below it what is wrong and what is parked.
pub(super) fn status_text(host: &Value, plugins: &[Value], now: u64) -> String {
    let numbers = &host["numbers"];
    let ready = if host["is_ready"] == true { "ready" } else { "not ready" };
    let uptime = lasted(host["uptime_ms"].as_u64().unwrap_or_default());
    let mut text = format!("host {}, pid {}, up {uptime}, {ready}\n", word(&host["version"]), host["pid"]);
    let address = |key: &str| host[key].as_str().and_then(|text| text.parse().ok()).map(url);
    // Writing to a `String` cannot fail.
    let _ = writeln!(
        text,
        "serving on {}, admin {}",
        address("listen").unwrap_or_default(),
        address("admin").map_or_else(|| "off".to_owned(), |url| format!("on {url}")),
    );
    let _ = writeln!(
        text,
        "{} answered, {} of them 5xx; {} in flight on {}\n",
        count(index(&numbers["requests"]), "request"),
        numbers["status_5xx"],
        numbers["in_flight"],
        count(index(&numbers["connections"]), "connection"),
    );
    if plugins.is_empty() {
        text.push_str("no plugins; make one with `host new hello`\n");
        return text;
    }
    let mut table = Table::new(&[
        "PLUGIN",
        "STATE",
        "GENERATION",
        "MOUNT",
        "REQUESTS",
        "IN FLIGHT",
        "HEAP",
        "LAST OUTCOME",
    ]);
    for plugin in plugins {
        let keys = ["name", "state", "generation", "mount", "requests", "in_flight"];
        let cells = keys.map(|key| word(&plugin[key]));
        let heap = plugin["heap_bytes"].as_i64().map(size).unwrap_or_default();
        table.row(cells.into_iter().chain([heap, outcome(&plugin["last_outcome"], now)]));
    }
    text.push_str(&table.render(""));
    for plugin in plugins {
        text.push_str(&troubles(plugin));
    }
    text
}

/// `reloaded 3 s ago in 312 ms`.
fn outcome(outcome: &Value, now: u64) -> String {
    let Some(event) = outcome["event"].as_str() else { return String::new() };
    let step = outcome["failed_step"].as_str().map(|step| format!(" at {step}")).unwrap_or_default();
    let age = lasted(now.saturating_sub(outcome["at_ms"].as_u64().unwrap_or(now)));
    let event = event.replace('_', " ");
    format!("{event}{step} {age} ago in {}", took(outcome["ms"].as_f64().unwrap_or_default()))
}

/// `build for 12 s (the build script of shop)`, or `queue for 3 s behind slow`.
fn going(activity: &Value) -> Option<String> {
    let step = activity["step"].as_str()?;
    let lasts = lasted(activity["lasts_ms"].as_u64().unwrap_or_default());
    let named = |key: &str| activity[key].as_str().map(harmless);
    let behind = named("behind").map(|names| format!(" behind {names}")).unwrap_or_default();
    let doing = named("doing").map(|doing| format!(" ({doing})")).unwrap_or_default();
    Some(format!("{step} for {lasts}{behind}{doing}"))
}

/// What a plugin is at, why the newest code of it does not serve, and what its earlier generations wait for.
fn troubles(plugin: &Value) -> String {
    let mut text = String::new();
    let name = word(&plugin["name"]);
    if let Some(going) = going(&plugin["activity"]) {
        // Writing to a `String` cannot fail.
        let _ = writeln!(text, "\n{name}: newer code is on its way: {going}");
    }
    if let Some(reason) = plugin["refused"].as_str() {
        let step = plugin["last_outcome"]["failed_step"].as_str();
        let at = step.map(|step| format!(" at {step}")).unwrap_or_default();
        let serves = match plugin["generation"].as_u64() {
            Some(number) => format!("; generation {number} still serves"),
            None => String::new(),
        };
        // Writing to a `String` cannot fail.
        let _ = if plugin["last_outcome"]["event"] == "rolled_back" {
            writeln!(text, "\n{name}: newest code does not serve: {}", harmless(reason))
        } else {
            writeln!(text, "\n{name}: newest code refused{at}: {}{serves}", harmless(reason))
        };
        for line in plugin["last_outcome"]["details"].as_str().unwrap_or_default().lines() {
            let _ = writeln!(text, "    {}", harmless(line));
        }
    }
    for dropped in list(&plugin["last_outcome"]["dropped"]).iter().map(word) {
        let _ = writeln!(text, "\n{name}: the edit has dropped data: {}", harmless(&dropped));
    }
    if let Some(reason) = plugin["degraded"].as_str() {
        let _ = writeln!(text, "\n{name}: degraded: {}", harmless(reason));
    }
    let mut held: BTreeMap<String, usize> = BTreeMap::new();
    for parked in list(&plugin["parked"]) {
        let by: Vec<String> = list(&parked["held_by"]).iter().map(word).collect();
        *held.entry(by.join(", ")).or_default() += 1;
    }
    for (by, number) in held {
        let _ = writeln!(text, "\n{name}: {number} parked: {by}");
    }
    text
}

/// A table of events.
pub(super) fn events_text(events: &[Value]) -> String {
    if events.is_empty() {
        return "nothing has happened yet\n".to_owned();
    }
    let mut table = Table::new(&["TIME (UTC)", "EVENT", "PLUGIN", "GENERATION", "TOOK", "REASON"]);
    for event in events {
        let (date, time) = utc(event["at_ms"].as_u64().unwrap_or_default() / 1000);
        let generation = match (event["previous_generation"].as_u64(), event["generation"].as_u64()) {
            (Some(previous), Some(number)) => format!("{previous} -> {number}"),
            (Some(number), None) | (None, Some(number)) => number.to_string(),
            (None, None) => String::new(),
        };
        let step = event["failed_step"].as_str().map(|step| format!("{step}: ")).unwrap_or_default();
        table.row([
            format!("{date} {time}"),
            word(&event["event"]),
            word(&event["plugin"]),
            generation,
            took(event["ms"].as_f64().unwrap_or_default()),
            format!("{step}{}", event["reason"].as_str().map(harmless).unwrap_or_default()),
        ]);
    }
    table.render("")
}

pub(super) fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// A value as a word: a text without its quotes, nothing for null.
pub(super) fn word(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => harmless(text),
        other => other.to_string(),
    }
}

fn index(value: &Value) -> usize {
    value.as_u64().and_then(|number| usize::try_from(number).ok()).unwrap_or_default()
}

pub(super) fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
