//! The way back: libraries that have served, and going back to one of them.
//!
//! Owns which of the [kept](super::kept) libraries a roll-back goes to, and when one is due without being
//! asked for. The way there is the ordinary pipeline from `stage` on; the worker takes it.
//!
//! # Invariants
//!
//! - A roll-back is a new generation of an earlier library: nothing that was retired serves again, and
//!   what the registry holds stays.
//! - What was gone away from is never gone back to by itself, only by its number.
//! - A first generation and one that came by a roll-back have no probation: nothing goes in circles, and
//!   no plugin is left without code.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use super::Plugins;
use super::event::{Event, EventKind, Steps};
use super::generation::Generation;
use super::load::{Loaded, Refused};
use super::record::Plugin;
use super::router::Refusal;
use super::worker::Attempts;

/// How long an operator's order is waited for. Less than the patience of the control socket's client.
const PATIENCE: Duration = Duration::from_secs(8);

/// When a new generation has failed too often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probation {
    /// How long after going live failures count.
    pub lasts: Duration,
    /// The number of failures that is too many.
    pub budget: u64,
}

/// Why an operator's order was not carried out. What served before still serves.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    /// No plugin of that name.
    #[error("there is no plugin `{plugin}`; there is {}", if known.is_empty() { "none" } else { known })]
    UnknownPlugin {
        /// The name.
        plugin: String,
        /// The names of those there are.
        known: String,
    },
    /// The library of the named generation is not kept.
    #[error("generation {generation} of `{plugin}` is not kept; kept is the code of {kept}")]
    UnknownGeneration {
        /// The plugin.
        plugin: Arc<str>,
        /// The number.
        generation: u64,
        /// What is kept instead.
        kept: String,
    },
    /// No earlier library is kept, or each was gone away from.
    #[error("there is nothing to roll `{plugin}` back to; kept is the code of {kept}")]
    NothingEarlier {
        /// The plugin.
        plugin: Arc<str>,
        /// What is kept.
        kept: String,
    },
    /// The library of the named generation serves now.
    #[error("the code of generation {generation} serves `{plugin}` already")]
    ServesAlready {
        /// The plugin.
        plugin: Arc<str>,
        /// The number.
        generation: u64,
    },
    /// The kept file is gone or was changed.
    #[error("the kept library {} cannot be used: {reason}", path.display())]
    Kept {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The kept library did not go through the pipeline this time.
    #[error("the code of generation {generation} was refused at {step}: {reason}")]
    Refused {
        /// The generation whose library it is.
        generation: u64,
        /// The step that refused.
        step: &'static str,
        /// Why.
        reason: String,
    },
    /// The host serves what it was started with.
    #[error(
        "reloading is switched off, as the host was started with --freeze; restart it to serve other code"
    )]
    Frozen,
    /// It takes longer than a client waits.
    #[error(
        "`{plugin}` is still at it after {PATIENCE:?}: {doing}; `host status` shows how it goes on, and `host events` what came of it"
    )]
    StillRunning {
        /// The plugin.
        plugin: String,
        /// The step it is at, since when, and what it waits for.
        doing: String,
    },
    /// The plugin was deleted, or the host stops.
    #[error("`{plugin}` was taken out of service meanwhile")]
    Gone {
        /// The plugin.
        plugin: String,
    },
}

/// What somebody other than an edit wants of a plugin's worker.
#[derive(Debug)]
pub(super) enum Order {
    /// The operator wants earlier code.
    RollBack { to: Option<u64>, answer: Sender<Result<Event, OrderError>> },
    /// The operator wants the source to be tried again.
    Reload { answer: Sender<Result<Event, OrderError>> },
    /// A generation has used up its budget.
    Exceeded { generation: u64, reason: String },
}

/// The probation of the current generation.
#[derive(Debug)]
pub(super) struct OnProbation {
    generation: u64,
    since: Instant,
    rule: Probation,
    /// Whether the worker was told.
    is_over: bool,
}

impl Plugin {
    /// Has the generation taken back if a failure of a request that came at `began` was one too many.
    pub(super) fn note_failure(&self, generation: &Generation, began: Instant) {
        if let Some(reason) = self.exceeded(generation, began) {
            self.order(Order::Exceeded { generation: generation.number, reason });
        }
    }

    /// Tells why the generation with this number has to go, the first time that is so.
    ///
    /// `began`: when the request came that has just failed; one of the probation may miss its deadline later.
    fn exceeded(&self, generation: &Generation, began: Instant) -> Option<String> {
        let mut state = self.state.lock();
        let on_probation = state.on_probation.as_mut()?;
        let (panics, missed) = (generation.panics.load(Ordering::Relaxed), generation.account.missed());
        let rule = on_probation.rule;
        let is_due = !on_probation.is_over
            && on_probation.generation == generation.number
            && panics + missed >= rule.budget
            && began.saturating_duration_since(on_probation.since) <= rule.lasts;
        on_probation.is_over |= is_due;
        is_due.then(|| format!("{} within {} of going live", failures(panics, missed), words_of(rule.lasts)))
    }
}

/// `2 panics and 1 missed deadline`.
fn failures(panics: u64, missed: u64) -> String {
    let count = |number: u64, noun: &str| match number {
        0 => None,
        1 => Some(format!("1 {noun}")),
        _ => Some(format!("{number} {noun}s")),
    };
    let both = [count(panics, "panic"), count(missed, "missed deadline")];
    both.into_iter().flatten().collect::<Vec<_>>().join(" and ")
}

/// `10 s` or `250 ms`.
fn words_of(duration: Duration) -> String {
    match duration.subsec_millis() {
        0 => format!("{} s", duration.as_secs()),
        _ => format!("{} ms", duration.as_millis()),
    }
}

impl Plugins {
    /// Takes a plugin back to the code of an earlier generation, or to that of the one named, and waits
    /// until it serves.
    ///
    /// # Errors
    ///
    /// [`OrderError`].
    pub fn roll_back(&self, plugin: &str, to: Option<u64>) -> Result<Event, OrderError> {
        self.give(plugin, |answer| Order::RollBack { to, answer })
    }

    /// Tries the source of a plugin again, also when it is what was tried last, and waits for the outcome.
    ///
    /// # Errors
    ///
    /// [`OrderError`]; a refusal is an outcome and no error.
    pub fn reload(&self, plugin: &str) -> Result<Event, OrderError> {
        if self.shared.settings.freeze {
            return Err(OrderError::Frozen);
        }
        self.give(plugin, |answer| Order::Reload { answer })
    }

    /// Is told of every panic of a handler, after it was counted.
    pub fn note_panic(&self, generation: &Generation) {
        let of_name = |worker: &super::worker::Worker| Arc::clone(&worker.plugin);
        let Some(plugin) = self.shared.plugins.lock().get(&*generation.plugin).map(of_name) else { return };
        plugin.note_failure(generation, Instant::now());
    }

    fn give(
        &self,
        plugin: &str,
        order: impl FnOnce(Sender<Result<Event, OrderError>>) -> Order,
    ) -> Result<Event, OrderError> {
        let worker = {
            let plugins = self.shared.plugins.lock();
            match plugins.get(plugin) {
                Some(worker) => Arc::clone(&worker.plugin),
                None => {
                    let known: Vec<&str> = plugins.keys().map(String::as_str).collect();
                    let known = known.join(", ");
                    return Err(OrderError::UnknownPlugin { plugin: plugin.to_owned(), known });
                }
            }
        };
        let (answer, answered) = channel();
        worker.order(order(answer));
        answered.recv_timeout(PATIENCE).unwrap_or_else(|error| {
            let plugin = plugin.to_owned();
            Err(match error {
                RecvTimeoutError::Timeout => {
                    let going = worker.activity.status();
                    let doing = going.map_or_else(|| "between two steps".to_owned(), |going| going.words());
                    OrderError::StillRunning { plugin, doing }
                }
                RecvTimeoutError::Disconnected => OrderError::Gone { plugin },
            })
        })
    }
}

impl Attempts {
    /// Carries an order out, or remembers to answer it.
    pub(super) fn obey(&mut self, order: Order) {
        match order {
            Order::RollBack { to, answer } => {
                // Nobody listens any more when the client's patience has ended.
                let _ = answer.send(self.roll_back(to, "asked by the operator"));
            }
            Order::Reload { answer } => {
                self.forget_tried();
                self.shared.quarantine.lift(&self.plugin.name);
                self.asked.push(answer);
            }
            Order::Exceeded { generation, reason } => {
                let is_current = |number| number == generation;
                if self.plugin.current_number().is_some_and(is_current)
                    && let Err(error) = self.roll_back(None, &reason)
                {
                    let plugin = &self.plugin.name;
                    tracing::error!("cannot roll {plugin} back after {reason}: {error}");
                }
            }
        }
    }

    /// Tells those who asked for a reload what came of it.
    pub(super) fn answer_asked(&mut self) {
        let Some(outcome) = self.plugin.state.lock().last_outcome.clone() else { return };
        for answer in self.asked.drain(..) {
            // As above.
            let _ = answer.send(Ok(outcome.clone()));
        }
    }

    /// Keeps what has just gone live, and puts it on probation if there is a way back from it.
    pub(super) fn went_live(&mut self, previous: Option<u64>) {
        let Some(lease) = self.plugin.state.lock().current.clone() else { return };
        let generation = lease.generation();
        let (staged, origin) = (generation.staged_path(), &generation.origin);
        if let Err(error) = self.kept.keep(generation.number, generation.build_id, staged, origin) {
            let plugin = &self.plugin.name;
            tracing::warn!(
                "cannot keep the code of {plugin} generation {} for a roll-back: {error}",
                generation.number
            );
        }
        let rule = self.shared.settings.probation.filter(|_| previous.is_some());
        self.plugin.state.lock().on_probation = rule.map(|rule| OnProbation {
            generation: generation.number,
            since: Instant::now(),
            rule,
            is_over: false,
        });
        // It has served for a moment already.
        self.plugin.note_failure(generation, Instant::now());
    }

    /// Takes a kept library through the pipeline, from `stage` on.
    fn roll_back(&mut self, to: Option<u64>, reason: &str) -> Result<Event, OrderError> {
        let plugin = Arc::clone(&self.plugin);
        let current = plugin.state.lock().current.clone();
        let Some(current) = current else {
            let kept = self.kept.words();
            return Err(OrderError::NothingEarlier { plugin: Arc::clone(&plugin.name), kept });
        };
        let at = self.kept.target(&plugin.name, current.generation().build_id, to)?;
        // A lease that is held delays the retirement.
        drop(current);
        let good = &self.kept.goods[at];
        let origin = good.generations[0];
        let mut steps = plugin.steps();
        let stage = &self.shared.stage;
        let image = steps.run("stage", || good.stage(|kept| stage.copy(&plugin.name, kept)))?;
        let (number, previous) = match self.shared.load(&plugin, image, true, &mut steps) {
            Ok(Loaded::Published { number, previous }) => (number, previous),
            Ok(Loaded::Unchanged { .. }) => {
                return Err(OrderError::ServesAlready {
                    plugin: Arc::clone(&plugin.name),
                    generation: origin,
                });
            }
            Err(refused) => {
                let error = OrderError::Refused {
                    generation: origin,
                    step: refused.step,
                    reason: refused.reason.clone(),
                };
                self.record_refused_way_back(&refused, origin, steps);
                return Err(error);
            }
        };
        self.shared.registry.note_roll_back(&plugin.name, origin);
        // It is older than what its files are now: who edits something shared does not wait for it.
        self.served = None;
        let reason = format!("{reason}, back to the code of generation {origin}");
        let refusal = format!("rolled back: {reason}");
        if let Err(error) = self.kept.went_to(at, number, Some(&refusal)) {
            tracing::warn!(%error, "cannot note what serves {}", plugin.name);
        }
        plugin.refusal.store(Some(Arc::new(Refusal { reason: refusal, details: None })));
        let mut event = plugin.event(EventKind::RolledBack, steps);
        event.generation = Some(number);
        event.previous_generation = previous;
        event.reason = Some(reason);
        plugin.state.lock().on_probation = None;
        Ok(self.shared.record_outcome(&plugin, event, None))
    }

    /// The newest code is not at fault, so its outcome stays what it was.
    fn record_refused_way_back(&self, refused: &Refused, origin: u64, steps: Steps) {
        let mut event = self.plugin.event(EventKind::Refused, steps);
        event.previous_generation = self.plugin.current_number();
        event.failed_step = Some(refused.step);
        event.reason = Some(format!("going back to the code of generation {origin}: {}", refused.reason));
        event.details.clone_from(&refused.details);
        self.shared.record(event, None);
    }
}

#[cfg(test)]
mod tests;
