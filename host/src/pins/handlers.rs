//! The signal handlers that libraries have set, and what they may not take from the host.
//!
//! Code that sets a handler is given the one before, and usually keeps it and calls it (`signal-hook` and tokio
//! do). So a handler is reachable also when another one stands above it, and its library stays mapped.
//!
//! | signals | a library's wish |
//! |---|---|
//! | those that stop or steer the host | heard, said in the log, and not carried out: the handler is never called |
//! | those of a crash | its handler is called before the host's record, and cannot take the place of that |
//! | SIGCHLD | a handler is its own affair; to ignore it would take everybody's exit codes away |
//! | those of a used-up resource | a handler is its own affair; the default, which ends the process, is not |
//! | all others | its own affair |
//!
//! Handlers set by a bare system call are not seen here; [`super::handlers_in`] finds those that stand on top.
//!
//! # Invariants
//!
//! - A library is pinned before its handler can be called.
//! - The lock is taken with all signals blocked: a handler that sets a handler cannot meet it on its own thread.
#![expect(unsafe_code, reason = "sets signal handlers, and reads what libraries pass for that")]

use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::code::{Code, Pin, is_empty, is_executable, lock, owner_of, owner_of_caller};
use super::real::{self, Action, SignalSet};
use super::record::signal_name;
use super::{fault_handlers, forked};

/// The signals that stop or steer the host.
const OF_HOST: [c_int; 4] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT];
/// The signals by which the system tells that a resource is used up. What was tried fails with an error as well.
const OF_RESOURCES: [c_int; 3] = [libc::SIGPIPE, libc::SIGXFSZ, libc::SIGXCPU];

/// Whether this process has handlers of its own to keep.
static IS_GUARDED: AtomicBool = AtomicBool::new(false);

/// A handler that a library has set.
struct Booking {
    signal: c_int,
    handler: usize,
    code: Arc<Code>,
    /// Whether another one was set over it, which may call it for ever.
    is_covered: bool,
    _pin: Pin,
}

/// All of them.
static BOOKINGS: Mutex<Vec<Booking>> = Mutex::new(Vec::new());

/// The newest handler that a library has set, by signal: to set it again, as handlers do, is nothing new.
static NEWEST: [AtomicUsize; 65] = [const { AtomicUsize::new(0) }; 65];

/// What was said already: to which generation, about which signal.
static TOLD: Mutex<Vec<(Arc<str>, u64, c_int)>> = Mutex::new(Vec::new());

/// Has this process go on when a resource is used up: the error of what was tried tells.
///
/// The handler does nothing. The signals are not ignored, for programs that are started would inherit that; what is
/// handled has its default again in them.
///
/// # Errors
///
/// What the system says.
pub fn outlive_limits() -> std::io::Result<()> {
    for signal in OF_RESOURCES {
        // SAFETY: the action is valid, and its handler is the executable's.
        if unsafe { real::sigaction(signal, &going_on(), ptr::null_mut()) } != 0 {
            return Err(std::io::Error::last_os_error());
        }
    }
    let mut all = set_of(&OF_HOST);
    for signal in OF_RESOURCES {
        // SAFETY: a valid set.
        unsafe { libc::sigaddset(&mut all, signal) };
    }
    // Who started this process may have blocked them.
    // SAFETY: a valid set.
    unsafe { real::pthread_sigmask(libc::SIG_UNBLOCK, &all, ptr::null_mut()) };
    Ok(())
}

unsafe extern "C" fn go_on(_signal: c_int) {}

/// The action of a signal that changes nothing.
fn going_on() -> Action {
    action(go_on as *const () as usize, libc::SA_RESTART | libc::SA_ONSTACK)
}

/// An action that blocks no further signals.
pub(super) fn action(handler: usize, flags: c_int) -> Action {
    // SAFETY: all-zero bytes are a valid `sigaction`.
    let mut action = unsafe { MaybeUninit::<Action>::zeroed().assume_init() };
    action.sa_sigaction = handler;
    action.sa_flags = flags;
    action
}

/// Has the host's own signals kept from libraries, from now on.
pub(super) fn guard() {
    IS_GUARDED.store(true, Ordering::SeqCst);
}

/// Whether it is for the host to say what `signal` does.
fn is_kept(signals: &[c_int], signal: c_int) -> bool {
    IS_GUARDED.load(Ordering::Relaxed) && signals.contains(&signal)
}

/// Whether a call by `caller` is a library's, in the host's own process.
pub(super) fn is_for_library(caller: usize) -> bool {
    // What a forked child does with its signals concerns nobody else.
    !is_empty() && !is_executable(caller) && forked::is_home()
}

/// As libc's `sigaction`, for code of a library that calls from `caller`.
///
/// # Safety
///
/// As for libc's function.
pub(super) unsafe fn set(signal: c_int, new: *const Action, old: *mut Action, caller: usize) -> c_int {
    // SAFETY: this function's contract.
    let wanted = unsafe { new.as_ref() };
    let is_crash = IS_GUARDED.load(Ordering::Relaxed) && fault_handlers::is_one(signal);
    let Some(wanted) = wanted else {
        if is_crash {
            // SAFETY: this function's contract.
            unsafe { fault_handlers::get(signal, old) };
            return 0;
        }
        // SAFETY: this function's contract.
        return unsafe { real::sigaction(signal, new, old) };
    };
    let handler = wanted.sa_sigaction;
    let is_handler = handler != libc::SIG_DFL && handler != libc::SIG_IGN;
    if is_kept(&OF_HOST, signal) {
        tell(
            caller,
            signal,
            "belongs to the host: the handler will not be called; `on_unload` is told when the host stops",
        );
        // SAFETY: this function's contract.
        return unsafe { real::sigaction(signal, ptr::null(), old) };
    }
    if is_kept(&OF_RESOURCES, signal) && !is_handler {
        if handler == libc::SIG_DFL {
            tell(
                caller,
                signal,
                "would end the host by default, and is left as it is: what was tried fails with an error",
            );
        }
        // SAFETY: the host's own action; `old` by this function's contract.
        return unsafe { real::sigaction(signal, &going_on(), old) };
    }
    let mut mended = *wanted;
    if is_kept(&[libc::SIGCHLD], signal)
        && (handler == libc::SIG_IGN || wanted.sa_flags & libc::SA_NOCLDWAIT != 0)
    {
        tell(
            caller,
            signal,
            "is not to be ignored, for all would lose the exit codes of what they start: wait for each process",
        );
        mended.sa_flags &= !libc::SA_NOCLDWAIT;
        if handler == libc::SIG_IGN {
            mended.sa_sigaction = libc::SIG_DFL;
        }
    }
    if is_crash {
        if handler == libc::SIG_IGN {
            tell(caller, signal, "is not to be ignored, for the host records what crashes");
        }
        if is_handler {
            hold(signal, handler, caller);
        }
        // SAFETY: the library stays mapped, as booked above; `old` by this function's contract.
        unsafe { fault_handlers::set(signal, wanted, old) };
        return 0;
    }
    if !is_handler {
        // SAFETY: this function's contract.
        return unsafe { real::sigaction(signal, &mended, old) };
    }
    let newest = usize::try_from(signal).ok().and_then(|signal| NEWEST.get(signal));
    if newest.is_none_or(|newest| newest.load(Ordering::SeqCst) != handler) {
        hold(signal, handler, caller);
        if let Some(newest) = newest {
            newest.store(handler, Ordering::SeqCst);
        }
    }
    // SAFETY: this function's contract.
    unsafe { real::sigaction(signal, &mended, old) }
}

/// Pins the library of a handler that is about to be set, and for good that of the one below it.
fn hold(signal: c_int, handler: usize, caller: usize) {
    if is_executable(handler) {
        return;
    }
    without_signals(|| {
        // A handler in code that is nobody's, as a compiler at run time makes it, is the caller's.
        let holder = owner_of(handler).or_else(|| owner_of_caller(caller));
        let mut bookings = lock(&BOOKINGS);
        let of_signal = bookings.iter_mut().filter(|booking| booking.signal == signal);
        for booking in of_signal.filter(|booking| booking.handler != handler) {
            booking.is_covered |= holder.as_ref().is_none_or(|holder| !Arc::ptr_eq(holder, &booking.code));
        }
        let Some(code) = holder else { return };
        let is_it = |booking: &Booking| {
            (booking.signal, booking.handler) == (signal, handler) && Arc::ptr_eq(&booking.code, &code)
        };
        if !bookings.iter().any(is_it) {
            let pin = code.pin(format!("signal handler for {}", signal_name(signal)));
            bookings.push(Booking { signal, handler, code, is_covered: false, _pin: pin });
        }
    });
}

/// Lets go of handlers of `code` that it has taken back itself, and that nobody was given.
pub fn settle_handlers(code: &Arc<Code>) {
    let mut gone = Vec::new();
    without_signals(|| {
        let mut bookings = lock(&BOOKINGS);
        let mut at = 0;
        while let Some(booking) = bookings.get(at) {
            if Arc::ptr_eq(&booking.code, code) && !booking.is_covered && !is_in_use(booking.signal, code) {
                if let Some(newest) =
                    usize::try_from(booking.signal).ok().and_then(|signal| NEWEST.get(signal))
                {
                    let _ = newest.compare_exchange(booking.handler, 0, Ordering::SeqCst, Ordering::SeqCst);
                }
                gone.push(bookings.swap_remove(at));
            } else {
                at += 1;
            }
        }
    });
    // The last pin sends word, which is not for a place where signals are blocked.
    drop(gone);
}

/// Whether a signal is delivered to code of that library.
fn is_in_use(signal: c_int, code: &Arc<Code>) -> bool {
    let mut now = action(libc::SIG_DFL, 0);
    if IS_GUARDED.load(Ordering::Relaxed) && fault_handlers::is_one(signal) {
        // SAFETY: writable.
        unsafe { fault_handlers::get(signal, &mut now) };
    } else {
        // SAFETY: a null new action changes nothing.
        unsafe { real::sigaction(signal, ptr::null(), &mut now) };
    }
    // Where the handler lies in nobody's code, it is the booking that knows; it is kept.
    let handler = now.sa_sigaction;
    handler != libc::SIG_DFL
        && handler != libc::SIG_IGN
        && !is_executable(handler)
        && owner_of(handler).is_none_or(|owner| Arc::ptr_eq(&owner, code))
}

/// Runs `body` with all signals blocked on this thread.
fn without_signals(body: impl FnOnce()) {
    let mut all = MaybeUninit::<SignalSet>::uninit();
    let mut before = MaybeUninit::<SignalSet>::uninit();
    // SAFETY: both are sets of this frame; the call that reads `before` follows the one that writes it.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        real::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
    }
    body();
    // SAFETY: as above.
    unsafe { real::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), ptr::null_mut()) };
}

/// Says, once to each generation, that a wish of it was not carried out.
fn tell(caller: usize, signal: c_int, words: &str) {
    // Host code may panic; here it must not unwind into the plugin.
    let _ = crate::panic::catch(|| {
        let label = owner_of_caller(caller).and_then(|code| code.label().cloned());
        let (plugin, generation) =
            label.map_or_else(|| ("?".into(), 0), |label| (label.plugin, label.generation));
        let said = (Arc::clone(&plugin), generation, signal);
        let mut told = lock(&TOLD);
        if !told.contains(&said) {
            told.push(said);
            drop(told);
            let name = signal_name(signal);
            tracing::warn!(%plugin, generation, "the plugin wants to change what {name} does: it {words}");
        }
    });
}

/// The set of some signals.
fn set_of(signals: &[c_int]) -> SignalSet {
    let mut set = MaybeUninit::<SignalSet>::uninit();
    // SAFETY: the set is this frame's, and initialised by the first call.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for &signal in signals {
            libc::sigaddset(set.as_mut_ptr(), signal);
        }
        set.assume_init()
    }
}

/// What a library may block of what it wants to: not the signals of a crash, without which a crash leaves no record.
pub(super) fn may_block(wanted: &SignalSet) -> SignalSet {
    without(wanted, &fault_handlers::SIGNALS)
}

/// What a library may wait for of what it wants to: not the signals that are for the host.
///
/// To wait for a signal takes it from the process, also where its handler would run.
pub(super) fn may_await(wanted: &SignalSet, caller: usize) -> SignalSet {
    for signal in OF_HOST {
        // SAFETY: a valid set.
        if is_kept(&OF_HOST, signal) && unsafe { libc::sigismember(wanted, signal) } == 1 {
            tell(
                caller,
                signal,
                "belongs to the host: it cannot be waited for; `on_unload` is told when the host stops",
            );
        }
    }
    without(wanted, &OF_HOST)
}

fn without(wanted: &SignalSet, signals: &[c_int]) -> SignalSet {
    let mut allowed = *wanted;
    for &signal in signals.iter().filter(|_| IS_GUARDED.load(Ordering::Relaxed)) {
        // SAFETY: a valid set.
        unsafe { libc::sigdelset(&mut allowed, signal) };
    }
    allowed
}
