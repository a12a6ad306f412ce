//! The handlers that libraries have set for the signals of a crash.
//!
//! A library may well mend a fault: an interpreter that checks bounds by a fault does. So its handler is called
//! first; but it does not stand in the place of the host's, which records the crash when the library's gives up:
//! by calling the handler before it, by setting that one again, or by letting the same fault happen for ever.
//!
//! # Invariants
//!
//! - What is read in a signal handler is an address of an action that is never freed.
//! - What a library is given as the handler before its own, when there is none, ends in the record.
#![expect(unsafe_code, reason = "calls handlers that libraries have set")]

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use super::crash::on_unhandled;
use super::handlers::action;
use super::real::{self, Action};

/// The signals that code which is wrong ends its process with.
pub(super) const SIGNALS: [c_int; 5] =
    [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGABRT];

/// The newest handler of each, or null.
static NEWEST: [AtomicPtr<Action>; SIGNALS.len()] =
    [const { AtomicPtr::new(ptr::null_mut()) }; SIGNALS.len()];

/// How often in a row a handler may return to the very instruction that faults at the very address.
const MOST_TRIES: u32 = 10_000;

thread_local! {
    /// The last fault that a handler has returned from, and how often in a row.
    static LAST: Cell<(usize, usize, u32)> = const { Cell::new((0, 0, 0)) };
}

/// Whether it is one of them.
pub(super) fn is_one(signal: c_int) -> bool {
    SIGNALS.contains(&signal)
}

fn place(signal: c_int) -> Option<&'static AtomicPtr<Action>> {
    SIGNALS.iter().position(|&one| one == signal).map(|at| &NEWEST[at])
}

/// Writes what a library is told of the handler that is set.
///
/// # Safety
///
/// `old` is null or writable.
pub(super) unsafe fn get(signal: c_int, old: *mut Action) {
    let newest = place(signal).map_or(ptr::null_mut(), |place| place.load(Ordering::SeqCst));
    if !old.is_null() {
        // SAFETY: an action is never freed.
        let known = unsafe { newest.as_ref() }.copied();
        let none = || action(on_unhandled as *const () as usize, libc::SA_SIGINFO | libc::SA_ONSTACK);
        // SAFETY: this function's contract.
        unsafe { old.write(known.unwrap_or_else(none)) };
    }
}

/// Sets a library's handler, or takes it away where `new` has none of a library; writes the one before.
///
/// # Safety
///
/// The code of the handler stays mapped for ever; `old` is null or writable.
pub(super) unsafe fn set(signal: c_int, new: &Action, old: *mut Action) {
    let Some(place) = place(signal) else { return };
    // SAFETY: this function's contract.
    unsafe { get(signal, old) };
    let handler = new.sa_sigaction;
    let is_none = [libc::SIG_DFL, libc::SIG_IGN, on_unhandled as *const () as usize].contains(&handler);
    let newest = place.load(Ordering::SeqCst);
    // SAFETY: an action is never freed.
    let is_same = unsafe { newest.as_ref() }
        .is_some_and(|newest| newest.sa_sigaction == handler && newest.sa_flags == new.sa_flags);
    if is_none {
        place.store(ptr::null_mut(), Ordering::SeqCst);
    } else if !is_same {
        // Leaked: another thread may be about to read the one before, in a signal handler.
        place.store(Box::into_raw(Box::new(*new)), Ordering::SeqCst);
    }
}

/// Calls the newest handler of a library; tells whether the thread may go on.
///
/// # Safety
///
/// For a signal handler with `SA_SIGINFO`, with what the system has passed to it.
pub(super) unsafe fn call(
    signal: c_int,
    info: *mut libc::siginfo_t,
    context: *mut c_void,
    at: usize,
) -> bool {
    let Some(place) = place(signal) else { return false };
    let newest = place.load(Ordering::SeqCst);
    // SAFETY: an action is never freed.
    let Some(action) = (unsafe { newest.as_ref() }) else { return false };
    if action.sa_flags & libc::SA_RESETHAND != 0 {
        place.store(ptr::null_mut(), Ordering::SeqCst);
    }
    // SAFETY: the system passes a valid description.
    let is_fault = unsafe { (*info).si_code } > 0;
    // SAFETY: as above; a fault has an address.
    let address = if is_fault { unsafe { (*info).si_addr() as usize } } else { 0 };
    let (last_at, last_address, tries) = LAST.get();
    let tries = if is_fault && (last_at, last_address) == (at, address) { tries + 1 } else { 0 };
    LAST.set((at, address, tries));
    if tries > MOST_TRIES {
        return false;
    }
    // SAFETY: this function's contract.
    unsafe { block(signal, action, context) };
    if action.sa_flags & libc::SA_SIGINFO != 0 {
        type Handler = unsafe extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);
        // SAFETY: the library has set it as a handler of this type, and stays mapped.
        let handler = unsafe { std::mem::transmute::<usize, Handler>(action.sa_sigaction) };
        // SAFETY: what the system has passed.
        unsafe { handler(signal, info, context) };
    } else {
        // SAFETY: as above.
        let handler =
            unsafe { std::mem::transmute::<usize, unsafe extern "C" fn(c_int)>(action.sa_sigaction) };
        // SAFETY: it takes a number.
        unsafe { handler(signal) };
    }
    // Who sends this signal to itself ends after the handler, and without a word.
    signal != libc::SIGABRT
}

/// Blocks what the system would block for this handler: it may be left by a jump, after which the mask stays.
///
/// # Safety
///
/// As for [`call`].
unsafe fn block(signal: c_int, action: &Action, context: *mut c_void) {
    let mut mask = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `context` by this function's contract; its mask is as long as the kernel's, which is the part of
    // libc's that counts, so that the set is made empty first. The sets are read and written during the calls.
    unsafe {
        libc::sigemptyset(mask.as_mut_ptr());
        let before = &raw const (*context.cast::<libc::ucontext_t>()).uc_sigmask;
        ptr::copy_nonoverlapping(before.cast::<u64>(), mask.as_mut_ptr().cast::<u64>(), 1);
        for other in 1..=64 {
            if libc::sigismember(&action.sa_mask, other) == 1 {
                libc::sigaddset(mask.as_mut_ptr(), other);
            }
        }
        if action.sa_flags & libc::SA_NODEFER == 0 {
            libc::sigaddset(mask.as_mut_ptr(), signal);
        }
        real::pthread_sigmask(libc::SIG_SETMASK, mask.as_ptr(), ptr::null_mut());
    }
}
