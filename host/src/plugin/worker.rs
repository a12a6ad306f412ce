//! The thread of one plugin: it waits, looks, tries and obeys.
//!
//! # Invariants
//!
//! - One thing at a time, orders before looks.
//! - A source that stays away takes its plugin out of service, one that blinks does not.
//! - A package that is renamed serves under its old name until it has been built under the new one.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use plugin_api::abi::{UNLOAD_REMOVED, UNLOAD_SHUTDOWN};

use super::Shared;
use super::attempt::Look;
use super::event::{Event, EventKind};
use super::kept::Kept;
use super::own_output::OwnOutput;
use super::record::Plugin;
use super::rollback::OrderError;
use super::source::Source;
use super::stage::BuildId;
use crate::build::{DescribeError, Fingerprint, Package};
use crate::pins::{self, DrainOnDrop};
use crate::report::chain;

/// How long a source that has vanished may stay away before the plugin counts as deleted: linkers and
/// editors remove a file before they write the new one.
const VANISHED: Duration = Duration::from_millis(150);

/// A plugin with its thread.
pub(super) struct Worker {
    pub(super) plugin: Arc<Plugin>,
    /// Whether what served before a crash serves again, if anything did. Written by the thread, once.
    has_resumed: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    pub(super) fn start(
        shared: Arc<Shared>,
        plugin: Plugin,
        package: Option<Result<Package, DescribeError>>,
    ) -> io::Result<Worker> {
        let plugin = Arc::new(plugin);
        let of_thread = Arc::clone(&plugin);
        let has_resumed = Arc::new(AtomicBool::new(false));
        let resumed_on_thread = Arc::clone(&has_resumed);
        let thread =
            std::thread::Builder::new().name(format!("plugin {}", plugin.name)).spawn(move || {
                // A publish drops what an upgrade has left over: code of the plugin, on this thread.
                let _drain = DrainOnDrop;
                let bell = Arc::clone(&of_thread);
                pins::attend(move || bell.ring());
                let settings = &shared.settings;
                let is_resuming = settings.is_after_crash || shared.quarantine.concerns(&of_thread.name);
                let source = of_thread.source.path();
                let kept = Kept::of(&of_thread.name, source, &settings.state_dir, is_resuming);
                let mut attempts = Attempts {
                    shared,
                    plugin: of_thread,
                    package,
                    tried: None,
                    served: None,
                    failed: None,
                    is_echo: false,
                    own_output: OwnOutput::default(),
                    wanted_name: None,
                    tried_library: None,
                    resumed: None,
                    kept,
                    asked: Vec::new(),
                };
                if is_resuming || attempts.kept.is_rolled_back() {
                    attempts.resume();
                }
                resumed_on_thread.store(true, Ordering::Release);
                attempts.shared.notify_progress();
                attempts.run();
            })?;
        Ok(Worker { plugin, has_resumed, thread: Some(thread) })
    }

    /// Whether what served before a crash serves again, if anything did.
    pub(super) fn has_resumed(&self) -> bool {
        self.has_resumed.load(Ordering::Acquire)
    }

    /// Waits for the thread and lets go of what serves.
    pub(super) fn retire_for_shutdown(mut self, shared: &Shared) {
        if let Some(thread) = self.thread.take() {
            // A panic of the worker was reported when it happened.
            let _ = thread.join();
        }
        if let Some(lease) = self.plugin.state.lock().current.take() {
            shared.end(&lease, UNLOAD_SHUTDOWN);
        }
    }
}

/// The worker's loop.
pub(super) struct Attempts {
    pub(super) shared: Arc<Shared>,
    pub(super) plugin: Arc<Plugin>,
    /// The package, as of its manifest; `None` when it has to be described anew.
    pub(super) package: Option<Result<Package, DescribeError>>,
    /// What the last attempt was made from.
    pub(super) tried: Option<Fingerprint>,
    /// What the code that serves was made from, if that is known.
    pub(super) served: Option<Fingerprint>,
    /// What the files were like when the last build, which failed, had ended.
    pub(super) failed: Option<Fingerprint>,
    /// Whether nothing has changed since then.
    pub(super) is_echo: bool,
    /// What its builds change themselves.
    pub(super) own_output: OwnOutput,
    /// The name that the package has now and that another plugin has too.
    pub(super) wanted_name: Option<String>,
    /// The library of the last attempt.
    pub(super) tried_library: Option<BuildId>,
    /// What the process that crashed had made of the source; its outcome stands. Asked for once.
    pub(super) resumed: Option<BuildId>,
    /// What can be gone back to.
    pub(super) kept: Kept,
    /// Who waits for the outcome of the next attempt.
    pub(super) asked: Vec<Sender<Result<Event, OrderError>>>,
}

impl Attempts {
    fn run(mut self) {
        let mut seen = 0;
        while let Some(nudged) = self.plugin.wait(seen) {
            seen = nudged.nudges;
            for order in nudged.orders {
                self.obey(order);
            }
            if !self.plugin.begin_look() && self.asked.is_empty() {
                continue;
            }
            if self.shared.settings.freeze && self.plugin.has_outcome() {
                continue;
            }
            let look = match self.plugin.source.clone() {
                Source::Directory { path } => self.look_at_directory(&path, seen),
                Source::Library { path } => self.look_at_library(&path, seen),
            };
            let reason = match &look {
                Look::Vanished if self.is_gone() => {
                    Some(format!("{} is gone", self.plugin.source.path().display()))
                }
                Look::Renamed(name) => Some(format!("its package is named `{name}` now, and served as that")),
                _ => None,
            };
            if let Some(reason) = reason {
                self.plugin.stop();
                self.kept.clear();
                self.shared.remove(&self.plugin, reason);
                return;
            }
            if matches!(look, Look::Tried) {
                self.answer_asked();
            }
            self.shared.notify_progress();
        }
    }

    /// Makes the next look an attempt, whatever the content is.
    pub(super) fn forget_tried(&mut self) {
        self.package = None;
        self.tried = None;
        self.failed = None;
        self.tried_library = None;
        self.resumed = None;
    }

    /// Whether the source stays away.
    fn is_gone(&self) -> bool {
        let deadline = Instant::now() + VANISHED;
        while Instant::now() < deadline {
            if self.plugin.source.exists() || self.plugin.is_stopped() {
                self.plugin.nudge();
                return false;
            }
            let seen = self.plugin.work.lock().nudges;
            self.plugin.wait_for(seen, deadline.saturating_duration_since(Instant::now()));
        }
        !self.plugin.source.exists()
    }
}

impl Shared {
    /// Takes a plugin out of service because its source is gone, or another plugin's.
    pub(super) fn remove(self: &Arc<Self>, plugin: &Arc<Plugin>, reason: String) {
        self.plugins.lock().remove(&*plugin.name);
        self.rounds.leave(plugin);
        let lease = {
            let mut state = plugin.state.lock();
            state.is_removed = true;
            state.current.take()
        };
        let generation = lease.as_ref().map(|lease| lease.generation().number);
        if let Some(lease) = &lease {
            self.end(lease, UNLOAD_REMOVED);
        }
        self.removed.lock().push(Arc::clone(plugin));
        self.registry.note_gone(&plugin.name);
        self.publish_without_code(plugin);
        drop(lease);
        self.record(
            Event {
                previous_generation: generation,
                reason: Some(reason),
                ..plugin.event(EventKind::Removed, plugin.steps())
            },
            None,
        );
        self.duplicates.lock().clear();
        self.notify_progress();
        // Its name is free for one that lost to it, or for what was renamed to it; and its source for another name.
        if let Err(error) = self.adopt_all() {
            tracing::error!("{}", chain(&error));
        }
        self.watch_inputs();
        let others: Vec<_> = self.plugins.lock().values().map(|worker| Arc::clone(&worker.plugin)).collect();
        others.iter().for_each(|other| other.nudge());
    }
}
