//! Locks for data that outlives code: without poison, without statics.
//!
//! These are `std`'s own locks, which on Linux are a word in the value that the kernel waits on. Two copies
//! of `std` that lock the same word understand each other. (Locks that keep waiting threads in a table of
//! their own, such as parking_lot's, have one table per copy, and a wake-up in one never reaches the other.)
//!
//! A panic while a lock is held does not poison it: the next holder finds what the panicking one left.
//! A reload must not end with a value that nobody can ever use again.
//!
//! What they guard is [`Resident`], because a lock that changes hands between libraries sees to it that
//! nothing below it points into the former one. The first use by a library of another generation or plugin than the last
//! looks at every map that is nested in others for that; a map by itself costs nothing.
//!
//! ```
//! use plugin_api::sync::Mutex;
//!
//! let names = Mutex::new(vec!["ann".to_owned()]);
//! names.lock().push("bob".to_owned());
//! assert_eq!(names.lock().len(), 2);
//! ```
//!
//! # Invariants
//!
//! - The types that data consists of are defined in this very file: their paths are part of layouts.

/// Makes a guard of a lock show the value: for reading, and, where it says so, for changing.
macro_rules! shows {
    ($guard:ident: also mutably) => {
        shows! { $guard }

        impl<T: Resident> std::ops::DerefMut for $guard<'_, T> {
            #[inline]
            fn deref_mut(&mut self) -> &mut T {
                self.0.value_mut()
            }
        }
    };
    ($guard:ident) => {
        impl<T: Resident> std::ops::Deref for $guard<'_, T> {
            type Target = T;

            #[inline]
            fn deref(&self) -> &T {
                self.0.value()
            }
        }

        impl<T: Resident + fmt::Debug> fmt::Debug for $guard<'_, T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                (**self).fmt(f)
            }
        }

        impl<T: Resident + fmt::Display> fmt::Display for $guard<'_, T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                (**self).fmt(f)
            }
        }
    };
}

mod home;
mod mutex;
mod rw_lock;

use std::fmt;
use std::sync::{PoisonError, TryLockError, TryLockResult};
use std::time::Duration;

use self::home::Homed;
pub(crate) use self::home::is_here;
pub use self::mutex::MutexGuard;
pub use self::rw_lock::{RwLockReadGuard, RwLockWriteGuard};
use crate::resident::{Empties, Resident, settle};

/// One holder at a time.
///
/// It guards what is [`Resident`]. For a lock that stays within one generation, say in a `static`, there is
/// `std::sync::Mutex`.
#[derive(Default)]
#[repr(transparent)]
pub struct Mutex<T: Resident>(std::sync::Mutex<Homed<T>>);

/// Many readers or one writer at a time.
///
/// A thread that reads must not ask to read once more, itself or through what it calls: the second may wait for a
/// writer, who waits for the first. The first reader of another generation than the last writer's is
/// such a writer, for a moment.
#[derive(Default)]
#[repr(transparent)]
pub struct RwLock<T: Resident>(std::sync::RwLock<Homed<T>>);

/// What was taken without waiting, if it could be. A panic of an earlier holder does not count.
fn at_once<G>(tried: TryLockResult<G>) -> Option<G> {
    match tried {
        Ok(held) => Some(held),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

/// Written once.
#[derive(Default)]
#[repr(transparent)]
pub struct OnceCell<T>(std::sync::OnceLock<T>);

impl<T> OnceCell<T> {
    /// Empty.
    pub const fn new() -> OnceCell<T> {
        OnceCell(std::sync::OnceLock::new())
    }

    /// The value, if there is one.
    pub fn get(&self) -> Option<&T> {
        self.0.get()
    }

    /// The value, if there is one; nobody else can see the cell.
    pub fn get_mut(&mut self) -> Option<&mut T> {
        self.0.get_mut()
    }

    /// With a value that was in a cell before.
    pub(crate) fn moved(value: T) -> OnceCell<T> {
        OnceCell(std::sync::OnceLock::from(value))
    }
}

impl<T: Resident> OnceCell<T> {
    /// The value; made by `init` if there is none. Others wait meanwhile.
    pub fn get_or_init(&self, init: impl FnOnce() -> T) -> &T {
        self.0.get_or_init(|| {
            let mut value = init();
            // Others see it from now on without a lock.
            settle(&mut value, Empties::Nowhere);
            value
        })
    }

    /// Fills the cell.
    ///
    /// # Errors
    ///
    /// Gives `value` back if there is one already.
    pub fn set(&self, mut value: T) -> Result<(), T> {
        settle(&mut value, Empties::Nowhere);
        self.0.set(value)
    }
}

/// Lets threads wait for a change of what a [`Mutex`] guards.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct Condvar(std::sync::Condvar);

impl Condvar {
    /// Nobody waits.
    pub const fn new() -> Condvar {
        Condvar(std::sync::Condvar::new())
    }

    /// Gives the lock up, waits to be notified, and takes it again. May return early: look again.
    pub fn wait<'m, T: Resident>(&self, guard: MutexGuard<'m, T>) -> MutexGuard<'m, T> {
        MutexGuard::taken(self.0.wait(guard.0).unwrap_or_else(PoisonError::into_inner))
    }

    /// As [`wait`](Condvar::wait), up to `timeout`; says whether that is what ended it.
    pub fn wait_timeout<'m, T: Resident>(
        &self,
        guard: MutexGuard<'m, T>,
        timeout: Duration,
    ) -> (MutexGuard<'m, T>, bool) {
        let (held, ended) = self.0.wait_timeout(guard.0, timeout).unwrap_or_else(PoisonError::into_inner);
        (MutexGuard::taken(held), ended.timed_out())
    }

    /// Wakes one of those who wait.
    pub fn notify_one(&self) {
        self.0.notify_one();
    }

    /// Wakes all who wait.
    pub fn notify_all(&self) {
        self.0.notify_all();
    }
}

impl<T: fmt::Debug> fmt::Debug for OnceCell<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}
