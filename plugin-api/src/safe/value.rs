//! Typed values: MessagePack with the names of fields, so that a type may gain a field across a reload.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::abi::ENCODING_MESSAGEPACK;
use crate::message;
use crate::safe::{Key, ReadError, WriteError};

pub(super) fn encode<T: Serialize + ?Sized>(key: &Key, value: &T) -> Result<Vec<u8>, WriteError> {
    let mut bytes = Vec::new();
    message::pack(value, &mut bytes).map(|()| bytes).map_err(|error| {
        let kind = std::any::type_name::<T>();
        WriteError::Encode {
            message: format!("the value for `{key}`, a `{kind}`, cannot be encoded: {error}"),
        }
    })
}

pub(super) fn decode<T: DeserializeOwned>(key: &Key, encoding: u32, bytes: &[u8]) -> Result<T, ReadError> {
    let kind = std::any::type_name::<T>();
    let words = if encoding == ENCODING_MESSAGEPACK {
        match message::unpack(bytes) {
            Ok(value) => return Ok(value),
            Err(error) => error,
        }
    } else {
        "it was put as bytes".to_owned()
    };
    Err(ReadError::Decode { message: format!("the value under `{key}` is no `{kind}`: {words}") })
}
