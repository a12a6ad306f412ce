//! UUIDs: PostgreSQL's `uuid`; in SQLite, text or 16 bytes.

use uuid::Uuid;

use super::{FromValue, Mismatch, Parameter, ParameterError, ToValue, Value, other_kind};
use crate::db::array::Element;

impl Element for Uuid {}

impl FromValue<'_> for Uuid {
    const NAME: &'static str = "Uuid";

    fn from_value(value: Value<'_>) -> Result<Self, Mismatch> {
        match value {
            Value::Text(text) => Uuid::parse_str(text).map_err(Mismatch::unreadable),
            Value::Bytes(bytes) => Uuid::from_slice(bytes).map_err(Mismatch::unreadable),
            other => Err(other_kind(other)),
        }
    }
}

/// Sent as text, which both databases read and people too.
impl ToValue for Uuid {
    fn to_value(&self) -> Result<Parameter<'_>, ParameterError> {
        Ok(Parameter::Text(self.to_string()))
    }
}
