//! A job in somebody's hands, and one that failed too often.
//!
//! # Invariants
//!
//! - Every step checks the version of the job's entry, so whoever lost a claim changes nothing.

use std::time::Duration;

use super::{DEAD, Queue, after, new_id, packed, strange, unpacked};
#[cfg(feature = "serde")]
use crate::safe::ReadError;
use crate::safe::{Atomic, Entry, Key, Outcome, WriteError};

/// A job that is this holder's for a while.
///
/// Dropped without a word it becomes due again when its time is over.
#[derive(Debug)]
#[must_use = "acknowledge it, or give it back"]
pub struct Claim {
    pub(super) queue: Queue,
    pub(super) key: Key,
    pub(super) version: u64,
    pub(super) id: String,
    pub(super) attempt: u32,
    pub(super) encoding: u32,
    pub(super) bytes: Vec<u8>,
}

impl Claim {
    /// The job.
    ///
    /// # Errors
    ///
    /// [`ReadError::Decode`].
    #[cfg(feature = "serde")]
    pub fn value<T: serde::de::DeserializeOwned>(&self) -> Result<T, ReadError> {
        crate::safe::value::decode(&self.key, self.encoding, &self.bytes)
    }

    /// The job's bytes, or the encoded value.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Which attempt this is, from 1.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Names the job, the same for each of its attempts.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The work takes longer: the claim is good for so much time from now, be that more or less than was left.
    ///
    /// ```no_run
    /// # use plugin_api::prelude::*;
    /// # use std::time::Duration;
    /// # fn f(claim: &mut safe::Claim) -> Result<()> {
    /// // At each step of a long piece of work, so that nobody else begins with it.
    /// claim.extend(Duration::from_secs(60))?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`ack`](Claim::ack): a claim that is lost stays lost.
    pub fn extend(&mut self, time: Duration) -> Result<(), WriteError> {
        let key = self.queue.live(after(time.max(Duration::from_millis(1))), &self.id);
        let write = self.queue.safe.atomic().check_version(&self.key, self.version);
        if key == self.key {
            return self.settled(write).map(drop);
        }
        let bytes = packed(self.attempt, self.encoding, &self.bytes);
        let version = self.settled(write.delete(&self.key).put_bytes(&key, bytes))?;
        (self.key, self.version) = (key, version);
        Ok(())
    }

    /// The job is done: removes it.
    ///
    /// # Errors
    ///
    /// [`WriteError::Contended`] if the claim's time was over and somebody else has it.
    pub fn ack(self) -> Result<(), WriteError> {
        let write = self.queue.safe.atomic();
        self.ack_with(write)
    }

    /// The job is done: removes it together with other changes of the same safe, or not at all.
    ///
    /// # Errors
    ///
    /// As [`ack`](Claim::ack); also if another check of `write` does not hold.
    pub fn ack_with(self, write: Atomic) -> Result<(), WriteError> {
        let write = write.check_version(&self.key, self.version).delete(&self.key);
        self.settled(write).map(drop)
    }

    /// The job failed: it becomes due again after a rest, or is dead if this was its last attempt.
    ///
    /// # Errors
    ///
    /// As [`ack`](Claim::ack).
    pub fn nack(self) -> Result<(), WriteError> {
        let (first, most) = self.queue.back_off;
        let doubled = 1_u32.checked_shl(self.attempt.saturating_sub(1)).unwrap_or(u32::MAX);
        let rest = first.saturating_mul(doubled).min(most);
        let bytes = packed(self.attempt, self.encoding, &self.bytes);
        let write = self.queue.safe.atomic().check_version(&self.key, self.version).delete(&self.key);
        let write = if self.attempt >= self.queue.max_attempts {
            write.put_bytes((DEAD, &*self.queue.name, &*self.id), bytes)
        } else {
            let key = self.queue.live(after(rest), &self.id);
            if key == self.key {
                // The rest ends where the claim would: it stays as it is.
                return Ok(());
            }
            write.put_bytes(&key, bytes)
        };
        self.settled(write).map(drop)
    }

    /// Makes a step; returns the version of what it wrote.
    fn settled(&self, write: Atomic) -> Result<u64, WriteError> {
        match write.commit()? {
            Outcome::Committed { version, .. } => Ok(version),
            Outcome::Conflict { key } if key == self.key => {
                let words = format!("the claim of job {} was lost: its time was over", self.id);
                Err(WriteError::Contended { message: words })
            }
            Outcome::Conflict { key } => {
                Err(WriteError::Conflict { message: format!("`{key}` was changed") })
            }
        }
    }
}

/// A job that failed too often.
#[derive(Debug)]
pub struct DeadJob {
    pub(super) queue: Queue,
    pub(super) entry: Entry,
}

impl DeadJob {
    /// The job.
    ///
    /// # Errors
    ///
    /// [`ReadError::Decode`].
    #[cfg(feature = "serde")]
    pub fn value<T: serde::de::DeserializeOwned>(&self) -> Result<T, ReadError> {
        let (_, encoding, bytes) = unpacked(self.entry.bytes()).ok_or_else(|| strange(self.entry.key()))?;
        crate::safe::value::decode(self.entry.key(), encoding, bytes)
    }

    /// Names the job, the same for each of its attempts.
    pub fn id(&self) -> Option<String> {
        self.entry.key().parts::<(String, String, String)>().map(|(_, _, id)| id)
    }

    /// Removes it for good.
    ///
    /// # Errors
    ///
    /// [`WriteError`]; [`Contended`](WriteError::Contended) if somebody has revived or removed it already.
    pub fn delete(self) -> Result<(), WriteError> {
        match self.queue.safe.atomic().check(&self.entry).delete(self.entry.key()).commit()? {
            Outcome::Committed { .. } => Ok(()),
            Outcome::Conflict { .. } => Err(WriteError::Contended {
                message: "somebody has revived or removed the job already".to_owned(),
            }),
        }
    }

    /// Puts it back into the queue, as if it were new.
    ///
    /// # Errors
    ///
    /// [`WriteError`]; [`Contended`](WriteError::Contended) if somebody did so already.
    pub fn revive(self) -> Result<(), WriteError> {
        let (_, encoding, bytes) = unpacked(self.entry.bytes()).ok_or_else(|| strange(self.entry.key()))?;
        let key = self.queue.live(after(Duration::ZERO), &new_id());
        let write = self.queue.safe.atomic().check(&self.entry).delete(self.entry.key());
        match write.put_bytes(&key, packed(0, encoding, bytes)).commit()? {
            Outcome::Committed { .. } => Ok(()),
            Outcome::Conflict { .. } => {
                Err(WriteError::Contended { message: "somebody has revived the job already".to_owned() })
            }
        }
    }
}
