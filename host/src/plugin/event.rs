//! What happened to plugins: the newest events, for the log, the status page and the JSON face.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

use super::activity::Activity;
use crate::registry::unix_ms;

/// A wait that took less, in milliseconds, was none.
const BRIEF_MS: f64 = 1.0;

/// How many events are kept.
const KEPT: usize = 500;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// The first generation of a plugin serves.
    Loaded,
    /// A newer generation serves.
    Reloaded,
    /// The code of an earlier generation serves again, as a new generation.
    RolledBack,
    /// After a crash, the code that served before serves again.
    Resumed,
    /// The code of a generation has crashed the process that it served in.
    Crashed,
    /// New code did not become current. What served before still serves.
    Refused,
    /// A build brought the very library that serves already.
    Unchanged,
    /// The last request has left a generation, and its `on_unload` has run.
    Retired,
    /// The code of a generation that served, or was refused, has been unmapped.
    Unloaded,
    /// A handler of the current generation has passed its deadline, or so many have that its requests are
    /// turned away. It serves on.
    Degraded,
    /// A plugin was deleted.
    Removed,
}

/// One step of a reload and how long it took.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Step {
    /// `describe`, `queue`, `build`, `wait`, `stage`, `probe`, `open`, `init`, `publish`.
    pub step: &'static str,
    /// Milliseconds.
    pub ms: f64,
}

/// An event.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Event {
    /// Counts from 1.
    pub id: u64,
    /// Milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// What happened.
    pub event: EventKind,
    /// To which plugin.
    pub plugin: Arc<str>,
    /// The generation it is about; for a refusal, none.
    pub generation: Option<u64>,
    /// The generation that served before.
    pub previous_generation: Option<u64>,
    /// The step that refused.
    pub failed_step: Option<&'static str>,
    /// Why, in one sentence.
    pub reason: Option<String>,
    /// The compiler's words or other details, without colours.
    pub details: Option<String>,
    /// What upgrades of data that came with the code have dropped, by key, field and type.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dropped: Vec<String>,
    /// The steps taken.
    pub steps: Vec<Step>,
    /// Milliseconds of all steps together.
    pub ms: f64,
}

/// The newest events.
#[derive(Debug, Default)]
pub struct Events {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    events: VecDeque<Event>,
    last_id: u64,
}

impl Events {
    /// Records an event; fills in its id and time.
    pub(super) fn record(&self, mut event: Event) -> Event {
        let mut kept = self.kept.lock();
        kept.last_id += 1;
        event.id = kept.last_id;
        event.at_ms = unix_ms(SystemTime::now());
        if kept.events.len() == KEPT {
            kept.events.pop_back();
        }
        kept.events.push_front(event.clone());
        event
    }

    /// The newest first.
    pub fn newest(&self) -> Vec<Event> {
        self.kept.lock().events.iter().cloned().collect()
    }
}

/// Measures the steps of a reload, and shows each while it goes on.
#[derive(Debug)]
pub(super) struct Steps {
    done: Vec<Step>,
    /// Where the faces look.
    shown: Arc<Activity>,
}

impl Steps {
    /// Steps that are shown as what a plugin is at.
    pub(super) fn shown_by(activity: &Arc<Activity>) -> Steps {
        Steps { done: Vec::new(), shown: Arc::clone(activity) }
    }

    /// Runs a step and notes how long it took.
    pub(super) fn run<R>(&mut self, step: &'static str, body: impl FnOnce() -> R) -> R {
        let begun = std::time::Instant::now();
        self.shown.begin(step);
        let outcome = body();
        self.shown.end();
        self.done.push(Step { step, ms: ms(begun.elapsed()) });
        outcome
    }

    /// Forgets the last step if it took next to no time.
    pub(super) fn forget_brief(&mut self) {
        let _ = self.done.pop_if(|step| step.ms < BRIEF_MS);
    }

    /// All steps, in order.
    pub(super) fn into_list(self) -> Vec<Step> {
        self.done
    }

    /// Milliseconds of all steps together.
    pub(super) fn total(&self) -> f64 {
        round(self.done.iter().map(|step| step.ms).sum())
    }
}

/// Milliseconds with microseconds behind the point.
pub(super) fn ms(duration: Duration) -> f64 {
    round(duration.as_secs_f64() * 1e3)
}

fn round(ms: f64) -> f64 {
    (ms * 1e3).round() / 1e3
}
