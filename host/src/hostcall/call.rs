//! Which request the current thread works for, so that logs, panics and leaks can be attributed; and what
//! its response waits for.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;

use super::Failure;

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
    /// When the client is answered without us; `None` for a hook, or where there is no limit.
    pub deadline: Option<Instant>,
}

/// Something a handler has begun and its response waits for: what will have become of it.
///
/// A sender that is dropped has failed.
pub type Gate = oneshot::Receiver<Result<(), Failure>>;

thread_local! {
    /// Of the request that runs on this thread.
    static GATES: RefCell<Option<Vec<Gate>>> = const { RefCell::new(None) };
    static CURRENT: RefCell<Option<Call>> = const { RefCell::new(None) };
    static LAST_PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// The request this thread works for. At the end of a thread, where destructors of plugins run, none.
pub fn current() -> Option<Call> {
    CURRENT.try_with(|current| current.borrow().clone()).ok().flatten()
}

/// When the client of the request that this thread works for is answered without it.
pub fn deadline() -> Option<Instant> {
    CURRENT.try_with(|current| current.borrow().as_ref()?.deadline).ok().flatten()
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

/// As [`enter`], for a handler: also returns what the response has to wait for.
pub fn enter_request<R>(call: Call, body: impl FnOnce() -> R) -> (R, Vec<Gate>) {
    let outer = GATES.replace(Some(Vec::new()));
    let answer = enter(call, body);
    (answer, GATES.replace(outer).unwrap_or_default())
}

/// Makes the response of the request that runs on this thread wait; `None` where none does.
pub fn open_gate() -> Option<oneshot::Sender<Result<(), Failure>>> {
    let (sender, gate) = oneshot::channel();
    let is_open = GATES.try_with(|gates| {
        gates.borrow_mut().as_mut().map(|gates| {
            gates.push(gate);
        })
    });
    is_open.ok().flatten().map(|()| sender)
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
