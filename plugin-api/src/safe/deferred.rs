//! Writes whose caller goes on at once: gated and relaxed ones.

use crate::abi::ENCODING_BYTES;
#[cfg(feature = "serde")]
use crate::abi::ENCODING_MESSAGEPACK;
use crate::safe::atomic::Change;
use crate::safe::{Atomic, Key, Safe, ToKey, WriteError, call};

/// Writes that the caller does not wait for; from [`Safe::gated`] and [`Safe::relaxed`].
///
/// What they return is about the queue: whether the write was taken. So there are no versions and no sums.
#[derive(Clone, Copy, Debug)]
pub struct Deferred {
    safe: Safe,
    mode: u32,
}

impl Deferred {
    pub(super) fn new(safe: Safe, mode: u32) -> Deferred {
        Deferred { safe, mode }
    }

    /// Puts a value under a key, whatever was there.
    ///
    /// # Errors
    ///
    /// [`WriteError`], with nothing queued.
    #[cfg(feature = "serde")]
    pub fn put<T: serde::Serialize + ?Sized>(&self, key: impl ToKey, value: &T) -> Result<(), WriteError> {
        let key = key.to_key().into_owned();
        let value = super::value::encode(&key, value)?;
        self.put_encoded(key, ENCODING_MESSAGEPACK, value)
    }

    /// As [`put`](Deferred::put), with bytes as they are.
    ///
    /// # Errors
    ///
    /// [`WriteError`], with nothing queued.
    pub fn put_bytes(&self, key: impl ToKey, value: impl Into<Vec<u8>>) -> Result<(), WriteError> {
        self.put_encoded(key.to_key().into_owned(), ENCODING_BYTES, value.into())
    }

    fn put_encoded(&self, key: Key, encoding: u32, value: Vec<u8>) -> Result<(), WriteError> {
        self.one(Change::Put { key, encoding, value, expires_in_ms: self.safe.expires_in_ms })
    }

    /// Removes an entry, if there is one.
    ///
    /// # Errors
    ///
    /// [`WriteError`], with nothing queued.
    pub fn delete(&self, key: impl ToKey) -> Result<(), WriteError> {
        self.one(Change::Delete { key: key.to_key().into_owned() })
    }

    /// Adds to an integer; where there is no entry, to 0.
    ///
    /// # Errors
    ///
    /// [`WriteError`], with nothing queued. What is no integer shows when the write is made.
    pub fn incr(&self, key: impl ToKey, delta: i64) -> Result<(), WriteError> {
        let key = key.to_key().into_owned();
        self.one(Change::Add { key, delta, initial: 0, expires_in_ms: self.safe.expires_in_ms })
    }

    /// Makes several changes together, of this same safe. A check that does not hold counts as a failure.
    ///
    /// # Errors
    ///
    /// [`WriteError`], with nothing queued.
    pub fn write(&self, write: Atomic) -> Result<(), WriteError> {
        if let Some(error) = write.failed {
            return Err(error);
        }
        Ok(call::submit(self.safe.handle, &write.checks, &write.changes, self.mode)?)
    }

    fn one(&self, change: Change) -> Result<(), WriteError> {
        Ok(call::submit(self.safe.handle, &[], &[change], self.mode)?)
    }
}
