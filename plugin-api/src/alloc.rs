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
//! What the library itself keeps for ever is the exception, and lies in the library ([`arena`]).
//!
//! # Invariants
//!
//! - Nothing that one copy knows and another does not decides about a block that both can get hold of. The
//!   count is looked at by nobody here.
#![expect(unsafe_code, reason = "an allocator is unchecked by its trait")]

mod arena;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

pub(crate) use self::arena::for_life;
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

// SAFETY: a block of the arena is aligned, long enough, zero, nobody else's, and valid for as long as any code
// of this library can run; for all others every method is the method of `System` with the same arguments, whose
// contract is the same. Counting allocates nothing and cannot unwind.
unsafe impl GlobalAlloc for Alloc {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if arena::is_open() {
            let block = arena::take(layout);
            if !block.is_null() {
                return counted(block, bytes(layout.size()));
            }
        }
        // SAFETY: the caller's contract is that of `System`.
        counted(unsafe { System.alloc(layout) }, bytes(layout.size()))
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if arena::is_open() {
            let block = arena::take(layout);
            if !block.is_null() {
                return counted(block, bytes(layout.size()));
            }
        }
        // SAFETY: the caller's contract is that of `System`.
        counted(unsafe { System.alloc_zeroed(layout) }, bytes(layout.size()))
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        count(bytes(layout.size()).wrapping_neg());
        if arena::has(ptr) {
            return;
        }
        // SAFETY: the caller's contract is that of `System`; the block may come from another copy of
        // this code, which got it from the same C library.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        if arena::has(ptr) {
            // SAFETY: the contract of `realloc`: with this alignment, the new size is one of a layout.
            let wanted = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
            // SAFETY: the contract of `realloc`: the new size is not zero.
            let moved = unsafe { self.alloc(wanted) };
            if !moved.is_null() {
                // SAFETY: two blocks, each at least as long as the shorter one.
                unsafe { std::ptr::copy_nonoverlapping(ptr, moved, layout.size().min(new_size)) };
                count(bytes(layout.size()).wrapping_neg());
            }
            return moved;
        }
        // SAFETY: as for `dealloc`.
        let grown = unsafe { System.realloc(ptr, layout, new_size) };
        counted(grown, bytes(new_size).wrapping_sub(bytes(layout.size())))
    }
}
