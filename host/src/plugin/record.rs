//! One plugin: what everybody may know of it, and what its worker is told.
//!
//! Owns the record and the bell. Does not own the work, which is the worker's.
//!
//! # Invariants
//!
//! - Whoever tells the worker something wakes it; whoever waits sees every nudge after the one it has seen.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use parking_lot::{Condvar, Mutex, MutexGuard};

use super::Settings;
use super::activity::Activity;
use super::event::{Event, EventKind, Steps};
use super::generation::Lease;
use super::rollback::{OnProbation, Order};
use super::router::Refusal;
use super::source::Source;
use crate::build::{Cancel, Fingerprint, Inputs};
use crate::pins;
use crate::share::Share;
use crate::watch::{self, Change, Depth};

/// A plugin: a name, a source, and the generation that serves.
#[derive(Debug)]
pub struct Plugin {
    /// Its name.
    pub name: Arc<str>,
    /// Where it comes from.
    pub source: Source,
    /// Why the newest code does not serve. Written by the worker, read by every request's response.
    pub(super) refusal: Arc<ArcSwapOption<Refusal>>,
    /// What it may take of the workers. Its generations' accounts are parts of it.
    pub(super) share: Arc<Share>,
    /// What the worker is at. Written by it, read by faces.
    pub(super) activity: Arc<Activity>,
    /// Written by the worker, read by faces.
    pub(super) state: Mutex<State>,
    pub(super) work: Mutex<Work>,
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
    pub(super) last_outcome: Option<Event>,
    /// While the current generation may still be taken back. Written by the worker, read at every panic.
    pub(super) on_probation: Option<OnProbation>,
    /// Whether the plugin has been taken out; nothing is published for it any more.
    pub(super) is_removed: bool,
}

/// What the worker has to do.
#[derive(Debug, Default)]
pub(super) struct Work {
    /// Counts changes and orders; the worker is behind if it has seen fewer.
    pub(super) nudges: u64,
    /// Whether the source may have changed since the last look at it.
    pub(super) has_changed: bool,
    /// Whether the worker looks at the source, or builds it.
    pub(super) is_looking: bool,
    /// What was asked for, in this order.
    pub(super) orders: Vec<Order>,
    pub(super) stop: bool,
    /// The build that runs, and what it is made from.
    pub(super) building: Option<(Cancel, Fingerprint)>,
    /// Files that the builds change themselves: they cancel none.
    pub(super) written_by_build: BTreeSet<PathBuf>,
    /// What the newest build was made from.
    pub(super) inputs: Option<Inputs>,
}

impl Plugin {
    pub(super) fn new(name: &str, source: Source, settings: &Settings, share: Arc<Share>) -> Plugin {
        let mount = settings.mounts.get(name).cloned().unwrap_or_else(|| format!("/{name}"));
        Plugin {
            name: name.into(),
            source,
            refusal: Arc::default(),
            share,
            activity: Arc::default(),
            state: Mutex::new(State {
                current: None,
                mount: if mount == "/" { String::new() } else { mount },
                next_generation: 1,
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
            Source::Library { path } => {
                let way = watch::trail(path);
                let parents = way.links.iter().chain([&way.real]).filter_map(|name| name.parent());
                parents.map(|parent| (parent.to_owned(), Depth::Flat)).collect()
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
            Source::Library { path } => {
                let way = watch::trail(path);
                paths.iter().any(|p| way.links.contains(p) || way.real.starts_with(p) || path.starts_with(p))
            }
            Source::Directory { path } => match &self.work.lock().inputs {
                Some(inputs) => paths.iter().any(|p| inputs.concern(p) || path.starts_with(p)),
                None => {
                    let way = watch::trail(path);
                    let is_on_it = |p: &PathBuf| p.starts_with(&way.real) || way.real.starts_with(p);
                    paths.iter().any(|p| is_on_it(p) || way.links.contains(p))
                }
            },
        }
    }

    /// Follows its inputs anew if one of these changes may lead to other files; tells whether other directories may have
    /// to be watched for that.
    pub(super) fn follow(&self, change: &Change) -> bool {
        match &self.source {
            Source::Library { .. } => self.is_concerned(change),
            Source::Directory { .. } => match &mut self.work.lock().inputs {
                Some(inputs) => {
                    let is_led = match change {
                        Change::Paths(paths) => paths.iter().any(|path| inputs.is_way(path)),
                        Change::Rescan => true,
                    };
                    if is_led {
                        inputs.resolve();
                    }
                    is_led
                }
                None => false,
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
            let is_own = |path: &Path| {
                path.file_name().is_some_and(|name| name == "Cargo.lock")
                    || work.written_by_build.contains(path)
            };
            if now.changed_since(before).iter().any(|path| !is_own(path)) {
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
    pub(super) fn wait(&self, seen: u64) -> Option<Nudged> {
        let mut work = self.work.lock();
        work.is_looking = false;
        while work.nudges == seen && !work.stop {
            self.sleep(&mut work);
        }
        (!work.stop).then(|| Nudged { nudges: work.nudges, orders: std::mem::take(&mut work.orders) })
    }

    /// Tells whether the source is to be looked at; then the look has begun.
    pub(super) fn begin_look(&self) -> bool {
        let mut work = self.work.lock();
        work.is_looking = std::mem::take(&mut work.has_changed);
        work.is_looking
    }

    /// The number of the current generation.
    pub(super) fn current_number(&self) -> Option<u64> {
        self.state.lock().current.as_ref().map(|lease| lease.generation().number)
    }

    /// Steps of an attempt of this plugin.
    pub(super) fn steps(&self) -> Steps {
        Steps::shown_by(&self.activity)
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
            dropped: Vec::new(),
            ms: steps.total(),
            steps: steps.into_list(),
        }
    }

    /// Waits for a nudge after the `seen`-th, at most `patience`; tells whether one came.
    pub(super) fn wait_for(&self, seen: u64, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let mut work = self.work.lock();
        while work.nudges == seen && !work.stop {
            if self.wake.wait_until(&mut work, deadline).timed_out() {
                return work.nudges != seen || work.stop;
            }
        }
        true
    }

    /// Waits until `is_over`, for somebody who calls, or for a nudge after the `seen`-th.
    pub(super) fn wait_until(&self, seen: u64, is_over: impl Fn() -> bool) -> Waited {
        let mut work = self.work.lock();
        loop {
            if is_over() {
                return Waited::Over;
            }
            if work.stop || !work.orders.is_empty() {
                return Waited::Called;
            }
            if work.nudges != seen {
                return Waited::Nudged(work.nudges);
            }
            self.sleep(&mut work);
        }
    }

    /// Waits for a bell, or drains this thread if that is due.
    fn sleep(&self, work: &mut MutexGuard<'_, Work>) {
        if pins::is_due() {
            MutexGuard::unlocked(work, pins::drain_if_due);
        } else {
            self.wake.wait(work);
        }
    }

    /// Has whoever waits look again at what is waited for.
    pub(super) fn ring(&self) {
        // Locked, so that a waiter between its look and its sleep cannot miss it.
        let _work = self.work.lock();
        self.wake.notify_all();
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.work.lock().stop
    }
}

/// What a worker wakes up to.
pub(super) struct Nudged {
    /// How many nudges there have been.
    pub(super) nudges: u64,
    pub(super) orders: Vec<Order>,
}

/// What ended a wait.
pub(super) enum Waited {
    /// What was waited for.
    Over,
    /// An order, or the end.
    Called,
    /// The source may have changed; so many nudges there have been.
    Nudged(u64),
}
