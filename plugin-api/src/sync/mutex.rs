//! The lock with one holder: how it is taken and given up.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{PoisonError, TryLockError};

use super::Mutex;
use super::home::Homed;
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
        match self.0.try_lock() {
            Ok(held) => Some(MutexGuard::taken(held)),
            Err(TryLockError::Poisoned(poisoned)) => Some(MutexGuard::taken(poisoned.into_inner())),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// The value; nobody can hold the lock.
    pub fn get_mut(&mut self) -> &mut T {
        let homed = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        homed.take();
        homed.value_mut()
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

impl<T: Resident> Deref for MutexGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        self.0.value()
    }
}

impl<T: Resident> DerefMut for MutexGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        self.0.value_mut()
    }
}

impl<T: Resident + fmt::Debug> fmt::Debug for MutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: Resident + fmt::Display> fmt::Display for MutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: Resident + fmt::Debug> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.try_lock() {
            Some(guard) => f.debug_struct("Mutex").field("data", &*guard).finish_non_exhaustive(),
            None => f.write_str("Mutex { <locked> }"),
        }
    }
}
