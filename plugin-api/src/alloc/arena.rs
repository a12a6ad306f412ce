//! Blocks that last as long as the library is mapped, in a static of the library itself.
//!
//! What a library's own copy of `tracing` keeps for ever is no leak in a program. In a library that is
//! unmapped and replaced ten thousand times it is one each time, so it lies here and goes with the mapping.
//! Owns the memory and who may take of it; does not own when that is: [`for_life`] does.
//!
//! # Invariants
//!
//! - A block is given out once and never taken back.
//! - Only the thread inside [`for_life`] gets blocks of it, and nothing that another copy of this code can
//!   get hold of is allocated there.
#![expect(unsafe_code, reason = "gives out parts of a static")]

use std::alloc::Layout;
use std::cell::UnsafeCell;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Enough for a dispatcher and the list it is entered in, about 150 bytes, and for what is said of some dozens of
/// resident types, about 10 kB with all that is thrown away on the way. Pages that are not touched cost nothing.
const ROOM: usize = 256 * 1024;

#[repr(align(16))]
struct Arena(UnsafeCell<[u8; ROOM]>);

// SAFETY: the bytes are touched through the blocks alone that were given out, and these do not overlap: each
// is a range that one successful exchange of `USED` has claimed, so no two threads have the same one.
unsafe impl Sync for Arena {}

static ARENA: Arena = Arena(UnsafeCell::new([0; ROOM]));
/// Bytes that have been given out.
static USED: AtomicUsize = AtomicUsize::new(0);
/// The thread inside [`for_life`], by the address of its [`ME`]; zero when there is none.
static OWNER: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// Has another address on each thread.
    static ME: u8 = const { 0 };
}

/// Runs `body`, whose allocations last as long as the library is mapped. For one thread at a time.
pub(crate) fn for_life<R>(body: impl FnOnce() -> R) -> R {
    /// Ends it also when `body` unwinds.
    struct End;
    impl Drop for End {
        fn drop(&mut self) {
            OWNER.store(0, Ordering::Relaxed);
        }
    }
    OWNER.store(me(), Ordering::Relaxed);
    let _end = End;
    body()
}

/// This thread's name among those alive.
fn me() -> usize {
    ME.with(|me| ptr::from_ref(me).addr())
}

/// Whether some thread is inside [`for_life`]; almost always none is, and then this is all it costs.
#[inline]
pub(super) fn is_open() -> bool {
    OWNER.load(Ordering::Relaxed) != 0
}

/// A block of zeros, if this thread is to get one and there is room; null otherwise.
#[cold]
pub(super) fn take(layout: Layout) -> *mut u8 {
    if OWNER.load(Ordering::Relaxed) != me() {
        return ptr::null_mut();
    }
    let base = ARENA.0.get().cast::<u8>();
    let mut used = USED.load(Ordering::Relaxed);
    loop {
        let start = (base.addr() + used).next_multiple_of(layout.align()) - base.addr();
        let Some(end) = start.checked_add(layout.size()).filter(|end| *end <= ROOM) else {
            return ptr::null_mut();
        };
        match USED.compare_exchange_weak(used, end, Ordering::Relaxed, Ordering::Relaxed) {
            // SAFETY: `start` is within the static, by the check above.
            Ok(_) => return unsafe { base.add(start) },
            Err(now) => used = now,
        }
    }
}

/// Whether a block is one of these.
#[inline]
pub(super) fn has(block: *mut u8) -> bool {
    block.addr().wrapping_sub(ARENA.0.get().addr()) < ROOM
}

#[cfg(test)]
mod tests {
    use std::alloc::GlobalAlloc as _;

    use super::*;
    use crate::Alloc;

    /// Blocks for life are the library's own, keep what is written to them, and may grow out of it.
    #[test]
    fn block_for_life_is_within_the_library_and_may_grow_out_of_it() {
        let small = Layout::from_size_align(24, 8).unwrap();
        let large = Layout::from_size_align(2 * ROOM, 8).unwrap();
        let allocate = || {
            // SAFETY: the layout is not empty.
            unsafe { Alloc.alloc(small) }
        };
        let (first, second) = for_life(|| (allocate(), allocate()));
        assert!(has(first) && has(second) && first.addr().abs_diff(second.addr()) >= 24);
        assert!(first.addr().is_multiple_of(8));
        let of_other_thread = || {
            let block = allocate();
            let is_own = has(block);
            // SAFETY: made with this layout just now.
            unsafe { Alloc.dealloc(block, small) };
            is_own
        };
        let elsewhere = for_life(|| std::thread::scope(|scope| scope.spawn(of_other_thread).join().unwrap()));
        assert!(!elsewhere, "another thread's block has to be the C library's");

        // SAFETY: a block of 24 bytes of this test's own.
        unsafe { first.write_bytes(7, 24) };
        // SAFETY: as above, with the layout it was made for.
        let grown = unsafe { Alloc.realloc(first, small, 2 * ROOM) };
        assert!(!has(grown), "there is not that much room");
        // SAFETY: more bytes of this test's own than these, of which the first 24 were copied.
        assert!(unsafe { std::slice::from_raw_parts(grown, 24) }.iter().all(|byte| *byte == 7));
        // SAFETY: made with this layout above.
        unsafe { Alloc.dealloc(second, small) };
        // SAFETY: as above.
        unsafe { Alloc.dealloc(grown, large) };
        assert!(!of_other_thread(), "outside of `for_life` nothing is for life");
    }
}
