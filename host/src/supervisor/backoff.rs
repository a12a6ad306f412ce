//! How long to wait before the next start. Pure: the clock is the caller's.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Crashes older than this are forgotten.
pub(super) const WINDOW: Duration = Duration::from_secs(10);
/// So many crashes within the window cost no wait: the guilty code is out after the first one.
const FREE: usize = 5;
/// The first wait; each further one doubles it.
const FIRST: Duration = Duration::from_millis(100);
/// The longest wait.
const LONGEST: Duration = Duration::from_secs(5);

/// The crashes of the last seconds.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    crashes: VecDeque<Instant>,
    /// Waits since it was last quiet.
    waits: u32,
}

impl Backoff {
    /// Notes a crash; returns how long to wait.
    pub(super) fn after_crash(&mut self, now: Instant) -> Duration {
        while self.crashes.front().is_some_and(|&first| now.duration_since(first) > WINDOW) {
            self.crashes.pop_front();
        }
        if self.crashes.is_empty() {
            self.waits = 0;
        }
        self.crashes.push_back(now);
        if self.waits == 0 && self.crashes.len() <= FREE {
            return Duration::ZERO;
        }
        let wait = FIRST.saturating_mul(1 << self.waits.min(10)).min(LONGEST);
        self.waits += 1;
        wait
    }

    /// How many crashes there were within the window.
    pub(super) fn recent(&self) -> usize {
        self.crashes.len()
    }
}
