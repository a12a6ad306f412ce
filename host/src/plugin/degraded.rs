//! Generations whose handlers do not return: how that is told.
//!
//! Owns the events and the sentence of the status. Does not own deadlines nor threads, which are serving's,
//! nor going back to earlier code.

use std::sync::Arc;
use std::time::Instant;

use super::event::EventKind;
use super::{Lease, Plugin, Plugins};
use crate::share::Account;

impl Plugins {
    /// Is told of every handler that has passed its deadline, of a request that came at `began`.
    pub fn note_missed_deadline(&self, plugin: &str, generation: u64, began: Instant) {
        let Some((plugin, lease)) = self.current(plugin, generation) else { return };
        if lease.generation().account.degrade() {
            self.tell_degraded(&plugin, &lease, "a handler has passed its deadline and still runs");
        }
        plugin.note_failure(lease.generation(), began);
    }

    /// Is told when requests of a generation begin to be turned away because of those that hang.
    pub fn note_turned_away(&self, plugin: &str, generation: u64) {
        let Some((plugin, lease)) = self.current(plugin, generation) else { return };
        if let Some(words) = words(&lease.generation().account) {
            self.tell_degraded(&plugin, &lease, &words);
        }
    }

    fn tell_degraded(&self, plugin: &Plugin, lease: &Lease, reason: &str) {
        let mut event = plugin.event(EventKind::Degraded, plugin.steps());
        event.generation = Some(lease.generation().number);
        event.reason = Some(reason.to_owned());
        self.shared.record(event, None);
    }

    /// The plugin of this name, if its current generation has this number: what retired code does is told
    /// by its request that does not end.
    fn current(&self, plugin: &str, generation: u64) -> Option<(Arc<Plugin>, Arc<Lease>)> {
        let plugin = Arc::clone(&self.shared.plugins.lock().get(plugin)?.plugin);
        let lease = plugin.state.lock().current.clone()?;
        (lease.generation().number == generation).then_some((plugin, lease))
    }
}

/// What is wrong with a generation while its handlers do not return.
pub(super) fn words(account: &Account) -> Option<String> {
    let handlers = match account.late() {
        0 if !account.is_closed() => return None,
        1 => "1 handler still runs after its deadline".to_owned(),
        late => format!("{late} handlers still run after their deadline"),
    };
    let of_others = account.share().late().saturating_sub(account.late());
    let earlier = match of_others {
        0 => String::new(),
        of_others => format!(", and {of_others} of earlier generations"),
    };
    let turned_away = match account.is_closed() {
        true => "; requests are turned away with 503 until some return or newer code serves",
        false => "",
    };
    Some(format!("{handlers}{earlier}{turned_away}"))
}
