//! Log events and panics of plugins, into the host's log.
//!
//! `tracing` wants static metadata for an event, so a plugin's level picks one of five call sites here
//! and its target becomes the field `target`.
#![expect(unsafe_code, reason = "reads the arguments of host calls")]

use std::fmt::Write as _;

use plugin_api::abi::{HostCtx, LogView, PairView, PanicView};

use super::{Caller, call, guard, view};

/// The `log` of the host's table.
pub(super) unsafe extern "C" fn log(ctx: HostCtx, event: *const LogView) {
    let body = |caller: &Caller| {
        // SAFETY: the plugin passes an event that is valid for this call.
        let Some(event) = (unsafe { event.as_ref() }) else { return Ok(()) };
        // SAFETY: the views of a valid event are valid for this call.
        let (target, message, fields) = unsafe {
            (
                String::from_utf8_lossy(event.target.as_bytes()),
                String::from_utf8_lossy(event.message.as_bytes()),
                view::slice::<PairView>(event.fields, event.field_count),
            )
        };
        let mut text = message.into_owned();
        for field in fields {
            // SAFETY: as above.
            let (name, value) = unsafe { (field.name.as_bytes(), field.value.as_slice()) };
            // Writing to a `String` cannot fail.
            let _ = write!(text, " {}={}", String::from_utf8_lossy(name), String::from_utf8_lossy(value));
        }
        emit(caller, event.level, &target, &text);
        Ok(())
    };
    // SAFETY: `ctx` comes from the plugin under the table's contract; there is no sink.
    unsafe { guard(ctx, std::ptr::null(), body) };
}

/// The `panicked` of the host's table.
pub(super) unsafe extern "C" fn panicked(ctx: HostCtx, panic: *const PanicView) {
    let body = |caller: &Caller| {
        // SAFETY: the plugin passes a panic that is valid for this call.
        let Some(panic) = (unsafe { panic.as_ref() }) else { return Ok(()) };
        // SAFETY: the views of a valid panic are valid for this call.
        let (message, file, thread) = unsafe {
            (
                String::from_utf8_lossy(panic.message.as_bytes()),
                String::from_utf8_lossy(panic.file.as_bytes()),
                String::from_utf8_lossy(panic.thread.as_bytes()),
            )
        };
        let mut text = message.into_owned();
        if !file.is_empty() {
            // Writing to a `String` cannot fail.
            let _ = write!(text, ", at {file}:{}:{}", panic.line, panic.column);
        }
        // The library's copy of std knows no name of a thread that the host has started, nor of one without a name.
        let thread = if thread.is_empty() { &*caller.plugin } else { &*thread };
        emit(caller, 1, "panic", &format!("panicked: {text} (thread `{thread}`)"));
        call::set_last_panic(text);
        Ok(())
    };
    // SAFETY: `ctx` comes from the plugin under the table's contract; there is no sink.
    unsafe { guard(ctx, std::ptr::null(), body) };
}

/// Writes an event with its origin: plugin, generation and, inside a request, route and id.
fn emit(caller: &Caller, level: u32, origin: &str, text: &str) {
    let current = call::current();
    let route = current.as_ref().map(|c| tracing::field::display(c.route.clone()));
    let request = current.as_ref().filter(|c| !c.request_id.is_empty());
    let request_id = request.map(|c| tracing::field::display(c.request_id.clone()));
    macro_rules! at {
        ($level:expr) => {
            tracing::event!(
                target: "plugin",
                $level,
                plugin = %caller.plugin,
                generation = caller.generation,
                route,
                request_id,
                origin,
                "{text}"
            )
        };
    }
    match level {
        1 => at!(tracing::Level::ERROR),
        2 => at!(tracing::Level::WARN),
        3 => at!(tracing::Level::INFO),
        4 => at!(tracing::Level::DEBUG),
        _ => at!(tracing::Level::TRACE),
    }
}
