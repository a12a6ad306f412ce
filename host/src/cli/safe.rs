//! `host safe`: looks into safes, changes them, checks, backs up and restores.
//!
//! A running host carries the orders out, for it alone has the files open; where none is running this
//! process does it.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::Value;

use super::args::{AskArgs, SafeCommand};
use super::settings::state_dir;
use super::text::{Table, harmless};
use super::{CliError, print, print_json};
use crate::admin::{Client, ClientError};
use crate::config::FileConfig;
use crate::safe::{Order, Safes};

/// Does it.
pub(super) fn safe(command: SafeCommand) -> Result<ExitCode, CliError> {
    match command {
        SafeCommand::Stat { name, ask } => answer(&ask, &Order::Stat { safe: name }, stat_text),
        SafeCommand::Ls { name, prefix, limit, ask } => {
            answer(&ask, &Order::List { safe: name, prefix, limit }, list_text)
        }
        SafeCommand::Get { name, key, ask } => answer(&ask, &Order::Get { safe: name, key }, get_text),
        SafeCommand::Put { name, key, value, ask } => {
            let value = serde_json::from_str(&value).map_err(|error| {
                CliError::Usage(format!("the value is no JSON: {error}; put text into double quotes"))
            })?;
            answer(&ask, &Order::Put { safe: name, key, value }, |_| String::new())
        }
        SafeCommand::Rm { name, key, ask } => {
            answer(&ask, &Order::Remove { safe: name, key }, |_| String::new())
        }
        SafeCommand::Check { name, ask } => {
            let found = carry_out(&ask, &Order::Check { safe: name })?;
            let is_sound = list(&found["safes"]).iter().all(|safe| safe["is_sound"] == true);
            if ask.json {
                print_json(&found)?
            } else {
                print(&check_text(&found))?
            };
            Ok(if is_sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        SafeCommand::Backup { name, file, ask } => {
            let order = Order::Backup { safe: name, file: absolute(file)? };
            answer(&ask, &order, |found| told("backed up", found))
        }
        SafeCommand::Compact { name, ask } => answer(&ask, &Order::Compact { safe: name }, compact_text),
        SafeCommand::Migrate { name, from, to, ask } => {
            let order = Order::Migrate { safe: name, from, to };
            answer(&ask, &order, |found| format!("migrated {} entries\n", found["entries"]))
        }
        SafeCommand::Restore { name, file, ask } => {
            let order = Order::Restore { safe: name, file: absolute(file)? };
            answer(&ask, &order, |found| told("restored", found))
        }
    }
}

fn answer(ask: &AskArgs, order: &Order, text: impl Fn(&Value) -> String) -> Result<ExitCode, CliError> {
    let found = carry_out(ask, order)?;
    if ask.json { print_json(&found) } else { print(&text(&found)) }
}

/// By the host that runs there, or here.
fn carry_out(ask: &AskArgs, order: &Order) -> Result<Value, CliError> {
    let state_dir = state_dir(&ask.place)?;
    match Client::new(&state_dir).order(order) {
        Err(ClientError::NotRunning { .. }) => {
            let settings = FileConfig::find(ask.place.config.as_deref())?.safe;
            let safes = Safes::with(state_dir.join("safe"), settings);
            let found = safes.operate(order);
            safes.close();
            Ok(found?)
        }
        other => Ok(other?),
    }
}

/// The host may have another working directory.
fn absolute(file: PathBuf) -> Result<PathBuf, CliError> {
    std::path::absolute(&file).map_err(CliError::system(format!("find {}", file.display())))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn word(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => harmless(text),
        other => other.to_string(),
    }
}

fn stat_text(found: &Value) -> String {
    if list(&found["safes"]).is_empty() {
        return "no safes: no plugin has put anything yet\n".to_owned();
    }
    let mut table =
        Table::new(&["SAFE", "ENTRIES", "FILE BYTES", "FREE", "WRITES", "COMMITS", "SYNCS", "RECOVERIES"]);
    for safe in list(&found["safes"]) {
        let keys =
            ["name", "entries", "file_bytes", "free_bytes", "writes", "batches", "syncs", "recoveries"];
        table.row(keys.map(|key| word(&safe[key])));
    }
    let mut text = table.render("");
    for safe in list(&found["safes"]).iter().filter(|safe| safe["is_worth_compacting"] == true) {
        let name = word(&safe["name"]);
        // Writing to a `String` cannot fail.
        let _ = writeln!(
            text,
            "most of `{name}` is free room: `host safe compact {name}` gives it back; its plugin waits meanwhile"
        );
    }
    text
}

fn list_text(found: &Value) -> String {
    let entries = list(&found["entries"]);
    if entries.is_empty() {
        return "no entries\n".to_owned();
    }
    let mut table = Table::new(&["KEY", "BYTES", "VERSION", "EXPIRES AT MS"]);
    for entry in entries {
        table.row(["key", "bytes", "version", "expires_at_ms"].map(|key| word(&entry[key])));
    }
    let mut text = table.render("");
    if found["has_more"] == true {
        text.push_str("there are more; raise --limit\n");
    }
    text
}

fn get_text(found: &Value) -> String {
    match &found["value"] {
        Value::Null => format!("{}\n", word(&found["bytes"])),
        value => format!("{value:#}\n"),
    }
}

fn compact_text(found: &Value) -> String {
    let mut text = String::new();
    for safe in list(&found["safes"]) {
        let (name, freed, left) = (word(&safe["name"]), &safe["freed_bytes"], &safe["file_bytes"]);
        // Writing to a `String` cannot fail.
        let _ = writeln!(text, "{name}: {freed} bytes freed, {left} left");
    }
    text
}

fn check_text(found: &Value) -> String {
    let mut text = String::new();
    for safe in list(&found["safes"]) {
        let verdict = if safe["is_sound"] == true { "sound" } else { "DAMAGED" };
        // Writing to a `String` cannot fail.
        let _ = writeln!(text, "{}: {verdict}, {} entries", word(&safe["name"]), safe["entries"]);
        for key in list(&safe["damaged"]) {
            let _ = writeln!(text, "  {} does not match its checksum", word(key));
        }
    }
    text
}

fn told(done: &str, found: &Value) -> String {
    format!("{done} {} entries, {}\n", found["entries"], word(&found["file"]))
}
