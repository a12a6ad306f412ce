//! One loaded copy of a plugin, and who still uses it.
//!
//! # Invariants
//!
//! - A plugin has one *current* generation and any number of *retired* ones. A request holds the
//!   [`Lease`] of the generation it was routed to, from first byte to last.
//! - The last lease that goes, goes to the reaper by a channel: no code of the plugin and no `dlclose`
//!   ever runs in a drop.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::time::SystemTime;

use parking_lot::Mutex;

use super::descriptor::Descriptor;
use super::library::Library;
use super::reaper::Task;
use super::stage::{BuildId, Staged};
use super::vetting::Oddity;
use crate::pins::Pin;
use crate::registry::unix_ms;
use crate::share::Account;

/// One loaded copy of a plugin's library.
#[derive(Debug)]
pub struct Generation {
    /// Name of the plugin.
    pub plugin: Arc<str>,
    /// 1 for the first load, never reused: the name of this generation in logs and on the status page.
    pub number: u64,
    /// The mapped library.
    pub library: Library,
    /// What the library says of itself.
    pub descriptor: Descriptor,
    /// What the loader will do with it that it does not do with others.
    pub oddities: Vec<Oddity>,
    /// Where it is mounted; empty at the root.
    pub mount: String,
    /// Identity of the library's content.
    pub build_id: BuildId,
    /// The directory that it was made for.
    pub(super) origin: PathBuf,
    /// When it was opened.
    pub loaded_at: SystemTime,
    /// The staged copy, kept for debuggers; removed with the generation.
    pub(super) staged: Staged,
    /// Requests executing in this generation now. Written by [`Generation::enter`], read by faces, also after
    /// the generation was retired.
    pub(super) in_flight: Arc<AtomicU32>,
    /// Requests this generation has answered. Written by [`Generation::enter`], read by faces.
    pub(super) requests: AtomicU64,
    /// Panics of its handlers. Written by the service, read by faces.
    pub panics: AtomicU64,
    /// What it takes of the workers, and the deadlines its handlers have missed.
    pub account: Arc<Account>,
    /// Why it is being unloaded. Written once, when it stops being current.
    pub(super) unload_reason: Mutex<Option<u32>>,
    /// What the upgrades that came with it have dropped of data, such as "`page`: Page.text: String". Written once, when it
    /// is published; read for its event.
    pub(super) dropped: Mutex<Vec<String>>,
}

impl Generation {
    /// Keeps its code mapped until the pin is dropped, and says why. For whatever keeps a pointer into the
    /// library beyond a call; to be taken during a call, or while holding a lease.
    pub fn pin(&self, reason: impl Into<String>) -> Pin {
        self.library.code().pin(reason)
    }

    /// Counts a request until the guard is dropped.
    pub fn enter(&self) -> Entered<'_> {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.requests.fetch_add(1, Ordering::Relaxed);
        Entered(self)
    }

    /// Where the staged copy is.
    pub fn staged_path(&self) -> &PathBuf {
        &self.staged.path
    }

    /// Requests executing now.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Requests answered.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// When it was loaded, in milliseconds since the Unix epoch.
    pub fn loaded_at_ms(&self) -> u64 {
        unix_ms(self.loaded_at)
    }
}

/// The right to use a generation. While one is alive the generation is not retired.
///
/// The router holds one per current generation, each request one for its duration.
#[derive(Debug)]
pub struct Lease {
    /// `None` in its drop only.
    generation: Option<Arc<Generation>>,
    /// Where the generation goes with its last lease.
    reaper: Sender<Task>,
    /// Whether the generation was published: one that never served is not retired.
    is_published: AtomicBool,
}

impl Lease {
    /// The first lease of a generation; further ones are clones of the `Arc`.
    pub(super) fn first(generation: Arc<Generation>, reaper: Sender<Task>) -> Arc<Lease> {
        Arc::new(Lease { generation: Some(generation), reaper, is_published: AtomicBool::new(false) })
    }

    /// Says that the generation is current: from now on its end is a retirement.
    pub(super) fn publish(&self) {
        self.is_published.store(true, Ordering::Release);
    }

    /// The generation.
    pub fn generation(&self) -> &Arc<Generation> {
        self.generation.as_ref().expect("taken by the drop only")
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.is_published.load(Ordering::Acquire)
            && let Some(generation) = self.generation.take()
        {
            // Without a reaper the process is ending, and nobody retires anything any more.
            let _ = self.reaper.send(Task::Drained(generation, self.reaper.clone()));
        }
    }
}

/// A request inside a generation.
#[derive(Debug)]
pub struct Entered<'g>(&'g Generation);

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
