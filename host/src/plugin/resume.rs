//! Going on after a crash, or after a roll-back: the code that served before serves again, before anything is built.
//!
//! # Invariants
//!
//! - Only content that has served goes this way, and only where that is not at fault. After a crash the probe, which it
//!   has passed under this very host, is not repeated.
//! - What the crashed process had made of the source is not made again: its outcome stands.

use std::sync::Arc;

use super::event::EventKind;
use super::load::Loaded;
use super::quarantine;
use super::router::Refusal;
use super::worker::Attempts;
use crate::pins::Crash;

impl Attempts {
    /// Has the code serve that served before the crash, or what is to serve in its place.
    pub(super) fn resume(&mut self) {
        let (shared, plugin) = (Arc::clone(&self.shared), Arc::clone(&self.plugin));
        let crash =
            shared.quarantine.last.as_ref().filter(|crash| crash.plugin.as_deref() == Some(&plugin.name));
        let beyond_crashed = crash.and_then(|crash| crash.generation).map_or(1, |generation| generation + 1);
        plugin.state.lock().next_generation = self.kept.next_generation.max(beyond_crashed);
        if let Some(crash) = crash {
            self.record_crash(crash);
        }
        let is_out = |build| shared.quarantine.holds(&plugin.name, build);
        let Some(at) = self.kept.to_resume(is_out) else { return };
        let good = &self.kept.goods[at];
        let (build_id, origin) = (good.build_id, good.generations[0]);
        let before = self.kept.current.and_then(|current| {
            let of = self.kept.goods.iter().find(|good| good.build_id == current)?;
            of.generations.last().copied()
        });
        let is_another = self.kept.current != Some(build_id);
        let mut steps = plugin.steps();
        // Nothing is mapped yet in this process, so the kept file itself can be opened, by another name.
        let taken = steps.run("stage", || good.stage(|kept| shared.stage.link(&plugin.name, kept)));
        let image = match taken {
            Ok(image) => image,
            Err(error) => {
                tracing::warn!("cannot go on with the code of {}: {error}", plugin.name);
                return;
            }
        };
        if shared.settings.is_after_crash {
            shared.proven.lock().insert(build_id);
        }
        let number = match shared.load(&plugin, image, false, &mut steps) {
            Ok(Loaded::Published { number, .. } | Loaded::Unchanged { number }) => number,
            Err(refused) => {
                self.refuse(steps, refused);
                return;
            }
        };
        let why = match crash {
            Some(crash) => quarantine::words(crash),
            None if shared.settings.is_after_crash => "the process has crashed".to_owned(),
            None if is_another => "newer code is quarantined".to_owned(),
            None => "newer code was rolled back before the host was started".to_owned(),
        };
        let mut event =
            plugin.event(if is_another { EventKind::RolledBack } else { EventKind::Resumed }, steps);
        event.generation = Some(number);
        event.previous_generation = before;
        event.reason = Some(format!("{why}, back to the code of generation {origin}"));
        let refusal = match self.kept.current.filter(|_| is_another) {
            Some(left) => shared.quarantine.reason(&plugin.name, left),
            None => self.kept.refusal.clone(),
        };
        let of_another = refusal.as_deref().filter(|_| is_another);
        if let Err(error) = self.kept.went_to(at, number, of_another) {
            tracing::warn!(%error, "cannot note what serves {}", plugin.name);
        }
        plugin.refusal.store(refusal.map(|reason| Arc::new(Refusal { reason, details: None })));
        self.resumed = self.kept.tried;
        shared.record_outcome(&plugin, event, None);
    }

    /// Tells what the process before this one has died of.
    fn record_crash(&self, crash: &Crash) {
        let mut event = self.plugin.event(EventKind::Crashed, self.plugin.steps());
        event.generation = crash.generation;
        event.reason = Some(match &crash.request {
            Some(request) => format!("{}, request {request}", quarantine::words(crash)),
            None => quarantine::words(crash),
        });
        event.details = Some(crash.frames.join("\n")).filter(|frames| !frames.is_empty());
        self.shared.record(event, None);
    }
}
