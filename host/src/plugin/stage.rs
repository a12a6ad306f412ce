//! Private copies of libraries, each under a name of its own.
//!
//! `dlopen` knows a library by path and inode: a rebuilt file under the old path, a hard link or a
//! symlink yields the *old* image, and a mapped file that is overwritten kills the process. So what is
//! opened is always a copy that nobody else writes to, under a name that was never used before. After a crash
//! the new process has nothing mapped yet: there the kept copy itself gets a second name.
//!
//! # Invariants
//!
//! - What was vetted, what is probed and what is opened are the same bytes: the file is read once.
//! - The directory is this process's own (mode 0700); leftovers of an earlier one are removed at start.

use std::fs;
use std::io::{self, Read, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use xxhash_rust::xxh3::{Xxh3, xxh3_128};

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

/// Identity of a library's content: equal bytes, equal id.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct BuildId(u128);

impl BuildId {
    /// The id of `bytes`.
    pub fn of(bytes: &[u8]) -> BuildId {
        BuildId(xxh3_128(bytes))
    }

    /// The id of what `content` still has to give.
    pub(super) fn of_content(mut content: impl Read) -> io::Result<BuildId> {
        let mut hasher = Xxh3::new();
        let mut part = vec![0; 256 * 1024];
        loop {
            match content.read(&mut part) {
                Ok(0) => return Ok(BuildId(hasher.digest128())),
                Ok(read) => hasher.update(&part[..read]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
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

/// A library could not be copied.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the private copy {}", path.display())]
pub struct StageError {
    /// The copy.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

impl Stage {
    /// Makes the directory and removes what an earlier process left in it.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn open(dir: &Path) -> io::Result<Stage> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "so") {
                fs::remove_file(path)?;
            }
        }
        Ok(Stage { dir: fs::canonicalize(dir)?, last: AtomicU64::new(0) })
    }

    /// Writes `bytes` to a fresh file named after `plugin`.
    ///
    /// # Errors
    ///
    /// [`StageError`]; no file is left.
    pub fn put(&self, plugin: &str, bytes: &[u8]) -> Result<Staged, StageError> {
        let path = self.fresh(plugin);
        let failed = |source| StageError { path: path.clone(), source };
        let mut file =
            fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(failed)?;
        let staged = Staged { path: path.clone() };
        file.write_all(bytes).map_err(failed)?;
        Ok(staged)
    }

    /// Gives `file` a second, fresh name; `None` where the file system does not.
    ///
    /// To be asked only of a private file to which nobody writes, and of which nothing is mapped in this process:
    /// the loader would answer with what is mapped.
    pub(super) fn link(&self, plugin: &str, file: &Path) -> Option<Staged> {
        let path = self.fresh(plugin);
        fs::hard_link(file, &path).ok().map(|()| Staged { path })
    }

    /// A name that was never used before.
    fn fresh(&self, plugin: &str) -> PathBuf {
        let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        self.dir.join(format!("{plugin}-{number}.so"))
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // The mapping of an opened library does not need the name. A file that is already gone is fine.
        let _ = fs::remove_file(&self.path);
    }
}
