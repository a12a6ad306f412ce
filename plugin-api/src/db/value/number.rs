//! Numbers of a column that is wider than Rust's own: PostgreSQL's `numeric`.

use std::str::FromStr;

use super::{FromValue, Mismatch, Parameter, ParameterError, ToValue, Value, other_kind};
use crate::db::array::Element;

/// A number that is read from, or sent to, a `numeric` column, by choice: as an integer, which is exact or an error; or
/// as `f64`, which rounds.
///
/// ```
/// use plugin_api::db::{FromValue, Mismatch, Number, ToValue, Value};
///
/// assert_eq!(Number::<i64>::from_value(Value::Text("42.00")), Ok(Number(42)));
/// assert_eq!(Number::<u64>::from_value(Value::Text("18446744073709551615")), Ok(Number(u64::MAX)));
/// assert!(Number::<i64>::from_value(Value::Text("42.5")).is_err());
/// assert_eq!(Number::<f64>::from_value(Value::Text("0.1000000000000000000000001")), Ok(Number(0.1)));
/// // More than any integer of a database, but not more than a `numeric`.
/// assert!(u64::MAX.to_value().is_err());
/// assert!(Number(u64::MAX).to_value().is_ok());
/// ```
///
/// SQLite has no such column: there an integer beyond 64 bits is stored as text, in a column of text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Number<T>(pub T);

impl<T> Element for Number<T> {}

/// The integer that a text of digits is, if nothing but zeros follows its point.
fn integer<T: FromStr>(text: &str) -> Result<T, Mismatch> {
    let digits = match text.split_once('.') {
        Some((_, fraction)) if fraction.bytes().any(|byte| byte != b'0') => return Err(Mismatch::Range),
        Some((whole, _)) => whole,
        None => text,
    };
    let is_integer = {
        let digits = digits.strip_prefix('-').unwrap_or(digits);
        !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
    };
    match digits.parse() {
        Ok(number) => Ok(number),
        Err(_) if is_integer => Err(Mismatch::Range),
        Err(_) => Err(Mismatch::Unreadable { reason: "it is no integer".to_owned() }),
    }
}

/// Integers, which are exact.
macro_rules! integers {
    ($($type:ty)*) => {$(
        impl FromValue<'_> for Number<$type> {
            const NAME: &'static str = concat!("Number<", stringify!($type), ">");

            fn from_value(value: Value<'_>) -> Result<Self, Mismatch> {
                match value {
                    Value::Int(number) => <$type>::try_from(number).map(Number).map_err(|_| Mismatch::Range),
                    // As SQLite keeps what a column of numbers was given; its integers are not that large.
                    Value::Float(number) if number.fract() == 0.0 && number.abs() < 9.1e18 => {
                        <$type>::try_from(number as i64).map(Number).map_err(|_| Mismatch::Range)
                    }
                    Value::Float(_) => Err(Mismatch::Range),
                    Value::Text(text) => integer(text).map(Number),
                    other => Err(other_kind(other)),
                }
            }
        }

        impl ToValue for Number<$type> {
            fn to_value(&self) -> Result<Parameter<'_>, ParameterError> {
                Ok(match i64::try_from(self.0) {
                    Ok(number) => Value::Int(number).into(),
                    Err(_) => Parameter::Text(self.0.to_string()),
                })
            }
        }
    )*};
}

integers! { i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 }

impl FromValue<'_> for Number<f64> {
    const NAME: &'static str = "Number<f64>";

    fn from_value(value: Value<'_>) -> Result<Self, Mismatch> {
        match value {
            Value::Int(number) => Ok(Number(number as f64)),
            Value::Float(number) => Ok(Number(number)),
            Value::Text(text) => text.parse().map(Number).map_err(Mismatch::unreadable),
            other => Err(other_kind(other)),
        }
    }
}

impl ToValue for Number<f64> {
    fn to_value(&self) -> Result<Parameter<'_>, ParameterError> {
        Ok(Value::Float(self.0).into())
    }
}

#[cfg(feature = "rust_decimal")]
mod decimal {
    use rust_decimal::Decimal;

    use super::{Element, FromValue, Mismatch, Parameter, ParameterError, ToValue, Value, other_kind};

    impl Element for Decimal {}

    /// Every digit, or an error. SQLite's floats are read as the shortest decimal number that they stand for.
    impl FromValue<'_> for Decimal {
        const NAME: &'static str = "Decimal";

        fn from_value(value: Value<'_>) -> Result<Self, Mismatch> {
            match value {
                Value::Int(number) => Ok(Decimal::from(number)),
                Value::Float(number) => {
                    Decimal::from_str_exact(&number.to_string()).map_err(Mismatch::unreadable)
                }
                Value::Text(text) => Decimal::from_str_exact(text).map_err(Mismatch::unreadable),
                other => Err(other_kind(other)),
            }
        }
    }

    impl ToValue for Decimal {
        fn to_value(&self) -> Result<Parameter<'_>, ParameterError> {
            Ok(Parameter::Text(self.to_string()))
        }
    }
}

impl<T> From<T> for Number<T> {
    fn from(number: T) -> Number<T> {
        Number(number)
    }
}
