//! One connection of the driver, for threads that block.
//!
//! The driver is asynchronous, and its runtime is the connection's own: nothing moves unless a thread waits for it
//! here. Does not know sessions, transactions or what an error means.
//!
//! # Invariants
//!
//! - Dropping a client closes its socket within [`GOODBYE`], whatever the server does. A statement that still runs
//!   for it is cancelled, so the server ends the session and releases its locks.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt as _, Stream};
use tokio::runtime::Runtime;
use tokio_postgres::error::DbError;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{
    AsyncMessage, CancelToken, Config, Connection, CopyInSink, CopyOutStream, Error, Notification, Row,
    RowStream, SimpleQueryMessage, Socket, Statement,
};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::cancel;

/// How long a client that is dropped waits for answers that are due.
const GOODBYE: Duration = Duration::from_millis(20);

type Line = Connection<Socket, <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream>;

/// A connection to PostgreSQL.
pub(super) struct Client {
    /// Taken when the client is dropped.
    requests: Option<tokio_postgres::Client>,
    wire: Wire,
    /// Taken when the client is dropped.
    runtime: Option<Runtime>,
    tls: MakeRustlsConnect,
}

/// The socket, and what was heard on it.
struct Wire {
    line: Line,
    /// The socket is of no more use.
    is_over: bool,
    /// What was heard and not asked for yet.
    notifications: VecDeque<Notification>,
}

/// Moves a socket while a thread waits for something.
struct Waiting<'a> {
    wire: &'a mut Wire,
    runtime: &'a Runtime,
}

impl Client {
    /// Connects to one of the hosts of a configuration.
    ///
    /// # Errors
    ///
    /// When none can be reached, or it refuses.
    pub(super) fn connect(
        runtime: Runtime,
        config: &Config,
        tls: MakeRustlsConnect,
    ) -> Result<Client, Error> {
        let (requests, line) = runtime.block_on(config.connect(tls.clone()))?;
        let wire = Wire { line, is_over: false, notifications: VecDeque::new() };
        Ok(Client { requests: Some(requests), wire, runtime: Some(runtime), tls })
    }

    /// The driver's half that takes requests, and the one that moves them.
    fn halves(&mut self) -> (&tokio_postgres::Client, Waiting<'_>) {
        match (&self.requests, &self.runtime) {
            (Some(requests), Some(runtime)) => (requests, Waiting { wire: &mut self.wire, runtime }),
            _ => unreachable!("they are taken when the client is dropped, and not before"),
        }
    }

    pub(super) fn simple_query(&mut self, sql: &str) -> Result<Vec<SimpleQueryMessage>, Error> {
        let (requests, waiting) = self.halves();
        waiting.until(requests.simple_query(sql))
    }

    pub(super) fn batch_execute(&mut self, sql: &str) -> Result<(), Error> {
        let (requests, waiting) = self.halves();
        waiting.until(requests.batch_execute(sql))
    }

    pub(super) fn prepare(&mut self, sql: &str) -> Result<Statement, Error> {
        let (requests, waiting) = self.halves();
        waiting.until(requests.prepare(sql))
    }

    pub(super) fn query(&mut self, statement: &Statement, params: &Params<'_>) -> Result<Vec<Row>, Error> {
        let (requests, waiting) = self.halves();
        waiting.until(requests.query(statement, params))
    }

    pub(super) fn execute(&mut self, statement: &Statement, params: &Params<'_>) -> Result<u64, Error> {
        let (requests, waiting) = self.halves();
        waiting.until(requests.execute(statement, params))
    }

    /// Begins a statement whose rows are read one by one.
    pub(super) fn stream(&mut self, statement: &Statement, params: &Params<'_>) -> Result<Rows, Error> {
        let (requests, waiting) = self.halves();
        let rows = waiting.until(requests.query_raw(statement, params.iter().copied()))?;
        Ok(Rows(Box::pin(rows)))
    }

    /// Begins a statement that is parsed in the message that runs it. The server finds the types of its parameters.
    pub(super) fn stream_unprepared(&mut self, sql: &str, params: &Params<'_>) -> Result<Rows, Error> {
        let (requests, waiting) = self.halves();
        let params = params.iter().map(|param| (*param, Type::UNKNOWN));
        let rows = waiting.until(requests.query_typed_raw(sql, params))?;
        Ok(Rows(Box::pin(rows)))
    }

    /// Begins a `COPY ... FROM STDIN`.
    pub(super) fn copy_in(&mut self, sql: &str) -> Result<CopyIn, Error> {
        let (requests, waiting) = self.halves();
        Ok(CopyIn(Box::pin(waiting.until(requests.copy_in(sql))?)))
    }

    /// Begins a `COPY ... TO STDOUT`.
    pub(super) fn copy_out(&mut self, sql: &str) -> Result<CopyOut, Error> {
        let (requests, waiting) = self.halves();
        Ok(CopyOut(Box::pin(waiting.until(requests.copy_out(sql))?)))
    }

    /// Whether the server answers within that time.
    pub(super) fn is_valid(&mut self, timeout: Duration) -> bool {
        let (requests, waiting) = self.halves();
        matches!(waiting.at_most(timeout, requests.batch_execute("")), Some(Ok(())))
    }

    /// The next notification, if one comes within that time.
    pub(super) fn notification(&mut self, timeout: Duration) -> Result<Option<Notification>, Error> {
        if self.wire.notifications.is_empty() {
            let (_, waiting) = self.halves();
            let heard = waiting.drive(timeout, |wire| wire.is_over || !wire.notifications.is_empty());
            heard.unwrap_or(Ok(()))?;
        }
        Ok(self.wire.notifications.pop_front())
    }

    /// Whether the connection is known to be of no more use.
    pub(super) fn is_closed(&self) -> bool {
        self.wire.is_over
    }

    pub(super) fn cancel_token(&mut self) -> CancelToken {
        self.halves().0.cancel_token()
    }

    /// Forgets what it knows of types that are not the server's own.
    pub(super) fn forget_types(&mut self) {
        self.halves().0.clear_type_cache();
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let (Some(requests), Some(runtime)) = (self.requests.take(), self.runtime.take()) else { return };
        let token = requests.cancel_token();
        // The driver says goodbye when nobody can ask anything any more and all has been answered.
        drop(requests);
        let waiting = Waiting { wire: &mut self.wire, runtime: &runtime };
        if waiting.drive(GOODBYE, |wire| wire.is_over).is_none() {
            cancel::send(token, self.tls.clone());
        }
        // Not here: a look-up of a name may still be under way.
        runtime.shutdown_background();
    }
}

impl Waiting<'_> {
    /// Waits for an answer.
    fn until<T>(self, answer: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let mut answer = pin!(answer);
        self.runtime.block_on(poll_fn(|cx| self.wire.poll(cx, answer.as_mut())))
    }

    /// Waits for an answer, no longer than `timeout`.
    fn at_most<T>(
        self,
        timeout: Duration,
        answer: impl Future<Output = Result<T, Error>>,
    ) -> Option<Result<T, Error>> {
        let mut answer = pin!(answer);
        let answer = poll_fn(|cx| self.wire.poll(cx, answer.as_mut()));
        self.runtime.block_on(async { tokio::time::timeout(timeout, answer).await.ok() })
    }

    /// Moves the socket until `is_done` says so, no longer than `timeout`.
    fn drive(self, timeout: Duration, is_done: impl Fn(&Wire) -> bool) -> Option<Result<(), Error>> {
        let done = poll_fn(|cx| match self.wire.advance(cx) {
            Ok(()) if !is_done(self.wire) => Poll::Pending,
            outcome => Poll::Ready(outcome),
        });
        self.runtime.block_on(async { tokio::time::timeout(timeout, done).await.ok() })
    }
}

impl Wire {
    /// Moves the socket as far as it goes now.
    fn advance(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        while !self.is_over {
            match self.line.poll_message(cx) {
                Poll::Ready(Some(Ok(AsyncMessage::Notification(heard)))) => {
                    self.notifications.push_back(heard);
                }
                Poll::Ready(Some(Ok(AsyncMessage::Notice(notice)))) => log(&notice),
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(None) => self.is_over = true,
                Poll::Ready(Some(Err(error))) => {
                    self.is_over = true;
                    return Err(error);
                }
                Poll::Pending => break,
            }
        }
        Ok(())
    }

    /// Moves the socket, and looks whether the answer has come.
    fn poll<T>(
        &mut self,
        cx: &mut Context<'_>,
        answer: Pin<&mut impl Future<Output = Result<T, Error>>>,
    ) -> Poll<Result<T, Error>> {
        let moved = self.advance(cx);
        match (answer.poll(cx), moved) {
            (answer, Ok(())) => answer,
            // The server's last words say more than that it hung up after them.
            (Poll::Ready(Ok(answer)), Err(_)) => Poll::Ready(Ok(answer)),
            (Poll::Ready(Err(last)), Err(_)) if last.as_db_error().is_some() => Poll::Ready(Err(last)),
            (_, Err(error)) => Poll::Ready(Err(error)),
        }
    }
}

/// Parameters as the driver takes them.
pub(super) type Params<'a> = [&'a (dyn ToSql + Sync)];

/// Rows that are still coming.
pub(super) struct Rows(Pin<Box<RowStream>>);

impl Rows {
    /// The next row.
    pub(super) fn next(&mut self, client: &mut Client) -> Result<Option<Row>, Error> {
        client.halves().1.until(next(&mut self.0))
    }

    /// The next row, if it comes within that time.
    pub(super) fn next_within(
        &mut self,
        client: &mut Client,
        timeout: Duration,
    ) -> Option<Result<Option<Row>, Error>> {
        client.halves().1.at_most(timeout, next(&mut self.0))
    }

    /// The next row, if it is there or the end is.
    pub(super) fn ready(&mut self, client: &mut Client) -> Option<Result<Option<Row>, Error>> {
        let mut answer = pin!(next(&mut self.0));
        let Waiting { wire, runtime } = client.halves().1;
        runtime.block_on(poll_fn(|cx| match wire.poll(cx, answer.as_mut()) {
            Poll::Ready(row) => Poll::Ready(Some(row)),
            Poll::Pending => Poll::Ready(None),
        }))
    }

    /// How many rows the statement changed, once all have come.
    pub(super) fn affected(&self) -> u64 {
        self.0.rows_affected().unwrap_or(0)
    }
}

/// A `COPY ... TO STDOUT` that is still coming.
pub(super) struct CopyOut(Pin<Box<CopyOutStream>>);

impl CopyOut {
    /// The next part.
    pub(super) fn next(&mut self, client: &mut Client) -> Result<Option<Bytes>, Error> {
        client.halves().1.until(next(&mut self.0))
    }

    /// The next part, if it comes within that time.
    pub(super) fn next_within(
        &mut self,
        client: &mut Client,
        timeout: Duration,
    ) -> Option<Result<Option<Bytes>, Error>> {
        client.halves().1.at_most(timeout, next(&mut self.0))
    }
}

/// A `COPY ... FROM STDIN` that takes more. Dropped unfinished, it tells the server to store nothing.
pub(super) struct CopyIn(Pin<Box<CopyInSink<Bytes>>>);

impl CopyIn {
    /// Sends a part.
    pub(super) fn send(&mut self, client: &mut Client, part: Bytes) -> Result<(), Error> {
        client.halves().1.until(self.0.send(part))
    }

    /// Ends the copy; how many rows were stored.
    pub(super) fn finish(mut self, client: &mut Client) -> Result<u64, Error> {
        client.halves().1.until(self.0.as_mut().finish())
    }
}

/// The next item of a stream.
async fn next<T>(stream: &mut Pin<Box<impl Stream<Item = Result<T, Error>>>>) -> Result<Option<T>, Error> {
    poll_fn(|cx| stream.as_mut().poll_next(cx)).await.transpose()
}

/// What the server says beside its answers.
fn log(notice: &DbError) {
    tracing::debug!(severity = notice.severity(), "postgres: {}", notice.message());
}
