//! What is left to be done of an upgrade when it is decided, one call at a time, and the memory that it is done with.
//!
//! Owns a step and the blocks that values are built in. Does not own the lists, nor which of them is worked off.
//!
//! # Invariants
//!
//! - A step cannot fail: what it calls stops its own panics.
#![expect(unsafe_code, reason = "drops and frees by address")]

use std::alloc::{self, handle_alloc_error};
use std::ffi::c_void;
use std::ptr;

use crate::entry::guard;
use crate::resident::Resident;

/// An entry of a list: one call that cannot fail.
#[derive(Debug)]
pub(super) enum Step {
    Call(unsafe extern "C" fn(*mut c_void), *mut u8),
    Free(*mut u8, alloc::Layout),
}

impl Step {
    /// # Safety
    ///
    /// The step is due, and was not run before.
    pub(super) unsafe fn run(self) {
        match self {
            // SAFETY: the function was noted down together with a value of its type, which is due.
            Step::Call(function, at) => unsafe { function(at.cast()) },
            // SAFETY: the block was allocated with this layout, and nothing in it is used any more.
            Step::Free(block, layout) => unsafe { alloc::dealloc(block, layout) },
        }
    }
}

/// Memory for a value, from the global allocator.
pub(super) fn block<F>() -> (*mut F, alloc::Layout) {
    let layout = alloc::Layout::new::<F>();
    if layout.size() == 0 {
        return (ptr::NonNull::dangling().as_ptr(), layout);
    }
    (allocate(layout).cast(), layout)
}

/// A block that is not empty.
pub(super) fn allocate(layout: alloc::Layout) -> *mut u8 {
    assert_ne!(layout.size(), 0, "nobody asks for an empty block");
    // SAFETY: the layout has a size.
    let block = unsafe { alloc::alloc(layout) };
    if block.is_null() {
        handle_alloc_error(layout);
    }
    block
}

/// # Safety
///
/// `value` is a valid `F` that nobody uses any more.
pub(super) unsafe extern "C" fn drop_in_place<F>(value: *mut c_void) {
    // A panic has been reported by the hook.
    // SAFETY: this function's contract.
    let _ = guard(|| unsafe { value.cast::<F>().drop_in_place() });
}

/// # Safety
///
/// As [`Resident::dissolve`].
pub(super) unsafe extern "C" fn dissolve<C: Resident>(value: *mut c_void) {
    // SAFETY: this function's contract.
    let _ = guard(|| unsafe { C::dissolve(value.cast::<C>()) });
}
