//! A small server on a thread of its own: the admin listener and the control socket.
//!
//! It answers while every I/O thread and worker is busy, which is when an operator asks. It owns
//! its threads and one listener; what it says is the caller's handler. Each request has a thread of
//! its own, so that an order that takes long does not keep anybody from looking meanwhile.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt;
use std::future::{Future as _, poll_fn};
use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::AbortHandle;
use tokio_io_timeout::TimeoutStream;

use super::body::{self, BodyError};

/// Connections at a time. One more takes the place of the one that was accepted first, of those whose request does
/// not run; where all run, it waits to be accepted.
const MAX_CONNECTIONS: usize = 64;
/// How long a new client waits before those that are in its way are looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// How long a client may take nothing of its answer.
const WRITE_PATIENCE: Duration = Duration::from_secs(10);
/// Largest body, in bytes.
const MAX_BODY: usize = 1024 * 1024;
/// Time for a head, between requests, and for a body.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a thread waits for another request before it ends. Whoever asks again and again now and then meets
/// one that is not idle yet and has a second one started; asked in turns, both would stay for ever.
const KEEP: Duration = Duration::from_millis(100);
/// How long accepting rests when the system has nothing left.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// Answers a request. Runs on a thread of the side server, several at a time; a panic becomes a 500.
pub type Handler = Arc<dyn Fn(Request<Bytes>) -> Response<Bytes> + Send + Sync>;

/// What a side server listens on.
#[derive(Debug)]
pub enum SideListener {
    /// An address, for the admin pages.
    Tcp(TcpListener),
    /// A file, for the control socket.
    Unix(UnixListener),
}

impl From<TcpListener> for SideListener {
    fn from(listener: TcpListener) -> Self {
        Self::Tcp(listener)
    }
}

impl From<super::Listener> for SideListener {
    fn from(listener: super::Listener) -> Self {
        Self::Tcp(listener.into_socket())
    }
}

impl From<UnixListener> for SideListener {
    fn from(listener: UnixListener) -> Self {
        Self::Unix(listener)
    }
}

/// A running side server; stopped when dropped.
pub struct SideServer {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Why a side server did not start. Its listener is closed.
#[derive(Debug, thiserror::Error)]
#[error("cannot start the server thread `{name}`")]
pub struct SideError {
    name: String,
    source: io::Error,
}

impl SideError {
    /// The thread called `name` could not be started.
    pub fn new(name: &str, source: io::Error) -> SideError {
        SideError { name: name.to_owned(), source }
    }
}

/// Serves HTTP/1.1 on `listener` with `handler`, on a new thread called `name`.
///
/// # Errors
///
/// When the system has no thread or descriptor left.
pub fn serve(
    name: &str,
    listener: impl Into<SideListener>,
    handler: Handler,
) -> Result<SideServer, SideError> {
    let (stop, stopped) = oneshot::channel();
    let listener = listener.into();
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().thread_name(format!("{name} request"));
    runtime.max_blocking_threads(MAX_CONNECTIONS).thread_keep_alive(KEEP);
    let started = runtime.build().and_then(|runtime| {
        let listener = {
            let _in_runtime = runtime.enter();
            Accept::new(listener)?
        };
        let body = move || runtime.block_on(accept(listener, handler, stopped));
        std::thread::Builder::new().name(name.to_owned()).spawn(body)
    });
    match started {
        Ok(thread) => Ok(SideServer { stop: Some(stop), thread: Some(thread) }),
        Err(source) => Err(SideError::new(name, source)),
    }
}

impl SideServer {
    /// Stops listening, closes the connections and ends the threads. Waits for the handlers that are running.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if let Some(stop) = self.stop.take() {
            // The thread may be gone already.
            let _ = stop.send(());
        }
        // A handler that drops its own server must not wait for itself.
        if let Some(thread) = self.thread.take().filter(|t| t.thread().id() != std::thread::current().id()) {
            let _ = thread.join();
        }
    }
}

impl Drop for SideServer {
    fn drop(&mut self) {
        self.end();
    }
}

impl fmt::Debug for SideServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SideServer").finish_non_exhaustive()
    }
}

enum Accept {
    Tcp(tokio::net::TcpListener),
    Unix(tokio::net::UnixListener),
}

impl Accept {
    fn new(listener: SideListener) -> io::Result<Self> {
        match listener {
            SideListener::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                tokio::net::TcpListener::from_std(listener).map(Self::Tcp)
            }
            SideListener::Unix(listener) => {
                listener.set_nonblocking(true)?;
                tokio::net::UnixListener::from_std(listener).map(Self::Unix)
            }
        }
    }

    /// Accepts one connection and starts serving it.
    async fn one(&self, handler: &Handler, places: &Places) -> io::Result<()> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                let _ = stream.set_nodelay(true);
                places.serve(stream, handler).await;
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                places.serve(stream, handler).await;
            }
        }
        Ok(())
    }
}

/// The connections there are, the oldest first.
struct Places {
    permits: Arc<Semaphore>,
    taken: RefCell<VecDeque<Place>>,
}

struct Place {
    task: AbortHandle,
    /// Whether its request runs on a thread of its own.
    is_running: Arc<AtomicBool>,
}

impl Places {
    fn new() -> Places {
        Places { permits: Arc::new(Semaphore::new(MAX_CONNECTIONS)), taken: RefCell::default() }
    }

    /// Serves a connection as soon as there is a place for it.
    async fn serve<I>(&self, stream: I, handler: &Handler)
    where
        I: AsyncRead + AsyncWrite + Send + 'static,
    {
        let permit = loop {
            if self.permits.available_permits() == 0 {
                self.make_room();
            }
            let permit = Arc::clone(&self.permits).acquire_owned();
            // Where all requests ran, one may have ended without its connection; then that makes room.
            if let Ok(permit) = tokio::time::timeout(LOOK_AGAIN, permit).await {
                break permit.expect("the semaphore is never closed");
            }
        };
        let is_running = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn(converse(stream, Arc::clone(handler), Arc::clone(&is_running), permit));
        let mut taken = self.taken.borrow_mut();
        taken.retain(|place| !place.task.is_finished());
        taken.push_back(Place { task: task.abort_handle(), is_running });
    }

    /// Closes the oldest connection whose request does not run, if there is one.
    fn make_room(&self) {
        let taken = self.taken.borrow();
        let may_go = |place: &&Place| !place.task.is_finished() && !place.is_running.load(Ordering::Relaxed);
        if let Some(place) = taken.iter().find(may_go) {
            place.task.abort();
        }
    }
}

/// Accepts until stopped.
async fn accept(listener: Accept, handler: Handler, stopped: oneshot::Receiver<()>) {
    let places = Places::new();
    let mut accepting = pin!(async {
        loop {
            if let Err(error) = listener.one(&handler, &places).await {
                tracing::warn!(%error, "a side server cannot accept connections for the moment");
                tokio::time::sleep(ACCEPT_REST).await;
            }
        }
    });
    let mut stopped = pin!(stopped);
    poll_fn(|cx| match stopped.as_mut().poll(cx) {
        Poll::Ready(_) => Poll::Ready(()),
        Poll::Pending => accepting.as_mut().poll(cx),
    })
    .await;
}

async fn converse<I>(
    stream: I,
    handler: Handler,
    is_running: Arc<AtomicBool>,
    _permit: tokio::sync::OwnedSemaphorePermit,
) where
    I: AsyncRead + AsyncWrite + Send + 'static,
{
    let service = service_fn(|request| respond(request, Arc::clone(&handler), Arc::clone(&is_running)));
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(PATIENCE).half_close(true);
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(WRITE_PATIENCE));
    if let Err(error) = builder.serve_connection(TokioIo::new(Box::pin(stream)), service).await {
        tracing::trace!(%error, "a side connection ended early");
    }
}

/// Answers one request.
async fn respond(
    request: Request<hyper::body::Incoming>,
    handler: Handler,
    is_running: Arc<AtomicBool>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let body = match body::collect(body, MAX_BODY, PATIENCE, |_| true).await {
        Ok(body) => body,
        Err(error) => {
            let (status, text) = match error {
                BodyError::TooLarge => {
                    (StatusCode::PAYLOAD_TOO_LARGE, "the body is larger than the limit of 1 MiB\n")
                }
                BodyError::Late => (StatusCode::REQUEST_TIMEOUT, "the body did not arrive within 10 s\n"),
                BodyError::NoRoom | BodyError::Broken(_) => {
                    (StatusCode::BAD_REQUEST, "the body could not be read\n")
                }
            };
            return Ok(line(status, text).map(Full::new));
        }
    };
    let request = Request::from_parts(parts, body);
    let run = move || {
        crate::panic::catch(|| handler(request)).unwrap_or_else(|message| {
            tracing::error!(panic = message, "the host panicked in a side server");
            line(StatusCode::INTERNAL_SERVER_ERROR, "the host panicked; the log has the reason\n")
        })
    };
    is_running.store(true, Ordering::Relaxed);
    // It fails only when the server is stopping, and its client is about to be cut off.
    let response = tokio::task::spawn_blocking(run)
        .await
        .unwrap_or_else(|_| line(StatusCode::SERVICE_UNAVAILABLE, "the host is stopping\n"));
    is_running.store(false, Ordering::Relaxed);
    Ok(response.map(Full::new))
}

fn line(status: StatusCode, text: &'static str) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from_static(text.as_bytes()));
    *response.status_mut() = status;
    response
}
