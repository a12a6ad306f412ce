//! From the system's events to one change.
//!
//! Owns the judgement of events: which kinds mean that a file is different, and which that a directory
//! must be looked at again. Does not know time; the watcher's thread decides when a batch is complete.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind, RenameMode};

use super::{Change, State};

/// The events of one change, so far.
#[derive(Default)]
pub(super) struct Batch {
    is_polling: bool,
    paths: BTreeSet<PathBuf>,
    /// Paths that something left: deleted or renamed away.
    left: BTreeSet<PathBuf>,
    /// Events were lost.
    lost: bool,
    /// Something is wrong with a directory.
    failed: bool,
}

impl Batch {
    /// Nothing yet.
    pub(super) fn new(is_polling: bool) -> Batch {
        Batch { is_polling, ..Batch::default() }
    }

    /// Takes in an event; false if it means nothing.
    pub(super) fn add(&mut self, event: notify::Result<notify::Event>) -> bool {
        let event = match event {
            Ok(event) if event.need_rescan() => {
                self.lost = true;
                return true;
            }
            Ok(event) => event,
            Err(error) => {
                tracing::debug!(%error, "a watched directory cannot be read");
                // When polling, a directory that has gone; otherwise events that could not be read.
                self.lost |= !self.is_polling;
                self.failed = true;
                return true;
            }
        };
        let kind = event.kind;
        let is_left = matches!(kind, EventKind::Remove(_))
            || matches!(kind, EventKind::Modify(ModifyKind::Name(RenameMode::From)));
        let mut any_counts = false;
        for path in event.paths {
            if is_left {
                self.left.insert(path.clone());
            }
            if self.counts(&kind, &path) {
                self.paths.insert(path);
                any_counts = true;
            }
        }
        any_counts
    }

    /// Whether an event of this kind changes the file at `path`.
    fn counts(&self, kind: &EventKind, path: &Path) -> bool {
        let is_library = path.extension().is_some_and(|extension| extension == "so");
        match kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
            EventKind::Access(_) | EventKind::Other => false,
            // A linker or `cp` still at work. It will close the file; that there is an end to it is the
            // only sign that it may be whole. Polling sees no end, but compares content.
            EventKind::Modify(ModifyKind::Data(_)) if is_library => self.is_polling,
            // A link to a whole file is never closed.
            EventKind::Create(_) if is_library => self.is_polling || is_link(path),
            _ => true,
        }
    }

    /// Follows the directories and decides what there is to tell.
    pub(super) fn settle(self, state: &mut State) -> Option<Change> {
        let roots = state.roots.as_mut()?;
        let is_structural =
            self.lost || self.failed || self.paths.iter().any(|path| roots.is_structural(path));
        let mut paths: BTreeSet<PathBuf> = self
            .paths
            .into_iter()
            // When polling, a directory's own time changes with every file in it, a temporary one too.
            .filter(|path| roots.cover(path) && !(self.is_polling && roots.is_armed(path)))
            .collect();
        if is_structural {
            self.left.iter().for_each(|path| roots.forget(path));
            let armed = state.arm();
            if let Some(error) = armed.failure {
                tracing::warn!(%error, "changes there will not be seen");
            }
            if armed.roots_changed || self.lost {
                return Some(Change::Rescan);
            }
            let roots = state.roots.as_ref()?;
            paths.extend(armed.added.into_iter().filter(|path| roots.cover(path)));
        }
        (!paths.is_empty()).then_some(Change::Paths(paths))
    }
}

/// Whether `path` is a symlink or one of several hard links.
fn is_link(path: &Path) -> bool {
    let Ok(metadata) = path.symlink_metadata() else { return false };
    metadata.is_symlink() || metadata.nlink() > 1
}
