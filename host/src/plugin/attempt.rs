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
use std::time::{Duration, SystemTime};

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
        let mut steps = Steps::default();
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
        let changed = together::changed_since(self.served.as_ref(), &before);
        let round = self.shared.round_for(&self.plugin, &changed);
        let mut steps = Steps::default();
        if self.package.is_none() {
            self.package =
                Some(steps.run("describe", || Package::describe(self.shared.builder.cargo(), path)));
        }
        let package = match self.package.as_ref().expect("described just now") {
            Ok(package) if *package.name == *self.plugin.name => package.clone(),
            Ok(_) => {
                // Renamed: to the outside that is one plugin deleted and another one made.
                return Look::Vanished;
            }
            Err(error) => {
                let refused = Refused::new("build", chain(error));
                self.package = None;
                self.tried = Some(before);
                self.refuse_in(round.as_ref(), steps, refused);
                return Look::Tried;
            }
        };
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
            if changed.is_empty() && (serves || !is_asked) {
                return Settled::Same;
            }
            if changed.iter().any(|path| path.file_name().is_some_and(|name| name == "Cargo.toml")) {
                self.package = None;
            }
        }
        Settled::New(now)
    }

    /// What the plugin is made of, as far as that is known.
    fn inputs(&mut self) -> Inputs {
        let mut work = self.plugin.work.lock();
        if let Some(inputs) = &work.inputs {
            return inputs.clone();
        }
        let inputs = match &self.package {
            Some(Ok(package)) => Inputs::of_package(package),
            _ => Inputs::of_directory(self.plugin.source.path()),
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
        self.plugin.state.lock().is_building = true;
        let (shared, name) = (Arc::clone(&self.shared), Arc::clone(&self.plugin.name));
        let started = SystemTime::now();
        let built = steps.run("build", || {
            let mut step = |step: crate::build::Step<'_>| shared.observer.building(&name, step);
            shared.builder.build(package, &mut step, &cancel)
        });
        self.shared.observer.built(&self.plugin.name);
        self.plugin.state.lock().is_building = false;
        self.plugin.work.lock().building = None;

        let started = built.as_ref().map_or(started, |built| built.started);
        let (inputs, outcome) = match built {
            Err(BuildError::Cancelled) => {
                tracing::debug!(plugin = %self.plugin.name, "a newer edit cancelled the build");
                return Look::Superseded;
            }
            Ok(built) => (Some(built.inputs.clone()), Ok(built)),
            Err(BuildError::Compile { rendered, plain, inputs, errors, first }) => {
                let reason = BuildError::Compile {
                    rendered: String::new(),
                    plain: String::new(),
                    errors,
                    first,
                    inputs: Box::default(),
                }
                .to_string();
                let refused =
                    Refused { step: "build", reason, details: Some(plain), rendered: Some(rendered) };
                (Some(*inputs), Err(refused))
            }
            Err(BuildError::Cargo { words, inputs }) => {
                let reason = format!("cargo failed: {}", words.lines().next().unwrap_or_default());
                let refused =
                    Refused { step: "build", reason, details: Some(words.clone()), rendered: Some(words) };
                (Some(*inputs), Err(refused))
            }
            Err(error @ (BuildError::Spawn { .. } | BuildError::NoLibrary { .. })) => {
                (None, Err(Refused::new("build", chain(&error))))
            }
        };
        self.tried = Some(match &inputs {
            Some(inputs) => Fingerprint::after_build(&before, inputs, started),
            None => before,
        });
        if let Some(inputs) = inputs {
            let is_new = self.plugin.work.lock().inputs.replace(inputs.clone()) != Some(inputs);
            if is_new {
                self.shared.watch_inputs();
                // What changed between the build and the watch is found by one more look.
                self.plugin.nudge();
            }
        }
        match outcome {
            Err(refused) => self.refuse_in(round, steps, refused),
            Ok(built) => {
                if built.diagnostics.warnings > 0 {
                    tracing::warn!(plugin = %self.plugin.name, "{} warnings:\n{}", built.diagnostics.warnings, built.diagnostics.rendered.trim_end());
                }
                match self.stage(&built.library, &mut steps) {
                    Ok(image) => match round {
                        None => self.load(steps, image),
                        Some(round) => return self.load_in(round, steps, image, seen),
                    },
                    Err(error) => self.refuse_in(round, steps, Refused::new("stage", chain(&error))),
                }
            }
        }
        Look::Tried
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
        if !steps.run("wait", || self.wait_in(round, seen, || round.is_built())) {
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
                    self.tried.as_ref().is_some_and(|tried| !now.changed_since(tried).is_empty())
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
    fn refuse_in(&self, round: Option<&Arc<Round>>, steps: Steps, refused: Refused) {
        let reason = refused.reason.clone();
        self.refuse(steps, refused);
        if let Some(round) = round {
            self.shared.report(round, &self.plugin, Report::Failed(reason));
        }
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
