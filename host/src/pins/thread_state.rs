//! What the system and the processor keep for a thread, which code of a library can change and leave changed: the
//! signal mask, the name, how it is scheduled, as whom it opens files, its locale, how it rounds.
//!
//! A thread of the host goes on when the library has left. What it would leave to the next one is put back: how the
//! processor computes after each call ([`FloatControl`], a nanosecond), the rest when code is retired and after
//! destructors of libraries, for to look it up takes a system call each. The stack for signal handlers is another
//! file's (`stack`).
//!
//! # Invariants
//!
//! - What has not changed is not written: an operator's `renice` or `taskset` of the whole process stays.
#![expect(unsafe_code, reason = "asks the system and the processor about a thread, and tells them")]

use std::mem::MaybeUninit;

/// How a thread's processor rounds and which exceptions it raises; the exceptions that were noted are no part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FloatControl {
    #[cfg(target_arch = "x86_64")]
    vector: u32,
    #[cfg(target_arch = "x86_64")]
    stack: u16,
    #[cfg(target_arch = "aarch64")]
    control: u64,
}

#[cfg(target_arch = "x86_64")]
impl FloatControl {
    /// The bits of the vector unit's word that note exceptions.
    const NOTED: u32 = 0x3f;

    /// This thread's.
    #[inline]
    pub(super) fn now() -> FloatControl {
        let (mut vector, mut stack) = (0_u32, 0_u16);
        // SAFETY: each instruction writes a word of that size to the address it is given, and changes nothing.
        unsafe {
            std::arch::asm!(
                "stmxcsr [{vector}]",
                "fnstcw [{stack}]",
                vector = in(reg) &raw mut vector,
                stack = in(reg) &raw mut stack,
                options(nostack, preserves_flags)
            );
        }
        FloatControl { vector: vector & !Self::NOTED, stack }
    }

    /// Makes it this thread's.
    #[cold]
    fn set(self) {
        // SAFETY: both words were this thread's before, so no reserved bit is set; nothing but how the thread
        // computes depends on them, and this is how it did.
        unsafe {
            std::arch::asm!(
                "ldmxcsr [{vector}]",
                "fldcw [{stack}]",
                vector = in(reg) &raw const self.vector,
                stack = in(reg) &raw const self.stack,
                options(nostack, preserves_flags)
            );
        }
    }
}

#[cfg(target_arch = "aarch64")]
impl FloatControl {
    /// This thread's.
    #[inline]
    pub(super) fn now() -> FloatControl {
        let control: u64;
        // SAFETY: it reads a register.
        unsafe {
            std::arch::asm!("mrs {}, fpcr", out(reg) control, options(nomem, nostack, preserves_flags))
        };
        FloatControl { control }
    }

    /// Makes it this thread's.
    #[cold]
    fn set(self) {
        // SAFETY: the word was this thread's before; nothing but how the thread computes depends on it.
        unsafe {
            std::arch::asm!("msr fpcr, {}", in(reg) self.control, options(nomem, nostack, preserves_flags))
        };
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
impl FloatControl {
    pub(super) fn now() -> FloatControl {
        FloatControl {}
    }

    fn set(self) {}
}

/// Puts back, when dropped, how the thread computes: for a call into a library.
pub(super) struct FloatGuard(FloatControl);

impl FloatGuard {
    #[inline]
    pub(super) fn new() -> FloatGuard {
        FloatGuard(FloatControl::now())
    }
}

impl Drop for FloatGuard {
    #[inline]
    fn drop(&mut self) {
        if FloatControl::now() != self.0 {
            self.0.set();
        }
    }
}

/// The longest name of a thread, with its end.
const NAME: usize = 16;

/// What the system keeps for a thread, but for how it is scheduled.
pub(super) struct ThreadState {
    mask: libc::sigset_t,
    name: [u8; NAME],
    locale: libc::locale_t,
    /// User and group that files are opened as.
    files_as: (libc::c_int, libc::c_int),
    timer_slack: libc::c_int,
}

// SAFETY: the locale is an address that libc gave for the thread which took this value, and that it is given back to on
// that thread alone: the value is kept in the thread's own record, where others look at other fields.
unsafe impl Send for ThreadState {}
// SAFETY: as for `Send`; nothing is changed through a reference.
unsafe impl Sync for ThreadState {}

impl ThreadState {
    /// This thread's.
    pub(super) fn now() -> ThreadState {
        ThreadState {
            mask: mask(),
            name: name(),
            // SAFETY: a null locale only asks.
            locale: unsafe { libc::uselocale(std::ptr::null_mut()) },
            files_as: files_as(),
            // SAFETY: it only asks.
            timer_slack: unsafe { libc::prctl(libc::PR_GET_TIMERSLACK) },
        }
    }

    /// Makes it this thread's again, as far as it is not; says what was otherwise.
    pub(super) fn put_back(&self) -> Vec<&'static str> {
        let now = ThreadState::now();
        let mut changed = Vec::new();
        if !is_same_mask(&now.mask, &self.mask) {
            // SAFETY: the mask is a whole one, which was this thread's.
            unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.mask, std::ptr::null_mut()) };
            changed.push("signal mask");
        }
        if now.name != self.name {
            // SAFETY: a text of at most 16 bytes with its end, which the system copies.
            unsafe { libc::prctl(libc::PR_SET_NAME, self.name.as_ptr()) };
            changed.push("name");
        }
        if now.locale != self.locale {
            // SAFETY: the locale was this thread's before any library ran on it: the process's own, or one that
            // the host would have made, which makes none.
            unsafe { libc::uselocale(self.locale) };
            changed.push("locale");
        }
        if now.files_as != self.files_as {
            let (user, group) = self.files_as;
            // SAFETY: they take numbers, which were this thread's.
            unsafe {
                libc::setfsgid(group.cast_unsigned());
                libc::setfsuid(user.cast_unsigned());
            }
            changed.push("user that files are opened as");
        }
        if now.timer_slack != self.timer_slack {
            // SAFETY: it takes a number.
            unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, self.timer_slack as libc::c_ulong) };
            changed.push("timer slack");
        }
        changed
    }
}

fn mask() -> libc::sigset_t {
    let mut mask = MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: a null new mask changes nothing; the old one is written.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, std::ptr::null(), mask.as_mut_ptr()) };
    // SAFETY: all-zero bytes are a mask, and the call only overwrites them with another.
    unsafe { mask.assume_init() }
}

fn is_same_mask(one: &libc::sigset_t, other: &libc::sigset_t) -> bool {
    // SAFETY: both are whole masks.
    let has = |mask, signal| unsafe { libc::sigismember(mask, signal) };
    (1..=libc::SIGRTMAX()).all(|signal| has(one, signal) == has(other, signal))
}

fn name() -> [u8; NAME] {
    let mut name = [0; NAME];
    // SAFETY: the system writes at most 16 bytes, its end included.
    unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
    name
}

fn files_as() -> (libc::c_int, libc::c_int) {
    // SAFETY: of an impossible number the calls change nothing, and tell what is.
    unsafe { (libc::setfsuid(libc::uid_t::MAX), libc::setfsgid(libc::gid_t::MAX)) }
}

/// How the system schedules a thread.
#[derive(Clone, Copy)]
pub(super) struct Scheduling {
    policy: libc::c_int,
    priority: libc::c_int,
    nice: libc::c_int,
    processors: libc::cpu_set_t,
}

impl Scheduling {
    /// That of this process's first thread, on which no library runs: what the operator wants of all of them.
    pub(super) fn of_process() -> Scheduling {
        Scheduling::of(std::process::id().cast_signed())
    }

    /// This thread's.
    pub(super) fn now() -> Scheduling {
        Scheduling::of(0)
    }

    fn of(thread: libc::pid_t) -> Scheduling {
        let mut parameters = MaybeUninit::<libc::sched_param>::zeroed();
        let mut processors = MaybeUninit::<libc::cpu_set_t>::zeroed();
        // SAFETY: they ask, of a thread of this process, and write what they are given room for.
        unsafe {
            libc::sched_getparam(thread, parameters.as_mut_ptr());
            libc::sched_getaffinity(thread, size_of::<libc::cpu_set_t>(), processors.as_mut_ptr());
        }
        Scheduling {
            // SAFETY: it only asks.
            policy: unsafe { libc::sched_getscheduler(thread) },
            // SAFETY: all-zero bytes are parameters, and the call only overwrites them with others.
            priority: unsafe { parameters.assume_init() }.sched_priority,
            // SAFETY: it only asks.
            nice: unsafe { libc::getpriority(libc::PRIO_PROCESS, thread.cast_unsigned()) },
            // SAFETY: as above.
            processors: unsafe { processors.assume_init() },
        }
    }

    /// Schedules this thread so, as far as it is not; says what was otherwise, and what the system did not allow.
    pub(super) fn put_back(&self) -> (Vec<&'static str>, Vec<&'static str>) {
        let now = Scheduling::now();
        let (mut changed, mut refused) = (Vec::new(), Vec::new());
        let mut put = |what, outcome: libc::c_int| match outcome {
            0 => changed.push(what),
            _ => refused.push(what),
        };
        if (now.policy, now.priority) != (self.policy, self.priority) {
            let parameters = libc::sched_param { sched_priority: self.priority };
            // SAFETY: it takes numbers, of the calling thread.
            put("scheduling policy", unsafe { libc::sched_setscheduler(0, self.policy, &parameters) });
        }
        if now.nice != self.nice {
            // SAFETY: it takes numbers, of the calling thread.
            put("niceness", unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, self.nice) });
        }
        // SAFETY: both are whole sets.
        if !unsafe { libc::CPU_EQUAL(&now.processors, &self.processors) } {
            let size = size_of::<libc::cpu_set_t>();
            // SAFETY: a whole set, for the calling thread.
            put("processors it may run on", unsafe { libc::sched_setaffinity(0, size, &self.processors) });
        }
        (changed, refused)
    }
}

/// What the whole process has and any thread can change: working directory and file mode mask. It is not put back, for
/// other code may rely on it by now; it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessState {
    directory: Option<std::path::PathBuf>,
    mode_mask: Option<String>,
}

impl ProcessState {
    /// The process's, now.
    pub fn now() -> ProcessState {
        // To ask for the mask by system call is to change it for a moment, for all threads.
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let mode_mask = status.lines().find_map(|line| line.strip_prefix("Umask:"));
        ProcessState {
            directory: std::env::current_dir().ok(),
            mode_mask: mode_mask.map(|mask| mask.trim().to_owned()),
        }
    }

    /// What differs from `earlier`, in words.
    pub fn changes_since(&self, earlier: &ProcessState) -> Vec<String> {
        let mut changes = Vec::new();
        let path = |path: &Option<std::path::PathBuf>| match path {
            Some(path) => path.display().to_string(),
            None => "one that is gone".to_owned(),
        };
        if self.directory != earlier.directory {
            let (now, before) = (path(&self.directory), path(&earlier.directory));
            changes.push(format!("the working directory is {now}, it was {before}"));
        }
        if self.mode_mask != earlier.mode_mask {
            let mask = |mask: &Option<String>| mask.clone().unwrap_or_else(|| "unknown".to_owned());
            let (now, before) = (mask(&self.mode_mask), mask(&earlier.mode_mask));
            changes.push(format!("the file mode mask is {now}, it was {before}"));
        }
        changes
    }
}
