//! A clock that costs a few nanoseconds and is right to a few milliseconds.
//!
//! Every checkout and every return looks at it, to know later how long a connection was idle or lent
//! out. A precise clock would cost more than the rest of the checkout.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// A moment on the coarse clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment(Duration);

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
        let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
        let nanos = u32::try_from(now.tv_nsec).unwrap_or_default();
        Moment(Duration::new(seconds, nanos))
    }

    /// How long ago `earlier` was; zero if it was not.
    pub(super) fn since(self, earlier: Moment) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// How long ago this moment was.
    pub(super) fn elapsed(self) -> Duration {
        Moment::now().since(self)
    }

    /// The moment `later`, or none if no clock reaches it.
    pub(super) fn after(self, later: Duration) -> Option<Moment> {
        self.0.checked_add(later).map(Moment)
    }
}
