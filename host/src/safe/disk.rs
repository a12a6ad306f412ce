//! Where the bytes of a safe lie: the seam at which tests cut the power.
//!
//! Owns: the file, its lock, the journal's file, the count of syncs. Does not own: what the bytes mean; that is the
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
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _};
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

    /// Opens the file of the journal; `None` if there is none.
    fn journal(&self) -> io::Result<Option<Box<dyn StorageBackend>>>;

    /// As [`journal`](Disk::journal), but makes it if there is none: in its full length, and durably so.
    fn make_journal(&self) -> io::Result<Box<dyn StorageBackend>>;

    /// Forgets what is cached of it, before it is opened anew after a failure.
    ///
    /// A sync that fails leaves pages in the system's cache that are not on the disk and are not written
    /// again: whoever reads them believes in what a power cut takes away.
    fn distrust(&self);

    /// Lets another process have it. It is not opened again.
    fn close(&self);

    /// Why nothing must be written to it, if that is so: what is written could not be found again.
    fn refusal(&self) -> Option<String> {
        None
    }

    /// Where it is, for errors.
    fn path(&self) -> &Path;

    /// How often bytes were forced to the medium.
    fn syncs(&self) -> u64;
}

/// Growth up to this many bytes is written as zeros; the rest of a bigger step is left to the file system.
const FILLED_STEP: u64 = 64 << 20;

/// Length of a journal. Also what a checkpoint may have to write, and opening after a crash to replay.
const JOURNAL: u64 = 2 << 20;

/// What a safe leaves free on its file system, or a hundredth of it if that is less.
const RESERVE: u64 = 64 << 20;

/// A file of the host's.
#[derive(Debug)]
pub(super) struct FileDisk {
    path: PathBuf,
    /// Locked, until it is closed or the last reference goes.
    file: Arc<File>,
    syncs: Arc<AtomicU64>,
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
        Ok(FileDisk { path: path.to_owned(), file: Arc::new(file), syncs: Arc::default() })
    }

    fn backend(&self, file: Arc<File>) -> FileBackend {
        FileBackend { file, syncs: Arc::clone(&self.syncs) }
    }
}

/// The file of the journal of the safe in `path`.
pub(super) fn journal_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-journal");
    name.into()
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
        builder.create_with_backend(self.backend(Arc::clone(&self.file)))
    }

    fn journal(&self) -> io::Result<Option<Box<dyn StorageBackend>>> {
        match File::options().read(true).write(true).open(journal_of(&self.path)) {
            Ok(file) => Ok(Some(Box::new(self.backend(Arc::new(file))))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn make_journal(&self) -> io::Result<Box<dyn StorageBackend>> {
        let path = journal_of(&self.path);
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let backend = self.backend(Arc::new(options.open(&path)?));
        if backend.len()? != JOURNAL {
            // Whole blocks of zeros: a record in a hole would need room, and the file system's own journal.
            backend.set_len(0)?;
            backend.set_len(JOURNAL)?;
        }
        backend.file.sync_all()?;
        File::open(path.parent().unwrap_or(Path::new("."))).and_then(|directory| directory.sync_all())?;
        Ok(Box::new(backend))
    }

    fn distrust(&self) {
        // What can still be written is; what cannot counts as clean afterwards, and clean pages are dropped. So
        // the next read is one of the disk. (Reading around the cache would show the same, and leave the wrong
        // pages to everybody who comes later.)
        let journal = File::open(journal_of(&self.path)).ok();
        for file in journal.iter().chain([&*self.file]) {
            let _ = file.sync_data();
            if let Err(error) = rustix::fs::fadvise(file, 0, None, Advice::DontNeed) {
                tracing::warn!(safe = %self.path.display(), "the page cache could not be dropped: {error}");
            }
        }
    }

    fn refusal(&self) -> Option<String> {
        let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
        let named = fs::metadata(&self.path).map(identity).ok();
        let open = self.file.metadata().map(identity).ok();
        (named != open).then(|| {
            format!(
                "its file {} was deleted or replaced while the host runs, so what is put now would be lost; save what \
                 the safe holds with `host safe backup`, then restart the host",
                self.path.display()
            )
        })
    }

    fn close(&self) {
        // Otherwise the lock goes with the file, at the last drop.
        let _ = self.file.unlock();
    }

    fn path(&self) -> &Path {
        &self.path
    }

    fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }
}

/// The file as the engine sees it. Reads and writes carry their place, so none waits for another.
#[derive(Debug)]
struct FileBackend {
    file: Arc<File>,
    syncs: Arc<AtomicU64>,
}

impl StorageBackend for FileBackend {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let old = self.len()?;
        leave_room(&self.file, len.saturating_sub(old))?;
        let filled = old.saturating_add(FILLED_STEP).min(len);
        if let Err(error) = fill(&self.file, old, filled) {
            // As it was, or at least not shorter: the engine has not used the new part yet.
            let _ = self.file.set_len(old);
            return Err(error);
        }
        if filled == len && old < len { Ok(()) } else { self.file.set_len(len) }
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()?;
        self.syncs.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_all_at(data, offset)
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
    static ZEROS: [u8; 4 << 10] = [0; 4 << 10];
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
