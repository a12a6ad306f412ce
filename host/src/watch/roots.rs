//! Which directories are wanted, and which the system therefore watches for us.
//!
//! The system watches single directories that exist. What is wanted may be a tree, may be missing now and
//! may come back as another directory of the same name. [`Roots`] turns the one into the other, and is
//! asked to do so again whenever something about directories has changed.
//!
//! # Invariants
//!
//! - Only directories are given to the system, each one flat: a recursive watch of its own would enter
//!   `target`, and a watch on a file would follow the old file when an editor renames a new one over it.
//! - After [`Roots::arm`] every wanted directory that exists is watched, and for every missing one its
//!   nearest existing ancestor is.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use notify::{ErrorKind, RecursiveMode};

use super::names::{is_ignored, resolved};
use super::{Depth, WatchError};

/// How often directories may change while they are being armed before that is left to the next event.
const ATTEMPTS: usize = 8;

/// What is wanted and what is armed.
pub(super) struct Roots {
    backend: Box<dyn notify::Watcher + Send>,
    /// Written by the watcher's users, read by its thread.
    wanted: BTreeMap<PathBuf, Depth>,
    /// The directories the backend watches, with device and inode to notice a replaced one.
    armed: BTreeMap<PathBuf, (u64, u64)>,
    /// The wanted directories that existed when last looked at.
    present: BTreeMap<PathBuf, (u64, u64)>,
}

/// What [`Roots::arm`] found.
#[derive(Default)]
pub(super) struct Armed {
    /// A wanted directory came, went or was replaced.
    pub(super) roots_changed: bool,
    /// Directories that are newly watched; files may have been made in them unseen.
    pub(super) added: BTreeSet<PathBuf>,
    /// The backend can watch no more directories.
    pub(super) is_full: bool,
    /// The first directory that cannot be watched.
    pub(super) failure: Option<WatchError>,
}

impl Roots {
    pub(super) fn new(backend: Box<dyn notify::Watcher + Send>) -> Roots {
        Roots { backend, wanted: BTreeMap::new(), armed: BTreeMap::new(), present: BTreeMap::new() }
    }

    /// Goes on with another backend, which watches nothing yet.
    pub(super) fn replace_backend(&mut self, backend: Box<dyn notify::Watcher + Send>) {
        self.backend = backend;
        self.armed.clear();
    }

    /// Wants `directory` too. A tree stays a tree.
    pub(super) fn want(&mut self, directory: &Path, depth: Depth) {
        let wanted = self.wanted.entry(resolved(directory)).or_insert(depth);
        *wanted = depth.max(*wanted);
    }

    /// Wants exactly `directories`.
    pub(super) fn want_only(&mut self, directories: &BTreeMap<PathBuf, Depth>) {
        self.wanted.clear();
        directories.iter().for_each(|(directory, depth)| self.want(directory, *depth));
        let wanted = &self.wanted;
        self.present.retain(|directory, _| wanted.contains_key(directory));
    }

    /// Whether `path` is one that somebody wants to hear of.
    pub(super) fn cover(&self, path: &Path) -> bool {
        path.ancestors().enumerate().any(|(level, above)| match self.wanted.get(above) {
            Some(Depth::Flat) => level <= 1 && !is_ignored(above, path),
            Some(Depth::Tree) => !is_ignored(above, path),
            None => false,
        })
    }

    /// Whether an event at `path` may be about directories, so that arming must be looked at again.
    pub(super) fn is_structural(&self, path: &Path) -> bool {
        let at_or_below = |map_key: Option<&PathBuf>| map_key.is_some_and(|key| key.starts_with(path));
        at_or_below(self.armed.range(path.to_owned()..).next().map(|(key, _)| key))
            || at_or_below(self.wanted.range(path.to_owned()..).next().map(|(key, _)| key))
            // A directory in a tree has to be armed too; one beside files that are wanted has not.
            || self.is_in_tree(path) && path.is_dir()
    }

    fn is_in_tree(&self, path: &Path) -> bool {
        path.ancestors().any(|above| self.wanted.get(above) == Some(&Depth::Tree))
    }

    /// Whether `path` is itself a directory that the backend watches.
    pub(super) fn is_armed(&self, path: &Path) -> bool {
        self.armed.contains_key(path)
    }

    /// Takes note that the directory at `path` was deleted or moved away. Its inode number says nothing
    /// any more: the system gives it to the next directory made.
    pub(super) fn forget(&mut self, path: &Path) {
        let gone: Vec<PathBuf> = self.armed.keys().filter(|armed| armed.starts_with(path)).cloned().collect();
        for directory in gone {
            self.disarm(&directory);
        }
        self.present.retain(|directory, _| !directory.starts_with(path));
    }

    /// Brings the backend's watches in line with what is wanted and what exists.
    pub(super) fn arm(&mut self) -> Armed {
        let mut armed = Armed::default();
        let mut failed = BTreeSet::new();
        for _ in 0..ATTEMPTS {
            let due = self.due();
            let stale: Vec<PathBuf> = self
                .armed
                .iter()
                .filter(|(dir, id)| due.get(*dir) != Some(id))
                .map(|(d, _)| d.clone())
                .collect();
            let new: Vec<_> = due
                .into_iter()
                .filter(|(dir, id)| self.armed.get(dir) != Some(id) && !failed.contains(dir))
                .collect();
            if stale.is_empty() && new.is_empty() {
                break;
            }
            stale.iter().for_each(|directory| self.disarm(directory));
            for (directory, id) in new {
                match self.backend.watch(&directory, RecursiveMode::NonRecursive) {
                    Ok(()) => {
                        armed.added.insert(directory.clone());
                        self.armed.insert(directory, id);
                    }
                    // Deleted in the meantime: the next attempt arms what is above it.
                    Err(error) if matches!(error.kind, ErrorKind::PathNotFound) => {}
                    Err(error) if matches!(error.kind, ErrorKind::MaxFilesWatch) => {
                        armed.is_full = true;
                        return armed;
                    }
                    Err(source) => {
                        failed.insert(directory.clone());
                        armed.failure.get_or_insert(WatchError::Directory { directory, source });
                    }
                }
            }
        }
        armed.roots_changed = self.note_present();
        armed
    }

    /// Looks which wanted directories exist; true if that is not as it was.
    fn note_present(&mut self) -> bool {
        let exists = |directory: &PathBuf| Some((directory.clone(), identity(directory)?));
        let present: BTreeMap<_, _> = self.wanted.keys().filter_map(exists).collect();
        let changed = present != self.present;
        self.present = present;
        changed
    }

    /// The directories that must be armed now.
    fn due(&self) -> BTreeMap<PathBuf, (u64, u64)> {
        let mut due = BTreeMap::new();
        for (root, depth) in &self.wanted {
            let Some((directory, id)) = root.ancestors().find_map(|dir| Some((dir, identity(dir)?))) else {
                continue;
            };
            due.insert(directory.to_owned(), id);
            if directory == root && *depth == Depth::Tree {
                add_below(root, root, &mut due);
            }
        }
        due
    }

    fn disarm(&mut self, directory: &Path) {
        self.armed.remove(directory);
        // Fails for a directory that is gone, whose watch went with it.
        let _ = self.backend.unwatch(directory);
    }
}

/// Device and inode of a directory; `None` if there is none.
fn identity(directory: &Path) -> Option<(u64, u64)> {
    let metadata = fs::metadata(directory).ok().filter(fs::Metadata::is_dir)?;
    Some((metadata.dev(), metadata.ino()))
}

fn add_below(root: &Path, directory: &Path, due: &mut BTreeMap<PathBuf, (u64, u64)>) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        // Symlinks are not followed: a tree ends where another one begins, and cycles end at once.
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_directory
            && !is_ignored(root, &path)
            && let Some(id) = identity(&path)
        {
            due.insert(path.clone(), id);
            add_below(root, &path, due);
        }
    }
}
