//! What a source of connections remembers for the one who looks: its last events, its slowest statements.
//!
//! # Invariants
//!
//! - Both are bounded. A statement's text is kept without its parameters, which may be secret.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use serde::Serialize;

/// Events kept for each pool.
const EVENTS: usize = 32;
/// Statements kept for each pool.
const STATEMENTS: usize = 10;
/// Bytes kept of a statement's text.
const TEXT: usize = 200;

/// Something that happened to a pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PoolEvent {
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// What: `down`, `back`, `reopened`, `leak`, ...
    pub event: &'static str,
    /// The rest of the sentence.
    pub detail: String,
}

/// The last events, oldest first.
#[derive(Debug, Default)]
pub(super) struct Journal(Mutex<VecDeque<PoolEvent>>);

impl Journal {
    pub(super) fn note(&self, event: &'static str, detail: String) {
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let at_ms = u64::try_from(at.as_millis()).unwrap_or(u64::MAX);
        let mut events = self.0.lock();
        if events.len() == EVENTS {
            events.pop_front();
        }
        events.push_back(PoolEvent { at_ms, event, detail });
    }

    pub(super) fn all(&self) -> Vec<PoolEvent> {
        self.0.lock().iter().cloned().collect()
    }
}

/// A statement that took long.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SlowStatement {
    /// The beginning of its text.
    pub statement: String,
    /// Its longest run.
    pub longest_us: u64,
}

/// The statements with the longest runs, the longest first.
#[derive(Debug, Default)]
pub(super) struct Slowest {
    list: Mutex<Vec<SlowStatement>>,
    /// What a run must exceed to come on a full list. Spares the others the lock.
    floor_us: AtomicU64,
}

impl Slowest {
    /// Takes note of a run.
    pub(super) fn note(&self, statement: &str, took: Duration) {
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        if took_us <= self.floor_us.load(Ordering::Relaxed) {
            return;
        }
        let mut end = statement.len().min(TEXT);
        while !statement.is_char_boundary(end) {
            end -= 1;
        }
        let text = statement.get(..end).unwrap_or_default();
        let mut list = self.list.lock();
        match list.iter_mut().find(|known| known.statement == text) {
            // As nearly always, of a statement that runs often.
            Some(known) if took_us <= known.longest_us => return,
            Some(known) => known.longest_us = took_us,
            None => list.push(SlowStatement { statement: text.to_owned(), longest_us: took_us }),
        }
        list.sort_by_key(|known| std::cmp::Reverse(known.longest_us));
        list.truncate(STATEMENTS);
        if let (STATEMENTS, Some(last)) = (list.len(), list.last()) {
            self.floor_us.store(last.longest_us, Ordering::Relaxed);
        }
    }

    pub(super) fn all(&self) -> Vec<SlowStatement> {
        self.list.lock().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_journal_keeps_the_last_events() {
        let journal = Journal::default();
        for number in 0..EVENTS + 3 {
            journal.note("test", number.to_string());
        }
        let events = journal.all();
        assert_eq!((events.len(), events.first().unwrap().detail.as_str()), (EVENTS, "3"));
    }

    #[test]
    fn the_slowest_statements_are_kept_with_their_longest_run() {
        let slowest = Slowest::default();
        for number in 0..30_u64 {
            slowest.note(&format!("SELECT {number}"), Duration::from_micros(100 + number));
        }
        slowest.note("SELECT 29", Duration::from_micros(5));
        slowest.note("SELECT 25", Duration::from_secs(1));
        let list = slowest.all();
        assert_eq!(list.len(), STATEMENTS);
        assert_eq!(
            list.first().unwrap(),
            &SlowStatement { statement: "SELECT 25".to_owned(), longest_us: 1_000_000 }
        );
        assert_eq!(list.last().unwrap().statement, "SELECT 20");
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let slowest = Slowest::default();
        slowest.note(&"\u{fc}".repeat(TEXT), Duration::from_secs(1));
        slowest.note(&format!("x{}", "\u{fc}".repeat(TEXT)), Duration::from_secs(2));
        let lengths: Vec<usize> = slowest.all().iter().map(|slow| slow.statement.len()).collect();
        assert_eq!(lengths, [TEXT - 1, TEXT]);
    }
}
