//! What each plugin may take of the host's worker threads, and what it takes now.
//!
//! A [`Share`] is one plugin's, an [`Account`] one generation's part of it. Both are numbers and nothing
//! else: whoever runs jobs books them here without knowing whose they are, and whoever knows the plugin
//! reads them. Owns the numbers and the rule; does not own threads, queues or deadlines.
//!
//! # Invariants
//!
//! - A share that has a place leaves one for every share that has none: jobs that hang take many places,
//!   and never all, as long as there are as many places as shares.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};

/// How many times as many late jobs a share may have as one of its accounts: new code gets a chance after
/// old code has hung, and code that hangs in each of many generations does not take the process's threads.
const SHARE_FACTOR: usize = 4;

/// All shares of a host.
#[derive(Debug, Default)]
pub struct Shares(Arc<Census>);

/// How many shares there are.
#[derive(Debug, Default)]
struct Census {
    alive: AtomicUsize,
    /// Those with a running job. Written under the lock of the workers.
    active: AtomicUsize,
}

impl Shares {
    /// Another share beside those there are.
    pub fn open(&self) -> Arc<Share> {
        self.0.alive.fetch_add(1, Relaxed);
        let (running, waiting, late) = Default::default();
        Arc::new(Share { census: Arc::clone(&self.0), running, waiting, late })
    }
}

/// One plugin's share.
#[derive(Debug)]
pub struct Share {
    census: Arc<Census>,
    /// Jobs that run, late ones not counted. Written and read under the lock of the workers.
    running: AtomicUsize,
    /// Jobs that wait for a thread. As above.
    waiting: AtomicUsize,
    /// Jobs that still run after their deadline. Written under the lock of the workers, read by anybody.
    late: AtomicUsize,
}

impl Share {
    /// Whether one more of the `free` threads may be taken.
    pub(crate) fn may_run(&self, free: usize) -> bool {
        let (alive, active) = (self.census.alive.load(Relaxed), self.census.active.load(Relaxed));
        self.fits(self.running.load(Relaxed), free, alive.saturating_sub(active))
    }

    /// Whether one more of the `free` places in the queue may be taken.
    pub(crate) fn may_wait(&self, free: usize) -> bool {
        self.fits(self.waiting.load(Relaxed), free, 1)
    }

    /// Whether one of the `free` places may be taken by this share, which has `taken`, where `idle`
    /// shares have none.
    ///
    /// The more is free, the more one share may have: two thirds of all where nobody else has anything.
    /// The only share may have all.
    fn fits(&self, taken: usize, free: usize, idle: usize) -> bool {
        let is_alone = self.census.alive.load(Relaxed) <= 1;
        free > 0 && (is_alone || taken == 0 || (free > idle && taken < 2 * free))
    }

    /// Books a job that runs from now on.
    pub(crate) fn begin(&self) {
        if self.running.fetch_add(1, Relaxed) == 0 {
            self.census.active.fetch_add(1, Relaxed);
        }
    }

    /// Books that a job has ended, or is late.
    pub(crate) fn end(&self) {
        if self.running.fetch_sub(1, Relaxed) == 1 {
            self.census.active.fetch_sub(1, Relaxed);
        }
    }

    /// Books a job that waits for a thread.
    pub(crate) fn begin_wait(&self) {
        self.waiting.fetch_add(1, Relaxed);
    }

    /// Books that one waits no more.
    pub(crate) fn end_wait(&self) {
        self.waiting.fetch_sub(1, Relaxed);
    }

    /// Jobs that still run after their deadline.
    pub fn late(&self) -> usize {
        self.late.load(Relaxed)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.census.alive.fetch_sub(1, Relaxed);
    }
}

/// One generation's part of a share.
#[derive(Debug)]
pub struct Account {
    share: Arc<Share>,
    /// Jobs that still run after their deadline. Written under the lock of the workers, read by anybody.
    late: AtomicUsize,
    /// Jobs that have passed their deadline; only grows.
    missed: AtomicU64,
    /// Set at the first missed deadline, so that it is told once.
    is_degraded: AtomicBool,
    /// How many late ones were too many when a job was turned away for it, so that it is told once; zero
    /// again when no job is late.
    closed_at: AtomicUsize,
}

impl Account {
    /// An account without a job.
    pub fn of(share: Arc<Share>) -> Arc<Account> {
        let (late, missed, is_degraded, closed_at) = Default::default();
        Arc::new(Account { share, late, missed, is_degraded, closed_at })
    }

    /// The share it is part of.
    pub fn share(&self) -> &Arc<Share> {
        &self.share
    }

    /// Jobs that still run after their deadline.
    pub fn late(&self) -> usize {
        self.late.load(Relaxed)
    }

    /// Jobs that have passed their deadline.
    pub fn missed(&self) -> u64 {
        self.missed.load(Relaxed)
    }

    /// Whether its jobs are turned away for now: `most` late ones are as many as one account may have.
    pub fn is_full(&self, most: usize) -> bool {
        self.late() >= most || self.share.late() >= most.saturating_mul(SHARE_FACTOR)
    }

    /// Books a job that has passed its deadline and goes on.
    pub(crate) fn begin_late(&self) {
        self.missed.fetch_add(1, Relaxed);
        self.late.fetch_add(1, Relaxed);
        self.share.late.fetch_add(1, Relaxed);
    }

    /// Books the end of such a job.
    pub(crate) fn end_late(&self) {
        self.share.late.fetch_sub(1, Relaxed);
        if self.late.fetch_sub(1, Relaxed) == 1 {
            self.closed_at.store(0, Relaxed);
        }
    }

    /// Whether this is the first missed deadline that is told of.
    pub fn degrade(&self) -> bool {
        !self.is_degraded.swap(true, Relaxed)
    }

    /// Whether this is the first job turned away since all jobs were in time.
    ///
    /// `most` as for [`Account::is_full`].
    pub fn close(&self, most: usize) -> bool {
        self.closed_at.swap(most, Relaxed) == 0
    }

    /// Whether jobs have been turned away and would be still.
    pub fn is_closed(&self) -> bool {
        let most = self.closed_at.load(Relaxed);
        most > 0 && self.is_full(most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_that_is_alone_may_have_all() {
        let shares = Shares::default();
        let one = shares.open();
        let fill = || (0..4).filter(|taken| one.may_run(4 - taken)).inspect(|_| one.begin()).count();
        assert_eq!(fill(), 4);
        assert!(!one.may_run(0));
        (0..4).for_each(|_| one.end());
        let other = shares.open();
        assert_eq!(fill(), 3);
        drop(other);
        assert!(one.may_run(1));
    }

    /// However many shares take all they can get, each of the others finds a place.
    #[test]
    fn shares_that_hang_leave_a_place_for_each_other_one() {
        for (places, count) in (2..40).flat_map(|places| (2..=places).map(move |count| (places, count))) {
            let shares = Shares::default();
            let all: Vec<_> = (0..count).map(|_| shares.open()).collect();
            let mut free = places;
            for greedy in &all {
                assert!(greedy.may_run(free), "{places} places, {count} shares, {free} free");
                while greedy.may_run(free) {
                    greedy.begin();
                    free -= 1;
                }
            }
        }
    }

    #[test]
    fn new_code_is_let_in_after_old_code_hung_and_not_for_ever() {
        let share = Shares::default().open();
        for generation in 0..4 {
            let account = Account::of(Arc::clone(&share));
            assert!(!account.is_full(2), "generation {generation}");
            (0..2).for_each(|_| account.begin_late());
            assert!(account.is_full(2));
        }
        assert!(Account::of(share).is_full(2));
    }
}
