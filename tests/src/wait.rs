//! Waiting for something to become true, with a deadline.
//!
//! Owns: the only polling loop of the tests. Does not own: what is waited for.
//!
//! `TESTS_PATIENCE=20` makes every deadline twenty times as long, for hosts that run under a tool.

use std::fmt::Display;
use std::thread;
use std::time::{Duration, Instant};

/// As long as anything may take that does not compile code.
///
/// Generous, for the machine may be busy; a passing test never waits for it.
pub const SOON: Duration = Duration::from_secs(20);

/// As long as a build by cargo may take, a cold one included.
pub const BUILD: Duration = Duration::from_secs(180);

/// Asks `probe` until it answers `Ok`, and returns that.
///
/// `probe` returns what it saw instead as its error.
///
/// # Panics
///
/// When the deadline passes: with `what` and the last thing seen.
#[track_caller]
pub fn eventually<T, E: Display>(
    deadline: Duration,
    what: &str,
    mut probe: impl FnMut() -> Result<T, E>,
) -> T {
    let deadline = deadline * patience();
    let start = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        match probe() {
            Ok(value) => return value,
            Err(seen) if start.elapsed() >= deadline => {
                panic!("waited {deadline:?} for {what}; last seen: {seen}")
            }
            Err(_) => thread::park_timeout(pause),
        }
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// How much longer than usual everything may take.
pub(crate) fn patience() -> u32 {
    std::env::var("TESTS_PATIENCE").ok().and_then(|times| times.parse().ok()).unwrap_or(1)
}
