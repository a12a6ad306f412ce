//! What the host's JSON says, by name.
//!
//! Owns: paths and field names of the admin listener; a renamed field is one line here. Does not own:
//! asking for it.

use std::fmt::{self, Display, Formatter};

use serde_json::Value;

pub(super) const PLUGINS: &str = "/api/plugins";
pub(super) const REGISTRY: &str = "/api/registry";
pub(super) const EVENTS: &str = "/api/events";

pub(super) fn plugins(answer: &Value) -> Vec<PluginStatus> {
    list(answer, "plugins").into_iter().map(PluginStatus).collect()
}

pub(super) fn slots(answer: &Value) -> Vec<Slot> {
    list(answer, "slots").into_iter().map(Slot).collect()
}

pub(super) fn events(answer: &Value) -> Vec<Event> {
    list(answer, "events").into_iter().map(Event).collect()
}

/// A plugin as the host describes it.
#[derive(Clone, Debug)]
pub struct PluginStatus(Value);

impl PluginStatus {
    /// Its name.
    pub fn name(&self) -> String {
        text(&self.0["name"])
    }

    /// `serving`, `building`, `refused`.
    pub fn state(&self) -> String {
        text(&self.0["state"])
    }

    /// The current generation, if there is one.
    pub fn generation(&self) -> Option<u64> {
        self.0["generation"].as_u64()
    }

    /// Where it answers.
    pub fn mount(&self) -> String {
        text(&self.0["mount"])
    }

    /// Its routes, as `GET /path`.
    pub fn routes(&self) -> Vec<String> {
        let routes = list(&self.0, "routes");
        routes.iter().map(|route| format!("{} {}", text(&route["method"]), text(&route["path"]))).collect()
    }

    /// `source` or `library`.
    pub fn source_kind(&self) -> String {
        text(&self.0["source"]["kind"])
    }

    /// What became of the newest code: `loaded`, `reloaded`, `refused`.
    pub fn last_outcome(&self) -> String {
        text(&self.0["last_outcome"]["event"])
    }

    /// Why the newest code was refused; empty when it was not.
    pub fn reason(&self) -> String {
        text(&self.0["last_outcome"]["reason"])
    }

    /// The steps of the last outcome with their durations in milliseconds.
    pub fn steps(&self) -> Vec<(String, f64)> {
        let steps = list(&self.0["last_outcome"], "steps");
        steps.iter().map(|step| (text(&step["step"]), step["ms"].as_f64().unwrap_or(f64::NAN))).collect()
    }

    /// Retired generations that stay mapped, each with what holds it.
    pub fn parked(&self) -> Vec<(u64, Vec<String>)> {
        let parked = list(&self.0, "parked");
        let holders = |of: &Value| list(of, "held_by").iter().map(text).collect();
        parked.iter().map(|one| (one["generation"].as_u64().unwrap_or(0), holders(one))).collect()
    }

    /// Heap bytes of all its generations; `None` where it does not count.
    pub fn heap_bytes(&self) -> Option<i64> {
        self.0["heap_bytes"].as_i64()
    }

    /// What is wrong with the current generation; empty when nothing is.
    pub fn degraded(&self) -> String {
        text(&self.0["degraded"])
    }

    /// How many handlers of the current generation have passed their deadline.
    pub fn missed_deadlines(&self) -> u64 {
        self.0["missed_deadlines"].as_u64().unwrap_or(0)
    }

    /// How many of its generations have been unmapped.
    pub fn unloaded(&self) -> u64 {
        self.0["unloaded"].as_u64().unwrap_or(0)
    }
}

/// A slot of the registry.
#[derive(Clone, Debug)]
pub struct Slot(Value);

impl Slot {
    /// Its name.
    pub fn key(&self) -> String {
        text(&self.0["key"])
    }

    /// How its value survives: `host handle`, in whatever spelling.
    pub fn kind(&self) -> String {
        text(&self.0["kind"])
    }

    /// The value's type.
    pub fn type_name(&self) -> String {
        text(&self.0["type"])
    }

    /// Plugin and generation that made the value.
    pub fn created_by(&self) -> (String, u64) {
        let by = &self.0["created_by"];
        (text(&by["plugin"]), by["generation"].as_u64().unwrap_or(0))
    }

    /// How often it was asked for and there.
    pub fn hits(&self) -> u64 {
        self.0["hits"].as_u64().unwrap_or(0)
    }

    /// How many inits failed.
    pub fn failures(&self) -> u64 {
        self.0["failures"].as_u64().unwrap_or(0)
    }

    /// How many reloads the value has seen.
    pub fn reloads_survived(&self) -> u64 {
        self.0["reloads_survived"].as_u64().unwrap_or(0)
    }

    /// The last failed init's words; empty if none failed.
    pub fn last_error(&self) -> String {
        text(&self.0["last_error"])
    }
}

/// Something that happened to a plugin.
#[derive(Clone, Debug)]
pub struct Event(Value);

impl Event {
    /// Grows with time.
    pub fn id(&self) -> u64 {
        self.0["id"].as_u64().unwrap_or(0)
    }

    /// `loaded`, `reloaded`, `refused`, `retired`, ...
    pub fn kind(&self) -> String {
        text(&self.0["event"])
    }

    /// The plugin.
    pub fn plugin(&self) -> String {
        text(&self.0["plugin"])
    }

    /// The generation it is about.
    pub fn generation(&self) -> Option<u64> {
        self.0["generation"].as_u64()
    }

    /// Why; empty where that goes without saying.
    pub fn reason(&self) -> String {
        text(&self.0["reason"])
    }
}

impl Display for PluginStatus {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Display for Slot {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Display for Event {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A string without its quotes, nothing for null, anything else as it is written.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn list(of: &Value, field: &str) -> Vec<Value> {
    of[field].as_array().cloned().unwrap_or_default()
}
