//! What an upgrade drops of the older value, by name: for the host to say it.
//!
//! # Invariants
//!
//! - Each field is named once, however many values had it, so the list is as long as the definitions at most.

use std::collections::HashMap;
use std::fmt::Write;

use super::Old;
use crate::resident::layout::short;

/// What is dropped.
#[derive(Debug, Default)]
pub(super) struct Lost {
    /// By owner and name, with the place in the order of the first notes.
    known: HashMap<(String, String), usize>,
    /// Words and how often.
    found: Vec<(String, u64)>,
}

impl Lost {
    /// A field is dropped.
    pub(super) fn note(&mut self, owner: &str, name: &str, part: Old<'_>) {
        if part.size() > 0 {
            self.count((owner.to_owned(), name.to_owned()), || {
                format!("{owner}.{name}: {}", short(part.ty.name()))
            });
        }
    }

    /// A value is dropped as a whole.
    pub(super) fn note_whole(&mut self, old: Old<'_>) {
        let name = short(old.ty.name());
        self.count((name.clone(), String::new()), || name);
    }

    fn count(&mut self, what: (String, String), words: impl FnOnce() -> String) {
        let at = *self.known.entry(what).or_insert_with(|| {
            self.found.push((words(), 0));
            self.found.len() - 1
        });
        self.found[at].1 += 1;
    }

    /// One a line, such as `Item.colour: String` or `Item.colour: String (in 3 values)`.
    pub(super) fn to_text(&self) -> String {
        let mut text = String::new();
        for (words, count) in &self.found {
            // Writing to a `String` does not fail.
            let _ = match count {
                1 => writeln!(text, "{words}"),
                _ => writeln!(text, "{words} (in {count} values)"),
            };
        }
        text
    }
}
