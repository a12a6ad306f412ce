//! The safe: each plugin's private durable key-value store.
//!
//! A safe is one file under `STATE/safe`, owned by the host. A write that was acknowledged is on disk;
//! each is atomic; writers that come together share one sync. Values are bytes here: what an author's
//! types look like in them is the boundary's affair.
//!
//! Code map: [`Safe`] is what callers use, [`Safes`] finds it. `group` decides who commits, `decide` what a
//! write comes to, `backend` is the seam below. Behind it is the file in `store` (`batch` makes many writes
//! one transaction, `journal` makes it durable, `snapshot` is what readers share, `envelope` a value on
//! disk, `disk` where the bytes lie), or a server in `postgres`. `watch` wakes those who wait for changes; `operate`, `copy` and
//! `migrate` are the operator's.
//!
//! # Invariants
//!
//! - `write` has returned `Ok`: the change is on disk. It has returned an error other than
//!   `Indeterminate`: no part of it is.
//! - Nothing is visible to readers before it is on disk.
//! - Nothing is visible from its expiry on, whether it has been cleared away or not.
//! - This room does not know who calls: a safe is found by the name its caller gives.

mod backend;
mod batch;
mod copy;
mod decide;
mod disk;
mod envelope;
mod error;
mod group;
mod journal;
mod migrate;
mod number;
mod operate;
mod postgres;
mod safes;
mod snapshot;
mod store;
#[cfg(test)]
mod tests;
mod watch;
mod write;

use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Instant, SystemTime};

use parking_lot::Mutex;

use self::backend::{Backend, Outcome};
use self::disk::{Disk, FileDisk};
pub use self::envelope::EntryRef;
pub use self::error::{OpenError, ReadError, WriteError};
pub use self::group::Numbers;
use self::group::{Group, Ticket};
pub use self::operate::{OperateError, Order};
use self::postgres::{Server, ServerStore};
pub use self::safes::{SafeSettings, Safes};
use self::store::Store;
use self::watch::Watches;
pub use self::watch::{KeyRange, Watch, Woken};
pub use self::write::{Change, Check, Commit, Expiry, MAX_CHANGES, MAX_KEY, MAX_VALUE, Write};

/// One safe. Shared by all threads; every method but [`submit`](Safe::submit) may block on the disk.
#[derive(Debug)]
pub struct Safe {
    core: Arc<Core>,
    /// Makes the writes that nobody waits for; started by the first of them.
    service: Mutex<Service>,
}

/// What the safe's own thread shares.
#[derive(Debug)]
struct Core {
    name: String,
    backend: Box<dyn Backend>,
    group: Group,
    watches: Arc<Watches>,
    clock: Clock,
}

#[derive(Debug)]
enum Service {
    Unstarted,
    Running(JoinHandle<()>),
    Ended,
}

/// A write that is queued. Its changes are on disk when [`Safe::wait`] says so.
#[derive(Debug)]
pub struct Queued(Arc<Ticket>);

impl Core {
    fn now(&self) -> u64 {
        self.clock.now(self.backend.skew_ms())
    }

    /// Makes a batch, and tells those who watch.
    fn commit(&self, writes: &[&Write]) -> Vec<Outcome> {
        let outcomes = self.backend.apply(writes, self.now());
        self.watches.committed(writes.iter().copied().zip(&outcomes));
        outcomes
    }
}

impl Safe {
    fn open(name: &str, path: &Path) -> Result<Safe, OpenError> {
        if !path.exists() {
            store::create(path)?;
        }
        Safe::on(name, Box::new(FileDisk::open(path)?))
    }

    fn on(name: &str, disk: Box<dyn Disk>) -> Result<Safe, OpenError> {
        Ok(Safe::over(name, Box::new(Store::open(disk)?), Arc::default()))
    }

    fn on_server(name: &str, server: &Server) -> Result<Safe, OpenError> {
        let watches = Arc::<Watches>::default();
        let store = ServerStore::open(server, name, Arc::clone(&watches))?;
        Ok(Safe::over(name, Box::new(store), watches))
    }

    fn over(name: &str, backend: Box<dyn Backend>, watches: Arc<Watches>) -> Safe {
        let (group, clock) = (Group::default(), Clock::default());
        let core = Core { name: name.to_owned(), backend, group, watches, clock };
        Safe { core: Arc::new(core), service: Mutex::new(Service::Unstarted) }
    }

    /// The safe's name.
    pub fn name(&self) -> &str {
        &self.core.name
    }

    /// Shows `body` the entry of a key; `None` if there is none.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn get<R>(&self, key: &[u8], body: impl Fn(EntryRef<'_>) -> R) -> Result<Option<R>, ReadError> {
        let (now, mut found) = (self.core.now(), None);
        self.core.backend.read(&mut |view| {
            found = None;
            view.get(&[key], now, &mut |_, entry| found = Some(body(entry)))
        })?;
        Ok(found)
    }

    /// The entries of several keys, as one commit left them, in the order of `keys`.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn get_many<R>(
        &self,
        keys: &[&[u8]],
        body: impl Fn(EntryRef<'_>) -> R,
    ) -> Result<Vec<Option<R>>, ReadError> {
        let (now, mut found) = (self.core.now(), Vec::new());
        self.core.backend.read(&mut |view| {
            found.clear();
            found.resize_with(keys.len(), || None);
            view.get(keys, now, &mut |index, entry| found[index] = Some(body(entry)))
        })?;
        Ok(found)
    }

    /// Collects the entries of a range in order of their keys, at most `limit`.
    ///
    /// `body` makes an item of each, or says with `None` that there is no room for it; the second part
    /// of the answer tells whether the range has more.
    ///
    /// # Errors
    ///
    /// [`ReadError`]: also for one damaged value within the range.
    pub fn list<R>(
        &self,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        is_reverse: bool,
        limit: usize,
        mut body: impl FnMut(&[u8], EntryRef<'_>) -> Option<R>,
    ) -> Result<(Vec<R>, bool), ReadError> {
        let (now, mut items, mut has_more) = (self.core.now(), Vec::new(), false);
        self.core.backend.read(&mut |view| {
            items.clear();
            has_more = false;
            view.scan(range, is_reverse, now, &mut |key, entry| {
                let item = if items.len() < limit { body(key, entry) } else { None };
                has_more = item.is_none();
                items.extend(item);
                !has_more
            })
        })?;
        Ok((items, has_more))
    }

    /// How many entries there are.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn len(&self) -> Result<u64, ReadError> {
        let (now, mut count) = (self.core.now(), 0);
        self.core.backend.read(&mut |view| {
            count = view.len(now)?;
            Ok(())
        })?;
        Ok(count)
    }

    /// Whether there is no entry.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn is_empty(&self) -> Result<bool, ReadError> {
        Ok(self.len()? == 0)
    }

    /// Makes a write and returns when it is on disk, or when its checks do not hold.
    ///
    /// # Errors
    ///
    /// [`WriteError`].
    pub fn write(&self, write: Write, deadline: Instant) -> Result<Commit, WriteError> {
        let queued = self.queue(write)?;
        self.wait(&queued, deadline)
    }

    /// Queues a write and returns at once. It is made when somebody waits: for it or for another.
    ///
    /// # Errors
    ///
    /// [`WriteError::Invalid`], [`WriteError::Overloaded`].
    pub fn queue(&self, write: Write) -> Result<Queued, WriteError> {
        write.validate()?;
        self.core.group.submit(write).map(Queued)
    }

    /// Waits until a queued write is on disk.
    ///
    /// # Errors
    ///
    /// [`WriteError`].
    pub fn wait(&self, queued: &Queued, deadline: Instant) -> Result<Commit, WriteError> {
        self.core.group.wait(&queued.0, deadline, |writes| self.core.commit(writes))
    }

    /// Queues a write that nobody waits for. The safe's own thread makes it; `tell` hears what became of it.
    ///
    /// # Errors
    ///
    /// [`WriteError::Invalid`], [`WriteError::Overloaded`], [`WriteError::Closed`]; `tell` hears nothing then.
    pub fn submit(
        &self,
        write: Write,
        tell: impl FnOnce(&Result<Commit, WriteError>) + Send + 'static,
    ) -> Result<(), WriteError> {
        write.validate()?;
        self.serve()?;
        self.core.group.submit_unattended(write, Box::new(tell))
    }

    /// Returns when every write that was queued before is decided: on disk, or refused.
    ///
    /// # Errors
    ///
    /// [`WriteError`], if the disk does not answer.
    pub fn settle(&self, deadline: Instant) -> Result<(), WriteError> {
        self.write(Write::default(), deadline).map(drop)
    }

    /// Watches a range of keys.
    ///
    /// # Errors
    ///
    /// [`ReadError::Unavailable`], where a server has to be asked to tell of changes.
    pub fn watch(&self, range: KeyRange) -> Result<Arc<Watch>, ReadError> {
        // Added first: a change between the two must not go unnoticed.
        let watch = self.core.watches.add(range);
        self.core.backend.listen()?;
        Ok(watch)
    }

    /// Makes the safe's file smaller if it has much free room; tells by how many bytes.
    ///
    /// # Errors
    ///
    /// [`WriteError`]; the safe goes on as it is.
    pub fn compact(&self) -> Result<u64, WriteError> {
        self.core.backend.compact()
    }

    /// What an operator wants to know. Reads the file's length and the number of entries.
    pub fn status(&self) -> SafeStatus {
        let (waiting, group) = self.core.group.numbers();
        let (entries, facts) = (self.len(), self.core.backend.facts());
        SafeStatus {
            name: self.core.name.clone(),
            path: facts.place,
            file_bytes: facts.bytes,
            trouble: entries.as_ref().err().map(ToString::to_string),
            entries: entries.ok(),
            waiting,
            batches: group.batches,
            writes: group.writes,
            syncs: facts.syncs,
            recoveries: facts.recoveries,
        }
    }

    /// Starts the safe's own thread, once.
    fn serve(&self) -> Result<(), WriteError> {
        let mut service = self.service.lock();
        match *service {
            Service::Running(_) => return Ok(()),
            Service::Ended => return Err(WriteError::Closed),
            Service::Unstarted => {}
        }
        let core = Arc::clone(&self.core);
        let body = move || core.group.serve(|writes| core.commit(writes));
        match std::thread::Builder::new().name(format!("safe {}", self.core.name)).spawn(body) {
            Ok(thread) => {
                *service = Service::Running(thread);
                Ok(())
            }
            Err(error) => Err(WriteError::Unavailable { reason: format!("no thread for it: {error}") }),
        }
    }

    /// Makes what is queued, cancels watches and closes the file. Later uses are errors.
    fn close(&self) {
        self.core.watches.close();
        self.core.group.stop();
        let service = std::mem::replace(&mut *self.service.lock(), Service::Ended);
        if let Service::Running(thread) = service {
            // Its panics are caught batch by batch.
            let _ = thread.join();
        }
        self.core.backend.close();
    }
}

impl Drop for Safe {
    fn drop(&mut self) {
        // The thread shares the file; it ends when it has made what is queued.
        self.core.watches.close();
        self.core.group.stop();
        if let Service::Running(thread) = std::mem::replace(self.service.get_mut(), Service::Ended) {
            let _ = thread.join();
        }
    }
}

/// A safe, for the status.
#[derive(Clone, Debug, serde::Serialize)]
pub struct SafeStatus {
    /// The safe's name: that of its plugin.
    pub name: String,
    /// Its file.
    pub path: PathBuf,
    /// Length of the file.
    pub file_bytes: u64,
    /// How many entries; `None` if it cannot be read.
    pub entries: Option<u64>,
    /// Why it cannot be read.
    pub trouble: Option<String>,
    /// Writes that wait for the disk now.
    pub waiting: usize,
    /// Commits since the host started.
    pub batches: u64,
    /// Writes in them.
    pub writes: u64,
    /// How often bytes were forced to the disk.
    pub syncs: u64,
    /// How often the file was opened anew after a failure.
    pub recoveries: u64,
}

/// Milliseconds since 1970, never less than it has said before: what has expired stays expired.
#[derive(Debug, Default)]
struct Clock {
    last: AtomicU64,
    /// A test's time, if not 0.
    #[cfg(test)]
    set: AtomicU64,
}

impl Clock {
    /// `skew_ms` is how far the clock that counts is ahead of this machine's.
    fn now(&self, skew_ms: i64) -> u64 {
        #[cfg(test)]
        if let now @ 1.. = self.set.load(Ordering::SeqCst) {
            return now;
        }
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let now = u64::try_from(since.as_millis()).unwrap_or(u64::MAX).saturating_add_signed(skew_ms);
        self.last.fetch_max(now, Ordering::Relaxed).max(now)
    }
}
