//! Who may try to connect while the database is down.
//!
//! # Invariants
//!
//! - While the database is known to be down, one caller at a time tries, and not before the back-off
//!   is over. Everybody else hears at once what the last try said.
//! - No I/O under the lock.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::ConnectError;

/// The wait after the first failed try.
const FIRST_WAIT: Duration = Duration::from_millis(25);
/// The longest wait between two tries. Well below a second: that is how soon service is to be back.
const LONGEST_WAIT: Duration = Duration::from_millis(400);

/// Lets callers try to connect.
#[derive(Debug, Default)]
pub(super) struct Gate {
    down: Mutex<Option<Down>>,
}

/// What is known of a database that cannot be reached.
#[derive(Debug)]
struct Down {
    since: Instant,
    next: Instant,
    wait: Duration,
    reason: String,
    /// The database is there and refuses: nobody but a user's call should repeat that.
    is_refusal: bool,
    is_being_tried: bool,
}

/// Leave to try once. Whoever holds it says how it ended, or has given up when it is dropped.
#[derive(Debug)]
pub(super) struct Try<'a> {
    gate: &'a Gate,
    /// Whether everybody else is kept out meanwhile.
    is_turn: bool,
}

impl Gate {
    /// Asks for leave to connect.
    ///
    /// # Errors
    ///
    /// When the database is down and it is not this caller's turn to try.
    pub(super) fn enter(&self, address: &str) -> Result<Try<'_>, ConnectError> {
        let mut down = self.down.lock();
        if let Some(down) = down.as_mut() {
            let now = Instant::now();
            if down.is_being_tried || now < down.next {
                return Err(ConnectError::Down {
                    address: address.to_owned(),
                    reason: down.reason.clone(),
                    since: now.duration_since(down.since),
                    retry_in: down.next.saturating_duration_since(now),
                });
            }
            down.is_being_tried = true;
        }
        Ok(Try { gate: self, is_turn: down.is_some() })
    }

    /// Whether the last try failed.
    pub(super) fn is_down(&self) -> bool {
        self.down.lock().is_some()
    }

    /// When the next try is due, if the database was not there at the last one.
    pub(super) fn next_try(&self) -> Option<Instant> {
        self.down.lock().as_ref().filter(|down| !down.is_refusal).map(|down| down.next)
    }
}

impl Try<'_> {
    /// The database answered. Tells for how long it had been down, if it had.
    pub(super) fn succeeded(self) -> Option<Duration> {
        self.gate.down.lock().take().map(|down| down.since.elapsed())
    }

    /// It did not. Tells whether this is news.
    pub(super) fn failed(self, error: &ConnectError) -> bool {
        let mut down = self.gate.down.lock();
        if down.is_some() && !self.is_turn {
            // One of several that tried at the same time; the first has said it all.
            return false;
        }
        let now = Instant::now();
        let wait = down.as_ref().map_or(FIRST_WAIT, |down| (down.wait * 2).min(LONGEST_WAIT));
        let (since, is_news) = down.as_ref().map_or((now, true), |down| (down.since, false));
        *down = Some(Down {
            since,
            next: now + wait,
            wait,
            reason: error.reason(),
            is_refusal: error.is_refusal(),
            is_being_tried: false,
        });
        is_news
    }
}

impl Drop for Try<'_> {
    fn drop(&mut self) {
        // After `succeeded` and `failed` there is nothing left to do here; after a panic there is.
        if self.is_turn
            && let Some(down) = self.gate.down.lock().as_mut()
        {
            down.is_being_tried = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused() -> ConnectError {
        ConnectError::Unreachable { address: "db".to_owned(), reason: "refused".to_owned(), sqlstate: None }
    }

    #[test]
    fn all_may_try_while_nothing_is_known() {
        let gate = Gate::default();
        let (first, second) = (gate.enter("db").unwrap(), gate.enter("db").unwrap());
        assert_eq!(first.succeeded(), None);
        assert_eq!(second.succeeded(), None);
    }

    #[test]
    fn one_at_a_time_tries_a_database_that_is_down() {
        let gate = Gate::default();
        assert!(gate.enter("db").unwrap().failed(&refused()));
        let next = gate.next_try().unwrap();
        let error = gate.enter("db").unwrap_err();
        assert!(matches!(&error, ConnectError::Down { reason, .. } if reason == "refused"), "{error}");
        while Instant::now() < next {
            std::thread::yield_now();
        }
        let turn = gate.enter("db").unwrap();
        assert!(matches!(gate.enter("db"), Err(ConnectError::Down { .. })));
        // Given up without a word, as after a panic: the next one may.
        drop(turn);
        let turn = gate.enter("db").unwrap();
        assert!(!turn.failed(&refused()), "no news: it was down already");
        assert!(gate.next_try().unwrap() > next);
    }

    #[test]
    fn the_wait_doubles_up_to_its_bound_and_success_ends_it() {
        let gate = Gate::default();
        for _ in 0..10 {
            // As if each wait were over.
            if let Some(down) = gate.down.lock().as_mut() {
                down.next = Instant::now();
            }
            gate.enter("db").unwrap().failed(&refused());
        }
        assert_eq!(gate.down.lock().as_ref().unwrap().wait, LONGEST_WAIT);
        gate.down.lock().as_mut().unwrap().next = Instant::now();
        assert!(gate.enter("db").unwrap().succeeded().is_some());
        assert!(gate.next_try().is_none());
    }
}
