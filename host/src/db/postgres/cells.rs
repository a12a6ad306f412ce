//! Cells on their way from PostgreSQL: from its binary format to the boundary's values.

use std::error::Error;

use plugin_api::db::ArrayBuf;
use plugin_api::db::rows::{Block, BlockWriter};
use postgres_types::{FromSql, Kind, Type};
use tokio_postgres::{Column, Row};

use super::params::base;
use super::{array, text};
use crate::db::{QueryError, Value};

/// What is known of the cells of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// How each is read.
    Form(Form),
    /// They are arrays, and how an element is read.
    List(Form),
    /// Of a type that only the server can print.
    Formless,
    /// Arrays of such a type.
    FormlessList,
}

impl Reading {
    fn of(ty: &Type) -> Reading {
        match base(ty).kind() {
            Kind::Array(element) => form(element).map_or(Reading::FormlessList, Reading::List),
            _ => form(ty).map_or(Reading::Formless, Reading::Form),
        }
    }

    /// What it becomes when the server is asked for text.
    fn printed(self) -> Reading {
        match self {
            Reading::Formless => Reading::Form(Form::Text),
            Reading::FormlessList => Reading::List(Form::Text),
            known => known,
        }
    }

    fn is_formless(self) -> bool {
        matches!(self, Reading::Formless | Reading::FormlessList)
    }
}

/// How a value is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
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
    readings: Vec<Reading>,
    /// A block with the columns' names, and no rows yet.
    empty: BlockWriter,
}

impl Plan {
    pub(super) fn new(columns: &[Column]) -> Plan {
        let mut empty = BlockWriter::new();
        columns.iter().for_each(|column| empty.column(column.name(), column.type_().name()));
        Plan { readings: columns.iter().map(|column| Reading::of(column.type_())).collect(), empty }
    }

    /// For each column.
    pub(super) fn readings(&self) -> &[Reading] {
        &self.readings
    }

    /// Whether there is a column of a type that only the server can print.
    pub(super) fn has_formless(&self) -> bool {
        self.readings.iter().any(|reading| reading.is_formless())
    }

    /// The plan for the same columns when the server prints those.
    pub(super) fn with_text(mut self) -> Plan {
        self.readings.iter_mut().for_each(|reading| *reading = reading.printed());
        self
    }

    /// Name and type of a column, for an error about it: read from the block, as its reader would.
    fn column(&self, place: usize) -> (String, String) {
        let block = Block::parse(self.block().finish()).ok();
        let found = block.as_ref().and_then(|block| block.column(place)).unwrap_or_default();
        (found.0.to_owned(), found.1.to_owned())
    }

    /// A block with the columns, and no rows yet.
    pub(super) fn block(&self) -> BlockWriter {
        self.block_for(&[])
    }

    /// The same, with room for these rows.
    pub(super) fn block_for(&self, rows: &[Row]) -> BlockWriter {
        // With the lengths of cells, so that there is some to spare for what is longer when it is printed.
        self.empty.with_room(rows.len(), rows.iter().map(Row::raw_size_bytes).sum())
    }
}

/// Writes rows into a block.
pub(super) struct Cells<'a> {
    plan: &'a Plan,
    /// Where cells are printed, kept from cell to cell.
    scratch: String,
}

impl<'a> Cells<'a> {
    /// # Errors
    ///
    /// When a column's type has no form here.
    pub(super) fn new(plan: &'a Plan) -> Result<Cells<'a>, QueryError> {
        match plan.readings.iter().position(|reading| reading.is_formless()) {
            Some(place) => {
                let (column, type_name) = plan.column(place);
                Err(QueryError::ColumnType { column, type_name })
            }
            None => Ok(Cells { plan, scratch: String::new() }),
        }
    }

    /// A block with the columns, and no rows yet.
    pub(super) fn block(&self) -> BlockWriter {
        self.plan.block()
    }

    /// Adds a row.
    ///
    /// # Errors
    ///
    /// When a cell's bytes are not what its type promises. The block has the rows before then.
    pub(super) fn write(&mut self, row: &Row, block: &mut BlockWriter) -> Result<(), QueryError> {
        block.row();
        for (index, reading) in self.plan.readings.iter().enumerate() {
            let raw = row.try_get::<_, Option<Raw<'_>>>(index).ok().flatten();
            let Some(Raw(bytes)) = raw else {
                block.cell(Value::Null);
                continue;
            };
            if cell(*reading, bytes, &mut self.scratch, block).is_none() {
                block.abandon_row();
                let (column, type_name) = self.plan.column(index);
                let reason = format!("cannot read a value of type {type_name}");
                return Err(QueryError::Cell { column, reason });
            }
        }
        Ok(())
    }
}

/// Writes a cell that is not NULL.
fn cell(reading: Reading, bytes: &[u8], scratch: &mut String, block: &mut BlockWriter) -> Option<()> {
    match reading {
        Reading::Form(form) => block.cell(read(form, bytes, scratch)?),
        Reading::List(form) => {
            let mut element = |bytes: &[u8], list: &mut ArrayBuf| {
                list.push(read(form, bytes, scratch)?);
                Some(())
            };
            block.cell(Value::Array(array::read(bytes, &mut element)?.as_array()));
        }
        Reading::Formless | Reading::FormlessList => return None,
    }
    Some(())
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
