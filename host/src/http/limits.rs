//! How much a client may ask, and how long anything may take.

use std::num::NonZeroUsize;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::workers::WorkerLimits;

/// Limits of the public listener. A `Duration::MAX` switches a time-out off.
#[derive(Debug, Clone)]
pub struct Limits {
    /// I/O threads; `None` takes one per core.
    pub io_threads: Option<NonZeroUsize>,
    /// Most connections. Beyond that the connection that has had no request for longest is closed for a new one.
    /// Where all have requests, a new client is answered with 503, and beyond a few of those waits.
    /// `None` takes three quarters of the descriptors that this process may have.
    pub max_connections: Option<NonZeroUsize>,
    /// Most connections of one client address; one more is answered with 503. `None`: no limit, as behind a proxy,
    /// where all clients have its address.
    pub max_connections_per_address: Option<NonZeroUsize>,
    /// Most worker threads for blocking handlers, started on demand; `None` takes four per core, at least 16.
    pub max_workers: Option<NonZeroUsize>,
    /// Starts all workers at once instead of on demand.
    pub fixed_workers: bool,
    /// Blocking requests that may wait for a worker; one more is answered with 503 at once.
    pub queue: usize,
    /// From so many blocking requests of one generation of a plugin on that go on after their deadline, each
    /// on a thread that was replaced, none of it is begun, and new ones are answered with 503. `None` takes
    /// half the number of workers.
    pub max_late: Option<NonZeroUsize>,
    /// Largest request body, in bytes; a larger one is answered with 413.
    pub max_body: usize,
    /// Most bytes of request and response bodies that are kept in memory; beyond that, requests are answered with
    /// 503, and clients that take their responses slowly are cut off. One connection may have a quarter of it for
    /// bodies that it sends.
    pub max_buffered: usize,
    /// Largest request line plus headers, in bytes, at least 8192; more is answered with 431.
    pub max_head: usize,
    /// How long a client may take to send the head of a request.
    pub header_timeout: Duration,
    /// How long a client may take to send a body; then 408.
    pub body_timeout: Duration,
    /// How long a blocking handler may take, waiting for a worker included; then 504, or 503 if it was
    /// still waiting.
    pub handler_timeout: Duration,
    /// How long a client may go without taking so much of a response as `min_write_rate` demands.
    pub write_timeout: Duration,
    /// How many bytes of a response a client has to take per second, as a mean over `write_timeout`; counted in steps
    /// of 16 KiB over HTTP/2.
    pub min_write_rate: usize,
    /// How long a keep-alive connection may stay without a request.
    pub idle_timeout: Duration,
    /// While draining: how long an idle connection still gets its next request answered.
    ///
    /// HTTP/1.1 has no way to tell an idle client that the connection is about to close, so a
    /// request may be on its way already.
    pub drain_grace: Duration,
    /// Shows clients which plugin and generation answered, and why a request failed.
    pub development: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            io_threads: None,
            max_connections: None,
            max_connections_per_address: None,
            max_workers: None,
            fixed_workers: false,
            queue: 1024,
            max_late: None,
            max_body: 2 * 1024 * 1024,
            max_buffered: 256 * 1024 * 1024,
            max_head: 64 * 1024,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            handler_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
            // As Kestrel has it.
            min_write_rate: 240,
            idle_timeout: Duration::from_secs(75),
            drain_grace: Duration::from_millis(250),
            development: false,
        }
    }
}

impl Limits {
    /// The number of I/O threads these limits mean on this machine.
    pub(super) fn io_thread_count(&self) -> usize {
        self.io_threads.map_or_else(cores, NonZeroUsize::get)
    }

    /// The number of connections these limits mean for this process.
    pub(super) fn connections(&self) -> usize {
        self.max_connections.map_or_else(|| (descriptors() / 4 * 3).max(1), NonZeroUsize::get)
    }

    /// How many bytes of a response a client has to take within the write time-out.
    pub(super) fn least_written(&self) -> u64 {
        let whole = self.write_timeout.as_secs_f64() * self.min_write_rate as f64;
        // At least one byte; a float beyond the greatest number becomes that number.
        (whole as u64).max(1)
    }

    /// What these limits mean for the workers on this machine.
    pub(super) fn workers(&self) -> WorkerLimits {
        let threads = self.max_workers.map_or_else(|| (4 * cores()).max(16), NonZeroUsize::get);
        let late = self.max_late.map_or_else(|| threads.div_ceil(2), NonZeroUsize::get);
        WorkerLimits { threads, queue: self.queue, late }
    }
}

/// Most descriptors that a host asks the system for. More would let a flood of clients take gigabytes.
const MOST_DESCRIPTORS: u64 = 1 << 16;

/// Has the system grant this process as many files and sockets as it may have, within reason: the customary limit
/// of 1,024 is for programs that wait with `select`.
pub fn raise_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(MOST_DESCRIPTORS).min(MOST_DESCRIPTORS);
    if limit.current.is_some_and(|current| current < most) {
        // Where it fails the limit stays, and `max_connections` follows from it.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(most), ..limit });
    }
}

/// How many files and sockets this process may have open.
fn descriptors() -> usize {
    let limit = getrlimit(Resource::Nofile).current;
    limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX)
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

/// Words for a size in bytes, as a person would write it in the configuration.
pub(super) fn size(bytes: usize) -> String {
    const KIB: usize = 1024;
    const MIB: usize = KIB * KIB;
    match bytes {
        b if b >= MIB && b % MIB == 0 => format!("{} MiB", b / MIB),
        b if b >= KIB && b % KIB == 0 => format!("{} KiB", b / KIB),
        b => format!("{b} bytes"),
    }
}
