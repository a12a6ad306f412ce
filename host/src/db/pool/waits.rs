//! How long checkouts waited.

use std::time::Duration;

use serde::Serialize;

/// Checkouts that waited in line, by how long. One that found a connection or a free slot is in none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Waits {
    /// Less than a millisecond.
    pub below_1ms: u64,
    /// Less than 10 milliseconds.
    pub below_10ms: u64,
    /// Less than 100 milliseconds.
    pub below_100ms: u64,
    /// Less than a second.
    pub below_1s: u64,
    /// A second or more.
    pub longer: u64,
    /// The longest, in microseconds.
    pub longest_us: u64,
}

impl Waits {
    /// Takes note of a wait.
    pub(super) fn note(&mut self, waited: Duration) {
        let bucket = match waited.as_millis() {
            0 => &mut self.below_1ms,
            1..=9 => &mut self.below_10ms,
            10..=99 => &mut self.below_100ms,
            100..=999 => &mut self.below_1s,
            _ => &mut self.longer,
        };
        *bucket += 1;
        self.longest_us = self.longest_us.max(u64::try_from(waited.as_micros()).unwrap_or(u64::MAX));
    }
}
