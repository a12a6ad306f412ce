//! What a database says of an error beside its words and its code.

use crate::db::Value;
use crate::db::rows::{Block, BlockWriter};

/// What a database says of an error beside its words and its code, as far as it knows.
///
/// PostgreSQL says nearly all of it. SQLite names the constraint of a CHECK, or else table and column; and the
/// position of what it cannot read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ErrorDetails {
    /// The schema of the table.
    pub schema: Option<String>,
    /// The table.
    pub table: Option<String>,
    /// The column.
    pub column: Option<String>,
    /// The constraint that does not hold.
    pub constraint: Option<String>,
    /// More words on what is wrong, such as the values of a key.
    pub detail: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
    /// Where in the statement, in characters from 1.
    pub position: Option<u32>,
}

impl ErrorDetails {
    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        *self == ErrorDetails::default()
    }

    /// The details as a block of one row, for the boundary.
    pub fn to_block(&self) -> Vec<u8> {
        let texts = [
            ("schema", &self.schema),
            ("table", &self.table),
            ("column", &self.column),
            ("constraint", &self.constraint),
            ("detail", &self.detail),
            ("hint", &self.hint),
        ];
        let mut known: Vec<(&str, Value<'_>)> = texts
            .into_iter()
            .filter_map(|(name, text)| Some((name, Value::Text(text.as_deref()?))))
            .collect();
        known.extend(self.position.map(|position| ("position", Value::Int(i64::from(position)))));
        let mut block = BlockWriter::new();
        known.iter().for_each(|(name, _)| block.column(name, ""));
        block.row();
        known.iter().for_each(|(_, value)| block.cell(*value));
        block.finish()
    }

    /// The details that such a block tells; what it tells beside them is left out.
    pub fn from_block(bytes: Vec<u8>) -> ErrorDetails {
        let mut details = ErrorDetails::default();
        let Ok(block) = Block::parse(bytes) else { return details };
        for column in 0..block.columns() {
            let name = block.column(column).unwrap_or_default().0;
            match (name, block.cell(0, column)) {
                ("position", Some(Ok(Value::Int(position)))) => {
                    details.position = u32::try_from(position).ok()
                }
                (name, Some(Ok(Value::Text(text)))) => {
                    if let Some(place) = details.text_named(name) {
                        *place = Some(text.to_owned());
                    }
                }
                _ => {}
            }
        }
        details
    }

    fn text_named(&mut self, name: &str) -> Option<&mut Option<String>> {
        Some(match name {
            "schema" => &mut self.schema,
            "table" => &mut self.table,
            "column" => &mut self.column,
            "constraint" => &mut self.constraint,
            "detail" => &mut self.detail,
            "hint" => &mut self.hint,
            _ => return None,
        })
    }
}
