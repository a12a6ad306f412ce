//! Two ways to do the same, measured beside each other.
//!
//! Owns the order of the rounds and what is made of their figures. Does not own what a round does.
//!
//! A machine has good and bad moments, and they outlast a round. So rounds are short, ours and the peer's come in
//! pairs, and a ratio is one within a pair. The median of the ratios is the result; the quartiles say how far it
//! can be trusted.
//!
//! # Invariants
//!
//! - Who goes first changes from pair to pair, so that neither always finds the caches as the other left them.

use std::fmt;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// What one operation cost in a round, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Processor time.
    pub cpu: f64,
    /// Time on the wall clock.
    pub wall: f64,
}

impl Cost {
    /// Runs `body`, which says how many operations it made, and counts the time of the whole process.
    pub fn of_process(body: impl FnOnce() -> u64) -> Cost {
        let (cpu, begun) = (process_time(), Instant::now());
        let count = body();
        Cost::each(process_time().saturating_sub(cpu), begun.elapsed(), count)
    }

    /// What each of `count` operations cost.
    #[expect(clippy::cast_precision_loss, reason = "some millions")]
    pub fn each(cpu: Duration, wall: Duration, count: u64) -> Cost {
        let count = count.max(1) as f64;
        Cost { cpu: cpu.as_secs_f64() * 1e9 / count, wall: wall.as_secs_f64() * 1e9 / count }
    }
}

/// Rounds of ours and of the peer's, pair by pair.
#[derive(Clone, Debug, Default)]
pub struct Pairs(Vec<(Cost, Cost)>);

impl Pairs {
    /// Runs so many pairs of rounds.
    pub fn take(count: usize, mut ours: impl FnMut() -> Cost, mut theirs: impl FnMut() -> Cost) -> Pairs {
        let pair = |number: usize| {
            if number.is_multiple_of(2) {
                let ours = ours();
                (ours, theirs())
            } else {
                let theirs = theirs();
                (ours(), theirs)
            }
        };
        Pairs((0..count).map(pair).collect())
    }

    /// Adds pairs that were measured elsewhere: a line for each, of our processor and wall time and the peer's.
    ///
    /// # Panics
    ///
    /// When a line is something else.
    pub fn read(&mut self, lines: &str) {
        for line in lines.lines() {
            let numbers: Vec<f64> = line.split(' ').filter_map(|number| number.parse().ok()).collect();
            let [cpu, wall, their_cpu, their_wall] = numbers[..] else { panic!("no figures: {line}") };
            self.0.push((Cost { cpu, wall }, Cost { cpu: their_cpu, wall: their_wall }));
        }
    }

    /// Compares processor time.
    pub fn cpu(&self) -> Comparison {
        self.compare(|cost| cost.cpu)
    }

    /// Compares time on the wall clock.
    pub fn wall(&self) -> Comparison {
        self.compare(|cost| cost.wall)
    }

    fn compare(&self, what: fn(&Cost) -> f64) -> Comparison {
        let of = |number: fn(f64, f64) -> f64| {
            Quartiles::of(self.0.iter().map(|(ours, theirs)| number(what(ours), what(theirs))).collect())
        };
        Comparison {
            ours: of(|ours, _| ours).median,
            theirs: of(|_, theirs| theirs).median,
            ratio: of(|ours, theirs| ours / theirs),
        }
    }
}

/// Ours beside the peer's.
#[derive(Clone, Copy, Debug)]
pub struct Comparison {
    /// The median of our rounds, in nanoseconds.
    pub ours: f64,
    /// The median of the peer's.
    pub theirs: f64,
    /// Ours to the peer's, of the pairs.
    pub ratio: Quartiles,
}

/// The middle of some numbers, and the half of them that lies around it.
#[derive(Clone, Copy, Debug)]
pub struct Quartiles {
    /// A quarter is less.
    pub low: f64,
    /// Half is less.
    pub median: f64,
    /// Three quarters are less.
    pub high: f64,
}

impl Quartiles {
    /// Of these numbers, in any order.
    ///
    /// # Panics
    ///
    /// When there are none.
    pub fn of(mut numbers: Vec<f64>) -> Quartiles {
        numbers.sort_by(f64::total_cmp);
        let at = |quarter: usize| numbers[(numbers.len() - 1) * quarter / 4];
        Quartiles { low: at(1), median: at(2), high: at(3) }
    }
}

impl fmt::Display for Quartiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3} ({:.3} to {:.3})", self.median, self.low, self.high)
    }
}

/// Processor time of this process, that of its ended threads included.
fn process_time() -> Duration {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or_default())
}
