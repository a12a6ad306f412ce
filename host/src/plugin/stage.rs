//! Private copies of libraries, each under a name of its own.
//!
//! `dlopen` knows a library by path and inode: a rebuilt file under the old path, a hard link or a
//! symlink yields the *old* image, and a mapped file that is overwritten kills the process. So what is
//! opened is always a copy that nobody else writes to, under a name that was never used before.
//!
//! # Invariants
//!
//! - What was vetted, what is probed and what is opened are the same bytes: the file is read once.
//! - The directory is this process's own (mode 0700); leftovers of an earlier one are removed at start.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use xxhash_rust::xxh3::xxh3_128;

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
        let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let path = self.dir.join(format!("{plugin}-{number}.so"));
        let failed = |source| StageError { path: path.clone(), source };
        let mut file =
            fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(failed)?;
        let staged = Staged { path: path.clone() };
        file.write_all(bytes).map_err(failed)?;
        Ok(staged)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // The mapping of an opened library does not need the name. A file that is already gone is fine.
        let _ = fs::remove_file(&self.path);
    }
}
