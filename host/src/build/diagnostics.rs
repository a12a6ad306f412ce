//! What the compiler said, in its own words and in one line.
//!
//! Owns the counting of errors and warnings and the choice of the one line that a log or a status page
//! shows. The words themselves are never edited; [`plain`] only takes the colours out.

use std::path::Path;

use cargo_metadata::diagnostic::{Diagnostic, DiagnosticLevel, DiagnosticSpan};

/// Everything the compiler said during one build.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Diagnostics {
    /// The compiler's words, coloured with ANSI sequences.
    pub rendered: String,
    /// How many errors they contain.
    pub errors: usize,
    /// How many warnings they contain.
    pub warnings: usize,
    /// The first error as `src/lib.rs:12:5: mismatched types`.
    pub first_error: Option<String>,
}

impl Diagnostics {
    /// Takes in one message; `foreign` names its package when that is not the plugin's own.
    pub(super) fn add(&mut self, diagnostic: &Diagnostic, foreign: Option<&str>) {
        if is_tally(diagnostic) {
            return;
        }
        if let Some(rendered) = &diagnostic.rendered {
            self.rendered.push_str(rendered);
        }
        match diagnostic.level {
            DiagnosticLevel::Error | DiagnosticLevel::Ice => {
                self.errors += 1;
                self.first_error.get_or_insert_with(|| one_line(diagnostic, foreign));
            }
            DiagnosticLevel::Warning => self.warnings += 1,
            _ => {}
        }
    }

    /// The words without colours, for a file, a page or a terminal that has none.
    pub fn plain(&self) -> String {
        plain(&self.rendered)
    }
}

/// rustc ends with sums ("aborting due to 2 previous errors", "3 warnings emitted"), which cargo hides
/// from its users and which are not diagnostics to count.
fn is_tally(diagnostic: &Diagnostic) -> bool {
    let text = &diagnostic.message;
    let is_sum = text.starts_with("aborting due to")
        || text.ends_with("warning emitted")
        || text.ends_with("warnings emitted");
    diagnostic.spans.is_empty() && is_sum
}

fn one_line(diagnostic: &Diagnostic, foreign: Option<&str>) -> String {
    let message = diagnostic.message.lines().next().unwrap_or_default();
    let primary = diagnostic.spans.iter().find(|span| span.is_primary).or(diagnostic.spans.first());
    let place = primary.map(|span| {
        let span = written(span);
        format!("{}:{}:{}: ", span.file_name, span.line_start, span.column_start)
    });
    let package = foreign.map(|name| format!("{name}: "));
    format!("{}{}{message}", package.unwrap_or_default(), place.unwrap_or_default())
}

/// Where the author wrote it: a place inside somebody else's macro is of no use, its call is.
fn written(span: &DiagnosticSpan) -> &DiagnosticSpan {
    let is_elsewhere = Path::new(&span.file_name).is_absolute() || span.file_name.starts_with('<');
    match &span.expansion {
        Some(expansion) if is_elsewhere => written(&expansion.span),
        _ => span,
    }
}

/// `text` without ANSI escape sequences.
pub fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character != '\u{1b}' {
            plain.push(character);
            continue;
        }
        match characters.next() {
            // Colours and the like end with a letter or another byte from `@` on.
            Some('[') => drop(characters.find(|c| ('@'..='~').contains(c))),
            // Links are ended by BEL, or by ESC and a backslash.
            Some(']') => {
                let end = characters.find(|c| matches!(c, '\u{7}' | '\u{1b}'));
                end.filter(|end| *end == '\u{1b}').and_then(|_| characters.next());
            }
            _ => {}
        }
    }
    plain
}
