//! Memory and mappings of a process, reload by reload.

use std::fs;

use super::Outcome;

/// The samples, in the order taken.
#[derive(Default)]
pub(super) struct Memory {
    rss_kb: Vec<u64>,
    maps: Vec<u64>,
}

impl Memory {
    /// Takes one.
    ///
    /// # Panics
    ///
    /// When the process is gone.
    pub(super) fn sample(&mut self, pid: u32) {
        let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).expect("the host runs");
        let resident = read("statm").split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
        self.rss_kb.push(resident.unwrap_or_default() * 4);
        self.maps.push(read("maps").lines().count() as u64);
    }

    /// Compares the first tenth with the last, a thousand samples each at most.
    pub(super) fn fill(&self, outcome: &mut Outcome) {
        let tenth = (self.rss_kb.len() / 10).clamp(1, 1_000);
        let mean = |samples: &[u64]| samples.iter().sum::<u64>() / (samples.len() as u64).max(1);
        let first = |of: &[u64]| mean(&of[..tenth.min(of.len())]);
        let last = |of: &[u64]| mean(&of[of.len().saturating_sub(tenth)..]);
        (outcome.rss_first_kb, outcome.rss_last_kb) = (first(&self.rss_kb), last(&self.rss_kb));
        (outcome.maps_first, outcome.maps_last) = (first(&self.maps), last(&self.maps));
        let growth = |first: u64, last: u64| (last as f64 / first.max(1) as f64 - 1.0) * 100.0;
        outcome.rss_growth_percent = growth(outcome.rss_first_kb, outcome.rss_last_kb);
        outcome.maps_growth_percent = growth(outcome.maps_first, outcome.maps_last);
    }
}
