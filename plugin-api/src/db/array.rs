//! Arrays: cells and parameters that hold several values.
//!
//! Owns their bytes, and the conversions from and to Rust's lists. Does not convert their elements; that is
//! `value.rs`.
//!
//! # Format, version 1
//!
//! All numbers are little-endian, nothing is padded: `u32` number of elements, `u32` 0; then 16 bytes for each
//! element, as a cell of a block (see `rows.rs`) whose offsets count from behind the last of them; then texts
//! and bytes. An element may be an array again, as the rows of a matrix are.
//!
//! # Invariants
//!
//! - An [`Array`] has been checked when it was made, all of it: reading its elements cannot fail.

use std::borrow::Cow;
use std::fmt;

use crate::db::rows::{ENTRY, MalformedBlock, decode, encode};
use crate::db::value::{Mismatch, Parameter, ParameterError, other_kind};
use crate::db::{FromValue, ToValue, Value};

/// Bytes before the first element.
const HEAD: usize = 8;
/// How deep arrays may lie in each other. PostgreSQL's limit is 6.
pub(super) const DEEPEST: usize = 8;

/// An array of a database, borrowed from its row.
///
/// Usually read as a `Vec`: `row.get::<Vec<i64>>("ids")?`.
#[derive(Clone, Copy, PartialEq)]
pub struct Array<'a> {
    bytes: &'a [u8],
    len: usize,
}

impl<'a> Array<'a> {
    /// Checks the bytes of an array and of all that lie in it.
    ///
    /// # Errors
    ///
    /// When they do not follow the format.
    pub fn parse(bytes: &'a [u8]) -> Result<Array<'a>, MalformedBlock> {
        Array::parse_at(bytes, DEEPEST).ok_or_else(|| MalformedBlock::new("an array"))
    }

    /// With leave for so many levels of arrays, this one among them.
    pub(super) fn parse_at(bytes: &'a [u8], levels: usize) -> Option<Array<'a>> {
        let levels = levels.checked_sub(1)?;
        let len = u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
        let heap = bytes.get(HEAD + len.checked_mul(ENTRY)?..)?;
        for index in 0..len {
            decode(bytes, HEAD + index * ENTRY, heap, levels)?;
        }
        Some(Array { bytes, len })
    }

    /// How many elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The element at `index`, from 0.
    pub fn get(&self, index: usize) -> Option<Value<'a>> {
        if index >= self.len {
            return None;
        }
        let heap = self.bytes.get(HEAD + self.len * ENTRY..)?;
        decode(self.bytes, HEAD + index * ENTRY, heap, DEEPEST)
    }

    /// The elements, in order. Those of a matrix are its rows.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Value<'a>> + use<'a> {
        let array = *self;
        (0..self.len).map(move |index| array.get(index).expect("`parse` has checked every element"))
    }

    /// The bytes, for the boundary.
    pub(crate) fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }
}

impl fmt::Debug for Array<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl fmt::Display for Array<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (index, value) in self.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{value}")?;
        }
        f.write_str("]")
    }
}

/// An array that owns its bytes, made element by element.
///
/// ```
/// use plugin_api::db::{ArrayBuf, Value};
///
/// let mut array = ArrayBuf::new();
/// array.push(Value::Int(1));
/// array.push(Value::Text("two"));
/// let array = array.finish();
/// assert_eq!(array.as_array().get(1), Some(Value::Text("two")));
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ArrayBuf {
    entries: Vec<u8>,
    heap: Vec<u8>,
}

impl ArrayBuf {
    /// An array without elements.
    pub fn new() -> ArrayBuf {
        ArrayBuf::default()
    }

    /// Adds an element.
    ///
    /// # Panics
    ///
    /// When an array is put into others more than eight deep, which no database has.
    pub fn push(&mut self, value: Value<'_>) {
        if let Value::Array(inner) = value {
            assert!(Array::parse_at(inner.bytes, DEEPEST - 1).is_some(), "arrays lie at most {DEEPEST} deep");
        }
        encode(value, &mut self.entries, &mut self.heap);
    }

    /// The finished array.
    pub fn finish(self) -> OwnedArray {
        let count = u32::try_from(self.entries.len() / ENTRY).expect("no database has 4 G elements");
        let mut bytes = Vec::with_capacity(HEAD + self.entries.len() + self.heap.len());
        bytes.extend_from_slice(&count.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&self.entries);
        bytes.extend_from_slice(&self.heap);
        OwnedArray { bytes, len: count as usize }
    }
}

/// An [`Array`] with memory of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedArray {
    bytes: Vec<u8>,
    len: usize,
}

impl OwnedArray {
    /// The same array, borrowed.
    pub fn as_array(&self) -> Array<'_> {
        Array { bytes: &self.bytes, len: self.len }
    }
}

/// A type that can be the element of an array: every type of a value, but not `u8`, whose lists are bytes.
///
/// Implement it, beside [`FromValue`] and [`ToValue`], for a type of your own whose lists are arrays.
pub trait Element {}

impl<T: Element + ?Sized> Element for &T {}
impl<T: Element> Element for Option<T> {}
impl<T: Element> Element for Vec<T> {}

/// Types whose lists are arrays.
macro_rules! elements {
    ($($type:ty)*) => {$( impl Element for $type {} )*};
}
#[cfg(any(feature = "chrono", feature = "jiff", feature = "time"))]
pub(super) use elements;

elements! { bool i8 i16 i32 i64 u16 u32 u64 f32 f64 str String Box<str> [u8] Vec<u8> Value<'_> Cow<'_, str> }

impl<'a, T: FromValue<'a> + Element> FromValue<'a> for Vec<T> {
    const NAME: &'static str = "Vec";
    const NEEDS_TYPE: bool = T::NEEDS_TYPE;

    fn name() -> Cow<'static, str> {
        Cow::Owned(format!("Vec<{}>", T::name()))
    }

    fn from_value(value: Value<'a>) -> Result<Self, Mismatch> {
        Self::from_typed(value, "")
    }

    fn from_typed(value: Value<'a>, type_name: &str) -> Result<Self, Mismatch> {
        let Value::Array(array) = value else { return Err(other_kind(value)) };
        let element = |value| T::from_typed(value, type_name);
        array.iter().map(element).collect::<Result<_, _>>().map_err(|mismatch| match mismatch {
            Mismatch::Null => Mismatch::Unreadable {
                reason: format!("an element is NULL: ask for `Vec<Option<{}>>`", T::name()),
            },
            mismatch => mismatch,
        })
    }
}

impl<T: ToValue + Element> ToValue for [T] {
    fn to_value(&self) -> Result<Parameter<'_>, ParameterError> {
        let mut array = ArrayBuf::new();
        for element in self {
            array.push(element.to_value()?.as_value());
        }
        Ok(Parameter::Array(array.finish()))
    }
}

impl<T: ToValue + Element> ToValue for Vec<T> {
    fn to_value(&self) -> Result<Parameter<'_>, ParameterError> {
        self.as_slice().to_value()
    }
}

impl<T: ToValue + Element, const N: usize> ToValue for [T; N] {
    fn to_value(&self) -> Result<Parameter<'_>, ParameterError> {
        self.as_slice().to_value()
    }
}

#[cfg(test)]
mod tests;
