//! Stopping panics of the host's own code where a thread or a call ends.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs `body`; a panic becomes its message.
pub(crate) fn catch<R>(body: impl FnOnce() -> R) -> Result<R, String> {
    catch_unwind(AssertUnwindSafe(body)).map_err(|payload| {
        let message = message_of(payload.as_ref()).to_owned();
        // A payload may panic in its own drop; it is a few bytes, once, so it is leaked instead.
        std::mem::forget(payload);
        message
    })
}

fn message_of(payload: &(dyn Any + Send)) -> &str {
    if let Some(text) = payload.downcast_ref::<&'static str>() {
        text
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text
    } else {
        "(the panic has no message)"
    }
}
