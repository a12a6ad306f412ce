//! The public server: starts its threads, adds up their numbers, drains them.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use super::answer::Front;
use super::budget::BufferBudget;
use super::connection::Thread;
use super::crowd::Crowd;
use super::io_thread::{Command, IoThread};
use super::limits::Limits;
use super::listen::Listener;
use super::lookout::Lookout;
use super::numbers::Numbers;
use super::service::Service;
use super::workers::Workers;
use crate::pins::DrainOnDrop;

/// How much longer than its deadline a shutdown waits for threads to say so.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// A running server. Dropped, it stops accepting and cuts off what is in flight; see [`Server::shutdown`].
pub struct Server {
    address: SocketAddr,
    peers: Arc<[(Arc<Thread>, UnboundedSender<Command>)]>,
    workers: Workers,
    /// Each thread's index and the requests it cut off, sent at its end.
    ended: Mutex<mpsc::Receiver<(usize, u64)>>,
}

/// Why a server did not start. The listener is closed; nothing was served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The listening socket could not be shared among threads.
    #[error("cannot share the listening socket among I/O threads")]
    Share(#[source] io::Error),
    /// An I/O thread or its runtime could not be started.
    #[error("cannot start I/O thread {index}")]
    Thread {
        /// Which one.
        index: usize,
        /// What the system said.
        source: io::Error,
    },
}

impl Server {
    /// Serves `service` on `listener`.
    ///
    /// # Errors
    ///
    /// When the system has no threads or descriptors left.
    pub fn start<S: Service>(
        listener: Listener,
        service: Arc<S>,
        limits: Limits,
    ) -> Result<Self, StartError> {
        let count = limits.io_thread_count();
        let workers = if limits.fixed_workers {
            Workers::fixed(limits.workers())
        } else {
            Workers::new(limits.workers())
        };
        let crowd =
            Crowd::new(limits.connections(), limits.max_connections_per_address.map(NonZeroUsize::get));
        let budget = BufferBudget::new(limits.max_buffered);
        let front = Arc::new(Front { service, limits, workers: workers.clone(), crowd, budget });
        let (senders, inboxes): (Vec<_>, Vec<_>) = (0..count).map(|_| unbounded_channel()).unzip();
        let peers: Arc<[_]> = senders.into_iter().map(|sender| (Arc::new(Thread::new()), sender)).collect();
        let accepting = Arc::new(AtomicUsize::new(count));
        let (ended_in, ended) = mpsc::channel();
        // Made before the first thread starts, so that a failure finds nothing that serves yet.
        let sockets = (0..count).map(|_| listener.share()).collect::<io::Result<Vec<_>>>();
        let sockets = sockets.map_err(StartError::Share)?;
        let server = Self {
            address: listener.address(),
            peers: Arc::clone(&peers),
            workers,
            ended: Mutex::new(ended),
        };
        for (index, (inbox, socket)) in inboxes.into_iter().zip(sockets).enumerate() {
            let thread = IoThread {
                index,
                front: Arc::clone(&front),
                peers: Arc::clone(&peers),
                inbox,
                accepting: Arc::clone(&accepting),
                lookout: Lookout::new(count),
            };
            start_thread(thread, socket, ended_in.clone())
                .map_err(|source| StartError::Thread { index, source })?;
        }
        Ok(server)
    }

    /// Where the server listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How serving is doing now.
    pub fn numbers(&self) -> Numbers {
        let mut numbers = Numbers { workers: self.workers.numbers(), ..Numbers::default() };
        for (thread, _) in self.peers.iter() {
            thread.counters.add_to(&mut numbers);
        }
        numbers
    }

    /// The blocking workers.
    pub fn workers(&self) -> &Workers {
        &self.workers
    }

    /// Stops accepting, answers what was accepted, and ends the threads, within `deadline`.
    ///
    /// Every client gets `connection: close` (HTTP/2: GOAWAY) with its next response; idle connections
    /// are closed after [`Limits::drain_grace`]. BLOCKS until done. Returns how many requests were cut
    /// off; zero on every further call.
    pub fn shutdown(&self, deadline: Duration) -> u64 {
        let until = far(deadline);
        let ended = self.ended.lock();
        for (_, inbox) in self.peers.iter() {
            // A thread that has ended needs no telling.
            let _ = inbox.send(Command::Drain(until));
        }
        let mut cut_off = 0;
        let mut running: Vec<bool> = self.peers.iter().map(|(_, inbox)| !inbox.is_closed()).collect();
        while running.contains(&true) {
            let left = until.saturating_duration_since(Instant::now()) + LAST_WORDS;
            let Ok((index, cut)) = ended.recv_timeout(left) else { break };
            running[index] = false;
            cut_off += cut;
        }
        // A thread that does not answer hangs in an inline handler, with all its requests.
        for (_, (thread, _)) in running.iter().zip(self.peers.iter()).filter(|(is_running, _)| **is_running) {
            cut_off += thread.unfinished();
        }
        self.workers.stop(until);
        cut_off
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        for (_, inbox) in self.peers.iter() {
            let _ = inbox.send(Command::Drain(Instant::now()));
        }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("address", &self.address).field("numbers", &self.numbers()).finish()
    }
}

/// Starts one I/O thread with a runtime of its own.
fn start_thread<S: Service>(
    thread: IoThread<S>,
    socket: std::net::TcpListener,
    ended: mpsc::Sender<(usize, u64)>,
) -> io::Result<()> {
    let index = thread.index;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let body = move || {
        let _drain = DrainOnDrop;
        let cut = runtime.block_on(thread.run(socket));
        // Connections that are still open close here.
        drop(runtime);
        // Nobody listens when the server was dropped without a shutdown.
        let _ = ended.send((index, cut));
    };
    std::thread::Builder::new().name(format!("io-{index}")).spawn(body).map(drop)
}

/// A deadline `duration` from now, or so late that it does not matter.
fn far(duration: Duration) -> Instant {
    const A_DAY: Duration = Duration::from_secs(24 * 60 * 60);
    Instant::now() + duration.min(A_DAY)
}
