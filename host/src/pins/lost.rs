//! Code of a plugin that wants to end the process, by `exit` or `abort`: its thread is kept for ever instead,
//! and whoever waited for the thread is told.
//!
//! Rust's std lets one thread of each library get as far as `exit`; a second one waits in std, where nobody
//! hears of it, as any other handler that hangs.
//!
//! What such code leaves behind on its thread (locks it holds, values it has half changed) stays as it
//! is, for nothing can be undone. So the thread never goes on, and the code it is in stays mapped.
//!
//! # Invariants
//!
//! - Only a thread that somebody has declared [`losable`], or that a plugin has started itself, is kept.
//!   On any other the process ends as libc would end it: an I/O thread that stops would take all its
//!   connections along in silence.
//! - A process that was forked off ends when it says so, and so does a process that never asked for this.
#![expect(
    unsafe_code,
    reason = "asks for the number of the process, and follows a pointer to an outer frame"
)]

use std::cell::Cell;
use std::sync::atomic::{AtomicI32, Ordering};

use super::code::{Label, inside, is_executable, owner_of};
use super::thread::is_started_by_library;

/// What is to be done when a thread is lost, told what the code on it did.
type OnLost = dyn Fn(&str);

thread_local! {
    /// Of the innermost [`losable`] on this thread.
    static ON_LOST: Cell<Option<*const OnLost>> = const { Cell::new(None) };
}

/// The process that keeps threads; 0: none does.
static PROCESS: AtomicI32 = AtomicI32::new(0);

/// Has this process survive `exit` and `abort` of plugins where it can.
pub fn survive_ends() {
    // SAFETY: it has no preconditions.
    PROCESS.store(unsafe { libc::getpid() }, Ordering::SeqCst);
}

/// Runs `body`, which calls into a plugin, on a thread that the host can do without: if the plugin ends it,
/// `on_lost` is called, and this never returns.
pub fn losable<R>(on_lost: &dyn Fn(&str), body: impl FnOnce() -> R) -> R {
    /// Puts the outer one back, also when `body` unwinds: then nothing points to `on_lost` any more.
    struct Restore(Option<*const OnLost>);
    impl Drop for Restore {
        fn drop(&mut self) {
            ON_LOST.set(self.0);
        }
    }
    // SAFETY: only the lifetime changes. The pointer is followed on this thread while `body` runs, which is
    // while `on_lost` lives; then `Restore` takes it away.
    let pointer = unsafe { std::mem::transmute::<*const (dyn Fn(&str) + '_), *const OnLost>(on_lost) };
    let _restore = Restore(ON_LOST.replace(Some(pointer)));
    body()
}

/// Whose code wants to end the process; `None` where the process is to end.
pub(super) enum Ender {
    /// The host's own, or that of a process which does not contain ends.
    Host,
    /// A plugin's.
    Plugin(Option<Label>),
}

/// Who calls from `caller`.
pub(super) fn ender(caller: usize) -> Ender {
    // SAFETY: it has no preconditions.
    if PROCESS.load(Ordering::SeqCst) != unsafe { libc::getpid() } || is_executable(caller) {
        return Ender::Host;
    }
    match owner_of(caller).or_else(inside) {
        Some(code) => Ender::Plugin(code.label().cloned()),
        None => Ender::Host,
    }
}

/// Keeps this thread for ever, if it may be; returns if it may not.
pub(super) fn keep(label: Option<Label>, what: &str) {
    let on_lost = ON_LOST.take();
    if on_lost.is_none() && !is_started_by_library() {
        return;
    }
    // Host code may panic; here it must not unwind into the plugin.
    let _ = crate::panic::catch(|| {
        let (plugin, generation) =
            label.map_or_else(|| ("?".into(), 0), |label| (label.plugin, label.generation));
        tracing::error!(%plugin, generation, "code of the plugin called {what}: its thread is stopped for ever");
        if let Some(on_lost) = on_lost {
            // SAFETY: `losable` has set it, further out on this stack, and has not returned.
            unsafe { (*on_lost)(&format!("it called {what}")) };
        }
    });
    loop {
        std::thread::park();
    }
}
