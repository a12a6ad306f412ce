//! Rows as an author reads them.
//!
//! Owns the names, the borrowing and the errors. Does not know the format of the block beneath;
//! that is `rows.rs`.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use crate::db::rows::Block;
use crate::db::value::Mismatch;
use crate::db::{FromValue, Value};

/// The rows of a query, in one piece of memory.
///
/// ```no_run
/// # use plugin_api::db;
/// # fn f(conn: &db::Connection) -> Result<(), Box<dyn std::error::Error>> {
/// for row in &conn.query("SELECT id, who FROM entry", &[])? {
///     let (id, who): (i64, &str) = (row.get("id")?, row.get(1)?);
///     println!("{id}: {who}");
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Rows {
    block: Block,
}

impl Rows {
    /// How many rows.
    pub fn len(&self) -> usize {
        self.block.rows()
    }

    /// Whether the query found nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The row at `index`, from 0.
    pub fn get(&self, index: usize) -> Option<Row<'_>> {
        (index < self.len()).then_some(Row { block: &self.block, index })
    }

    /// The first row.
    pub fn first(&self) -> Option<Row<'_>> {
        self.get(0)
    }

    /// All rows, in the order the database gave them.
    pub fn iter(&self) -> Iter<'_> {
        Iter { block: &self.block, next: 0 }
    }

    /// The columns.
    pub fn columns(&self) -> impl ExactSizeIterator<Item = Column<'_>> {
        columns(&self.block)
    }
}

/// For tests of functions that take rows: a block can be written by hand.
impl From<Block> for Rows {
    fn from(block: Block) -> Rows {
        Rows { block }
    }
}

fn columns(block: &Block) -> impl ExactSizeIterator<Item = Column<'_>> {
    (0..block.columns()).map(|index| {
        let (name, type_name) = block.column(index).unwrap_or_default();
        Column { name, type_name }
    })
}

impl<'a> IntoIterator for &'a Rows {
    type Item = Row<'a>;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// Iterates over [`Rows`].
#[derive(Clone, Debug)]
pub struct Iter<'a> {
    block: &'a Block,
    next: usize,
}

impl<'a> Iterator for Iter<'a> {
    type Item = Row<'a>;

    fn next(&mut self) -> Option<Row<'a>> {
        let index = self.next;
        if index >= self.block.rows() {
            return None;
        }
        self.next += 1;
        Some(Row { block: self.block, index })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.block.rows() - self.next;
        (left, Some(left))
    }
}

impl ExactSizeIterator for Iter<'_> {}

/// A column of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column<'a> {
    /// Its name.
    pub name: &'a str,
    /// The database's name of its type, such as `int4`; empty where the database has none.
    pub type_name: &'a str,
}

/// One row, borrowed from its [`Rows`].
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    block: &'a Block,
    index: usize,
}

impl<'a> Row<'a> {
    /// The rows of a block, in order.
    pub(crate) fn all_of(block: &'a Block) -> Iter<'a> {
        Iter { block, next: 0 }
    }

    /// The value of a column, by its name or its place from 0.
    ///
    /// # Errors
    ///
    /// When there is no such column, or its value is NULL, of another type or out of range.
    pub fn get<T: FromValue<'a>>(&self, column: impl ColumnIndex) -> Result<T, ColumnError> {
        let block = self.block;
        let place = column.find(block).ok_or_else(|| ColumnError::NotFound {
            column: column.to_string(),
            known: columns(block).map(|column| column.name.to_owned()).collect(),
        })?;
        // Looked up when they are needed, to tell what is wrong.
        let names = || block.column(place).unwrap_or_default();
        let Some(Ok(value)) = block.cell(self.index, place) else {
            return Err(ColumnError::Malformed { column: names().0.to_owned() });
        };
        let read = if T::NEEDS_TYPE { T::from_typed(value, names().1) } else { T::from_value(value) };
        read.map_err(|mismatch| {
            let (name, type_name) = names();
            mismatch_error(mismatch, name, type_name, value, T::name())
        })
    }

    /// The columns.
    pub fn columns(&self) -> impl ExactSizeIterator<Item = Column<'a>> {
        columns(self.block)
    }
}

fn mismatch_error(
    mismatch: Mismatch,
    name: &str,
    type_name: &str,
    value: Value<'_>,
    wanted: Cow<'static, str>,
) -> ColumnError {
    let column = name.to_owned();
    match mismatch {
        Mismatch::Null => ColumnError::Null { column, wanted },
        Mismatch::Kind => {
            let found = match type_name {
                "" => value.kind().to_owned(),
                type_name => format!("{} ({type_name})", value.kind()),
            };
            ColumnError::WrongType { column, found, wanted }
        }
        Mismatch::Range => ColumnError::OutOfRange { column, value: value.to_string(), wanted },
        Mismatch::Unreadable { reason } => {
            ColumnError::Unreadable { column, value: value.to_string(), wanted, reason }
        }
    }
}

/// A row that keeps its memory alive, otherwise like [`Row`]: of a query that must find one, or of a stream.
#[derive(Clone, Debug)]
pub struct OwnedRow {
    block: Arc<Block>,
    index: usize,
}

impl OwnedRow {
    /// `rows` has at least one row.
    pub(crate) fn first_of(rows: Rows) -> OwnedRow {
        OwnedRow::new(Arc::new(rows.block), 0)
    }

    /// The row at `index`, which the block has.
    pub(crate) fn new(block: Arc<Block>, index: usize) -> OwnedRow {
        OwnedRow { block, index }
    }

    /// The value of a column, by its name or its place from 0.
    ///
    /// # Errors
    ///
    /// As [`Row::get`].
    pub fn get<'a, T: FromValue<'a>>(&'a self, column: impl ColumnIndex) -> Result<T, ColumnError> {
        self.as_row().get(column)
    }

    /// The same row, borrowed.
    pub fn as_row(&self) -> Row<'_> {
        Row { block: &self.block, index: self.index }
    }
}

/// Names a column: its name or its place from 0.
pub trait ColumnIndex: fmt::Display + sealed::Find {}

impl ColumnIndex for &str {}
impl ColumnIndex for usize {}

mod sealed {
    use super::Block;

    /// Finds the place of a column.
    pub trait Find {
        /// The place, if there is such a column.
        fn find(&self, block: &Block) -> Option<usize>;
    }

    impl Find for &str {
        fn find(&self, block: &Block) -> Option<usize> {
            (0..block.columns()).find(|&place| block.column(place).is_some_and(|(name, _)| name == *self))
        }
    }

    impl Find for usize {
        fn find(&self, block: &Block) -> Option<usize> {
            (*self < block.columns()).then_some(*self)
        }
    }
}

/// Why a column could not be read. The row is as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ColumnError {
    /// The result has no such column.
    NotFound {
        /// The name or place that was asked for.
        column: String,
        /// The columns there are.
        known: Vec<String>,
    },
    /// The value is NULL.
    Null {
        /// The column.
        column: String,
        /// The type that was asked for.
        wanted: Cow<'static, str>,
    },
    /// The value is of another type.
    WrongType {
        /// The column.
        column: String,
        /// What it holds.
        found: String,
        /// The type that was asked for.
        wanted: Cow<'static, str>,
    },
    /// The number is too large or too small.
    OutOfRange {
        /// The column.
        column: String,
        /// The number.
        value: String,
        /// The type that was asked for.
        wanted: Cow<'static, str>,
    },
    /// The value is of the right kind, and the type that was asked for cannot be made of it.
    Unreadable {
        /// The column.
        column: String,
        /// The value.
        value: String,
        /// The type that was asked for.
        wanted: Cow<'static, str>,
        /// That type's words.
        reason: String,
    },
    /// The host's bytes do not follow the format.
    Malformed {
        /// The column.
        column: String,
    },
}

impl fmt::Display for ColumnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ColumnError::NotFound { column, known } => {
                write!(f, "no column `{column}`; there are: {}", known.join(", "))
            }
            ColumnError::Null { column, wanted } => {
                write!(f, "column `{column}` is NULL: ask for `Option<{wanted}>`")
            }
            ColumnError::WrongType { column, found, wanted } => {
                write!(f, "column `{column}` holds {found}, not `{wanted}`")
            }
            ColumnError::OutOfRange { column, value, wanted } => {
                write!(f, "column `{column}` holds {value}, which does not fit `{wanted}`")
            }
            ColumnError::Unreadable { column, value, wanted, reason } => {
                write!(f, "column `{column}` holds {value}, which is no `{wanted}`: {reason}")
            }
            ColumnError::Malformed { column } => {
                write!(f, "column `{column}`: the host sent a malformed cell")
            }
        }
    }
}

impl std::error::Error for ColumnError {}

#[cfg(test)]
mod tests;
