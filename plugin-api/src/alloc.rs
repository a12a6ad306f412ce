//! The allocator of every plugin: the C library's, which the whole process shares.
//!
//! A resident value is made by one generation, changed by the next and freed by a third. Each has its own
//! copy of this code, so a block must not remember which copy it came from. It does not: [`Alloc`] hands
//! every call to [`System`], on this platform `malloc`, `posix_memalign`, `realloc` and `free` of the C
//! library, and a process has one C library, however many copies of `std` there are. [`System`] puts no
//! header of its own before a block and `free` asks for no layout, so a block of one copy is a block of all.
//!
//! [`plugin!`](crate::plugin) makes it the global allocator. A crate has one: a plugin that names another
//! does not compile, and cannot by accident put a block of a private heap into a shared value.
//!
//! It counts what it hands out and takes back, for `host status`. A block that one generation allocates and
//! another frees is in the count of the one as a gain, of the other as a loss; over all generations of all
//! plugins the sum is right. The block of a value itself, not what it owns, is the host's, and not counted.
//!
//! # Invariants
//!
//! - Nothing that one copy knows and another does not decides about a block. The count is looked at by nobody
//!   here.
#![expect(unsafe_code, reason = "an allocator is unchecked by its trait")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::abi::MemoryStripe;

/// Live bytes of this generation: the sum of all stripes, modulo 2^64. Several, so that threads which allocate
/// at the same time rarely write to the same one.
pub static MEMORY: [MemoryStripe; 8] = [const { MemoryStripe { bytes: AtomicU64::new(0) } }; 8];

/// Adds to the count; a loss is two's complement.
#[inline]
fn count(bytes: u64) {
    // Stacks of different threads lie megabytes apart, so the address of a local tells them from each other,
    // at no cost: a thread-local of a library is a function call. Which stripe it is does not matter.
    let local = 0_u8;
    let place = (&raw const local).addr() >> 16;
    let stripe = (place ^ (place >> 7)) % MEMORY.len();
    MEMORY[stripe].bytes.fetch_add(bytes, Ordering::Relaxed);
}

/// Counts a block, unless there was no memory for it.
#[inline]
fn counted(block: *mut u8, bytes: u64) -> *mut u8 {
    if !block.is_null() {
        count(bytes);
    }
    block
}

/// Takes out of the count a block that the host has taken over, and will free.
pub(crate) fn handed_over(size: usize) {
    count(bytes(size).wrapping_neg());
}

fn bytes(size: usize) -> u64 {
    size as u64
}

/// The allocator that [`plugin!`](crate::plugin) installs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Alloc;

// SAFETY: every method is the method of `System` with the same arguments, whose contract is the same. Counting
// allocates nothing and cannot unwind.
unsafe impl GlobalAlloc for Alloc {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's contract is that of `System`.
        counted(unsafe { System.alloc(layout) }, bytes(layout.size()))
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's contract is that of `System`.
        counted(unsafe { System.alloc_zeroed(layout) }, bytes(layout.size()))
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        count(bytes(layout.size()).wrapping_neg());
        // SAFETY: the caller's contract is that of `System`; the block may come from another copy of
        // this code, which got it from the same C library.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: as for `dealloc`.
        let grown = unsafe { System.realloc(ptr, layout, new_size) };
        counted(grown, bytes(new_size).wrapping_sub(bytes(layout.size())))
    }
}
