//! A client that waits for a handler on a worker: until the answer, the deadline, or its leaving.
//!
//! # Invariants
//!
//! - Whoever stops waiting without an answer gives the request's transactions up, and says so at once.
//! - A commit that has begun is waited for: a client is not told that something failed which is kept.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::CONNECTION;
use http::{HeaderMap, Method, Version};
use tokio::sync::oneshot;

use super::connection::{Connection, Thread};
use crate::db::Access;
use crate::tx::{Reason, Scope};

/// How long beyond its deadline a request waits for the commit that is under way.
const COMMIT_GRACE: Duration = Duration::from_secs(5);

/// A client that waits. Dropped without an answer, it has gone.
pub(super) struct Waiting<'a> {
    scope: Arc<Scope>,
    connection: &'a Connection,
    has_answer: bool,
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
        connection: &'a Connection,
        version: Version,
        method: &Method,
        headers: &HeaderMap,
    ) -> Waiting<'a> {
        let access = if method.is_safe() { Access::Deferred } else { Access::Immediate };
        let scope = Arc::new(Scope::with_access(access));
        let says_close = headers
            .get_all(CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|word| word.trim().eq_ignore_ascii_case("close"));
        if version == Version::HTTP_11 && !says_close {
            connection.want(Some(Arc::clone(&scope)));
        }
        Waiting { scope, connection, has_answer: false }
    }

    /// The I/O thread that answers.
    pub(super) fn thread(&self) -> &Arc<Thread> {
        &self.connection.thread
    }

    /// Where the request's transactions are.
    pub(super) fn scope(&self) -> Arc<Scope> {
        Arc::clone(&self.scope)
    }

    /// Gives the request's transactions up: its handler will never return.
    pub(super) fn give_up(&self) {
        self.scope.abandon(Reason::Disconnected);
    }

    /// The worker's answer; `None` at the deadline.
    pub(super) async fn answer<T>(
        &mut self,
        answer: &mut oneshot::Receiver<T>,
        deadline: Option<Instant>,
    ) -> Option<Result<T, oneshot::error::RecvError>> {
        let in_time = match deadline {
            None => Some(answer.await),
            Some(deadline) => match tokio::time::timeout_at(deadline.into(), &mut *answer).await {
                Ok(reply) => Some(reply),
                Err(_) if self.scope.abandon(Reason::Deadline) => None,
                Err(_) => tokio::time::timeout(COMMIT_GRACE, answer).await.ok(),
            },
        };
        self.has_answer = true;
        in_time
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.connection.want(None);
        if !self.has_answer {
            self.scope.abandon(Reason::Disconnected);
        }
    }
}
