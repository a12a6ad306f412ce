//! What a library is made of.
//!
//! Owns the list: the files cargo names, plus whole source directories, because a file that is not there
//! yet is an input too. Does not read any of them; that is [`super::fingerprint`].
//!
//! # Invariants
//!
//! - The list only errs on the side of too much: a build that finds nothing to do is cheap, an edit that
//!   is not noticed is not.
//! - Every symlink on the way to an input is watched: replacing it changes the input.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::dep_info;
use super::package::Package;
use super::tree::{self, Counted};
use crate::watch::{self, Depth};

/// Where cargo and rustup look for their configuration, in the package's directory and in each one above it. A
/// manifest further up may be a workspace's.
const FOUND_ABOVE: &[&str] =
    &["Cargo.toml", "rust-toolchain.toml", "rust-toolchain", ".cargo/config.toml", ".cargo/config"];

/// The files and directories a plugin's library depends on.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Inputs {
    /// Files, whether they exist or not.
    files: BTreeSet<PathBuf>,
    /// Directories, and which of the files below them count.
    trees: BTreeMap<PathBuf, Counted>,
    /// What the operator has told to leave alone.
    #[serde(skip)]
    ignored: tree::Ignored,
    /// What a watcher reports them as: see [`Inputs::resolve`].
    #[serde(skip)]
    watched: Watched,
    /// The lock file, which the first build may write itself.
    #[serde(skip)]
    pub(super) lock: Option<PathBuf>,
}

/// The names of inputs as they are on disk at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Watched {
    /// Files and trees without symlinks, and every symlink on the way to one.
    names: BTreeSet<PathBuf>,
    /// Those that are symlinks.
    links: BTreeSet<PathBuf>,
    /// The trees without symlinks, and the directories that symlinks in them lead to.
    trees: BTreeSet<PathBuf>,
}

impl Inputs {
    /// What is known before any build: manifests, lock file, cargo's configuration, and the sources of
    /// the package and its path dependencies.
    pub fn of_package(package: &Package) -> Inputs {
        let (lock, ignored) = (Some(package.lock_path.clone()), package.ignored());
        let mut inputs = Inputs { lock, ignored, ..Inputs::default() };
        inputs.files.insert(package.lock_path.clone());
        inputs.files.insert(package.workspace_root.join("Cargo.toml"));
        inputs.files.insert(package.entry.join("Cargo.toml"));
        inputs.add_configuration(&package.directory);
        inputs.files.extend(package.user_configuration.iter().cloned());
        inputs.add_packages(&BTreeSet::from([package.directory.clone()]));
        inputs.add_packages(&package.path_dependencies);
        inputs.add_tree(package.source_root.clone(), Counted::extension("rs"));
        inputs.add_files(package.watched());
        inputs.resolve();
        inputs
    }

    /// What is known of a directory whose manifest cannot be read; `words` say why.
    pub fn of_directory(directory: &Path, words: &str) -> Inputs {
        let mut inputs = Inputs::default();
        inputs.add_configuration(directory);
        inputs.add_packages(&BTreeSet::from([directory.to_owned()]));
        let named = dep_info::named_in(words, &BTreeSet::from([directory.to_owned()]));
        inputs.add_files(named.into_iter().filter(|path| !path.is_dir()));
        inputs.resolve();
        inputs
    }

    /// Where one of them is for the package in `directory` and may be in each directory above.
    fn add_configuration(&mut self, directory: &Path) {
        for above in directory.ancestors() {
            self.files.extend(FOUND_ABOVE.iter().map(|name| above.join(name)));
        }
    }

    /// Adds manifest, build script and sources of the packages in `directories`.
    pub(super) fn add_packages(&mut self, directories: &BTreeSet<PathBuf>) {
        for directory in directories {
            self.files.insert(directory.join("Cargo.toml"));
            self.files.insert(directory.join("build.rs"));
            self.add_tree(directory.join("src"), Counted::all());
        }
    }

    /// Adds single files. Of a directory all files count.
    pub(super) fn add_files(&mut self, files: impl IntoIterator<Item = PathBuf>) {
        for file in files {
            if file.is_dir() {
                self.add_tree(file, Counted::all());
            } else {
                self.files.insert(file);
            }
        }
    }

    /// Adds a directory of which some files count.
    pub(super) fn add_tree(&mut self, directory: PathBuf, counted: Counted) {
        self.trees.entry(directory).or_default().add(&counted);
    }

    /// Adds all that `other` has.
    pub fn add(&mut self, other: &Inputs) {
        self.files.extend(other.files.iter().cloned());
        for (directory, counted) in &other.trees {
            self.add_tree(directory.clone(), counted.clone());
        }
        self.resolve();
    }

    /// The same, and what is to be left alone too: the compiler reads it all the same.
    pub(super) fn with_ignored(self) -> Inputs {
        Inputs { ignored: tree::Ignored::default(), ..self }
    }

    /// Looks again where symlinks lead. To be called after inputs were added, and before a look at the files: a
    /// link may have been replaced since.
    pub fn resolve(&mut self) {
        let mut watched = Watched::default();
        let mut directories: BTreeMap<&Path, watch::Trail> = BTreeMap::new();
        for file in &self.files {
            let (Some(parent), Some(name)) = (file.parent(), file.file_name()) else { continue };
            let way = directories.entry(parent).or_insert_with(|| watch::trail(parent));
            let named = way.real.join(name);
            if named.is_symlink() {
                let way = watch::trail(&named);
                watched.links.extend(way.links);
                watched.names.insert(way.real);
            }
            watched.names.insert(named);
        }
        watched.links.extend(directories.into_values().flat_map(|way| way.links));
        for (directory, counted) in &self.trees {
            let way = watch::trail(directory);
            let links = tree::linked_directories(&way.real, counted);
            for way in links.iter().map(|link| watch::trail(link)).chain([way]) {
                watched.links.extend(way.links);
                watched.names.insert(way.real.clone());
                watched.trees.insert(way.real);
            }
        }
        watched.names.extend(watched.links.iter().cloned());
        self.watched = watched;
    }

    /// The directories to watch so that no change of an input is missed.
    pub fn directories(&self) -> BTreeMap<PathBuf, Depth> {
        let trees = &self.watched.trees;
        let is_below = |parent: &Path| {
            trees.iter().any(|tree| parent.starts_with(tree) && !watch::is_ignored(tree, parent))
        };
        let parents = self.watched.names.iter().filter_map(|name| name.parent());
        let flat: BTreeSet<&Path> = parents.filter(|parent| !is_below(parent)).collect();
        let flat = flat.into_iter().map(|directory| (directory.to_owned(), Depth::Flat));
        flat.chain(trees.iter().map(|tree| (tree.clone(), Depth::Tree))).collect()
    }

    /// Whether a change reported at `path` (without symlinks) can be one of an input.
    ///
    /// A cheap first look, which may say yes for nothing; the fingerprint decides.
    pub fn concern(&self, path: &Path) -> bool {
        let names = &self.watched.names;
        path.ancestors().any(|above| names.contains(above))
            || names.range(path.to_owned()..).next().is_some_and(|below| below.starts_with(path))
    }

    /// Whether a change at `path` may lead the way to an input elsewhere: see [`Inputs::resolve`].
    pub fn is_way(&self, path: &Path) -> bool {
        self.watched.links.contains(path) || self.concern(path) && path.is_symlink()
    }

    /// The files, as named by cargo.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(PathBuf::as_path)
    }

    /// Every file there is to read now, missing ones included.
    pub(super) fn every_file(&self) -> BTreeSet<PathBuf> {
        let mut found = BTreeSet::new();
        for path in self.files.iter().filter(|path| !self.ignored.has(path)) {
            // What was a file, or nothing, may have become a directory.
            if path.is_dir() {
                tree::collect(path, &Counted::all(), &self.ignored, &mut found);
            } else {
                found.insert(path.clone());
            }
        }
        for (directory, counted) in &self.trees {
            tree::collect(directory, counted, &self.ignored, &mut found);
        }
        found
    }
}
