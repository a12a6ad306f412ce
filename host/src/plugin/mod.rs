//! Plugins: their generations, and the pipeline that brings a new one into service.
//!
//! ```text
//! save -> watch -> build -> stage -> probe -> open -> init -> publish -> retire -> drain -> unload or park
//! ```
//!
//! `adopt` finds plugins. Each has a `record` and a thread of its own (`worker`) that takes it through the pipeline, an
//! `attempt` at a time, so a plugin that builds for a minute delays no other but those that must go live
//! `together` with it. `load` is the pipeline from the library's bytes to
//! publish, `reaper` what comes after the last request, `parting` the end of what it leaves, `rollback` the way back
//! to earlier code.
//!
//! # Invariants
//!
//! - No step before publish touches what serves. A failure of any step is recorded, shown everywhere,
//!   and changes nothing else.
//! - Publish is one pointer swap; a request finds all plugins as they were at one moment.
//! - The publish lock orders publications; it is not held while a plugin's code runs.

mod activity;
mod adopt;
mod attempt;
mod degraded;
pub mod descriptor;
mod event;
mod generation;
pub mod invoke;
mod kept;
pub mod library;
mod load;
mod mapped_file;
mod own_output;
mod parked;
pub(crate) mod parting;
pub mod probe;
mod quarantine;
mod reaper;
mod record;
mod resume;
mod rollback;
pub mod router;
mod source;
pub mod stage;
mod status;
mod together;
pub mod vetting;
mod worker;

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::{Condvar, Mutex};

pub use self::activity::ActivityStatus;
pub use self::event::{Event, EventKind, Events, Step};
pub use self::generation::{Generation, Lease};
use self::parked::ParkedList;
use self::probe::Probe;
use self::quarantine::Quarantine;
use self::reaper::Task;
pub use self::record::Plugin;
pub use self::rollback::{OrderError, Probation};
use self::router::Router;
pub use self::source::Source;
use self::stage::{BuildId, Stage};
pub use self::status::{ParkedStatus, PluginState, PluginStatus, RouteStatus, SourceStatus};
use self::together::Rounds;
use self::worker::Worker;

use crate::build::{Builder, Cargo, WatchRules};
use crate::hostcall::OwnSafe;
use crate::pins::{self, Unsupported};
use crate::registry::Registry;
use crate::share::Shares;
use crate::watch::scan::ScanError;
use crate::watch::{Change, WatchError, Watcher};

/// What the plugins room has to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where plugins are found.
    pub plugins_dir: PathBuf,
    /// Where the host keeps what it makes.
    pub state_dir: PathBuf,
    /// Mounts by plugin, from the configuration. They win over what plugins say.
    pub mounts: BTreeMap<String, String>,
    /// Whether edits are looked for.
    pub watch: bool,
    /// How often directories are read, where the system is not to be asked to tell of changes.
    pub poll: Option<Duration>,
    /// What the operator says of the files of every source plugin.
    pub watch_rules: WatchRules,
    /// The same of single ones, by plugin.
    pub plugin_watch_rules: BTreeMap<String, WatchRules>,
    /// Whether the code that each plugin starts with is served for good.
    pub freeze: bool,
    /// cargo profile of source plugins; without one, the profile made for turnaround.
    pub profile: Option<String>,
    /// How many plugins are built at a time, each in a target directory of its own.
    pub max_builds: NonZeroUsize,
    /// How long a build may take; a first one three times that.
    pub build_timeout: Duration,
    /// How long `on_load` may take.
    pub load_deadline: Duration,
    /// When a new generation is rolled back without being asked for; `None`: never.
    pub probation: Option<Probation>,
    /// The host's own executable, for the probe.
    pub program: PathBuf,
    /// Whether this process goes on where one before it has crashed.
    pub is_after_crash: bool,
}

/// Where in the state directory the supervisor leaves the record of a crash.
pub const CRASH_FILE: &str = "crash.json";

/// Why a host with this state directory would not load this content of the plugin called `name`, though it can be loaded:
/// it has crashed a process, or was rolled back.
pub fn is_kept_out(state_dir: &Path, name: &str, source: &Path, library: &[u8]) -> Option<String> {
    let build = BuildId::of(library);
    let quarantined = Quarantine::of_state(state_dir).reason(name, build);
    quarantined.or_else(|| kept::rolled_back(state_dir, name, source, build))
}

/// How long the probe may take.
const PROBE_DEADLINE: Duration = Duration::from_secs(10);

/// How long a start that failed half-way waits for what it had begun.
const UNDO_PATIENCE: Duration = Duration::from_secs(5);

/// Why the plugins could not be started. Nothing runs.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The plugins directory cannot be used.
    #[error(transparent)]
    Scan(#[from] ScanError),
    /// Two plugins of one name.
    #[error("two plugins are named `{name}`: {} and {}; rename one of them", first.display(), second.display())]
    Duplicate {
        /// The name.
        name: String,
        /// One of them.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// The state directory cannot be used.
    #[error("cannot use the state directory {}; name another with --state", path.display())]
    State {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Nothing tells of edits.
    #[error("cannot look for edits; start with --no-watch to do without")]
    Watch(#[from] WatchError),
    /// A thread could not be started.
    #[error("cannot start a thread")]
    Thread(#[from] io::Error),
}

/// Is told what happens, besides the log: the screen.
pub trait Observer: Send + Sync {
    /// A build goes on.
    fn building(&self, plugin: &str, step: crate::build::Step<'_>);
    /// A build is over: done, failed or cancelled.
    fn built(&self, plugin: &str);
    /// Something happened. `rendered` is the compiler's output as it wants to be shown, with colours.
    fn happened(&self, event: &Event, rendered: Option<&str>);
}

/// All plugins of a host.
pub struct Plugins {
    shared: Arc<Shared>,
    /// Taken by `shutdown`.
    reaper: Mutex<Option<JoinHandle<()>>>,
}

/// What the threads of this room share.
struct Shared {
    settings: Settings,
    builder: Builder,
    stage: Stage,
    probe: Probe,
    registry: Arc<Registry>,
    /// The way to the safes; each generation gets its own.
    safe: OwnSafe,
    /// What each plugin may take of the workers.
    shares: Shares,
    observer: Arc<dyn Observer>,
    events: Events,
    /// What serves. Written under `publish`.
    router: ArcSwap<Router>,
    /// Orders publications.
    publish: Mutex<()>,
    plugins: Mutex<BTreeMap<String, Worker>>,
    /// Entry addresses of all mapped libraries.
    entries: Mutex<HashSet<usize>>,
    /// Libraries that plugins need and that stay for the life of the process.
    kept: Mutex<HashSet<String>>,
    /// Generations that no longer serve and whose code is still mapped.
    parked: ParkedList,
    /// Whether code may be unmapped in this process; if not, why.
    unmapping: Result<(), Unsupported>,
    /// Plugins that are about to go live together.
    rounds: Rounds,
    /// Code that has crashed the process.
    quarantine: Quarantine,
    /// Content that has served in the process that has crashed: it needs no probe.
    proven: Mutex<HashSet<BuildId>>,
    /// Plugins that were deleted, as long as code of theirs is held.
    removed: Mutex<Vec<Arc<Plugin>>>,
    /// Sources that lost to another plugin of their name, so that it is said once.
    duplicates: Mutex<HashSet<PathBuf>>,
    watcher: Mutex<Option<Watcher>>,
    /// Gets every generation that lost its last lease; `None` once the host is stopping for good.
    reaper: Mutex<Option<Sender<Task>>>,
    /// Signalled when a plugin has its first outcome or a generation was retired.
    progress: Condvar,
    progress_lock: Mutex<()>,
}

impl Plugins {
    /// Scans the directory and starts to build and load everything in it.
    ///
    /// Returns at once; [`Plugins::wait_first_outcomes_for`] waits.
    ///
    /// # Errors
    ///
    /// [`StartError`].
    pub fn start(
        mut settings: Settings,
        registry: Arc<Registry>,
        safe: OwnSafe,
        observer: Arc<dyn Observer>,
    ) -> Result<Plugins, StartError> {
        // Once, here: a handler may change the process's working directory. Symlinks stay, as they may be replaced.
        let absolute =
            |path: &mut PathBuf| *path = std::path::absolute(&*path).unwrap_or_else(|_| path.clone());
        absolute(&mut settings.plugins_dir);
        absolute(&mut settings.state_dir);
        settings.watch_rules.watch.iter_mut().for_each(absolute);
        let state = |path: &Path, source| StartError::State { path: path.to_owned(), source };
        fs::create_dir_all(&settings.state_dir).map_err(|e| state(&settings.state_dir, e))?;
        let stage_dir = settings.state_dir.join("stage");
        let stage = Stage::open(&stage_dir).map_err(|e| state(&stage_dir, e))?;
        let builder =
            Builder::new(Cargo::of_process(), settings.state_dir.join("target"), settings.profile.clone())
                .side_by_side(settings.max_builds.get())
                .ended_after(settings.build_timeout);
        let unmapping = pins::self_test();
        if let Err(reason) = &unmapping {
            tracing::warn!(
                "code will not be unmapped in this process, and the number of reloads is limited: {reason}"
            );
        }
        let (reaper, tasks) = std::sync::mpsc::channel();
        let probe = Probe { program: settings.program.clone(), deadline: PROBE_DEADLINE };
        let quarantine = Quarantine::open(&settings);
        let shared = Arc::new(Shared {
            quarantine,
            proven: Mutex::default(),
            settings,
            builder,
            stage,
            probe,
            registry,
            safe,
            shares: Shares::default(),
            observer,
            events: Events::default(),
            router: ArcSwap::default(),
            publish: Mutex::new(()),
            plugins: Mutex::new(BTreeMap::new()),
            entries: Mutex::new(HashSet::new()),
            kept: Mutex::new(HashSet::new()),
            parked: ParkedList::default(),
            unmapping,
            rounds: Rounds::default(),
            removed: Mutex::default(),
            duplicates: Mutex::new(HashSet::new()),
            watcher: Mutex::new(None),
            reaper: Mutex::new(Some(reaper)),
            progress: Condvar::new(),
            progress_lock: Mutex::new(()),
        });
        let reaper = reaper::start(Arc::clone(&shared), tasks)?;
        let plugins = Plugins { shared, reaper: Mutex::new(Some(reaper)) };
        match plugins.begin() {
            Ok(()) => Ok(plugins),
            Err(error) => {
                plugins.shutdown(UNDO_PATIENCE);
                Err(error)
            }
        }
    }

    /// Watches, then adopts: in this order nothing falls between the two.
    fn begin(&self) -> Result<(), StartError> {
        if self.shared.settings.watch {
            self.shared.start_watching()?;
        }
        self.shared.adopt_all()
    }

    /// Waits until every plugin has loaded or was refused, at most `patience`; tells whether they have.
    pub fn wait_first_outcomes_for(&self, patience: Duration) -> bool {
        self.shared.wait_until_for(patience, |shared| {
            shared.plugins.lock().values().all(|worker| worker.plugin.has_outcome())
        })
    }

    /// Waits until what served before a crash serves again, at most `patience`. Who had no code that served
    /// is not waited for.
    pub fn wait_resumed_for(&self, patience: Duration) -> bool {
        self.shared.wait_until_for(patience, |shared| shared.plugins.lock().values().all(Worker::has_resumed))
    }

    /// What serves now.
    pub fn router(&self) -> arc_swap::Guard<Arc<Router>> {
        self.shared.router.load()
    }

    /// Every plugin, sorted by name.
    pub fn status(&self) -> Vec<PluginStatus> {
        self.shared.status()
    }

    /// What happened, the newest first.
    pub fn events(&self) -> Vec<Event> {
        self.shared.events.newest()
    }

    /// Looks at the directory and at every source, as if something had changed. Does nothing where reloading
    /// is switched off.
    pub fn rescan(&self) {
        if self.shared.settings.freeze {
            tracing::warn!("nothing is looked at again: the host was started with --freeze");
            return;
        }
        self.shared.on_change(&Change::Rescan);
    }

    /// Stops the pipeline, retires every generation, and waits, at most `patience`, until each
    /// `on_unload` has run. The listener is closed by now: no request is running.
    pub fn shutdown(&self, patience: Duration) {
        *self.shared.watcher.lock() = None;
        let workers = std::mem::take(&mut *self.shared.plugins.lock());
        for worker in workers.values() {
            worker.plugin.stop();
        }
        for (_, worker) in workers {
            worker.retire_for_shutdown(&self.shared);
        }
        {
            let _publish = self.shared.publish.lock();
            self.shared.router.store(Arc::default());
        }
        // The reaper ends when the last lease and this sender are gone.
        *self.shared.reaper.lock() = None;
        if let Some(reaper) = self.reaper.lock().take() {
            let deadline = std::time::Instant::now() + patience;
            while !reaper.is_finished() && std::time::Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(1));
            }
            if reaper.is_finished() {
                // A panic of the reaper was reported when it happened.
                let _ = reaper.join();
            } else {
                tracing::warn!("gave up waiting for `on_unload` hooks after {patience:?}");
            }
        }
    }
}

impl Shared {
    /// Tells the log, the screen and the faces what happened.
    fn record(&self, event: Event, rendered: Option<&str>) -> Event {
        let event = self.events.record(event);
        self.observer.happened(&event, rendered);
        event
    }

    /// As `record`, for what became of a plugin's code: who sees the event sees it as the plugin's outcome.
    fn record_outcome(&self, plugin: &Plugin, mut event: Event, rendered: Option<&str>) -> Event {
        let event = {
            let mut state = plugin.state.lock();
            // Once, with the event that says the generation serves.
            if let Some(lease) = &state.current
                && event.generation == Some(lease.generation().number)
            {
                event.dropped = std::mem::take(&mut *lease.generation().dropped.lock());
            }
            let event = self.events.record(event);
            state.last_outcome = Some(event.clone());
            event
        };
        self.observer.happened(&event, rendered);
        event
    }

    /// Gives the reaper something to do. While the host stops there is nothing left to be done.
    fn tell_reaper(&self, task: Task) {
        if let Some(reaper) = &*self.reaper.lock() {
            // The reaper lives as long as it can be told something.
            let _ = reaper.send(task);
        }
    }

    fn notify_progress(&self) {
        drop(self.progress_lock.lock());
        self.progress.notify_all();
    }

    fn wait_until_for(&self, patience: Duration, done: impl Fn(&Shared) -> bool) -> bool {
        let deadline = std::time::Instant::now() + patience;
        let mut lock = self.progress_lock.lock();
        loop {
            if done(self) {
                return true;
            }
            if self.progress.wait_until(&mut lock, deadline).timed_out() {
                return done(self);
            }
        }
    }
}
