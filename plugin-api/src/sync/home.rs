//! Whose empty maps there are in what a lock guards.
//!
//! A `HashMap` or `HashSet` that has no room for an entry has no memory of its own: it points to a constant of
//! the library whose code made or emptied it. All else in data points to the heap alone. So that such a map is not
//! looked at, or moved to where nobody knows of it, when that library is gone, code sees none but its own:
//!
//! - What is below a lock has a *home*: the number of the loaded library that all its empty maps point into. Code of
//!   another library that takes the lock *settles* the content before it sees it: each empty map is replaced by an
//!   empty one of its own ([`Empties::Ours`]), and the content has a new home. A map is known as empty by the numbers
//!   beside its pointer, and none of its memory is read; so the former home may be unmapped by then.
//! - A reader cannot replace anything. The first that finds content of another home takes the lock as a writer
//!   and gives each empty map room for an entry, so that it points to the heap ([`Empties::Nowhere`]). Then all
//!   libraries may read, until one of them writes.
//! - What others can reach without a lock is given such room before they can: when a value becomes the registry's, when
//!   an upgrade makes a part, when a cell is filled. It has no room for less than one entry any more, because without a lock
//!   nothing in it can be changed.
//!
//! Two threads, in an old and a new library: the old one empties the map under the lock, whose home it is, and unlocks.
//! The new one locks, finds a home that is not its own, and puts an empty map of its own in the place, by writing and
//! never by reading through the old pointer. The old one may be unmapped before or after. Should the old
//! thread lock once more, the same happens the other way round.
//!
//! The same before a value is dropped with its lock: its own `Drop` may look at its maps.
//!
//! The walk does not enter a lock within a lock, which has a home of its own, nor what it cannot reach for itself alone:
//! see [`Layout::keeps_code`](crate::resident::Layout::keeps_code). A panic during the walk leaves the old home, so the next
//! holder walks again.
//!
//! # Invariants
//!
//! - `home` is read and written under the lock, or by the only owner.
//! - Empty maps in `value`, outside of locks within it, point into the library of number `home`, or into none if
//!   that is [`SETTLED`]. Nothing is said of them while it is [`NOBODY`].
//! - A number is the host's for one loaded library, and never given twice. (Addresses are used again.)

#![expect(unsafe_code, reason = "moves a value out of what has a drop")]

use std::mem::ManuallyDrop;
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::resident::{Empties, Resident, settle};

/// The home of what no library has taken yet; the number of code that runs without a host.
const NOBODY: u32 = 0;
/// The home of what has no empty maps that point into a library.
const SETTLED: u32 = u32::MAX;

/// The number of this library. Written once, before any other code of the plugin runs.
static HERE: AtomicU32 = AtomicU32::new(NOBODY);

/// Says which number the host has given this library.
pub(crate) fn is_here(number: u32) {
    HERE.store(number, Ordering::Relaxed);
}

/// What a lock guards.
#[derive(Default)]
pub(super) struct Homed<T: Resident> {
    home: u32,
    value: T,
}

impl<T: Resident> Homed<T> {
    pub(super) const fn new(value: T) -> Homed<T> {
        Homed { home: NOBODY, value }
    }

    /// The value, for a holder who has seen to its home.
    #[inline]
    pub(super) fn value(&self) -> &T {
        &self.value
    }

    /// As [`value`](Homed::value).
    #[inline]
    pub(super) fn value_mut(&mut self) -> &mut T {
        &mut self.value
    }

    /// The value, without its home.
    pub(super) fn into_value(mut self) -> T {
        self.take();
        let homed = ManuallyDrop::new(self);
        // SAFETY: valid, and read once: what it is read from is neither used nor dropped any more.
        unsafe { ptr::read(&raw const homed.value) }
    }

    /// The value, for the only owner.
    pub(super) fn get_mut(&mut self) -> &mut T {
        self.take();
        &mut self.value
    }

    /// Makes it this library's, which is about to change it.
    #[inline]
    pub(super) fn take(&mut self) {
        if T::MAY_SETTLE {
            self.take_as(HERE.load(Ordering::Relaxed));
        }
    }

    /// Whether this library may read it as it is.
    #[inline]
    pub(super) fn is_readable(&self) -> bool {
        !T::MAY_SETTLE || self.is_readable_by(HERE.load(Ordering::Relaxed))
    }

    /// Makes it readable for all libraries.
    #[cold]
    pub(super) fn settle(&mut self) {
        if self.home != SETTLED {
            settle(&mut self.value, Empties::Nowhere);
            self.home = SETTLED;
        }
    }

    #[inline]
    fn take_as(&mut self, number: u32) {
        if self.home != number {
            self.move_to(number);
        }
    }

    #[inline]
    fn is_readable_by(&self, number: u32) -> bool {
        self.home == SETTLED || self.home == number
    }

    #[cold]
    fn move_to(&mut self, number: u32) {
        if self.home != SETTLED {
            settle(&mut self.value, Empties::Ours);
        }
        self.home = number;
    }
}

impl<T: Resident> Drop for Homed<T> {
    fn drop(&mut self) {
        self.take();
    }
}

#[cfg(test)]
mod tests;
