//! What a library is made of.
//!
//! Owns the list: the files cargo names, plus whole source directories, because a file that is not there
//! yet is an input too. Does not read any of them but cargo's own list; that is [`super::fingerprint`].
//!
//! # Invariants
//!
//! - The list only errs on the side of too much: a build that finds nothing to do is cheap, an edit that
//!   is not noticed is not.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::package::Package;
use crate::watch::{self, Depth};

/// How deep a source directory is searched: a bound for cycles that no real project meets.
const MAX_DEPTH: usize = 64;

/// The files and directories a plugin's library depends on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inputs {
    /// Files, whether they exist or not.
    files: BTreeSet<PathBuf>,
    /// Directories of which every file counts, however deep.
    trees: BTreeSet<PathBuf>,
    /// The files' and trees' names without symlinks, by which a watcher reports them.
    real: BTreeSet<PathBuf>,
    /// The lock file, which the first build may write itself.
    pub(super) lock: Option<PathBuf>,
}

impl Inputs {
    /// What is known before any build: manifests, lock file, cargo's configuration, and the sources of
    /// the package and its path dependencies.
    pub fn of_package(package: &Package) -> Inputs {
        let mut inputs = Inputs { lock: Some(package.lock_path.clone()), ..Inputs::default() };
        inputs.add_file(package.lock_path.clone());
        for directory in [&package.workspace_root, &package.directory] {
            let names = ["Cargo.toml", "rust-toolchain.toml", "rust-toolchain", ".cargo/config.toml"];
            for name in names {
                inputs.add_file(directory.join(name));
            }
        }
        inputs.add_packages(&BTreeSet::from([package.directory.clone()]));
        inputs.add_packages(&package.path_dependencies);
        inputs
    }

    /// What is known of a directory whose manifest cannot be read.
    pub fn of_directory(directory: &Path) -> Inputs {
        let mut inputs = Inputs::default();
        inputs.add_packages(&BTreeSet::from([directory.to_owned()]));
        inputs
    }

    /// Adds manifest, build script and sources of the packages in `directories`.
    pub(super) fn add_packages(&mut self, directories: &BTreeSet<PathBuf>) {
        for directory in directories {
            self.add_file(directory.join("Cargo.toml"));
            self.add_file(directory.join("build.rs"));
            let sources = directory.join("src");
            self.real.insert(resolved(&sources));
            self.trees.insert(sources);
        }
    }

    /// Adds single files.
    pub(super) fn add_files(&mut self, files: &BTreeSet<PathBuf>) {
        files.iter().for_each(|file| self.add_file(file.clone()));
    }

    /// Adds the files that cargo recorded beside the library: the sources of the package and of every
    /// path dependency, what they include, and what build scripts asked to be re-run for. What lies in
    /// `target_dir` is left out: it is generated from the others.
    pub(super) fn add_dep_info(&mut self, dep_info: &Path, package: &Package, target_dir: &Path) {
        let Ok(text) = fs::read_to_string(dep_info) else {
            tracing::warn!(path = %dep_info.display(), "no list of sources beside the library; \
                watching the packages' own files only");
            return;
        };
        let target_dir = resolved(target_dir);
        for file in dep_info_files(&text) {
            // Relative only if the user's configuration asks for it, then to the workspace as a rule.
            let file = package.workspace_root.join(file);
            if !resolved(&file).starts_with(&target_dir) {
                self.add_file(file);
            }
        }
    }

    fn add_file(&mut self, file: PathBuf) {
        self.real.insert(resolved(&file));
        if let Some(named) = file.parent().zip(file.file_name()).map(|(dir, name)| resolved(dir).join(name)) {
            self.real.insert(named);
        }
        self.files.insert(file);
    }

    /// The directories to watch so that no change of an input is missed.
    pub fn directories(&self) -> BTreeMap<PathBuf, Depth> {
        let trees: BTreeSet<PathBuf> = self.trees.iter().map(|tree| resolved(tree)).collect();
        let parents = self.real.iter().filter_map(|file| file.parent());
        let flat = parents.filter(|parent| !trees.iter().any(|tree| parent.starts_with(tree)));
        let flat: BTreeSet<PathBuf> = flat.map(Path::to_owned).collect();
        let deep = trees.into_iter().map(|tree| (tree, Depth::Tree));
        flat.into_iter().map(|directory| (directory, Depth::Flat)).chain(deep).collect()
    }

    /// Whether a change reported at `path` (without symlinks) can be one of an input.
    ///
    /// A cheap first look, which may say yes for nothing; the fingerprint decides.
    pub fn concern(&self, path: &Path) -> bool {
        path.ancestors().any(|above| self.real.contains(above))
            || self.real.range(path.to_owned()..).next().is_some_and(|below| below.starts_with(path))
    }

    /// The files, as named by cargo.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(PathBuf::as_path)
    }

    /// Every file there is to read now, missing ones included.
    pub(super) fn every_file(&self) -> BTreeSet<PathBuf> {
        let mut found = BTreeSet::new();
        for path in &self.files {
            // A build script may ask to be re-run for a whole directory.
            if path.is_dir() {
                collect(path, 0, &mut found);
            } else {
                found.insert(path.clone());
            }
        }
        self.trees.iter().for_each(|tree| collect(tree, 0, &mut found));
        found
    }
}

/// Every file below `directory` that is not an editor's own.
fn collect(directory: &Path, depth: usize, found: &mut BTreeSet<PathBuf>) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if watch::is_ignored(directory, &path) {
            continue;
        }
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && depth < MAX_DEPTH => collect(&path, depth + 1, found),
            Ok(kind) if kind.is_dir() => {}
            // A symlink to a directory is left alone; what is used of it the dep-info names.
            Ok(kind) if kind.is_symlink() && path.is_dir() => {}
            _ => {
                found.insert(path);
            }
        }
    }
}

/// The files named by one of cargo's dep-info files, in which only spaces are escaped.
fn dep_info_files(text: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for (_, list) in text.lines().filter_map(|line| line.split_once(": ")) {
        let mut file = String::new();
        for word in list.split(' ') {
            match word.strip_suffix('\\') {
                Some(head) => file.extend([head, " "]),
                None => {
                    file.push_str(word);
                    files.push(PathBuf::from(std::mem::take(&mut file)));
                }
            }
        }
    }
    files.retain(|file| !file.as_os_str().is_empty());
    files
}

/// `path` without symlinks, as far as it exists.
fn resolved(path: &Path) -> PathBuf {
    watch::resolved(path)
}
