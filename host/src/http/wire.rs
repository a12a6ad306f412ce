//! The socket under hyper: tells the connection's phase from the bytes that pass.
//!
//! # Invariants
//!
//! - Bytes of a handler's response pass unchanged: only what is written while no request is being
//!   answered can be hyper's own error, and only that is looked at.
//! - A connection that is given up first delivers what has arrived; a request is never thrown away
//!   for coming at the last moment.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use rustix::event::{PollFd, PollFlags, Timespec};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::connection::{Connection, Phase};
use super::reject::{self, Rejection};

/// A client's socket, watched.
#[derive(Debug)]
pub(super) struct Wire {
    stream: TcpStream,
    connection: Arc<Connection>,
    /// What replaces hyper's own error and is not written yet.
    replacement: Bytes,
    max_head: usize,
    /// Bytes that have come since the head began that comes now.
    received: usize,
}

impl Wire {
    pub(super) fn new(stream: TcpStream, connection: Arc<Connection>, max_head: usize) -> Self {
        Self { stream, connection, replacement: Bytes::new(), max_head, received: 0 }
    }

    /// Records a rejection in log and counters.
    fn rejected(&self, rejection: &Rejection) {
        self.connection.thread.counters.rejected(rejection.status);
        tracing::debug!(
            target: "access",
            status = rejection.status.as_u16(),
            request_id = &*rejection.id.text,
            remote = %self.connection.remote,
            reason = rejection.reason,
            "rejected"
        );
    }

    /// Answers a head that will never be complete, where hyper would only close.
    fn give_up_head(&self, rejection: &Rejection) {
        self.rejected(rejection);
        // Nothing is being answered, so the socket's buffer has room for one line. If it has not, the
        // client is not reading and would not see it anyway.
        let _ = self.stream.try_write(&rejection.bytes);
    }

    /// Notices that the client has gone while it is being answered. hyper does not read then, for the sake
    /// of clients that only close their side.
    fn watch_client(&self, cx: &mut Context<'_>) {
        if self.connection.phase() != Phase::Busy || !self.connection.is_wanted() {
            return;
        }
        let mut byte = [0];
        let peeked = self.stream.poll_peek(cx, &mut ReadBuf::new(&mut byte));
        self.connection.set_more_input(matches!(peeked, Poll::Ready(Ok(1..))));
        match peeked {
            Poll::Ready(Ok(0)) => self.connection.left(self.is_cut()),
            Poll::Ready(Err(_)) => self.connection.left(true),
            Poll::Ready(Ok(_)) if self.has_ended_behind_input() => self.connection.left(self.is_cut()),
            Poll::Ready(Ok(_)) | Poll::Pending => {}
        }
    }

    /// Whether the client takes nothing more: it has reset the connection, and not only closed its side.
    fn is_cut(&self) -> bool {
        self.state_of_socket().intersects(PollFlags::HUP | PollFlags::ERR)
    }

    /// Whether the end of the stream lies behind bytes that nobody reads for now.
    fn has_ended_behind_input(&self) -> bool {
        self.state_of_socket().intersects(PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR)
    }

    /// What the system knows of the socket at this moment.
    fn state_of_socket(&self) -> PollFlags {
        let mut fds = [PollFd::new(&self.stream, PollFlags::RDHUP)];
        match rustix::event::poll(&mut fds, Some(&Timespec::default())) {
            Ok(_) => fds[0].revents(),
            // A look that failed has seen nothing; there is another one.
            Err(_) => PollFlags::empty(),
        }
    }

    fn poll_replacement(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.replacement.has_remaining() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.replacement))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.replacement.advance(written);
        }
        Poll::Ready(Ok(()))
    }

    /// Notes the outcome of a write to the socket.
    fn wrote(&self, outcome: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if self.connection.is_writing() {
            match outcome {
                Poll::Ready(Ok(written)) => self.connection.wrote(written),
                Poll::Pending if self.connection.is_closing() => {
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
                _ => {}
            }
        }
        outcome
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let outcome = Pin::new(&mut this.stream).poll_read(cx, buf);
        let phase = this.connection.phase();
        match outcome {
            Poll::Ready(Ok(())) if buf.filled().len() > before => {
                if phase == Phase::Fresh || (phase == Phase::Idle && !this.connection.is_http2()) {
                    this.connection.begin_head();
                    this.received = 0;
                }
                this.received += buf.filled().len() - before;
                outcome
            }
            Poll::Ready(Ok(())) => {
                if phase == Phase::Head {
                    this.give_up_head(&reject::cut_short());
                    this.connection.enter(Phase::Idle);
                }
                outcome
            }
            Poll::Pending if this.connection.is_closing() && this.connection.is_quiet() => {
                if phase == Phase::Head {
                    this.give_up_head(&reject::late());
                    this.connection.enter(Phase::Idle);
                }
                // Nothing filled: hyper takes it for the end of the stream and closes in order.
                Poll::Ready(Ok(()))
            }
            // HTTP/2: the client lets nothing be written, so no write will find out.
            Poll::Pending if this.connection.is_closing() && phase == Phase::Busy => {
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
            _ => outcome,
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_replacement(cx))?;
        if this.connection.is_quiet()
            && let Some(rejection) = reject::instead_of(buf, this.max_head, this.received)
        {
            this.rejected(&rejection);
            this.connection.linger();
            this.replacement = rejection.bytes;
            // What does not fit now leaves with the flush that follows every write.
            if let Poll::Ready(outcome) = this.poll_replacement(cx) {
                outcome?;
            }
            return Poll::Ready(Ok(buf.len()));
        }
        let outcome = Pin::new(&mut this.stream).poll_write(cx, buf);
        this.wrote(outcome)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.replacement.has_remaining() || self.connection.is_quiet() {
            let first = bufs.iter().find(|buf| !buf.is_empty());
            return self.poll_write(cx, first.map_or(&[], |buf| buf));
        }
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.stream).poll_write_vectored(cx, bufs);
        this.wrote(outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_replacement(cx))?;
        this.watch_client(cx);
        // hyper flushes the socket only after its own buffer is empty: the response has left.
        if this.connection.phase() == Phase::Writing {
            this.connection.rest();
        }
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.connection.phase() != Phase::Lingering {
            ready!(this.poll_replacement(cx))?;
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
            this.connection.enter(Phase::Lingering);
        }
        let mut scratch = [0; 4096];
        loop {
            let mut thrown_away = ReadBuf::new(&mut scratch);
            match Pin::new(&mut this.stream).poll_read(cx, &mut thrown_away) {
                Poll::Ready(Ok(())) if !thrown_away.filled().is_empty() => {}
                Poll::Pending if this.connection.must_linger() && !this.connection.is_closing() => {
                    return Poll::Pending;
                }
                // The client is done, gone, or was not expected to send more.
                _ => return Poll::Ready(Ok(())),
            }
        }
    }
}
