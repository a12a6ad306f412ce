//! JSON: `serde_json::Value`, and any type of serde's in [`Json`].
//!
//! PostgreSQL's `json` and `jsonb`; in SQLite, text.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{FromValue, Mismatch, Parameter, ParameterError, ToValue, Value, other_kind};
use crate::db::array::Element;

/// A column of JSON as a type of the author's.
///
/// ```no_run
/// # use plugin_api::db;
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct Address { street: String, town: String }
///
/// # fn f(conn: &db::Connection, address: Address) -> Result<(), Box<dyn std::error::Error>> {
/// conn.execute("UPDATE person SET address = $1 WHERE id = 7", &[&db::Json(&address)])?;
/// let row = conn.query_one("SELECT address FROM person WHERE id = 7", &[])?;
/// let db::Json::<Address>(address) = row.get("address")?;
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Json<T>(pub T);

impl<T> Element for Json<T> {}

impl<T: DeserializeOwned> FromValue<'_> for Json<T> {
    const NAME: &'static str = "Json";

    fn from_value(value: Value<'_>) -> Result<Self, Mismatch> {
        let Value::Text(text) = value else { return Err(other_kind(value)) };
        serde_json::from_str(text).map(Json).map_err(Mismatch::unreadable)
    }
}

impl<T: Serialize> ToValue for Json<T> {
    fn to_value(&self) -> Result<Parameter<'_>, ParameterError> {
        serde_json::to_string(&self.0).map(Parameter::Text).map_err(ParameterError::unwritable)
    }
}

impl Element for serde_json::Value {}

impl FromValue<'_> for serde_json::Value {
    const NAME: &'static str = "serde_json::Value";

    fn from_value(value: Value<'_>) -> Result<Self, Mismatch> {
        Json::from_value(value).map(|Json(value)| value)
    }
}

impl ToValue for serde_json::Value {
    fn to_value(&self) -> Result<Parameter<'_>, ParameterError> {
        Ok(Parameter::Text(self.to_string()))
    }
}
