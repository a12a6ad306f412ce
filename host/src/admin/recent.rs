//! The newest lines of the log, kept in memory for `host logs`.
//!
//! Owns the lines and their numbers; does not decide what is logged nor how a line looks. Whoever sets the
//! log up fills it, once per line.
//!
//! # Invariants
//!
//! - It never holds more than [`MOST_LINES`] lines nor more than [`MOST_BYTES`] of text: the oldest go first.
//! - Numbers begin at 1, rise by one, and are never given twice in one process.

use std::collections::VecDeque;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// How many lines are kept.
const MOST_LINES: usize = 2_000;
/// How much text is kept, in bytes.
const MOST_BYTES: usize = 1 << 20;

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
    fn size(&self) -> usize {
        let texts = [
            &self.level,
            &self.target,
            &self.plugin,
            &self.generation,
            &self.route,
            &self.request_id,
            &self.origin,
            &self.message,
            &self.fields,
        ];
        size_of::<LogLine>() + texts.iter().map(|text| text.len()).sum::<usize>()
    }
}

/// The newest lines of this process's log. Any thread may use it; no call blocks for longer than a copy takes.
#[derive(Debug, Default)]
pub struct RecentLog {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    lines: VecDeque<LogLine>,
    bytes: usize,
    last: u64,
}

impl RecentLog {
    /// Keeps a line; gives it its number.
    pub fn push(&self, mut line: LogLine) {
        let mut kept = self.kept.lock();
        kept.last += 1;
        line.seq = kept.last;
        kept.bytes += line.size();
        kept.lines.push_back(line);
        while kept.lines.len() > MOST_LINES || (kept.bytes > MOST_BYTES && kept.lines.len() > 1) {
            let Some(oldest) = kept.lines.pop_front() else { break };
            kept.bytes -= oldest.size();
        }
    }

    /// The lines after number `seq` that are still kept, the oldest first.
    pub fn after(&self, seq: u64) -> Vec<LogLine> {
        let kept = self.kept.lock();
        let from = kept.lines.partition_point(|line| line.seq <= seq);
        kept.lines.range(from..).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{LogLine, MOST_BYTES, MOST_LINES, RecentLog};

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
        assert!(log.after(last).is_empty());
    }

    #[test]
    fn long_lines_do_not_add_up_and_the_newest_always_stays() {
        let log = RecentLog::default();
        for number in 0..50 {
            log.push(said(number.to_string().repeat(MOST_BYTES / 20)));
        }
        let kept: usize = log.after(0).iter().map(LogLine::size).sum();
        assert!(kept <= MOST_BYTES && log.after(0).last().unwrap().seq == 50, "{kept}");
        log.push(said("x".repeat(2 * MOST_BYTES)));
        assert_eq!(log.after(0).len(), 1);
    }
}
