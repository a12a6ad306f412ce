//! What a value is wrapped in on disk, so that wrong bytes are an error and never wrong data.
//!
//! ```text
//! checksum (8) | format (1) | encoding (1) | version (8) | expires at, ms (8) | the value's bytes
//! ```
//!
//! Numbers are little-endian. The checksum covers all that follows it and, as its seed, the key: a value
//! that turns up under another key is as wrong as one with a flipped bit.
//!
//! # Invariants
//!
//! - [`open`] returns bytes only after their checksum was verified.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// Length of what comes before the value's bytes.
pub(super) const HEADER: usize = 26;

/// The only format so far.
const FORMAT: u8 = 1;

/// An entry, borrowed from the page it lies on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryRef<'a> {
    /// Number of the write that made it; never 0, and greater than that of every earlier write.
    pub version: u64,
    /// Milliseconds since 1970 from which on the entry is not there; 0: never.
    pub expires_at: u64,
    /// How the author's types are encoded in `value`: a number of the boundary's, kept as it came.
    pub encoding: u8,
    /// The value's bytes.
    pub value: &'a [u8],
}

impl EntryRef<'_> {
    /// Whether the entry is there at `now`, in milliseconds since 1970.
    pub(super) fn is_alive(&self, now: u64) -> bool {
        self.expires_at == 0 || now < self.expires_at
    }
}

/// Wraps an entry that is to lie under `key`. `buffer` is overwritten.
pub(super) fn seal(key: &[u8], entry: EntryRef<'_>, buffer: &mut Vec<u8>) {
    buffer.clear();
    buffer.reserve(HEADER + entry.value.len());
    buffer.extend_from_slice(&[0; 8]);
    buffer.extend_from_slice(&[FORMAT, entry.encoding]);
    buffer.extend_from_slice(&entry.version.to_le_bytes());
    buffer.extend_from_slice(&entry.expires_at.to_le_bytes());
    buffer.extend_from_slice(entry.value);
    let checksum = xxh3_64_with_seed(&buffer[8..], xxh3_64(key));
    buffer[..8].copy_from_slice(&checksum.to_le_bytes());
}

/// Unwraps what lies under `key`; `None` if those are not the bytes that were written there.
pub(super) fn open<'a>(key: &[u8], bytes: &'a [u8]) -> Option<EntryRef<'a>> {
    let (checksum, covered) = bytes.split_first_chunk::<8>()?;
    if xxh3_64_with_seed(covered, xxh3_64(key)) != u64::from_le_bytes(*checksum) {
        return None;
    }
    let (&[format, encoding], rest) = covered.split_first_chunk::<2>()?;
    let (version, rest) = rest.split_first_chunk::<8>()?;
    let (expires_at, value) = rest.split_first_chunk::<8>()?;
    (format == FORMAT).then_some(EntryRef {
        version: u64::from_le_bytes(*version),
        expires_at: u64::from_le_bytes(*expires_at),
        encoding,
        value,
    })
}
