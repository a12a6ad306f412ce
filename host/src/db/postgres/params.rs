//! Parameters on their way to PostgreSQL: to the column's type, with ranges checked.

use std::error::Error;
use std::fmt::Write as _;

use bytes::BytesMut;
use postgres_types::{Format, IsNull, Kind, ToSql, Type, to_sql_checked};
use smallvec::SmallVec;

use super::array;
use crate::db::{QueryError, Value};

/// How many parameters the protocol can count.
const MOST_PARAMETERS: u64 = 65_535;
/// Bytes that a message may have: the server allocates less than a GiB for one, and ends the connection for more.
const MESSAGE: usize = (1 << 30) - (1 << 20);

/// A parameter in the form its type wants.
#[derive(Debug)]
pub(super) enum Param<'a> {
    Null,
    Bool(bool),
    Int2(i16),
    Int4(i32),
    Int8(i64),
    Oid(u32),
    Float4(f32),
    Float8(f64),
    /// In PostgreSQL's text format, which every type can read.
    Text(&'a str),
    /// The same, of its own: a number for `numeric`, an array, or what goes behind a pooler.
    Printed(String),
    Bytes(&'a [u8]),
}

/// Converts the parameters of a statement.
///
/// # Errors
///
/// When there are too many or too few, or one does not fit its type.
pub(super) fn params<'a>(
    types: &[Type],
    values: &[Value<'a>],
) -> Result<SmallVec<[Param<'a>; 8]>, QueryError> {
    if types.len() != values.len() {
        return Err(QueryError::ParameterCount { expected: types.len(), given: values.len() });
    }
    let convert = |(index, (ty, value)): (usize, (&Type, &Value<'a>))| param(index + 1, ty, *value);
    let params: SmallVec<[Param<'a>; 8]> =
        types.iter().zip(values).enumerate().map(convert).collect::<Result<_, _>>()?;
    check_size(&params)?;
    Ok(params)
}

/// Refuses what the server would end the connection for, or the driver could not count.
///
/// # Errors
///
/// When there are more placeholders or parameters than the protocol can count, or the text is longer than a message.
pub(super) fn check(sql: &str, placeholders: u64, given: usize) -> Result<(), QueryError> {
    let most = u64::try_from(given).unwrap_or(u64::MAX).max(placeholders);
    if most > MOST_PARAMETERS {
        let reason = format!(
            "{most} parameters are more than the {MOST_PARAMETERS} that a statement can have: send arrays, or use COPY"
        );
        return Err(QueryError::Unsendable { reason });
    }
    if sql.len() > MESSAGE { Err(too_long(sql.len())) } else { Ok(()) }
}

/// Refuses values that are longer than a message together.
fn check_size(params: &[Param<'_>]) -> Result<(), QueryError> {
    let bytes = params.iter().map(|param| match param {
        Param::Text(text) => text.len(),
        Param::Printed(text) => text.len(),
        Param::Bytes(bytes) => bytes.len(),
        _ => 8,
    });
    let bytes = bytes.fold(0_usize, usize::saturating_add);
    if bytes > MESSAGE { Err(too_long(bytes)) } else { Ok(()) }
}

fn too_long(bytes: usize) -> QueryError {
    let reason = format!(
        "{} MiB are more than the 1023 MiB that a statement and its parameters can have: send them in parts",
        bytes >> 20
    );
    QueryError::Unsendable { reason }
}

/// The parameters as the driver takes them.
pub(super) fn for_driver<'p>(params: &'p [Param<'_>]) -> SmallVec<[&'p (dyn ToSql + Sync); 8]> {
    params.iter().map(|param| param as &(dyn ToSql + Sync)).collect()
}

/// The parameters as text, for a statement whose types only the server knows.
///
/// # Errors
///
/// When they are too long. Of an array's elements only those of a known type can be wrong.
pub(super) fn as_text<'a>(values: &[Value<'a>]) -> Result<Vec<Param<'a>>, QueryError> {
    let text = |(index, value): (usize, &Value<'a>)| {
        Ok(match *value {
            Value::Null => Param::Null,
            Value::Bool(value) => Param::Text(if value { "t" } else { "f" }),
            Value::Int(value) => Param::Printed(value.to_string()),
            Value::Float(value) => Param::Printed(number_text(value)),
            Value::Text(text) => Param::Text(text),
            Value::Bytes(bytes) => {
                let mut text = "\\x".to_owned();
                hex(bytes, &mut text);
                Param::Printed(text)
            }
            Value::Array(array) => Param::Printed(array::text(index + 1, None, array)?),
        })
    };
    let params = values.iter().enumerate().map(text).collect::<Result<Vec<_>, QueryError>>()?;
    check_size(&params)?;
    Ok(params)
}

pub(super) fn param<'a>(number: usize, ty: &Type, value: Value<'a>) -> Result<Param<'a>, QueryError> {
    let base = base(ty);
    let out_of_range =
        || QueryError::OutOfRange { number, value: value.to_string(), type_name: ty.name().to_owned() };
    let param = match (value, base) {
        (Value::Null, _) => Some(Param::Null),
        (Value::Bool(value), &Type::BOOL) => Some(Param::Bool(value)),
        (Value::Int(value), base) => integer(value, base).transpose().map_err(|OutOfRange| out_of_range())?,
        (Value::Float(value), base) => float(value, base).transpose().map_err(|OutOfRange| out_of_range())?,
        (Value::Text(text), &Type::BYTEA) => Some(Param::Bytes(text.as_bytes())),
        (Value::Text(text), _) => Some(Param::Text(text)),
        (Value::Bytes(bytes), &Type::BYTEA) => Some(Param::Bytes(bytes)),
        (Value::Array(list), base) => match base.kind() {
            Kind::Array(element) => Some(Param::Printed(array::text(number, Some(element), list)?)),
            _ => None,
        },
        _ => None,
    };
    param.ok_or_else(|| QueryError::ParameterType {
        number,
        found: value.kind(),
        type_name: ty.name().to_owned(),
    })
}

/// A number that its type cannot hold.
struct OutOfRange;

/// `None`: the type is none that an integer can become.
fn integer(value: i64, ty: &Type) -> Option<Result<Param<'static>, OutOfRange>> {
    /// Integers up to these magnitudes are exact as `f32` and `f64`.
    const EXACT: [i64; 2] = [1 << 24, 1 << 53];
    let is_exact = |limit: i64| (-limit..=limit).contains(&value);
    let param = match *ty {
        Type::INT2 => i16::try_from(value).ok().map(Param::Int2),
        Type::INT4 => i32::try_from(value).ok().map(Param::Int4),
        Type::INT8 => Some(Param::Int8(value)),
        Type::OID => u32::try_from(value).ok().map(Param::Oid),
        Type::FLOAT4 => is_exact(EXACT[0]).then_some(Param::Float4(value as f32)),
        Type::FLOAT8 => is_exact(EXACT[1]).then_some(Param::Float8(value as f64)),
        Type::NUMERIC => Some(Param::Printed(value.to_string())),
        _ => return None,
    };
    Some(param.ok_or(OutOfRange))
}

/// `None`: the type is none that a float can become.
fn float(value: f64, ty: &Type) -> Option<Result<Param<'static>, OutOfRange>> {
    let narrow = value as f32;
    let param = match *ty {
        Type::FLOAT8 => Some(Param::Float8(value)),
        Type::FLOAT4 => (narrow.is_finite() || !value.is_finite()).then_some(Param::Float4(narrow)),
        Type::NUMERIC => Some(Param::Printed(number_text(value))),
        _ => return None,
    };
    Some(param.ok_or(OutOfRange))
}

/// Two digits for each byte.
pub(super) fn hex(bytes: &[u8], out: &mut String) {
    for byte in bytes {
        // Writing to a `String` cannot fail.
        let _ = write!(out, "{byte:02x}");
    }
}

/// PostgreSQL spells infinity out.
pub(super) fn number_text(value: f64) -> String {
    if value.is_infinite() {
        let sign = if value < 0.0 { "-" } else { "" };
        return format!("{sign}Infinity");
    }
    value.to_string()
}

/// The type beneath a domain.
pub(super) fn base(mut ty: &Type) -> &Type {
    while let Kind::Domain(inner) = ty.kind() {
        ty = inner;
    }
    ty
}

impl ToSql for Param<'_> {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        match self {
            Param::Null => return Ok(IsNull::Yes),
            Param::Bool(value) => return value.to_sql(ty, out),
            Param::Int2(value) => return value.to_sql(ty, out),
            Param::Int4(value) => return value.to_sql(ty, out),
            Param::Int8(value) => return value.to_sql(ty, out),
            Param::Oid(value) => return value.to_sql(ty, out),
            Param::Float4(value) => return value.to_sql(ty, out),
            Param::Float8(value) => return value.to_sql(ty, out),
            Param::Text(text) => out.extend_from_slice(text.as_bytes()),
            Param::Printed(text) => out.extend_from_slice(text.as_bytes()),
            Param::Bytes(bytes) => out.extend_from_slice(bytes),
        }
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        // `params` has matched the value with its type.
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        match self {
            Param::Text(_) | Param::Printed(_) => Format::Text,
            _ => Format::Binary,
        }
    }

    to_sql_checked!();
}
