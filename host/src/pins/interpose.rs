//! The functions of libc that the executable defines in its place.
//!
//! `host/build.rs` exports them from the binary; then the dynamic linker binds every library's calls to
//! them. A program without these exports works the same, and its libraries are not tracked: [`self_test`]
//! tells.
//!
//! # Invariants
//!
//! - Each behaves as libc documents it, whoever calls.
//! - They do not panic: they count, push to vectors and call on. They may be called at any time, also
//!   before `main` and while a thread ends.
#![expect(unsafe_code, reason = "defines functions that libraries call in place of libc's")]

#[cfg(all(target_os = "linux", target_env = "gnu", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod ends;
#[cfg(all(target_os = "linux", target_env = "gnu", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod planted;
#[cfg(all(target_os = "linux", target_env = "gnu", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod signals;

use super::{forked, real};

/// Defines a function of libc's name that goes on to another with one argument more: the address that it was
/// called from. `$x86` and `$arm` are the registers of that argument.
macro_rules! with_caller {
    ($(#[$doc:meta])* $name:ident($($argument:ident: $type:ty),*) -> $returned:ty = $to:ident, $x86:literal, $arm:literal) => {
        $(#[$doc])*
        ///
        /// # Safety
        ///
        /// As for libc's function.
        #[unsafe(no_mangle)]
        #[unsafe(naked)]
        pub(crate) unsafe extern "C" fn $name($($argument: $type),*) -> $returned {
            #[cfg(target_arch = "x86_64")]
            std::arch::naked_asm!(concat!("mov ", $x86, ", [rsp]"), "jmp {}", sym $to);
            #[cfg(target_arch = "aarch64")]
            std::arch::naked_asm!(concat!("mov ", $arm, ", x30"), "b {}", sym $to);
        }
    };
}
use with_caller;

/// Why libraries cannot be tracked in this process. They stay mapped, all of them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unsupported {
    /// The executable's definition is not the one that a library would get.
    #[error("`{name}` of this executable is not exported")]
    NotExported {
        /// The function.
        name: String,
    },
    /// libc has no such function.
    #[error("this libc has no `{name}`")]
    Missing {
        /// The function.
        name: String,
    },
    /// Another system.
    #[error("it is known how to track a library's threads and thread-locals with glibc on Linux only")]
    Platform,
}

/// Tells whether what libraries plant in the process is tracked. Also looks up all that is needed later,
/// so it must have been called before the first library is opened.
///
/// # Errors
///
/// [`Unsupported`]; then no library may be unmapped.
pub fn self_test() -> Result<(), Unsupported> {
    let text = |name: &std::ffi::CStr| name.to_string_lossy().into_owned();
    forked::watch_forks();
    real::resolve().map_err(|name| Unsupported::Missing { name: text(name) })?;
    let ours = exported().ok_or(Unsupported::Platform)?;
    compare(ours, |name| {
        // SAFETY: the name is a C string; the call only looks up.
        unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) as usize }
    })
}

/// Whether what a library would be bound to, as `found` tells, is what is defined here.
pub(super) fn compare(
    ours: [usize; real::COUNT],
    found: impl Fn(&std::ffi::CStr) -> usize,
) -> Result<(), Unsupported> {
    match real::NAMES.iter().zip(ours).find(|(name, ours)| found(name) != *ours) {
        Some((name, _)) => Err(Unsupported::NotExported { name: name.to_string_lossy().into_owned() }),
        None => Ok(()),
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu", any(target_arch = "x86_64", target_arch = "aarch64")))]
fn exported() -> Option<[usize; real::COUNT]> {
    Some(glibc::addresses())
}

#[cfg(not(all(
    target_os = "linux",
    target_env = "gnu",
    any(target_arch = "x86_64", target_arch = "aarch64")
)))]
fn exported() -> Option<[usize; real::COUNT]> {
    None
}

#[cfg(all(target_os = "linux", target_env = "gnu", any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(super) mod glibc {
    //! The definitions themselves.

    use std::ffi::{c_int, c_void};
    use std::sync::Arc;

    use super::super::code::{self, Code, is_executable, owner_of, owner_of_caller, owner_of_key};
    use super::super::real::{self, Destructor, Start};
    use super::super::{forked, thread};
    use super::{ends, planted, signals};

    /// Where the definitions are, in the order of [`real::NAMES`].
    pub(super) fn addresses() -> [usize; real::COUNT] {
        [
            __cxa_thread_atexit_impl as *const () as usize,
            pthread_key_create as *const () as usize,
            __pthread_key_create as *const () as usize,
            pthread_key_delete as *const () as usize,
            pthread_setspecific as *const () as usize,
            pthread_create as *const () as usize,
            ends::exit as *const () as usize,
            ends::abort as *const () as usize,
            ends::_exit as *const () as usize,
            ends::_Exit as *const () as usize,
            ends::quick_exit as *const () as usize,
            ends::daemon as *const () as usize,
            signals::sigaction as *const () as usize,
            signals::__sigaction as *const () as usize,
            signals::signal as *const () as usize,
            signals::bsd_signal as *const () as usize,
            signals::ssignal as *const () as usize,
            signals::sysv_signal as *const () as usize,
            signals::__sysv_signal as *const () as usize,
            signals::sigset as *const () as usize,
            signals::sigignore as *const () as usize,
            signals::pthread_sigmask as *const () as usize,
            signals::sigprocmask as *const () as usize,
            signals::sigwait as *const () as usize,
            signals::sigwaitinfo as *const () as usize,
            signals::sigtimedwait as *const () as usize,
            signals::signalfd as *const () as usize,
            planted::on_exit as *const () as usize,
            planted::__cxa_atexit as *const () as usize,
            planted::timer_create as *const () as usize,
            planted::mq_notify as *const () as usize,
            planted::setvbuf as *const () as usize,
            planted::setbuf as *const () as usize,
            planted::setbuffer as *const () as usize,
            planted::_IO_setvbuf as *const () as usize,
            planted::_IO_setbuffer as *const () as usize,
        ]
    }

    /// Registers a thread-local's destructor.
    ///
    /// It is attributed by its own address: Rust's `std` passes a word of its own as `dso`.
    ///
    /// # Safety
    ///
    /// As for libc's function.
    #[unsafe(no_mangle)]
    pub(crate) unsafe extern "C" fn __cxa_thread_atexit_impl(
        destructor: Option<Destructor>,
        object: *mut c_void,
        dso: *mut c_void,
    ) -> c_int {
        if let Some(known) = destructor
            && let Some(code) = owner_of(known as usize)
        {
            thread::keep_local(&code, known, object);
            return 0;
        }
        // SAFETY: this function's contract.
        unsafe { real::thread_atexit(destructor, object, dso) }
    }

    with_caller! {
        /// Makes a key. One without a destructor is attributed by who calls, hence the detour.
        pthread_key_create(key: *mut libc::pthread_key_t, destructor: Option<Destructor>) -> c_int
            = key_create_from, "rdx", "x2"
    }

    with_caller! {
        /// As [`pthread_key_create`]: the name by which C++ calls it.
        __pthread_key_create(key: *mut libc::pthread_key_t, destructor: Option<Destructor>) -> c_int
            = key_create_from, "rdx", "x2"
    }

    unsafe extern "C" fn key_create_from(
        key: *mut libc::pthread_key_t,
        destructor: Option<Destructor>,
        caller: usize,
    ) -> c_int {
        let by_destructor = destructor.and_then(|known| owner_of(known as usize));
        let Some(code) = by_destructor.or_else(|| owner_of(caller)) else {
            // SAFETY: the caller's contract.
            return unsafe { real::key_create(key, destructor) };
        };
        // SAFETY: the caller's contract. The destructor is kept here and not told to libc.
        let outcome = unsafe { real::key_create(key, None) };
        if outcome == 0 {
            // SAFETY: libc has just written it.
            code.add_key(unsafe { *key }, destructor);
        }
        outcome
    }

    /// Deletes a key.
    ///
    /// # Safety
    ///
    /// As for libc's function.
    #[unsafe(no_mangle)]
    pub(crate) unsafe extern "C" fn pthread_key_delete(key: libc::pthread_key_t) -> c_int {
        if real::is_owned(key)
            && let Some((code, _)) = owner_of_key(key)
            && code.remove_key(key)
        {
            real::disown(key);
            thread::forget_key(key);
        }
        real::key_delete(key)
    }

    /// Sets this thread's value of a key.
    ///
    /// # Safety
    ///
    /// As for libc's function.
    #[unsafe(no_mangle)]
    pub(crate) unsafe extern "C" fn pthread_setspecific(
        key: libc::pthread_key_t,
        value: *const c_void,
    ) -> c_int {
        // SAFETY: this function's contract.
        let outcome = unsafe { real::set_specific(key, value) };
        if outcome == 0
            && real::is_owned(key)
            && let Some((code, Some(_))) = owner_of_key(key)
        {
            thread::keep_key(&code, key, !value.is_null());
        }
        outcome
    }

    with_caller! {
        /// Starts a thread.
        pthread_create(
            thread: *mut libc::pthread_t,
            attributes: *const libc::pthread_attr_t,
            start: Start,
            argument: *mut c_void
        ) -> c_int = create_from, "r8", "x4"
    }

    /// What a thread of a library starts with.
    struct Beginning {
        start: Start,
        argument: *mut c_void,
        code: Arc<Code>,
    }

    unsafe extern "C" fn create_from(
        thread: *mut libc::pthread_t,
        attributes: *const libc::pthread_attr_t,
        start: Start,
        argument: *mut c_void,
        caller: usize,
    ) -> c_int {
        let Some(code) = starter(start as usize, caller) else {
            // SAFETY: the caller's contract.
            return unsafe { real::create(thread, attributes, start, argument) };
        };
        if code.is_closing() {
            return libc::EAGAIN;
        }
        code.use_it();
        let beginning = Box::into_raw(Box::new(Beginning { start, argument, code }));
        // SAFETY: the caller's contract; `begin` takes the box over.
        let outcome = unsafe { real::create(thread, attributes, begin, beginning.cast()) };
        if outcome != 0 {
            // SAFETY: no thread has started, so the box is still ours.
            let beginning = unsafe { Box::from_raw(beginning) };
            beginning.code.leave_it();
        }
        outcome
    }

    /// The code that a new thread runs in: that of its first function, else of who asks for it; or, where
    /// another library asks (C++'s starts threads in a function of its own), of the call that this is in.
    /// A thread of the executable is the host's, whatever call it is started for.
    fn starter(start: usize, caller: usize) -> Option<Arc<Code>> {
        if is_executable(start) {
            return None;
        }
        owner_of(start).or_else(|| owner_of_caller(caller))
    }

    /// Names this thread after its plugin, in the place of the thread of the host's that started it. A name that the
    /// library gives to it comes later and counts.
    fn name_thread(code: &Code) {
        let Some(label) = code.label() else { return };
        // The system takes 15 bytes and the end.
        let mut name = [0; 16];
        let bytes = label.plugin.bytes().take_while(|byte| *byte != 0);
        name.iter_mut().take(15).zip(bytes).for_each(|(place, byte)| *place = byte);
        // SAFETY: the name ends with a zero and lives until the call returns.
        unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
    }

    unsafe extern "C" fn begin(data: *mut c_void) -> *mut c_void {
        // SAFETY: `create_from` passes the box, to this thread alone.
        let Beginning { start, argument, code } = *unsafe { Box::from_raw(data.cast::<Beginning>()) };
        code::enter_for_good(&code);
        name_thread(&code);
        thread::begin(Arc::clone(&code));
        // SAFETY: what the library asked for.
        let outcome = unsafe { start(argument) };
        forked::end_if_forked(&code);
        // What keeps the code from here on is what `begin` has booked.
        drop(code);
        thread::drain_all();
        outcome
    }
}
