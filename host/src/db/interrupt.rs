//! Telling a thread that what it does in a database is no longer wanted.
//!
//! Owns the word that is passed from whoever gives up waiting to the statement that runs for them.
//! Does not know who waits, nor how a driver stops a statement; that is its [`Cancel`].
//!
//! # Invariants
//!
//! - A statement is cancelled only while it runs: it says so under the lock that `interrupt` takes.
//! - Once [`Interrupt::close`] has succeeded nothing is cancelled, so a commit runs to its end.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use parking_lot::Mutex;

use super::QueryError;

/// Stops the statement that runs on a connection.
pub trait Cancel: Send + Sync {
    /// Asks for it and returns at once.
    fn cancel(&self);
}

/// Why nobody wants the outcome any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The request's deadline has passed.
    Deadline,
    /// The client has closed its connection.
    Disconnected,
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Reason::Deadline => "the request's deadline has passed",
            Reason::Disconnected => "the client has gone",
        })
    }
}

/// One piece of work that may be given up.
#[derive(Default)]
pub struct Interrupt {
    state: Mutex<State>,
    /// Whether it has been given up: 0 or 1. Written under the lock, read by anybody at any time.
    flag: AtomicU8,
}

#[derive(Default)]
struct State {
    /// Written once, by whoever gives up.
    reason: Option<Reason>,
    is_closed: bool,
    /// The statement of this moment.
    running: Option<Arc<dyn Cancel>>,
}

impl Interrupt {
    /// Gives the work up: cancels the statement that runs and refuses all later ones.
    ///
    /// Returns false if it is too late, because the work is being concluded.
    pub fn interrupt(&self, reason: Reason) -> bool {
        let mut state = self.state.lock();
        state.reason.get_or_insert(reason);
        self.flag.store(1, Ordering::Relaxed);
        if state.is_closed {
            return false;
        }
        if let Some(running) = state.running.take() {
            running.cancel();
        }
        true
    }

    /// 1 once somebody has given the work up, 0 before. A plugin reads it while it works.
    pub fn flag(&self) -> &AtomicU8 {
        &self.flag
    }

    /// Closes the door: from now on the work is not given up.
    ///
    /// # Errors
    ///
    /// The reason, when it has been given up already.
    pub fn close(&self) -> Result<(), Reason> {
        let mut state = self.state.lock();
        if let Some(reason) = state.reason {
            return Err(reason);
        }
        state.is_closed = true;
        Ok(())
    }

    /// Opens the door again, for more work.
    ///
    /// # Errors
    ///
    /// The reason, when somebody wanted to give the work up meanwhile.
    pub fn reopen(&self) -> Result<(), Reason> {
        let mut state = self.state.lock();
        state.is_closed = false;
        state.reason.map_or(Ok(()), Err)
    }

    /// Runs `body` as a part of this work: what it does in databases can be interrupted.
    pub fn enter<R>(self: &Arc<Self>, body: impl FnOnce() -> R) -> R {
        /// Restores the outer work, also when `body` unwinds.
        struct Restore(Option<Arc<Interrupt>>);
        impl Drop for Restore {
            fn drop(&mut self) {
                CURRENT.set(self.0.take());
            }
        }
        let _restore = Restore(CURRENT.replace(Some(Arc::clone(self))));
        body()
    }
}

impl std::fmt::Debug for Interrupt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Interrupt").field("reason", &self.state.lock().reason).finish_non_exhaustive()
    }
}

thread_local! {
    static CURRENT: RefCell<Option<Arc<Interrupt>>> = const { RefCell::new(None) };
}

/// Tells the work of this thread from any other that goes on now; `None` where it belongs to none.
pub(super) fn current_work() -> Option<usize> {
    CURRENT.try_with(|current| current.borrow().as_ref().map(|work| Arc::as_ptr(work).addr())).ok().flatten()
}

/// Runs a statement that `cancel` can stop, unless this thread's work has been given up.
///
/// # Errors
///
/// Those of `body`; [`QueryError::Interrupted`] instead of them once the work has been given up.
pub(super) fn running<R>(
    cancel: Arc<dyn Cancel>,
    body: impl FnOnce() -> Result<R, QueryError>,
) -> Result<R, QueryError> {
    /// The statement is over, also when `body` unwinds.
    struct Over(Option<Arc<Interrupt>>, Option<Arc<dyn Cancel>>);
    impl Over {
        /// Puts the outer statement back; tells why the work was given up, if it was.
        fn end(&mut self) -> Option<Reason> {
            let current = self.0.take()?;
            let mut state = current.state.lock();
            state.running = self.1.take();
            state.reason
        }
    }
    impl Drop for Over {
        fn drop(&mut self) {
            self.end();
        }
    }
    let current = CURRENT.try_with(|current| current.borrow().clone()).ok().flatten();
    let Some(current) = current else { return body() };
    let mut outer = None;
    {
        let mut state = current.state.lock();
        if !state.is_closed {
            if let Some(reason) = state.reason {
                return Err(QueryError::Interrupted { reason });
            }
            // One that streams its rows to a function which asks another database.
            outer = state.running.replace(cancel);
        }
    }
    let mut over = Over(Some(current), outer);
    let outcome = body();
    let reason = over.end();
    match (outcome, reason) {
        (Err(_), Some(reason)) => Err(QueryError::Interrupted { reason }),
        (outcome, _) => outcome,
    }
}

#[cfg(test)]
mod tests;
