//! The one value this room reads: an integer in MessagePack, which `add` changes in place.
//!
//! Written always as `int 64`, so that a counter does not change its length as it grows; read in every
//! form an encoder may choose.

/// The integer, if these bytes are exactly one that fits 64 signed bits.
pub(super) fn read(bytes: &[u8]) -> Option<i64> {
    let (&marker, rest) = bytes.split_first()?;
    match (marker, rest.len()) {
        (0x00..=0x7f, 0) => Some(i64::from(marker)),
        (0xe0..=0xff, 0) => Some(i64::from(marker.cast_signed())),
        (0xcc, 1) => Some(i64::from(rest[0])),
        (0xcd, 2) => Some(i64::from(u16::from_be_bytes(rest.try_into().ok()?))),
        (0xce, 4) => Some(i64::from(u32::from_be_bytes(rest.try_into().ok()?))),
        (0xcf, 8) => i64::try_from(u64::from_be_bytes(rest.try_into().ok()?)).ok(),
        (0xd0, 1) => Some(i64::from(rest[0].cast_signed())),
        (0xd1, 2) => Some(i64::from(i16::from_be_bytes(rest.try_into().ok()?))),
        (0xd2, 4) => Some(i64::from(i32::from_be_bytes(rest.try_into().ok()?))),
        (0xd3, 8) => Some(i64::from_be_bytes(rest.try_into().ok()?)),
        _ => None,
    }
}

/// The integer as MessagePack.
pub(super) fn write(number: i64) -> [u8; 9] {
    let mut bytes = [0xd3; 9];
    bytes[1..].copy_from_slice(&number.to_be_bytes());
    bytes
}
