//! Which threads may block.
//!
//! PostgreSQL's driver panics on a thread that is inside a tokio runtime. Who is about to call or
//! drop a connection asks here first.

use std::mem::ManuallyDrop;

/// Whether this thread must not block, because a tokio runtime runs on it.
pub fn is_forbidden() -> bool {
    tokio::runtime::Handle::try_current().is_ok()
}

/// Whether the driver cannot run here: on a runtime's thread, and at the end of any thread, whose
/// thread-local values are going.
pub(super) fn cannot_run() -> bool {
    match tokio::runtime::Handle::try_current() {
        Ok(_) => true,
        Err(error) => error.is_thread_local_destroyed(),
    }
}

/// Runs `body` with `value` here, or on a thread of its own where this one must not block.
///
/// If no thread can be made the value is leaked: the alternative is a panic in a drop.
pub(super) fn run<T: Send + 'static>(value: T, body: impl FnOnce(T) + Send + 'static) {
    if !cannot_run() {
        return body(value);
    }
    run_apart(value, body);
}

/// Runs `body` with `value` on a thread of its own.
///
/// If no thread can be made the value is leaked, as with [`run`].
pub(super) fn run_apart<T: Send + 'static>(value: T, body: impl FnOnce(T) + Send + 'static) {
    let value = ManuallyDrop::new(value);
    let spawned = std::thread::Builder::new()
        .name("db-checkin".to_owned())
        .spawn(move || body(ManuallyDrop::into_inner(value)));
    if let Err(error) = spawned {
        tracing::error!("leaked a database connection, for want of a thread to close it: {error}");
    }
}
