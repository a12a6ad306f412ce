//! One thread that looks after all pools: expiry, pings, refill, leaks.
//!
//! Owns the list of pools and the time of the next look. What is to be done is the pool's to know.
//!
//! # Invariants
//!
//! - The thread itself does no I/O: work on a database is done by a thread of its own, one for a pool
//!   at a time, so that a server which does not answer delays no other pool.
//! - The list keeps no pool alive.

use std::sync::{Arc, LazyLock, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// The longest the thread sleeps: what it is not told of, it sees that late.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);
/// The shortest. A limit of a few milliseconds need not be kept to the point.
const SHORTEST_SLEEP: Duration = Duration::from_millis(10);

/// Something that is looked after.
pub(super) trait Patrolled: Send + Sync {
    /// Looks, starts what has to be done, and says when to look again.
    fn patrol(self: Arc<Self>, now: Instant) -> Option<Instant>;
}

/// What pools and the thread share.
#[derive(Default)]
struct Monitor {
    pools: Mutex<List>,
    changed: Condvar,
}

/// Under the lock.
#[derive(Default)]
struct List {
    pools: Vec<Weak<dyn Patrolled>>,
    has_thread: bool,
    is_awake: bool,
}

static MONITOR: LazyLock<Monitor> = LazyLock::new(Monitor::default);

/// Looks after `pool` from now on, as long as somebody else holds it.
pub(super) fn watch(pool: Weak<dyn Patrolled>) {
    let mut list = MONITOR.pools.lock();
    list.pools.push(pool);
    if !list.has_thread {
        let spawned = std::thread::Builder::new().name("db-monitor".to_owned()).spawn(run);
        match spawned {
            Ok(_) => list.has_thread = true,
            // The next pool tries again; till then connections expire at checkout only.
            Err(error) => tracing::error!("no thread to look after the database pools: {error}"),
        }
    }
    drop(list);
    wake();
}

/// Makes the monitor look now.
pub(super) fn wake() {
    MONITOR.pools.lock().is_awake = true;
    MONITOR.changed.notify_one();
}

fn run() {
    loop {
        let pools: Vec<Arc<dyn Patrolled>> = {
            let mut list = MONITOR.pools.lock();
            list.pools.retain(|pool| pool.strong_count() > 0);
            list.is_awake = false;
            list.pools.iter().filter_map(Weak::upgrade).collect()
        };
        let now = Instant::now();
        let next = pools.into_iter().filter_map(|pool| look(pool, now)).min();
        let sleep = next.map_or(LONGEST_SLEEP, |next| next.saturating_duration_since(Instant::now()));
        let until = Instant::now() + sleep.clamp(SHORTEST_SLEEP, LONGEST_SLEEP);
        let mut list = MONITOR.pools.lock();
        while !list.is_awake && !MONITOR.changed.wait_until(&mut list, until).timed_out() {}
    }
}

/// A pool that panics is not the end of the others' monitor.
fn look(pool: Arc<dyn Patrolled>, now: Instant) -> Option<Instant> {
    match crate::panic::catch(|| pool.patrol(now)) {
        Ok(next) => next,
        Err(message) => {
            tracing::error!("looking after a database pool panicked: {message}");
            None
        }
    }
}
