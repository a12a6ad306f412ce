//! Values on their way to and from a database.
//!
//! Owns the six kinds of value that cross the boundary and the conversions from and to Rust's own
//! types. Does not know columns or statements: whoever calls a conversion adds their names.
//!
//! # Invariants
//!
//! - A conversion never truncates: a number that does not fit is an error that shows the number.
//! - Reading a cell allocates only where the wanted type owns its memory.

use std::borrow::Cow;
use std::fmt;

/// A value of a database.
///
/// Types that have no kind of their own (dates, uuids, decimals, JSON, ...) travel as text, in the
/// form the database prints.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// SQL NULL.
    Null,
    /// A truth value.
    Bool(bool),
    /// An integer of any width.
    Int(i64),
    /// A floating-point number.
    Float(f64),
    /// Text, and every type that has no kind of its own.
    Text(&'a str),
    /// Bytes.
    Bytes(&'a [u8]),
}

impl Value<'_> {
    /// What kind of value this is, for a human.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Null => "null",
            Value::Bool(_) => "bool",
            Value::Int(_) => "integer",
            Value::Float(_) => "float",
            Value::Text(_) => "text",
            Value::Bytes(_) => "bytes",
        }
    }
}

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Null => f.write_str("NULL"),
            Value::Bool(value) => write!(f, "{value}"),
            Value::Int(value) => write!(f, "{value}"),
            Value::Float(value) => write!(f, "{value}"),
            Value::Text(text) => write!(f, "{text:?}"),
            Value::Bytes(bytes) => write!(f, "{} bytes", bytes.len()),
        }
    }
}

/// Why a value could not become the wanted type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mismatch {
    /// The value is NULL and the wanted type is no `Option`.
    Null,
    /// The value is of another kind.
    Kind,
    /// The value is of the right kind, and too large or too small.
    Range,
}

/// A number that no database integer can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfRange {
    /// The number.
    pub value: u64,
}

impl fmt::Display for OutOfRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} does not fit a 64-bit signed integer", self.value)
    }
}

impl std::error::Error for OutOfRange {}

/// A type that can be a parameter of a statement.
///
/// ```
/// use plugin_api::db::{ToValue, Value};
///
/// assert_eq!(7_u8.to_value(), Ok(Value::Int(7)));
/// assert_eq!(None::<&str>.to_value(), Ok(Value::Null));
/// assert!(u64::MAX.to_value().is_err());
/// ```
pub trait ToValue {
    /// The value to send.
    ///
    /// # Errors
    ///
    /// When the number is larger than any database integer.
    fn to_value(&self) -> Result<Value<'_>, OutOfRange>;
}

/// A type that a cell of a row can become.
pub trait FromValue<'a>: Sized {
    /// The type's name, for errors.
    const NAME: &'static str;

    /// Converts a value.
    ///
    /// # Errors
    ///
    /// When the value is NULL, of another kind, or out of range.
    fn from_value(value: Value<'a>) -> Result<Self, Mismatch>;
}

impl ToValue for Value<'_> {
    fn to_value(&self) -> Result<Value<'_>, OutOfRange> {
        Ok(*self)
    }
}

impl<T: ToValue + ?Sized> ToValue for &T {
    fn to_value(&self) -> Result<Value<'_>, OutOfRange> {
        (**self).to_value()
    }
}

impl<T: ToValue> ToValue for Option<T> {
    fn to_value(&self) -> Result<Value<'_>, OutOfRange> {
        self.as_ref().map_or(Ok(Value::Null), ToValue::to_value)
    }
}

impl ToValue for bool {
    fn to_value(&self) -> Result<Value<'_>, OutOfRange> {
        Ok(Value::Bool(*self))
    }
}

impl ToValue for u64 {
    fn to_value(&self) -> Result<Value<'_>, OutOfRange> {
        i64::try_from(*self).map(Value::Int).map_err(|_| OutOfRange { value: *self })
    }
}

impl ToValue for usize {
    fn to_value(&self) -> Result<Value<'_>, OutOfRange> {
        i64::try_from(*self).map(Value::Int).map_err(|_| OutOfRange { value: *self as u64 })
    }
}

/// Parameters that always fit.
macro_rules! to_value {
    ($($type:ty => |$value:ident| $make:expr;)*) => {$(
        impl ToValue for $type {
            fn to_value(&self) -> Result<Value<'_>, OutOfRange> {
                let $value = self;
                Ok($make)
            }
        }
    )*};
}

to_value! {
    i8 => |value| Value::Int(i64::from(*value));
    i16 => |value| Value::Int(i64::from(*value));
    i32 => |value| Value::Int(i64::from(*value));
    i64 => |value| Value::Int(*value);
    u8 => |value| Value::Int(i64::from(*value));
    u16 => |value| Value::Int(i64::from(*value));
    u32 => |value| Value::Int(i64::from(*value));
    f32 => |value| Value::Float(f64::from(*value));
    f64 => |value| Value::Float(*value);
    str => |value| Value::Text(value);
    String => |value| Value::Text(value);
    Box<str> => |value| Value::Text(value);
    Cow<'_, str> => |value| Value::Text(value);
    [u8] => |value| Value::Bytes(value);
    Vec<u8> => |value| Value::Bytes(value);
}

impl<const N: usize> ToValue for [u8; N] {
    fn to_value(&self) -> Result<Value<'_>, OutOfRange> {
        Ok(Value::Bytes(self))
    }
}

/// NULL is a mismatch of its own: the remedy is an `Option`, not another type.
fn other_kind(value: Value<'_>) -> Mismatch {
    if value == Value::Null { Mismatch::Null } else { Mismatch::Kind }
}

impl<'a, T: FromValue<'a>> FromValue<'a> for Option<T> {
    const NAME: &'static str = T::NAME;

    fn from_value(value: Value<'a>) -> Result<Self, Mismatch> {
        if value == Value::Null { Ok(None) } else { T::from_value(value).map(Some) }
    }
}

impl<'a> FromValue<'a> for Value<'a> {
    const NAME: &'static str = "Value";

    fn from_value(value: Value<'a>) -> Result<Self, Mismatch> {
        Ok(value)
    }
}

impl FromValue<'_> for bool {
    const NAME: &'static str = "bool";

    fn from_value(value: Value<'_>) -> Result<Self, Mismatch> {
        match value {
            Value::Bool(value) => Ok(value),
            // SQLite has no truth values; it stores 0 and 1.
            Value::Int(0) => Ok(false),
            Value::Int(1) => Ok(true),
            Value::Int(_) => Err(Mismatch::Range),
            other => Err(other_kind(other)),
        }
    }
}

/// Integers: any width, as long as the number fits.
macro_rules! from_integer {
    ($($type:ty)*) => {$(
        impl FromValue<'_> for $type {
            const NAME: &'static str = stringify!($type);

            fn from_value(value: Value<'_>) -> Result<Self, Mismatch> {
                match value {
                    Value::Int(value) => <$type>::try_from(value).map_err(|_| Mismatch::Range),
                    other => Err(other_kind(other)),
                }
            }
        }
    )*};
}

from_integer! { i8 i16 i32 i64 u8 u16 u32 u64 usize }

impl FromValue<'_> for f64 {
    const NAME: &'static str = "f64";

    fn from_value(value: Value<'_>) -> Result<Self, Mismatch> {
        /// Integers up to this magnitude are exact as `f64`.
        const EXACT: i64 = 1 << 53;
        match value {
            Value::Float(value) => Ok(value),
            Value::Int(value) if (-EXACT..=EXACT).contains(&value) => Ok(value as f64),
            Value::Int(_) => Err(Mismatch::Range),
            other => Err(other_kind(other)),
        }
    }
}

impl FromValue<'_> for f32 {
    const NAME: &'static str = "f32";

    fn from_value(value: Value<'_>) -> Result<Self, Mismatch> {
        let wide = f64::from_value(value)?;
        let narrow = wide as f32;
        // Rounding is what `f32` means; becoming infinite is not.
        if narrow.is_infinite() && wide.is_finite() { Err(Mismatch::Range) } else { Ok(narrow) }
    }
}

impl<'a> FromValue<'a> for &'a str {
    const NAME: &'static str = "&str";

    fn from_value(value: Value<'a>) -> Result<Self, Mismatch> {
        match value {
            Value::Text(text) => Ok(text),
            other => Err(other_kind(other)),
        }
    }
}

impl FromValue<'_> for String {
    const NAME: &'static str = "String";

    fn from_value(value: Value<'_>) -> Result<Self, Mismatch> {
        <&str>::from_value(value).map(str::to_owned)
    }
}

impl<'a> FromValue<'a> for &'a [u8] {
    const NAME: &'static str = "&[u8]";

    fn from_value(value: Value<'a>) -> Result<Self, Mismatch> {
        match value {
            Value::Bytes(bytes) => Ok(bytes),
            other => Err(other_kind(other)),
        }
    }
}

impl FromValue<'_> for Vec<u8> {
    const NAME: &'static str = "Vec<u8>";

    fn from_value(value: Value<'_>) -> Result<Self, Mismatch> {
        <&[u8]>::from_value(value).map(<[u8]>::to_vec)
    }
}
