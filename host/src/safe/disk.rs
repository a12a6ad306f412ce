//! Where the bytes of a safe lie: the seam at which tests cut the power.
//!
//! Owns: the file, its lock, the count of syncs. Does not own: what the bytes mean; that is the
//! engine's.
//!
//! # Invariants
//!
//! - The lock is held from the first open to the close, also while the engine is opened anew.
//! - After a failure nothing is believed that only the page cache says.
//! - The file grows by blocks that are really there: a full disk shows when the file is to grow, not
//!   when a page that the engine believes to own is written.

use std::fmt::Debug;
use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use redb::{Builder, Database, DatabaseError, StorageBackend};
use rustix::fs::Advice;

use super::error::OpenError;

/// Something that a database can be opened on, again and again.
pub(super) trait Disk: Debug + Send + Sync {
    /// Opens the database, making it if there is none. The one opened before has been dropped.
    fn open(&self, builder: &Builder) -> Result<Database, DatabaseError>;

    /// Forgets what is cached of it, before it is opened anew after a failure.
    ///
    /// A sync that fails leaves pages in the system's cache that are not on the disk and are not written
    /// again: whoever reads them believes in what a power cut takes away.
    fn distrust(&self);

    /// Lets another process have it. It is not opened again.
    fn close(&self);

    /// Where it is, for errors.
    fn path(&self) -> &Path;

    /// How often bytes were forced to the medium.
    fn syncs(&self) -> u64;
}

/// Growth up to this many bytes is written as zeros; the rest of a bigger step is left to the file system.
const FILLED_STEP: u64 = 64 << 20;

/// What a safe leaves free on its file system, or a hundredth of it if that is less.
const RESERVE: u64 = 64 << 20;

/// A file of the host's.
#[derive(Debug)]
pub(super) struct FileDisk {
    path: PathBuf,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Locked, until it is closed or the last reference goes.
    file: File,
    syncs: AtomicU64,
}

impl FileDisk {
    /// Opens and locks the file, making it and its directory for this user alone.
    ///
    /// # Errors
    ///
    /// [`OpenError::Io`], [`OpenError::InUse`].
    pub(super) fn open(path: &Path) -> Result<FileDisk, OpenError> {
        let failed = |error: io::Error| OpenError::Io { path: path.to_owned(), reason: error.to_string() };
        let directory = path.parent().unwrap_or(Path::new("."));
        make_directory(directory).map_err(failed)?;
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(OpenError::InUse { path: path.to_owned() }),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        // A file whose name is not on disk is lost with all that was synced into it.
        File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)?;
        Ok(FileDisk { path: path.to_owned(), shared: Arc::new(Shared { file, syncs: AtomicU64::new(0) }) })
    }
}

fn make_directory(directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    match directory.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => Ok(()),
    }
}

impl Disk for FileDisk {
    fn open(&self, builder: &Builder) -> Result<Database, DatabaseError> {
        builder.create_with_backend(FileBackend(Arc::clone(&self.shared)))
    }

    fn distrust(&self) {
        // What can still be written is; what cannot counts as clean afterwards, and clean pages are dropped. So
        // the next read is one of the disk. (Reading around the cache would show the same, and leave the wrong
        // pages to everybody who comes later.)
        let _ = self.shared.file.sync_data();
        if let Err(error) = rustix::fs::fadvise(&self.shared.file, 0, None, Advice::DontNeed) {
            tracing::warn!(safe = %self.path.display(), "the page cache could not be dropped: {error}");
        }
    }

    fn close(&self) {
        // Otherwise the lock goes with the file, at the last drop.
        let _ = self.shared.file.unlock();
    }

    fn path(&self) -> &Path {
        &self.path
    }

    fn syncs(&self) -> u64 {
        self.shared.syncs.load(Ordering::Relaxed)
    }
}

/// The file as the engine sees it. Reads and writes carry their place, so none waits for another.
#[derive(Debug)]
struct FileBackend(Arc<Shared>);

impl StorageBackend for FileBackend {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.file.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.file.read_exact_at(out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let old = self.len()?;
        leave_room(&self.0.file, len.saturating_sub(old))?;
        let filled = old.saturating_add(FILLED_STEP).min(len);
        if let Err(error) = fill(&self.0.file, old, filled) {
            // As it was, or at least not shorter: the engine has not used the new part yet.
            let _ = self.0.file.set_len(old);
            return Err(error);
        }
        if filled == len && old < len { Ok(()) } else { self.0.file.set_len(len) }
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.file.sync_data()?;
        self.0.syncs.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.file.write_all_at(data, offset)
    }
}

/// Refuses growth that would leave nothing to others on the same file system: logs, databases, builds.
fn leave_room(file: &File, growth: u64) -> io::Result<()> {
    // Where nobody knows, growing itself will tell.
    let Ok(system) = rustix::fs::fstatvfs(file) else { return Ok(()) };
    let free = system.f_bavail.saturating_mul(system.f_frsize);
    let reserve = system.f_blocks.saturating_mul(system.f_frsize).div_euclid(100).min(RESERVE);
    if growth == 0 || free >= growth.saturating_add(reserve) {
        return Ok(());
    }
    let words = format!(
        "the file system has {free} bytes left, and {growth} are needed beside the {reserve} that are left to others; \
         make room, nothing has to be restarted"
    );
    Err(io::Error::new(io::ErrorKind::StorageFull, words))
}

/// Writes zeros from `from` to `to`.
fn fill(file: &File, from: u64, to: u64) -> io::Result<()> {
    static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
    let mut at = from;
    while at < to {
        let step = (to - at).min(ZEROS.len() as u64);
        file.write_all_at(&ZEROS[..usize::try_from(step).unwrap_or(ZEROS.len())], at)?;
        at += step;
    }
    Ok(())
}

/// Length of the file of a safe, 0 if there is none.
pub(super) fn len_of(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |meta| meta.len())
}
