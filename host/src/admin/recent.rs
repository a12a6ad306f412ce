//! The newest lines of the log, kept in memory for `host logs`.
//!
//! Owns the lines and their numbers; does not decide what is logged nor how a line looks. Whoever sets the
//! log up fills it, once per line.
//!
//! Lines lie packed, one behind the other, in memory that is taken whole with the first of them. As values of
//! their own, with a block for each text, the same lines took up to a megabyte, which came piece by piece over
//! the first hundreds of reloads: growth that looked like a leak.
//!
//! # Invariants
//!
//! - It never holds more than [`MOST_LINES`] lines nor more than [`ROOM`] bytes: the oldest go first.
//! - It takes no more memory after the first line.
//! - Numbers begin at 1, rise by one, and are never given twice in one process.

use std::collections::VecDeque;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// How many lines are kept.
const MOST_LINES: usize = 2_000;
/// How much room they have, in bytes: that many lines of the usual length, and some long ones.
const ROOM: usize = 384 << 10;
/// How much is kept of one message, in bytes.
const LONGEST_MESSAGE: usize = ROOM / 4;
/// How much is kept of each other part of a line, in bytes.
const LONGEST_PART: usize = ROOM / 32;

/// One line of the log, in its parts. A part that does not apply is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// Its number in this process.
    pub seq: u64,
    /// When it was logged, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// `error`, `warn`, `info`, `debug` or `trace`.
    pub level: String,
    /// Whose words it is: `plugin`, `access`, or a module of the host.
    pub target: String,
    /// The plugin that said it, or that it is about.
    pub plugin: String,
    /// Whether the plugin is named in `message` already.
    pub is_plugin_in_message: bool,
    /// The number of the plugin's generation.
    pub generation: String,
    /// The route, as `GET /{id}`.
    pub route: String,
    /// The request it was said for.
    pub request_id: String,
    /// The module of the plugin that said it.
    pub origin: String,
    /// What was said.
    pub message: String,
    /// All other fields, as ` name=value`.
    pub fields: String,
}

impl LogLine {
    /// Shortens parts that would drive too many other lines out.
    fn shorten(&mut self) {
        shorten(&mut self.message, LONGEST_MESSAGE);
        for part in [
            &mut self.level,
            &mut self.target,
            &mut self.plugin,
            &mut self.generation,
            &mut self.route,
            &mut self.request_id,
            &mut self.origin,
            &mut self.fields,
        ] {
            shorten(part, LONGEST_PART);
        }
    }
}

/// Keeps the beginning of a text that is too long, and says how much is missing.
fn shorten(text: &mut String, longest: usize) {
    if text.len() > longest {
        let end = text.floor_char_boundary(longest);
        let missing = text.len() - end;
        text.truncate(end);
        text.push_str(&format!(" [and {missing} bytes more]"));
    }
}

/// The newest lines of this process's log. Any thread may use it; no call blocks for longer than a copy takes.
#[derive(Debug, Default)]
pub struct RecentLog {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// The lines, packed. Has [`ROOM`] from the first line on.
    packed: VecDeque<u8>,
    /// How long each of them is there.
    lengths: VecDeque<usize>,
    last: u64,
}

impl RecentLog {
    /// Keeps a line; gives it its number. Of one that is very long the beginning is kept.
    pub fn push(&self, mut line: LogLine) {
        line.shorten();
        let mut kept = self.kept.lock();
        kept.last += 1;
        line.seq = kept.last;
        let packed = rmp_serde::to_vec(&line).expect("numbers and texts can be packed");
        kept.push(&packed);
    }

    /// The lines after number `seq` that are still kept, the oldest first.
    pub fn after(&self, seq: u64) -> Vec<LogLine> {
        let (packed, lengths) = self.kept.lock().after(seq);
        let mut rest = &packed[..];
        let mut unpack = |length| {
            let (line, others) = rest.split_at(length);
            rest = others;
            rmp_serde::from_slice(line).expect("it was packed here, from a line")
        };
        lengths.into_iter().map(&mut unpack).collect()
    }
}

impl Kept {
    fn push(&mut self, line: &[u8]) {
        if self.packed.capacity() == 0 {
            // Written to, so that the system provides all of it now and not page by page.
            self.packed = VecDeque::from(vec![b' '; ROOM]);
            self.packed.clear();
            self.lengths.reserve_exact(MOST_LINES);
        }
        while self.lengths.len() == MOST_LINES || self.packed.len() + line.len() > ROOM {
            let Some(oldest) = self.lengths.pop_front() else { break };
            self.packed.drain(..oldest);
        }
        self.packed.extend(line);
        self.lengths.push_back(line.len());
    }

    /// The lines after a number, packed, and how long each of them is.
    fn after(&self, seq: u64) -> (Vec<u8>, Vec<usize>) {
        let before = self.last - self.lengths.len() as u64;
        let known = seq.saturating_sub(before).min(self.lengths.len() as u64) as usize;
        let from: usize = self.lengths.range(..known).sum();
        (self.packed.range(from..).copied().collect(), self.lengths.range(known..).copied().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::{LONGEST_MESSAGE, LONGEST_PART, LogLine, MOST_LINES, ROOM, RecentLog};

    fn said(message: String) -> LogLine {
        LogLine { message, ..LogLine::default() }
    }

    #[test]
    fn lines_are_numbered_and_the_oldest_go_first() {
        let log = RecentLog::default();
        for number in 1..=MOST_LINES + 5 {
            log.push(said(number.to_string()));
        }
        let all = log.after(0);
        assert_eq!((all.len(), all[0].seq, all[0].message.as_str()), (MOST_LINES, 6, "6"));
        let last = u64::try_from(MOST_LINES).unwrap() + 5;
        assert_eq!(log.after(last - 2).iter().map(|line| line.seq).collect::<Vec<_>>(), [last - 1, last]);
        assert!(log.after(last).is_empty() && log.after(last + 7).is_empty());
    }

    #[test]
    fn a_line_is_given_back_as_it_was() {
        let log = RecentLog::default();
        let line = LogLine {
            seq: 1,
            at_ms: 1_795_000_000_000,
            level: "info".to_owned(),
            target: "plugin".to_owned(),
            plugin: "shop".to_owned(),
            is_plugin_in_message: true,
            generation: "7".to_owned(),
            route: "GET /{id}".to_owned(),
            request_id: "4f1c".to_owned(),
            origin: "shop::stock".to_owned(),
            message: "caf\u{e9} \"closed\"\nfor today".to_owned(),
            fields: " rows=3".to_owned(),
        };
        log.push(LogLine { seq: 0, ..line.clone() });
        assert_eq!(log.after(0), [line]);
    }

    /// Memory is taken once: lines of all lengths come and go within it.
    #[test]
    fn it_takes_no_more_memory_after_the_first_line() {
        let log = RecentLog::default();
        let taken = |log: &RecentLog| {
            let kept = log.kept.lock();
            (kept.packed.capacity(), kept.lengths.capacity())
        };
        log.push(said("first".to_owned()));
        let first = taken(&log);
        for number in 0..3 * MOST_LINES {
            log.push(said("x".repeat(number * 37 % 2_000)));
            assert_eq!(taken(&log), first);
        }
        let kept = log.kept.lock();
        let packed = (kept.packed.len(), kept.lengths.iter().sum::<usize>());
        assert!(packed.0 == packed.1 && packed.0 > ROOM - 3_000, "{packed:?}");
    }

    #[test]
    fn of_very_long_lines_the_beginning_is_kept_and_the_newest_always_stays() {
        let log = RecentLog::default();
        let long = "\u{e9}".repeat(ROOM);
        for number in 1..=10 {
            log.push(LogLine {
                plugin: long.clone(),
                fields: long.clone(),
                ..said(format!("{number}{long}"))
            });
        }
        let newest = log.after(9).pop().unwrap();
        assert!(newest.seq == 10 && newest.message.starts_with("10\u{e9}"));
        let words = format!(" [and {} bytes more]", 2 * ROOM + 2 - LONGEST_MESSAGE);
        assert!(newest.message.ends_with(&words), "{}", &newest.message[newest.message.len() - 40..]);
        assert!(newest.fields.len() < LONGEST_PART + 40);
        assert!(log.after(0).len() > 1);
    }
}
