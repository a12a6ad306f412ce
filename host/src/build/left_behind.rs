//! What a run of cargo leaves behind about the files it has used.
//!
//! Owns the putting together: which packages there were, what each was made of, what is to be watched. Does not own the
//! formats, which are [`super::dep_info`]'s.
//!
//! # Invariants
//!
//! - After a failed run everything that may repair it is watched: what the library was made of when it compiled last, and
//!   what the errors name.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::dep_info::{self, Reruns};
use super::inputs::Inputs;
use super::package::Package;
use super::run::{LocalPackage, Outcome};
use super::tree::Counted;
use crate::watch;

/// The files of one run of cargo.
pub(super) struct LeftBehind<'a> {
    package: &'a Package,
    outcome: &'a Outcome,
    /// What the library was made of, in all packages that cargo reads in place; `None` where there is no library.
    made_of: Option<Inputs>,
    /// Directories of which nothing counts: it is generated from the others.
    generated: [PathBuf; 2],
}

impl<'a> LeftBehind<'a> {
    /// Reads what is left of the run that came to `outcome`, before cargo runs again.
    pub(super) fn read(
        package: &'a Package,
        outcome: &'a Outcome,
        target_dirs: [&Path; 2],
    ) -> LeftBehind<'a> {
        let generated = target_dirs.map(watch::resolved);
        let mut left = LeftBehind { package, outcome, made_of: None, generated };
        left.made_of = left.library_inputs();
        left
    }

    /// What is to be watched; `last` is what the library was made of when it was compiled last.
    pub(super) fn inputs(&self, last: Option<Inputs>) -> Inputs {
        let mut inputs = Inputs::of_package(self.package);
        inputs.add_packages(&self.outcome.local_packages.keys().cloned().collect());
        match (&self.made_of, last) {
            (Some(made_of), _) => inputs.add(made_of),
            (None, last) => {
                last.iter().for_each(|last| inputs.add(last));
                if last.is_none() && self.package.has_build_script {
                    inputs.add_tree(self.package.directory.clone(), Counted::of_package());
                }
                inputs.add_files(self.outcome.blamed.iter().cloned());
                inputs.add_files(self.package.members.iter().cloned());
                inputs.add_files(self.named_in_errors());
            }
        }
        inputs.resolve();
        inputs
    }

    /// What each package was made of; without those of which nothing was made.
    pub(super) fn packages(&self) -> BTreeMap<&'a PathBuf, (&'a LocalPackage, Inputs)> {
        let mut packages = BTreeMap::new();
        for (directory, local) in &self.outcome.local_packages {
            let inputs = match *directory == self.package.directory {
                true => self.made_of.clone(),
                false => self.dependency_inputs(directory, local),
            };
            packages.extend(inputs.map(|inputs| (directory, (local, inputs))));
        }
        packages
    }

    fn library_inputs(&self) -> Option<Inputs> {
        let (library, _) = self.outcome.library.as_ref().filter(|_| self.outcome.success)?;
        let mut inputs = Inputs::default();
        inputs.add_tree(self.package.source_root.clone(), Counted::extension("rs"));
        inputs.add_files(self.package.watched());
        for (directory, local) in &self.outcome.local_packages {
            inputs.add_tree(directory.join("src"), Counted::all());
            add_reruns(&mut inputs, directory, local);
        }
        let dep_info = library.with_extension("d");
        match fs::read_to_string(&dep_info) {
            Ok(text) => self.add_files(&mut inputs, &text),
            Err(_) => tracing::warn!(path = %dep_info.display(), "no list of sources beside the library; \
                watching the packages' own files only"),
        }
        Some(inputs)
    }

    fn dependency_inputs(&self, directory: &Path, local: &LocalPackage) -> Option<Inputs> {
        // It was named in an error, and nothing was made of it.
        if local.artifacts.is_empty() {
            return None;
        }
        let mut inputs = Inputs::default();
        inputs.add_tree(directory.join("src"), Counted::all());
        add_reruns(&mut inputs, directory, local);
        for artifact in &local.artifacts {
            match dep_info::beside(artifact).and_then(|path| fs::read_to_string(path).ok()) {
                Some(text) => self.add_files(&mut inputs, &text),
                // Not known, so whatever is known counts.
                None => self.made_of.iter().for_each(|all| inputs.add(all)),
            }
        }
        Some(inputs)
    }

    /// Adds the files that a dep-info file names: sources, what they include, and what build scripts asked to be re-run
    /// for.
    fn add_files(&self, inputs: &mut Inputs, dep_info: &str) {
        for file in dep_info::files(dep_info) {
            // Relative where the package is a member of the workspace, then to its root.
            let file = self.package.workspace_root.join(file);
            let real = watch::resolved(&file);
            if self.generated.iter().any(|directory| real.starts_with(directory)) {
                continue;
            }
            self.add_kind(inputs, &file);
            inputs.add_files([file]);
        }
    }

    /// Counts the files that may come beside one that a macro has put into the code: those of its kind in its directory, as
    /// far as that lies in a package and is not the package's own, which holds all kinds of things.
    fn add_kind(&self, inputs: &mut Inputs, file: &Path) {
        let kind = file.extension().and_then(|extension| extension.to_str()).filter(|kind| *kind != "rs");
        let Some((directory, kind)) = file.parent().zip(kind) else { return };
        let is_inside = |package: &PathBuf| directory.starts_with(package) && directory != package;
        let is_of_package = self.outcome.local_packages.keys().any(is_inside);
        if is_of_package && !directory.join("Cargo.toml").exists() && file.is_file() {
            inputs.add_tree(directory.to_owned(), Counted::extension(kind));
        }
    }

    /// The files that the errors of the run name.
    fn named_in_errors(&self) -> BTreeSet<PathBuf> {
        let mut bases: BTreeSet<PathBuf> = self.outcome.local_packages.keys().cloned().collect();
        bases.extend([self.package.directory.clone(), self.package.workspace_root.clone()]);
        let mut named = BTreeSet::new();
        for words in [&self.outcome.words, &self.outcome.diagnostics.plain()] {
            named.extend(dep_info::named_in(words, &bases));
            let reruns = Reruns::of(words).paths;
            named.extend(bases.iter().flat_map(|base| reruns.iter().map(|path| base.join(path))));
        }
        let is_generated = |path: &Path| self.generated.iter().any(|directory| path.starts_with(directory));
        // A directory is one of templates or the like, if it is not a whole package or something of the system.
        let is_part = |path: &Path| {
            bases.iter().any(|base| path.starts_with(base)) && !path.join("Cargo.toml").exists()
        };
        named.retain(|path| !is_generated(path) && (!path.is_dir() || is_part(path)));
        named
    }
}

/// Adds what the build scripts of a package are run again for.
fn add_reruns(inputs: &mut Inputs, directory: &Path, local: &LocalPackage) {
    for out_dir in &local.script_outputs {
        match Reruns::kept_beside(out_dir).filter(|reruns| reruns.is_selective) {
            Some(reruns) => inputs.add_files(reruns.paths.iter().map(|path| directory.join(path))),
            None => inputs.add_tree(directory.to_owned(), Counted::of_package()),
        }
    }
}
