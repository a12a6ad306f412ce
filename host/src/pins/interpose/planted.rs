//! The functions by which libc is given code or memory of a library that it uses later, and that nothing shows.
//!
//! What else libc keeps can be seen in its memory, and is looked for when the library is to leave: see
//! [`super::super::leads`].
#![expect(unsafe_code, reason = "defines functions that libraries call in place of libc's")]

use std::ffi::{c_char, c_int, c_void};

use super::super::code::owner_of;
use super::super::real::{self, Destructor, OnExit};

/// Keeps the library that an address lies in mapped for ever.
fn hold(address: usize, reason: &str) {
    if let Some(code) = owner_of(address) {
        std::mem::forget(code.pin(reason));
    }
}

/// Has a function called at the end of the process.
///
/// # Safety
///
/// As for libc's function.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn on_exit(handler: Option<OnExit>, argument: *mut c_void) -> c_int {
    hold(handler.map_or(0, |handler| handler as usize), "a function it gave to `on_exit`");
    // SAFETY: this function's contract.
    unsafe { real::on_exit(handler, argument) }
}

/// Has a function called when the object of `dso` is unmapped, or at the end of the process.
///
/// # Safety
///
/// As for libc's function.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn __cxa_atexit(
    handler: Option<Destructor>,
    argument: *mut c_void,
    dso: *mut c_void,
) -> c_int {
    if let Some(known) = handler
        && let Some(code) = owner_of(known as usize)
        && !code.range().is_some_and(|range| range.contains(&(dso as usize)))
    {
        // libc would not call and forget it when the library goes, as it does with those of the library itself.
        hold(known as usize, "a function it gave to `atexit` in the name of another library");
    }
    // SAFETY: this function's contract.
    unsafe { real::cxa_atexit(handler, argument, dso) }
}

/// The function of a notification by a thread, where it is one.
///
/// # Safety
///
/// `event` is null or valid.
unsafe fn notified(event: *const libc::sigevent) -> usize {
    // SAFETY: this function's contract.
    match unsafe { event.as_ref() } {
        // SAFETY: a notification of this kind has a function where the others have the number of a thread.
        Some(known) if known.sigev_notify == libc::SIGEV_THREAD => unsafe {
            (&raw const known.sigev_notify_thread_id).cast::<usize>().read()
        },
        _ => 0,
    }
}

/// Makes a timer, which may call a function on a thread of libc's.
///
/// # Safety
///
/// As for libc's function.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn timer_create(
    clock: libc::clockid_t,
    event: *const libc::sigevent,
    timer: *mut libc::timer_t,
) -> c_int {
    // SAFETY: this function's contract.
    hold(unsafe { notified(event) }, "a timer that calls a function of it (`timer_create`)");
    // SAFETY: this function's contract.
    unsafe { real::timer_create(clock, event, timer) }
}

/// Asks to be notified of a message, which may call a function on a thread of libc's.
///
/// # Safety
///
/// As for libc's function.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn mq_notify(queue: c_int, event: *const libc::sigevent) -> c_int {
    // SAFETY: this function's contract.
    hold(unsafe { notified(event) }, "a message queue that calls a function of it (`mq_notify`)");
    // SAFETY: this function's contract.
    unsafe { real::mq_notify(queue, event) }
}

const BUFFER: &str = "memory of it that is a stream's buffer (`setvbuf`)";

/// Gives a stream its buffer.
///
/// # Safety
///
/// As for libc's function.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn setvbuf(
    stream: *mut libc::FILE,
    buffer: *mut c_char,
    mode: c_int,
    size: usize,
) -> c_int {
    hold(buffer as usize, BUFFER);
    // SAFETY: this function's contract.
    unsafe { real::setvbuf(stream, buffer, mode, size) }
}

/// Gives a stream its buffer.
///
/// # Safety
///
/// As for libc's function.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn setbuf(stream: *mut libc::FILE, buffer: *mut c_char) {
    hold(buffer as usize, BUFFER);
    // SAFETY: this function's contract.
    unsafe { real::setbuf(stream, buffer) }
}

/// Gives a stream its buffer.
///
/// # Safety
///
/// As for libc's function.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn setbuffer(stream: *mut libc::FILE, buffer: *mut c_char, size: usize) {
    hold(buffer as usize, BUFFER);
    // SAFETY: this function's contract.
    unsafe { real::setbuffer(stream, buffer, size) }
}

/// As [`setvbuf`].
///
/// # Safety
///
/// As for libc's function.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn _IO_setvbuf(
    stream: *mut libc::FILE,
    buffer: *mut c_char,
    mode: c_int,
    size: usize,
) -> c_int {
    // SAFETY: this function's contract.
    unsafe { setvbuf(stream, buffer, mode, size) }
}

/// As [`setbuffer`].
///
/// # Safety
///
/// As for libc's function.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn _IO_setbuffer(stream: *mut libc::FILE, buffer: *mut c_char, size: usize) {
    // SAFETY: this function's contract.
    unsafe { setbuffer(stream, buffer, size) }
}
