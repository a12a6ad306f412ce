//! The functions that set signal handlers, block signals and wait for them.
//!
//! What they do to a library's call is decided in [`handlers`]. A call of the host's own is passed on.
#![expect(unsafe_code, reason = "defines functions that libraries call in place of libc's")]

use std::ffi::c_int;

use super::super::code::is_executable;
use super::super::handlers::{self, is_for_library};
use super::super::real::{self, Action, SignalSet};
use super::with_caller;

with_caller! {
    /// Sets what a signal does.
    sigaction(signal: c_int, new: *const Action, old: *mut Action) -> c_int = sigaction_from, "rcx", "x3"
}

with_caller! {
    /// As [`sigaction`].
    __sigaction(signal: c_int, new: *const Action, old: *mut Action) -> c_int = sigaction_from, "rcx", "x3"
}

unsafe extern "C" fn sigaction_from(
    signal: c_int,
    new: *const Action,
    old: *mut Action,
    caller: usize,
) -> c_int {
    if is_for_library(caller) {
        // SAFETY: the caller's contract.
        return unsafe { handlers::set(signal, new, old, caller) };
    }
    // SAFETY: the caller's contract.
    unsafe { real::sigaction(signal, new, old) }
}

with_caller! {
    /// Sets a handler that stays set, and has calls of the system go on.
    signal(signal: c_int, handler: usize) -> usize = signal_from, "rdx", "x2"
}

with_caller! {
    /// As [`signal`](fn@signal).
    bsd_signal(signal: c_int, handler: usize) -> usize = signal_from, "rdx", "x2"
}

with_caller! {
    /// As [`signal`](fn@signal).
    ssignal(signal: c_int, handler: usize) -> usize = signal_from, "rdx", "x2"
}

unsafe extern "C" fn signal_from(signal: c_int, handler: usize, caller: usize) -> usize {
    if !is_for_library(caller) {
        // SAFETY: the caller's contract.
        return unsafe { real::signal(signal, handler) };
    }
    let mut action = handlers::action(handler, libc::SA_RESTART);
    // SAFETY: a valid set; a number that is no signal is refused below.
    unsafe { libc::sigaddset(&mut action.sa_mask, signal) };
    // SAFETY: the caller's contract.
    unsafe { set_simply(signal, &action, caller) }
}

with_caller! {
    /// Sets a handler for one signal of that number.
    sysv_signal(signal: c_int, handler: usize) -> usize = sysv_signal_from, "rdx", "x2"
}

with_caller! {
    /// As [`sysv_signal`].
    __sysv_signal(signal: c_int, handler: usize) -> usize = sysv_signal_from, "rdx", "x2"
}

unsafe extern "C" fn sysv_signal_from(signal: c_int, handler: usize, caller: usize) -> usize {
    if !is_for_library(caller) {
        // SAFETY: the caller's contract.
        return unsafe { real::sysv_signal(signal, handler) };
    }
    let action = handlers::action(handler, libc::SA_RESETHAND | libc::SA_NODEFER);
    // SAFETY: the caller's contract.
    unsafe { set_simply(signal, &action, caller) }
}

/// What `sigset` takes to have a signal blocked.
const SIG_HOLD: usize = 2;

with_caller! {
    /// Sets a handler and unblocks the signal, or blocks it.
    sigset(signal: c_int, handler: usize) -> usize = sigset_from, "rdx", "x2"
}

unsafe extern "C" fn sigset_from(signal: c_int, handler: usize, caller: usize) -> usize {
    if handler == SIG_HOLD || !is_for_library(caller) {
        // SAFETY: the caller's contract.
        return unsafe { real::sigset(signal, handler) };
    }
    let action = handlers::action(handler, 0);
    let mut mask = action.sa_mask;
    let mut before = mask;
    // SAFETY: the caller's contract; a valid set.
    unsafe {
        let old = set_simply(signal, &action, caller);
        if old == libc::SIG_ERR || libc::sigaddset(&mut mask, signal) != 0 {
            return libc::SIG_ERR;
        }
        real::pthread_sigmask(libc::SIG_UNBLOCK, &mask, &mut before);
        if libc::sigismember(&before, signal) == 1 { SIG_HOLD } else { old }
    }
}

with_caller! {
    /// Has a signal ignored.
    sigignore(signal: c_int) -> c_int = sigignore_from, "rsi", "x1"
}

unsafe extern "C" fn sigignore_from(signal: c_int, caller: usize) -> c_int {
    if !is_for_library(caller) {
        // SAFETY: the caller's contract.
        return unsafe { real::sigignore(signal) };
    }
    // SAFETY: the caller's contract.
    let old = unsafe { set_simply(signal, &handlers::action(libc::SIG_IGN, 0), caller) };
    if old == libc::SIG_ERR { -1 } else { 0 }
}

/// Sets an action; returns the handler before it.
///
/// # Safety
///
/// As for libc's `sigaction`.
unsafe fn set_simply(signal: c_int, action: &Action, caller: usize) -> usize {
    let mut old = handlers::action(libc::SIG_DFL, 0);
    // SAFETY: this function's contract.
    match unsafe { handlers::set(signal, action, &mut old, caller) } {
        0 => old.sa_sigaction,
        _ => libc::SIG_ERR,
    }
}

with_caller! {
    /// Changes which signals this thread blocks.
    pthread_sigmask(how: c_int, set: *const SignalSet, old: *mut SignalSet) -> c_int
        = pthread_sigmask_from, "rcx", "x3"
}

unsafe extern "C" fn pthread_sigmask_from(
    how: c_int,
    set: *const SignalSet,
    old: *mut SignalSet,
    caller: usize,
) -> c_int {
    // SAFETY: the caller's contract.
    let allowed = unsafe { allowed(how, set, caller) };
    // SAFETY: the caller's contract.
    unsafe { real::pthread_sigmask(how, allowed.as_ref().map_or(set, std::ptr::from_ref), old) }
}

with_caller! {
    /// Changes which signals this thread blocks.
    sigprocmask(how: c_int, set: *const SignalSet, old: *mut SignalSet) -> c_int
        = sigprocmask_from, "rcx", "x3"
}

unsafe extern "C" fn sigprocmask_from(
    how: c_int,
    set: *const SignalSet,
    old: *mut SignalSet,
    caller: usize,
) -> c_int {
    // SAFETY: the caller's contract.
    let allowed = unsafe { allowed(how, set, caller) };
    // SAFETY: the caller's contract.
    unsafe { real::sigprocmask(how, allowed.as_ref().map_or(set, std::ptr::from_ref), old) }
}

/// What a library's call may block; `None` where the set is to be passed on as it is.
///
/// # Safety
///
/// As for libc's `pthread_sigmask`.
unsafe fn allowed(how: c_int, set: *const SignalSet, caller: usize) -> Option<SignalSet> {
    if how == libc::SIG_UNBLOCK || is_executable(caller) {
        return None;
    }
    // SAFETY: this function's contract.
    unsafe { set.as_ref() }.map(handlers::may_block)
}

with_caller! {
    /// Waits for a signal and takes it.
    sigwait(set: *const SignalSet, signal: *mut c_int) -> c_int = sigwait_from, "rdx", "x2"
}

unsafe extern "C" fn sigwait_from(set: *const SignalSet, signal: *mut c_int, caller: usize) -> c_int {
    // SAFETY: the caller's contract.
    let allowed = unsafe { awaited(set, caller) };
    // SAFETY: the caller's contract.
    unsafe { real::sigwait(allowed.as_ref().map_or(set, std::ptr::from_ref), signal) }
}

with_caller! {
    /// Waits for a signal and takes it.
    sigwaitinfo(set: *const SignalSet, info: *mut libc::siginfo_t) -> c_int = sigwaitinfo_from, "rdx", "x2"
}

unsafe extern "C" fn sigwaitinfo_from(
    set: *const SignalSet,
    info: *mut libc::siginfo_t,
    caller: usize,
) -> c_int {
    // SAFETY: the caller's contract.
    let allowed = unsafe { awaited(set, caller) };
    // SAFETY: the caller's contract.
    unsafe { real::sigwaitinfo(allowed.as_ref().map_or(set, std::ptr::from_ref), info) }
}

with_caller! {
    /// Waits for a signal for a time and takes it.
    sigtimedwait(set: *const SignalSet, info: *mut libc::siginfo_t, patience: *const libc::timespec) -> c_int
        = sigtimedwait_from, "rcx", "x3"
}

unsafe extern "C" fn sigtimedwait_from(
    set: *const SignalSet,
    info: *mut libc::siginfo_t,
    patience: *const libc::timespec,
    caller: usize,
) -> c_int {
    // SAFETY: the caller's contract.
    let allowed = unsafe { awaited(set, caller) };
    // SAFETY: the caller's contract.
    unsafe { real::sigtimedwait(allowed.as_ref().map_or(set, std::ptr::from_ref), info, patience) }
}

with_caller! {
    /// Makes a descriptor from which signals are read, and so taken.
    signalfd(fd: c_int, set: *const SignalSet, flags: c_int) -> c_int = signalfd_from, "rcx", "x3"
}

unsafe extern "C" fn signalfd_from(fd: c_int, set: *const SignalSet, flags: c_int, caller: usize) -> c_int {
    // SAFETY: the caller's contract.
    let allowed = unsafe { awaited(set, caller) };
    // SAFETY: the caller's contract.
    unsafe { real::signalfd(fd, allowed.as_ref().map_or(set, std::ptr::from_ref), flags) }
}

/// What a library's call may wait for; `None` where the set is to be passed on as it is.
///
/// # Safety
///
/// As for libc's `sigwait`.
unsafe fn awaited(set: *const SignalSet, caller: usize) -> Option<SignalSet> {
    if !is_for_library(caller) {
        return None;
    }
    // SAFETY: this function's contract.
    unsafe { set.as_ref() }.map(|set| handlers::may_await(set, caller))
}
