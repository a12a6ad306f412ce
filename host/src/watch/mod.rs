//! Watching directories: which paths have changed, told at once and once.
//!
//! Owns the file-system events and the listing of a plugins directory ([`scan()`]). Does not read a file
//! and knows no plugin: whether a change matters is decided by content, elsewhere.
//!
//! # Invariants
//!
//! - Single files are never watched; what is missing is awaited from above.
//! - Paths are reported free of symlinks: one real file has one name.
//! - Whatever may have been lost (an overflow, a replaced directory, a change of method) is reported as
//!   [`Change::Rescan`], never passed over.
//! - No watch is set, nor the caller's sink called, while the system's own event thread waits for it.

mod batch;
mod names;
mod poll;
mod roots;
pub mod scan;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use notify::ErrorKind;
use notify::event::{EventKind, Flag};
use parking_lot::Mutex;

pub use names::{Trail, is_ignored, resolved, trail};
pub use scan::{Candidate, ScanError, scan};

use batch::Batch;
use poll::ListingWatcher;
use roots::Roots;

/// How long it must be quiet before a change is told.
///
/// The events of one save come from one program in one go. Measured on a busy two-core machine, the longest
/// gap between two of them was 0.3 ms for a truncating write, 0.7 ms for truncate and write as separate
/// steps, and 1.2 ms for vim with its backup and swap files. A later one is a change of its own, and
/// cancels the build that the first one started.
const QUIET: Duration = Duration::from_millis(2);

/// How long a change is held back at most while others keep coming: a checkout of a branch.
const LONGEST: Duration = Duration::from_millis(50);

/// How often directories are read where the system does not tell.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// How much of a directory is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Depth {
    /// The files in it.
    Flat,
    /// All below it.
    Tree,
}

/// What has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// These paths were made, written, renamed or deleted. A directory stands for all that is in it.
    Paths(BTreeSet<PathBuf>),
    /// Anything may have changed: look at everything.
    Rescan,
}

/// Why directories cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// Neither the system's events nor polling could be started; nothing is watched.
    #[error("cannot watch the file system")]
    Start {
        /// What the system said.
        source: notify::Error,
    },
    /// The thread that reports could not be started; nothing is watched.
    #[error("cannot start the watching thread")]
    Thread {
        /// What the system said.
        source: std::io::Error,
    },
    /// This directory is not watched; the others are. It is tried again whenever directories change.
    #[error("cannot watch directory {}", directory.display())]
    Directory {
        /// The directory.
        directory: PathBuf,
        /// What the system said.
        source: notify::Error,
    },
}

/// Tells of changes in a set of directories, from start to drop.
pub struct Watcher {
    state: Arc<Mutex<State>>,
    thread: Option<JoinHandle<()>>,
}

struct State {
    /// `None` once the watcher is being dropped.
    roots: Option<Roots>,
    /// Whether directories are read at intervals instead of events being received.
    is_polling: bool,
    events: Sender<notify::Result<notify::Event>>,
}

impl Watcher {
    /// Starts to watch, nothing at first. `sink` is called on a thread of the watcher's own.
    ///
    /// Where the system's limit of watches is reached, now or later, the watcher says so in the log and
    /// reads the directories at intervals instead.
    ///
    /// # Errors
    ///
    /// [`WatchError`] when nothing can be watched by any means.
    pub fn start(sink: impl Fn(Change) + Send + 'static) -> Result<Watcher, WatchError> {
        let (events, received) = mpsc::channel();
        match notify::recommended_watcher(events.clone()) {
            Ok(backend) => Watcher::with(Box::new(backend), false, (events, received), sink),
            Err(error) => {
                warn_of_polling(&error);
                let backend = poller(POLL_INTERVAL, events.clone())?;
                Watcher::with(backend, true, (events, received), sink)
            }
        }
    }

    /// The same, but reads the directories every `interval`: for file systems that send no events.
    ///
    /// # Errors
    ///
    /// As [`Watcher::start`].
    pub fn start_polling(
        interval: Duration,
        sink: impl Fn(Change) + Send + 'static,
    ) -> Result<Watcher, WatchError> {
        let (events, received) = mpsc::channel();
        let backend = poller(interval, events.clone())?;
        Watcher::with(backend, true, (events, received), sink)
    }

    fn with(
        backend: Box<dyn notify::Watcher + Send>,
        is_polling: bool,
        (events, received): (Sender<notify::Result<notify::Event>>, Events),
        sink: impl Fn(Change) + Send + 'static,
    ) -> Result<Watcher, WatchError> {
        let state = State { roots: Some(Roots::new(backend)), is_polling, events };
        let state = Arc::new(Mutex::new(state));
        let of_thread = Arc::clone(&state);
        let thread = thread::Builder::new()
            .name("watch".to_owned())
            .spawn(move || report(&received, &of_thread, sink))
            .map_err(|source| WatchError::Thread { source })?;
        Ok(Watcher { state, thread: Some(thread) })
    }

    /// Watches `directory` too, which need not exist yet. Doing it twice is the same as once.
    ///
    /// # Errors
    ///
    /// [`WatchError::Directory`] when it exists and cannot be watched.
    pub fn watch(&self, directory: &Path, depth: Depth) -> Result<(), WatchError> {
        self.rearm(|roots| roots.want(directory, depth))
    }

    /// Watches exactly `directories`: adds what is new, lets go what is not among them, and leaves the
    /// rest as it is, without a gap.
    ///
    /// # Errors
    ///
    /// [`WatchError::Directory`] for the first one that exists and cannot be watched.
    pub fn sync(&self, directories: &BTreeMap<PathBuf, Depth>) -> Result<(), WatchError> {
        self.rearm(|roots| roots.want_only(directories))
    }

    /// Whether directories are read at intervals, because the system could not be asked to tell.
    pub fn is_polling(&self) -> bool {
        self.state.lock().is_polling
    }

    fn rearm(&self, want: impl FnOnce(&mut Roots)) -> Result<(), WatchError> {
        let mut state = self.state.lock();
        if let Some(roots) = &mut state.roots {
            want(roots);
        }
        state.arm().failure.map_or(Ok(()), Err)
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let mut state = self.state.lock();
        state.roots = None;
        // Only this wakes a thread that nothing happens to any more.
        let _ = state.events.send(Ok(notify::Event::new(EventKind::Other)));
        drop(state);
        // The sink may own the watcher's owner: a thread cannot wait for itself.
        let is_other = |thread: &JoinHandle<()>| thread.thread().id() != thread::current().id();
        if let Some(thread) = self.thread.take().filter(is_other) {
            let _ = thread.join();
        }
    }
}

type Events = Receiver<notify::Result<notify::Event>>;

impl State {
    /// Arms what is wanted, by polling if the system refuses more.
    fn arm(&mut self) -> roots::Armed {
        let Some(roots) = &mut self.roots else { return roots::Armed::default() };
        let armed = roots.arm();
        if !armed.is_full || self.is_polling {
            return armed;
        }
        warn_of_polling(&notify::Error::new(ErrorKind::MaxFilesWatch));
        match poller(POLL_INTERVAL, self.events.clone()) {
            Ok(backend) => {
                roots.replace_backend(backend);
                self.is_polling = true;
                // What happened between the two methods nobody has seen.
                let lost = notify::Event::new(EventKind::Other).set_flag(Flag::Rescan);
                let _ = self.events.send(Ok(lost));
                roots.arm()
            }
            Err(error) => roots::Armed { failure: Some(error), ..armed },
        }
    }
}

fn poller(
    interval: Duration,
    events: Sender<notify::Result<notify::Event>>,
) -> Result<Box<dyn notify::Watcher + Send>, WatchError> {
    let backend = ListingWatcher::start(interval, events).map_err(|source| WatchError::Thread { source })?;
    Ok(Box::new(backend))
}

fn warn_of_polling(error: &notify::Error) {
    let interval_ms = POLL_INTERVAL.as_millis();
    if matches!(error.kind, ErrorKind::MaxFilesWatch) {
        tracing::warn!(
            interval_ms,
            "the system watches no more directories for this user: raise fs.inotify.max_user_watches \
             with sysctl; polling instead"
        );
    } else {
        tracing::warn!(
            interval_ms,
            %error,
            "the system sends no file events (is fs.inotify.max_user_instances reached?); polling instead"
        );
    }
}

/// The watcher's thread: gathers events until it is quiet, then tells.
fn report(events: &Events, state: &Mutex<State>, sink: impl Fn(Change)) {
    while let Ok(first) = events.recv() {
        let is_polling = {
            let state = state.lock();
            if state.roots.is_none() {
                return;
            }
            state.is_polling
        };
        let mut batch = Batch::new(is_polling);
        if !batch.add(first) {
            continue;
        }
        let latest = Instant::now() + LONGEST;
        let mut quiet_at = Instant::now() + QUIET;
        while let Ok(next) =
            events.recv_timeout(quiet_at.min(latest).saturating_duration_since(Instant::now()))
        {
            // Somebody reading the same files must not hold the change back.
            if batch.add(next) {
                quiet_at = Instant::now() + QUIET;
            }
        }
        let change = {
            let mut state = state.lock();
            // Asked again, as the event that says so may be one of this batch.
            if state.roots.is_none() {
                return;
            }
            batch.settle(&mut state)
        };
        if let Some(change) = change {
            sink(change);
        }
    }
}
