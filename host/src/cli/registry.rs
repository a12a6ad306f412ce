//! `host registry`: what outlives code, who made it, and what it has been through.

use std::fmt::Write as _;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::args::{AskArgs, RegistryArgs, RegistryCommand};
use super::ask::{list, now_ms, word};
use super::settings::state_dir;
use super::text::{Table, count, harmless, lasted, utc};
use super::{CliError, print, print_json};
use crate::admin::Client;

/// Does it.
pub(super) fn registry(args: RegistryArgs) -> Result<ExitCode, CliError> {
    match args.command {
        None => list_all(&args.ask),
        Some(RegistryCommand::Ls { ask }) => list_all(&ask),
        Some(RegistryCommand::Show { key, ask }) => {
            let slot = find(&client(&ask)?, &key)?;
            if ask.json { print_json(&slot) } else { print(&slot_text(&slot, now_ms())) }
        }
        Some(RegistryCommand::Rm { key, ask }) => {
            let client = client(&ask)?;
            let slot = find(&client, &key)?;
            let answer =
                client.registry(&json!({ "remove": { "module": slot["module"], "key": slot["key"] } }))?;
            if ask.json { print_json(&answer) } else { print(&removed_text(&slot)) }
        }
    }
}

fn client(ask: &AskArgs) -> Result<Client, CliError> {
    Ok(Client::new(&state_dir(&ask.place)?))
}

fn list_all(ask: &AskArgs) -> Result<ExitCode, CliError> {
    let answer = client(ask)?.get("/api/registry")?;
    if ask.json { print_json(&answer) } else { print(&registry_text(list(&answer["slots"]), now_ms())) }
}

/// The slot that `ls` prints under this name.
fn find(client: &Client, key: &str) -> Result<Value, CliError> {
    let answer = client.get("/api/registry")?;
    let found: Vec<&Value> = list(&answer["slots"]).iter().filter(|slot| name(slot) == key).collect();
    match found[..] {
        [slot] => Ok(slot.clone()),
        [] => {
            let names: Vec<String> = list(&answer["slots"]).iter().map(name).collect();
            Err(CliError::NoKey { key: key.to_owned(), known: names.join(", ") })
        }
        _ => Err(CliError::Usage(format!(
            "`{key}` names two keys, one of which is in a module; give one of them another name"
        ))),
    }
}

/// `KEY`, or `MODULE/KEY`.
fn name(slot: &Value) -> String {
    match slot["module"].as_str() {
        Some(module) if !module.is_empty() => format!("{}/{}", harmless(module), word(&slot["key"])),
        _ => word(&slot["key"]),
    }
}

/// A table of slots, and below it orphans and the last failures.
pub(super) fn registry_text(slots: &[Value], now: u64) -> String {
    if slots.is_empty() {
        return "nothing in the registry yet; it holds what plugins open with `registry::get_or_init`\n"
            .to_owned();
    }
    let headings =
        ["KEY", "STATE", "TYPE", "CREATED BY", "AGE", "HITS", "FAILURES", "RELOADS SURVIVED", "USED BY"];
    let mut table = Table::new(&headings);
    let mut below = String::new();
    for slot in slots {
        let age = slot["created_at_ms"].as_u64().map(|at| lasted(now.saturating_sub(at)));
        table.row([
            name(slot),
            word(&slot["state"]),
            word(&slot["type"]),
            author(&slot["created_by"]),
            age.unwrap_or_default(),
            word(&slot["hits"]),
            word(&slot["failures"]),
            word(&slot["reloads_survived"]),
            words(&slot["used_by"]),
        ]);
        if slot["is_orphan"] == true {
            // Writing to a `String` cannot fail.
            let _ = writeln!(below, "\n{}: {ORPHAN}", name(slot));
        }
        if let Some(failure) = failure(slot, now) {
            let _ = writeln!(below, "\n{}: {failure}", name(slot));
        }
        if let Some(kept) = kept(slot) {
            let _ = writeln!(below, "\n{}: {kept}", name(slot));
        }
    }
    table.render("") + &below
}

const ORPHAN: &str = "an orphan: nobody has asked for it since those who used it were reloaded or deleted; \
                      `host registry rm` lets go of it";

/// What a roll-back brings back.
fn kept(slot: &Value) -> Option<String> {
    let kept = slot.get("kept").filter(|kept| kept.is_object())?;
    let left = lasted(kept["for_ms"].as_u64().unwrap_or_default());
    Some(format!(
        "the value that {} left is kept for {left} more, with {}; `host rollback` of that plugin brings it back",
        word(&kept["of"]),
        words(&kept["lost"])
    ))
}

/// All that is known of a slot.
pub(super) fn slot_text(slot: &Value, now: u64) -> String {
    let mut text = format!("{}: {}\n", name(slot), story(slot, now));
    let mut table = Table::default();
    let kind = slot["kind"].as_str().map(|kind| format!("{}, {kind}", word(&slot["type"])));
    let made = slot["created_at_ms"].as_u64().map(|at| {
        let (date, time) = utc(at / 1000);
        format!("by {} at {date} {time} UTC", author(&slot["created_by"]))
    });
    let policy = match slot["policy"].as_str() {
        Some("restart") => "made anew by each generation",
        Some("configuration") => "kept as long as its configuration is the same",
        Some(_) => "kept",
        None => "",
    };
    let rows = [
        ("type", kind.unwrap_or_default()),
        ("made", made.unwrap_or_default()),
        ("reloads", policy.to_owned()),
        ("config", or_nothing(&slot["config"])),
        (
            "asked",
            format!(
                "{} answered by the host (what a generation remembers is not counted)",
                word(&slot["hits"])
            ),
        ),
        ("failures", word(&slot["failures"])),
        ("used by", words(&slot["used_by"])),
        ("value", or_nothing(&slot["value"])),
    ];
    for (what, told) in rows {
        if !told.is_empty() {
            table.row([what.to_owned(), told]);
        }
    }
    text.push_str(&table.render("  "));
    let failure = failure(slot, now).into_iter();
    for line in failure.chain(kept(slot)).chain((slot["is_orphan"] == true).then(|| ORPHAN.to_owned())) {
        // Writing to a `String` cannot fail.
        let _ = writeln!(text, "\n{line}");
    }
    text
}

/// `connected once, survived 47 reloads`.
fn story(slot: &Value, now: u64) -> String {
    let number = |key: &str| slot[key].as_u64().unwrap_or_default();
    let times = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    match slot["state"].as_str() {
        Some("ready") => {
            let made = match (slot["kind"].as_str(), number("made")) {
                (Some("host handle"), 1) => "connected once".to_owned(),
                (Some("host handle"), n) => format!("connected {n} times"),
                (_, 1) => "made once".to_owned(),
                (_, n) => format!("made {n} times"),
            };
            let age = lasted(now.saturating_sub(number("created_at_ms")));
            format!("{made}, survived {}, {age} old", count(times(number("reloads_survived")), "reload"))
        }
        Some("opening") => {
            format!("{} has been making it for {}", author(&slot["created_by"]), lasted(number("opening_ms")))
        }
        Some("backing_off") => {
            let error = &slot["last_error"];
            let attempts = times(error["attempts"].as_u64().unwrap_or_default());
            format!("failed {} in a row, next try in {} ms", count(attempts, "time"), error["next_try_in_ms"])
        }
        _ => "empty".to_owned(),
    }
}

/// The last failure, and when the next try is due.
fn failure(slot: &Value, now: u64) -> Option<String> {
    let error = &slot["last_error"];
    let message = error["message"].as_str()?;
    let age = lasted(now.saturating_sub(error["at_ms"].as_u64().unwrap_or(now)));
    let next = match error["next_try_in_ms"].as_u64() {
        Some(ms) if ms > 0 => format!(" (next try in {ms} ms)"),
        _ => String::new(),
    };
    Some(format!("{} failed {age} ago: {}{next}", author(&error["by"]), harmless(message)))
}

fn removed_text(slot: &Value) -> String {
    let mut text = format!("removed {}; who asks next makes a new one\n", name(slot));
    let users = words(&slot["used_by"]);
    if !users.is_empty() {
        // Writing to a `String` cannot fail.
        let _ = writeln!(
            text,
            "what plugins hold of it they keep, in a `Lazy` until their next reload; it was used by {users}"
        );
    }
    text
}

fn author(author: &Value) -> String {
    match author["plugin"].as_str() {
        Some(plugin) => format!("{} g{}", harmless(plugin), author["generation"]),
        None => String::new(),
    }
}

fn words(values: &Value) -> String {
    let words: Vec<String> = list(values).iter().map(word).collect();
    words.join(", ")
}

fn or_nothing(value: &Value) -> String {
    if value.is_null() { String::new() } else { harmless(&value.to_string()) }
}
