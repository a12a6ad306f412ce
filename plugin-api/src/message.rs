//! MessagePack that reads back as what it was, or is not written.
//!
//! MessagePack has one word for nothing, and serde writes the value in a `Some` without a word of its own: `Some(None)` and
//! `Some(())` would be read as `None`. A struct with `#[serde(flatten)]` may write one field twice, and a number of 128 bits in
//! it is not found again. Values may be nested deeper than the reader goes. Each is refused when it is written, by a serializer
//! around that of `rmp_serde`.
//!
//! Owns what is refused. Does not own the format.
//!
//! # Invariants
//!
//! - What is accepted is written as `rmp_serde` does, but for numbers of 128 bits that fit in 64: those are written as such.

mod strict;
#[cfg(test)]
mod tests;

use serde::Serialize;
use serde::de::DeserializeOwned;

use self::strict::Strictly;

/// Appends a value.
///
/// # Errors
///
/// What serde or this file has against it, in words for its author.
pub(crate) fn pack<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<(), String> {
    rmp_serde::encode::write_named(out, &Strictly::new(value)).map_err(|error| error.to_string())
}

/// Reads a value.
///
/// # Errors
///
/// What serde has against it.
pub(crate) fn unpack<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    rmp_serde::from_slice(bytes).map_err(|error| error.to_string())
}
