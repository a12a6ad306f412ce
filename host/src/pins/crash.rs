//! The last words of a process that crashes: whose code was running, where, and for which request.
//!
//! A handler for the signals that end a process writes lines of text (see [`Crash`](super::Crash)) along
//! the supervisor's line, or one sentence to standard error where there is no supervisor. Then the
//! default action ends the process: nothing is ever resumed or jumped out of.
//!
//! # Invariants
//!
//! - The handler calls what is async-signal-safe: it allocates nothing, and waits for no lock.
//! - What is known for certain is written first; the stack, whose reading may crash in its turn, last.
//! - A signal that another process has sent says nothing about who was running: nobody is named.
#![expect(unsafe_code, reason = "handles signals that end the process")]

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::fmt::{self, Write as _};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use super::code::Label;
use super::fault_handlers::{self, SIGNALS};
use super::{code, handlers, real, tombstone};

/// What runs on a thread beyond the code it runs in.
#[derive(Debug, Clone, Copy)]
pub struct Running<'a> {
    /// The route or hook.
    pub route: &'a str,
    /// The request's id; empty for a hook.
    pub request: &'a str,
}

thread_local! {
    /// What runs on this thread: on the stack of [`while_running`], or null.
    static RUNNING: Cell<*const Running<'static>> = const { Cell::new(ptr::null()) };
}

/// Runs `body`; a crash in it is recorded as one of `running`.
pub(super) fn while_running<R>(running: &Running<'_>, body: impl FnOnce() -> R) -> R {
    /// Puts the outer one back, also when `body` unwinds: then nothing points to `running` any more.
    struct Restore(*const Running<'static>);
    impl Drop for Restore {
        fn drop(&mut self) {
            RUNNING.set(self.0);
        }
    }
    let _restore = Restore(RUNNING.replace(ptr::from_ref(running).cast()));
    body()
}

/// Where the record goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorder {
    /// As lines, to a descriptor that stays open.
    Line(RawFd),
    /// As a sentence, to standard error.
    Words,
}

/// Where the handler writes.
static TO: AtomicI32 = AtomicI32::new(-1);
/// The process whose crashes are recorded.
static PROCESS: AtomicI32 = AtomicI32::new(0);
/// Whether it writes lines for a program.
static IS_LINE: AtomicBool = AtomicBool::new(false);
/// The thread that is writing its record; 0: none is.
static CRASHING: AtomicI32 = AtomicI32::new(0);

/// Whether the process is ended because code of a plugin called `exit`.
static IS_EXIT: AtomicBool = AtomicBool::new(false);

/// Says that the process is about to be ended because code of a plugin called `exit`.
pub(super) fn by_exit() {
    IS_EXIT.store(true, Ordering::SeqCst);
}

/// Most frames of a record.
const FRAMES: usize = 48;
/// How far from the stack pointer an address may be that was meant for the stack.
const STACK_REACH: usize = 64 * 1024;

/// Has crashes recorded from now on.
///
/// # Errors
///
/// What the system says; crashes are not recorded then.
pub fn record_crashes(recorder: Recorder) -> io::Result<()> {
    let (to, is_line) = match recorder {
        Recorder::Line(number) => (number, true),
        Recorder::Words => (libc::STDERR_FILENO, false),
    };
    TO.store(to, Ordering::SeqCst);
    // SAFETY: it has no preconditions.
    PROCESS.store(unsafe { libc::getpid() }, Ordering::SeqCst);
    IS_LINE.store(is_line, Ordering::SeqCst);
    // What these look up at their first use is not for a handler to look up.
    code::is_executable(0);
    let _ = stack(&mut [ptr::null_mut(); 4]);
    for signal in SIGNALS {
        handle(signal, on_crash as *const () as usize, libc::SA_SIGINFO | libc::SA_ONSTACK)?;
    }
    handlers::guard();
    Ok(())
}

fn handle(signal: c_int, handler: usize, flags: c_int) -> io::Result<()> {
    // SAFETY: all-zero bytes are a valid `sigaction`.
    let mut action = unsafe { MaybeUninit::<libc::sigaction>::zeroed().assume_init() };
    action.sa_sigaction = handler;
    action.sa_flags = flags;
    // SAFETY: the mask is the action's own. All signals: one that comes while the record is written ends
    // the process at once where it is a crash of the handler, and waits where it is not.
    unsafe { libc::sigfillset(&mut action.sa_mask) };
    // SAFETY: the handler is `SIG_DFL`, or `on_crash` with the flags that it needs.
    match unsafe { real::sigaction(signal, &action, ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

unsafe extern "C" fn on_crash(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the system passes the context of a handler with `SA_SIGINFO`.
    let (pc, _) = unsafe { registers(context) };
    // SAFETY: this is such a handler, and passes on what it was given.
    if !unsafe { fault_handlers::call(signal, info, context, pc) } {
        // SAFETY: as above.
        unsafe { on_unhandled(signal, info, context) };
    }
}

/// Records a crash that no handler of a library has dealt with, and has the process end. Libraries are given this
/// as the handler before their own.
pub(super) unsafe extern "C" fn on_unhandled(
    signal: c_int,
    info: *mut libc::siginfo_t,
    context: *mut c_void,
) {
    // SAFETY: the system passes a valid description.
    let info = unsafe { &*info };
    // SAFETY: it has no preconditions.
    if PROCESS.load(Ordering::SeqCst) != unsafe { libc::getpid() } {
        // A process that a plugin has forked off is not the host, and has nothing to tell the supervisor.
        die(signal, info.si_code > 0);
        return;
    }
    let is_fault = info.si_code > 0;
    // SAFETY: it has no preconditions.
    let this = unsafe { libc::gettid() };
    match CRASHING.compare_exchange(0, this, Ordering::SeqCst, Ordering::SeqCst) {
        Ok(_) => {}
        // A library's handler has had the record written, and has returned.
        Err(other) if other == this => return die(signal, is_fault),
        // Another thread is at it, and ends the process.
        Err(_) => loop {
            // SAFETY: it waits for a signal, and has no preconditions.
            unsafe { libc::pause() };
        },
    }
    // SAFETY: a signal that is no fault was sent, so it has a sender; `getpid` has no preconditions.
    let is_foreign = !is_fault && unsafe { info.si_pid() != libc::getpid() };
    // SAFETY: the system passes the context of a handler with `SA_SIGINFO`.
    let (pc, sp) = unsafe { registers(context) };
    // SAFETY: a fault has an address.
    let address = is_fault.then(|| unsafe { info.si_addr() } as usize);
    let is_overflow = signal == libc::SIGSEGV && address.is_some_and(|at| at.abs_diff(sp) < STACK_REACH);
    let record = Record { signal, address, is_overflow, is_foreign, pc };
    if IS_LINE.load(Ordering::SeqCst) {
        record.lines()
    } else {
        record.words()
    }
    die(signal, is_fault);
}

/// The default action, when the handler returns: a fault happens once more, what was sent is sent again.
fn die(signal: c_int, is_fault: bool) {
    let _ = handle(signal, libc::SIG_DFL, 0);
    if !is_fault {
        // SAFETY: it sends a signal to this thread, where it is blocked until the handler returns.
        unsafe { libc::raise(signal) };
    }
}

/// What the handler knows.
struct Record {
    signal: c_int,
    address: Option<usize>,
    is_overflow: bool,
    is_foreign: bool,
    pc: usize,
}

impl Record {
    /// For the supervisor.
    fn lines(&self) {
        say(format_args!("crash\nsignal={}", self.signal));
        if let Some(address) = self.address {
            say(format_args!("address={address:#x}"));
        }
        if self.is_overflow {
            say(format_args!("overflow=1"));
        }
        if IS_EXIT.load(Ordering::SeqCst) {
            say(format_args!("exit=1"));
        }
        let mut name = [0_u8; 16];
        say(format_args!("thread={}", thread_name(&mut name)));
        if self.is_foreign {
            return;
        }
        let mut is_named = self.with_label(say_label).is_some();
        if let Some(running) = running() {
            say(format_args!("route={}", running.route));
            say(format_args!("request={}", running.request));
        }
        let mut frames = [ptr::null_mut(); FRAMES];
        let frames = stack(&mut frames);
        // Before the frame that crashed there are the handler's own.
        let first = frames.iter().position(|&frame| frame as usize == self.pc);
        frame(self.pc);
        for &at in frames.iter().skip(first.map_or(frames.len(), |first| first + 1)) {
            if !is_named {
                // Called by code of a plugin that the host does not know to run, as a signal handler is.
                is_named = code::with_owner(at as usize, |label, _| say_label(label)).is_some();
            }
            frame(at as usize);
        }
    }

    /// Tells `body` whose code crashed, or had been where the thread went.
    fn with_label(&self, body: fn(&Label)) -> Option<()> {
        let former = || tombstone::with_former_owner(self.pc, |label, _| body(label));
        code::with_label(self.pc, body).or_else(former)
    }

    /// For people, where there is no supervisor.
    fn words(&self) {
        let what = if self.is_overflow { " (stack overflow)" } else { "" };
        say(format_args!("the host ends by signal {}{what}", self.signal));
        if self.is_foreign {
            return;
        }
        self.with_label(|label| {
            say(format_args!("    in {} generation {}", label.plugin, label.generation));
        });
        if let Some(running) = running() {
            say(format_args!("    {} request {}", running.route, running.request));
        }
    }
}

/// What runs on this thread.
fn running<'a>() -> Option<Running<'a>> {
    let running = RUNNING.get();
    // SAFETY: `while_running` has set it, further out on this thread's stack, and has not returned.
    (!running.is_null()).then(|| unsafe { *running })
}

fn say_label(label: &Label) {
    say(format_args!("plugin={}", label.plugin));
    say(format_args!("generation={}", label.generation));
    say(format_args!("build={}", label.build));
}

fn frame(at: usize) {
    let known = code::with_owner(at, |label, offset| {
        say(format_args!("frame={} g{} +{offset:#x}", label.plugin, label.generation));
    });
    let former = || {
        tombstone::with_former_owner(at, |label, offset| {
            say(format_args!("frame={} g{} +{offset:#x}, unmapped", label.plugin, label.generation));
        })
    };
    if known.or_else(former).is_none() {
        match code::offset_in_executable(at) {
            Some(offset) => say(format_args!("frame=host +{offset:#x}")),
            None => say(format_args!("frame={at:#x}")),
        }
    }
}

/// Writes a line, cut where it is too long.
fn say(words: fmt::Arguments<'_>) {
    let mut line = Text { bytes: [0; 320], length: 0 };
    // What does not fit is cut.
    let _ = line.write_fmt(words);
    line.bytes[line.length] = b'\n';
    // SAFETY: so many bytes of the array are written.
    unsafe { libc::write(TO.load(Ordering::SeqCst), line.bytes.as_ptr().cast(), line.length + 1) };
}

/// A text on the stack, with room for the end of the line.
struct Text {
    bytes: [u8; 320],
    length: usize,
}

impl fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if self.length + 1 == self.bytes.len() {
                return Err(fmt::Error);
            }
            self.bytes[self.length] = byte;
            self.length += 1;
        }
        Ok(())
    }
}

/// The name of this thread, in `name`.
fn thread_name(name: &mut [u8; 16]) -> &str {
    #[cfg(target_os = "linux")]
    // SAFETY: the system writes at most 16 bytes, the last of them zero.
    unsafe {
        libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr())
    };
    let length = name.iter().position(|&byte| byte == 0).unwrap_or(0);
    std::str::from_utf8(&name[..length]).unwrap_or_default()
}

/// Where the thread is and where its stack ends.
///
/// # Safety
///
/// `context` is what the system passes to a handler.
unsafe fn registers(context: *mut c_void) -> (usize, usize) {
    let context = context.cast::<libc::ucontext_t>();
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    {
        // SAFETY: this function's contract.
        let registers = unsafe { &(*context).uc_mcontext.gregs };
        (registers[libc::REG_RIP as usize] as usize, registers[libc::REG_RSP as usize] as usize)
    }
    #[cfg(all(target_os = "linux", target_arch = "aarch64"))]
    {
        // SAFETY: this function's contract.
        let registers = unsafe { &(*context).uc_mcontext };
        (registers.pc as usize, registers.sp as usize)
    }
    #[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
    {
        let _ = context;
        (0, 0)
    }
}

/// The return addresses of this thread, as many as fit.
fn stack(frames: &mut [*mut c_void]) -> &[*mut c_void] {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        let most = c_int::try_from(frames.len()).unwrap_or(c_int::MAX);
        // SAFETY: at most that many are written. It finds its way by tables that it looks up without a
        // lock, once it has been called; `record_crashes` has called it.
        let found = unsafe { libc::backtrace(frames.as_mut_ptr(), most) };
        &frames[..usize::try_from(found).unwrap_or(0)]
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    {
        &frames[..0]
    }
}
