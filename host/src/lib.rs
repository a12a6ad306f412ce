//! A native application server for Rust handler plugins in which code is disposable and state is not.
//!
//! # Bird's eye view
//!
//! A plugin is a library with routes. The host builds it from source or takes it prebuilt, loads it,
//! and serves it over HTTP. When the source changes it builds and tries the new code aside, and swaps
//! it in by one pointer once it is known to work; requests that are running end in the code they began
//! in. What has to outlive the code (database pools) is owned by the host and found again through the
//! registry.
//!
//! ```text
//!          edit                                   request
//!           |                                        |
//!         watch -> build -> plugin (stage, probe,   http (I/O threads, workers)
//!                            open, init, publish)    |
//!                               |                    |
//!                               +---> router <-------+
//!                                       |
//!                                   generation  --- C ABI --->  hostcall -> registry, db
//! ```
//!
//! # Code map, in reading order
//!
//! - [`cli`], [`config`]: the command line, the screen, the log; `host.toml`.
//! - [`supervisor`]: the process that holds the sockets and starts the one that serves.
//! - [`host`]: owns every part; start order and, reversed, stop order.
//! - [`plugin`]: plugins, their generations, and the pipeline from a library's bytes to publish.
//! - [`pins`]: what holds a generation's code: threads, thread-local destructors, pthread keys.
//! - [`build`], [`watch`]: cargo, and what tells that it should run.
//! - [`http`]: the public listener, limits, workers, what a client sees; knows no plugins.
//! - [`hostcall`]: plugin -> host, the functions in the host's table.
//! - [`registry`]: the process-wide map of values that outlive code.
//! - [`db`]: drivers, connections, pools.
//! - [`tx`]: the transactions of a request, kept or undone before its answer is sent.
//! - [`safe`]: each plugin's private durable key-value store.
//! - `memory`: how the C library keeps memory.
//! - [`share`]: what each plugin may take of the workers; numbers that serving and plugins both know.
//! - [`admin`]: the host as JSON, on the admin listener and on the control socket.
//!
//! # Architecture invariants
//!
//! - Rooms that hold state ([`registry`], [`db`], [`safe`], [`tx`]) cannot name a generation, a plugin or a request.
//! - `unsafe` is in the files that `tests/it/tidy.rs` lists; the boundary's pointers are read in
//!   [`hostcall`] and `plugin` and nowhere else. [`pins`] stands in for some functions of libc
//!   (`host/docs/libc.md`).
//! - Code is unmapped by the reaper alone, when nothing leads into it any more.
//! - No panic of a plugin, and none of the host's own code inside a call, leaves the side that raised it.
//! - The previous generation serves until the next one has been built, probed, opened and initialised.

pub mod admin;
pub mod build;
pub mod cli;
pub mod config;
pub mod db;
pub mod host;
pub mod hostcall;
pub mod http;
mod memory;
mod panic;
pub mod pins;
pub mod plugin;
pub mod registry;
pub mod report;
pub mod safe;
pub mod share;
pub mod supervisor;
pub mod tx;
pub mod watch;
