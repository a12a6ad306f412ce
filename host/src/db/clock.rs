//! A clock that costs a few nanoseconds and is right to a few milliseconds.
//!
//! Every checkout and every return looks at it, to know later how long a connection was idle or lent
//! out. A precise clock would cost more than the rest of the checkout.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// A moment on the coarse clock, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment(u64);

impl Moment {
    /// This moment, as of the system's last tick.
    pub(super) fn now() -> Moment {
        Moment::read(ClockId::MonotonicCoarse)
    }

    /// This moment to the nanosecond, on the same scale. Costs more.
    pub(super) fn precise() -> Moment {
        Moment::read(ClockId::Monotonic)
    }

    fn read(clock: ClockId) -> Moment {
        let now = clock_gettime(clock);
        // A machine would have to run for 584 years.
        Moment(now.tv_sec.unsigned_abs().wrapping_mul(1_000_000_000).wrapping_add(now.tv_nsec.unsigned_abs()))
    }

    /// How long ago `earlier` was; zero if it was not.
    pub(super) fn since(self, earlier: Moment) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// How long ago this moment was.
    pub(super) fn elapsed(self) -> Duration {
        Moment::now().since(self)
    }

    /// The moment `later`, or none if no clock reaches it.
    pub(super) fn after(self, later: Duration) -> Option<Moment> {
        u64::try_from(later.as_nanos()).ok().and_then(|later| self.0.checked_add(later)).map(Moment)
    }
}
