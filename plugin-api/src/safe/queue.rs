//! A durable queue, kept in the safe itself.
//!
//! # Layout
//!
//! A job is one entry. Its key says when it is due next, so the first key of the queue is the next job, and
//! claiming a job is moving its entry to a later due time by compare-and-set: a worker that dies loses its
//! claim by the clock alone, and nothing has to be swept up.
//!
//! ```text
//! ("\u{1}queue", name, due in ms, id)   ->  attempts (4) | encoding (1) | the job's bytes
//! ("\u{1}dead", name, id)               ->  the same
//! ```
//!
//! # Invariants
//!
//! - A job is in the queue, claimed by at most one holder at a time, until it is acknowledged or dead.
//! - Whoever lost a claim cannot acknowledge it: every step checks the version of the entry.

mod claim;
mod claims;

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

pub use self::claim::{Claim, DeadJob};
pub use self::claims::Claims;
#[cfg(feature = "serde")]
use crate::abi::ENCODING_MESSAGEPACK;
use crate::abi::{ENCODING_BYTES, SAFE_FOR_EVER};
use crate::safe::atomic::Change;
use crate::safe::{Entry, Key, Outcome, Range, ReadError, Safe, ToKey, WriteError};

const LIVE: &str = "\u{1}queue";
const DEAD: &str = "\u{1}dead";
/// Bytes before the job's own.
const HEADER: usize = 5;
/// How many due jobs a claim looks at together.
const LOOK: u64 = 16;
/// How often a claim looks again after others were faster every time.
const ROUNDS: usize = 64;
/// A durable queue of jobs; from [`Safe::queue`](crate::safe::Safe::queue).
///
/// Jobs are claimed in the order in which they are due. A claim that is neither acknowledged nor given back
/// within its time becomes due again, so a job is done at least once, by one worker at a time. Hosts that share
/// a safe on a database server share its queues.
///
/// ```no_run
/// use plugin_api::prelude::*;
///
/// /// The order and the mail about it are one write.
/// fn order(req: &Request) -> Result<&'static str> {
///     let safe = req.safe();
///     let address = req.body_str()?.to_owned();
///     safe.atomic().put(("order", &address), &1).push(&safe.queue("mail"), &address).commit()?;
///     Ok("ordered")
/// }
///
/// /// Runs on a thread of the plugin's; ends when the plugin is reloaded.
/// fn work() {
///     for claim in safe::open().queue("mail").claims() {
///         let Ok(claim) = claim else { continue };
///         let sent = claim.value::<String>().map_err(Error::from).and_then(|address| send(&address));
///         let _ = match sent {
///             Ok(()) => claim.ack(),
///             Err(_) => claim.nack(),
///         };
///     }
/// }
/// # fn send(_: &str) -> Result<()> { Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Queue {
    safe: Safe,
    name: String,
    visible_after: Duration,
    max_attempts: u32,
    back_off: (Duration, Duration),
    delay: Duration,
}

impl Queue {
    pub(super) fn new(safe: Safe, name: &str) -> Queue {
        Queue {
            safe,
            name: name.to_owned(),
            visible_after: Duration::from_secs(30),
            max_attempts: 10,
            back_off: (Duration::from_secs(1), Duration::from_secs(3600)),
            delay: Duration::ZERO,
        }
    }

    /// How long a claim is good for; 30 s unless said otherwise.
    pub fn visible_after(self, time: Duration) -> Queue {
        Queue { visible_after: time.max(Duration::from_millis(1)), ..self }
    }

    /// How many claims a job is given before it is dead; 10 unless said otherwise.
    pub fn max_attempts(self, attempts: u32) -> Queue {
        Queue { max_attempts: attempts.max(1), ..self }
    }

    /// How long a job rests after it was given back: `first`, twice that, and so on up to `most`; from 1 s to an
    /// hour unless said otherwise.
    pub fn back_off(self, first: Duration, most: Duration) -> Queue {
        Queue { back_off: (first, most), ..self }
    }

    /// How long a job that is pushed is not due.
    pub fn delay(self, time: Duration) -> Queue {
        Queue { delay: time, ..self }
    }

    /// Puts a job into the queue; returns when it is on disk. With other changes:
    /// [`Atomic::push`](crate::safe::Atomic::push).
    ///
    /// # Errors
    ///
    /// [`WriteError`].
    #[cfg(feature = "serde")]
    pub fn push<T: serde::Serialize + ?Sized>(&self, value: &T) -> Result<(), WriteError> {
        self.safe.one(self.job(value)?).map(drop)
    }

    /// As [`push`](Queue::push), with bytes as they are.
    ///
    /// # Errors
    ///
    /// [`WriteError`].
    pub fn push_bytes(&self, bytes: &[u8]) -> Result<(), WriteError> {
        self.safe.one(self.encoded(ENCODING_BYTES, bytes)).map(drop)
    }

    /// The change that puts a job into the queue.
    #[cfg(feature = "serde")]
    pub(super) fn job<T: serde::Serialize + ?Sized>(&self, value: &T) -> Result<Change, WriteError> {
        let key = (LIVE, &*self.name).to_key().into_owned();
        Ok(self.encoded(ENCODING_MESSAGEPACK, &super::value::encode(&key, value)?))
    }

    fn encoded(&self, encoding: u32, bytes: &[u8]) -> Change {
        let key = self.live(after(self.delay), &new_id());
        Change::Put {
            key,
            encoding: ENCODING_BYTES,
            value: packed(0, encoding, bytes),
            expires_in_ms: SAFE_FOR_EVER,
        }
    }

    /// Claims the next job that is due; `None` if there is none.
    ///
    /// # Errors
    ///
    /// [`WriteError`].
    pub fn claim(&self) -> Result<Option<Claim>, WriteError> {
        for _ in 0..ROUNDS {
            let due =
                Range::prefix((LIVE, &*self.name)).until((LIVE, &*self.name, after(Duration::ZERO) + 1));
            let page = self.safe.list(&due.limit(LOOK))?;
            if page.entries.is_empty() {
                return Ok(None);
            }
            for entry in &page.entries {
                if let Some(claim) = self.take(entry)? {
                    return Ok(Some(claim));
                }
            }
        }
        Err(WriteError::Contended {
            message: format!("others were faster {ROUNDS} times at `{}`", self.name),
        })
    }

    /// Claims one job; `None`: somebody was faster, or it is dead now.
    fn take(&self, entry: &Entry) -> Result<Option<Claim>, WriteError> {
        let Some((attempts, encoding, bytes)) = unpacked(entry.bytes()) else {
            return Err(strange(entry.key()).into());
        };
        let Some((_, _, _, id)) = entry.key().parts::<(String, String, i64, String)>() else {
            return Err(strange(entry.key()).into());
        };
        let write = self.safe.atomic().check(entry).delete(entry.key());
        if attempts >= self.max_attempts {
            // Every attempt ran out of time.
            let _ = write.put_bytes((DEAD, &*self.name, &*id), entry.bytes()).commit()?;
            return Ok(None);
        }
        let key = self.live(after(self.visible_after), &id);
        let attempt = attempts + 1;
        match write.put_bytes(&key, packed(attempt, encoding, bytes)).commit()? {
            Outcome::Committed { version, .. } => Ok(Some(Claim {
                queue: self.clone(),
                key,
                version,
                id,
                attempt,
                encoding,
                bytes: bytes.to_vec(),
            })),
            Outcome::Conflict { .. } => Ok(None),
        }
    }

    /// Claims jobs as they become due, waiting for them. It ends when this code is no longer the current
    /// generation, so a thread that runs it needs no other signal.
    pub fn claims(&self) -> Claims {
        Claims::new(self.clone())
    }

    /// How many jobs there are, claimed ones included.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn len(&self) -> Result<u64, ReadError> {
        let mut count = 0;
        let mut next = Some(Range::prefix((LIVE, &*self.name)));
        while let Some(range) = next {
            // The keys alone: jobs may be large.
            let page = self.safe.keys(&range)?;
            count += page.entries.len() as u64;
            next = page.next;
        }
        Ok(count)
    }

    /// Whether there is no job.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn is_empty(&self) -> Result<bool, ReadError> {
        Ok(self.safe.keys(&Range::prefix((LIVE, &*self.name)).limit(1))?.entries.is_empty())
    }

    /// Jobs that failed too often, as many as one answer holds.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn dead(&self) -> Result<Vec<DeadJob>, ReadError> {
        let page = self.safe.list(&Range::prefix((DEAD, &*self.name)))?;
        let job = |entry: Entry| DeadJob { queue: self.clone(), entry };
        Ok(page.entries.into_iter().map(job).collect())
    }

    fn live(&self, due: i64, id: &str) -> Key {
        (LIVE, &*self.name, due, id).to_key().into_owned()
    }

    /// How long until the first job is due; `None`: there is none.
    fn first_due(&self) -> Result<Option<Duration>, ReadError> {
        let page = self.safe.keys(&Range::prefix((LIVE, &*self.name)).limit(1))?;
        let due = page.entries.first().and_then(|entry| entry.key().parts::<(String, String, i64, String)>());
        let left = |due: i64| Duration::from_millis(u64::try_from(due - after(Duration::ZERO)).unwrap_or(0));
        Ok(due.map(|(_, _, due, _)| left(due)))
    }
}

fn strange(key: &Key) -> ReadError {
    ReadError::Decode { message: format!("`{key}` lies in a queue and is no job") }
}

/// Milliseconds since 1970, so much from now.
fn after(time: Duration) -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.saturating_add(time).as_millis()).unwrap_or(i64::MAX)
}

/// Sorts by the time it was made, and is nobody else's.
fn new_id() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    // Seeded by the system for each state.
    let mut chance = RandomState::new().build_hasher();
    chance.write_u64(count);
    format!("{:016x}{count:08x}{:016x}", now.as_micros() as u64, chance.finish())
}

fn packed(attempts: u32, encoding: u32, bytes: &[u8]) -> Vec<u8> {
    let encoding = u8::try_from(encoding).unwrap_or(u8::MAX);
    [&attempts.to_le_bytes()[..], &[encoding], bytes].concat()
}

fn unpacked(packed: &[u8]) -> Option<(u32, u32, &[u8])> {
    let (header, bytes) = packed.split_first_chunk::<HEADER>()?;
    let [a, b, c, d, encoding] = *header;
    Some((u32::from_le_bytes([a, b, c, d]), encoding.into(), bytes))
}
