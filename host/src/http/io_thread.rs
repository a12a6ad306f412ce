//! One I/O thread: accepts, hands a connection to the least busy thread, serves it, drains.
//!
//! All threads accept from one socket. Whoever is awake when many clients connect would otherwise
//! take them all, so a connection goes to the thread that has the fewest.
//!
//! A handler that was declared inline and waits all the same holds its thread, and the connections on it, which
//! cannot be moved: they are in the middle of that thread's work. What it has not begun with, other threads take
//! over, and they give it no more until it comes back.
//!
//! # Invariants
//!
//! - What the kernel accepted before the listener was closed is served.
//! - A thread that drains ends only when no thread accepts any more and its own inbox is empty.

use std::future::{Future as _, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener as StdListener, TcpStream as StdStream};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rustix::event::{PollFd, PollFlags, Timespec};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::time::{Interval, MissedTickBehavior};

use super::answer::{Front, answer};
use super::connection::{Admitted, Flight, Thread};
use super::crowd::{AddressPlace, FULL_REST, Surplus};
use super::limits::Limits;
use super::lookout::Lookout;
use super::service::Service;
use super::wire::Wire;
use crate::pins;

/// How often a draining thread looks whether it is done.
const DRAIN_TICK: Duration = Duration::from_millis(10);

/// From so many bytes on that the system has not sent yet, it takes no more of a response.
const UNSENT: u32 = 128 * 1024;

/// How long the log is silent about accepting that fails.
const ACCEPT_TOLD: Duration = Duration::from_secs(60);

/// How long accepting rests when the system has no descriptors or memory left.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// What one thread may tell another.
pub(super) enum Command {
    /// Serve the connections that another thread has given to this one.
    Adopt,
    /// Come to the drain point: code whose destructors this thread keeps has been retired.
    Visit,
    /// Stop accepting and end when every connection has, at the latest at this time.
    Drain(Instant),
}

/// What an I/O thread works with.
pub(super) struct IoThread<S> {
    pub(super) index: usize,
    pub(super) front: Arc<Front<S>>,
    /// Every thread's state and inbox, by index.
    pub(super) peers: Arc<[(Arc<Thread>, UnboundedSender<Command>)]>,
    pub(super) inbox: UnboundedReceiver<Command>,
    /// Threads that still accept.
    pub(super) accepting: Arc<AtomicUsize>,
    pub(super) lookout: Lookout,
}

enum Event {
    Command(Option<Command>),
    Accepted(io::Result<(TcpStream, SocketAddr)>),
    Tick,
}

impl<S: Service> IoThread<S> {
    /// Serves until told to drain. Returns how many requests were cut off.
    pub(super) async fn run(mut self, listener: StdListener) -> u64 {
        let inbox = self.peers[self.index].1.clone();
        // A thread whose inbox is gone is about to end, and drains then.
        pins::attend(move || drop(inbox.send(Command::Visit)));
        let until = match TcpListener::from_std(listener) {
            Ok(listener) => self.serve(listener).await,
            Err(error) => {
                tracing::error!(%error, "an I/O thread cannot watch the listener");
                self.accepting.fetch_sub(1, Ordering::AcqRel);
                Instant::now()
            }
        };
        self.drain(until).await;
        self.state().unfinished()
    }

    fn state(&self) -> &Arc<Thread> {
        &self.peers[self.index].0
    }

    /// Accepts and serves until told to drain; returns until when.
    async fn serve(&mut self, listener: TcpListener) -> Instant {
        let tick = tick(&self.front.limits);
        let mut ticks = interval(tick);
        let mut last_told: Option<Instant> = None;
        let until = loop {
            let event = if self.front.crowd.is_full(self.open()) {
                if has_waiting(&listener) {
                    self.make_room(1);
                }
                match tokio::time::timeout(FULL_REST, self.next_event(None, &mut ticks)).await {
                    Ok(event) => event,
                    Err(_) => continue,
                }
            } else {
                self.next_event(Some(&listener), &mut ticks).await
            };
            match event {
                Event::Command(Some(Command::Adopt)) => self.adopt_all_of(self.index),
                Event::Command(Some(Command::Visit)) => pins::drain_if_due(),
                Event::Command(Some(Command::Drain(until))) => break until,
                // The server is gone without a word.
                Event::Command(None) => break Instant::now(),
                Event::Accepted(Ok((stream, remote))) => self.place(stream, remote),
                Event::Accepted(Err(error)) if is_passing(&error) => {}
                Event::Accepted(Err(error)) => {
                    // Said now and then: a server that is short of descriptors fails at every try.
                    let is_news = last_told.is_none_or(|told| told.elapsed() >= ACCEPT_TOLD);
                    if is_news {
                        last_told = Some(Instant::now());
                        tracing::warn!(
                            %error,
                            "cannot accept connections for the moment; if files are too many, raise the number that the \
                             process may have (`ulimit -n`, `LimitNOFILE=`)"
                        );
                    }
                    self.make_room(1);
                    tokio::time::sleep(ACCEPT_REST).await;
                }
                Event::Tick => {
                    self.state().sweep(&self.front.limits, tick);
                    self.relieve_memory();
                    self.front.workers.end_spare(Instant::now());
                    self.relieve();
                }
            }
        };
        if let Ok(listener) = listener.into_std() {
            self.accept_rest(&listener);
        }
        self.accepting.fetch_sub(1, Ordering::AcqRel);
        until
    }

    /// What happens next; without a `listener` nothing is accepted.
    async fn next_event(&mut self, listener: Option<&TcpListener>, ticks: &mut Interval) -> Event {
        // Of any thread: what this one has given away is its concern until that has been taken up.
        let is_alone = self.open() == 0 && !self.front.workers.has_spare();
        poll_fn(|cx| {
            if let Poll::Ready(command) = self.inbox.poll_recv(cx) {
                return Poll::Ready(Event::Command(command));
            }
            // Before accepting, so that a flood of clients cannot switch the time-outs off. An idle server
            // sleeps: without a connection and without spare workers there is nothing to time out or to look at.
            if !is_alone && ticks.poll_tick(cx).is_ready() {
                return Poll::Ready(Event::Tick);
            }
            if let Some(Poll::Ready(accepted)) = listener.map(|listener| listener.poll_accept(cx)) {
                return Poll::Ready(Event::Accepted(accepted));
            }
            Poll::Pending
        })
        .await
    }

    /// How many connections all threads have.
    fn open(&self) -> u64 {
        self.peers.iter().map(|(thread, _)| thread.counters.connections.load(Ordering::Relaxed)).sum()
    }

    /// Gives a new connection to the thread with the fewest, of those that are not stuck.
    fn place(&self, stream: TcpStream, remote: SocketAddr) {
        let load = |index: usize| self.peers[index].0.counters.connections.load(Ordering::Relaxed);
        let may_serve = |index: &usize| *index == self.index || !self.peers[*index].0.is_stuck();
        let able = (0..self.peers.len()).filter(may_serve);
        let least = able.min_by_key(|&index| (load(index), index != self.index)).unwrap_or(self.index);
        if least == self.index {
            self.state().counters.connections.fetch_add(1, Ordering::Relaxed);
            return self.serve_connection(stream, remote);
        }
        let (thread, inbox) = &self.peers[least];
        match stream.into_std() {
            Ok(stream) => {
                thread.give(stream, remote);
                if inbox.send(Command::Adopt).is_err() {
                    // That thread ended early; this one has not.
                    self.adopt_all_of(least);
                }
            }
            Err(error) => tracing::warn!(%error, %remote, "lost a connection on its way to another thread"),
        }
    }

    /// Serves what was given to a thread: this one, or one that cannot.
    fn adopt_all_of(&self, index: usize) {
        let thread = &self.peers[index].0;
        while let Some((stream, remote)) = thread.take_up() {
            thread.counters.connections.fetch_sub(1, Ordering::Relaxed);
            self.state().counters.connections.fetch_add(1, Ordering::Relaxed);
            self.adopt(stream, remote);
        }
    }

    /// Cuts off who keeps memory for too long, where it is short.
    fn relieve_memory(&self) {
        let excess = self.front.budget.excess();
        if excess > 0 {
            self.state().relieve_memory(excess.div_ceil(self.peers.len()));
        }
        if self.front.budget.has_relaxed() {
            crate::memory::give_back();
        }
    }

    /// Takes over what was given to threads that hang, before they could take it up.
    fn relieve(&mut self) {
        for index in (0..self.peers.len()).filter(|index| *index != self.index) {
            let thread = &self.peers[index].0;
            let is_stuck = thread.is_stuck();
            if !is_stuck {
                thread.is_told.store(false, Ordering::Relaxed);
            }
            if !self.lookout.hangs(index, is_stuck) {
                continue;
            }
            self.adopt_all_of(index);
            if !thread.is_told.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    "io-{index} does not come back from an inline handler; the other connections on that thread wait, \
                     new ones go to others. A handler that may wait must not be `inline`"
                );
            }
        }
    }

    /// Serves a connection that is counted as this thread's already.
    fn adopt(&self, stream: StdStream, remote: SocketAddr) {
        match TcpStream::from_std(stream) {
            Ok(stream) => self.serve_connection(stream, remote),
            Err(error) => {
                self.state().counters.connections.fetch_sub(1, Ordering::Relaxed);
                tracing::warn!(%error, %remote, "cannot watch a connection");
            }
        }
    }

    fn serve_connection(&self, stream: TcpStream, remote: SocketAddr) {
        // Without it the last part of a response may wait for the client's delayed acknowledgement.
        let _ = stream.set_nodelay(true);
        // Without it the system takes megabytes of a response at once, and whether a slow client takes any shows
        // only minutes later.
        let _ = SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT);
        let admitted = self.state().admit(remote, self.enter(remote.ip()));
        tokio::spawn(converse(Arc::clone(&self.front), admitted, stream));
    }

    /// Finds a place for a connection from `address`: at the limit, one that another connection makes room for.
    fn enter(&self, address: IpAddr) -> Result<Option<AddressPlace>, Surplus> {
        let crowd = &self.front.crowd;
        let place = crowd.enter(address)?;
        let open = self.open();
        crowd.note(open);
        let wanted = crowd.wanted_room(open);
        if wanted > 0 {
            let made = self.make_room(wanted);
            if made == 0 {
                crowd.tell();
                return Err(Surplus::Connections);
            }
            crowd.makes_room(made);
        }
        Ok(place)
    }

    /// Closes up to `most` connections of each thread that have no request. Returns how many.
    fn make_room(&self, most: usize) -> usize {
        self.peers.iter().map(|(thread, _)| thread.make_room(most)).sum()
    }

    /// Empties the kernel's queue of connections, so that closing the listener resets none of them.
    fn accept_rest(&self, listener: &StdListener) {
        loop {
            match listener.accept() {
                Ok((stream, remote)) => {
                    self.state().counters.connections.fetch_add(1, Ordering::Relaxed);
                    match stream.set_nonblocking(true) {
                        Ok(()) => self.adopt(stream, remote),
                        Err(_) => {
                            self.state().counters.connections.fetch_sub(1, Ordering::Relaxed);
                        }
                    }
                }
                Err(error) if is_passing(&error) => {}
                Err(_) => return,
            }
        }
    }

    /// Lets the connections end.
    async fn drain(&mut self, until: Instant) {
        let started = Instant::now();
        let grace = self.front.limits.drain_grace;
        let state = Arc::clone(self.state());
        state.drain();
        let mut ticks = interval(DRAIN_TICK);
        loop {
            let all_closed = self.accepting.load(Ordering::Acquire) == 0;
            while let Ok(command) = self.inbox.try_recv() {
                match command {
                    Command::Adopt => self.adopt_all_of(self.index),
                    Command::Visit => pins::drain_if_due(),
                    Command::Drain(_) => {}
                }
            }
            if all_closed && state.is_drained() || Instant::now() >= until {
                return;
            }
            ticks.tick().await;
            state.sweep(&self.front.limits, DRAIN_TICK);
            if started.elapsed() >= grace {
                state.close_idle();
            }
        }
    }
}

/// Serves one connection to its end.
async fn converse<S: Service>(front: Arc<Front<S>>, admitted: Admitted, stream: TcpStream) {
    let connection = &admitted.0;
    let max_head = front.limits.max_head;
    let wire = TokioIo::new(Wire::new(stream, Arc::clone(connection), max_head));
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // Half-closed clients (`printf ... | nc`) get their answer.
    builder.http1().half_close(true).max_buf_size(max_head.max(8192));
    builder.http2().max_header_list_size(u32::try_from(max_head).unwrap_or(u32::MAX));
    let service = service_fn(|request| answer(Arc::clone(&front), Flight::begin(connection), request));
    let mut serving = pin!(builder.serve_connection(wire, service));
    let mut is_told = false;
    let outcome = poll_fn(|cx| {
        connection.remember(cx.waker());
        // HTTP/1 is told by `connection: close` on its next response, HTTP/2 by a GOAWAY frame.
        let is_last = connection.surplus.is_some() || connection.thread.is_draining();
        if !is_told && connection.is_http2() && is_last {
            is_told = true;
            serving.as_mut().graceful_shutdown();
        }
        if connection.is_http2() && connection.is_abusive() {
            tracing::debug!(remote = %connection.remote, "closing a connection whose client resets most of its requests");
            return Poll::Ready(Ok(()));
        }
        serving.as_mut().poll(cx)
    })
    .await;
    if let Err(error) = outcome {
        tracing::trace!(error, remote = %connection.remote, "a connection ended early");
    }
}

/// Whether clients wait to be accepted.
fn has_waiting(listener: &TcpListener) -> bool {
    let mut fds = [PollFd::new(listener, PollFlags::IN)];
    rustix::event::poll(&mut fds, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
}

/// How often connections are looked at: often enough for the shortest time-out.
fn tick(limits: &Limits) -> Duration {
    let shortest = limits.header_timeout.min(limits.idle_timeout).min(limits.write_timeout);
    (shortest / 8).clamp(Duration::from_millis(10), Duration::from_secs(1))
}

fn interval(tick: Duration) -> Interval {
    let mut interval = tokio::time::interval(tick);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

/// Whether an accept error concerns one connection only, which is gone.
fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}
