//! Code that has crashed the process, by content: it is not loaded again until somebody asks for it.
//!
//! The record that the supervisor has left is read once, by the process that was started after the crash.
//! What is decided survives further restarts: it is written in the state directory.
//!
//! # Invariants
//!
//! - Code is out at its first crash where other code of the plugin can serve, or where it was never live;
//!   where it is all there is, at its last one within the budget: a plugin that crashes now and then is
//!   better than none, and one that does nothing but crash must not take the others along.
//! - A crash that nobody's code can be named for puts nobody out.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use parking_lot::Mutex;

use super::kept::{Replacement, replacement};
use super::rollback::Probation;
use super::stage::BuildId;
use super::{CRASH_FILE, Settings};
use crate::pins::Crash;
use crate::registry::unix_ms;

/// Where in the state directory it is written down.
const FILE: &str = "quarantine.json";
/// How often code that cannot be replaced may crash, without a word in the settings.
const BUDGET: u64 = 3;
/// Crashes further apart than this do not add up.
const FORGET_MS: u64 = 10 * 60 * 1000;
/// How many contents are remembered; the oldest goes first.
const MOST: usize = 64;

/// Content that has crashed the process.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
struct Entry {
    plugin: String,
    build: String,
    /// The generation that crashed last.
    generation: u64,
    /// What happened then.
    reason: String,
    at_ms: u64,
    crashes: u64,
    is_out: bool,
}

/// All content that has crashed the process.
#[derive(Debug)]
pub(super) struct Quarantine {
    path: PathBuf,
    entries: Mutex<Vec<Entry>>,
    /// The crash that this process was started after, if somebody's code can be named for it.
    pub(super) last: Option<Crash>,
}

impl Quarantine {
    /// What is known, the crash that this process was started after included.
    pub(super) fn open(settings: &Settings) -> Quarantine {
        let last = if settings.is_after_crash { read_crash(&settings.state_dir) } else { None };
        let quarantine = Quarantine { last, ..Quarantine::of_state(&settings.state_dir) };
        if let Some(crash) = &quarantine.last {
            quarantine.note(crash, settings);
        }
        quarantine
    }

    fn note(&self, crash: &Crash, settings: &Settings) {
        let (Some(plugin), Some(build)) = (&crash.plugin, crash.build.as_deref().and_then(BuildId::parse))
        else {
            return;
        };
        let replacement = replacement(plugin, build, &settings.state_dir, |other| self.holds(plugin, other));
        let now = unix_ms(SystemTime::now());
        let budget = settings.probation.map_or(BUDGET, |Probation { budget, .. }| budget);
        let mut entries = self.entries.lock();
        let text = build.to_string();
        let known = entries.iter().position(|entry| entry.plugin == *plugin && entry.build == text);
        let before =
            known.map(|at| entries.remove(at)).filter(|before| now - before.at_ms.min(now) < FORGET_MS);
        let crashes = 1 + before.map_or(0, |before| before.crashes);
        entries.push(Entry {
            plugin: plugin.clone(),
            build: text,
            generation: crash.generation.unwrap_or_default(),
            reason: words(crash),
            at_ms: now,
            crashes,
            is_out: replacement != Replacement::Nothing || crashes >= budget,
        });
        if entries.len() > MOST {
            entries.remove(0);
        }
        self.save(&entries);
    }

    /// What is known in the state directory of a host that need not run.
    pub(super) fn of_state(state_dir: &Path) -> Quarantine {
        let path = state_dir.join(FILE);
        let known = fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        Quarantine { path, entries: Mutex::new(known.unwrap_or_default()), last: None }
    }

    /// Why this content of a plugin is not loaded, if it is not.
    pub(super) fn reason(&self, plugin: &str, build: BuildId) -> Option<String> {
        let entries = self.entries.lock();
        let build = build.to_string();
        let entry =
            entries.iter().find(|entry| entry.is_out && entry.plugin == plugin && entry.build == build)?;
        Some(format!(
            "quarantined, for it crashed the process as generation {} ({}); edit it, or try it again with \
             `host reload {plugin}`",
            entry.generation, entry.reason
        ))
    }

    /// Whether this content of a plugin is not loaded.
    pub(super) fn holds(&self, plugin: &str, build: BuildId) -> bool {
        self.reason(plugin, build).is_some()
    }

    /// Whether any content of a plugin is not loaded.
    pub(super) fn concerns(&self, plugin: &str) -> bool {
        self.entries.lock().iter().any(|entry| entry.is_out && entry.plugin == plugin)
    }

    /// Lets all content of a plugin be loaded again.
    pub(super) fn lift(&self, plugin: &str) {
        let mut entries = self.entries.lock();
        let before = entries.len();
        entries.retain(|entry| entry.plugin != plugin);
        if entries.len() != before {
            self.save(&entries);
        }
    }

    fn save(&self, entries: &[Entry]) {
        let text = serde_json::to_vec(entries).expect("entries are text and numbers");
        let new = self.path.with_extension("new");
        if let Err(error) = fs::write(&new, text).and_then(|()| fs::rename(&new, &self.path)) {
            tracing::warn!(%error, "cannot write {}; code that crashes may be tried again", self.path.display());
        }
    }
}

/// What happened, without whose code it was: `SIGSEGV at address 0x0 in GET /boom`.
pub(super) fn words(crash: &Crash) -> String {
    match (&crash.route, &crash.thread) {
        (Some(route), _) => format!("{} in {route}", crash.what()),
        (None, Some(thread)) => format!("{} on thread {thread}", crash.what()),
        (None, None) => crash.what(),
    }
}

/// The record of a crash that can be put down to somebody's code. It is read once.
fn read_crash(state_dir: &Path) -> Option<Crash> {
    let path = state_dir.join(CRASH_FILE);
    let crash = match fs::read(&path) {
        Ok(bytes) => serde_json::from_slice::<Crash>(&bytes).ok()?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::warn!(%error, "cannot read {}", path.display());
            return None;
        }
    };
    // Kept for people, under another name.
    let _ = fs::rename(&path, path.with_extension("last.json"));
    Some(crash).filter(|crash| crash.plugin.is_some() && crash.build.is_some())
}
