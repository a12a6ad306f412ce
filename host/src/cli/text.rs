//! Words and tables for people.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Columns that line up, two spaces apart; the last one may be as long as it likes.
#[derive(Debug, Default)]
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table under these headings.
    pub(super) fn new(headings: &[&str]) -> Table {
        Table { rows: vec![headings.iter().map(|heading| (*heading).to_owned()).collect()] }
    }

    /// Adds a row; an empty cell is shown as a dash.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let cell = |cell: String| if cell.is_empty() { "-".to_owned() } else { cell };
        self.rows.push(cells.into_iter().map(cell).collect());
    }

    /// The lines, each behind `indent`.
    pub(super) fn render(&self, indent: &str) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell: &String| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = indent.to_owned();
            for (cell, width) in row.iter().zip(&widths) {
                // Writing to a `String` cannot fail.
                let _ = write!(line, "{cell:<width$}  ");
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// How this program was called, so that what is suggested can be typed.
pub(super) fn program_name() -> String {
    let called = std::env::args_os().next().map(PathBuf::from).unwrap_or_default();
    if called.components().count() < 2 {
        return "host".to_owned();
    }
    let here = std::env::current_dir().unwrap_or_default();
    called.strip_prefix(&here).unwrap_or(&called).display().to_string()
}

/// `3 plugins`, `1 plugin`.
pub(super) fn count(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

/// How long something took: `0.4 ms`, `312 ms`, `8.1 s`.
pub(super) fn took(ms: f64) -> String {
    match ms {
        ms if ms < 1.0 => format!("{ms:.1} ms"),
        ms if ms < 1000.0 => format!("{ms:.0} ms"),
        ms => format!("{:.1} s", ms / 1000.0),
    }
}

/// How much memory: `812 B`, `3.4 KiB`, `1.2 MiB`.
pub(super) fn size(bytes: i64) -> String {
    let units = ["KiB", "MiB", "GiB"];
    let mut amount = bytes as f64;
    let mut unit = "B";
    for larger in units {
        if amount.abs() < 1024.0 {
            break;
        }
        amount /= 1024.0;
        unit = larger;
    }
    if unit == "B" { format!("{bytes} B") } else { format!("{amount:.1} {unit}") }
}

/// How long something has been: `12 s`, `5 min`, `3 h`, `2 days`.
pub(super) fn lasted(ms: u64) -> String {
    match ms / 1000 {
        s if s < 120 => format!("{s} s"),
        s if s < 120 * 60 => format!("{} min", s / 60),
        s if s < 48 * 3600 => format!("{} h", s / 3600),
        s => format!("{} days", s / 86400),
    }
}

/// An address as a client on this machine reaches it.
pub(super) fn url(address: SocketAddr) -> String {
    if !address.ip().is_unspecified() {
        return format!("http://{address}/");
    }
    let local = if address.is_ipv4() { "127.0.0.1" } else { "[::1]" };
    format!("http://{local}:{}/ and every other address of this machine", address.port())
}

/// Text from elsewhere, made harmless: it cannot steer a terminal, nor pass for a line of the host's.
pub(super) fn harmless(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.trim_end().chars() {
        match character {
            '\n' => shown.push_str("\n    "),
            '\t' => shown.push(' '),
            c if is_steering(c) => shown.extend(c.escape_default()),
            c => shown.push(c),
        }
    }
    shown
}

/// As [`harmless`], for the host's own words and the compiler's: lines stay lines, and colours colours.
pub(super) fn harmless_colours(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        if let Some(length) = colour(rest) {
            shown.push_str(&rest[..length]);
            rest = &rest[length..];
            continue;
        }
        match character {
            '\n' | '\t' => shown.push(character),
            c if is_steering(c) => shown.extend(c.escape_default()),
            c => shown.push(c),
        }
        rest = &rest[character.len_utf8()..];
    }
    shown
}

/// The length of the sequence at the start of `text` that sets a colour or a weight, if there is one.
fn colour(text: &str) -> Option<usize> {
    let numbers = text.strip_prefix("\x1b[")?;
    let end = numbers.find(|c: char| !c.is_ascii_digit() && c != ';')?;
    numbers[end..].starts_with('m').then_some("\x1b[".len() + end + 1)
}

/// Whether a character can steer a terminal or reorder what is around it, or ends a line for some readers.
fn is_steering(c: char) -> bool {
    let is_of_bidi =
        matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || is_of_bidi || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}')
}

/// Time of day and date from seconds since the Unix epoch, both in UTC: `2026-11-21`, `12:01:02`.
pub(super) fn utc(seconds: u64) -> (String, String) {
    let (days, second) = (seconds / 86400, seconds % 86400);
    // Days are counted from 1 March of year 0, so that the leap day is the last of a year.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let time = format!("{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60);
    (format!("{year}-{month:02}-{day:02}"), time)
}
