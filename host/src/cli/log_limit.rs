//! Bounds how often a library's event is logged: some are written for each frame that a client sends.
//!
//! # Invariants
//!
//! - Events of the host and of plugins are not limited here; how many there are is theirs to decide.
//! - What was left out is counted, and told with the next event of its kind.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tracing::callsite::Identifier;

/// Events of one kind that are logged in each interval.
const MOST: u32 = 5;
const INTERVAL: Duration = Duration::from_secs(1);

/// Counts events by the place in the code that makes them.
#[derive(Debug, Default)]
pub(super) struct EventLimit {
    kinds: Mutex<HashMap<Identifier, KindCount>>,
}

#[derive(Debug)]
struct KindCount {
    since: Instant,
    logged: u32,
    left_out: u64,
}

impl EventLimit {
    /// Whether an event is to be logged now; `Some` with how many of its kind were left out since the last one.
    pub(super) fn admit(&self, kind: Identifier, now: Instant) -> Option<u64> {
        let mut kinds = self.kinds.lock();
        let count = kinds.entry(kind).or_insert(KindCount { since: now, logged: 0, left_out: 0 });
        if now.saturating_duration_since(count.since) >= INTERVAL {
            (count.since, count.logged) = (now, 0);
        }
        if count.logged < MOST {
            count.logged += 1;
            return Some(std::mem::take(&mut count.left_out));
        }
        count.left_out += 1;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_to_a_few_lines_and_told() {
        let limit = EventLimit::default();
        let kind = tracing::callsite!(name: "flood", kind: tracing::metadata::Kind::EVENT, fields: a);
        let kind = || tracing::Callsite::metadata(kind).callsite();
        let start = Instant::now();
        let logged = (0..1000).filter(|_| limit.admit(kind(), start).is_some()).count();
        assert_eq!(logged, 5);
        assert_eq!(limit.admit(kind(), start + INTERVAL), Some(995));
        assert_eq!(limit.admit(kind(), start + INTERVAL), Some(0));
    }
}
