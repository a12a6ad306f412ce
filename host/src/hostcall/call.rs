//! Which request the current thread works for, so that logs, panics and leaks can be attributed.

use std::cell::RefCell;
use std::sync::Arc;

/// A request, as far as attribution goes.
#[derive(Clone, Debug)]
pub struct Call {
    /// Name of the plugin.
    pub plugin: Arc<str>,
    /// Number of the generation.
    pub generation: u64,
    /// Method and pattern, such as `GET /{id}`; for a hook its name.
    pub route: Arc<str>,
    /// The request's id; empty for a hook.
    pub request_id: Arc<str>,
}

thread_local! {
    static CURRENT: RefCell<Option<Call>> = const { RefCell::new(None) };
    static LAST_PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// The request this thread works for. At the end of a thread, where destructors of plugins run, none.
pub fn current() -> Option<Call> {
    CURRENT.try_with(|current| current.borrow().clone()).ok().flatten()
}

/// Runs `body` with `call` as the current request.
pub fn enter<R>(call: Call, body: impl FnOnce() -> R) -> R {
    /// Restores the outer request, also when `body` unwinds.
    struct Restore(Option<Call>);
    impl Drop for Restore {
        fn drop(&mut self) {
            CURRENT.set(self.0.take());
        }
    }
    let _restore = Restore(CURRENT.replace(Some(call)));
    body()
}

/// Remembers where this thread's plugin code panicked, for the error that follows.
pub(crate) fn set_last_panic(text: String) {
    // A thread that is ending has no error to follow.
    let _ = LAST_PANIC.try_with(|last| last.replace(Some(text)));
}

/// Takes what the last panic left.
pub fn take_last_panic() -> Option<String> {
    LAST_PANIC.take()
}
