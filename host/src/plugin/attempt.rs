//! One attempt: from a look at the source, over a build, to a generation or a refusal.
//!
//! # Invariants
//!
//! - One attempt at a time, always for the newest content: a newer edit cancels a build that has become
//!   stale, and broken code is tried once per edit.
//! - What was tried is remembered by content: a touch does nothing, an older file with other content does.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::descriptor::{self, DescriptorError};
use super::event::{Event, EventKind, Steps};
use super::load::{Loaded, Prepared, Refused};
use super::record::Waited;
use super::router::Refusal;
use super::stage::{Image, StageError};
use super::together::{self, Report, Round, Verdict};
use super::worker::Attempts;
use crate::build::{BuildError, Cancel, Fingerprint, Inputs, Package};
use crate::report::chain;

/// How long an emptied source file may stay empty before it counts as meant.
const EMPTIED: Duration = Duration::from_millis(60);

/// A library that is cut short counts as being copied until it has not grown for this long.
const HALF_WRITTEN: Duration = Duration::from_secs(2);

/// What became of a look at the source.
pub(super) enum Look {
    /// Nothing is new, or it is not settled yet.
    Nothing,
    /// A newer edit came in between.
    Superseded,
    /// The source is gone.
    Vanished,
    /// The source is the plugin of this name now.
    Renamed(String),
    /// New code was tried, with this outcome.
    Tried,
}

/// What a look at the files of a package finds.
enum Settled {
    /// They are to be tried.
    New(Fingerprint),
    /// They have been tried.
    Same,
    /// Somebody is saving one of them.
    Moving,
}

impl Attempts {
    pub(super) fn look_at_library(&mut self, path: &Path, seen: u64) -> Look {
        let mut steps = self.plugin.steps();
        let image = match self.stage(path, &mut steps) {
            Ok(image) => image,
            Err(StageError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Look::Vanished;
            }
            Err(error) => {
                self.refuse(steps, Refused::new("stage", chain(&error)));
                return Look::Tried;
            }
        };
        if self.tried_library == Some(image.build_id) {
            return Look::Nothing;
        }
        let is_cut = matches!(
            descriptor::read(&image.bytes),
            Err(DescriptorError::Empty
                | DescriptorError::Truncated { .. }
                | DescriptorError::Malformed { .. })
        );
        if is_cut && self.is_being_written(path, seen) {
            return Look::Nothing;
        }
        self.tried_library = Some(image.build_id);
        self.load(steps, image);
        Look::Tried
    }

    fn stage(&self, library: &Path, steps: &mut Steps) -> Result<Image, StageError> {
        steps.run("stage", || self.shared.stage.copy(&self.plugin.name, library))
    }

    /// Whether a file that is cut short is still growing: then the end of the copy is the next event.
    fn is_being_written(&self, path: &Path, seen: u64) -> bool {
        loop {
            let changed = fs::metadata(path).and_then(|metadata| metadata.modified());
            let age = changed.ok().and_then(|at| SystemTime::now().duration_since(at).ok());
            let Some(left) = age.and_then(|age| HALF_WRITTEN.checked_sub(age)).filter(|left| !left.is_zero())
            else {
                return false;
            };
            if self.plugin.wait_for(seen, left) {
                return true;
            }
        }
    }

    pub(super) fn look_at_directory(&mut self, path: &Path, seen: u64) -> Look {
        if !self.plugin.source.exists() {
            return Look::Vanished;
        }
        self.follow(path);
        let asked = self.shared.rounds.asked(&self.plugin);
        let before = match self.settled_fingerprint(seen, asked.is_some()) {
            Settled::New(before) => before,
            Settled::Moving => return Look::Nothing,
            Settled::Same => {
                if let Some(round) = asked {
                    self.shared.report(&round, &self.plugin, Report::Out);
                }
                return Look::Nothing;
            }
        };
        if asked.is_none() && self.is_put_off(&before, seen) {
            return Look::Nothing;
        }
        self.is_echo = self.failed.take().is_some_and(|failed| before.changed_since(&failed).is_empty());
        let changed = together::changed_since(self.served.as_ref(), &before);
        let round = self.shared.round_for(&self.plugin, &changed);
        let mut steps = self.plugin.steps();
        let started = SystemTime::now();
        if self.package.is_none() {
            self.package = Some(steps.run("describe", || self.shared.describe(path)));
        }
        let package = match self.package.as_ref().expect("described just now") {
            Ok(package) => package.clone(),
            Err(error) => {
                let refused = Refused::new("build", chain(error));
                // What is wrong may be elsewhere: in the manifest of another member, say.
                let named = Inputs::of_directory(path, error.words());
                let mut inputs = self.inputs();
                inputs.add(&named);
                self.package = None;
                self.tried = Some(Fingerprint::after_build(&before, &inputs, started));
                self.watch(inputs);
                self.refuse_in(round.as_ref(), steps, refused);
                return Look::Tried;
            }
        };
        self.wanted_name = None;
        if *package.name != *self.plugin.name
            && let Some(holder) = self.shared.holder_of(&package.name)
        {
            let reason = format!(
                "its package is named `{}` now, and so is the plugin at {}; rename one of them",
                package.name,
                holder.display()
            );
            self.wanted_name = Some(package.name);
            self.tried = Some(before);
            self.refuse_in(round.as_ref(), steps, Refused::new("describe", reason));
            return Look::Tried;
        }
        let look = self.build(steps, &package, before, seen, round.as_ref());
        if let (Look::Superseded, Some(round)) = (&look, &round) {
            self.shared.rounds.dissolve(round);
        }
        look
    }

    /// What the plugin is made of now, unless that was tried already or an editor is in the middle of it.
    ///
    /// `is_asked`: others wait for it, so what was tried and does not serve is tried again with them.
    fn settled_fingerprint(&mut self, seen: u64, is_asked: bool) -> Settled {
        let inputs = self.inputs();
        let mut now = Fingerprint::of(&inputs);
        if let Some(tried) = &self.tried {
            if now.unsettled_since(tried).is_some() {
                if self.plugin.wait_for(seen, EMPTIED) {
                    return Settled::Moving;
                }
                now = Fingerprint::of(&inputs);
            }
            let changed = now.changed_since(tried);
            let serves = together::changed_since(self.served.as_ref(), &now).is_empty();
            // Its new name may have become free.
            let may_be_renamed =
                self.wanted_name.as_ref().is_some_and(|name| self.shared.holder_of(name).is_none());
            if changed.is_empty() && (serves || !is_asked) && !may_be_renamed {
                return Settled::Same;
            }
            if changed.iter().any(|path| path.file_name().is_some_and(|name| name == "Cargo.toml")) {
                self.package = None;
            }
        }
        Settled::New(now)
    }

    /// Begins anew where the directory is a symlink, or behind one, that leads elsewhere now.
    fn follow(&mut self, path: &Path) {
        let Some(Ok(package)) = &self.package else { return };
        if path.canonicalize().is_ok_and(|real| real != package.directory) {
            self.shared.builder.release(&package.directory);
            (self.package, self.tried) = (None, None);
            self.plugin.work.lock().inputs = None;
        }
    }

    /// Waits if all that is new was written by the last build; tells whether something came in between.
    fn is_put_off(&mut self, now: &Fingerprint, seen: u64) -> bool {
        let Some(off) = self.tried.as_ref().and_then(|tried| self.own_output.puts_off(now, tried)) else {
            return false;
        };
        let left = off.until.saturating_duration_since(Instant::now());
        self.plugin.steps().run("wait", || {
            self.plugin.activity.say(format!("{} is written by the build itself", off.file.display()));
            self.plugin.wait_for(seen, left)
        })
    }

    /// Notes what the build that has just ended has changed of its own inputs.
    fn note_own_output(&mut self, before: &Fingerprint) {
        let now = Fingerprint::of(&self.inputs());
        for file in self.own_output.build_ended(before, now) {
            tracing::warn!(
                about = %self.plugin.name,
                "{} changes while {} is built, in each of the last builds: have the build script write to OUT_DIR in the \
                 place of it, or write only what is different; until then builds for this file alone are put off",
                file.display(),
                self.plugin.name,
            );
        }
        self.plugin.work.lock().written_by_build = self.own_output.files();
    }

    /// What the plugin is made of, as far as that is known.
    fn inputs(&mut self) -> Inputs {
        let mut work = self.plugin.work.lock();
        if let Some(inputs) = &work.inputs {
            return inputs.clone();
        }
        let inputs = match &self.package {
            Some(Ok(package)) => Inputs::of_package(package),
            Some(Err(error)) => Inputs::of_directory(self.plugin.source.path(), error.words()),
            None => Inputs::of_directory(self.plugin.source.path(), ""),
        };
        work.inputs = Some(inputs.clone());
        inputs
    }

    fn build(
        &mut self,
        mut steps: Steps,
        package: &Package,
        before: Fingerprint,
        seen: u64,
        round: Option<&Arc<Round>>,
    ) -> Look {
        let cancel = Cancel::new();
        {
            let mut work = self.plugin.work.lock();
            if work.stop || !work.orders.is_empty() {
                return Look::Superseded;
            }
            work.building = Some((cancel.clone(), before.clone()));
        }
        let (shared, plugin) = (Arc::clone(&self.shared), Arc::clone(&self.plugin));
        let mut step = |step: crate::build::Step<'_>| {
            plugin.activity.note(step);
            shared.observer.building(&plugin.name, step);
        };
        let started = SystemTime::now();
        let turn = steps.run("queue", || shared.builder.wait(package, &mut step, &cancel));
        steps.forget_brief();
        let built = match turn {
            Some(turn) => steps.run("build", || shared.builder.build(turn, package, &mut step, &cancel)),
            None => Err(BuildError::Cancelled),
        };
        self.shared.observer.built(&self.plugin.name);
        self.plugin.work.lock().building = None;
        self.note_own_output(&before);

        let started = built.as_ref().map_or(started, |built| built.started);
        let (inputs, outcome) = match built {
            Err(BuildError::Cancelled) => {
                tracing::debug!(plugin = %self.plugin.name, "a newer edit cancelled the build");
                return Look::Superseded;
            }
            Ok(built) => (Some(built.inputs.clone()), Ok(built)),
            Err(error) => {
                let (inputs, refused) = refused_build(error);
                (inputs, Err(refused))
            }
        };
        self.tried = Some(match &inputs {
            Some(inputs) => Fingerprint::after_build(&before, inputs, started),
            None => before,
        });
        if let Some(inputs) = inputs {
            self.watch(inputs);
        }
        match outcome {
            Err(refused) => {
                self.refuse_in(round, steps, refused);
                let inputs = self.inputs();
                self.failed = Some(Fingerprint::of(&inputs));
            }
            Ok(built) => {
                if built.diagnostics.warnings > 0 {
                    tracing::warn!(plugin = %self.plugin.name, "{} warnings:\n{}", built.diagnostics.warnings, built.diagnostics.rendered.trim_end());
                }
                if *package.name != *self.plugin.name {
                    // It builds, so nothing is lost: to the outside one plugin is deleted and another one made.
                    if let Some(round) = round {
                        self.shared.report(round, &self.plugin, Report::Out);
                    }
                    return Look::Renamed(package.name.clone());
                }
                match self.stage(&built.library, &mut steps) {
                    Ok(image) => match (descriptor::check_package(&image.bytes, package), round) {
                        (Err(error), round) => {
                            self.refuse_in(round, steps, Refused::new("vet", error.to_string()));
                        }
                        (Ok(()), None) => self.load(steps, image),
                        (Ok(()), Some(round)) => return self.load_in(round, steps, image, seen),
                    },
                    Err(error) => self.refuse_in(round, steps, Refused::new("stage", chain(&error))),
                }
            }
        }
        Look::Tried
    }

    /// Watches what the newest attempt was made from.
    fn watch(&self, inputs: Inputs) {
        let is_new = self.plugin.work.lock().inputs.replace(inputs.clone()) != Some(inputs);
        if is_new {
            self.shared.watch_inputs();
            // What changed between the attempt and the watch is found by one more look.
            self.plugin.nudge();
        }
    }

    /// The pipeline behind the build.
    fn load(&mut self, mut steps: Steps, image: Image) {
        if self.resumed.take() == Some(image.build_id) {
            if self.kept.current == Some(image.build_id) {
                self.served.clone_from(&self.tried);
            }
            return;
        }
        match self.shared.load(&self.plugin, image, false, &mut steps) {
            Ok(loaded) => self.loaded(loaded, steps),
            Err(refused) => self.refuse(steps, refused),
        }
    }

    /// The same where others go live with it.
    fn load_in(&mut self, round: &Arc<Round>, mut steps: Steps, image: Image, seen: u64) -> Look {
        let shared = Arc::clone(&self.shared);
        shared.report(round, &self.plugin, Report::Built);
        let others = round.unreported(&self.plugin);
        let activity = Arc::clone(&self.plugin.activity);
        if !steps.run("wait", || {
            activity.wait_for(&others);
            self.wait_in(round, seen, || round.is_built())
        }) {
            return self.try_again();
        }
        if let Some(Verdict::Refused(reason)) = round.verdict() {
            shared.report(round, &self.plugin, Report::Out);
            self.refuse(steps, Refused::new("publish", reason));
            return Look::Tried;
        }
        match shared.prepare(&self.plugin, image, (Some(round.together()), false), &mut steps) {
            Err(refused) => self.refuse_in(Some(round), steps, refused),
            Ok(Prepared::Unchanged { number }) => {
                let is_missed = !round.together().leave(&self.plugin.name);
                let missed = || {
                    Report::Failed("its code is the same as before, which knows an older layout".to_owned())
                };
                shared.report(round, &self.plugin, if is_missed { missed() } else { Report::Out });
                self.loaded(Loaded::Unchanged { number }, steps);
            }
            Ok(Prepared::Ready(generation)) => {
                let number = generation.number;
                let is_over = steps.run("publish", || {
                    shared.report(round, &self.plugin, Report::Ready(Arc::clone(&generation)));
                    self.wait_in(round, seen, || round.verdict().is_some())
                });
                match round.verdict().filter(|_| is_over) {
                    Some(Verdict::Live(previous)) => {
                        let previous = previous.get(&self.plugin.name).copied().flatten();
                        drop(generation);
                        self.loaded(Loaded::Published { number, previous }, steps);
                    }
                    Some(Verdict::Refused(reason)) => {
                        shared.abandon(generation);
                        self.refuse(steps, Refused::new("publish", reason));
                    }
                    Some(Verdict::Dissolved) | None => {
                        shared.abandon(generation);
                        return self.try_again();
                    }
                }
            }
        }
        Look::Tried
    }

    /// Waits for the others, unless there is something newer to do; tells whether it is time to go on.
    fn wait_in(&mut self, round: &Arc<Round>, mut seen: u64, is_time: impl Fn() -> bool) -> bool {
        let is_time = || is_time() || matches!(round.verdict(), Some(Verdict::Dissolved));
        loop {
            let is_stale = match self.plugin.wait_until(seen, is_time) {
                Waited::Over => return !matches!(round.verdict(), Some(Verdict::Dissolved)),
                Waited::Called => true,
                Waited::Nudged(nudges) => {
                    seen = nudges;
                    let now = Fingerprint::of(&self.inputs());
                    let own = self.own_output.files();
                    let is_edit = |path: &&Path| !own.contains(*path);
                    self.tried.as_ref().is_some_and(|tried| now.changed_since(tried).iter().any(is_edit))
                }
            };
            if is_stale {
                self.shared.rounds.dissolve(round);
                // It may have been decided before that.
                return matches!(round.verdict(), Some(Verdict::Live(_) | Verdict::Refused(_)));
            }
        }
    }

    /// Makes the next look an attempt, and has it come.
    fn try_again(&mut self) -> Look {
        self.forget_tried();
        self.plugin.nudge();
        Look::Superseded
    }

    fn loaded(&mut self, loaded: Loaded, steps: Steps) {
        let gone_live = match &loaded {
            Loaded::Published { previous, .. } => Some(*previous),
            Loaded::Unchanged { .. } => None,
        };
        self.served.clone_from(&self.tried);
        self.shared.report_loaded(&self.plugin, loaded, steps);
        if let Some(previous) = gone_live {
            self.went_live(previous);
        }
    }

    /// Refuses, and the others of the round with it.
    fn refuse_in(&mut self, round: Option<&Arc<Round>>, steps: Steps, refused: Refused) {
        let reason = refused.reason.clone();
        if self.is_said(&refused) {
            tracing::debug!(about = %self.plugin.name, "{} failed again as before: {reason}", self.plugin.name);
        } else {
            self.refuse(steps, refused);
        }
        if let Some(round) = round {
            self.shared.report(round, &self.plugin, Report::Failed(reason));
        }
    }

    /// Whether this was said of the same files already: a build that changes what is known of the inputs, or the lock file,
    /// is followed by one more look, which finds what it has found.
    fn is_said(&self, refused: &Refused) -> bool {
        let is_same = |said: &Refusal| said.reason == refused.reason && said.details == refused.details;
        self.is_echo && self.plugin.refusal.load().as_deref().is_some_and(is_same)
    }

    pub(super) fn refuse(&self, steps: Steps, refused: Refused) {
        let serving = self.plugin.current_number();
        self.plugin.refusal.store(Some(Arc::new(Refusal {
            reason: refused.reason.clone(),
            details: refused.details.clone(),
        })));
        let event = Event {
            previous_generation: serving,
            failed_step: Some(refused.step),
            reason: Some(refused.reason),
            details: refused.details,
            ..self.plugin.event(EventKind::Refused, steps)
        };
        self.shared.record_outcome(&self.plugin, event, refused.rendered.as_deref());
        self.shared.publish_without_code(&self.plugin);
    }
}

/// What a failed build tells, and the files that its repair may be in, as far as they are known.
fn refused_build(error: BuildError) -> (Option<Inputs>, Refused) {
    let reason = error.to_string();
    match error {
        BuildError::Compile { rendered, plain, inputs, .. } => {
            (Some(*inputs), Refused { step: "build", reason, details: Some(plain), rendered: Some(rendered) })
        }
        BuildError::Cargo { words, inputs } => {
            let rendered = Some(words.clone());
            (Some(*inputs), Refused { step: "build", reason, details: Some(words), rendered })
        }
        error => (None, Refused::new("build", chain(&error))),
    }
}
