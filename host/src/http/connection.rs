//! What an I/O thread knows about each of its connections, and when it gives one up.
//!
//! hyper offers a timer for the head of a request only, armed anew for each. Here a connection
//! records the phase it is in and since when; one sweep per tick looks at all of them. A request
//! costs a few relaxed stores and no timer.
//!
//! # Invariants
//!
//! - All but the counters and what arrives is written on the connection's own I/O thread, so `Relaxed` is enough.
//! - A time-out is never early: the clock may lag by a tick, and the sweep allows for it.
//! - A connection is given up only through its own task, woken to see [`Connection::is_closing`].

use std::collections::{HashMap, VecDeque};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::task::Waker;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::crowd::{AddressPlace, Surplus};
use super::limits::Limits;
use super::numbers::Counters;
use crate::tx::{Reason, Scope};

/// How long a client gets to read the last response while it is still sending.
const LINGER: Duration = Duration::from_secs(2);

/// Where memory is short, a client that has not taken its responses after so long may be cut off.
const SLOW: Duration = Duration::from_secs(5);

/// Where connections are short, one whose head has not come after so long makes room.
const SLOW_HEAD: Duration = Duration::from_secs(1);

/// A thread that has connections and did not look at its clock for so long hangs: it does so every second.
const STUCK: Duration = Duration::from_secs(3);

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Phase {
    /// Accepted; no byte has come.
    Fresh = 0,
    /// Bytes of a head have come, but no whole head.
    Head = 1,
    /// At least one request is being answered.
    Busy = 2,
    /// The last response waits for the client to take it.
    Writing = 3,
    /// Between requests.
    Idle = 4,
    /// Everything was written; what the client still sends is thrown away.
    Lingering = 5,
}

/// Whether the client of the request that is answered is still there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Departure {
    /// As far as is known.
    Present = 0,
    /// It sends nothing more, and may be waiting for its answer or be gone.
    ClosedItsSide = 1,
    /// It takes no answer.
    Gone = 2,
}

/// What is to be given up when the client goes away.
#[derive(Debug)]
struct Wanted {
    scope: Arc<Scope>,
    /// Whether a client that closes its side has gone. One that had announced to send nothing more may only mean that.
    closing_means_gone: bool,
}

/// From so many reset streams on, a client of HTTP/2 that has reset most of its streams is cut off. (Envoy has
/// such a limit, of 500.)
const MOST_RESETS: u32 = 100;

/// One open connection.
#[derive(Debug)]
pub(super) struct Connection {
    /// The client's address, written once for all its requests.
    pub(super) remote: Arc<str>,
    pub(super) thread: Arc<Thread>,
    /// Why it is one too many, and is to be told so.
    pub(super) surplus: Option<Surplus>,
    /// Counts it among those of its address.
    _place: Option<AddressPlace>,
    number: u64,
    phase: AtomicU8,
    /// Milliseconds of the thread's clock at the last change of phase or progress in writing.
    since: AtomicU64,
    in_flight: AtomicU32,
    /// Of these, the ones whose response is not ready: the client waits for us and not we for the client.
    unanswered: AtomicU32,
    is_http2: AtomicBool,
    /// Whether the client may still be sending when the last response leaves.
    must_linger: AtomicBool,
    closing: AtomicBool,
    /// Whether it is closed whatever its client does next: it did not take its responses in time.
    is_cut_off: AtomicBool,
    /// When the client began to owe us room for a response, in milliseconds of the thread's clock, or when the
    /// last write time-out began after that; 0: it owes nothing.
    owes_since: AtomicU64,
    /// Bytes of responses that it has taken since then.
    taken: AtomicU64,
    /// Bytes of its requests' bodies that are kept. Written by any thread.
    pub(super) body_bytes: AtomicUsize,
    /// Bytes of its responses that are kept, and since when there are any. Written by any thread.
    response_bytes: AtomicUsize,
    keeps_since: AtomicU64,
    /// A [`Departure`]. Written by the wire, read by the request that is answered.
    departure: AtomicU8,
    /// Whether a further request waits unread, behind which the end of the stream cannot be seen by reading.
    has_more_input: AtomicBool,
    /// Streams of HTTP/2 that were begun, and of these the ones that the client reset before their answer.
    streams: AtomicU32,
    resets: AtomicU32,
    /// What a client that goes away no longer wants. Written by the request, read by the wire.
    wanted: Mutex<Option<Wanted>>,
    /// The connection's task; its waker stays the same for the task's life.
    waker: OnceLock<Waker>,
}

impl Connection {
    pub(super) fn phase(&self) -> Phase {
        match self.phase.load(Relaxed) {
            0 => Phase::Fresh,
            1 => Phase::Head,
            2 => Phase::Busy,
            3 => Phase::Writing,
            4 => Phase::Idle,
            _ => Phase::Lingering,
        }
    }

    /// Enters a phase, now.
    pub(super) fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Relaxed);
        self.progressed();
    }

    /// The first bytes of a head have come, just in time if the connection was being given up.
    pub(super) fn begin_head(&self) {
        self.closing.store(false, Relaxed);
        self.enter(Phase::Head);
    }

    /// Restarts the time-out of the phase.
    pub(super) fn progressed(&self) {
        self.since.store(self.thread.clock.load(Relaxed), Relaxed);
    }

    /// Whether no request is being answered, so that whatever hyper writes is its own.
    pub(super) fn is_quiet(&self) -> bool {
        matches!(self.phase(), Phase::Fresh | Phase::Head | Phase::Idle)
    }

    /// Whether there is a response that the client is yet to take.
    pub(super) fn is_writing(&self) -> bool {
        match self.phase() {
            Phase::Writing => true,
            Phase::Busy => self.in_flight.load(Relaxed) > self.unanswered.load(Relaxed),
            _ => false,
        }
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Relaxed) || self.is_cut_off.load(Relaxed)
    }

    /// The socket has taken so many bytes. What goes over HTTP/2 is more than responses; see
    /// [`handed_out`](Connection::handed_out).
    pub(super) fn wrote(&self, bytes: usize) {
        if !self.is_http2() {
            self.taken.fetch_add(bytes as u64, Relaxed);
        }
    }

    /// hyper has asked for so many bytes of a response.
    pub(super) fn handed_out(&self, bytes: usize) {
        if self.is_http2() {
            self.taken.fetch_add(bytes as u64, Relaxed);
        }
    }

    /// The write time-out begins, or goes on if it has begun, or ends if no response is left.
    fn settle_debt(&self) {
        if !self.is_writing() {
            self.owes_since.store(0, Relaxed);
        } else if self.owes_since.load(Relaxed) == 0 {
            self.begin_debt(self.thread.clock.load(Relaxed));
        }
    }

    fn begin_debt(&self, now: u64) {
        self.taken.store(0, Relaxed);
        // Zero means that nothing is owed.
        self.owes_since.store(now.max(1), Relaxed);
    }

    /// Every response has left.
    pub(super) fn rest(&self) {
        self.enter(Phase::Idle);
        self.settle_debt();
    }

    /// So many more bytes of responses are kept for the client.
    pub(super) fn keep_response(&self, bytes: usize) {
        if self.response_bytes.fetch_add(bytes, Relaxed) == 0 {
            self.keeps_since.store(self.thread.clock.load(Relaxed), Relaxed);
        }
    }

    /// So many bytes of responses are kept no more.
    pub(super) fn drop_response(&self, bytes: usize) {
        self.response_bytes.fetch_sub(bytes, Relaxed);
    }

    pub(super) fn is_http2(&self) -> bool {
        self.is_http2.load(Relaxed)
    }

    pub(super) fn set_http2(&self) {
        self.is_http2.store(true, Relaxed);
    }

    pub(super) fn must_linger(&self) -> bool {
        self.must_linger.load(Relaxed)
    }

    /// Keeps the connection open a little for the client to read the answer while it still sends:
    /// closing a socket with unread bytes in it takes the answer away from the client.
    pub(super) fn linger(&self) {
        self.must_linger.store(true, Relaxed);
    }

    /// Has `scope` given up when the client goes away, until [`forget`](Connection::forget).
    pub(super) fn want(&self, scope: Arc<Scope>, closing_means_gone: bool) {
        *self.wanted.lock() = Some(Wanted { scope, closing_means_gone });
    }

    /// From now on nothing is given up when the client goes away.
    pub(super) fn forget(&self) {
        *self.wanted.lock() = None;
    }

    /// Whether it matters that the client goes away.
    pub(super) fn is_wanted(&self) -> bool {
        self.wanted.lock().is_some()
    }

    pub(super) fn departure(&self) -> Departure {
        match self.departure.load(Relaxed) {
            0 => Departure::Present,
            1 => Departure::ClosedItsSide,
            _ => Departure::Gone,
        }
    }

    /// The client sends nothing more; `is_cut`: nor takes it anything.
    pub(super) fn left(&self, is_cut: bool) {
        let mut wanted = self.wanted.lock();
        let departure = match wanted.take_if(|wanted| is_cut || wanted.closing_means_gone) {
            Some(wanted) => {
                wanted.scope.abandon(Reason::Disconnected);
                Departure::Gone
            }
            None if is_cut => Departure::Gone,
            None => self.departure().max(Departure::ClosedItsSide),
        };
        if self.departure.swap(departure as u8, Relaxed) != departure as u8 {
            self.wake();
        }
    }

    /// Notes whether a further request waits unread.
    pub(super) fn set_more_input(&self, has_more: bool) {
        self.has_more_input.store(has_more, Relaxed);
    }

    /// Whether the client resets most of its streams, so that what it asks for is work for nobody.
    pub(super) fn is_abusive(&self) -> bool {
        let resets = self.resets.load(Relaxed);
        resets >= MOST_RESETS && resets > self.streams.load(Relaxed) / 2
    }

    pub(super) fn remember(&self, waker: &Waker) {
        self.waker.get_or_init(|| waker.clone());
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.get() {
            waker.wake_by_ref();
        }
    }

    fn close(&self) {
        self.closing.store(true, Relaxed);
        self.wake();
    }

    /// Closes it whatever its client does next.
    fn cut_off(&self) {
        self.is_cut_off.store(true, Relaxed);
        self.wake();
    }
}

/// A request from its head to the last byte handed to hyper; kept in the response's body.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) connection: Arc<Connection>,
    /// Whether its response is ready.
    is_answered: bool,
}

impl Flight {
    pub(super) fn begin(connection: &Arc<Connection>) -> Self {
        connection.in_flight.fetch_add(1, Relaxed);
        connection.unanswered.fetch_add(1, Relaxed);
        connection.thread.counters.in_flight.fetch_add(1, Relaxed);
        connection.streams.fetch_add(1, Relaxed);
        connection.departure.store(Departure::Present as u8, Relaxed);
        connection.set_more_input(false);
        connection.closing.store(false, Relaxed);
        connection.enter(Phase::Busy);
        Self { connection: Arc::clone(connection), is_answered: false }
    }

    /// The response is ready. HTTP/2 takes it no faster than the client lets it.
    pub(super) fn answered(&mut self) {
        if !std::mem::replace(&mut self.is_answered, true) {
            self.connection.unanswered.fetch_sub(1, Relaxed);
            self.connection.settle_debt();
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let connection = &self.connection;
        if !self.is_answered {
            connection.thread.counters.cancelled();
            connection.resets.fetch_add(1, Relaxed);
            if connection.is_abusive() {
                connection.wake();
            }
        }
        self.answered();
        let connection = &self.connection;
        connection.thread.counters.in_flight.fetch_sub(1, Relaxed);
        if connection.in_flight.fetch_sub(1, Relaxed) == 1 {
            connection.enter(Phase::Writing);
        }
        connection.settle_debt();
    }
}

/// What one I/O thread shares with its connections and with whoever asks for numbers.
#[derive(Debug)]
pub(super) struct Thread {
    pub(super) counters: Counters,
    /// Milliseconds since `started`, as of the last tick or accept. The other threads read it, and write it while
    /// this one has no connections.
    clock: AtomicU64,
    /// Connections that another thread has given to this one, which has not taken them up yet. Counted already.
    arriving: Mutex<VecDeque<(TcpStream, SocketAddr)>>,
    /// Whether the log says that it hangs. Written by the others.
    pub(super) is_told: AtomicBool,
    started: Instant,
    draining: AtomicBool,
    /// Whether a worker is going to be woken for the jobs that come from here.
    pub(super) is_waking: AtomicBool,
    connections: Mutex<HashMap<u64, Arc<Connection>>>,
    next: AtomicU64,
}

impl Thread {
    pub(super) fn new() -> Self {
        Self {
            counters: Counters::default(),
            clock: AtomicU64::new(0),
            arriving: Mutex::default(),
            is_told: AtomicBool::new(false),
            started: Instant::now(),
            draining: AtomicBool::new(false),
            is_waking: AtomicBool::new(false),
            connections: Mutex::default(),
            next: AtomicU64::new(0),
        }
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Relaxed)
    }

    /// Lists a new connection until the guard is dropped.
    pub(super) fn admit(
        self: &Arc<Self>,
        remote: SocketAddr,
        place: Result<Option<AddressPlace>, Surplus>,
    ) -> Admitted {
        let now = self.read_clock();
        let connection = Arc::new(Connection {
            remote: remote.to_string().into(),
            thread: Arc::clone(self),
            surplus: place.as_ref().err().copied(),
            _place: place.ok().flatten(),
            number: self.next.fetch_add(1, Relaxed),
            phase: AtomicU8::new(Phase::Fresh as u8),
            since: AtomicU64::new(now),
            in_flight: AtomicU32::new(0),
            unanswered: AtomicU32::new(0),
            is_http2: AtomicBool::new(false),
            must_linger: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            is_cut_off: AtomicBool::new(false),
            owes_since: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            body_bytes: AtomicUsize::new(0),
            response_bytes: AtomicUsize::new(0),
            keeps_since: AtomicU64::new(0),
            departure: AtomicU8::new(Departure::Present as u8),
            has_more_input: AtomicBool::new(false),
            streams: AtomicU32::new(0),
            resets: AtomicU32::new(0),
            wanted: Mutex::default(),
            waker: OnceLock::new(),
        });
        self.connections.lock().insert(connection.number, Arc::clone(&connection));
        Admitted(connection)
    }

    /// Gives the thread a connection, which it finds when it is told to look.
    pub(super) fn give(&self, stream: TcpStream, remote: SocketAddr) {
        if self.counters.connections.fetch_add(1, Relaxed) == 0 {
            // Without connections it had no reason to look at the clock.
            self.read_clock();
        }
        self.arriving.lock().push_back((stream, remote));
    }

    /// Takes up a connection that was given to the thread. While it is stuck, another one may do so.
    pub(super) fn take_up(&self) -> Option<(TcpStream, SocketAddr)> {
        self.arriving.lock().pop_front()
    }

    /// Whether the thread has not come back from an inline handler for long. To be asked by another one.
    pub(super) fn is_stuck(&self) -> bool {
        let behind = millis(self.started.elapsed()).saturating_sub(self.clock.load(Relaxed));
        self.counters.connections.load(Relaxed) > 0 && behind >= millis(STUCK)
    }

    fn read_clock(&self) -> u64 {
        let now = millis(self.started.elapsed());
        self.clock.store(now, Relaxed);
        now
    }

    /// Gives up every connection that has stayed in its phase for too long, or takes its responses too slowly.
    pub(super) fn sweep(&self, limits: &Limits, tick: Duration) {
        let now = self.read_clock();
        let least = limits.least_written();
        for connection in self.connections.lock().values() {
            let is_over = |since: u64, limit: Duration| {
                now.saturating_sub(since) >= millis(limit).saturating_add(millis(tick))
            };
            let owes_since = connection.owes_since.load(Relaxed);
            if owes_since > 0 && is_over(owes_since, limits.write_timeout) {
                if connection.taken.load(Relaxed) < least {
                    connection.cut_off();
                } else {
                    connection.begin_debt(now);
                }
            }
            let limit = match connection.phase() {
                Phase::Busy | Phase::Writing => {
                    if connection.has_more_input.load(Relaxed) {
                        // Nothing else makes it look whether its client is still there.
                        connection.wake();
                    }
                    continue;
                }
                Phase::Fresh | Phase::Head => limits.header_timeout,
                Phase::Idle => limits.idle_timeout,
                Phase::Lingering => LINGER,
            };
            if is_over(connection.since.load(Relaxed), limit) {
                connection.close();
            }
        }
    }

    /// Closes the connections that have kept responses for longest, until `excess` bytes are free.
    pub(super) fn relieve_memory(&self, excess: usize) {
        let now = self.read_clock();
        let connections = self.connections.lock();
        let mut keeping: Vec<_> = connections
            .values()
            .map(|connection| {
                let age = now.saturating_sub(connection.keeps_since.load(Relaxed));
                (age, connection.response_bytes.load(Relaxed), connection)
            })
            .filter(|(age, bytes, connection)| {
                *bytes > 0 && *age >= millis(SLOW) && connection.is_writing() && !connection.is_closing()
            })
            .collect();
        keeping.sort_unstable_by_key(|(age, bytes, _)| std::cmp::Reverse((*age, *bytes)));
        let mut freed = 0;
        for (_, bytes, connection) in keeping {
            if freed >= excess {
                return;
            }
            freed += bytes;
            connection.cut_off();
        }
    }

    /// Closes up to `most` connections that have no request, to make room: first those that have rested or been silent
    /// for longest, then those whose heads come slowly. Returns how many.
    pub(super) fn make_room(&self, most: usize) -> usize {
        let connections = self.connections.lock();
        // Not noted: another thread may be asking, and whether this one hangs shows by its clock.
        let now = millis(self.started.elapsed());
        let mut quiet: Vec<_> = connections
            .values()
            .filter(|connection| connection.is_quiet() && !connection.is_closing())
            .map(|connection| {
                let since = connection.since.load(Relaxed);
                (connection.phase() == Phase::Head, since, connection)
            })
            .filter(|(is_head, since, _)| !is_head || now.saturating_sub(*since) >= millis(SLOW_HEAD))
            .collect();
        quiet.sort_unstable_by_key(|(is_head, since, _)| (*is_head, *since));
        quiet.truncate(most);
        quiet.iter().for_each(|(_, _, connection)| connection.close());
        quiet.len()
    }

    /// Announces the drain: the next response of each connection is its last.
    pub(super) fn drain(&self) {
        self.draining.store(true, Relaxed);
        self.connections.lock().values().for_each(|connection| connection.wake());
    }

    /// While draining, after the grace: closes what has no request. HTTP/2 was told and ends by itself.
    pub(super) fn close_idle(&self) {
        for connection in self.connections.lock().values() {
            if matches!(connection.phase(), Phase::Fresh | Phase::Idle) && !connection.is_http2() {
                connection.close();
            }
        }
    }

    /// Responses that their clients do not have yet.
    pub(super) fn unfinished(&self) -> u64 {
        let connections = self.connections.lock();
        let unwritten =
            connections.values().filter(|connection| connection.phase() == Phase::Writing).count();
        self.counters.in_flight.load(Relaxed) + unwritten as u64
    }

    /// Whether no connection has anything left to say.
    pub(super) fn is_drained(&self) -> bool {
        self.connections.lock().values().all(|connection| connection.phase() == Phase::Lingering)
    }
}

/// Keeps a connection listed and counted.
pub(super) struct Admitted(pub(super) Arc<Connection>);

impl Drop for Admitted {
    fn drop(&mut self) {
        let thread = &self.0.thread;
        thread.connections.lock().remove(&self.0.number);
        thread.counters.connections.fetch_sub(1, Relaxed);
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
