//! Values from before an upgrade that dropped something: kept for a time, so that going back brings them back.
//!
//! Owns the copies, how many there are and for how long. Does not own how a copy is made, nor when it is put in place.
//!
//! # Invariants
//!
//! - One of a key, at most [`MOST`] in all, none older than [`KEPT_FOR`]: a thread lets go of them, while there are any.
//! - A value is dropped without the lock.

use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

use super::data::{DataType, Tenure};
use super::{Author, Key, unix_ms};

/// How long such a value is kept.
const KEPT_FOR: Duration = Duration::from_secs(3600);
/// How many are kept.
const MOST: usize = 16;
/// How often it is looked for those that have been kept long enough.
const LOOK: Duration = Duration::from_secs(30);

/// A value from before an upgrade.
#[derive(Clone, Debug)]
pub(super) struct KeptValue {
    pub(super) key: Key,
    pub(super) value: Arc<Tenure>,
    pub(super) ty: DataType,
    /// Whose layout it has.
    pub(super) of: Author,
    /// What the upgrade dropped.
    pub(super) lost: Vec<String>,
    at: SystemTime,
    until: Instant,
}

/// Such a value as the faces show it.
#[derive(Clone, Debug, serde::Serialize)]
pub struct KeptInfo {
    /// Whose layout it has, such as `shop generation 3`.
    pub of: String,
    /// When it was the value last, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// For how long it is still kept, in milliseconds.
    pub for_ms: u64,
    /// What the upgrade dropped, such as `Item.colour: String`.
    pub lost: Vec<String>,
}

/// All of them, the oldest first.
#[derive(Debug, Default)]
pub(super) struct KeptValues {
    list: Mutex<Vec<KeptValue>>,
}

impl KeptValues {
    /// Keeps a value, in the place of an earlier one of its key.
    pub(super) fn add(
        self: &Arc<Self>,
        key: &Key,
        (value, ty): (Arc<Tenure>, DataType),
        of: Author,
        lost: Vec<String>,
    ) {
        let kept = KeptValue {
            key: key.clone(),
            value,
            ty,
            of,
            lost,
            at: SystemTime::now(),
            until: Instant::now() + KEPT_FOR,
        };
        let (over, is_first) = {
            let mut list = self.list.lock();
            let is_first = list.is_empty();
            let mut over: Vec<_> = list.extract_if(.., |known| known.key == *key).collect();
            if list.len() >= MOST {
                over.push(list.remove(0));
            }
            list.push(kept);
            (over, is_first)
        };
        drop(over);
        if is_first {
            let watched = Arc::downgrade(self);
            let thread = thread::Builder::new().name("kept values".to_owned());
            if let Err(error) = thread.spawn(move || let_go_in_time(&watched)) {
                tracing::warn!(
                    "no thread that lets go of kept values, which stay until others come: {error}"
                );
            }
        }
    }

    /// The value of a key that is laid out as `ty`.
    pub(super) fn of(&self, key: &Key, ty: &DataType) -> Option<KeptValue> {
        let now = Instant::now();
        let list = self.list.lock();
        list.iter().find(|kept| kept.key == *key && kept.until > now && kept.ty.is_same(ty)).cloned()
    }

    /// Lets go of what is kept of a key.
    pub(super) fn forget(&self, key: &Key) {
        let over: Vec<_> = self.list.lock().extract_if(.., |kept| kept.key == *key).collect();
        drop(over);
    }

    /// Lets go of everything.
    pub(super) fn clear(&self) {
        let all = std::mem::take(&mut *self.list.lock());
        drop(all);
    }

    /// What is kept of a key, for faces.
    pub(super) fn info(&self, key: &Key) -> Option<KeptInfo> {
        let list = self.list.lock();
        let kept = list.iter().find(|kept| kept.key == *key)?;
        let left = kept.until.saturating_duration_since(Instant::now());
        Some(KeptInfo {
            of: kept.of.to_string(),
            at_ms: unix_ms(kept.at),
            for_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
            lost: kept.lost.clone(),
        })
    }

    /// Lets go of those that have been kept long enough; false if there are none left.
    fn let_go(&self, now: Instant) -> bool {
        let (over, is_left) = {
            let mut list = self.list.lock();
            let over: Vec<_> = list.extract_if(.., |kept| kept.until <= now).collect();
            (over, !list.is_empty())
        };
        drop(over);
        is_left
    }
}

/// The thread's loop: ends with the last value.
fn let_go_in_time(values: &Weak<KeptValues>) {
    loop {
        thread::sleep(LOOK);
        match values.upgrade() {
            Some(values) if values.let_go(Instant::now()) => {}
            _ => return,
        }
    }
}
