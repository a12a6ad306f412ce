//! Plugins that go live together: those that an edit of something they share has changed.
//!
//! A worker that is about to try code finds out who else is made from the files that are not as they were
//! in its code that serves. With them it forms a *round*: each member builds, and when all have, each
//! loads; when all are ready, the last one publishes all by one swap. A member that fails takes the
//! others' new code along: they serve on as before, and so does it. As long as the shared file is newer
//! than what serves, every further attempt is a round again, so no edit brings a mixture about.
//!
//! Owns who waits for whom. Does not own how a library is built or loaded.
//!
//! # Invariants
//!
//! - No member begins to load before all have built: what `on_load` stages does not wait for a compiler.
//! - A round is decided once. Nobody waits for a member that was deleted or was called away.
//! - No lock of this file is held while another thread is woken or code is published.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use super::Shared;
use super::generation::Generation;
use super::record::Plugin;
use super::source::Source;
use crate::build::Fingerprint;
use crate::registry::Together;
use crate::watch;

/// The rounds that are not over.
#[derive(Debug, Default)]
pub(super) struct Rounds(Mutex<Vec<Arc<Round>>>);

/// Plugins that go live together, or not at all.
#[derive(Debug)]
pub(super) struct Round {
    members: Vec<Arc<Plugin>>,
    /// The same for the registry: values that they share are upgraded once, for all.
    together: Arc<Together>,
    /// A file that they share.
    file: PathBuf,
    progress: Mutex<Progress>,
    /// Signalled with the verdict of a round that is being published.
    decided: Condvar,
}

#[derive(Debug, Default)]
struct Progress {
    reports: BTreeMap<Arc<str>, Report>,
    /// Set by the member that publishes, so that it is one.
    is_publishing: bool,
    verdict: Option<Verdict>,
}

/// What a member has come to.
#[derive(Debug)]
pub(super) enum Report {
    /// It has a library.
    Built,
    /// It has a generation that can be published.
    Ready(Arc<Generation>),
    /// It has nothing to publish and nothing against it.
    Out,
    /// It was refused, for this reason.
    Failed(String),
}

/// What a round came to.
#[derive(Debug, Clone)]
pub(super) enum Verdict {
    /// All are live; by plugin, what served before.
    Live(BTreeMap<Arc<str>, Option<u64>>),
    /// None is, for this reason.
    Refused(String),
    /// It was broken off, for a newer edit or an order: whoever took part tries again.
    Dissolved,
}

impl Rounds {
    /// The round that waits for this plugin, if there is one.
    pub(super) fn asked(&self, plugin: &Plugin) -> Option<Arc<Round>> {
        self.0.lock().iter().find(|round| round.waits_for(plugin)).map(Arc::clone)
    }

    /// Takes a deleted plugin out of whatever round it is in.
    pub(super) fn leave(&self, plugin: &Plugin) {
        let of_plugin = |round: &&Arc<Round>| round.has(plugin);
        let round = self.0.lock().iter().find(of_plugin).map(Arc::clone);
        if let Some(round) = round {
            self.dissolve(&round);
        }
    }

    /// Breaks a round off; one that is decided stays so, and one that is being published is decided first.
    pub(super) fn dissolve(&self, round: &Arc<Round>) {
        {
            let mut progress = round.progress.lock();
            while progress.is_publishing && progress.verdict.is_none() {
                round.decided.wait(&mut progress);
            }
            let _ = progress.verdict.get_or_insert(Verdict::Dissolved);
        }
        self.close(round);
        round.ring();
    }

    fn close(&self, round: &Arc<Round>) {
        self.0.lock().retain(|other| !Arc::ptr_eq(other, round));
    }
}

impl Shared {
    /// The round in which `plugin` has to try code that differs in `changed` from what serves; `None` when
    /// it goes alone.
    pub(super) fn round_for(&self, plugin: &Arc<Plugin>, changed: &[PathBuf]) -> Option<Arc<Round>> {
        if let Some(round) = self.rounds.asked(plugin) {
            return Some(round);
        }
        let (file, others) = self.others_made_of(plugin, changed)?;
        let outdated = {
            let mut rounds = self.rounds.0.lock();
            let of_same = |round: &&Arc<Round>| round.has(plugin) || others.iter().any(|of| round.has(of));
            let outdated: Vec<_> = rounds.iter().filter(of_same).map(Arc::clone).collect();
            if let Some(round) = outdated.iter().find(|round| round.waits_for(plugin)) {
                // Made by another member since the look above.
                return Some(Arc::clone(round));
            }
            let mut members = others.clone();
            members.push(Arc::clone(plugin));
            let together = Together::new(members.iter().map(|member| Arc::clone(&member.name)));
            rounds.push(Arc::new(Round {
                members,
                together,
                file,
                progress: Mutex::default(),
                decided: Condvar::new(),
            }));
            outdated
        };
        outdated.iter().for_each(|round| self.rounds.dissolve(round));
        others.iter().for_each(|other| other.nudge());
        self.rounds.asked(plugin)
    }

    /// The plugins that serve and are made of one of these files too, and such a file.
    fn others_made_of(
        &self,
        plugin: &Arc<Plugin>,
        changed: &[PathBuf],
    ) -> Option<(PathBuf, Vec<Arc<Plugin>>)> {
        let plugins: Vec<Arc<Plugin>> = self.plugins.lock().values().map(|w| Arc::clone(&w.plugin)).collect();
        let mut found = None;
        let shares = |other: &Arc<Plugin>| {
            if Arc::ptr_eq(other, plugin) || other.current_number().is_none() {
                return false;
            }
            let of_other = changed.iter().find(|file| other.is_made_of(&watch::resolved(file)));
            let is_shared = of_other.is_some();
            found = found.take().or_else(|| of_other.cloned());
            is_shared
        };
        let others: Vec<_> = plugins.into_iter().filter(shares).collect();
        Some((found?, others))
    }

    /// Says what a member of a round has come to. The last one to be ready publishes all.
    pub(super) fn report(&self, round: &Arc<Round>, plugin: &Plugin, report: Report) {
        let (is_over, to_publish) = {
            let mut progress = round.progress.lock();
            if let Report::Failed(reason) = &report {
                let words = format!(
                    "`{}`, which goes live together with it as both are made of {}, was refused: {reason}",
                    plugin.name,
                    round.file.display()
                );
                let _ = progress.verdict.get_or_insert(Verdict::Refused(words));
            }
            progress.reports.insert(Arc::clone(&plugin.name), report);
            let is_over = progress.reports.len() == round.members.len()
                && progress.reports.values().all(|report| !matches!(report, Report::Built));
            let is_last = is_over && progress.verdict.is_none() && !progress.is_publishing;
            progress.is_publishing |= is_last;
            (is_over, is_last.then(|| round.ready(&progress)))
        };
        if let Some(ready) = to_publish {
            let verdict = match self.publish(&ready) {
                Ok(previous) => {
                    let names = ready.iter().map(|(plugin, _)| Arc::clone(&plugin.name));
                    Verdict::Live(names.zip(previous).collect())
                }
                Err(refused) => Verdict::Refused(refused.reason),
            };
            round.progress.lock().verdict = Some(verdict);
            round.decided.notify_all();
        }
        if is_over {
            self.rounds.close(round);
            // The generations belong to their workers alone from now on.
            let reports = std::mem::take(&mut round.progress.lock().reports);
            drop(reports);
        }
        round.ring();
    }
}

impl Round {
    /// What its members share in the registry.
    pub(super) fn together(&self) -> &Arc<Together> {
        &self.together
    }

    fn has(&self, plugin: &Plugin) -> bool {
        self.members.iter().any(|member| std::ptr::eq(&raw const **member, plugin))
    }

    /// The names of the members that have not come to anything yet, `plugin` aside.
    pub(super) fn unreported(&self, plugin: &Plugin) -> String {
        let progress = self.progress.lock();
        let others = self.members.iter().filter(|member| member.name != plugin.name);
        let names: Vec<&str> =
            others.filter(|of| !progress.reports.contains_key(&of.name)).map(|of| &*of.name).collect();
        names.join(", ")
    }

    fn waits_for(&self, plugin: &Plugin) -> bool {
        self.has(plugin) && !self.progress.lock().reports.contains_key(&plugin.name)
    }

    /// Whether the members may begin to load.
    pub(super) fn is_built(&self) -> bool {
        let progress = self.progress.lock();
        progress.verdict.is_some() || progress.reports.len() == self.members.len()
    }

    /// What it came to.
    pub(super) fn verdict(&self) -> Option<Verdict> {
        self.progress.lock().verdict.clone()
    }

    fn ready(&self, progress: &Progress) -> Vec<(Arc<Plugin>, Arc<Generation>)> {
        let of = |member: &Arc<Plugin>| match progress.reports.get(&member.name) {
            Some(Report::Ready(generation)) => Some((Arc::clone(member), Arc::clone(generation))),
            _ => None,
        };
        self.members.iter().filter_map(of).collect()
    }

    fn ring(&self) {
        self.members.iter().for_each(|member| member.ring());
    }
}

impl Plugin {
    /// Whether the file is one of those it is built from, as far as that is known.
    fn is_made_of(&self, file: &Path) -> bool {
        matches!(self.source, Source::Directory { .. })
            && self.work.lock().inputs.as_ref().is_some_and(|inputs| inputs.concern(file))
    }
}

/// The files of `now` that are not as they were in what serves, and that others may be made of too. The lock
/// file is cargo's: what it changes shows in the library.
pub(super) fn changed_since(served: Option<&Fingerprint>, now: &Fingerprint) -> Vec<PathBuf> {
    let changed = served.map(|served| now.changed_since(served)).unwrap_or_default();
    let is_source = |path: &&Path| path.file_name().is_none_or(|name| name != "Cargo.lock");
    changed.into_iter().filter(is_source).map(Path::to_owned).collect()
}
