//! A source plugin as cargo sees it: which package, which workspace, which library target.
//!
//! Owns the one call of `cargo metadata` per plugin and the sentences for what can be wrong with a
//! manifest. Does not build, and resolves no dependency: `--no-deps` needs neither network nor lock file.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cargo_metadata::{Metadata, MetadataCommand, Target, TargetKind};

use super::cargo::Cargo;
use super::dep_info::crate_name;
use super::process::output;
use super::tree::{Ignored, WatchRules};

/// How long cargo may take to answer, which it does in tens of milliseconds unless something is in its way.
const ANSWER: Duration = Duration::from_secs(60);

/// A cargo package with a cdylib target, described.
///
/// Valid until one of the manifests changes; then describe it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    /// The package's name, the plugin's unless the configuration says otherwise.
    pub name: String,
    /// Where it was looked for: symlinks on the way there may be replaced.
    pub(super) entry: PathBuf,
    /// The package's directory, without symlinks.
    pub directory: PathBuf,
    /// Its `Cargo.toml`.
    pub manifest_path: PathBuf,
    /// The root of its workspace: its own directory when it is in none.
    pub workspace_root: PathBuf,
    /// The lock file in force, which the first build writes if there is none.
    pub lock_path: PathBuf,
    /// The directories of the packages it depends on by path, as far as the manifests of its workspace
    /// tell. A build knows them all.
    pub path_dependencies: BTreeSet<PathBuf>,
    /// The manifests of its workspace.
    pub(super) members: BTreeSet<PathBuf>,
    /// The directory of the library's main source file: `src` unless the manifest says otherwise.
    pub(super) source_root: PathBuf,
    /// Whether it has a build script.
    pub(super) has_build_script: bool,
    /// The names by which cargo knows what it makes of it in the target directory.
    pub(super) artifacts: BTreeSet<String>,
    /// Where cargo looks for the user's configuration, besides the directories above the package.
    pub(super) user_configuration: Vec<PathBuf>,
    /// What the operator says of its files.
    pub(super) rules: WatchRules,
    /// The part of its id that names the directory, and that an edit of the version leaves alone.
    pub(super) url: String,
}

/// Why a directory could not be described as a source plugin. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum DescribeError {
    /// There is no manifest to read.
    #[error("`{}` has no Cargo.toml", directory.display())]
    NoManifest {
        /// Where it was looked for.
        directory: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// cargo could not be started.
    #[error("cannot start `{}`: install cargo or put it on the PATH", program.display())]
    Spawn {
        /// The program that was tried.
        program: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// cargo did not answer, and was ended.
    #[error(
        "cargo did not say within {} s what {} is: it may be waiting for another cargo, or for the network to fetch a \
         toolchain; try again with `host reload`", ANSWER.as_secs(), manifest.display()
    )]
    Late {
        /// The manifest.
        manifest: PathBuf,
    },
    /// cargo refuses the manifest.
    #[error("cargo refuses {}: {}", manifest.display(), first_line(words))]
    Manifest {
        /// The manifest.
        manifest: PathBuf,
        /// cargo's own words, all of them.
        words: String,
    },
    /// The package lies below a workspace that does not list it.
    #[error(
        "{} lies inside a workspace that does not list it: add an empty `[workspace]` table to it, \
         or add the package to `members` in {}", manifest.display(), workspace.display()
    )]
    Workspace {
        /// The package's manifest.
        manifest: PathBuf,
        /// The manifest of the workspace around it.
        workspace: PathBuf,
        /// cargo's own words.
        words: String,
    },
    /// The manifest is a workspace's and has no package.
    #[error("{} is a workspace without a package: name one of its members instead", manifest.display())]
    NoPackage {
        /// The manifest.
        manifest: PathBuf,
    },
    /// The package makes no library that can be loaded.
    #[error(
        "package `{package}` makes no loadable library: add `crate-type = [\"cdylib\"]` to [lib] in {}",
        manifest.display()
    )]
    NoLibrary {
        /// The package.
        package: String,
        /// Its manifest.
        manifest: PathBuf,
    },
    /// cargo's answer could not be read.
    #[error("cannot read what cargo says about {}", manifest.display())]
    Answer {
        /// The manifest.
        manifest: PathBuf,
        /// What is wrong with the answer.
        source: cargo_metadata::Error,
    },
}

impl DescribeError {
    /// cargo's own words, all of them; empty where it was not asked.
    pub fn words(&self) -> &str {
        match self {
            DescribeError::Manifest { words, .. } | DescribeError::Workspace { words, .. } => words,
            _ => "",
        }
    }
}

impl Package {
    /// Asks cargo about the package in `directory`.
    ///
    /// # Errors
    ///
    /// [`DescribeError`] when there is no usable manifest, or no cdylib in it.
    pub fn describe(cargo: &Cargo, directory: &Path) -> Result<Package, DescribeError> {
        let missing = |source| DescribeError::NoManifest { directory: directory.to_owned(), source };
        let entry = directory.to_owned();
        let manifest = directory.join("Cargo.toml");
        // Resolved first: cargo knows a package by its path, and one real directory is one package.
        let manifest = manifest.canonicalize().map_err(missing)?;
        let directory = manifest.parent().unwrap_or(Path::new("/")).to_owned();
        let metadata = metadata(cargo, &directory, &manifest)?;
        let package = metadata
            .packages
            .iter()
            .find(|package| package.manifest_path.as_std_path() == manifest)
            .ok_or_else(|| DescribeError::NoPackage { manifest: manifest.clone() })?;
        // An example may be a cdylib too, and is another target than the library.
        let is_library = |target: &&Target| target.kind.contains(&TargetKind::CDyLib);
        let Some(library) = package.targets.iter().find(is_library) else {
            let package = package.name.to_string();
            return Err(DescribeError::NoLibrary { package, manifest });
        };
        let workspace_root = metadata.workspace_root.clone().into_std_path_buf();
        Ok(Package {
            name: package.name.to_string(),
            lock_path: workspace_root.join("Cargo.lock"),
            workspace_root,
            path_dependencies: path_dependencies(&metadata, &directory),
            members: metadata
                .packages
                .iter()
                .map(|of| of.manifest_path.clone().into_std_path_buf())
                .collect(),
            source_root: library.src_path.parent().map_or(directory.clone(), |parent| parent.into()),
            has_build_script: package.targets.iter().any(|of| of.kind.contains(&TargetKind::CustomBuild)),
            artifacts: BTreeSet::from([
                format!("package {}", package.name),
                format!("library {}", crate_name(&library.name)),
            ]),
            rules: WatchRules::default(),
            user_configuration: cargo.user_configuration(),
            url: package.id.repr.split('#').next().unwrap_or(&package.id.repr).to_owned(),
            manifest_path: manifest,
            entry,
            directory,
        })
    }
}

impl Package {
    /// The same, with what the operator says of its files.
    #[must_use]
    pub fn with_rules(self, rules: WatchRules) -> Package {
        Package { rules, ..self }
    }

    /// The files and directories that the operator has named.
    pub(super) fn watched(&self) -> impl Iterator<Item = PathBuf> {
        self.rules.watch.iter().map(|path| self.directory.join(path))
    }

    /// What the operator has told to leave alone.
    pub(super) fn ignored(&self) -> Ignored {
        // Each pattern was looked at when the configuration was read.
        Ignored::new(&self.directory, &self.rules.ignore).unwrap_or_default()
    }

    /// How cargo is told which package is meant: the name alone may be a dependency's too.
    pub(super) fn spec(&self) -> String {
        format!("{}#{}", self.url, self.name)
    }
}

fn metadata(cargo: &Cargo, directory: &Path, manifest: &Path) -> Result<Metadata, DescribeError> {
    let mut command = cargo.command(directory);
    command.args(["metadata", "--no-deps", "--format-version=1", "--color=never", "--manifest-path"]);
    let output = output(command.arg(manifest), ANSWER).map_err(|source| match source.kind() {
        io::ErrorKind::TimedOut => DescribeError::Late { manifest: manifest.to_owned() },
        _ => DescribeError::Spawn { program: cargo.program().to_owned(), source },
    })?;
    if !output.status.success() {
        return Err(refusal(manifest, &String::from_utf8_lossy(&output.stderr)));
    }
    MetadataCommand::parse(String::from_utf8_lossy(&output.stdout))
        .map_err(|source| DescribeError::Answer { manifest: manifest.to_owned(), source })
}

fn refusal(manifest: &Path, words: &str) -> DescribeError {
    let words = words.trim().trim_start_matches("error: ").to_owned();
    let manifest = manifest.to_owned();
    let around = words
        .contains("believes it's in a workspace when it's not")
        .then(|| words.lines().find_map(|line| line.strip_prefix("workspace:")))
        .flatten()
        .map(|path| PathBuf::from(path.trim()));
    match around {
        Some(workspace) => DescribeError::Workspace { manifest, workspace, words },
        None => DescribeError::Manifest { manifest, words },
    }
}

/// Follows the dependencies by path from `directory` through the manifests that cargo has read.
fn path_dependencies(metadata: &Metadata, directory: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut pending = vec![directory.to_owned()];
    while let Some(directory) = pending.pop() {
        let package = metadata
            .packages
            .iter()
            .find(|package| package.manifest_path.parent().is_some_and(|parent| parent == directory));
        let paths = package.iter().flat_map(|p| &p.dependencies).filter_map(|d| d.path.as_ref());
        for path in paths {
            let path = path.clone().into_std_path_buf();
            if found.insert(path.clone()) {
                pending.push(path);
            }
        }
    }
    found
}

/// The first line of `words`, and the deepest cause if cargo gives a chain of them.
fn first_line(words: &str) -> String {
    let first = words.lines().next().unwrap_or_default();
    let cause = words.lines().skip_while(|line| !line.starts_with("Caused by:")).nth(1).map(str::trim);
    match cause {
        Some(cause) => format!("{first}: {cause}"),
        None => first.to_owned(),
    }
}
