//! Who becomes a plugin, and whom a change of files concerns.
//!
//! Owns the look at the plugins directory, the names of what is found there, and which directories are watched. Does not own
//! what becomes of a plugin that has a worker, which is the worker's.
//!
//! # Invariants
//!
//! - What is to be found in a directory is looked for after the directory is watched, so that nothing falls between the two.
//! - One plugin of a name: who comes second is refused, and told so once.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::worker::Worker;
use super::{Plugin, Shared, Source, StartError, kept};
use crate::build::{DescribeError, Package};
use crate::watch::scan::{Candidate, scan};
use crate::watch::{Change, Depth, Trail, WatchError, Watcher, is_ignored, trail};

impl Shared {
    pub(super) fn start_watching(self: &Arc<Self>) -> Result<(), WatchError> {
        let weak = Arc::downgrade(self);
        let sink = move |change| {
            if let Some(shared) = weak.upgrade() {
                shared.on_change(&change);
            }
        };
        let watcher = match self.settings.poll {
            Some(interval) => Watcher::start_polling(interval, sink)?,
            None => Watcher::start(sink)?,
        };
        *self.watcher.lock() = Some(watcher);
        self.watch_inputs();
        Ok(())
    }

    /// Watches the plugins directory, the directories in it, which may become plugins, and whatever the
    /// plugins are made of.
    pub(super) fn watch_inputs(&self) {
        let plugins: Vec<Arc<Plugin>> = self.plugins.lock().values().map(|w| Arc::clone(&w.plugin)).collect();
        let way = self.root();
        let root = way.real;
        let mut directories = BTreeMap::from([(root.clone(), Depth::Flat)]);
        let links = way.links.iter().filter_map(|link| link.parent());
        directories.extend(links.map(|parent| (parent.to_owned(), Depth::Flat)));
        let inside = fs::read_dir(&root).into_iter().flatten().flatten().map(|entry| entry.path());
        directories.extend(
            inside.filter(|path| path.is_dir() && !is_ignored(&root, path)).map(|path| (path, Depth::Flat)),
        );
        for plugin in plugins {
            for (directory, depth) in plugin.directories() {
                let kept = directories.entry(directory).or_insert(depth);
                *kept = (*kept).max(depth);
            }
        }
        if let Some(watcher) = &*self.watcher.lock()
            && let Err(error) = watcher.sync(&directories)
        {
            tracing::warn!("edits may go unnoticed: {}", crate::report::chain(&error));
        }
    }

    /// The way to the plugins directory.
    fn root(&self) -> Trail {
        trail(&self.settings.plugins_dir)
    }

    /// Asks cargo about the package in `directory`, and puts to it what the operator says of it.
    pub(super) fn describe(&self, directory: &Path) -> Result<Package, DescribeError> {
        let package = Package::describe(self.builder.cargo(), directory)?;
        let own = self.settings.plugin_watch_rules.get(&package.name);
        let rules =
            own.map_or_else(|| self.settings.watch_rules.clone(), |own| self.settings.watch_rules.with(own));
        Ok(package.with_rules(rules))
    }

    /// Passes a change on to whom it may concern.
    pub(super) fn on_change(self: &Arc<Self>, change: &Change) {
        let Trail { real: root, links } = self.root();
        let concerns_root = match change {
            Change::Rescan => true,
            Change::Paths(paths) => paths.iter().any(|path| {
                let below = path.strip_prefix(&root).ok().map(|below| below.components().count());
                below.is_some_and(|depth| depth <= 1)
                    || links.contains(path)
                    || (path.file_name().is_some_and(|name| name == "Cargo.toml") && below == Some(2))
            }),
        };
        if concerns_root {
            // First, so that what comes into a new directory from now on is told.
            self.watch_inputs();
            if let Err(error) = self.adopt_all() {
                tracing::error!("{}", crate::report::chain(&error));
            }
        }
        let plugins: Vec<Arc<Plugin>> = self.plugins.lock().values().map(|w| Arc::clone(&w.plugin)).collect();
        let concerned: Vec<_> = plugins.into_iter().filter(|plugin| plugin.is_concerned(change)).collect();
        // Before anybody looks, so that what changes behind a replaced link from now on is told.
        if concerned.iter().filter(|plugin| plugin.follow(change)).count() > 0 {
            self.watch_inputs();
        }
        concerned.iter().for_each(|plugin| plugin.nudge());
    }

    /// Starts a worker for every candidate in the directory that has none.
    pub(super) fn adopt_all(self: &Arc<Self>) -> Result<(), StartError> {
        let mut adopted = false;
        let mut refused = None;
        for candidate in scan(&self.settings.plugins_dir)? {
            if self.plugins.lock().values().any(|worker| worker.plugin.source.is(&candidate)) {
                continue;
            }
            match candidate.check().map_err(StartError::from).and_then(|()| self.adopt(candidate)) {
                Ok(()) => adopted = true,
                Err(error) => {
                    let _ = refused.get_or_insert(error);
                }
            }
        }
        if adopted {
            self.watch_inputs();
        }
        refused.map_or(Ok(()), Err)
    }

    fn adopt(self: &Arc<Self>, candidate: Candidate) -> Result<(), StartError> {
        let (name, source, package) = self.identify(candidate);
        if let Some(first) = self.holder_of(&name) {
            let second = source.path().to_owned();
            // An error once, at start-up or when the second one appears; not at every look after that.
            if !self.duplicates.lock().insert(second.clone()) {
                return Ok(());
            }
            return Err(StartError::Duplicate { name, first, second });
        }
        let mut plugins = self.plugins.lock();
        if plugins.contains_key(&name) {
            // It is about to leave the name: then everything is looked at again.
            return Ok(());
        }
        let plugin = Plugin::new(&name, source, &self.settings, self.shares.open());
        let worker = Worker::start(Arc::clone(self), plugin, package)?;
        plugins.insert(name, worker);
        Ok(())
    }

    /// Where the plugin called `name` comes from, if there is one and its source has not left the name meanwhile: it was
    /// deleted, or its package renamed.
    pub(super) fn holder_of(&self, name: &str) -> Option<PathBuf> {
        let source = self.plugins.lock().get(name).map(|worker| worker.plugin.source.clone())?;
        let holds = source.exists()
            && match &source {
                Source::Library { .. } => true,
                // What cannot be described keeps the name that it had.
                Source::Directory { path } => {
                    Package::describe(self.builder.cargo(), path).map_or(true, |package| package.name == name)
                }
            };
        holds.then(|| source.path().to_owned())
    }

    /// The name of a candidate: its package's, or that of its file or directory.
    fn identify(&self, candidate: Candidate) -> (String, Source, Option<Result<Package, DescribeError>>) {
        match candidate {
            Candidate::Library { path, name, .. } => (name, Source::Library { path }, None),
            Candidate::Source { path, .. } => {
                if self.settings.is_after_crash
                    && let Some(name) = kept::name_of(&path, &self.settings.state_dir)
                {
                    return (name, Source::Directory { path }, None);
                }
                let package = self.describe(&path);
                // In the order in which they are found, so that each is built in the same place after a restart.
                package.iter().for_each(|package| self.builder.claim(package));
                let name = match &package {
                    Ok(package) => package.name.clone(),
                    Err(_) => path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
                };
                (name, Source::Directory { path }, Some(package))
            }
        }
    }
}
