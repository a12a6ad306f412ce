//! What the monitor does for a pool: expiry, pings, refill, and the report of forgotten connections.
//!
//! # Invariants
//!
//! - `patrol` looks and takes out, under the lock; closing, pinging and connecting happen on a thread
//!   of their own, one for each pool at a time.
//! - The limit holds meanwhile: what is taken out keeps its seat.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::state::{Physical, State};
use super::{PoolStatus, Shared};
use crate::db::clock::Moment;
use crate::db::monitor::{self, Patrolled};

/// The pools of this process, for [`pools`].
pub(super) static ALL: Mutex<Vec<std::sync::Weak<Shared>>> = Mutex::new(Vec::new());

/// All pools of this process that somebody holds, in the order in which they were opened.
pub fn pools() -> Vec<PoolStatus> {
    let all: Vec<Arc<Shared>> = {
        let mut all = ALL.lock();
        all.retain(|pool| pool.strong_count() > 0);
        all.iter().filter_map(std::sync::Weak::upgrade).collect()
    };
    all.iter().map(|shared| shared.status()).collect()
}

/// What there is to do for a pool.
#[derive(Default)]
struct Work {
    /// To be closed.
    close: VecDeque<Box<Physical>>,
    /// To be asked whether they work.
    ping: VecDeque<Box<Physical>>,
    /// How many to make.
    refill: usize,
}

impl Work {
    fn is_empty(&self) -> bool {
        self.close.is_empty() && self.ping.is_empty() && self.refill == 0
    }
}

impl Patrolled for Shared {
    fn patrol(self: Arc<Shared>, now: Instant) -> Option<Instant> {
        let next_try = self.source.next_outage_try();
        let due = now + self.pace();
        if self.is_tended.swap(true, Ordering::AcqRel) {
            // Whoever tends it wakes the monitor when done.
            return Some(due);
        }
        let mut state = self.state.lock();
        if state.is_closed {
            self.is_tended.store(false, Ordering::Release);
            return None;
        }
        let moment = Moment::now();
        let leaks = self.leaks(&mut state, moment);
        let mut work = self.sort(&mut state, moment);
        let is_due = next_try.is_none_or(|next| next <= now);
        work.refill = if is_due { self.missing(&state, next_try.is_some()) } else { 0 };
        drop(state);
        for leak in leaks {
            let address = self.source.driver.address();
            tracing::warn!("a connection to {address} has probably been forgotten: {leak}");
            self.source.journal.note("leak", leak);
        }
        if work.is_empty() {
            self.is_tended.store(false, Ordering::Release);
        } else {
            self.tend(work);
        }
        Some(next_try.filter(|next| *next > now).map_or(due, |next| next.min(due)))
    }
}

impl Shared {
    /// How often to look.
    fn pace(&self) -> Duration {
        let config = &self.config;
        let limits = [config.idle_timeout, config.max_lifetime, config.ping_idle, config.leak_after];
        limits.into_iter().flatten().min().map_or(Duration::from_secs(30), |shortest| shortest / 4)
    }

    /// The connections that are lent out for too long, and have not been reported.
    fn leaks(&self, state: &mut State, now: Moment) -> Vec<String> {
        let Some(limit) = self.config.leak_after else { return Vec::new() };
        let mut leaks = Vec::new();
        state.for_each_loan(|loan| {
            if !loan.is_reported && now.since(loan.since) >= limit {
                loan.is_reported = true;
                leaks.push(loan.describe(now));
            }
        });
        state.counts.leaks += u64::try_from(leaks.len()).unwrap_or_default();
        leaks
    }

    /// Takes out the idle connections that are to be closed or asked.
    fn sort(&self, state: &mut State, now: Moment) -> Work {
        let mut work = Work::default();
        if self.source.driver.is_its_connection() {
            return work;
        }
        state.gather();
        let min_idle = usize::try_from(self.config.min_idle).unwrap_or(usize::MAX);
        let mut surplus = state.idle.len().saturating_sub(min_idle);
        for mut idle in std::mem::take(&mut state.idle) {
            let rested = now.since(idle.since);
            let made = idle.steady.made();
            let is_bad =
                made.as_ref().is_none_or(|made| made.conn.as_ref().has_broken() || made.has_expired(now));
            let is_suspect = made.as_ref().is_some_and(|made| made.is_suspect());
            let is_tired = surplus > 0 && self.config.idle_timeout.is_some_and(|limit| rested >= limit);
            let unseen = made.map_or(Duration::ZERO, |made| now.since(made.seen));
            if is_bad || is_tired {
                surplus = surplus.saturating_sub(1);
                work.close.push_back(idle);
            } else if is_suspect || self.config.ping_idle.is_some_and(|every| unseen >= every) {
                work.ping.push_back(idle);
            } else {
                state.idle.push_back(idle);
            }
        }
        work
    }

    /// How many connections to make: up to `min_idle`, and one to see whether the database is back.
    fn missing(&self, state: &State, is_down: bool) -> usize {
        let idle = u32::try_from(state.idle_count()).unwrap_or(u32::MAX);
        let wanted = self.config.min_idle.saturating_sub(idle).min(self.config.max_size - state.open);
        let probe = u32::from(is_down && state.open < self.config.max_size);
        usize::try_from(wanted.max(probe)).unwrap_or_default()
    }

    /// Does the work on a thread of its own.
    fn tend(self: Arc<Shared>, work: Work) {
        let (shared, work) = (self.clone(), Arc::new(Mutex::new(Some(work))));
        let job = move || {
            let work = work.lock().take();
            if let Err(message) = crate::panic::catch(|| shared.do_work(work.unwrap_or_default())) {
                tracing::error!("upkeep of a database pool panicked: {message}");
            }
            shared.is_tended.store(false, Ordering::Release);
            monitor::wake();
        };
        let spawned = std::thread::Builder::new().name("db-upkeep".to_owned()).spawn(job.clone());
        if let Err(error) = spawned {
            tracing::warn!("no thread for the upkeep of a database pool, others wait for it: {error}");
            job();
        }
    }

    fn do_work(self: &Arc<Shared>, work: Work) {
        for physical in work.close {
            self.discard(physical);
        }
        for mut idle in work.ping {
            let is_alive = idle
                .steady
                .made()
                .is_some_and(|made| if made.is_suspect() { made.survived() } else { made.ping() });
            if !is_alive {
                self.discard(idle);
                continue;
            }
            let refused = self.state.lock().offer(idle);
            if let Some(idle) = refused {
                self.discard(idle);
            }
        }
        for _ in 0..work.refill {
            match self.take_slot().map(super::shared::Slot::connect) {
                Some(Ok(physical)) => self.hand_on(physical),
                Some(Err(_)) | None => return,
            }
        }
    }
}
