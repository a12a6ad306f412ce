//! The access log: one line for each request, with how it ended.
//!
//! Written at the level DEBUG under the target `access`. Heads that never became a request are logged by the wire.

use std::sync::Arc;
use std::time::Instant;

use http::{Method, Request, StatusCode};

use super::answer::Origin;
use super::request_id::RequestId;

/// A line of the access log, written when the request ends. Dropped before that, it says that the client has gone.
pub(super) struct AccessLine {
    started: Instant,
    method: Method,
    path: String,
    request_id: Arc<str>,
    is_written: bool,
}

impl AccessLine {
    pub(super) fn begin(request: &Request<hyper::body::Incoming>, id: &RequestId) -> AccessLine {
        AccessLine {
            started: Instant::now(),
            method: request.method().clone(),
            path: request.uri().path().to_owned(),
            request_id: Arc::clone(&id.text),
            is_written: false,
        }
    }

    fn duration_ms(&self) -> f64 {
        self.started.elapsed().as_secs_f64() * 1000.0
    }

    pub(super) fn answered(mut self, status: StatusCode, origin: Option<&Origin>) {
        self.is_written = true;
        tracing::debug!(
            target: "access",
            method = self.method.as_str(),
            path = self.path,
            status = status.as_u16(),
            duration_ms = self.duration_ms(),
            plugin = origin.map(|origin| &*origin.plugin),
            generation = origin.map(|origin| origin.generation),
            request_id = &*self.request_id,
            "answered"
        );
    }
}

impl Drop for AccessLine {
    fn drop(&mut self) {
        if !self.is_written {
            tracing::debug!(
                target: "access",
                method = self.method.as_str(),
                path = self.path,
                duration_ms = self.duration_ms(),
                request_id = &*self.request_id,
                "cancelled: the client has gone"
            );
        }
    }
}
