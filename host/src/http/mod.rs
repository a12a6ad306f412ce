//! Serving: the public listener, its I/O threads, the blocking workers, and what a client sees.
//!
//! A connection lives on one I/O thread from accept to close. A request is read there, finds its
//! handler through [`Service`], and runs on that thread (inline) or on a worker (blocking). Every
//! way a request can end, from a malformed first line to a handler that never returns, ends in a
//! response with a request id.
//!
//! Code map, in reading order: `service` (what this room asks of the plugins), `limits`, `listen`,
//! `server` (start and shutdown), `io_thread` (accept loop and drain), `connection` (phases and
//! their time-outs), `crowd` (how many of them), `wire` and `reject` (bytes that never became a
//! request), `head` (what HTTP demands of one), `answer` (one request), `pending` (its job), `waiting` (its client), `access` (its line in the log),
//! `body`, `budget` (its memory), `headers`, `trouble` (error pages), `request_id`, `numbers`, `workers`, `side`.
//!
//! It does not own plugins, generations or routes, and reads no configuration file.
//!
//! # Invariants
//!
//! - An I/O thread never blocks: blocking handlers run on [`Workers`].
//! - A panic of host code ends one request, never a thread.
//! - In production a client never learns why a handler failed; the log does.

mod access;
mod answer;
mod body;
mod budget;
mod connection;
mod crowd;
mod head;
mod headers;
mod io_thread;
mod limits;
mod listen;
mod lookout;
mod numbers;
mod pending;
mod reject;
mod request_id;
mod server;
mod service;
pub mod side;
mod trouble;
mod waiting;
mod wire;
pub mod workers;

pub use self::limits::{Limits, raise_descriptors};
pub use self::listen::{ListenError, Listener};
pub use self::numbers::Numbers;
pub use self::server::{Server, StartError};
pub use self::service::{Found, Gate, Incoming, Reply, Route, Service};
pub use self::workers::{WorkerLimits, WorkerNumbers, Workers};

#[cfg(test)]
mod tests;
