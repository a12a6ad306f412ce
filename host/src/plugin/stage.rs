//! Private copies of libraries, each under a name of its own.
//!
//! `dlopen` knows a library by path and inode: a rebuilt file under the old path, a hard link or a
//! symlink yields the *old* image, and a mapped file that is overwritten kills the process. So what is
//! opened is always a copy that nobody else writes to, under a name that was never used before. After a crash
//! the new process has nothing mapped yet: there the kept copy itself gets a second name.
//!
//! # Invariants
//!
//! - What is vetted, what is probed and what is opened are the same bytes: those of the copy. The source is read
//!   once.
//! - The directory is this process's own (mode 0700); leftovers of an earlier one are removed at start.

use std::fs::{self, File};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use xxhash_rust::xxh3::Xxh3;

use super::mapped_file::MappedFile;

/// The staging directory.
#[derive(Debug)]
pub struct Stage {
    dir: PathBuf,
    last: AtomicU64,
}

/// A staged copy. Its file is removed on drop, unless a generation keeps it.
#[derive(Debug)]
pub struct Staged {
    /// Where the copy is.
    pub path: PathBuf,
}

/// A library in a private file, on its way into the process.
#[derive(Debug)]
pub struct Image {
    /// The file.
    pub staged: Staged,
    /// All that is in it. Nobody writes to it any more.
    pub(super) bytes: MappedFile,
    /// The id of these bytes.
    pub build_id: BuildId,
    /// The directory that it was made for: what it needs may lie beside it there.
    pub(super) origin: PathBuf,
}

/// Identity of a library's content: equal bytes, equal id.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct BuildId(u128);

impl BuildId {
    /// The id of `bytes`.
    pub(super) fn of(bytes: &[u8]) -> BuildId {
        BuildId(xxhash_rust::xxh3::xxh3_128(bytes))
    }

    /// The id that was written as `text`.
    pub(super) fn parse(text: &str) -> Option<BuildId> {
        u128::from_str_radix(text, 16).ok().map(BuildId)
    }
}

impl std::fmt::Display for BuildId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// A library could not be taken in; no file is left.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// What was to be copied cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The library.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The copy cannot be written.
    #[error("cannot write the private copy {}", path.display())]
    Write {
        /// The copy.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl Stage {
    /// Makes the directory and removes what an earlier process left in it.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn open(dir: &Path) -> io::Result<Stage> {
        make(dir)?;
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "so") {
                fs::remove_file(path)?;
            }
        }
        Ok(Stage { dir: fs::canonicalize(dir)?, last: AtomicU64::new(0) })
    }

    /// Copies `library` to a fresh file named after `plugin`; through a buffer, because whole libraries in memory
    /// cost a page fault for each of their pages.
    ///
    /// # Errors
    ///
    /// [`StageError`].
    pub fn copy(&self, plugin: &str, library: &Path) -> Result<Image, StageError> {
        let unread = |source| StageError::Read { path: library.to_owned(), source };
        let content = File::open(library).map_err(unread)?;
        let path = self.fresh(plugin);
        let unwritten = |source| StageError::Write { path: path.clone(), source };
        let create = || fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let mut copy = match create() {
            // Somebody has deleted the directory while the host runs.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make(&self.dir).and_then(|()| create()).map_err(unwritten)?
            }
            other => other.map_err(unwritten)?,
        };
        let staged = Staged { path: path.clone() };
        let build_id = read_through(content, unread, |part| copy.write_all(part).map_err(unwritten))?;
        let bytes = MappedFile::open(&path).map_err(unwritten)?;
        Ok(Image { staged, bytes, build_id, origin: origin_of(library) })
    }

    /// As [`copy`](Stage::copy), of a private file to which nobody writes and of which nothing is mapped in this
    /// process: a second name for it is as good as a copy. (The loader would answer with what is mapped.)
    ///
    /// # Errors
    ///
    /// [`StageError`].
    pub fn link(&self, plugin: &str, library: &Path) -> Result<Image, StageError> {
        let path = self.fresh(plugin);
        if fs::hard_link(library, &path).is_err() {
            // There are file systems without.
            return self.copy(plugin, library);
        }
        let staged = Staged { path };
        let unread = |source| StageError::Read { path: library.to_owned(), source };
        let content = File::open(&staged.path).map_err(unread)?;
        // Read through once, so that what cannot be read is an error here and not a fault later.
        let build_id = read_through(content, unread, |_| Ok(()))?;
        let bytes = MappedFile::open(&staged.path).map_err(unread)?;
        Ok(Image { staged, bytes, build_id, origin: origin_of(library) })
    }

    /// A name that was never used before.
    fn fresh(&self, plugin: &str) -> PathBuf {
        let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        self.dir.join(format!("{plugin}-{number}.so"))
    }
}

/// The directory that a library lies in, without symlinks.
pub(super) fn origin_of(library: &Path) -> PathBuf {
    let real = library.canonicalize().unwrap_or_else(|_| library.to_owned());
    real.parent().unwrap_or(Path::new("/")).to_owned()
}

/// Makes the directory, for this user alone.
fn make(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Shows `each` all parts of the content, in order; returns its id.
fn read_through<E>(
    mut content: impl Read,
    unread: impl Fn(io::Error) -> E,
    mut each: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<BuildId, E> {
    let mut hasher = Xxh3::new();
    let mut part = vec![0; 256 * 1024];
    loop {
        match content.read(&mut part) {
            Ok(0) => return Ok(BuildId(hasher.digest128())),
            Ok(read) => {
                hasher.update(&part[..read]);
                each(&part[..read])?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(unread(error)),
        }
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // The mapping of an opened library does not need the name. A file that is already gone is fine.
        let _ = fs::remove_file(&self.path);
    }
}
