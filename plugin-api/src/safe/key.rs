//! Keys: text, or tuples whose order is that of their parts.
//!
//! # Encoding
//!
//! Text is its own UTF-8. A tuple is a zero byte and its parts, each of them begun by a byte that says
//! what it is and encoded so that comparing bytes compares parts: text and bytes with a zero escaped as
//! `00 FF` and ended by `00`, integers big-endian with their sign turned. A tuple sorts before all text,
//! and right before every longer tuple that begins with it.

use std::borrow::Cow;
use std::fmt;

const TUPLE: u8 = 0x00;
const BYTES: u8 = 0x01;
const TEXT: u8 = 0x02;
const INT: u8 = 0x10;
/// An unsigned integer that no `i64` holds.
const LARGE: u8 = 0x11;
const FALSE: u8 = 0x20;
const TRUE: u8 = 0x21;

/// A key, encoded. What a list's entries have; [`str`] and tuples become one by [`ToKey`].
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Vec<u8>);

impl Key {
    /// The key of these encoded bytes.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Key {
        Key(bytes.to_vec())
    }

    /// The encoded bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The text, if the key is one.
    pub fn as_str(&self) -> Option<&str> {
        if self.0.first() == Some(&TUPLE) { None } else { std::str::from_utf8(&self.0).ok() }
    }

    /// The parts, if the key is a tuple of these types.
    ///
    /// ```
    /// use plugin_api::safe::ToKey;
    ///
    /// let key = ("user", 7_u64).to_key().into_owned();
    /// assert_eq!(key.parts::<(String, u64)>(), Some(("user".to_owned(), 7)));
    /// assert_eq!(key.parts::<(u64, u64)>(), None);
    /// ```
    pub fn parts<T: FromParts>(&self) -> Option<T> {
        let (&TUPLE, rest) = self.0.split_first()? else { return None };
        T::from_parts(rest)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.0.escape_ascii())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.as_str() {
            Some(text) => f.write_str(text),
            None => write!(f, "{}", self.0.escape_ascii()),
        }
    }
}

/// What can be a key: text, or a tuple of up to four parts.
///
/// A text that begins with a zero byte becomes the tuple of that one text, for it would look like one.
pub trait ToKey {
    /// The key.
    fn to_key(&self) -> Cow<'_, Key>;
}

impl ToKey for Key {
    fn to_key(&self) -> Cow<'_, Key> {
        Cow::Borrowed(self)
    }
}

impl ToKey for str {
    fn to_key(&self) -> Cow<'_, Key> {
        if self.as_bytes().first() == Some(&TUPLE) {
            return Cow::Owned((self,).to_key().into_owned());
        }
        Cow::Owned(Key::from_bytes(self.as_bytes()))
    }
}

impl ToKey for String {
    fn to_key(&self) -> Cow<'_, Key> {
        self.as_str().to_key()
    }
}

impl<T: ToKey + ?Sized> ToKey for &T {
    fn to_key(&self) -> Cow<'_, Key> {
        (**self).to_key()
    }
}

/// A part of a tuple.
pub trait KeyPart {
    /// Appends the part, encoded.
    fn encode(&self, into: &mut Vec<u8>);
}

/// A part that can be read back.
pub trait FromPart: Sized {
    /// The part at the start of `bytes`, and the rest.
    fn decode(bytes: &[u8]) -> Option<(Self, &[u8])>;
}

/// Tuples of parts that can be read back.
pub trait FromParts: Sized {
    /// The tuple, if these are exactly its parts.
    fn from_parts(bytes: &[u8]) -> Option<Self>;
}

fn escape(tag: u8, bytes: &[u8], into: &mut Vec<u8>) {
    into.push(tag);
    for &byte in bytes {
        into.push(byte);
        if byte == 0 {
            into.push(0xff);
        }
    }
    into.push(0);
}

fn unescape(tag: u8, bytes: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut rest = bytes.strip_prefix(&[tag])?;
    let mut part = Vec::new();
    loop {
        match rest {
            [0, 0xff, tail @ ..] => {
                part.push(0);
                rest = tail;
            }
            [0, tail @ ..] => return Some((part, tail)),
            [byte, tail @ ..] => {
                part.push(*byte);
                rest = tail;
            }
            [] => return None,
        }
    }
}

impl KeyPart for str {
    fn encode(&self, into: &mut Vec<u8>) {
        escape(TEXT, self.as_bytes(), into);
    }
}

impl KeyPart for String {
    fn encode(&self, into: &mut Vec<u8>) {
        self.as_str().encode(into);
    }
}

impl FromPart for String {
    fn decode(bytes: &[u8]) -> Option<(String, &[u8])> {
        let (part, rest) = unescape(TEXT, bytes)?;
        Some((String::from_utf8(part).ok()?, rest))
    }
}

impl KeyPart for [u8] {
    fn encode(&self, into: &mut Vec<u8>) {
        escape(BYTES, self, into);
    }
}

impl KeyPart for Vec<u8> {
    fn encode(&self, into: &mut Vec<u8>) {
        self.as_slice().encode(into);
    }
}

impl FromPart for Vec<u8> {
    fn decode(bytes: &[u8]) -> Option<(Vec<u8>, &[u8])> {
        unescape(BYTES, bytes)
    }
}

impl<T: KeyPart + ?Sized> KeyPart for &T {
    fn encode(&self, into: &mut Vec<u8>) {
        (**self).encode(into);
    }
}

impl KeyPart for bool {
    fn encode(&self, into: &mut Vec<u8>) {
        into.push(if *self { TRUE } else { FALSE });
    }
}

impl FromPart for bool {
    fn decode(bytes: &[u8]) -> Option<(bool, &[u8])> {
        match bytes {
            [FALSE, rest @ ..] => Some((false, rest)),
            [TRUE, rest @ ..] => Some((true, rest)),
            _ => None,
        }
    }
}

/// Any of Rust's integers of up to 64 bits, in one order.
fn encode_integer(number: i128, into: &mut Vec<u8>) {
    if let Ok(number) = i64::try_from(number) {
        into.push(INT);
        into.extend_from_slice(&(number.cast_unsigned() ^ (1 << 63)).to_be_bytes());
    } else {
        into.push(LARGE);
        // What no `i64` holds is a `u64`: this is called with no other types.
        into.extend_from_slice(&u64::try_from(number).unwrap_or(u64::MAX).to_be_bytes());
    }
}

fn decode_integer(bytes: &[u8]) -> Option<(i128, &[u8])> {
    let (tag, rest) = bytes.split_first()?;
    let (number, rest) = rest.split_first_chunk()?;
    let number = u64::from_be_bytes(*number);
    match *tag {
        INT => Some((i128::from((number ^ (1 << 63)).cast_signed()), rest)),
        LARGE => Some((i128::from(number), rest)),
        _ => None,
    }
}

macro_rules! integers {
    ($($integer:ty),*) => {$(
        impl KeyPart for $integer {
            fn encode(&self, into: &mut Vec<u8>) {
                encode_integer(i128::from(*self), into);
            }
        }

        impl FromPart for $integer {
            fn decode(bytes: &[u8]) -> Option<($integer, &[u8])> {
                let (number, rest) = decode_integer(bytes)?;
                Some((number.try_into().ok()?, rest))
            }
        }
    )*};
}

integers!(i8, i16, i32, i64, u8, u16, u32, u64);

macro_rules! tuples {
    ($(($($part:ident $place:tt),*))*) => {$(
        impl<$($part: KeyPart),*> ToKey for ($($part,)*) {
            fn to_key(&self) -> Cow<'_, Key> {
                let mut bytes = vec![TUPLE];
                $(self.$place.encode(&mut bytes);)*
                Cow::Owned(Key(bytes))
            }
        }

        impl<$($part: FromPart),*> FromParts for ($($part,)*) {
            fn from_parts(bytes: &[u8]) -> Option<Self> {
                let mut rest = bytes;
                let parts = ($({
                    let (part, tail) = $part::decode(rest)?;
                    rest = tail;
                    part
                },)*);
                rest.is_empty().then_some(parts)
            }
        }
    )*};
}

tuples! { (A 0) (A 0, B 1) (A 0, B 1, C 2) (A 0, B 1, C 2, D 3) }
