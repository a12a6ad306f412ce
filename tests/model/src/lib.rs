//! The registry's own source, run by loom through every order of its threads.
//!
//! Owns the models. The code under them is `host/src/registry`, all of it, compiled here a second time with
//! locks that loom schedules (`parking_lot/` beside this) and thread-locals that belong to loom's threads. What
//! it shares without a lock are counters for faces.

// The registry's unit tests are the host's; the models are run from `tests/`.
#![cfg(not(test))]
#![expect(dead_code, unused_imports, unreachable_pub, reason = "the models use a part of the registry")]

/// Shadows that of `std`: all of loom's threads are one to the system.
macro_rules! thread_local {
    ($($definition:tt)*) => { loom::thread_local! { $($definition)* } };
}

pub mod models;
#[path = "../../../host/src/panic.rs"]
mod panic;
#[path = "../../../host/src/registry/mod.rs"]
mod registry;
