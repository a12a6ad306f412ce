//! The safe: each plugin's private durable key-value store.
//!
//! A safe is one file under `STATE/safe`, owned by the host. A write that was acknowledged is on disk;
//! each is atomic; writers that come together share one sync. Values are bytes here: what an author's
//! types look like in them is the boundary's affair.
//!
//! Code map: [`Safe`] is what callers use. `group` decides who commits, `batch` makes many writes one
//! transaction, `store` keeps the database and opens it anew after a failure, `envelope` is a value on
//! disk, `disk` where the bytes lie; `operate` and `copy` are the operator's.
//!
//! # Invariants
//!
//! - `write` has returned `Ok`: the change is on disk. It has returned an error other than
//!   `Indeterminate`: no part of it is.
//! - Nothing is visible to readers before it is on disk.
//! - Nothing is visible from its expiry on, whether it has been cleared away or not.
//! - This room does not know who calls: a safe is found by the name its caller gives.

mod batch;
mod copy;
mod disk;
mod envelope;
mod error;
mod group;
mod number;
mod operate;
mod store;
#[cfg(test)]
mod tests;
mod write;

use std::collections::HashMap;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime};

use parking_lot::Mutex;

use self::disk::{Disk, FileDisk};
pub use self::envelope::EntryRef;
pub use self::error::{OpenError, ReadError, WriteError};
pub use self::group::Numbers;
use self::group::{Group, Ticket};
pub use self::operate::{OperateError, Order};
use self::store::{Snapshot, Store};
pub use self::write::{Change, Check, Commit, Expiry, MAX_CHANGES, MAX_KEY, MAX_VALUE, Write};

/// Extension of a safe's file.
const EXTENSION: &str = "redb";

/// All safes of a host, opened at their first use.
#[derive(Debug)]
pub struct Safes {
    directory: PathBuf,
    /// Held while a slot is found, never while a file is opened.
    slots: Mutex<HashMap<String, Arc<Slot>>>,
}

#[derive(Debug, Default)]
struct Slot {
    /// Held while the file is opened, so that it is opened once.
    state: Mutex<SlotState>,
}

#[derive(Debug, Default)]
struct SlotState {
    safe: Option<Arc<Safe>>,
    is_closed: bool,
}

impl Safes {
    /// The safes whose files lie in `directory`, which is made when it is needed.
    pub fn new(directory: PathBuf) -> Safes {
        Safes { directory, slots: Mutex::default() }
    }

    /// The safe of a name, opened or made if this is the first use.
    ///
    /// # Errors
    ///
    /// [`OpenError`]; a failure is not remembered.
    pub fn open(&self, name: &str) -> Result<Arc<Safe>, OpenError> {
        let path = self.path(name)?;
        let slot = Arc::clone(self.slots.lock().entry(name.to_owned()).or_default());
        let mut state = slot.state.lock();
        if state.is_closed {
            return Err(OpenError::Closed);
        }
        if let Some(safe) = &state.safe {
            return Ok(Arc::clone(safe));
        }
        let safe = Arc::new(Safe::open(name, &path)?);
        state.safe = Some(Arc::clone(&safe));
        Ok(safe)
    }

    /// As [`open`](Safes::open), but does not make a safe that is not there.
    ///
    /// # Errors
    ///
    /// As [`open`](Safes::open).
    pub fn open_existing(&self, name: &str) -> Result<Option<Arc<Safe>>, OpenError> {
        if self.path(name)?.exists() { self.open(name).map(Some) } else { Ok(None) }
    }

    /// The names of all safes that there are, sorted.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub fn names(&self) -> std::io::Result<Vec<String>> {
        let files = match std::fs::read_dir(&self.directory) {
            Ok(files) => files,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut names = Vec::new();
        for file in files {
            let path = file?.path();
            if path.extension().is_some_and(|extension| extension == EXTENSION)
                && let Some(name) = path.file_stem().and_then(|name| name.to_str())
            {
                names.push(name.to_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    /// The status of every safe that has been used, sorted by name. Opens none.
    pub fn status(&self) -> Vec<SafeStatus> {
        let slots: Vec<_> = self.slots.lock().values().cloned().collect();
        // One that is just being opened is not waited for.
        let safe = |slot: &Arc<Slot>| slot.state.try_lock()?.safe.clone();
        let mut status: Vec<SafeStatus> = slots.iter().filter_map(safe).map(|safe| safe.status()).collect();
        status.sort_by(|a, b| a.name.cmp(&b.name));
        status
    }

    /// Closes every safe, cleanly. Later uses are errors.
    pub fn close(&self) {
        let slots: Vec<_> = self.slots.lock().values().cloned().collect();
        for slot in slots {
            let mut state = slot.state.lock();
            state.is_closed = true;
            if let Some(safe) = state.safe.take() {
                safe.close();
            }
        }
    }

    fn path(&self, name: &str) -> Result<PathBuf, OpenError> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if name.is_empty() || name.starts_with('.') || name.len() > 128 || !name.bytes().all(is_plain) {
            return Err(OpenError::Name(name.to_owned()));
        }
        Ok(self.directory.join(format!("{name}.{EXTENSION}")))
    }
}

/// One safe. Shared by all threads; every method may block on the disk.
#[derive(Debug)]
pub struct Safe {
    name: String,
    store: Store,
    group: Group,
    clock: Clock,
}

/// A write that is queued. Its changes are on disk when [`Safe::wait`] says so.
#[derive(Debug)]
pub struct Queued(Arc<Ticket>);

impl Safe {
    fn open(name: &str, path: &Path) -> Result<Safe, OpenError> {
        if !path.exists() {
            create(path)?;
        }
        Safe::on(name, Box::new(FileDisk::open(path)?))
    }

    fn on(name: &str, disk: Box<dyn Disk>) -> Result<Safe, OpenError> {
        let store = Store::open(disk)?;
        Ok(Safe { name: name.to_owned(), store, group: Group::default(), clock: Clock::default() })
    }

    /// The safe's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Shows `body` the entry of a key; `None` if there is none.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn get<R>(&self, key: &[u8], body: impl Fn(EntryRef<'_>) -> R) -> Result<Option<R>, ReadError> {
        let now = self.clock.now();
        self.store.read(|snapshot| snapshot.get(key, now, &body))
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
        let now = self.clock.now();
        self.store.read(|snapshot| keys.iter().map(|key| snapshot.get(key, now, &body)).collect())
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
        let now = self.clock.now();
        self.store.read(|snapshot: &Snapshot| {
            let mut items = Vec::new();
            let mut has_more = false;
            snapshot.scan(range, is_reverse, now, &mut |key, entry| {
                let item = if items.len() < limit { body(key, entry) } else { None };
                has_more = item.is_none();
                items.extend(item);
                !has_more
            })?;
            Ok((items, has_more))
        })
    }

    /// How many entries there are.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn len(&self) -> Result<u64, ReadError> {
        let now = self.clock.now();
        self.store.read(|snapshot| snapshot.len(now))
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
        self.group.submit(write).map(Queued)
    }

    /// Waits until a queued write is on disk.
    ///
    /// # Errors
    ///
    /// [`WriteError`].
    pub fn wait(&self, queued: &Queued, deadline: Instant) -> Result<Commit, WriteError> {
        self.group.wait(&queued.0, deadline, |writes| self.store.apply(writes, self.clock.now()))
    }

    /// What an operator wants to know. Reads the file's length and the number of entries.
    pub fn status(&self) -> SafeStatus {
        let (waiting, group) = self.group.numbers();
        let entries = self.len();
        SafeStatus {
            name: self.name.clone(),
            path: self.store.disk().path().to_owned(),
            file_bytes: disk::len_of(self.store.disk().path()),
            trouble: entries.as_ref().err().map(ToString::to_string),
            entries: entries.ok(),
            waiting,
            batches: group.batches,
            writes: group.writes,
            syncs: self.store.disk().syncs(),
            recoveries: self.store.recoveries(),
        }
    }

    fn close(&self) {
        self.store.close();
    }
}

/// Makes the file of an empty safe, whole or not at all.
///
/// The engine's first steps on an empty file do not survive a power cut, so they are made under another
/// name.
fn create(path: &Path) -> Result<(), OpenError> {
    let fresh = path.with_extension("new");
    let failed = |error: std::io::Error| OpenError::Io { path: path.to_owned(), reason: error.to_string() };
    match std::fs::remove_file(&fresh) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    Store::open(Box::new(FileDisk::open(&fresh)?))?.close();
    std::fs::rename(&fresh, path).map_err(failed)
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
    fn now(&self) -> u64 {
        #[cfg(test)]
        if let now @ 1.. = self.set.load(Ordering::SeqCst) {
            return now;
        }
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let now = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        self.last.fetch_max(now, Ordering::Relaxed).max(now)
    }
}
