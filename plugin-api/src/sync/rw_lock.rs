//! The lock with many readers or one writer: how it is taken and given up.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{PoisonError, TryLockError};

use super::RwLock;
use super::home::Homed;
use crate::resident::Resident;

/// The value of a [`RwLock`], for reading; given up by its drop.
#[must_use = "the lock is given up at once"]
pub struct RwLockReadGuard<'l, T: Resident>(std::sync::RwLockReadGuard<'l, Homed<T>>);

/// The value of a [`RwLock`], for writing; given up by its drop.
#[must_use = "the lock is given up at once"]
pub struct RwLockWriteGuard<'l, T: Resident>(std::sync::RwLockWriteGuard<'l, Homed<T>>);

impl<T: Resident> RwLock<T> {
    /// Unlocked.
    pub const fn new(value: T) -> RwLock<T> {
        RwLock(std::sync::RwLock::new(Homed::new(value)))
    }

    /// Waits until nobody writes.
    #[inline]
    pub fn read(&self) -> RwLockReadGuard<'_, T> {
        let held = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if held.is_readable() {
            return RwLockReadGuard(held);
        }
        drop(held);
        self.settle_and_read()
    }

    /// Waits until nobody reads or writes.
    #[inline]
    pub fn write(&self) -> RwLockWriteGuard<'_, T> {
        let mut held = self.0.write().unwrap_or_else(PoisonError::into_inner);
        held.take();
        RwLockWriteGuard(held)
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

    #[cold]
    fn settle_and_read(&self) -> RwLockReadGuard<'_, T> {
        let mut held = self.0.write().unwrap_or_else(PoisonError::into_inner);
        held.settle();
        // Without a gap in which somebody else could write.
        RwLockReadGuard(std::sync::RwLockWriteGuard::downgrade(held))
    }

    /// Reads if that is possible at once.
    fn try_read(&self) -> Option<RwLockReadGuard<'_, T>> {
        let held = match self.0.try_read() {
            Ok(held) => held,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        if held.is_readable() {
            return Some(RwLockReadGuard(held));
        }
        drop(held);
        let mut held = match self.0.try_write() {
            Ok(held) => held,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        held.settle();
        Some(RwLockReadGuard(std::sync::RwLockWriteGuard::downgrade(held)))
    }
}

impl<T: Resident> Deref for RwLockReadGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        self.0.value()
    }
}

impl<T: Resident> Deref for RwLockWriteGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        self.0.value()
    }
}

impl<T: Resident> DerefMut for RwLockWriteGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        self.0.value_mut()
    }
}

impl<T: Resident + fmt::Debug> fmt::Debug for RwLockReadGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: Resident + fmt::Debug> fmt::Debug for RwLockWriteGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: Resident + fmt::Debug> fmt::Debug for RwLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.try_read() {
            Some(guard) => f.debug_struct("RwLock").field("data", &*guard).finish_non_exhaustive(),
            None => f.write_str("RwLock { <locked> }"),
        }
    }
}
