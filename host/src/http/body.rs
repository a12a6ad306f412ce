//! Request bodies on the way in, response bodies on the way out.

use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, SizeHint};

use super::connection::Flight;

/// Why a request body was not read to its end. The rest of it is unread.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    #[error("the body is larger than the limit")]
    TooLarge,
    #[error("the body did not arrive in time")]
    Late,
    #[error("there is no memory for the body")]
    NoRoom,
    #[error("the body could not be read")]
    Broken(#[source] hyper::Error),
}

/// Reads a body whole, at most `limit` bytes within `timeout`. `reserve` is asked whether there is room for so many
/// bytes in all, before more are kept.
///
/// A body that has arrived already costs neither a copy nor a timer.
pub(super) async fn collect(
    body: hyper::body::Incoming,
    limit: usize,
    timeout: Duration,
    reserve: impl FnMut(usize) -> bool,
) -> Result<Bytes, BodyError> {
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    if body.size_hint().lower() > limit as u64 {
        return Err(BodyError::TooLarge);
    }
    let mut whole = pin!(read(body, limit, reserve));
    let first = std::future::poll_fn(|cx| Poll::Ready(whole.as_mut().poll(cx))).await;
    match first {
        Poll::Ready(outcome) => outcome,
        Poll::Pending if timeout == Duration::MAX => whole.await,
        Poll::Pending => tokio::time::timeout(timeout, whole).await.unwrap_or(Err(BodyError::Late)),
    }
}

async fn read(
    mut body: hyper::body::Incoming,
    limit: usize,
    mut reserve: impl FnMut(usize) -> bool,
) -> Result<Bytes, BodyError> {
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(frame) = body.frame().await {
        // Trailers are of no use to a handler.
        let Ok(data) = frame.map_err(BodyError::Broken)?.into_data() else { continue };
        let length = first.len().max(rest.len()) + data.len();
        if length > limit {
            return Err(BodyError::TooLarge);
        }
        if !reserve(length) {
            return Err(BodyError::NoRoom);
        }
        if first.is_empty() && rest.is_empty() {
            first = data;
            continue;
        }
        if rest.is_empty() {
            let announced = usize::try_from(body.size_hint().lower()).unwrap_or(limit);
            rest.reserve(length.saturating_add(announced).min(limit));
            rest.extend_from_slice(&first);
        }
        rest.extend_from_slice(&data);
    }
    Ok(if rest.is_empty() { first } else { rest.freeze() })
}

/// A response's body. Dropped by hyper as soon as it has the last byte, and the flight ends with it.
#[derive(Debug)]
pub(super) struct Outgoing {
    bytes: Bytes,
    flight: Flight,
}

/// How much of a body hyper gets at a time, in bytes: with each piece that it asks for over HTTP/2, the client has
/// taken an earlier one. As large as a frame may be, where the client has not said more.
const PIECE: usize = 16 * 1024;

impl Outgoing {
    pub(super) fn new(bytes: Bytes, mut flight: Flight) -> Self {
        flight.answered();
        Self { bytes, flight }
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.bytes.is_empty() {
            return Poll::Ready(None);
        }
        let is_http2 = self.flight.connection.is_http2();
        let length = if is_http2 { self.bytes.len().min(PIECE) } else { self.bytes.len() };
        let piece = self.bytes.split_to(length);
        self.flight.connection.handed_out(length);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.len() as u64)
    }
}
