//! Cells on their way from PostgreSQL: from its binary format to the boundary's values.

use std::error::Error;

use plugin_api::db::rows::BlockWriter;
use postgres::{Column, Row};
use postgres_types::{FromSql, Kind, Type};

use super::params::base;
use super::text;
use crate::db::{QueryError, Value};

/// How the cells of a column are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Bool,
    Int2,
    Int4,
    Int8,
    Oid,
    Float4,
    Float8,
    Text,
    Bytes,
    /// Binary on the wire; the function writes what PostgreSQL would print.
    Printed(text::Print),
}

fn form(ty: &Type) -> Option<Form> {
    let base = base(ty);
    Some(match *base {
        Type::BOOL => Form::Bool,
        Type::INT2 => Form::Int2,
        Type::INT4 => Form::Int4,
        Type::INT8 => Form::Int8,
        Type::OID => Form::Oid,
        Type::FLOAT4 => Form::Float4,
        Type::FLOAT8 => Form::Float8,
        Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME | Type::UNKNOWN | Type::CHAR => Form::Text,
        Type::JSON | Type::XML | Type::VOID => Form::Text,
        Type::BYTEA => Form::Bytes,
        Type::JSONB => Form::Printed(text::Print::Jsonb),
        Type::UUID => Form::Printed(text::Print::Uuid),
        Type::DATE => Form::Printed(text::Print::Date),
        Type::TIME => Form::Printed(text::Print::Time),
        Type::TIMESTAMP => Form::Printed(text::Print::Timestamp),
        Type::TIMESTAMPTZ => Form::Printed(text::Print::TimestampUtc),
        Type::INTERVAL => Form::Printed(text::Print::Interval),
        Type::NUMERIC => Form::Printed(text::Print::Numeric),
        _ if matches!(base.kind(), Kind::Enum(_)) || base.name() == "citext" => Form::Text,
        _ => return None,
    })
}

/// How the rows of a statement are read.
#[derive(Debug)]
pub(super) struct Plan {
    columns: Vec<(String, String, Option<Form>)>,
}

impl Plan {
    pub(super) fn new(columns: &[Column]) -> Plan {
        let plan = |column: &Column| {
            (column.name().to_owned(), column.type_().name().to_owned(), form(column.type_()))
        };
        Plan { columns: columns.iter().map(plan).collect() }
    }

    /// A block with the columns, and no rows yet.
    pub(super) fn block(&self) -> BlockWriter {
        let mut block = BlockWriter::new();
        self.columns.iter().for_each(|(name, type_name, _)| block.column(name, type_name));
        block
    }
}

/// Writes rows into a block.
pub(super) struct Cells<'a> {
    plan: &'a Plan,
    forms: Vec<Form>,
    /// Where cells are printed, kept from cell to cell.
    scratch: String,
}

impl<'a> Cells<'a> {
    /// # Errors
    ///
    /// When a column's type has no form here.
    pub(super) fn new(plan: &'a Plan) -> Result<Cells<'a>, QueryError> {
        let form = |(name, type_name, form): &(String, String, Option<Form>)| {
            form.ok_or_else(|| QueryError::ColumnType { column: name.clone(), type_name: type_name.clone() })
        };
        let forms = plan.columns.iter().map(form).collect::<Result<_, _>>()?;
        Ok(Cells { plan, forms, scratch: String::new() })
    }

    /// Adds a row.
    ///
    /// # Errors
    ///
    /// When a cell's bytes are not what its type promises.
    pub(super) fn write(&mut self, row: &Row, block: &mut BlockWriter) -> Result<(), QueryError> {
        block.row();
        for (index, form) in self.forms.iter().enumerate() {
            let raw = row.try_get::<_, Option<Raw<'_>>>(index).ok().flatten();
            let value = match raw {
                None => Some(Value::Null),
                Some(Raw(bytes)) => read(*form, bytes, &mut self.scratch),
            };
            let Some(value) = value else {
                let (name, type_name, _) = &self.plan.columns[index];
                return Err(QueryError::Cell {
                    column: name.clone(),
                    reason: format!("cannot read a value of type {type_name}"),
                });
            };
            block.cell(value);
        }
        Ok(())
    }
}

fn read<'a>(form: Form, bytes: &'a [u8], scratch: &'a mut String) -> Option<Value<'a>> {
    Some(match form {
        Form::Bool => Value::Bool(*bytes.first()? != 0),
        Form::Int2 => Value::Int(i16::from_be_bytes(bytes.try_into().ok()?).into()),
        Form::Int4 => Value::Int(i32::from_be_bytes(bytes.try_into().ok()?).into()),
        Form::Int8 => Value::Int(i64::from_be_bytes(bytes.try_into().ok()?)),
        Form::Oid => Value::Int(u32::from_be_bytes(bytes.try_into().ok()?).into()),
        Form::Float4 => Value::Float(f32::from_be_bytes(bytes.try_into().ok()?).into()),
        Form::Float8 => Value::Float(f64::from_be_bytes(bytes.try_into().ok()?)),
        Form::Text => Value::Text(std::str::from_utf8(bytes).ok()?),
        Form::Bytes => Value::Bytes(bytes),
        Form::Printed(print) => {
            scratch.clear();
            print.write(bytes, scratch)?;
            Value::Text(scratch)
        }
    })
}

/// A cell as it came.
struct Raw<'a>(&'a [u8]);

impl<'a> FromSql<'a> for Raw<'a> {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Raw(raw))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}
