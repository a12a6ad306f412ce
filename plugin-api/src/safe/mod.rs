//! The safe: this plugin's own durable key-value store.
//!
//! A dict that outlives everything: a value that was put is on disk when `put` returns, and is there
//! after a reload, a restart, a crash. Every access is atomic. No other plugin can reach it, for there
//! is no name to reach it by: the host knows who asks.
//!
//! ```no_run
//! use plugin_api::prelude::*;
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize, Default)]
//! struct Visitor {
//!     name: String,
//!     #[serde(default)]
//!     visits: u32,
//! }
//!
//! fn visit(req: &Request) -> Result<String> {
//!     let id: String = req.param("id")?;
//!     let visitor = req.safe().update(("visitor", id), |visitor: Option<Visitor>| {
//!         let mut visitor = visitor.unwrap_or_default();
//!         visitor.visits += 1;
//!         Some(visitor)
//!     })?;
//!     Ok(format!("visit number {}", visitor.map_or(0, |visitor| visitor.visits)))
//! }
//! ```
//!
//! Values are MessagePack with the names of fields, so a type may gain a field (with `#[serde(default)]`)
//! or lose one, across a reload. What does not fit any more is [`ReadError::Decode`]; its bytes are
//! still there, by [`Safe::entry`]. What could not be read back as it was is not put ([`WriteError::Encode`] says why): a `Some`
//! that holds nothing, a key twice in a struct with `#[serde(flatten)]`, values nested more than a thousand deep.
//!
//! The calls block; a route that uses them must not be `inline`. Gated and relaxed writes do not block once
//! the safe is open, so an `inline` route may make them if `on_load` has touched the safe. What `on_load` puts
//! stays, also when the generation is refused in the end.
//!
//! # Limits
//!
//! A key has at most 1,024 bytes as it is encoded, a value 16 MiB, an atomic write 1,000 changes; what is larger is
//! [`WriteError`], and nothing of the write is kept. A page of [`Safe::list`] has at most 1,000 entries, and ends
//! earlier once its values make up 4 MiB. A write waits 30 s for its turn, at most.
//! [`Queue::len`] goes through the keys of all jobs, so it takes longer the more there are.
//!
//! # Invariants
//!
//! - `unsafe` is in `call.rs` only.

mod atomic;
pub mod block;
mod call;
mod deferred;
mod entry;
mod error;
mod key;
mod queue;
mod range;
#[cfg(test)]
mod tests;
#[cfg(feature = "serde")]
mod value;
mod watch;

use std::time::Duration;

pub use self::atomic::{Atomic, Outcome};
use self::atomic::{Change, milliseconds};
use self::call::Made;
pub use self::deferred::Deferred;
pub use self::entry::{Entry, Page};
pub use self::error::{ReadError, WriteError};
pub use self::key::{FromPart, FromParts, Key, KeyPart, ToKey};
pub use self::queue::{Claim, Claims, DeadJob, Queue};
pub use self::range::Range;
pub use self::watch::{Watch, Woken};
use crate::abi::{ENCODING_BYTES, HandleId, SAFE_FOR_EVER, SAFE_GATED, SAFE_RELAXED};

/// How often [`Safe::update`] tries before it says that it was overtaken.
#[cfg(feature = "serde")]
const UPDATES: usize = 1000;

/// The plugin's own safe, or one that it shares. Costs nothing to copy; copies are the same store.
#[derive(Clone, Copy, Debug)]
pub struct Safe {
    /// [`HandleId::NONE`]: the plugin's own.
    handle: HandleId,
    /// Of what is put through this value.
    expires_in_ms: u64,
}

/// The plugin's own safe.
pub fn open() -> Safe {
    Safe { handle: HandleId::NONE, expires_in_ms: SAFE_FOR_EVER }
}

/// A safe that plugins share, if the operator has granted it to this one.
///
/// ```toml
/// [safe.shared]
/// rates = ["billing", "shop"]
/// ```
///
/// # Errors
///
/// [`ReadError::Denied`] where `host.toml` does not say so; the others as for reading.
pub fn open_shared(name: &str) -> Result<Safe, ReadError> {
    Ok(Safe { handle: call::open_shared(name)?, expires_in_ms: SAFE_FOR_EVER })
}

impl Safe {
    /// The same safe; what is put through it ceases to be after this time, to the millisecond.
    ///
    /// ```no_run
    /// # use plugin_api::safe;
    /// # use std::time::Duration;
    /// # fn f() -> Result<(), safe::WriteError> {
    /// safe::open().expires_in(Duration::from_secs(60)).put("token", "0x2a")?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn expires_in(self, time: Duration) -> Safe {
        Safe { expires_in_ms: milliseconds(time), ..self }
    }

    /// The value of a key.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    #[cfg(feature = "serde")]
    pub fn get<T: serde::de::DeserializeOwned>(&self, key: impl ToKey) -> Result<Option<T>, ReadError> {
        let key = key.to_key();
        match entry::read_value(call::get_one(self.handle, &key, true)?)? {
            Some((encoding, bytes)) => value::decode(&key, encoding, &bytes).map(Some),
            None => Ok(None),
        }
    }

    /// The values of several keys, as one moment had them.
    ///
    /// # Errors
    ///
    /// [`ReadError`]: also for one of them.
    #[cfg(feature = "serde")]
    pub fn get_many<T: serde::de::DeserializeOwned, K: ToKey>(
        &self,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<Vec<Option<T>>, ReadError> {
        self.entries(keys)?.into_iter().map(|entry| entry.map(|entry| entry.value()).transpose()).collect()
    }

    /// The bytes of a key, however they were put.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn get_bytes(&self, key: impl ToKey) -> Result<Option<Vec<u8>>, ReadError> {
        let block = call::get_one(self.handle, &key.to_key(), true)?;
        Ok(entry::read_value(block)?.map(|(_, bytes)| bytes))
    }

    /// The entry of a key: bytes, version, expiry.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn entry(&self, key: impl ToKey) -> Result<Option<Entry>, ReadError> {
        let key = key.to_key().into_owned();
        let block = call::get_one(self.handle, &key, true)?;
        entry::read_entry(key, &block)
    }

    /// The entries of several keys, as one moment had them.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn entries<K: ToKey>(
        &self,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<Vec<Option<Entry>>, ReadError> {
        let keys: Vec<Key> = keys.into_iter().map(|key| key.to_key().into_owned()).collect();
        entry::read_keys(&keys, &call::get(self.handle, &keys, true)?)
    }

    /// Whether there is an entry of this key.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn contains(&self, key: impl ToKey) -> Result<bool, ReadError> {
        Ok(entry::read_value(call::get_one(self.handle, &key.to_key(), false)?)?.is_some())
    }

    /// How many entries there are.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn len(&self) -> Result<u64, ReadError> {
        Ok(call::len(self.handle)?)
    }

    /// Whether there is no entry at all.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn is_empty(&self) -> Result<bool, ReadError> {
        Ok(self.len()? == 0)
    }

    /// Entries in the order of their keys: as many as the range's limit and the host's allow.
    ///
    /// ```no_run
    /// # use plugin_api::safe::{self, Range};
    /// # fn f() -> Result<(), safe::ReadError> {
    /// let mut next = Some(Range::prefix("user:"));
    /// while let Some(range) = next {
    ///     let page = safe::open().list(&range)?;
    ///     for entry in &page.entries {
    ///         println!("{}", entry.key());
    ///     }
    ///     next = page.next;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn list(&self, range: &Range) -> Result<Page, ReadError> {
        entry::read_page(range, &call::list(self.handle, range, true)?)
    }

    /// As [`list`](Safe::list), without the values.
    pub(super) fn keys(&self, range: &Range) -> Result<Page, ReadError> {
        entry::read_page(range, &call::list(self.handle, range, false)?)
    }

    /// Puts a value under a key, whatever was there; returns its version, once it is on disk.
    ///
    /// # Errors
    ///
    /// [`WriteError`].
    #[cfg(feature = "serde")]
    pub fn put<T: serde::Serialize + ?Sized>(&self, key: impl ToKey, value: &T) -> Result<u64, WriteError> {
        let key = key.to_key().into_owned();
        let value = value::encode(&key, value)?;
        self.put_encoded(key, crate::abi::ENCODING_MESSAGEPACK, value)
    }

    /// As [`put`](Safe::put), with bytes as they are.
    ///
    /// # Errors
    ///
    /// [`WriteError`].
    pub fn put_bytes(&self, key: impl ToKey, value: impl Into<Vec<u8>>) -> Result<u64, WriteError> {
        self.put_encoded(key.to_key().into_owned(), ENCODING_BYTES, value.into())
    }

    fn put_encoded(&self, key: Key, encoding: u32, value: Vec<u8>) -> Result<u64, WriteError> {
        let change = Change::Put { key, encoding, value, expires_in_ms: self.expires_in_ms };
        Ok(self.one(change)?.0)
    }

    /// Removes an entry; tells whether there was one.
    ///
    /// # Errors
    ///
    /// [`WriteError`].
    pub fn delete(&self, key: impl ToKey) -> Result<bool, WriteError> {
        Ok(self.one(Change::Delete { key: key.to_key().into_owned() })?.1 != 0)
    }

    /// Adds to an integer and returns the sum; where there is no entry, adds to 0.
    ///
    /// An expiry ([`expires_in`](Safe::expires_in)) counts from when the entry is made; later additions
    /// keep it.
    ///
    /// # Errors
    ///
    /// [`WriteError`].
    pub fn incr(&self, key: impl ToKey, delta: i64) -> Result<i64, WriteError> {
        self.incr_from(key, delta, 0)
    }

    /// As [`incr`](Safe::incr); where there is no entry, adds to `initial`.
    ///
    /// # Errors
    ///
    /// [`WriteError`].
    pub fn incr_from(&self, key: impl ToKey, delta: i64, initial: i64) -> Result<i64, WriteError> {
        let key = key.to_key().into_owned();
        Ok(self.one(Change::Add { key, delta, initial, expires_in_ms: self.expires_in_ms })?.1)
    }

    /// Replaces the value of a key by what `change` makes of it, whoever else is at it; returns the new one.
    ///
    /// `change` gets `None` where there is no entry, and deletes the entry by returning `None`. It runs
    /// again when somebody was faster, so it should do nothing but compute. The entry's expiry becomes
    /// that of this value, which is none unless [`expires_in`](Safe::expires_in) says otherwise.
    ///
    /// # Errors
    ///
    /// [`WriteError`]; [`Contended`](WriteError::Contended) after a thousand attempts.
    #[cfg(feature = "serde")]
    pub fn update<T: serde::Serialize + serde::de::DeserializeOwned>(
        &self,
        key: impl ToKey,
        mut change: impl FnMut(Option<T>) -> Option<T>,
    ) -> Result<Option<T>, WriteError> {
        let key = key.to_key().into_owned();
        for _ in 0..UPDATES {
            let entry = self.entry(&key)?;
            let version = entry.as_ref().map_or(0, Entry::version);
            let value = change(entry.map(|entry| entry.value()).transpose()?);
            let write = self.atomic().check_version(&key, version);
            let write = match &value {
                Some(value) => write.put(&key, value),
                None => write.delete(&key),
            };
            if write.commit()?.is_committed() {
                return Ok(value);
            }
        }
        Err(WriteError::Contended { message: format!("`{key}` was changed by others {UPDATES} times") })
    }

    /// Begins a write of several changes, with checks.
    pub fn atomic(&self) -> Atomic {
        Atomic::new(self.handle, self.expires_in_ms)
    }

    /// Writes that this handler does not wait for, but its *response* does: it is sent when they are on disk,
    /// and is a failure (503, or 500 if nobody can know) if they are not.
    ///
    /// ```no_run
    /// # use plugin_api::prelude::*;
    /// fn visit(req: &Request) -> Result<&'static str> {
    ///     req.safe().gated().incr("visits", 1)?;
    ///     Ok("counted")   // The client reads this once the count is on disk.
    /// }
    /// ```
    ///
    /// No worker thread waits meanwhile, so few threads serve many writers. Until it is on disk nobody sees the
    /// change, this handler included. Outside of a request the call itself waits.
    pub fn gated(&self) -> Deferred {
        Deferred::new(*self, SAFE_GATED)
    }

    /// Writes that nobody waits for. They are on disk soon, in order; a crash may lose the last of them.
    ///
    /// [`flush`](Safe::flush) waits for them.
    pub fn relaxed(&self) -> Deferred {
        Deferred::new(*self, SAFE_RELAXED)
    }

    /// Returns when everything that this plugin has written so far is on disk.
    ///
    /// # Errors
    ///
    /// The first failure of a [`relaxed`](Safe::relaxed) write since the last `flush`; the others may be on disk.
    pub fn flush(&self) -> Result<(), WriteError> {
        Ok(call::settle(self.handle)?)
    }

    /// Watches one key.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn watch(&self, key: impl ToKey) -> Result<Watch, ReadError> {
        let key = key.to_key().into_owned();
        let mut end = key.as_bytes().to_vec();
        end.push(0);
        Watch::new(self.handle, &Range { end, ..Range::all().from(key) })
    }

    /// Watches all keys that begin so.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn watch_prefix(&self, prefix: impl ToKey) -> Result<Watch, ReadError> {
        Watch::new(self.handle, &Range::prefix(prefix))
    }

    /// The durable queue of a name.
    pub fn queue(&self, name: &str) -> Queue {
        Queue::new(Safe { expires_in_ms: SAFE_FOR_EVER, ..*self }, name)
    }

    /// Makes one change without a check; its version and result.
    fn one(&self, change: Change) -> Result<(u64, i64), WriteError> {
        match call::commit(self.handle, &[], &[change])? {
            Made::Done(version, results) => Ok((version, results.first().copied().unwrap_or_default())),
            Made::Conflict(_) => {
                Err(WriteError::Host { message: "the host names a check that was not made".to_owned() })
            }
        }
    }
}
