//! Clients that write, each time with a number of its own, and what must be there afterwards.
//!
//! Owns: the numbers, what became of each, the comparison. Does not own: what is written, nor where it is read.
//!
//! # Invariants
//!
//! - A write that was acknowledged is there exactly once; one that got no answer at most once; one that was
//!   refused not at all.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use crate::http::Client;
use crate::wait::{SOON, eventually};

/// A write: its path and its body.
pub(super) type Write = (String, &'static str);

/// A client in a closed loop, which goes on after a lost answer with the next number.
pub(super) struct Writer {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    thread: JoinHandle<Written>,
}

/// What became of the writes.
#[derive(Default)]
pub(super) struct Written {
    /// Their numbers.
    pub(super) acknowledged: Vec<i64>,
    unanswered: Vec<i64>,
    /// Any other answer, in words.
    refused: Vec<String>,
}

impl Writer {
    pub(super) fn start(address: SocketAddr, write: fn(i64) -> Write) -> Writer {
        let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (until, count) = (Arc::clone(&stop), Arc::clone(&acknowledged));
        let thread = thread::spawn(move || run(address, write, &until, &count));
        Writer { stop, acknowledged, thread }
    }

    /// Waits until one more write has been acknowledged.
    pub(super) fn wait(&self) {
        let before = self.acknowledged.load(Ordering::Relaxed);
        eventually(SOON, "a write to be acknowledged", || {
            if self.acknowledged.load(Ordering::Relaxed) > before { Ok(()) } else { Err("none is") }
        });
    }

    /// Stops the client after its current write.
    pub(super) fn finish(self) -> Written {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("a client does not panic")
    }
}

impl Written {
    /// Compares with how often each number was found in `place`; what is wrong, a line each.
    pub(super) fn compare(&self, place: &str, found: &BTreeMap<i64, u64>) -> Vec<String> {
        let times = |number: &i64| found.get(number).copied().unwrap_or_default();
        let lost = self.acknowledged.iter().filter(|number| times(number) != 1);
        let lost = lost.map(|number| {
            format!("{place}: write {number} was acknowledged and is there {} times", times(number))
        });
        let doubled = self.unanswered.iter().filter(|number| times(number) > 1);
        let doubled =
            doubled.map(|number| format!("{place}: write {number} is there {} times", times(number)));
        let refused = self.refused.iter().map(|words| format!("{place}: {words}"));
        lost.chain(doubled).chain(refused).take(10).collect()
    }
}

fn run(address: SocketAddr, write: fn(i64) -> Write, stop: &AtomicBool, count: &AtomicU64) -> Written {
    let mut client = Client::new(address);
    let mut written = Written::default();
    for number in 1.. {
        if stop.load(Ordering::Relaxed) || written.refused.len() > 100 {
            break;
        }
        let (path, body) = write(number);
        let headers = [("content-type", "application/json")];
        match client.request("POST", &path, &headers, body.as_bytes()) {
            Ok(answer) if answer.status == 200 => {
                written.acknowledged.push(number);
                count.fetch_add(1, Ordering::Relaxed);
            }
            Ok(answer) => written.refused.push(format!("{path}: {} {}", answer.status, answer.text())),
            Err(_) => written.unanswered.push(number),
        }
    }
    written
}
