//! Counters of serving: written by one I/O thread each, added up by whoever asks.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use http::StatusCode;

use super::workers::WorkerNumbers;

/// How serving is doing, for status page and metrics. Totals count from the start of the process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Numbers {
    /// Responses of every kind, malformed requests included, and cancelled requests.
    pub requests: u64,
    /// Responses 200-299.
    pub status_2xx: u64,
    /// Responses 300-399.
    pub status_3xx: u64,
    /// Responses 400-499.
    pub status_4xx: u64,
    /// Responses 500-599.
    pub status_5xx: u64,
    /// Requests whose client went away before the answer was ready; in none of the classes above.
    pub cancelled: u64,
    /// Of the 4xx: requests whose head could not be understood or was not sent in time.
    pub malformed: u64,
    /// Requests being answered now.
    pub in_flight: u64,
    /// Connections open now.
    pub connections: u64,
    /// The blocking workers.
    pub workers: WorkerNumbers,
}

/// One I/O thread's share of [`Numbers`]. Padded, so that two threads never write to one cache line.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Counters {
    /// Responses by hundreds of their status; slot 0 stays empty.
    classes: [AtomicU64; 6],
    malformed: AtomicU64,
    cancelled: AtomicU64,
    pub(super) in_flight: AtomicU64,
    pub(super) connections: AtomicU64,
}

impl Counters {
    /// Counts a response.
    pub(super) fn responded(&self, status: StatusCode) {
        let class = usize::from(status.as_u16() / 100).min(5);
        self.classes[class].fetch_add(1, Relaxed);
    }

    /// Counts a response to a head that never became a request.
    pub(super) fn rejected(&self, status: StatusCode) {
        self.malformed.fetch_add(1, Relaxed);
        self.responded(status);
    }

    /// Counts a request whose client went away before its answer was ready.
    pub(super) fn cancelled(&self) {
        self.cancelled.fetch_add(1, Relaxed);
    }

    /// Adds this share to `total`.
    pub(super) fn add_to(&self, total: &mut Numbers) {
        let [_, _, status_2xx, status_3xx, status_4xx, status_5xx] =
            self.classes.each_ref().map(|class| class.load(Relaxed));
        let cancelled = self.cancelled.load(Relaxed);
        total.requests += status_2xx + status_3xx + status_4xx + status_5xx + cancelled;
        total.cancelled += cancelled;
        total.status_2xx += status_2xx;
        total.status_3xx += status_3xx;
        total.status_4xx += status_4xx;
        total.status_5xx += status_5xx;
        total.malformed += self.malformed.load(Relaxed);
        total.in_flight += self.in_flight.load(Relaxed);
        total.connections += self.connections.load(Relaxed);
    }
}
