//! What lies in a plugins directory.
//!
//! Owns the rule of what is a plugin by its looks: a subdirectory with a `Cargo.toml`, or a file
//! `NAME.so`. Reads no file and runs no cargo, so that a scan costs nothing and cannot hang.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::names::is_ignored;

use crate::report::quoted;

/// Something that looks like a plugin.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Candidate {
    /// A cargo package, to be built.
    Source {
        /// Where it lies in the plugins directory, which may be a symlink that is replaced.
        path: PathBuf,
        /// Its directory now, without symlinks.
        directory: PathBuf,
    },
    /// A library, already built.
    Library {
        /// Where it lies in the plugins directory: what the operator replaces.
        path: PathBuf,
        /// The file itself, elsewhere if `path` is a symlink: what a builder replaces.
        real: PathBuf,
        /// The file name without `lib` in front and `.so` behind.
        name: String,
    },
}

/// Why a plugins directory, or a plugin in it, is not used.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// There is nothing of that name.
    #[error(
        "plugins directory {} does not exist: make it with a first plugin in it by `host new hello --plugins {}`, \
         or name another with --plugins", path.display(), quoted(path)
    )]
    Missing {
        /// The directory.
        path: PathBuf,
    },
    /// It is something else.
    #[error("{} is not a directory: --plugins takes the directory that holds the plugins", path.display())]
    NotDirectory {
        /// The path.
        path: PathBuf,
    },
    /// It cannot be read.
    #[error("cannot read plugins directory {}", path.display())]
    Read {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Every user of the machine can replace the code in it.
    #[error("{} is writable by everyone, who could run code here: chmod o-w {}", path.display(), quoted(path))]
    Writable {
        /// The path.
        path: PathBuf,
    },
}

impl Candidate {
    /// The directory or file on disk, without symlinks.
    pub fn real(&self) -> &Path {
        match self {
            Candidate::Source { directory, .. } => directory,
            Candidate::Library { real, .. } => real,
        }
    }

    /// Refuses a plugin whose code every user of the machine can replace. The directory it lies in was
    /// checked by [`scan`]; this is about the plugin itself and, behind a symlink, what holds it.
    ///
    /// # Errors
    ///
    /// [`ScanError::Writable`], naming what to protect.
    pub fn check(&self) -> Result<(), ScanError> {
        let real = self.real();
        check_private(real)?;
        real.parent().map_or(Ok(()), check_private)
    }
}

/// Lists what looks like a plugin in `directory`, sorted, each real file or directory once.
///
/// Hidden entries, editors' files and `target` are passed over, and so is a symlink that leads nowhere.
///
/// # Errors
///
/// [`ScanError`] when the directory cannot be listed or must not be trusted. A single plugin never makes
/// the whole listing fail.
pub fn scan(directory: &Path) -> Result<Vec<Candidate>, ScanError> {
    let at = || directory.to_owned();
    let real = directory.canonicalize().map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => ScanError::Missing { path: at() },
        _ => ScanError::Read { path: at(), source },
    })?;
    let entries = fs::read_dir(&real).map_err(|source| match source.kind() {
        io::ErrorKind::NotADirectory => ScanError::NotDirectory { path: at() },
        _ => ScanError::Read { path: at(), source },
    })?;
    check_private(&real)?;
    let mut found: BTreeMap<(u64, u64), (bool, Candidate)> = BTreeMap::new();
    for entry in entries {
        let entry = entry.map_err(|source| ScanError::Read { path: at(), source })?;
        // By the directory as it is named: it stays the same plugin where that is led elsewhere.
        let path = directory.join(entry.file_name());
        if is_hidden(&path) || is_ignored(directory, &path) {
            continue;
        }
        let Some((identity, candidate)) = candidate(&path) else { continue };
        let is_link = path.is_symlink();
        let order = (is_link, candidate);
        // Of several names for one file the real one is kept, and of equals the first.
        found.entry(identity).and_modify(|kept| *kept = kept.clone().min(order.clone())).or_insert(order);
    }
    let mut candidates: Vec<Candidate> = found.into_values().map(|(_, candidate)| candidate).collect();
    candidates.sort();
    Ok(candidates)
}

/// What `path` looks like, with its device and inode.
fn candidate(path: &Path) -> Option<((u64, u64), Candidate)> {
    let metadata = fs::metadata(path).ok()?;
    let identity = (metadata.dev(), metadata.ino());
    let real = path.canonicalize().ok()?;
    if metadata.is_dir() && path.join("Cargo.toml").exists() {
        return Some((identity, Candidate::Source { path: path.to_owned(), directory: real }));
    }
    let is_library = metadata.is_file() && path.extension().is_some_and(|extension| extension == "so");
    let stem = path.file_stem()?.to_string_lossy();
    let name = stem.strip_prefix("lib").filter(|rest| !rest.is_empty()).unwrap_or(&stem).to_owned();
    is_library.then(|| (identity, Candidate::Library { path: path.to_owned(), real, name }))
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

/// Fails if everyone may write to `path`, or replace what is in it. In a sticky directory, as `/tmp` is,
/// nobody can touch the files of others.
fn check_private(path: &Path) -> Result<(), ScanError> {
    const EVERYONE_WRITES: u32 = 0o002;
    const STICKY: u32 = 0o1000;
    // What cannot be looked at fails later, where it is used, with a better reason.
    let Ok(metadata) = fs::metadata(path) else { return Ok(()) };
    let is_sticky = metadata.is_dir() && metadata.mode() & STICKY != 0;
    if metadata.mode() & EVERYONE_WRITES != 0 && !is_sticky {
        return Err(ScanError::Writable { path: path.to_owned() });
    }
    Ok(())
}
