//! Tombstones: freed ranges that stay inaccessible for a while.
//!
//! The kernel gives a freed range to the next mapping that fits, most likely the next generation. A stale
//! pointer would then run *other* code. Over a tombstone it is a fault at a known place instead.
//!
//! # Invariants
//!
//! - [`KEPT`] of them from the first on, so the process's mappings do not grow with the number of reloads.
#![expect(unsafe_code, reason = "maps and unmaps address ranges")]

use std::collections::VecDeque;
use std::ffi::{c_int, c_void};
use std::ops::Range;
use std::ptr;
use std::sync::Mutex;

use super::code::{Label, lock};

/// How many of the newest are kept.
const KEPT: usize = 32;
/// The smallest page; a larger one would make a call fail, and there would be no tombstone.
const PAGE: usize = 4096;

static BURIED: Mutex<VecDeque<Tombstone>> = Mutex::new(VecDeque::new());

struct Tombstone {
    start: usize,
    len: usize,
    /// What lay there; `None` for a page that holds a place.
    label: Option<Label>,
}

impl Tombstone {
    /// Makes a free range inaccessible; at `wanted` as far as `flags` say so, else anywhere.
    fn map(wanted: *mut c_void, len: usize, flags: c_int) -> Option<Tombstone> {
        // Shared, though with nobody: private ones that lie side by side become one mapping, and the number of
        // the process's mappings, by which an operator sees a leak, would go up and down with where libraries fall.
        let flags = flags | libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a fresh anonymous mapping that replaces nothing: no caller passes `MAP_FIXED`.
        let found = unsafe { libc::mmap(wanted, len, libc::PROT_NONE, flags, -1, 0) };
        (found != libc::MAP_FAILED).then_some(Tombstone { start: found as usize, len, label: None })
    }
}

/// Makes a range that has just been unmapped inaccessible; `label` is whose it was. Does nothing where another
/// mapping was faster.
pub fn bury(range: &Range<usize>, label: Option<Label>) {
    let start = range.start / PAGE * PAGE;
    let len = range.end.next_multiple_of(PAGE) - start;
    let wanted = ptr::without_provenance_mut::<c_void>(start);
    let Some(mut tombstone) = Tombstone::map(wanted, len, libc::MAP_FIXED_NOREPLACE) else { return };
    tombstone.label = label;
    let mut buried = lock(&BURIED);
    if buried.is_empty() {
        // Single pages hold the places of those to come, so that the first reloads do not look like a leak.
        buried.extend((1..KEPT).filter_map(|_| Tombstone::map(ptr::null_mut(), PAGE, 0)));
    }
    buried.push_back(tombstone);
    if buried.len() > KEPT
        && let Some(oldest) = buried.pop_front()
    {
        // SAFETY: a mapping of this file's own, removed once; nobody can have a reference into it.
        unsafe { libc::munmap(ptr::without_provenance_mut(oldest.start), oldest.len) };
    }
}

/// Tells `body` whose code an address lay in that is unmapped now, and how far into it. For signal handlers.
pub(super) fn with_former_owner(address: usize, body: impl FnOnce(&Label, usize)) -> Option<()> {
    // Held for a moment by the thread that unmaps; a record without these words is better than none.
    let buried = BURIED.try_lock().ok()?;
    let is_it =
        |tombstone: &&Tombstone| (tombstone.start..tombstone.start + tombstone.len).contains(&address);
    let tombstone = buried.iter().rev().find(is_it)?;
    body(tombstone.label.as_ref()?, address - tombstone.start);
    Some(())
}
