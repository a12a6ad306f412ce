//! An entry of the safe, and pages of them.

use std::time::{Duration, SystemTime};

use crate::safe::block::{HEAD, Item, Reader};
use crate::safe::{Key, Range, ReadError};

/// What lies under a key: the value's bytes, its version, its expiry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    key: Key,
    version: u64,
    /// Milliseconds since 1970; 0: none.
    expires_at: u64,
    encoding: u32,
    bytes: Vec<u8>,
}

impl Entry {
    /// The key.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Which write made it: greater than the version of every earlier write, for
    /// [`Atomic::check`](crate::safe::Atomic::check).
    pub fn version(&self) -> u64 {
        self.version
    }

    /// When it ceases to be, to the millisecond.
    pub fn expires_at(&self) -> Option<SystemTime> {
        (self.expires_at != 0).then(|| SystemTime::UNIX_EPOCH + Duration::from_millis(self.expires_at))
    }

    /// The bytes as they were put, or the encoded value.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes, given away.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// The value.
    ///
    /// # Errors
    ///
    /// [`ReadError::Decode`] if it does not fit `T`, or was put as bytes.
    #[cfg(feature = "serde")]
    pub fn value<T: serde::de::DeserializeOwned>(&self) -> Result<T, ReadError> {
        crate::safe::value::decode(&self.key, self.encoding, &self.bytes)
    }

    fn new(key: Key, item: Item<'_>) -> Option<Entry> {
        let Item::Entry { encoding, version, expires_at, value, .. } = item else { return None };
        Some(Entry { key, version, expires_at, encoding: encoding.into(), bytes: value.to_vec() })
    }
}

/// Entries in order, and where the next ones begin.
#[derive(Clone, Debug)]
pub struct Page {
    /// The entries.
    pub entries: Vec<Entry>,
    /// What is left of the range; `None`: nothing.
    pub next: Option<Range>,
}

/// The one entry of an answer: its encoding and its bytes, which are those of the block.
pub(super) fn read_value(mut block: Vec<u8>) -> Result<Option<(u32, Vec<u8>)>, ReadError> {
    match Reader::new(&block).item() {
        Some(Item::Absent) => Ok(None),
        Some(Item::Entry { encoding, key: [], value, .. }) => {
            let len = value.len();
            block.truncate(HEAD + len);
            block.drain(..HEAD);
            Ok(Some((encoding.into(), block)))
        }
        Some(Item::Entry { .. } | Item::End { .. }) | None => Err(malformed()),
    }
}

/// The entry of a key, as the host wrote it.
pub(super) fn read_entry(key: Key, block: &[u8]) -> Result<Option<Entry>, ReadError> {
    match Reader::new(block).item() {
        Some(Item::Absent) => Ok(None),
        Some(item @ Item::Entry { .. }) => Ok(Entry::new(key, item)),
        Some(Item::End { .. }) | None => Err(malformed()),
    }
}

/// The entries of `keys`, as the host wrote them.
pub(super) fn read_keys(keys: &[Key], block: &[u8]) -> Result<Vec<Option<Entry>>, ReadError> {
    let mut reader = Reader::new(block);
    let mut entries = Vec::with_capacity(keys.len());
    for key in keys {
        match reader.item() {
            Some(Item::Absent) => entries.push(None),
            Some(item @ Item::Entry { .. }) => entries.push(Entry::new(key.clone(), item)),
            Some(Item::End { .. }) | None => return Err(malformed()),
        }
    }
    Ok(entries)
}

/// A page of `range`, as the host wrote it.
pub(super) fn read_page(range: &Range, block: &[u8]) -> Result<Page, ReadError> {
    let mut reader = Reader::new(block);
    let mut entries = Vec::new();
    loop {
        match reader.item() {
            Some(item @ Item::Entry { key, .. }) => entries.extend(Entry::new(Key::from_bytes(key), item)),
            Some(Item::End { has_more }) => {
                let last: Option<&Entry> = entries.last();
                let next = last.filter(|_| has_more).map(|last| range.clone().after(&last.key));
                return Ok(Page { entries, next });
            }
            Some(Item::Absent) | None => return Err(malformed()),
        }
    }
}

fn malformed() -> ReadError {
    ReadError::Host { message: "the host's answer has another form than this plugin knows".to_owned() }
}
