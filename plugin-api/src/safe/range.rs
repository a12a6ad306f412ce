//! Which entries a list has.

use crate::safe::{Key, ToKey};

/// A range of keys in their order, and how much of it is wanted.
///
/// ```
/// use plugin_api::safe::{Range, ToKey};
///
/// let texts = Range::prefix("user:");
/// let tuples = Range::prefix(("user", 7));
/// let newest = Range::prefix("log:").reverse().limit(20);
/// # let _ = (texts, tuples, newest);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "pass it to `Safe::list`"]
pub struct Range {
    pub(super) start: Vec<u8>,
    pub(super) is_start_left_out: bool,
    pub(super) end: Vec<u8>,
    pub(super) is_reverse: bool,
    /// 0: the host's default.
    pub(super) limit: u64,
}

impl Range {
    /// All keys.
    pub fn all() -> Range {
        Range { start: Vec::new(), is_start_left_out: false, end: Vec::new(), is_reverse: false, limit: 0 }
    }

    /// All keys that begin with these bytes: with this text, or with these parts of a tuple.
    pub fn prefix(prefix: impl ToKey) -> Range {
        let start = prefix.to_key().as_bytes().to_vec();
        // The least key that is greater than all of them.
        let mut end = start.clone();
        while let Some(last) = end.pop() {
            if last < u8::MAX {
                end.push(last + 1);
                break;
            }
        }
        Range { start, end, ..Range::all() }
    }

    /// From this key on, itself included.
    pub fn from(mut self, start: impl ToKey) -> Range {
        self.start = start.to_key().as_bytes().to_vec();
        self.is_start_left_out = false;
        self
    }

    /// Up to this key, itself left out.
    pub fn until(mut self, end: impl ToKey) -> Range {
        self.end = end.to_key().as_bytes().to_vec();
        self
    }

    /// At most so many entries; 0 means the host's own limit, which holds beside this one.
    pub fn limit(mut self, limit: u64) -> Range {
        self.limit = limit;
        self
    }

    /// From the last key to the first.
    pub fn reverse(mut self) -> Range {
        self.is_reverse = true;
        self
    }

    /// What follows `last` in the range: where the next page begins.
    pub fn after(mut self, last: &Key) -> Range {
        if self.is_reverse {
            self.end = last.as_bytes().to_vec();
        } else {
            self.start = last.as_bytes().to_vec();
            self.is_start_left_out = true;
        }
        self
    }
}
