//! A parsed file with the places of its keys, and typed reading of its values.
//!
//! # Invariants
//!
//! - A value is read once, by one function that also says what it has to be.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use toml::de::DeTable;
use toml::{Table, Value};

use super::ConfigError;
use super::values::{nearest, size};

/// The file.
pub(super) struct Document<'a> {
    path: &'a Path,
    text: &'a str,
    table: Table,
}

/// One table of it; an absent one reads as an empty one.
pub(super) struct Section<'a> {
    document: &'a Document<'a>,
    /// Its name, as in `plugin.hello`; empty for the file itself.
    name: String,
    table: Option<&'a Table>,
}

impl<'a> Document<'a> {
    pub(super) fn parse(path: &'a Path, text: &'a str) -> Result<Document<'a>, ConfigError> {
        match text.parse::<Table>() {
            Ok(table) => Ok(Document { path, text, table }),
            Err(error) => {
                let line = error.span().map(|span| line_of(text, span.start));
                Err(ConfigError::Syntax {
                    place: place(path, line),
                    words: error.message().replace('\n', ", "),
                })
            }
        }
    }

    /// The table `name`, as in `plugin.hello`.
    pub(super) fn section(&self, name: &str) -> Result<Section<'_>, ConfigError> {
        let mut table = &self.table;
        for part in name.splitn(2, '.') {
            match table.get(part) {
                Some(Value::Table(inner)) => table = inner,
                None => return Ok(Section { document: self, name: name.to_owned(), table: None }),
                Some(_) => {
                    return Err(ConfigError::Value {
                        place: place(self.path, self.line(name, None)),
                        key: part.to_owned(),
                        wanted: format!("must be a table: write `[{name}]`"),
                    });
                }
            }
        }
        Ok(Section { document: self, name: name.to_owned(), table: Some(table) })
    }

    /// Refuses what is not in `known` at the top of the file.
    pub(super) fn only(&self, name: &str, known: &[&str]) -> Result<(), ConfigError> {
        Section { document: self, name: name.to_owned(), table: Some(&self.table) }.only(known)
    }

    /// The line of a key, found by parsing once more: only errors ask.
    fn line(&self, section: &str, key: Option<&str>) -> Option<usize> {
        let root = DeTable::parse(self.text).ok()?;
        let mut table = root.get_ref();
        let mut start = None;
        let parts = section.splitn(2, '.').filter(|part| !part.is_empty()).chain(key);
        for part in parts {
            let (name, value) = table.iter().find(|(name, _)| name.get_ref() == part)?;
            start = Some(name.span().start);
            match value.get_ref().as_table() {
                Some(inner) => table = inner,
                None => break,
            }
        }
        start.map(|start| line_of(self.text, start))
    }
}

impl<'a> Section<'a> {
    pub(super) fn keys(&self) -> impl Iterator<Item = &'a String> {
        self.table.into_iter().flat_map(Table::keys)
    }

    /// Refuses a key that is not in `known`.
    pub(super) fn only(&self, known: &[&str]) -> Result<(), ConfigError> {
        let Some(key) = self.keys().find(|key| !known.contains(&key.as_str())) else { return Ok(()) };
        let what = match self.name.as_str() {
            "" if self.table.is_some_and(|table| table[key].is_table()) => format!("table `[{key}]`"),
            "" => format!("key `{key}` outside any table"),
            name => format!("key `{key}` in [{name}]"),
        };
        let advice = match nearest(key, known) {
            Some(word) => format!("did you mean `{word}`?"),
            None => format!("there is {}", known.join(", ")),
        };
        Err(ConfigError::Unknown { place: self.place(key), what, advice })
    }

    /// The error for a value that cannot be used.
    pub(super) fn wrong(&self, key: &str, wanted: impl Into<String>) -> ConfigError {
        ConfigError::Value { place: self.place(key), key: key.to_owned(), wanted: wanted.into() }
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<&'a str>, ConfigError> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::String(text)) if !text.is_empty() => Ok(Some(text)),
            Some(_) => Err(self.wrong(key, "must be a text in quotes, and not an empty one")),
        }
    }

    /// A list of names.
    pub(super) fn names(&self, key: &str) -> Result<BTreeSet<String>, ConfigError> {
        let wrong = || self.wrong(key, "must be a list of names, such as [\"billing\", \"shop\"]");
        match self.value(key) {
            None => Ok(BTreeSet::new()),
            Some(Value::Array(list)) => {
                list.iter().map(|name| name.as_str().map(str::to_owned).ok_or_else(wrong)).collect()
            }
            Some(_) => Err(wrong()),
        }
    }

    /// A list of texts, none of them empty.
    pub(super) fn texts(&self, key: &str, example: &str) -> Result<Vec<&'a str>, ConfigError> {
        let wrong = || self.wrong(key, format!("must be a list of texts, such as [{example}]"));
        match self.value(key) {
            None => Ok(Vec::new()),
            Some(Value::Array(list)) => {
                let text =
                    |value: &'a Value| value.as_str().filter(|text| !text.is_empty()).ok_or_else(wrong);
                list.iter().map(text).collect()
            }
            Some(_) => Err(wrong()),
        }
    }

    pub(super) fn boolean(&self, key: &str) -> Result<Option<bool>, ConfigError> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::Boolean(value)) => Ok(Some(*value)),
            Some(_) => Err(self.wrong(key, "must be true or false, without quotes")),
        }
    }

    /// A number of things, at least `least`.
    pub(super) fn count(&self, key: &str, least: usize) -> Result<Option<usize>, ConfigError> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::Integer(number)) if usize::try_from(*number).is_ok_and(|n| n >= least) => {
                Ok(usize::try_from(*number).ok())
            }
            Some(_) => Err(self.wrong(key, format!("must be a whole number, at least {least}"))),
        }
    }

    /// A number of bytes, at least `least`.
    pub(super) fn size(&self, key: &str, least: usize) -> Result<Option<usize>, ConfigError> {
        let bytes = match self.value(key) {
            None => return Ok(None),
            Some(Value::String(text)) => size(text),
            Some(other) => size(&other.to_string()),
        };
        match bytes {
            Ok(bytes) if bytes >= least => Ok(Some(bytes)),
            Ok(_) => Err(self.wrong(key, format!("must be at least {least} bytes"))),
            Err(wanted) => Err(self.wrong(key, wanted)),
        }
    }

    /// Milliseconds.
    pub(super) fn duration(&self, key: &str) -> Result<Option<Duration>, ConfigError> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::Integer(number)) if *number > 0 => {
                Ok(Some(Duration::from_millis(number.unsigned_abs())))
            }
            Some(_) => Err(self.wrong(key, "must be a whole number of milliseconds, at least 1")),
        }
    }

    /// Milliseconds, or `"off"`.
    pub(super) fn timeout(&self, key: &str) -> Result<Option<Duration>, ConfigError> {
        match self.value(key) {
            Some(Value::String(text)) if text == "off" => Ok(Some(Duration::MAX)),
            _ => self.duration(key).map_err(|_| {
                self.wrong(key, "must be a whole number of milliseconds, at least 1, or \"off\"")
            }),
        }
    }

    pub(super) fn is_list(&self, key: &str) -> bool {
        self.value(key).is_some_and(Value::is_array)
    }

    fn value(&self, key: &str) -> Option<&'a Value> {
        self.table?.get(key)
    }

    fn place(&self, key: &str) -> String {
        place(self.document.path, self.document.line(&self.name, Some(key)))
    }
}

fn place(path: &Path, line: Option<usize>) -> String {
    match line {
        Some(line) => format!("{}:{line}", path.display()),
        None => path.display().to_string(),
    }
}

fn line_of(text: &str, byte: usize) -> usize {
    let before = &text.as_bytes()[..byte.min(text.len())];
    1 + before.iter().filter(|b| **b == b'\n').count()
}
