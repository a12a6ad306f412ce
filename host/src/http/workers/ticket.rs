//! What has become of one job.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use crate::share::Account;

/// Follows a job from its submission to its end.
#[derive(Debug)]
pub struct Ticket {
    /// Where it is booked.
    pub(super) account: Arc<Account>,
    /// A [`Stage`]. Written and read under the lock of the workers.
    stage: AtomicU8,
}

/// Where a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Stage {
    /// It waits for a thread.
    Waiting,
    /// It runs.
    Running,
    /// It runs, its deadline has passed, and its thread has been replaced.
    Late,
    /// It has ended, or will never begin.
    Done,
}

impl Ticket {
    pub(super) fn new(account: Arc<Account>) -> Arc<Ticket> {
        Arc::new(Ticket { account, stage: AtomicU8::new(Stage::Waiting as u8) })
    }

    pub(super) fn stage(&self) -> Stage {
        let stage = self.stage.load(Relaxed);
        let all = [Stage::Waiting, Stage::Running, Stage::Late, Stage::Done];
        all.into_iter().find(|one| *one as u8 == stage).expect("only stages are stored")
    }

    pub(super) fn set(&self, stage: Stage) {
        self.stage.store(stage as u8, Relaxed);
    }
}
