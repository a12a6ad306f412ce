//! Jobs one after the other, for a thread that does nothing else.

use std::time::Duration;

use super::{Claim, LIVE, Queue};
use crate::safe::{ReadError, Watch, Woken, WriteError};

/// The longest time without looking at the queue.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long to rest after an error.
const REST: Duration = Duration::from_secs(1);

/// Jobs as they become due; from [`Queue::claims`].
///
/// After an error it goes on, a second later; it ends with its generation.
#[derive(Debug)]
pub struct Claims {
    queue: Queue,
    /// From before the queue was looked at for the first time.
    watch: Option<Watch>,
    /// Whether the last attempt failed.
    must_rest: bool,
}

impl Claims {
    pub(super) fn new(queue: Queue) -> Claims {
        Claims { queue, watch: None, must_rest: false }
    }

    /// The watch on the queue, made at the first use.
    fn watch(&mut self) -> Result<&Watch, ReadError> {
        if self.watch.is_none() {
            self.watch = Some(self.queue.safe.watch_prefix((LIVE, &*self.queue.name))?);
        }
        Ok(self.watch.as_ref().expect("made above"))
    }

    /// The next job; `Ok(None)`: this code has ended.
    fn claim(&mut self) -> Result<Option<Claim>, WriteError> {
        if std::mem::take(&mut self.must_rest) {
            match self.watch() {
                Ok(watch) if watch.next(REST)? == Woken::Ended => return Ok(None),
                Ok(_) => {}
                Err(error) => {
                    std::thread::sleep(REST);
                    return Err(error.into());
                }
            }
        }
        loop {
            // Changes up to here are seen by the claim that follows.
            if self.watch()?.next(Duration::ZERO)? == Woken::Ended {
                return Ok(None);
            }
            if let Some(claim) = self.queue.claim()? {
                return Ok(Some(claim));
            }
            let due = self.queue.first_due()?.unwrap_or(PATIENCE).clamp(Duration::from_millis(1), PATIENCE);
            if self.watch()?.next(due)? == Woken::Ended {
                return Ok(None);
            }
        }
    }
}

impl Iterator for Claims {
    type Item = Result<Claim, WriteError>;

    fn next(&mut self) -> Option<Self::Item> {
        let claimed = self.claim().transpose();
        self.must_rest = matches!(claimed, Some(Err(_)));
        claimed
    }
}
