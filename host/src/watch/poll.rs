//! Reading directories at intervals, where the system does not tell of changes.
//!
//! Owns the comparing of listings. What changes in a file changes its times, its size or its number: the time of the last
//! change (ctime) is the file system's own, so putting the time of modification back hides nothing. Content is read only
//! where the clock may not have gone on since: of small files that have changed a moment ago.
//!
//! # Invariants
//!
//! - A directory that cannot be read any more is told as removed, once.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use notify::event::{CreateKind, EventKind, ModifyKind, RemoveKind};
use notify::{Event, RecursiveMode, WatcherKind};
use parking_lot::{Condvar, Mutex};
use xxhash_rust::xxh3::xxh3_128;

/// How coarse the times of a file system are at worst: FAT's are of two seconds.
const COARSEST: Duration = Duration::from_secs(3);

/// How large a file may be that is read to see whether it is the same.
const MOST_READ: u64 = 1 << 20;

/// A backend that polls, as [`notify::PollWatcher`] does; that one reads either all content or none.
pub(super) struct ListingWatcher {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    stopped: Condvar,
}

#[derive(Default)]
struct State {
    directories: BTreeMap<PathBuf, Option<Listing>>,
    is_stopped: bool,
}

type Listing = BTreeMap<OsString, Listed>;

/// Seconds and nanoseconds since the epoch.
type FileTime = (i64, i64);

/// What is known of one entry of a directory.
#[derive(Clone, PartialEq, Eq)]
struct Listed {
    identity: (u64, u64),
    /// Size, and time of modification and of the last change. Of a directory nothing: its entries are its own affair.
    state: Option<(u64, FileTime, FileTime)>,
    /// What is in it, as far as the times do not tell.
    content: Option<u128>,
}

impl ListingWatcher {
    /// Reads every `interval` and sends what has changed to `events`.
    pub(super) fn start(
        interval: Duration,
        events: Sender<notify::Result<Event>>,
    ) -> std::io::Result<ListingWatcher> {
        let shared = Arc::new(Shared { state: Mutex::default(), stopped: Condvar::new() });
        let of_thread = Arc::clone(&shared);
        let thread = thread::Builder::new().name("poll".to_owned()).spawn(move || {
            let mut state = of_thread.state.lock();
            while !state.is_stopped {
                if of_thread.stopped.wait_for(&mut state, interval).timed_out() {
                    for event in state.compare() {
                        // Nobody listens any more when the watcher is being dropped.
                        let _ = events.send(Ok(event));
                    }
                }
            }
        })?;
        Ok(ListingWatcher { shared, thread: Some(thread) })
    }
}

impl Drop for ListingWatcher {
    fn drop(&mut self) {
        self.shared.state.lock().is_stopped = true;
        self.shared.stopped.notify_all();
        if let Some(thread) = self.thread.take() {
            // It runs no code but this file's.
            let _ = thread.join();
        }
    }
}

impl notify::Watcher for ListingWatcher {
    fn new<F: notify::EventHandler>(mut handler: F, config: notify::Config) -> notify::Result<Self> {
        let (events, received) = std::sync::mpsc::channel();
        thread::spawn(move || received.into_iter().for_each(|event| handler.handle_event(event)));
        let interval = config.poll_interval().unwrap_or(COARSEST);
        ListingWatcher::start(interval, events).map_err(notify::Error::io)
    }

    fn watch(&mut self, path: &Path, _: RecursiveMode) -> notify::Result<()> {
        let listing = list(path).ok_or_else(notify::Error::path_not_found)?;
        self.shared.state.lock().directories.insert(path.to_owned(), Some(listing));
        Ok(())
    }

    fn unwatch(&mut self, path: &Path) -> notify::Result<()> {
        let known = self.shared.state.lock().directories.remove(path);
        known.map(drop).ok_or_else(notify::Error::watch_not_found)
    }

    fn kind() -> WatcherKind {
        WatcherKind::PollWatcher
    }
}

impl State {
    /// Reads every directory; what has changed since the last time.
    fn compare(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        for (directory, before) in &mut self.directories {
            let now = list(directory);
            let mut tell = |kind, path| events.push(Event::new(kind).add_path(path));
            match (&*before, &now) {
                (Some(_), None) => tell(EventKind::Remove(RemoveKind::Folder), directory.clone()),
                (None, Some(_)) => tell(EventKind::Create(CreateKind::Folder), directory.clone()),
                (None, None) => {}
                (Some(before), Some(now)) => {
                    for name in before.keys().filter(|name| !now.contains_key(*name)) {
                        tell(EventKind::Remove(RemoveKind::Any), directory.join(name));
                    }
                    for (name, listed) in now {
                        match before.get(name) {
                            None => tell(EventKind::Create(CreateKind::Any), directory.join(name)),
                            Some(before) if before.differs_from(listed) => {
                                tell(EventKind::Modify(ModifyKind::Any), directory.join(name));
                            }
                            Some(_) => {}
                        }
                    }
                }
            }
            *before = now;
        }
        events
    }
}

impl Listed {
    fn of(path: &Path, metadata: &Metadata, now: SystemTime) -> Listed {
        let time = |(seconds, nanoseconds): FileTime| {
            let since = Duration::new(seconds.try_into().ok()?, nanoseconds.try_into().ok()?);
            UNIX_EPOCH.checked_add(since)
        };
        let modified = (metadata.mtime(), metadata.mtime_nsec());
        let changed = (metadata.ctime(), metadata.ctime_nsec());
        let settled = now.checked_sub(COARSEST).unwrap_or(UNIX_EPOCH);
        let is_settled = [modified, changed].into_iter().all(|at| time(at).is_none_or(|at| at < settled));
        let is_read = metadata.is_file() && !is_settled && metadata.len() <= MOST_READ;
        Listed {
            identity: (metadata.dev(), metadata.ino()),
            state: (!metadata.is_dir()).then_some((metadata.len(), modified, changed)),
            content: is_read.then(|| fs::read(path).ok()).flatten().map(|bytes| xxh3_128(&bytes)),
        }
    }

    /// Content counts where both have been read: at other times the times tell.
    fn differs_from(&self, now: &Listed) -> bool {
        let is_other = matches!((self.content, now.content), (Some(before), Some(now)) if before != now);
        is_other || (self.identity, self.state) != (now.identity, now.state)
    }
}

/// The entries of a directory; `None` where it cannot be read.
fn list(directory: &Path) -> Option<Listing> {
    let now = SystemTime::now();
    let entries = fs::read_dir(directory).ok()?.flatten();
    let listed = entries.filter_map(|entry| {
        let metadata = entry.metadata().ok()?;
        Some((entry.file_name(), Listed::of(&entry.path(), &metadata, now)))
    });
    Some(listed.collect())
}
