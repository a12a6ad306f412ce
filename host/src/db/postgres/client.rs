//! A connection that is driven by the thread that uses it.
//!
//! The driver comes in two halves, both of them futures: one asks and waits for the answer, the other carries the bytes.
//! Owns the turns in which a blocking caller polls the two. `postgres::Client` takes turns as well, but there each half
//! wakes the other through the runtime, which looks at the system's sockets before it goes on: one system call in four
//! of a short statement. Here a half that the other has woken is polled at once.
//!
//! Does not know statements or sessions; that is `connection.rs`.
//!
//! # Invariants
//!
//! - The thread sleeps only if neither half was woken since it was polled last: no answer is slept over.
//! - What was answered before the connection ended is the answer; where nothing was, why it ended is.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Runtime;
use tokio_postgres::{
    AsyncMessage, CancelToken, Client as Asker, Config, Error, SimpleQueryMessage, Statement,
};
use tokio_postgres_rustls::MakeRustlsConnect;

/// Turns before the runtime has its own: it counts how much a thread reads at a time, and lets nobody read on who has
/// not been there in between.
const TURNS: usize = 8;

/// An open connection. Dropped, it says goodbye, after the answers to all that was asked.
pub(super) struct Client {
    // Before the line: that ends when there is nobody left who could ask.
    asker: Asker,
    line: Line,
}

impl Client {
    /// Connects, on a runtime that is the connection's own.
    pub(super) fn connect(
        runtime: Runtime,
        config: &Config,
        tls: MakeRustlsConnect,
    ) -> Result<Client, Error> {
        let (asker, mut connection) = runtime.block_on(config.connect(tls))?;
        let bell = Arc::new(Bell::default());
        let line = Line {
            runtime,
            carry: Some(Box::new(move |cx| connection.poll_message(cx))),
            waker: Waker::from(Arc::clone(&bell)),
            bell,
        };
        Ok(Client { asker, line })
    }

    /// Asks, and waits for the answer. `ask` runs in a runtime: it must not use another connection.
    pub(super) fn run<T>(&mut self, ask: impl AsyncFnOnce(&Asker) -> Result<T, Error>) -> Result<T, Error> {
        self.line.run(ask(&self.asker))
    }

    pub(super) fn batch_execute(&mut self, text: &str) -> Result<(), Error> {
        self.line.run(self.asker.batch_execute(text))
    }

    pub(super) fn simple_query(&mut self, text: &str) -> Result<Vec<SimpleQueryMessage>, Error> {
        self.line.run(self.asker.simple_query(text))
    }

    pub(super) fn prepare(&mut self, text: &str) -> Result<Statement, Error> {
        self.line.run(self.asker.prepare(text))
    }

    /// Whether the server answers within `timeout`.
    pub(super) fn is_valid(&mut self, timeout: Duration) -> bool {
        let asker = &self.asker;
        let question = async { Ok(tokio::time::timeout(timeout, asker.simple_query("")).await) };
        matches!(self.line.run(question), Ok(Ok(Ok(_))))
    }

    /// Whether it is known that the connection has ended.
    pub(super) fn is_closed(&self) -> bool {
        self.asker.is_closed()
    }

    pub(super) fn cancel_token(&self) -> CancelToken {
        self.asker.cancel_token()
    }
}

/// Carries bytes; `None` when it has nothing left to do.
type Carry = Box<dyn FnMut(&mut Context<'_>) -> Poll<Option<Result<AsyncMessage, Error>>> + Send>;

/// The half that carries, and what both are driven by.
struct Line {
    runtime: Runtime,
    /// Gone when the connection has ended.
    carry: Option<Carry>,
    bell: Arc<Bell>,
    /// Rings the bell.
    waker: Waker,
}

impl Line {
    /// Drives both halves until `asking` is done, or the connection ends without an answer to it.
    fn run<T>(&mut self, asking: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let Line { runtime, carry, bell, waker } = self;
        let mut asking = pin!(asking);
        let mut cx = Context::from_waker(waker);
        let mut has_asked = false;
        runtime.block_on(poll_fn(|sleeper| {
            bell.wakes(sleeper.waker());
            // First, so that what it has to say is carried in the first turn.
            if !std::mem::replace(&mut has_asked, true)
                && let Poll::Ready(answer) = asking.as_mut().poll(&mut cx)
            {
                return Poll::Ready(answer);
            }
            for _ in 0..TURNS {
                bell.hush();
                let ended = carry_on(carry, &mut cx);
                match (asking.as_mut().poll(&mut cx), ended) {
                    (Poll::Ready(Ok(answer)), _) => return Poll::Ready(Ok(answer)),
                    (_, Err(error)) | (Poll::Ready(Err(error)), Ok(())) => return Poll::Ready(Err(error)),
                    (Poll::Pending, Ok(())) if bell.may_rest() => return Poll::Pending,
                    (Poll::Pending, Ok(())) => {}
                }
            }
            sleeper.waker().wake_by_ref();
            Poll::Pending
        }))
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let Line { runtime, carry, bell, .. } = self;
        // Nobody asks any more. What was asked is answered yet, and the goodbye sent.
        runtime.block_on(poll_fn(|cx| match carry_on(carry, cx) {
            Ok(()) if carry.is_some() => Poll::Pending,
            Ok(()) | Err(_) => Poll::Ready(()),
        }));
        // The runtime knows the bell, and the bell the runtime.
        *bell.sleeper.lock() = None;
    }
}

/// Carries what there is to carry. The error says why the connection has ended.
fn carry_on(carry: &mut Option<Carry>, cx: &mut Context<'_>) -> Result<(), Error> {
    while let Some(poll) = carry {
        match poll(cx) {
            Poll::Pending => return Ok(()),
            Poll::Ready(Some(Ok(AsyncMessage::Notice(notice)))) => {
                tracing::debug!(severity = notice.severity(), "postgres: {}", notice.message());
            }
            // Who listens has a connection for it.
            Poll::Ready(Some(Ok(_))) => {}
            Poll::Ready(Some(Err(error))) => {
                // With it goes who could still answer, so that whoever waits hears of it.
                *carry = None;
                return Err(error);
            }
            Poll::Ready(None) => *carry = None,
        }
    }
    Ok(())
}

/// Rung by whoever has something for one of the halves.
#[derive(Default)]
struct Bell {
    /// [`QUIET`], [`RUNG`] or [`RESTING`].
    state: AtomicU8,
    /// Wakes the runtime, and with it the thread.
    sleeper: Mutex<Option<Waker>>,
}

/// Both halves are being polled, and nobody has rung since that began.
const QUIET: u8 = 0;
/// Somebody has rung: both are to be polled again.
const RUNG: u8 = 1;
/// The thread leaves the rest to the runtime, which is to be woken by the next who rings.
const RESTING: u8 = 2;

impl Bell {
    /// Whom to wake from a rest.
    fn wakes(&self, sleeper: &Waker) {
        let mut known = self.sleeper.lock();
        if !known.as_ref().is_some_and(|known| known.will_wake(sleeper)) {
            *known = Some(sleeper.clone());
        }
    }

    /// Forgets that it was rung, since both halves are about to be polled.
    fn hush(&self) {
        self.state.store(QUIET, Ordering::Release);
    }

    /// Whether nobody has rung since; from then on whoever rings wakes the thread.
    fn may_rest(&self) -> bool {
        self.state.compare_exchange(QUIET, RESTING, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.state.swap(RUNG, Ordering::AcqRel) == RESTING
            && let Some(sleeper) = &*self.sleeper.lock()
        {
            sleeper.wake_by_ref();
        }
    }
}
