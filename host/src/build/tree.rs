//! Which files below a directory count.
//!
//! Owns the walk through a directory of inputs, symlinks included, and what it leaves out. Does not read a file.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ignore::WalkBuilder;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

use crate::watch;

/// How deep a directory is searched.
const MAX_DEPTH: usize = 64;

/// Which files of a directory count, however deep.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Counted {
    /// All but what editors, cargo and git write for themselves.
    all: bool,
    /// Those that cargo takes for a package's own: no hidden ones, none that git ignores, and none of a package below.
    of_package: bool,
    /// Those with one of these extensions.
    extensions: BTreeSet<String>,
}

impl Counted {
    pub(super) fn all() -> Counted {
        Counted { all: true, ..Counted::default() }
    }

    pub(super) fn of_package() -> Counted {
        Counted { of_package: true, ..Counted::default() }
    }

    pub(super) fn extension(extension: &str) -> Counted {
        Counted { extensions: BTreeSet::from([extension.to_owned()]), ..Counted::default() }
    }

    /// Counts what `other` counts too.
    pub(super) fn add(&mut self, other: &Counted) {
        self.all |= other.all;
        self.of_package |= other.of_package;
        self.extensions.extend(other.extensions.iter().cloned());
    }

    fn has(&self, path: &Path) -> bool {
        let extension = path.extension().and_then(OsStr::to_str);
        self.all || extension.is_some_and(|extension| self.extensions.contains(extension))
    }
}

/// What an operator says of the files of a source plugin, where cargo cannot know it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WatchRules {
    /// Files and directories that the plugin is made of, relative to the package's directory.
    pub watch: Vec<PathBuf>,
    /// Files that are not looked at, in the language of `.gitignore`, relative to the package's directory.
    pub ignore: Vec<String>,
}

impl WatchRules {
    /// These and those of `other`.
    pub fn with(&self, other: &WatchRules) -> WatchRules {
        WatchRules {
            watch: self.watch.iter().chain(&other.watch).cloned().collect(),
            ignore: self.ignore.iter().chain(&other.ignore).cloned().collect(),
        }
    }

    /// Looks whether `pattern` is one that can be in [`WatchRules::ignore`].
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn check(pattern: &str) -> Result<(), String> {
        Ignored::new(Path::new("/"), &[pattern.to_owned()]).map(drop)
    }
}

/// What an operator has told to leave alone, for one directory.
#[derive(Debug, Clone, Default)]
pub(super) struct Ignored(Option<Arc<(Vec<String>, Gitignore)>>);

impl Ignored {
    /// The files below `directory` that match one of `patterns`.
    ///
    /// # Errors
    ///
    /// What is wrong with one of the patterns, in a sentence.
    pub(super) fn new(directory: &Path, patterns: &[String]) -> Result<Ignored, String> {
        if patterns.is_empty() {
            return Ok(Ignored::default());
        }
        let mut builder = GitignoreBuilder::new(directory);
        for pattern in patterns {
            builder.add_line(None, pattern).map_err(|error| error.to_string())?;
        }
        let matcher = builder.build().map_err(|error| error.to_string())?;
        let mut identity = vec![directory.to_string_lossy().into_owned()];
        identity.extend_from_slice(patterns);
        Ok(Ignored(Some(Arc::new((identity, matcher)))))
    }

    pub(super) fn has(&self, path: &Path) -> bool {
        let Some(ignored) = &self.0 else { return false };
        let matcher = &ignored.1;
        path.starts_with(matcher.path()) && matcher.matched_path_or_any_parents(path, false).is_ignore()
    }
}

/// Equal patterns for one directory are equal.
impl PartialEq for Ignored {
    fn eq(&self, other: &Ignored) -> bool {
        self.0.as_ref().map(|own| &own.0) == other.0.as_ref().map(|of| &of.0)
    }
}

impl Eq for Ignored {}

/// Every file below `directory` that counts.
pub(super) fn collect(directory: &Path, counted: &Counted, ignored: &Ignored, found: &mut BTreeSet<PathBuf>) {
    walk(directory, directory, &mut BTreeSet::new(), &mut |path, is_directory| {
        if !is_directory && counted.has(path) && !ignored.has(path) {
            found.insert(path.to_owned());
        }
    });
    if counted.of_package {
        found.extend(package_files(directory).filter(|path| !ignored.has(path)));
    }
}

/// The symlinks to directories in `directory`, as a walk meets them.
pub(super) fn linked_directories(directory: &Path, counted: &Counted) -> BTreeSet<PathBuf> {
    let mut links = BTreeSet::new();
    if counted.all || !counted.extensions.is_empty() {
        walk(directory, directory, &mut BTreeSet::new(), &mut |path, is_directory| {
            if is_directory && path.is_symlink() {
                links.insert(path.to_owned());
            }
        });
    }
    links
}

/// Shows `each` everything below `directory` that is not an editor's own. Symlinks are followed, each directory once.
fn walk(root: &Path, directory: &Path, seen: &mut BTreeSet<(u64, u64)>, each: &mut dyn FnMut(&Path, bool)) {
    let is_new = fs::metadata(directory).is_ok_and(|of| seen.insert((of.dev(), of.ino())));
    if !is_new || directory.components().count() > root.components().count() + MAX_DEPTH {
        return;
    }
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if watch::is_ignored(directory, &path) {
            continue;
        }
        let is_directory = match entry.file_type() {
            Ok(kind) if kind.is_symlink() => path.is_dir(),
            kind => kind.is_ok_and(|kind| kind.is_dir()),
        };
        // An editor's half-written file, under whatever name; one that the build reads is named by cargo.
        if !is_directory && entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        each(&path, is_directory);
        if is_directory {
            walk(root, &path, seen, each);
        }
    }
}

/// The files of the package in `directory`, as cargo lists them.
fn package_files(directory: &Path) -> impl Iterator<Item = PathBuf> {
    let root = directory.to_owned();
    let is_own = move |entry: &ignore::DirEntry| {
        let path = entry.path();
        path == root || !(watch::is_ignored(&root, path) || path.join("Cargo.toml").exists())
    };
    let mut walk = WalkBuilder::new(directory);
    walk.ignore(false).git_global(false).max_depth(Some(MAX_DEPTH)).filter_entry(is_own);
    let is_file = |entry: &ignore::DirEntry| entry.file_type().is_some_and(|kind| !kind.is_dir());
    walk.build().filter_map(Result::ok).filter(is_file).map(ignore::DirEntry::into_path)
}
