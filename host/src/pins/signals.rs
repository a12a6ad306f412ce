//! Which signals a library handles: the one kind of pointer into it that can be looked up.
#![expect(unsafe_code, reason = "asks the system for signal dispositions")]

use std::mem::MaybeUninit;
use std::ops::Range;

/// The signals whose handler lies in `range`.
pub fn handlers_in(range: &Range<usize>) -> Vec<i32> {
    (1..=libc::SIGRTMAX()).filter(|&signal| handler(signal).is_some_and(|at| range.contains(&at))).collect()
}

/// The address that a signal is delivered to; `None` for a signal that has no disposition.
fn handler(signal: i32) -> Option<usize> {
    let mut found = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: a null new action changes nothing; the old one is written to `found`.
    let outcome = unsafe { libc::sigaction(signal, std::ptr::null(), found.as_mut_ptr()) };
    // SAFETY: all-zero bytes are a valid `sigaction`, and the call only overwrites them with another.
    (outcome == 0).then(|| unsafe { found.assume_init() }.sa_sigaction)
}
