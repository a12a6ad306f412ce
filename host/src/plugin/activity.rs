//! What a plugin's worker is at: which step, since when, and what it waits for.
//!
//! Written by the worker as its steps begin and end, read by the faces and by orders that took too long to be answered.

use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

use crate::build;
use crate::registry::unix_ms;

/// A step that is going on, as the faces show it.
#[derive(Debug, Clone, serde::Serialize)]
pub struct ActivityStatus {
    /// `describe`, `queue`, `build`, `wait`, `stage`, `vet`, `probe`, `open`, `init`, `upgrade`, `check`, `publish`.
    pub step: &'static str,
    /// When it began, in milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// For how long it has been going on, in milliseconds.
    pub lasts_ms: u64,
    /// The plugins it waits for, by name.
    pub behind: Option<String>,
    /// What it is doing, as far as that is known: `the build script of shop`.
    pub doing: Option<String>,
}

/// The step that a worker is at, if it is at one.
#[derive(Debug, Default)]
pub(super) struct Activity(Mutex<Option<Going>>);

#[derive(Debug)]
struct Going {
    step: &'static str,
    since: Instant,
    since_at: SystemTime,
    behind: Option<String>,
    doing: Option<String>,
}

impl Activity {
    /// A step begins.
    pub(super) fn begin(&self, step: &'static str) {
        let (since, since_at) = (Instant::now(), SystemTime::now());
        *self.0.lock() = Some(Going { step, since, since_at, behind: None, doing: None });
    }

    /// The step is over.
    pub(super) fn end(&self) {
        *self.0.lock() = None;
    }

    /// The step waits for these plugins.
    pub(super) fn wait_for(&self, behind: &str) {
        if let Some(going) = &mut *self.0.lock() {
            going.behind = Some(behind.to_owned()).filter(|names| !names.is_empty());
        }
    }

    /// What the step is about.
    pub(super) fn say(&self, doing: String) {
        if let Some(going) = &mut *self.0.lock() {
            going.doing = Some(doing);
        }
    }

    /// A build shows a sign of life.
    pub(super) fn note(&self, step: build::Step<'_>) {
        let doing = match step {
            build::Step::Queued { behind } => return self.wait_for(behind),
            build::Step::Blocked { words } => format!("waiting for another cargo: {words}"),
            build::Step::Fetching { words } => words.to_owned(),
            build::Step::Running { what } => what.to_owned(),
            build::Step::Compiling { name } => format!("compiling {name}"),
            build::Step::Compiled { name, done } => format!("compiled {name}, {done} crates so far"),
        };
        self.say(doing);
    }

    /// As the faces show it.
    pub(super) fn status(&self) -> Option<ActivityStatus> {
        self.0.lock().as_ref().map(|going| ActivityStatus {
            step: going.step,
            since_ms: unix_ms(going.since_at),
            lasts_ms: u64::try_from(going.since.elapsed().as_millis()).unwrap_or(u64::MAX),
            behind: going.behind.clone(),
            doing: going.doing.clone(),
        })
    }
}

impl ActivityStatus {
    /// `build for 12 s (the build script of shop)`, `queue for 3 s behind slow`.
    pub fn words(&self) -> String {
        let lasts = Duration::from_millis(self.lasts_ms).as_secs_f64();
        let behind = self.behind.as_ref().map(|names| format!(" behind {names}")).unwrap_or_default();
        let doing = self.doing.as_ref().map(|doing| format!(" ({doing})")).unwrap_or_default();
        format!("{} for {lasts:.1} s{behind}{doing}", self.step)
    }
}
