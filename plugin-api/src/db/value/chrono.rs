//! Dates and times of `chrono`: PostgreSQL's `date`, `time`, `timestamp` and `timestamptz`; in SQLite, text of
//! the same form, with a blank or a `T` between date and time.
//!
//! PostgreSQL's `infinity`, years before Christ and the hour 24:00 have no form in `chrono`: they are errors.

use chrono::{DateTime, FixedOffset, NaiveDate, NaiveDateTime, NaiveTime, ParseError, Utc};

use super::{FromValue, Mismatch, Parameter, ParameterError, ToValue, Value, other_kind};
use crate::db::array::Element;
use crate::db::array::elements;

elements! { NaiveDate NaiveTime NaiveDateTime DateTime<Utc> DateTime<FixedOffset> }

/// Reads a text in the first form that fits.
fn read<T>(
    value: Value<'_>,
    forms: &[&str],
    parse: impl Fn(&str, &str) -> Result<T, ParseError>,
) -> Result<T, Mismatch> {
    let Value::Text(text) = value else { return Err(other_kind(value)) };
    let mut said = None;
    for form in forms {
        match parse(text, form) {
            Ok(read) => return Ok(read),
            Err(error) => said.get_or_insert(error),
        };
    }
    Err(Mismatch::Unreadable { reason: said.map_or_else(String::new, |error| error.to_string()) })
}

/// A type that is read from text in some forms and written in one.
macro_rules! time {
    ($($type:ty, $name:literal, [$($form:literal),*], $write:literal;)*) => {$(
        impl FromValue<'_> for $type {
            const NAME: &'static str = $name;

            fn from_value(value: Value<'_>) -> Result<Self, Mismatch> {
                read(value, &[$($form),*], <$type>::parse_from_str)
            }
        }

        impl ToValue for $type {
            fn to_value(&self) -> Result<Parameter<'_>, ParameterError> {
                Ok(Parameter::Text(self.format($write).to_string()))
            }
        }
    )*};
}

time! {
    NaiveDate, "NaiveDate", ["%Y-%m-%d"], "%Y-%m-%d";
    NaiveTime, "NaiveTime", ["%H:%M:%S%.f", "%H:%M"], "%H:%M:%S%.f";
    NaiveDateTime, "NaiveDateTime", ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f"], "%Y-%m-%d %H:%M:%S%.f";
    DateTime<FixedOffset>, "DateTime<FixedOffset>",
        ["%Y-%m-%d %H:%M:%S%.f%#z", "%Y-%m-%dT%H:%M:%S%.f%#z"], "%Y-%m-%d %H:%M:%S%.f%:z";
}

impl FromValue<'_> for DateTime<Utc> {
    const NAME: &'static str = "DateTime<Utc>";

    fn from_value(value: Value<'_>) -> Result<Self, Mismatch> {
        DateTime::<FixedOffset>::from_value(value).map(|time| time.to_utc())
    }
}

impl ToValue for DateTime<Utc> {
    fn to_value(&self) -> Result<Parameter<'_>, ParameterError> {
        Ok(Parameter::Text(self.format("%Y-%m-%d %H:%M:%S%.f+00:00").to_string()))
    }
}
