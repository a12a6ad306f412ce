//! What an upgrade is at, as the host sees it, so that one that hangs in an author's code can be given up.
//!
//! Two threads: this one comes back from the author's code and wants to go on reading the older value; the host's finds that
//! the code has taken too long and wants others to use that value. Both change one atomic number, from the same state, so one
//! of them comes second and finds it changed: this one fails without a further look, or the host waits on.
//!
//! # Invariants
//!
//! - The older value is read in `UPGRADE_READS` alone. (A hook has references to parts that cannot be changed; the host keeps
//!   the value as long as it may have them.)
#![expect(unsafe_code, reason = "shares a number with the host by address")]

use std::mem::offset_of;
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};

use super::Misfit;
use crate::abi::{OldDataView, UPGRADE_IN_CODE, UPGRADE_IN_HOOK, UPGRADE_READS};

/// The number that is shared with the host, and what it is to be while an author's code runs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Progress {
    /// Null, or valid until the call of the host returns.
    word: *const AtomicU32,
    in_code: u32,
}

impl Default for Progress {
    /// Of something that nobody gives up.
    fn default() -> Progress {
        Progress { word: ptr::null(), in_code: UPGRADE_IN_CODE }
    }
}

impl Progress {
    /// Of the upgrade that the host has asked for.
    ///
    /// # Safety
    ///
    /// What is made of it is used within the call that `view` was passed to.
    pub(super) unsafe fn of(view: &OldDataView) -> Progress {
        // Hosts from before `progress` pass a shorter struct.
        let has_one = view.size >= offset_of!(OldDataView, progress) + size_of::<*const AtomicU32>();
        let word = if has_one { view.progress } else { ptr::null() };
        Progress { word, ..Progress::default() }
    }

    /// The same, for code that has references into the older value.
    pub(super) fn in_hook(self) -> Progress {
        Progress { in_code: UPGRADE_IN_HOOK, ..self }
    }

    /// Runs an author's code.
    ///
    /// # Errors
    ///
    /// When the host has given the upgrade up meanwhile: the older value is not this one's any more.
    pub(super) fn run<R>(self, code: impl FnOnce() -> R) -> Result<R, Misfit> {
        self.change(UPGRADE_READS, self.in_code)?;
        let outcome = code();
        self.change(self.in_code, UPGRADE_READS)?;
        Ok(outcome)
    }

    /// Goes on reading the older value, for a hook that asks for more of it.
    pub(super) fn pause(self) -> Result<(), Misfit> {
        self.change(self.in_code, UPGRADE_READS)
    }

    /// Goes back to the hook, which is told where the upgrade was given up.
    pub(super) fn resume(self) {
        let _ = self.change(UPGRADE_READS, self.in_code);
    }

    /// Says that the older value will not be read any more: what is left to do may take its time.
    pub(super) fn end(self) {
        let _ = self.change(UPGRADE_READS, UPGRADE_IN_CODE);
    }

    fn change(self, from: u32, to: u32) -> Result<(), Misfit> {
        // SAFETY: null, or valid during the call that this is used in.
        let Some(word) = (unsafe { self.word.as_ref() }) else { return Ok(()) };
        let changed = word.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire);
        changed.map(drop).map_err(|_| Misfit::new("the upgrade took too long, and was given up"))
    }
}
