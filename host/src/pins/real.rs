//! libc's own functions behind the ones that the executable defines, and which keys are a library's.
//!
//! # Invariants
//!
//! - They are resolved before the first library is opened: a later `dlsym` would wait for the loader's
//!   lock, which a constructor that hangs never gives back.
#![expect(unsafe_code, reason = "calls libc through addresses that it looked up")]

use std::ffi::{CStr, c_int, c_void};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

/// A destructor of a thread-local or of a key.
pub(super) type Destructor = unsafe extern "C" fn(*mut c_void);
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

static THREAD_ATEXIT: Real = Real::named(NAMES[0]);
static KEY_CREATE: Real = Real::named(NAMES[1]);
static KEY_DELETE: Real = Real::named(NAMES[2]);
static SET_SPECIFIC: Real = Real::named(NAMES[3]);
static CREATE: Real = Real::named(NAMES[4]);
static EXIT: Real = Real::named(NAMES[5]);
static ABORT: Real = Real::named(NAMES[6]);

/// How many functions the executable defines in libc's place.
pub(super) const COUNT: usize = 7;

/// The names of all functions that the executable defines in libc's place.
pub(super) const NAMES: [&CStr; COUNT] = [
    c"__cxa_thread_atexit_impl",
    c"pthread_key_create",
    c"pthread_key_delete",
    c"pthread_setspecific",
    c"pthread_create",
    c"exit",
    c"abort",
];

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

/// Looks all of them up; the name of the first that is not there, if any.
pub(super) fn resolve() -> Result<(), &'static CStr> {
    for real in [&THREAD_ATEXIT, &KEY_CREATE, &KEY_DELETE, &SET_SPECIFIC, &CREATE, &EXIT, &ABORT] {
        if real.address().is_null() {
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

/// # Safety
///
/// As for libc's `exit`.
pub(super) unsafe fn exit(code: c_int) -> ! {
    let known = EXIT.address();
    if known.is_null() {
        // Without what is registered for the end; but it is the end.
        // SAFETY: it takes a number.
        unsafe { libc::_exit(code) }
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
