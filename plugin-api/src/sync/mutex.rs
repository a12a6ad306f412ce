//! The lock with one holder: how it is taken and given up.

use std::fmt;
use std::sync::PoisonError;

use super::home::Homed;
use super::{Mutex, at_once};
use crate::resident::Resident;

/// The value of a [`Mutex`], which is unlocked by its drop.
#[must_use = "the lock is given up at once"]
pub struct MutexGuard<'m, T: Resident>(pub(super) std::sync::MutexGuard<'m, Homed<T>>);

impl<T: Resident> Mutex<T> {
    /// Unlocked.
    pub const fn new(value: T) -> Mutex<T> {
        Mutex(std::sync::Mutex::new(Homed::new(value)))
    }

    /// Waits until nobody holds it.
    #[inline]
    pub fn lock(&self) -> MutexGuard<'_, T> {
        MutexGuard::taken(self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes it if nobody holds it.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        at_once(self.0.try_lock()).map(MutexGuard::taken)
    }

    /// The value; nobody can hold the lock.
    pub fn get_mut(&mut self) -> &mut T {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner).get_mut()
    }

    /// The value, without its lock.
    pub fn into_inner(self) -> T {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner).into_value()
    }
}

impl<'m, T: Resident> MutexGuard<'m, T> {
    /// Of a lock that has just been taken.
    #[inline]
    pub(super) fn taken(mut held: std::sync::MutexGuard<'m, Homed<T>>) -> MutexGuard<'m, T> {
        held.take();
        MutexGuard(held)
    }
}

shows! { MutexGuard: also mutably }

impl<T: Resident + fmt::Debug> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.try_lock() {
            Some(guard) => f.debug_struct("Mutex").field("data", &*guard).finish_non_exhaustive(),
            None => f.write_str("Mutex { <locked> }"),
        }
    }
}
