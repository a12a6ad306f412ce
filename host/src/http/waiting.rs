//! A client that waits for a handler on a worker: until the answer, the deadline, or its leaving.
//!
//! # Invariants
//!
//! - Whoever stops waiting without an answer gives the request's transactions up, and says so at once.
//! - A commit that has begun is waited for: a client is not told that something failed which is kept.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use http::header::CONNECTION;
use http::{HeaderMap, Method, Version};
use tokio::sync::oneshot;

use super::connection::{Connection, Departure, Thread};
use crate::tx::{Access, Reason, Scope};

/// How long beyond its deadline a request waits for the commit that is under way.
const COMMIT_GRACE: Duration = Duration::from_secs(5);

/// A client that waits. Dropped without an answer, it has gone.
pub(super) struct Waiting<'a> {
    scope: Arc<Scope>,
    connection: &'a Arc<Connection>,
    has_answer: bool,
    /// Whether the caller knows that the client has closed its side.
    is_told: bool,
}

/// How a wait has ended.
pub(super) enum Waited<T> {
    /// With the worker's answer, or without one where the job was dropped.
    Over(Result<T, oneshot::error::RecvError>),
    /// At the deadline.
    Late,
    /// The client has closed its side of the connection; told once. An answer may still come.
    Left,
}

impl<'a> Waiting<'a> {
    /// Begins to wait.
    ///
    /// A client that closes its side of a connection which it wanted to keep is taken to have gone. One
    /// that never meant to send more has only said so, and waits. (HTTP/2 says what it means, and hyper
    /// drops the request.)
    ///
    /// What a method promises not to change is read: its transactions take the right to write only when they do.
    pub(super) fn begin(
        connection: &'a Arc<Connection>,
        version: Version,
        method: &Method,
        headers: &HeaderMap,
    ) -> Waiting<'a> {
        let access = if method.is_safe() { Access::Deferred } else { Access::Immediate };
        let scope = Arc::new(Scope::with_access(access));
        if version != Version::HTTP_2 {
            let says_close = headers
                .get_all(CONNECTION)
                .iter()
                .filter_map(|value| value.to_str().ok())
                .flat_map(|value| value.split(','))
                .any(|word| word.trim().eq_ignore_ascii_case("close"));
            connection.want(Arc::clone(&scope), version == Version::HTTP_11 && !says_close);
        }
        Waiting { scope, connection, has_answer: false, is_told: false }
    }

    /// The I/O thread that answers.
    pub(super) fn thread(&self) -> &Arc<Thread> {
        &self.connection.thread
    }

    /// The client's connection.
    pub(super) fn connection(&self) -> &Arc<Connection> {
        self.connection
    }

    /// Where the request's transactions are.
    pub(super) fn scope(&self) -> Arc<Scope> {
        Arc::clone(&self.scope)
    }

    /// Gives the request's transactions up: its handler will never return.
    pub(super) fn give_up(&self) {
        self.scope.abandon(Reason::Disconnected);
    }

    /// Waits for the worker's answer.
    pub(super) async fn answer<T>(
        &mut self,
        answer: &mut oneshot::Receiver<T>,
        deadline: Option<Instant>,
    ) -> Waited<T> {
        let (connection, is_told) = (self.connection, &mut self.is_told);
        let over = poll_fn(|cx| match Pin::new(&mut *answer).poll(cx) {
            Poll::Ready(reply) => Poll::Ready(Waited::Over(reply)),
            // The wire wakes this task when the client leaves.
            Poll::Pending if !*is_told && connection.departure() != Departure::Present => {
                *is_told = true;
                Poll::Ready(Waited::Left)
            }
            Poll::Pending => Poll::Pending,
        });
        let waited = match deadline {
            None => over.await,
            Some(deadline) => match tokio::time::timeout_at(deadline.into(), over).await {
                Ok(waited) => waited,
                Err(_) if self.scope.abandon(Reason::Deadline) => Waited::Late,
                Err(_) => tokio::time::timeout(COMMIT_GRACE, answer).await.map_or(Waited::Late, Waited::Over),
            },
        };
        if !matches!(waited, Waited::Left) {
            self.has_answer = true;
        }
        waited
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.connection.forget();
        if !self.has_answer {
            self.scope.abandon(Reason::Disconnected);
        }
    }
}
