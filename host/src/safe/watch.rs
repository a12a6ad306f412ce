//! Watching a range of keys: being woken when something in it changes.
//!
//! A watch coalesces: however many changes there were since somebody looked last, it wakes once. It holds
//! no value and no thread; what it sees are commits, so whoever is woken can read what was committed.
//! Expiry is no change.
//!
//! # Invariants
//!
//! - A change that is durable before `next` is called, and after the `next` before it returned, wakes it.
//! - A cancelled watch wakes at once and for ever: it never keeps anybody.

use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, Weak};
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use super::write::{Change, Commit, Write};

/// A range of keys, owned.
pub type KeyRange = (Bound<Vec<u8>>, Bound<Vec<u8>>);

/// What `next` woke for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// Something in the range was changed.
    Changed,
    /// Nothing was changed until the deadline.
    TimedOut,
    /// The watch was cancelled, or the safe closed.
    Cancelled,
}

/// A watch on a range of one safe.
#[derive(Debug)]
pub struct Watch {
    range: KeyRange,
    state: Mutex<State>,
    woken: Condvar,
}

#[derive(Debug, Default)]
struct State {
    is_changed: bool,
    is_cancelled: bool,
}

impl Watch {
    /// Waits until something in the range has changed since the last call, or since the watch was made.
    pub fn next(&self, deadline: Instant) -> Woken {
        let mut state = self.state.lock();
        loop {
            if state.is_cancelled {
                return Woken::Cancelled;
            }
            if std::mem::take(&mut state.is_changed) {
                return Woken::Changed;
            }
            if self.woken.wait_until(&mut state, deadline).timed_out()
                && !state.is_changed
                && !state.is_cancelled
            {
                return Woken::TimedOut;
            }
        }
    }

    /// Wakes whoever waits, for good.
    pub fn cancel(&self) {
        self.state.lock().is_cancelled = true;
        self.woken.notify_all();
    }

    fn wake(&self) {
        self.state.lock().is_changed = true;
        self.woken.notify_all();
    }
}

/// The watches of one safe.
#[derive(Debug, Default)]
pub(super) struct Watches {
    list: Mutex<List>,
}

#[derive(Debug, Default)]
struct List {
    watches: Vec<Weak<Watch>>,
    is_closed: bool,
}

impl Watches {
    pub(super) fn add(&self, range: KeyRange) -> Arc<Watch> {
        let watch = Arc::new(Watch { range, state: Mutex::default(), woken: Condvar::new() });
        let mut list = self.list.lock();
        list.watches.retain(|watch| watch.strong_count() > 0);
        list.watches.push(Arc::downgrade(&watch));
        if list.is_closed {
            watch.cancel();
        }
        watch
    }

    /// Wakes the watches that a key concerns.
    pub(super) fn changed(&self, key: &[u8]) {
        self.each(|watch| {
            let (start, end) = &watch.range;
            let range = (start.as_ref().map(Vec::as_slice), end.as_ref().map(Vec::as_slice));
            if RangeBounds::<[u8]>::contains(&range, key) {
                watch.wake();
            }
        });
    }

    /// Wakes all: something may have changed, and nobody knows what.
    pub(super) fn all_changed(&self) {
        self.each(Watch::wake);
    }

    /// Wakes the watches that committed writes concern.
    pub(super) fn committed<'a, E: 'a>(
        &self,
        writes: impl Iterator<Item = (&'a Write, &'a Result<Commit, E>)>,
    ) {
        if self.is_empty() {
            return;
        }
        for (write, outcome) in writes {
            if let Ok(Commit::Done { results, .. }) = outcome {
                changed_keys(write, results).for_each(|key| self.changed(key));
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.lock().watches.is_empty()
    }

    /// Cancels all watches, those to come included.
    pub(super) fn close(&self) {
        self.list.lock().is_closed = true;
        self.each(Watch::cancel);
    }

    fn each(&self, body: impl Fn(&Watch)) {
        let watches: Vec<Arc<Watch>> = self.list.lock().watches.iter().filter_map(Weak::upgrade).collect();
        watches.iter().for_each(|watch| body(watch));
    }
}

/// The keys that a committed write really changed: deleting what was not there is no change.
pub(super) fn changed_keys<'a>(write: &'a Write, results: &'a [i64]) -> impl Iterator<Item = &'a [u8]> {
    let is_change =
        |(change, result): &(&Change, &i64)| !matches!(change, Change::Delete { .. }) || **result != 0;
    write.changes.iter().zip(results).filter(is_change).map(|(change, _)| change.key())
}
