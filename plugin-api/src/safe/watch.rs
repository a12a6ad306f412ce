//! Being woken when something in the safe changes.

use std::time::Duration;

use crate::abi::{HandleId, Status};
use crate::host::Owned;
use crate::safe::{Range, ReadError, call};

/// A watch on a key or a prefix; from [`Safe::watch`](crate::safe::Safe::watch).
///
/// It coalesces: any number of changes since the last [`next`](Watch::next) are one, so look at the safe itself
/// for what there is now. Changes count once they are on disk, whoever made them. An expiry is no change.
///
/// ```no_run
/// # use plugin_api::prelude::*;
/// use std::time::Duration;
/// use plugin_api::safe::Woken;
///
/// /// Answers when the board has changed, or after a while: a long poll.
/// fn board(req: &Request) -> Result<String> {
///     let watch = req.safe().watch_prefix("board:")?;
///     let seen: u64 = req.param("seen")?;
///     if req.safe().len()? <= seen {
///         watch.next(Duration::from_secs(20))?;
///     }
///     Ok(req.safe().len()?.to_string())
/// }
/// ```
#[derive(Debug)]
pub struct Watch(Owned);

/// What [`Watch::next`] woke for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// Something was changed.
    Changed,
    /// Nothing was changed in this time.
    TimedOut,
    /// This code is no longer the current generation, or the host stops: end what you do.
    Ended,
}

impl Watch {
    pub(super) fn new(safe: HandleId, range: &Range) -> Result<Watch, ReadError> {
        Ok(Watch(call::watch(safe, range)?))
    }

    /// Waits for a change since the last call, or since the watch was made; zero only asks.
    ///
    /// In a request it returns a little before the request's deadline. Once the plugin was reloaded it
    /// returns [`Woken::Ended`] at once, so that it never keeps old code in memory.
    ///
    /// # Errors
    ///
    /// [`ReadError::Host`] in an `inline` route, unless it only asks.
    pub fn next(&self, timeout: Duration) -> Result<Woken, ReadError> {
        let timeout_ns = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
        match call::watch_next(&self.0, timeout_ns) {
            Ok(()) => Ok(Woken::Changed),
            Err(error) => match error.status {
                Status::TIMED_OUT => Ok(Woken::TimedOut),
                // The handle goes with the generation.
                Status::CLOSED | Status::NOT_FOUND => Ok(Woken::Ended),
                _ => Err(error.into()),
            },
        }
    }
}
