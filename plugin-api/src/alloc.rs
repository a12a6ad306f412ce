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
//! # Invariants
//!
//! - There is no state: nothing that one copy knows and another does not decides about a block.
#![expect(unsafe_code, reason = "an allocator is unchecked by its trait")]

use std::alloc::{GlobalAlloc, Layout, System};

/// The allocator that [`plugin!`](crate::plugin) installs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Alloc;

// SAFETY: every method is the method of `System` with the same arguments, whose contract is the same.
unsafe impl GlobalAlloc for Alloc {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's contract is that of `System`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's contract is that of `System`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract is that of `System`; the block may come from another copy of
        // this code, which got it from the same C library.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: as for `dealloc`.
        unsafe { System.realloc(ptr, layout, new_size) }
    }
}
