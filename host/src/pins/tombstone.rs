//! Tombstones: freed ranges that stay inaccessible for a while.
//!
//! The kernel gives a freed range to the next mapping that fits, most likely the next generation. A stale
//! pointer would then run *other* code. Over a tombstone it is a fault at a known place instead.
//!
//! # Invariants
//!
//! - At most [`KEPT`] of them, so the process's mappings do not grow with the number of reloads.
#![expect(unsafe_code, reason = "maps and unmaps address ranges")]

use std::collections::VecDeque;
use std::ffi::c_void;
use std::ops::Range;
use std::ptr;
use std::sync::Mutex;

use super::code::lock;

/// How many of the newest are kept.
const KEPT: usize = 32;

static BURIED: Mutex<VecDeque<Tombstone>> = Mutex::new(VecDeque::new());

struct Tombstone {
    start: usize,
    len: usize,
}

/// Makes a range that has just been unmapped inaccessible. Does nothing where another mapping was faster.
pub fn bury(range: &Range<usize>) {
    // The smallest page; a larger one would make the call fail, and there would be no tombstone.
    const PAGE: usize = 4096;
    let start = range.start / PAGE * PAGE;
    let len = range.end.next_multiple_of(PAGE) - start;
    // Shared, though with nobody: private ones that lie side by side become one mapping, and the number of the
    // process's mappings, by which an operator sees a leak, would go up and down with where libraries fall.
    let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED_NOREPLACE;
    let wanted = ptr::without_provenance_mut::<c_void>(start);
    // SAFETY: a fresh anonymous mapping that replaces nothing.
    let found = unsafe { libc::mmap(wanted, len, libc::PROT_NONE, flags, -1, 0) };
    if found == libc::MAP_FAILED {
        return;
    }
    let mut buried = lock(&BURIED);
    buried.push_back(Tombstone { start: found as usize, len });
    if buried.len() > KEPT
        && let Some(oldest) = buried.pop_front()
    {
        // SAFETY: a mapping of this file's own, removed once; nobody can have a reference into it.
        unsafe { libc::munmap(ptr::without_provenance_mut(oldest.start), oldest.len) };
    }
}
