//! Commands that tell a running host to do something to a plugin: `rollback`, `reload`.
//!
//! Speaks through the control socket, and reports what came of it: the host answers when the new
//! generation serves. `--json` passes the event on as it is.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::args::{ReloadArgs, RollbackArgs};
use super::settings::state_dir;
use super::text::{harmless, took};
use super::{CliError, print, print_json};
use crate::admin::Client;

/// `host rollback`.
pub(super) fn rollback(args: &RollbackArgs) -> Result<ExitCode, CliError> {
    let client = Client::new(&state_dir(&args.ask.place)?);
    let event = client.tell(&args.name, "rollback", &json!({ "generation": args.generation }))?;
    report(&event, args.ask.json)
}

/// `host reload`.
pub(super) fn reload(args: &ReloadArgs) -> Result<ExitCode, CliError> {
    let client = Client::new(&state_dir(&args.ask.place)?);
    let event = client.tell(&args.name, "reload", &json!({}))?;
    report(&event, args.ask.json)
}

/// Shows the event; a refusal is a failure of the command.
fn report(event: &Value, is_json: bool) -> Result<ExitCode, CliError> {
    let code = if is_json { print_json(event)? } else { print(&outcome(event))? };
    Ok(if event["event"] == "refused" { ExitCode::from(1) } else { code })
}

/// `rolled back shop: generation 2 -> 3 in 12 ms: asked by the operator, back to the code of generation 1`.
pub(super) fn outcome(event: &Value) -> String {
    let text = |key: &str| event[key].as_str().map(harmless).unwrap_or_default();
    let what = text("event").replace('_', " ");
    let step = event["failed_step"].as_str().map(|step| format!(" at {step}")).unwrap_or_default();
    let generation = match (event["previous_generation"].as_u64(), event["generation"].as_u64()) {
        (Some(previous), Some(number)) => format!("generation {previous} -> {number}"),
        (None, Some(number)) => format!("generation {number}"),
        (Some(previous), None) => format!("generation {previous} still serves"),
        (None, None) => "it does not serve yet".to_owned(),
    };
    let reason = event["reason"].as_str().map(|reason| format!(": {}", harmless(reason))).unwrap_or_default();
    let time = took(event["ms"].as_f64().unwrap_or_default());
    format!("{what} {}{step}: {generation} in {time}{reason}\n", text("plugin"))
}
