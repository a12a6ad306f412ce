//! Plugins as the faces show them.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::activity::ActivityStatus;
use super::event::Event;
use super::generation::Generation;
use super::record::Plugin;
use super::source::Source;
use super::{Shared, Step, degraded};

/// A plugin.
#[derive(Debug, Clone, serde::Serialize)]
pub struct PluginStatus {
    /// Its name.
    pub name: String,
    /// What it is at.
    pub state: PluginState,
    /// The step that newer code of it is at, if there is any on its way.
    pub activity: Option<ActivityStatus>,
    /// The current generation.
    pub generation: Option<u64>,
    /// Where it comes from.
    pub source: SourceStatus,
    /// Where it answers.
    pub mount: String,
    /// What it serves.
    pub routes: Vec<RouteStatus>,
    /// Its own version.
    pub version: Option<String>,
    /// Requests the current generation has answered.
    pub requests: u64,
    /// Requests executing in it now.
    pub in_flight: u32,
    /// Panics of its handlers.
    pub panics: u64,
    /// Handlers of it that have passed their deadline.
    pub missed_deadlines: u64,
    /// What is wrong with the current generation, while it is: handlers that do not return.
    pub degraded: Option<String>,
    /// When the current generation was loaded, in milliseconds since the Unix epoch.
    pub loaded_at_ms: Option<u64>,
    /// Why the newest code does not serve, if it does not.
    pub refused: Option<String>,
    /// What came of the last attempt.
    pub last_outcome: Option<Outcome>,
    /// Earlier generations whose code is still mapped, draining ones included.
    pub parked: Vec<ParkedStatus>,
    /// How many earlier generations have been unmapped.
    pub unloaded: u64,
    /// Heap bytes that its code, of all generations, has allocated and not freed; `null` where the current
    /// generation does not count.
    pub heap_bytes: Option<i64>,
}

/// What a plugin is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PluginState {
    /// It has no generation yet and is being built or loaded.
    Building,
    /// It serves.
    Serving,
    /// It has no generation: its code was refused.
    Refused,
    /// It was deleted, and something still holds code of it.
    Removed,
}

/// Where a plugin comes from.
#[derive(Debug, Clone, serde::Serialize)]
pub struct SourceStatus {
    /// `directory` or `library`.
    pub kind: &'static str,
    /// Where it is.
    pub path: String,
}

/// A route.
#[derive(Debug, Clone, serde::Serialize)]
pub struct RouteStatus {
    /// Method.
    pub method: String,
    /// The whole pattern, mount included.
    pub path: String,
    /// `blocking` or `inline`.
    pub kind: &'static str,
}

/// What came of an attempt.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Outcome {
    /// `loaded`, `reloaded`, `rolled_back`, `refused`, `unchanged`.
    pub event: super::EventKind,
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// The step that refused.
    pub failed_step: Option<&'static str>,
    /// Why, in one sentence.
    pub reason: Option<String>,
    /// The compiler's words.
    pub details: Option<String>,
    /// What upgrades of data that came with the code have dropped, by key, field and type.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dropped: Vec<String>,
    /// The steps taken, and how long each took.
    pub steps: Vec<Step>,
    /// Milliseconds of all steps together.
    pub ms: f64,
}

/// A generation that does not serve and is still mapped.
#[derive(Debug, Clone, serde::Serialize)]
pub struct ParkedStatus {
    /// Its number.
    pub generation: u64,
    /// What holds it.
    pub held_by: Vec<String>,
}

impl Shared {
    pub(super) fn status(&self) -> Vec<PluginStatus> {
        let plugins: Vec<_> =
            self.plugins.lock().values().map(|worker| std::sync::Arc::clone(&worker.plugin)).collect();
        let mut all: Vec<PluginStatus> = plugins.iter().map(|plugin| self.status_of(plugin)).collect();
        all.extend(self.status_of_removed(|name| plugins.iter().any(|plugin| *plugin.name == *name)));
        all.sort_by(|one, other| one.name.cmp(&other.name));
        all
    }

    /// Deleted plugins of which code is held, but for those whose name another plugin has now, which shows what is parked
    /// under that name.
    fn status_of_removed(&self, is_taken: impl Fn(&str) -> bool) -> Vec<PluginStatus> {
        let removed = {
            let mut removed = self.removed.lock();
            removed.retain(|plugin| !is_taken(&plugin.name) && self.parked.is_held(&plugin.name));
            let mut names = HashSet::new();
            // The newest of a name.
            let newest = removed.iter().rev().filter(|plugin| names.insert(Arc::clone(&plugin.name)));
            newest.map(Arc::clone).collect::<Vec<_>>()
        };
        let status = |plugin: &Arc<Plugin>| PluginStatus {
            state: PluginState::Removed,
            refused: None,
            degraded: None,
            activity: None,
            ..self.status_of(plugin)
        };
        removed.iter().map(status).collect()
    }

    fn status_of(&self, plugin: &Plugin) -> PluginStatus {
        let parked = self.parked.status_of(&plugin.name);
        let unloaded = self.parked.unloaded(&plugin.name);
        let earlier = self.parked.bytes(&plugin.name);
        let activity = plugin.activity.status();
        let state = plugin.state.lock();
        let generation = state.current.as_ref().map(|lease| lease.generation());
        let refused = plugin.refusal.load();
        PluginStatus {
            name: plugin.name.to_string(),
            state: match (generation, &state.last_outcome) {
                (Some(_), _) => PluginState::Serving,
                (None, Some(_)) if activity.is_none() => PluginState::Refused,
                (None, _) => PluginState::Building,
            },
            activity,
            generation: generation.map(|g| g.number),
            source: match &plugin.source {
                Source::Directory { path } => {
                    SourceStatus { kind: "directory", path: path.display().to_string() }
                }
                Source::Library { path } => {
                    SourceStatus { kind: "library", path: path.display().to_string() }
                }
            },
            mount: if state.mount.is_empty() { "/".to_owned() } else { state.mount.clone() },
            routes: generation.map(|g| routes(g)).unwrap_or_default(),
            version: generation.map(|g| g.descriptor.version.clone()).filter(|v| !v.is_empty()),
            requests: generation.map_or(0, |g| g.requests()),
            in_flight: generation.map_or(0, |g| g.in_flight()),
            panics: generation.map_or(0, |g| g.panics.load(Ordering::Relaxed)),
            missed_deadlines: generation.map_or(0, |g| g.account.missed()),
            degraded: generation.and_then(|g| degraded::words(&g.account)),
            loaded_at_ms: generation.map(|g| g.loaded_at_ms()),
            refused: refused.as_ref().map(|refusal| refusal.reason.clone()),
            last_outcome: state.last_outcome.as_ref().map(Outcome::from),
            parked,
            unloaded,
            heap_bytes: generation
                .and_then(|g| g.library.heap_bytes())
                .map(|bytes| bytes.wrapping_add(earlier)),
        }
    }
}

impl From<&Event> for Outcome {
    fn from(event: &Event) -> Outcome {
        Outcome {
            event: event.event,
            at_ms: event.at_ms,
            failed_step: event.failed_step,
            reason: event.reason.clone(),
            details: event.details.clone(),
            dropped: event.dropped.clone(),
            steps: event.steps.clone(),
            ms: event.ms,
        }
    }
}

fn routes(generation: &Generation) -> Vec<RouteStatus> {
    let of = |route: &super::library::Route| RouteStatus {
        method: route.method.to_string(),
        path: match (generation.mount.as_str(), route.pattern.as_str()) {
            ("", pattern) => pattern.to_owned(),
            (mount, "/") => mount.to_owned(),
            (mount, pattern) => format!("{mount}{pattern}"),
        },
        kind: if route.is_inline { "inline" } else { "blocking" },
    };
    generation.library.routes.iter().map(of).collect()
}
