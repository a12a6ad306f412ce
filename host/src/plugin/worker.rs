//! One plugin, and the thread that takes it from an edit to a new generation.
//!
//! # Invariants
//!
//! - One attempt at a time, always for the newest content: a newer edit cancels a build that has become
//!   stale, and broken code is tried once per edit.
//! - What was tried is remembered by content: a touch does nothing, an older file with other content does.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwapOption;
use parking_lot::{Condvar, Mutex};
use plugin_api::abi::{UNLOAD_REMOVED, UNLOAD_SHUTDOWN};

use super::descriptor::{self, DescriptorError};
use super::event::{Event, EventKind, Steps};
use super::generation::Lease;
use super::load::{Loaded, Refused};
use super::rollback::{Kept, OnProbation, Order, OrderError};
use super::router::Refusal;
use super::stage::BuildId;
use super::{Settings, Shared};
use crate::build::{BuildError, Cancel, DescribeError, Fingerprint, Inputs, Package};
use crate::report::chain;
use crate::watch::scan::Candidate;
use crate::watch::{Change, Depth};

/// How long a source that has vanished may stay away before the plugin counts as deleted: linkers and
/// editors remove a file before they write the new one.
const VANISHED: Duration = Duration::from_millis(150);

/// How long an emptied source file may stay empty before it counts as meant.
const EMPTIED: Duration = Duration::from_millis(60);

/// A library that is cut short counts as being copied until it has not grown for this long.
const HALF_WRITTEN: Duration = Duration::from_secs(2);

/// Where a plugin comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A cargo package, to be built.
    Directory {
        /// Its directory, without symlinks.
        path: PathBuf,
    },
    /// A library, already built.
    Library {
        /// Where it lies in the plugins directory.
        path: PathBuf,
        /// The file itself, elsewhere if `path` is a symlink.
        real: PathBuf,
    },
}

impl Source {
    /// The directory or file.
    pub fn path(&self) -> &Path {
        match self {
            Source::Directory { path } | Source::Library { path, .. } => path,
        }
    }

    pub(super) fn is(&self, candidate: &Candidate) -> bool {
        match (self, candidate) {
            (Source::Directory { path }, Candidate::Source { directory }) => path == directory,
            (Source::Library { path, .. }, Candidate::Library { path: other, .. }) => path == other,
            _ => false,
        }
    }

    fn exists(&self) -> bool {
        match self {
            Source::Directory { path } => path.join("Cargo.toml").exists(),
            Source::Library { path, .. } => path.is_file(),
        }
    }
}

/// A plugin: a name, a source, and the generation that serves.
#[derive(Debug)]
pub struct Plugin {
    /// Its name.
    pub name: Arc<str>,
    /// Where it comes from.
    pub source: Source,
    /// Why the newest code does not serve. Written by the worker, read by every request's response.
    pub(super) refusal: Arc<ArcSwapOption<Refusal>>,
    /// Written by the worker, read by faces.
    pub(super) state: Mutex<State>,
    work: Mutex<Work>,
    /// Signalled when there is something to do.
    wake: Condvar,
}

/// What the faces show of a plugin.
#[derive(Debug)]
pub(super) struct State {
    /// What serves.
    pub(super) current: Option<Arc<Lease>>,
    /// Where it answers, as far as that is known.
    pub(super) mount: String,
    /// The number the next generation gets.
    pub(super) next_generation: u64,
    pub(super) is_building: bool,
    pub(super) last_outcome: Option<Event>,
    /// While the current generation may still be taken back. Written by the worker, read at every panic.
    pub(super) on_probation: Option<OnProbation>,
    /// Whether the plugin has been taken out; nothing is published for it any more.
    pub(super) is_removed: bool,
}

/// What the worker has to do.
#[derive(Debug, Default)]
struct Work {
    /// Counts changes and orders; the worker is behind if it has seen fewer.
    nudges: u64,
    /// Whether the source may have changed since the last look at it.
    has_changed: bool,
    /// Whether the worker looks at the source, or builds it.
    is_looking: bool,
    /// What was asked for, in this order.
    orders: Vec<Order>,
    stop: bool,
    /// The build that runs, and what it is made from.
    building: Option<(Cancel, Fingerprint)>,
    /// What the newest build was made from.
    inputs: Option<Inputs>,
}

impl Plugin {
    pub(super) fn new(name: &str, source: Source, settings: &Settings) -> Plugin {
        let mount = settings.mounts.get(name).cloned().unwrap_or_else(|| format!("/{name}"));
        Plugin {
            name: name.into(),
            source,
            refusal: Arc::default(),
            state: Mutex::new(State {
                current: None,
                mount: if mount == "/" { String::new() } else { mount },
                next_generation: 1,
                is_building: false,
                last_outcome: None,
                on_probation: None,
                is_removed: false,
            }),
            work: Mutex::new(Work { nudges: 1, has_changed: true, ..Work::default() }),
            wake: Condvar::new(),
        }
    }

    pub(super) fn has_outcome(&self) -> bool {
        let state = self.state.lock();
        state.last_outcome.is_some() || state.is_removed
    }

    /// The directories whose changes concern this plugin.
    pub(super) fn directories(&self) -> BTreeMap<PathBuf, Depth> {
        match &self.source {
            Source::Library { path, real } => {
                [path, real].into_iter().filter_map(|p| Some((p.parent()?.to_owned(), Depth::Flat))).collect()
            }
            Source::Directory { path } => match &self.work.lock().inputs {
                Some(inputs) => inputs.directories(),
                None => BTreeMap::from([(path.clone(), Depth::Flat), (path.join("src"), Depth::Tree)]),
            },
        }
    }

    pub(super) fn is_concerned(&self, change: &Change) -> bool {
        let Change::Paths(paths) = change else { return true };
        match &self.source {
            Source::Library { path, real } => {
                paths.iter().any(|p| p == path || p == real || path.starts_with(p))
            }
            Source::Directory { path } => match &self.work.lock().inputs {
                Some(inputs) => paths.iter().any(|p| inputs.concern(p) || path.starts_with(p)),
                None => paths.iter().any(|p| p.starts_with(path) || path.starts_with(p)),
            },
        }
    }

    /// Wakes the worker, and cancels a build whose sources are no longer what they were.
    pub(super) fn nudge(&self) {
        let mut work = self.work.lock();
        work.nudges += 1;
        work.has_changed = true;
        if let (Some((cancel, before)), Some(inputs)) = (&work.building, &work.inputs) {
            let now = Fingerprint::of(inputs);
            // cargo writes the lock file itself.
            let is_stale =
                now.changed_since(before).iter().any(|p| p.file_name().is_none_or(|n| n != "Cargo.lock"));
            if is_stale {
                cancel.cancel();
            }
        }
        self.wake.notify_all();
    }

    /// Gives the worker something to do. It breaks off a look at the source, which is made up for later.
    pub(super) fn order(&self, order: Order) {
        let mut work = self.work.lock();
        if work.stop {
            return;
        }
        work.nudges += 1;
        work.orders.push(order);
        if work.is_looking {
            work.has_changed = true;
        }
        if let Some((cancel, _)) = &work.building {
            cancel.cancel();
        }
        self.wake.notify_all();
    }

    /// Ends the worker; a running build is cancelled, and orders are not carried out any more.
    pub(super) fn stop(&self) {
        let mut work = self.work.lock();
        work.stop = true;
        work.orders.clear();
        if let Some((cancel, _)) = &work.building {
            cancel.cancel();
        }
        self.wake.notify_all();
    }

    /// Waits for a nudge after the `seen`-th; `None` when the worker is to end.
    fn wait(&self, seen: u64) -> Option<Nudged> {
        let mut work = self.work.lock();
        work.is_looking = false;
        while work.nudges == seen && !work.stop {
            self.wake.wait(&mut work);
        }
        (!work.stop).then(|| Nudged { nudges: work.nudges, orders: std::mem::take(&mut work.orders) })
    }

    /// Tells whether the source is to be looked at; then the look has begun.
    fn begin_look(&self) -> bool {
        let mut work = self.work.lock();
        work.is_looking = std::mem::take(&mut work.has_changed);
        work.is_looking
    }

    /// The number of the current generation.
    pub(super) fn current_number(&self) -> Option<u64> {
        self.state.lock().current.as_ref().map(|lease| lease.generation().number)
    }

    /// An event about this plugin that says nothing else yet.
    pub(super) fn event(&self, kind: EventKind, steps: Steps) -> Event {
        Event {
            id: 0,
            at_ms: 0,
            event: kind,
            plugin: Arc::clone(&self.name),
            generation: None,
            previous_generation: None,
            failed_step: None,
            reason: None,
            details: None,
            ms: steps.total(),
            steps: steps.0,
        }
    }

    /// Waits for a nudge after the `seen`-th, at most `patience`; tells whether one came.
    fn wait_for(&self, seen: u64, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let mut work = self.work.lock();
        while work.nudges == seen && !work.stop {
            if self.wake.wait_until(&mut work, deadline).timed_out() {
                return work.nudges != seen || work.stop;
            }
        }
        true
    }

    fn is_stopped(&self) -> bool {
        self.work.lock().stop
    }
}

/// What a worker wakes up to.
struct Nudged {
    /// How many nudges there have been.
    nudges: u64,
    orders: Vec<Order>,
}

/// A plugin with its thread.
pub(super) struct Worker {
    pub(super) plugin: Arc<Plugin>,
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
        let thread =
            std::thread::Builder::new().name(format!("plugin {}", plugin.name)).spawn(move || {
                let kept = Kept::of(&of_thread.name, &shared.settings);
                let (tried, tried_library, asked) = (None, None, Vec::new());
                Attempts { shared, plugin: of_thread, package, tried, tried_library, kept, asked }.run();
            })?;
        Ok(Worker { plugin, thread: Some(thread) })
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
    package: Option<Result<Package, DescribeError>>,
    /// What the last attempt was made from.
    tried: Option<Fingerprint>,
    /// The library of the last attempt.
    tried_library: Option<BuildId>,
    /// What can be gone back to.
    pub(super) kept: Kept,
    /// Who waits for the outcome of the next attempt.
    pub(super) asked: Vec<Sender<Result<Event, OrderError>>>,
}

/// What became of a look at the source.
enum Look {
    /// Nothing is new, or it is not settled yet.
    Nothing,
    /// A newer edit came in between.
    Superseded,
    /// The source is gone.
    Vanished,
    /// New code was tried, with this outcome.
    Tried,
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
            let look = match self.plugin.source.clone() {
                Source::Directory { path } => self.look_at_directory(&path, seen),
                Source::Library { path, .. } => self.look_at_library(&path, seen),
            };
            if matches!(look, Look::Vanished) && self.is_gone() {
                self.plugin.stop();
                self.kept.clear();
                self.shared.remove(&self.plugin);
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
        self.tried_library = None;
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

    fn look_at_library(&mut self, path: &Path, seen: u64) -> Look {
        let mut steps = Steps::default();
        let bytes = match steps.run("read", || fs::read(path)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Look::Vanished,
            Err(error) => {
                let reason = format!("cannot read {}: {error}", path.display());
                self.refuse(steps, Refused::new("read", reason));
                return Look::Tried;
            }
        };
        let build_id = BuildId::of(&bytes);
        if self.tried_library == Some(build_id) {
            return Look::Nothing;
        }
        let is_cut = matches!(
            descriptor::read(&bytes),
            Err(DescriptorError::Empty
                | DescriptorError::Truncated { .. }
                | DescriptorError::Malformed { .. })
        );
        if is_cut && self.is_being_written(path, seen) {
            return Look::Nothing;
        }
        self.tried_library = Some(build_id);
        self.load(steps, &bytes, build_id);
        Look::Tried
    }

    /// Whether a file that is cut short is still growing: then the end of the copy is the next event.
    fn is_being_written(&self, path: &Path, seen: u64) -> bool {
        loop {
            let changed = fs::metadata(path).and_then(|metadata| metadata.modified());
            let age = changed.ok().and_then(|at| SystemTime::now().duration_since(at).ok());
            let Some(left) = age.and_then(|age| HALF_WRITTEN.checked_sub(age)).filter(|left| !left.is_zero())
            else {
                return false;
            };
            if self.plugin.wait_for(seen, left) {
                return true;
            }
        }
    }

    fn look_at_directory(&mut self, path: &Path, seen: u64) -> Look {
        if !self.plugin.source.exists() {
            return Look::Vanished;
        }
        let Some(before) = self.settled_fingerprint(seen) else { return Look::Nothing };
        let mut steps = Steps::default();
        if self.package.is_none() {
            self.package =
                Some(steps.run("describe", || Package::describe(self.shared.builder.cargo(), path)));
        }
        let package = match self.package.as_ref().expect("described just now") {
            Ok(package) if *package.name == *self.plugin.name => package.clone(),
            Ok(_) => {
                // Renamed: to the outside that is one plugin deleted and another one made.
                return Look::Vanished;
            }
            Err(error) => {
                let refused = Refused::new("build", chain(error));
                self.package = None;
                self.tried = Some(before);
                self.refuse(steps, refused);
                return Look::Tried;
            }
        };
        self.build(steps, &package, before)
    }

    /// What the plugin is made of now, unless that was tried already or an editor is in the middle of it.
    fn settled_fingerprint(&mut self, seen: u64) -> Option<Fingerprint> {
        let inputs = self.inputs();
        let mut now = Fingerprint::of(&inputs);
        if let Some(tried) = &self.tried {
            if now.unsettled_since(tried).is_some() {
                if self.plugin.wait_for(seen, EMPTIED) {
                    return None;
                }
                now = Fingerprint::of(&inputs);
            }
            let changed = now.changed_since(tried);
            if changed.is_empty() {
                return None;
            }
            if changed.iter().any(|path| path.file_name().is_some_and(|name| name == "Cargo.toml")) {
                self.package = None;
            }
        }
        Some(now)
    }

    /// What the plugin is made of, as far as that is known.
    fn inputs(&mut self) -> Inputs {
        let mut work = self.plugin.work.lock();
        if let Some(inputs) = &work.inputs {
            return inputs.clone();
        }
        let inputs = match &self.package {
            Some(Ok(package)) => Inputs::of_package(package),
            _ => Inputs::of_directory(self.plugin.source.path()),
        };
        work.inputs = Some(inputs.clone());
        inputs
    }

    fn build(&mut self, mut steps: Steps, package: &Package, before: Fingerprint) -> Look {
        let cancel = Cancel::new();
        {
            let mut work = self.plugin.work.lock();
            if work.stop || !work.orders.is_empty() {
                return Look::Superseded;
            }
            work.building = Some((cancel.clone(), before.clone()));
        }
        self.plugin.state.lock().is_building = true;
        let (shared, name) = (Arc::clone(&self.shared), Arc::clone(&self.plugin.name));
        let started = SystemTime::now();
        let built = steps.run("build", || {
            let mut step = |step: crate::build::Step<'_>| shared.observer.building(&name, step);
            shared.builder.build(package, &mut step, &cancel)
        });
        self.shared.observer.built(&self.plugin.name);
        self.plugin.state.lock().is_building = false;
        self.plugin.work.lock().building = None;

        let started = built.as_ref().map_or(started, |built| built.started);
        let (inputs, outcome) = match built {
            Err(BuildError::Cancelled) => {
                tracing::debug!(plugin = %self.plugin.name, "a newer edit cancelled the build");
                return Look::Superseded;
            }
            Ok(built) => (Some(built.inputs.clone()), Ok(built)),
            Err(BuildError::Compile { rendered, plain, inputs, errors, first }) => {
                let reason = BuildError::Compile {
                    rendered: String::new(),
                    plain: String::new(),
                    errors,
                    first,
                    inputs: Box::default(),
                }
                .to_string();
                let refused =
                    Refused { step: "build", reason, details: Some(plain), rendered: Some(rendered) };
                (Some(*inputs), Err(refused))
            }
            Err(BuildError::Cargo { words, inputs }) => {
                let reason = format!("cargo failed: {}", words.lines().next().unwrap_or_default());
                let refused =
                    Refused { step: "build", reason, details: Some(words.clone()), rendered: Some(words) };
                (Some(*inputs), Err(refused))
            }
            Err(error @ (BuildError::Spawn { .. } | BuildError::NoLibrary { .. })) => {
                (None, Err(Refused::new("build", chain(&error))))
            }
        };
        self.tried = Some(match &inputs {
            Some(inputs) => Fingerprint::after_build(&before, inputs, started),
            None => before,
        });
        if let Some(inputs) = inputs {
            let is_new = self.plugin.work.lock().inputs.replace(inputs.clone()) != Some(inputs);
            if is_new {
                self.shared.watch_inputs();
                // What changed between the build and the watch is found by one more look.
                self.plugin.nudge();
            }
        }
        match outcome {
            Err(refused) => self.refuse(steps, refused),
            Ok(built) => {
                if built.diagnostics.warnings > 0 {
                    tracing::warn!(plugin = %self.plugin.name, "{} warnings:\n{}", built.diagnostics.warnings, built.diagnostics.rendered.trim_end());
                }
                match steps.run("read", || fs::read(&built.library)) {
                    Ok(bytes) => self.load(steps, &bytes, BuildId::of(&bytes)),
                    Err(error) => {
                        let reason = format!("cannot read {}: {error}", built.library.display());
                        self.refuse(steps, Refused::new("read", reason));
                    }
                }
            }
        }
        Look::Tried
    }

    /// The pipeline behind the build.
    fn load(&mut self, mut steps: Steps, bytes: &[u8], build_id: BuildId) {
        match self.shared.load(&self.plugin, bytes, build_id, &mut steps) {
            Ok(loaded) => {
                let gone_live = match &loaded {
                    Loaded::Published { previous, .. } => Some(*previous),
                    Loaded::Unchanged { .. } => None,
                };
                self.shared.report_loaded(&self.plugin, loaded, steps);
                if let Some(previous) = gone_live {
                    self.went_live(previous);
                }
            }
            Err(refused) => self.refuse(steps, refused),
        }
    }

    fn refuse(&self, steps: Steps, refused: Refused) {
        let serving = self.plugin.current_number();
        self.plugin.refusal.store(Some(Arc::new(Refusal {
            reason: refused.reason.clone(),
            details: refused.details.clone(),
        })));
        let event = Event {
            id: 0,
            at_ms: 0,
            event: EventKind::Refused,
            plugin: Arc::clone(&self.plugin.name),
            generation: None,
            previous_generation: serving,
            failed_step: Some(refused.step),
            reason: Some(refused.reason),
            details: refused.details,
            ms: steps.total(),
            steps: steps.0,
        };
        self.shared.record_outcome(&self.plugin, event, refused.rendered.as_deref());
        self.shared.publish_without_code(&self.plugin);
    }
}

impl Shared {
    /// Takes a plugin out of service because its source is gone.
    pub(super) fn remove(self: &Arc<Self>, plugin: &Arc<Plugin>) {
        self.plugins.lock().remove(&*plugin.name);
        let lease = {
            let mut state = plugin.state.lock();
            state.is_removed = true;
            state.current.take()
        };
        let generation = lease.as_ref().map(|lease| lease.generation().number);
        if let Some(lease) = &lease {
            self.end(lease, UNLOAD_REMOVED);
        }
        self.registry.note_gone(&plugin.name);
        self.publish_without_code(plugin);
        drop(lease);
        self.record(
            Event {
                id: 0,
                at_ms: 0,
                event: EventKind::Removed,
                plugin: Arc::clone(&plugin.name),
                generation: None,
                previous_generation: generation,
                failed_step: None,
                reason: Some(format!("{} is gone", plugin.source.path().display())),
                details: None,
                steps: Vec::new(),
                ms: 0.0,
            },
            None,
        );
        self.duplicates.lock().clear();
        self.notify_progress();
        // Its name is free for one that lost to it, or for what it was renamed to.
        if let Err(error) = self.adopt_all() {
            tracing::error!("{}", chain(&error));
        }
        self.watch_inputs();
    }
}
