//! The block: how entries of the safe cross the boundary.
//!
//! Owns the format, its encoder [`head`] (the host uses it) and its decoder [`Reader`]. Does not decode
//! values; that is `entry.rs`.
//!
//! # Format
//!
//! A sequence of items, each begun by a mark of one byte. Numbers are little-endian.
//!
//! | mark | means | what follows |
//! |---|---|---|
//! | 0 | there is no entry of this key | nothing |
//! | 1 | an entry | `u8` encoding, `u64` version, `u64` expiry in ms since 1970 (0: none), `u32` length of the key, `u32` length of the value, key, value |
//! | 2 | the list ends here, and the range goes on | nothing |
//! | 3 | the list and the range end here | nothing |
//!
//! An answer to `get` has one item of mark 0 or 1 per key, its key left out; an answer to `list` has
//! items of mark 1 and a last one of mark 2 or 3.
//!
//! # Invariants
//!
//! - The decoder never reads outside of the block, whatever the bytes say: wrong bytes are an error.

/// There is no entry of this key.
pub const ABSENT: u8 = 0;
/// An entry follows.
pub const ENTRY: u8 = 1;
/// The list ends and the range goes on.
pub const MORE: u8 = 2;
/// The list and the range end.
pub const END: u8 = 3;

/// Length of what comes before an entry's key, its mark included.
pub const HEAD: usize = 26;

/// What comes before an entry's key and value. `None`: one of them is longer than 4 GiB.
pub fn head(encoding: u8, version: u64, expires_at: u64, key: usize, value: usize) -> Option<[u8; HEAD]> {
    let mut head = [0; HEAD];
    head[0] = ENTRY;
    head[1] = encoding;
    head[2..10].copy_from_slice(&version.to_le_bytes());
    head[10..18].copy_from_slice(&expires_at.to_le_bytes());
    head[18..22].copy_from_slice(&u32::try_from(key).ok()?.to_le_bytes());
    head[22..26].copy_from_slice(&u32::try_from(value).ok()?.to_le_bytes());
    Some(head)
}

/// An item of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item<'a> {
    /// There is no entry of this key.
    Absent,
    /// An entry.
    Entry {
        /// How the value is encoded.
        encoding: u8,
        /// The version.
        version: u64,
        /// Milliseconds since 1970; 0: none.
        expires_at: u64,
        /// The key; empty in an answer to `get`.
        key: &'a [u8],
        /// The value.
        value: &'a [u8],
    },
    /// The end of a list; tells whether the range goes on.
    End {
        /// Whether it does.
        has_more: bool,
    },
}

/// Reads a block, item by item.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// A reader at the start of a block.
    pub fn new(block: &'a [u8]) -> Reader<'a> {
        Reader(block)
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    fn bytes(&mut self, len: u32) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(usize::try_from(len).ok()?)?;
        self.0 = rest;
        Some(taken)
    }

    /// The next item; `None` at the end of the block or where it is not one.
    pub fn item(&mut self) -> Option<Item<'a>> {
        match self.take()? {
            [ABSENT] => Some(Item::Absent),
            [MORE] => Some(Item::End { has_more: true }),
            [END] => Some(Item::End { has_more: false }),
            [ENTRY] => {
                let [encoding] = self.take()?;
                let version = u64::from_le_bytes(self.take()?);
                let expires_at = u64::from_le_bytes(self.take()?);
                let (key, value) = (u32::from_le_bytes(self.take()?), u32::from_le_bytes(self.take()?));
                Some(Item::Entry {
                    encoding,
                    version,
                    expires_at,
                    key: self.bytes(key)?,
                    value: self.bytes(value)?,
                })
            }
            _ => None,
        }
    }
}
