//! Memory and mappings of a process, reload by reload.

use std::fs;

use super::Outcome;

/// The samples, in the order taken.
#[derive(Debug, Default)]
pub struct Memory {
    rss_kb: Vec<u64>,
    maps: Vec<u64>,
}

impl Memory {
    /// Takes one.
    ///
    /// # Panics
    ///
    /// When the process is gone.
    pub fn sample(&mut self, pid: u32) {
        let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).expect("the host runs");
        let resident = read("statm").split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
        self.add(resident.unwrap_or_default() * 4, read("maps").lines().count() as u64);
    }

    /// Adds one that was taken.
    pub fn add(&mut self, rss_kb: u64, maps: u64) {
        self.rss_kb.push(rss_kb);
        self.maps.push(maps);
    }

    /// Compares the first tenth with the last, a thousand samples each at most; and gives the means of all tenths,
    /// which tell something that fills up from something that grows.
    pub fn fill(&self, outcome: &mut Outcome) {
        let compared = (self.rss_kb.len() / TENTHS).clamp(1, 1_000);
        let first = |of: &[u64]| mean(&of[..compared.min(of.len())]);
        let last = |of: &[u64]| mean(&of[of.len().saturating_sub(compared)..]);
        (outcome.rss_first_kb, outcome.rss_last_kb) = (first(&self.rss_kb), last(&self.rss_kb));
        (outcome.maps_first, outcome.maps_last) = (first(&self.maps), last(&self.maps));
        let growth = |first: u64, last: u64| (last as f64 / first.max(1) as f64 - 1.0) * 100.0;
        outcome.rss_growth_percent = growth(outcome.rss_first_kb, outcome.rss_last_kb);
        outcome.maps_growth_percent = growth(outcome.maps_first, outcome.maps_last);
        let tenth = self.rss_kb.len().div_ceil(TENTHS).max(1);
        outcome.rss_by_tenth_kb = self.rss_kb.chunks(tenth).map(mean).collect();
        outcome.maps_by_tenth = self.maps.chunks(tenth).map(mean).collect();
    }
}

/// How many parts a run is looked at in.
const TENTHS: usize = 10;
/// From so many reloads on, memory has had the time to show whether it grows.
const JUDGED_FROM: u64 = 1_000;
/// How much more may be in use at the end than in the beginning, in percent.
const GROWTH: f64 = 2.0;

/// Says what is wrong where a run has taken more and more.
pub fn judge_memory(outcome: &mut Outcome) {
    if outcome.reloads < JUDGED_FROM {
        return;
    }
    for (what, first, last, growth) in [
        ("resident memory", outcome.rss_first_kb, outcome.rss_last_kb, outcome.rss_growth_percent),
        ("mappings", outcome.maps_first, outcome.maps_last, outcome.maps_growth_percent),
    ] {
        if growth > GROWTH {
            outcome.wrong.push(format!("{what} grew from {first} to {last}"));
        }
    }
}

fn mean(samples: &[u64]) -> u64 {
    samples.iter().sum::<u64>() / (samples.len() as u64).max(1)
}
