//! The functions that end the process.
//!
//! # Invariants
//!
//! - A child that was forked off ends as it says, without what is registered for the end of the host.
#![expect(unsafe_code, reason = "defines functions that libraries call in place of libc's")]

use std::ffi::c_int;
use std::ptr;

use super::super::code::owner_of_caller;
use super::super::lost::{Ender, ender};
use super::super::{crash, forked, handlers, lost, real};
use super::with_caller;

with_caller! {
    /// Ends the process, or the thread of a plugin that asks for that.
    exit(code: c_int) -> ! = exit_from, "rsi", "x1"
}

unsafe extern "C" fn exit_from(code: c_int, caller: usize) -> ! {
    if forked::is_forked() {
        // The handlers for the end are the host's and its plugins', and so are this thread's destructors; what the
        // child has printed is its own.
        // SAFETY: a null stream stands for all of them.
        unsafe { libc::fflush(ptr::null_mut()) };
        real::exit_at_once(code);
    }
    keep_or_abort(caller, &format!("`exit({code})`"));
    // SAFETY: the caller's contract.
    unsafe { real::exit(code) }
}

with_caller! {
    /// Ends the process without handlers, or the thread of a plugin that asks for that.
    _exit(code: c_int) -> ! = exit_at_once_from, "rsi", "x1"
}

with_caller! {
    /// As [`_exit`].
    _Exit(code: c_int) -> ! = exit_at_once_from, "rsi", "x1"
}

unsafe extern "C" fn exit_at_once_from(code: c_int, caller: usize) -> ! {
    keep_or_abort(caller, &format!("`_exit({code})`"));
    real::exit_at_once(code)
}

with_caller! {
    /// Ends the process with handlers of its own, or the thread of a plugin that asks for that.
    quick_exit(code: c_int) -> ! = quick_exit_from, "rsi", "x1"
}

unsafe extern "C" fn quick_exit_from(code: c_int, caller: usize) -> ! {
    if forked::is_forked() {
        real::exit_at_once(code);
    }
    keep_or_abort(caller, &format!("`quick_exit({code})`"));
    // SAFETY: the caller's contract.
    unsafe { real::quick_exit(code) }
}

/// Returns where the host itself wants to end.
fn keep_or_abort(caller: usize, what: &str) {
    if let Ender::Plugin(label) = ender(caller) {
        lost::keep(label, what);
        // Not on this thread: libc's own would run destructors under the feet of all others.
        crash::by_exit();
        real::abort()
    }
}

with_caller! {
    /// Ends the process by SIGABRT, or the thread of a plugin that asks for that.
    abort() -> ! = abort_from, "rdi", "x0"
}

unsafe extern "C" fn abort_from(caller: usize) -> ! {
    if let Ender::Plugin(label) = ender(caller) {
        lost::keep(label, "`abort`");
    }
    real::abort()
}

with_caller! {
    /// Goes on in a child in the background and ends this process; a plugin may not.
    daemon(stays: c_int, keeps_output: c_int) -> c_int = daemon_from, "rdx", "x2"
}

unsafe extern "C" fn daemon_from(stays: c_int, keeps_output: c_int, caller: usize) -> c_int {
    if !handlers::is_for_library(caller) {
        // SAFETY: the caller's contract.
        return unsafe { real::daemon(stays, keeps_output) };
    }
    // Host code may panic; here it must not unwind into the plugin.
    let _ = crate::panic::catch(|| {
        let label = owner_of_caller(caller).and_then(|code| code.label().cloned());
        let (plugin, generation) =
            label.map_or_else(|| ("?".into(), 0), |label| (label.plugin, label.generation));
        let advice = "start a program of its own instead";
        tracing::warn!(%plugin, generation, "the plugin called `daemon`, which would end the host: refused; {advice}");
    });
    // SAFETY: the address of this thread's `errno` is valid.
    unsafe { *libc::__errno_location() = libc::EPERM };
    -1
}
