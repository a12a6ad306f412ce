//! Who has claimed a value to upgrade it, and how such a claim is given up.
//!
//! An upgrade runs code of an author, which may never return. It is given up like an init: by those who wait for the value,
//! once it has passed its deadline, or when its generation is refused. From then on the older value is in use again.
//!
//! Two threads: one returns from the author's code, the other gives the upgrade up. Both change the number that is shared
//! with the upgrading code, from the same state, so one comes second: the first fails without a further look at the value,
//! or the second waits on.
//!
//! # Invariants
//!
//! - A claim is given up in an author's code only, when the upgrading code looks at nothing of the older value. What a hook
//!   may have references to is counted as used until the hook returns.
//! - What was given up is not tried again by the same generation.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use plugin_api::abi::{
    UPGRADE_GIVEN_UP, UPGRADE_GIVEN_UP_IN_HOOK, UPGRADE_IN_CODE, UPGRADE_IN_HOOK, UPGRADE_READS,
};

use super::Data;
use crate::registry::Author;

/// The upgrading code has returned: nobody gives it up any more.
const ENDED: u32 = u32::MAX;

/// An upgrade that has claimed a value.
#[derive(Debug)]
pub(super) struct ClaimHolder {
    author: Author,
    /// How long it may take.
    allowed: Duration,
    deadline: Instant,
    /// What it is at: see `OldDataView.progress`.
    progress: AtomicU32,
}

impl ClaimHolder {
    pub(super) fn new(author: &Author, allowed: Duration) -> Arc<ClaimHolder> {
        Arc::new(ClaimHolder {
            author: author.clone(),
            allowed,
            deadline: Instant::now() + allowed,
            progress: AtomicU32::new(UPGRADE_READS),
        })
    }

    /// For the upgrading code.
    pub(super) fn progress(&self) -> *const AtomicU32 {
        &raw const self.progress
    }

    /// How long it was allowed to take.
    pub(super) fn allowed(&self) -> Duration {
        self.allowed
    }
}

impl Data {
    /// Says for whom the value is claimed.
    pub(super) fn note_claim(&self, holder: &Arc<ClaimHolder>) {
        *self.claimed_by.lock() = Some(Arc::clone(holder));
    }

    /// The upgrading code has returned. False: it was given up before, and the value is not its any more.
    pub(super) fn note_return(&self, holder: &ClaimHolder) -> bool {
        match holder.progress.swap(ENDED, Ordering::AcqRel) {
            UPGRADE_GIVEN_UP => false,
            UPGRADE_GIVEN_UP_IN_HOOK => {
                self.leave();
                false
            }
            _ => true,
        }
    }

    /// Ends a claim that was not given up: users begin again.
    pub(super) fn end_claim(&self) {
        self.claimed_by.lock().take();
        self.open();
    }

    /// When the claim on the value may be given up, if there is one.
    pub(super) fn claim_deadline(&self) -> Option<Instant> {
        let claimed_by = self.claimed_by.lock();
        let running = claimed_by.as_ref().filter(|holder| holder.progress.load(Ordering::Relaxed) != ENDED);
        running.map(|holder| holder.deadline)
    }

    /// Gives a claim up that has passed its deadline. False: there is none, or it cannot be given up now.
    pub(super) fn give_up_late_claim(&self) -> bool {
        let now = Instant::now();
        self.give_up_claim(|holder| holder.deadline <= now)
    }

    /// Gives a claim of this generation up.
    pub(in crate::registry) fn give_up_claim_of(&self, author: &Author) -> bool {
        self.give_up_claim(|holder| holder.author == *author)
    }

    /// How long an upgrade for this generation took when it was given up.
    pub(in crate::registry) fn has_given_up(&self, author: &Author) -> Option<Duration> {
        self.given_up.lock().iter().find(|(known, _)| known == author).map(|(_, took)| *took)
    }

    fn give_up_claim(&self, is_meant: impl Fn(&ClaimHolder) -> bool) -> bool {
        let mut claimed_by = self.claimed_by.lock();
        let Some(holder) = claimed_by.as_ref().filter(|holder| is_meant(holder)) else { return false };
        let change = |from, to| {
            holder.progress.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
        };
        if !change(UPGRADE_IN_CODE, UPGRADE_GIVEN_UP) {
            // Counted before anybody may find the value unclaimed and unused.
            self.word().fetch_add(1, Ordering::Relaxed);
            if !change(UPGRADE_IN_HOOK, UPGRADE_GIVEN_UP_IN_HOOK) {
                self.leave();
                return false;
            }
        }
        let took = holder.allowed.saturating_sub(holder.deadline.saturating_duration_since(Instant::now()));
        tracing::warn!(
            to = %holder.author,
            "the upgrade of a `{}` was given up after {took:?}: code of its edit does not return. The value is in use as before",
            self.owner.lock().0.name()
        );
        self.given_up.lock().push((holder.author.clone(), took));
        claimed_by.take();
        drop(claimed_by);
        self.open();
        true
    }
}
