//! Which build runs when, and in which target directory.
//!
//! cargo locks a target directory as a whole: a second cargo in it would only wait, unfairly, deaf to
//! cancellation, and holding a process. So builds wait here instead, and there are several directories: the main
//! one, in which shared dependencies are compiled once, and others beside it for builds that would have to
//! wait. A package stays in the directory that it was built in, where its incremental state is.
//!
//! # What a further directory costs
//!
//! Disk space for another copy of the dependencies, which is made from what the main directory has
//! ([`super::seed`]), and from then on a compilation of its own of each dependency that changes. So a build takes
//! one only when its own directory is busy for longer than that is worth.
//!
//! # Invariants
//!
//! - At most one [`Turn`] of a directory exists, and turns are given in the order they were asked for.
//! - A build that does not end delays others by their patience and no more, as long as a directory is free.
//! - A cancelled build leaves the queue at once and delays no other.

use std::collections::{HashMap, VecDeque};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::cancel::Cancel;

/// How long a package waits for the directory that it was built in last before it takes another one, in which
/// all of it has to be compiled anew.
const FOR_ITS_OWN: Duration = Duration::from_secs(2);

/// How long a package that was never built waits while the main directory is filled for the first time: with
/// what is compiled there it is done sooner.
const FOR_THE_FIRST: Duration = Duration::from_secs(20);

/// The queue in front of cargo.
pub(super) struct Queue {
    shared: Arc<QueueShared>,
}

struct QueueShared {
    /// The main directory and those beside it.
    directories: Vec<PathBuf>,
    state: Mutex<QueueState>,
    moved: Condvar,
}

struct QueueState {
    next: u64,
    /// In the order in which they came.
    waiting: VecDeque<Waiter>,
    /// By directory, the plugin that is built in it.
    running: Vec<Option<String>>,
    /// Where packages were built last, by their names and places.
    homes: HashMap<String, usize>,
    /// Whether a build has ended in the main directory, so that there is something to be shared.
    is_warm: bool,
}

struct Waiter {
    id: u64,
    home: Option<usize>,
    since: Instant,
}

impl Queue {
    /// A queue for builds in `main`, and in up to `most - 1` directories beside it.
    pub(super) fn new(main: &Path, most: usize) -> Queue {
        let beside = |number: usize| {
            let mut name = main.file_name().map(OsString::from).unwrap_or_default();
            name.push(format!("-{number}"));
            main.with_file_name(name)
        };
        let mut directories = vec![main.to_owned()];
        directories.extend((2..=most).map(beside));
        let state = QueueState {
            next: 0,
            waiting: VecDeque::new(),
            running: vec![None; directories.len()],
            homes: HashMap::new(),
            is_warm: fingerprints(main).next().is_some(),
        };
        let state = Mutex::new(state);
        Queue { shared: Arc::new(QueueShared { directories, state, moved: Condvar::new() }) }
    }

    /// The main directory.
    pub(super) fn main(&self) -> &Path {
        &self.shared.directories[0]
    }

    /// Waits for a turn of the package called `name` with the unique `key`; `None` if `cancel` came first. `queued` is
    /// told what it waits for, at first and whenever that changes.
    pub(super) fn wait(
        &self,
        name: &str,
        key: &str,
        cancel: &Cancel,
        mut queued: impl FnMut(&str),
    ) -> Option<Turn> {
        let shared = &self.shared;
        let known = shared.state.lock().homes.get(key).copied();
        let home = known.or_else(|| shared.directories.iter().position(|dir| has_built(dir, name)));
        let line = Arc::clone(shared);
        let hook = cancel.on_cancel(move || {
            // Locked, so that a waiter between its check and its sleep cannot miss the call.
            let _state = line.state.lock();
            line.moved.notify_all();
        });
        let place = Place::take(shared, home);
        let mut told = String::new();
        let mut state = shared.state.lock();
        let directory = loop {
            if cancel.is_cancelled() {
                break None;
            }
            let look_again = match state.directory_for(place.id, Instant::now()) {
                Ok(directory) => break Some(directory),
                Err(at) => at,
            };
            let ahead = state.ahead();
            if ahead != told {
                parking_lot::MutexGuard::unlocked(&mut state, || queued(&ahead));
                told = ahead;
                continue;
            }
            match look_again {
                Some(at) => drop(shared.moved.wait_until(&mut state, at)),
                None => shared.moved.wait(&mut state),
            }
        };
        let turn = directory.map(|at| {
            state.running[at] = Some(name.to_owned());
            state.homes.insert(key.to_owned(), at);
            Turn { shared: Arc::clone(shared), at }
        });
        drop(state);
        drop(hook);
        drop(place);
        turn
    }
}

impl QueueState {
    /// The directory that the waiter with this id may take now, or when to look again at the latest.
    fn directory_for(&self, id: u64, now: Instant) -> Result<usize, Option<Instant>> {
        let at = self.waiting.iter().position(|waiter| waiter.id == id).ok_or(None)?;
        let (waiter, earlier) = (&self.waiting[at], self.waiting.range(..at));
        let home = waiter.home.unwrap_or(0);
        let is_free = |directory: usize| self.running[directory].is_none();
        if is_free(home) && !earlier.clone().any(|other| other.home.unwrap_or(0) == home) {
            return Ok(home);
        }
        let others = (0..self.running.len()).filter(|other| *other != home);
        if others.clone().next().is_none() {
            return Err(None);
        }
        let leaves_at = |waiter: &Waiter| {
            waiter.since
                + match waiter.home {
                    Some(_) => FOR_ITS_OWN,
                    None if self.is_warm => Duration::ZERO,
                    None => FOR_THE_FIRST,
                }
        };
        if now < leaves_at(waiter) {
            return Err(Some(leaves_at(waiter)));
        }
        let is_next = !earlier.clone().any(|other| now >= leaves_at(other));
        others.into_iter().find(|other| is_next && is_free(*other)).ok_or(None)
    }

    /// The plugins that are being built.
    fn ahead(&self) -> String {
        let names: Vec<&str> = self.running.iter().flatten().map(String::as_str).collect();
        names.join(", ")
    }
}

/// A place in the queue; left on drop.
struct Place<'a> {
    shared: &'a QueueShared,
    id: u64,
}

impl<'a> Place<'a> {
    fn take(shared: &'a QueueShared, home: Option<usize>) -> Place<'a> {
        let mut state = shared.state.lock();
        let id = state.next;
        state.next += 1;
        state.waiting.push_back(Waiter { id, home, since: Instant::now() });
        Place { shared, id }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.shared.state.lock().waiting.retain(|waiter| waiter.id != self.id);
        self.shared.moved.notify_all();
    }
}

/// The right to run cargo in a target directory; given back on drop.
pub(super) struct Turn {
    shared: Arc<QueueShared>,
    at: usize,
}

impl Turn {
    /// The directory.
    pub(super) fn directory(&self) -> &Path {
        &self.shared.directories[self.at]
    }

    /// Whether nothing was ever built in the directory.
    pub(super) fn is_first(&self) -> bool {
        fingerprints(self.directory()).next().is_none()
    }

    /// The directory to begin with a copy of, where this one is still to be made.
    pub(super) fn model(&self) -> Option<&Path> {
        (self.at > 0 && !self.directory().exists()).then(|| self.shared.directories[0].as_path())
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        state.running[self.at] = None;
        state.is_warm |= self.at == 0;
        drop(state);
        self.shared.moved.notify_all();
    }
}

/// cargo's records of what was built in a target directory, of all profiles.
fn fingerprints(directory: &Path) -> impl Iterator<Item = fs::DirEntry> {
    let profiles = fs::read_dir(directory).into_iter().flatten().flatten();
    profiles
        .flat_map(|profile| fs::read_dir(profile.path().join(".fingerprint")).into_iter().flatten().flatten())
}

/// Whether a package called `name` was built in a target directory.
fn has_built(directory: &Path, name: &str) -> bool {
    fingerprints(directory).any(|entry| {
        let file = entry.file_name();
        // `name-` and a hash.
        file.to_str().and_then(|file| file.rsplit_once('-')).is_some_and(|(of, _)| of == name)
    })
}
