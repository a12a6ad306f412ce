//! What one I/O thread has seen of the others: which of them do not come back from an inline handler.
//!
//! # Invariants
//!
//! - One look proves nothing: the whole process may have been stopped for a while, and whoever runs again first finds
//!   all the others late. So a thread hangs for whoever has found it stuck twice in a row, with a tick in between in
//!   which it could run; and each thread counts for itself, since looks of two may be one moment.

/// The looks of one thread at each of the others.
#[derive(Debug)]
pub(super) struct Lookout {
    /// By index: how often in a row that thread was found stuck.
    found: Box<[u32]>,
}

impl Lookout {
    /// For so many threads.
    pub(super) fn new(count: usize) -> Lookout {
        Lookout { found: vec![0; count].into() }
    }

    /// Takes note of a look at a thread. Whether that hangs.
    pub(super) fn hangs(&mut self, index: usize, is_stuck: bool) -> bool {
        let found = &mut self.found[index];
        *found = if is_stuck { found.saturating_add(1) } else { 0 };
        *found > 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_of_several_threads_at_one_moment_are_no_proof() {
        let mut lookouts = [Lookout::new(3), Lookout::new(3)];
        assert!(lookouts.iter_mut().all(|lookout| !lookout.hangs(2, true)), "after a stop of the process");
        assert!(lookouts.iter_mut().all(|lookout| !lookout.hangs(2, false)), "it runs again");
        assert!(lookouts.iter_mut().all(|lookout| !lookout.hangs(2, true)), "after another stop");
        assert!(lookouts.iter_mut().all(|lookout| lookout.hangs(2, true)), "it did not run in between");
        assert!(!lookouts[0].hangs(1, true), "and that was another one");
    }
}
