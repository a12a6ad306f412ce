//! Values on their way to and from a database.
//!
//! Owns the kinds of value that cross the boundary and the conversions from and to Rust's own types. Does
//! not know columns or statements: whoever calls a conversion adds their names. Lists are in `array.rs`.
//! The table of types is in the documentation of the module above.
//!
//! # Invariants
//!
//! - A conversion never truncates: a number that does not fit is an error that shows the number.
//! - Reading a cell allocates only where the wanted type owns its memory.

#[cfg(feature = "chrono")]
mod chrono;
#[cfg(feature = "jiff")]
mod jiff;
#[cfg(feature = "json")]
mod json;
#[cfg(any(feature = "chrono", feature = "jiff", feature = "time"))]
mod moment;
mod number;
mod other;
#[cfg(feature = "time")]
mod time;
#[cfg(feature = "uuid")]
mod uuid;

use std::borrow::Cow;
use std::fmt;

#[cfg(feature = "json")]
pub use self::json::Json;
pub use self::number::Number;
use crate::db::array::{Array, OwnedArray};

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
    /// Several values.
    Array(Array<'a>),
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
            Value::Array(_) => "array",
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
            Value::Array(array) => array.fmt(f),
        }
    }
}

/// Why a value could not become the wanted type.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mismatch {
    /// The value is NULL and the wanted type is no `Option`.
    Null,
    /// The value is of another kind.
    Kind,
    /// The value is of the right kind, and too large or too small.
    Range,
    /// The value is of the right kind, and the wanted type cannot be made of it.
    Unreadable {
        /// Why not.
        reason: String,
    },
}

impl Mismatch {
    /// A text that the wanted type refuses, in that type's words.
    pub fn unreadable<E: fmt::Display>(error: E) -> Mismatch {
        Mismatch::Unreadable { reason: error.to_string() }
    }
}

/// Why something cannot be a parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ParameterError {
    /// A number that no database integer can hold.
    OutOfRange {
        /// The number.
        value: u64,
    },
    /// It has no form that a database could store.
    Unwritable {
        /// Why not.
        reason: String,
    },
}

impl ParameterError {
    /// What cannot be written, in the words of its type.
    pub fn unwritable<E: fmt::Display>(error: E) -> ParameterError {
        ParameterError::Unwritable { reason: error.to_string() }
    }
}

impl fmt::Display for ParameterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ParameterError::OutOfRange { value } => {
                write!(
                    f,
                    "{value} does not fit a 64-bit signed integer; a column of `numeric` takes `db::Number`"
                )
            }
            ParameterError::Unwritable { reason } => write!(f, "cannot be written: {reason}"),
        }
    }
}

impl std::error::Error for ParameterError {}

/// A value on its way into a statement: borrowed from what it stands for, or made of it.
#[derive(Clone, Debug, PartialEq)]
pub enum Parameter<'a> {
    /// Borrowed.
    Value(Value<'a>),
    /// Text that was made for it.
    Text(String),
    /// An array that was made for it.
    Array(OwnedArray),
}

impl Parameter<'_> {
    /// The value, borrowed from here.
    pub fn as_value(&self) -> Value<'_> {
        match self {
            Parameter::Value(value) => *value,
            Parameter::Text(text) => Value::Text(text),
            Parameter::Array(array) => Value::Array(array.as_array()),
        }
    }
}

impl<'a> From<Value<'a>> for Parameter<'a> {
    fn from(value: Value<'a>) -> Parameter<'a> {
        Parameter::Value(value)
    }
}

/// A type that can be a parameter of a statement.
///
/// ```
/// use plugin_api::db::{Parameter, ParameterError, ToValue, Value};
///
/// assert_eq!(7_u8.to_value(), Ok(Value::Int(7).into()));
/// assert_eq!(None::<&str>.to_value(), Ok(Value::Null.into()));
/// assert!(u64::MAX.to_value().is_err());
///
/// /// Stored as text.
/// struct Colour { red: u8, green: u8, blue: u8 }
///
/// impl ToValue for Colour {
///     fn to_value(&self) -> Result<Parameter<'_>, ParameterError> {
///         Ok(Parameter::Text(format!("#{:02x}{:02x}{:02x}", self.red, self.green, self.blue)))
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a parameter of a statement",
    label = "no `db::ToValue`",
    note = "types of `chrono`, `jiff`, `time`, `uuid` and `rust_decimal` need the feature of plugin-api with that name, \
            `serde_json::Value` and `db::Json` the feature `json`: `plugin-api = {{ .., features = [\"chrono\"] }}`",
    note = "the crate has to be of the version that plugin-api uses"
)]
pub trait ToValue {
    /// The value to send.
    ///
    /// # Errors
    ///
    /// When it has no form in a database, such as a number larger than any database integer.
    fn to_value(&self) -> Result<Parameter<'_>, ParameterError>;
}

/// A type that a cell of a row can become.
#[diagnostic::on_unimplemented(
    message = "a column cannot become `{Self}`",
    label = "no `db::FromValue`",
    note = "types of `chrono`, `jiff`, `time`, `uuid` and `rust_decimal` need the feature of plugin-api with that name, \
            `serde_json::Value` and `db::Json` the feature `json`: `plugin-api = {{ .., features = [\"chrono\"] }}`",
    note = "the crate has to be of the version that plugin-api uses"
)]
pub trait FromValue<'a>: Sized {
    /// The type's name, for errors.
    const NAME: &'static str;

    /// The name of a type that depends on another one.
    fn name() -> Cow<'static, str> {
        Cow::Borrowed(Self::NAME)
    }

    /// Whether [`from_typed`](FromValue::from_typed) looks at the type of the column.
    const NEEDS_TYPE: bool = false;

    /// Converts a value.
    ///
    /// # Errors
    ///
    /// When the value is NULL, of another kind, or out of range.
    fn from_value(value: Value<'a>) -> Result<Self, Mismatch>;

    /// Converts a value of a column, whose type is named as the database names it: empty where it has none, as in
    /// SQLite. The same as [`from_value`](FromValue::from_value), but for types that need to know.
    ///
    /// # Errors
    ///
    /// As `from_value`.
    fn from_typed(value: Value<'a>, type_name: &str) -> Result<Self, Mismatch> {
        let _ = type_name;
        Self::from_value(value)
    }
}

impl ToValue for Value<'_> {
    fn to_value(&self) -> Result<Parameter<'_>, ParameterError> {
        Ok(Parameter::Value(*self))
    }
}

impl<T: ToValue + ?Sized> ToValue for &T {
    fn to_value(&self) -> Result<Parameter<'_>, ParameterError> {
        (**self).to_value()
    }
}

impl<T: ToValue> ToValue for Option<T> {
    fn to_value(&self) -> Result<Parameter<'_>, ParameterError> {
        self.as_ref().map_or(Ok(Value::Null.into()), ToValue::to_value)
    }
}

impl ToValue for bool {
    fn to_value(&self) -> Result<Parameter<'_>, ParameterError> {
        Ok(Value::Bool(*self).into())
    }
}

impl ToValue for u64 {
    fn to_value(&self) -> Result<Parameter<'_>, ParameterError> {
        let fits = i64::try_from(*self).map_err(|_| ParameterError::OutOfRange { value: *self })?;
        Ok(Value::Int(fits).into())
    }
}

impl ToValue for usize {
    fn to_value(&self) -> Result<Parameter<'_>, ParameterError> {
        let fits = i64::try_from(*self).map_err(|_| ParameterError::OutOfRange { value: *self as u64 })?;
        Ok(Value::Int(fits).into())
    }
}

/// Parameters that always fit.
macro_rules! to_value {
    ($($type:ty => |$value:ident| $make:expr;)*) => {$(
        impl ToValue for $type {
            fn to_value(&self) -> Result<Parameter<'_>, ParameterError> {
                let $value = self;
                Ok(Parameter::Value($make))
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
    fn to_value(&self) -> Result<Parameter<'_>, ParameterError> {
        Ok(Value::Bytes(self).into())
    }
}

/// NULL is a mismatch of its own: the remedy is an `Option`, not another type.
pub(super) fn other_kind(value: Value<'_>) -> Mismatch {
    if value == Value::Null { Mismatch::Null } else { Mismatch::Kind }
}

impl<'a, T: FromValue<'a>> FromValue<'a> for Option<T> {
    const NAME: &'static str = T::NAME;

    fn name() -> Cow<'static, str> {
        T::name()
    }

    const NEEDS_TYPE: bool = T::NEEDS_TYPE;

    fn from_value(value: Value<'a>) -> Result<Self, Mismatch> {
        if value == Value::Null { Ok(None) } else { T::from_value(value).map(Some) }
    }

    fn from_typed(value: Value<'a>, type_name: &str) -> Result<Self, Mismatch> {
        if value == Value::Null { Ok(None) } else { T::from_typed(value, type_name).map(Some) }
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
