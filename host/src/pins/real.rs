//! libc's own functions behind the ones that the executable defines, and which keys are a library's.
//!
//! # Invariants
//!
//! - They are resolved before the first library is opened: a later `dlsym` would wait for the loader's
//!   lock, which a constructor that hangs never gives back.
#![expect(unsafe_code, reason = "calls libc through addresses that it looked up")]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

/// A destructor of a thread-local or of a key.
pub(super) type Destructor = unsafe extern "C" fn(*mut c_void);
/// What is done when a signal comes, as libc has it.
pub(super) type Action = libc::sigaction;
/// Signals.
pub(super) type SignalSet = libc::sigset_t;
/// What `on_exit` takes.
pub(super) type OnExit = unsafe extern "C" fn(c_int, *mut c_void);
/// Where a thread starts.
pub(super) type Start = unsafe extern "C" fn(*mut c_void) -> *mut c_void;

type ThreadAtexit = unsafe extern "C" fn(Option<Destructor>, *mut c_void, *mut c_void) -> c_int;
type KeyCreate = unsafe extern "C" fn(*mut libc::pthread_key_t, Option<Destructor>) -> c_int;
type KeyDelete = unsafe extern "C" fn(libc::pthread_key_t) -> c_int;
type SetSpecific = unsafe extern "C" fn(libc::pthread_key_t, *const c_void) -> c_int;
type Create =
    unsafe extern "C" fn(*mut libc::pthread_t, *const libc::pthread_attr_t, Start, *mut c_void) -> c_int;

/// One function of libc.
struct Real {
    name: &'static CStr,
    /// Null until it has been looked up, or when it is not there.
    address: AtomicPtr<c_void>,
}

/// Declares the functions: where each is kept, and what it is called.
macro_rules! functions {
    ($($place:ident = $name:literal;)*) => {
        $(static $place: Real = Real::named($name);)*

        /// All of them.
        static ALL: &[&Real] = &[$(&$place),*];

        /// The names of all functions that the executable defines in libc's place.
        pub(super) const NAMES: &[&CStr] = &[$($name),*];
    };
}

functions! {
    THREAD_ATEXIT = c"__cxa_thread_atexit_impl";
    KEY_CREATE = c"pthread_key_create";
    KEY_CREATE_ALIAS = c"__pthread_key_create";
    KEY_DELETE = c"pthread_key_delete";
    SET_SPECIFIC = c"pthread_setspecific";
    CREATE = c"pthread_create";
    EXIT = c"exit";
    ABORT = c"abort";
    EXIT_AT_ONCE = c"_exit";
    EXIT_AT_ONCE_C99 = c"_Exit";
    QUICK_EXIT = c"quick_exit";
    DAEMON = c"daemon";
    SIGACTION = c"sigaction";
    SIGACTION_ALIAS = c"__sigaction";
    SIGNAL = c"signal";
    BSD_SIGNAL = c"bsd_signal";
    SSIGNAL = c"ssignal";
    SYSV_SIGNAL = c"sysv_signal";
    SYSV_SIGNAL_ALIAS = c"__sysv_signal";
    SIGSET = c"sigset";
    SIGIGNORE = c"sigignore";
    PTHREAD_SIGMASK = c"pthread_sigmask";
    SIGPROCMASK = c"sigprocmask";
    SIGWAIT = c"sigwait";
    SIGWAITINFO = c"sigwaitinfo";
    SIGTIMEDWAIT = c"sigtimedwait";
    SIGNALFD = c"signalfd";
    ON_EXIT = c"on_exit";
    CXA_ATEXIT = c"__cxa_atexit";
    TIMER_CREATE = c"timer_create";
    MQ_NOTIFY = c"mq_notify";
    SETVBUF = c"setvbuf";
    SETBUF = c"setbuf";
    SETBUFFER = c"setbuffer";
    SETVBUF_ALIAS = c"_IO_setvbuf";
    SETBUFFER_ALIAS = c"_IO_setbuffer";
}

/// How many there are.
pub(super) const COUNT: usize = NAMES.len();

impl Real {
    const fn named(name: &'static CStr) -> Real {
        Real { name, address: AtomicPtr::new(ptr::null_mut()) }
    }

    fn address(&self) -> *mut c_void {
        let known = self.address.load(Ordering::Relaxed);
        if !known.is_null() {
            return known;
        }
        // SAFETY: the name is a C string; the call only looks up.
        let found = unsafe { libc::dlsym(libc::RTLD_NEXT, self.name.as_ptr()) };
        self.address.store(found, Ordering::Relaxed);
        found
    }
}

/// What older versions of glibc have in a library of its own, which may not be mapped.
const ELSEWHERE: [&CStr; 2] = [c"timer_create", c"mq_notify"];

/// Looks all of them up; the name of the first that is not there, if any.
pub(super) fn resolve() -> Result<(), &'static CStr> {
    for real in ALL {
        if real.address().is_null() && !ELSEWHERE.contains(&real.name) {
            return Err(real.name);
        }
    }
    Ok(())
}

/// Turns an address into a function, or returns from the caller with `$missing`.
macro_rules! function {
    ($real:expr, $type:ty, $missing:expr) => {{
        let address = $real.address();
        if address.is_null() {
            return $missing;
        }
        // SAFETY: non-null by the check above, and libc's function of that name has this type.
        unsafe { std::mem::transmute::<*mut c_void, $type>(address) }
    }};
}

/// # Safety
///
/// As for libc's `__cxa_thread_atexit_impl`.
pub(super) unsafe fn thread_atexit(dtor: Option<Destructor>, object: *mut c_void, dso: *mut c_void) -> c_int {
    let real = function!(THREAD_ATEXIT, ThreadAtexit, -1);
    // SAFETY: this function's contract.
    unsafe { real(dtor, object, dso) }
}

/// # Safety
///
/// As for libc's `pthread_key_create`.
pub(super) unsafe fn key_create(key: *mut libc::pthread_key_t, dtor: Option<Destructor>) -> c_int {
    let real = function!(KEY_CREATE, KeyCreate, libc::EAGAIN);
    // SAFETY: this function's contract.
    unsafe { real(key, dtor) }
}

pub(super) fn key_delete(key: libc::pthread_key_t) -> c_int {
    let real = function!(KEY_DELETE, KeyDelete, libc::EINVAL);
    // SAFETY: libc checks the number; deleting a key runs nothing.
    unsafe { real(key) }
}

/// # Safety
///
/// As for libc's `pthread_setspecific`.
pub(super) unsafe fn set_specific(key: libc::pthread_key_t, value: *const c_void) -> c_int {
    let real = function!(SET_SPECIFIC, SetSpecific, libc::EINVAL);
    // SAFETY: this function's contract.
    unsafe { real(key, value) }
}

/// # Safety
///
/// As for libc's `pthread_create`.
pub(super) unsafe fn create(
    thread: *mut libc::pthread_t,
    attributes: *const libc::pthread_attr_t,
    start: Start,
    argument: *mut c_void,
) -> c_int {
    let real = function!(CREATE, Create, libc::EAGAIN);
    // SAFETY: this function's contract.
    unsafe { real(thread, attributes, start, argument) }
}

/// Defines functions that call libc's of the same meaning, or return a value where there is none.
macro_rules! pass_on {
    ($($name:ident($($argument:ident: $type:ty),*) -> $returned:ty = $place:ident or $missing:expr;)*) => {$(
        /// # Safety
        ///
        /// As for libc's function of that name.
        pub(super) unsafe fn $name($($argument: $type),*) -> $returned {
            let real = function!($place, unsafe extern "C" fn($($type),*) -> $returned, $missing);
            // SAFETY: this function's contract.
            unsafe { real($($argument),*) }
        }
    )*};
}

pass_on! {
    sigaction(signal: c_int, new: *const Action, old: *mut Action) -> c_int = SIGACTION or -1;
    signal(signal: c_int, handler: usize) -> usize = SIGNAL or libc::SIG_ERR;
    sysv_signal(signal: c_int, handler: usize) -> usize = SYSV_SIGNAL or libc::SIG_ERR;
    sigset(signal: c_int, handler: usize) -> usize = SIGSET or libc::SIG_ERR;
    sigignore(signal: c_int) -> c_int = SIGIGNORE or -1;
    pthread_sigmask(how: c_int, set: *const SignalSet, old: *mut SignalSet) -> c_int
        = PTHREAD_SIGMASK or libc::EINVAL;
    sigprocmask(how: c_int, set: *const SignalSet, old: *mut SignalSet) -> c_int = SIGPROCMASK or -1;
    sigwait(set: *const SignalSet, signal: *mut c_int) -> c_int = SIGWAIT or libc::EINVAL;
    sigwaitinfo(set: *const SignalSet, info: *mut libc::siginfo_t) -> c_int = SIGWAITINFO or -1;
    sigtimedwait(set: *const SignalSet, info: *mut libc::siginfo_t, patience: *const libc::timespec) -> c_int
        = SIGTIMEDWAIT or -1;
    signalfd(fd: c_int, set: *const SignalSet, flags: c_int) -> c_int = SIGNALFD or -1;
    on_exit(handler: Option<OnExit>, argument: *mut c_void) -> c_int = ON_EXIT or -1;
    cxa_atexit(handler: Option<Destructor>, argument: *mut c_void, dso: *mut c_void) -> c_int
        = CXA_ATEXIT or -1;
    timer_create(clock: libc::clockid_t, event: *const libc::sigevent, timer: *mut libc::timer_t) -> c_int
        = TIMER_CREATE or -1;
    mq_notify(queue: c_int, event: *const libc::sigevent) -> c_int = MQ_NOTIFY or -1;
    setvbuf(stream: *mut libc::FILE, buffer: *mut c_char, mode: c_int, size: usize) -> c_int = SETVBUF or -1;
    setbuf(stream: *mut libc::FILE, buffer: *mut c_char) -> () = SETBUF or Default::default();
    setbuffer(stream: *mut libc::FILE, buffer: *mut c_char, size: usize) -> () = SETBUFFER or Default::default();
    daemon(stays: c_int, keeps_output: c_int) -> c_int = DAEMON or -1;
}

/// Ends the process at once: nothing that is registered for its end runs.
pub(super) fn exit_at_once(code: c_int) -> ! {
    // SAFETY: it takes a number. The call itself and not libc's function, which the executable defines.
    unsafe { libc::syscall(libc::SYS_exit_group, code) };
    unreachable!("the process has ended")
}

/// # Safety
///
/// As for libc's `quick_exit`.
pub(super) unsafe fn quick_exit(code: c_int) -> ! {
    let known = QUICK_EXIT.address();
    if known.is_null() {
        exit_at_once(code)
    }
    // SAFETY: non-null by the check above, and libc's function of that name has this type.
    let real = unsafe { std::mem::transmute::<*mut c_void, unsafe extern "C" fn(c_int) -> !>(known) };
    // SAFETY: this function's contract.
    unsafe { real(code) }
}

/// # Safety
///
/// As for libc's `exit`.
pub(super) unsafe fn exit(code: c_int) -> ! {
    let known = EXIT.address();
    if known.is_null() {
        // Without what is registered for the end; but it is the end.
        exit_at_once(code)
    }
    // SAFETY: non-null by the check above, and libc's function of that name has this type.
    let real = unsafe { std::mem::transmute::<*mut c_void, unsafe extern "C" fn(c_int) -> !>(known) };
    // SAFETY: this function's contract.
    unsafe { real(code) }
}

pub(super) fn abort() -> ! {
    let known = ABORT.address();
    if known.is_null() {
        // SAFETY: they take numbers: the signal whose default action ends the process, and the exit code of
        // a process that survived that.
        unsafe {
            libc::raise(libc::SIGABRT);
            libc::_exit(127)
        }
    }
    // SAFETY: non-null by the check above, and libc's function of that name has this type.
    let real = unsafe { std::mem::transmute::<*mut c_void, unsafe extern "C" fn() -> !>(known) };
    // SAFETY: it has no preconditions.
    unsafe { real() }
}

/// Number of keys that a process may have.
const KEYS: usize = 1024;

/// The keys that belong to a library, so that all others pay one load.
static OWNED: [AtomicBool; KEYS] = [const { AtomicBool::new(false) }; KEYS];

/// Marks a key as a library's.
pub(super) fn own(key: u32) {
    if let Some(mark) = OWNED.get(key as usize) {
        mark.store(true, Ordering::SeqCst);
    }
}

/// Takes the mark away.
pub(super) fn disown(key: u32) {
    if let Some(mark) = OWNED.get(key as usize) {
        mark.store(false, Ordering::SeqCst);
    }
}

/// Whether a key is a library's.
pub(super) fn is_owned(key: u32) -> bool {
    OWNED.get(key as usize).is_some_and(|mark| mark.load(Ordering::SeqCst))
}
