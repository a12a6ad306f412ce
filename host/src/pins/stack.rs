//! A stack for signal handlers: without one, the overflow of a thread's own stack ends the process without a
//! word. Rust's std gives one to its own threads only, and a small one.
#![expect(unsafe_code, reason = "maps memory and gives it to the system")]

use std::ffi::c_void;
use std::ptr;

/// Room for a handler that reads the stack, and below it what catches its own overflow. As much as wasm runtimes want:
/// where a thread has less they set a stack of their own, and free it with a thread-local while the system still has it.
const SIZE: usize = 256 * 1024;
const GUARD: usize = 16 * 1024;

/// The signal stack of a thread. To be dropped on that thread.
#[derive(Debug)]
pub(super) struct SignalStack {
    /// The whole mapping, guard included.
    base: *mut c_void,
}

// SAFETY: the address is used by the drop alone, which its one owner, the record of a thread, runs on
// that thread; another thread that holds the record does not touch it.
unsafe impl Send for SignalStack {}

impl SignalStack {
    /// Gives this thread a signal stack; `None` where the system has no memory for it.
    pub(super) fn install() -> Option<SignalStack> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping, wherever there is room.
        let base = unsafe { libc::mmap(ptr::null_mut(), GUARD + SIZE, libc::PROT_NONE, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return None;
        }
        let stack = SignalStack { base };
        let start = base.wrapping_byte_add(GUARD);
        // SAFETY: the upper part of the mapping made above.
        if unsafe { libc::mprotect(start, SIZE, libc::PROT_READ | libc::PROT_WRITE) } != 0 {
            return None;
        }
        stack.set().then_some(stack)
    }

    /// Makes it the thread's signal stack again, if it is not; tells whether another one was.
    pub(super) fn put_back(&self) -> bool {
        let mut now = libc::stack_t { ss_sp: ptr::null_mut(), ss_flags: libc::SS_DISABLE, ss_size: 0 };
        // SAFETY: a null new stack changes nothing; the old one is written.
        unsafe { libc::sigaltstack(ptr::null(), &mut now) };
        (now.ss_flags, now.ss_sp) != (0, self.start()) && self.set()
    }

    fn start(&self) -> *mut c_void {
        self.base.wrapping_byte_add(GUARD)
    }

    fn set(&self) -> bool {
        let words = libc::stack_t { ss_sp: self.start(), ss_flags: 0, ss_size: SIZE };
        // SAFETY: the memory stays mapped until the drop, which takes it back from the system first.
        unsafe { libc::sigaltstack(&words, ptr::null_mut()) == 0 }
    }
}

impl Drop for SignalStack {
    fn drop(&mut self) {
        let none = libc::stack_t { ss_sp: ptr::null_mut(), ss_flags: libc::SS_DISABLE, ss_size: SIZE };
        // SAFETY: the system forgets the stack; nothing runs on it, for this is no signal handler. Then the
        // mapping, which is this value's own, is in nobody's hands.
        unsafe {
            libc::sigaltstack(&none, ptr::null_mut());
            libc::munmap(self.base, GUARD + SIZE);
        }
    }
}
