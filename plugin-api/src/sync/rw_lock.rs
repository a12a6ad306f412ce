//! The lock with many readers or one writer: how it is taken and given up.

use std::fmt;
use std::sync::PoisonError;

use super::home::Homed;
use super::{RwLock, at_once};
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
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner).get_mut()
    }

    /// The value, without its lock.
    pub fn into_inner(self) -> T {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner).into_value()
    }

    #[cold]
    fn settle_and_read(&self) -> RwLockReadGuard<'_, T> {
        RwLockReadGuard::settled(self.0.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads if that is possible at once.
    fn try_read(&self) -> Option<RwLockReadGuard<'_, T>> {
        let held = at_once(self.0.try_read())?;
        if held.is_readable() {
            return Some(RwLockReadGuard(held));
        }
        drop(held);
        at_once(self.0.try_write()).map(RwLockReadGuard::settled)
    }
}

impl<'l, T: Resident> RwLockReadGuard<'l, T> {
    /// Of a lock that has just been taken by a writer, who reads on.
    fn settled(mut held: std::sync::RwLockWriteGuard<'l, Homed<T>>) -> RwLockReadGuard<'l, T> {
        held.settle();
        // Without a gap in which somebody else could write.
        RwLockReadGuard(std::sync::RwLockWriteGuard::downgrade(held))
    }
}

shows! { RwLockReadGuard }
shows! { RwLockWriteGuard: also mutably }

impl<T: Resident + fmt::Debug> fmt::Debug for RwLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.try_read() {
            Some(guard) => f.debug_struct("RwLock").field("data", &*guard).finish_non_exhaustive(),
            None => f.write_str("RwLock { <locked> }"),
        }
    }
}
