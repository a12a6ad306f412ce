//! Whether any of a library's inputs has changed.
//!
//! Owns the reading and comparing of their content. What matters is content: a file put back with an older
//! time is a change, a `touch` is none. So nothing is remembered by time or size; the files are small and
//! in the page cache.
//!
//! # Invariants
//!
//! - A fingerprint never claims to know content that a build may not have seen (see
//!   [`Fingerprint::after_build`]): in doubt there is one build too many, never one too few.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use super::inputs::Inputs;

/// Times of files come from the kernel's coarse clock, which lags by up to a tick (10 ms at 100 Hz).
const CLOCK_LAG: Duration = Duration::from_millis(20);

/// The content of a set of files at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Fingerprint {
    files: BTreeMap<PathBuf, Content>,
}

/// What a fingerprint knows of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Content {
    /// There is no such file.
    Missing,
    /// It cannot be read.
    Unreadable,
    /// It was changed while a build was running that may or may not have seen it.
    Unsure,
    /// It is there and empty.
    Empty,
    /// It has bytes, with this hash.
    Bytes(u128),
}

impl Fingerprint {
    /// Reads every input now.
    pub fn of(inputs: &Inputs) -> Fingerprint {
        let files = inputs.every_file().into_iter().map(|path| {
            let content = Content::of(&path);
            (path, content)
        });
        Fingerprint { files: files.collect() }
    }

    /// What a build was made of: `before` it, the fingerprint of what was known; after it `inputs` and
    /// the moment it `started`.
    ///
    /// Files known before count as they were then. One that only the build has discovered is read now,
    /// and where it changed after the start it is [`Content::Unsure`], which equals nothing.
    pub fn after_build(before: &Fingerprint, inputs: &Inputs, started: SystemTime) -> Fingerprint {
        let files = inputs.every_file().into_iter().map(|path| {
            let content = match before.files.get(&path) {
                // Not there before, and written by cargo itself.
                Some(Content::Missing) if inputs.lock.as_ref() == Some(&path) => Content::of(&path),
                Some(content) => *content,
                None if has_changed_since(&path, started) => Content::Unsure,
                None => Content::of(&path),
            };
            (path, content)
        });
        Fingerprint { files: files.collect() }
    }

    /// The files that are not as they were `earlier`: changed, new or no longer there.
    pub fn changed_since<'a>(&'a self, earlier: &'a Fingerprint) -> BTreeSet<&'a Path> {
        let names = self.files.keys().chain(earlier.files.keys());
        names.filter(|name| self.content(name) != earlier.content(name)).map(PathBuf::as_path).collect()
    }

    /// A file that is empty now and was not `earlier`.
    ///
    /// Editors truncate before they write, so this is probably half a save: wait, for a bounded time,
    /// for the change that follows. A file that is meant to be empty stays so.
    pub fn unsettled_since(&self, earlier: &Fingerprint) -> Option<&Path> {
        let empty = self.files.iter().filter(|(_, content)| **content == Content::Empty);
        let mut emptied = empty.filter(|(name, _)| matches!(earlier.content(name), Content::Bytes(_)));
        emptied.next().map(|(name, _)| name.as_path())
    }

    /// One number for all of it, for logs and names.
    pub fn digest(&self) -> u128 {
        let mut hash = Xxh3::new();
        for (path, content) in &self.files {
            let name = path.as_os_str().as_encoded_bytes();
            // Lengths first, so that no two lists of names and hashes run together into the same bytes.
            hash.update(&(name.len() as u64).to_le_bytes());
            hash.update(name);
            let (kind, bytes) = match content {
                Content::Missing => (0, 0),
                Content::Unreadable => (1, 0),
                Content::Unsure => (2, 0),
                Content::Empty => (3, 0),
                Content::Bytes(bytes) => (4, *bytes),
            };
            hash.update(&[kind]);
            hash.update(&bytes.to_le_bytes());
        }
        hash.digest128()
    }

    /// Each file, and what is known of it.
    pub(super) fn files(&self) -> impl Iterator<Item = (&Path, Content)> {
        self.files.iter().map(|(path, content)| (path.as_path(), *content))
    }

    /// Whether anything is known of a file.
    pub(super) fn has(&self, path: &Path) -> bool {
        self.files.contains_key(path)
    }

    fn content(&self, path: &Path) -> Content {
        self.files.get(path).copied().unwrap_or(Content::Missing)
    }
}

impl FromIterator<(PathBuf, Content)> for Fingerprint {
    fn from_iter<T: IntoIterator<Item = (PathBuf, Content)>>(files: T) -> Fingerprint {
        Fingerprint { files: files.into_iter().collect() }
    }
}

/// The content of files, and when they had changed: enough to tell later whether they were left alone.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    files: BTreeMap<PathBuf, Reading>,
}

/// One file, read.
#[derive(Debug, Clone, Copy)]
struct Reading {
    content: Content,
    /// When the file had changed last, as of before it was read.
    changed: Option<SystemTime>,
    /// When it was read.
    at: SystemTime,
}

impl Snapshot {
    /// Reads those of `paths` that it does not know yet.
    pub(super) fn read(&mut self, paths: impl IntoIterator<Item = PathBuf>) {
        for path in paths {
            self.files.entry(path).or_insert_with_key(|path| {
                let (changed, at) = (changed_at(path), SystemTime::now());
                Reading { content: Content::of(path), changed, at }
            });
        }
    }

    /// What was read; `None`: it was not.
    pub(super) fn content(&self, path: &Path) -> Option<Content> {
        self.files.get(path).map(|reading| reading.content)
    }

    /// What the file had in it all the time from the reading, or from `started` where it was not read, until now;
    /// [`Content::Unsure`] where that is not certain.
    pub(super) fn content_during(&self, path: &Path, started: SystemTime) -> Content {
        let Some(reading) = self.files.get(path) else {
            return if has_changed_since(path, started) { Content::Unsure } else { Content::of(path) };
        };
        if changed_at(path) != reading.changed {
            return Content::Unsure;
        }
        // Where the clock had not gone on since the last change, it does not show the next one.
        let is_settled = reading.changed.is_none_or(|time| time < settled(reading.at));
        if is_settled || Content::of(path) == reading.content { reading.content } else { Content::Unsure }
    }
}

/// Whether the file at `path` has changed since `time`, or may have.
pub(super) fn has_changed_since(path: &Path, time: SystemTime) -> bool {
    changed_at(path).is_some_and(|changed| changed >= settled(time))
}

/// What changed before this had changed by `time` for certain.
fn settled(time: SystemTime) -> SystemTime {
    time.checked_sub(CLOCK_LAG).unwrap_or(UNIX_EPOCH)
}

impl Content {
    /// Reads the file at `path`.
    pub fn of(path: &Path) -> Content {
        match fs::read(path) {
            Ok(bytes) if bytes.is_empty() => Content::Empty,
            Ok(bytes) => Content::Bytes(xxh3_128(&bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Content::Missing,
            Err(_) => Content::Unreadable,
        }
    }
}

/// When the file at `path` last changed in any way, renames included: unlike the time of modification
/// no program can set it back.
fn changed_at(path: &Path) -> Option<SystemTime> {
    let metadata = fs::metadata(path).ok()?;
    let seconds = Duration::from_secs(metadata.ctime().try_into().ok()?);
    let nanoseconds = Duration::from_nanos(metadata.ctime_nsec().try_into().ok()?);
    Some(UNIX_EPOCH + seconds + nanoseconds)
}
