//! Dates and times of `jiff`: PostgreSQL's `date`, `time`, `timestamp` and `timestamptz`; in SQLite, text of the
//! same form.
//!
//! PostgreSQL's `infinity`, years before Christ and the hour 24:00 have no form in `jiff`: they are errors.

use jiff::Timestamp;
use jiff::civil::{Date, DateTime, Time};

use super::{FromValue, Mismatch, Parameter, ParameterError, ToValue, Value, other_kind};
use crate::db::array::Element;
use crate::db::array::elements;

elements! { Date Time DateTime Timestamp }

/// A type that is read and written as its own text, which is ISO 8601.
macro_rules! time {
    ($($type:ty, $name:literal;)*) => {$(
        impl FromValue<'_> for $type {
            const NAME: &'static str = $name;

            fn from_value(value: Value<'_>) -> Result<Self, Mismatch> {
                let Value::Text(text) = value else { return Err(other_kind(value)) };
                text.parse().map_err(Mismatch::unreadable::<jiff::Error>)
            }
        }

        impl ToValue for $type {
            fn to_value(&self) -> Result<Parameter<'_>, ParameterError> {
                Ok(Parameter::Text(self.to_string()))
            }
        }
    )*};
}

time! {
    Date, "civil::Date";
    Time, "civil::Time";
    DateTime, "civil::DateTime";
    Timestamp, "Timestamp";
}
