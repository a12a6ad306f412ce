//! How many connections there may be, and what becomes of those beyond.
//!
//! A connection costs a descriptor, and who has none left can neither accept nor open a file. So there is a
//! limit. At the limit, connections that have no request make room. Where all have one, a few more are let in, to be
//! told so; beyond these, clients wait in the system's queue.
//!
//! # Invariants
//!
//! - Each I/O thread asks on its own, so the limit may be passed by one connection for each of them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use http::StatusCode;
use parking_lot::Mutex;

use super::trouble::Trouble;

/// How long accepting rests while not even those that are told fit in.
pub(super) const FULL_REST: Duration = Duration::from_millis(10);

/// Of the connections at the limit, this part makes room at a time, so that not every client costs a search.
const ROOM: usize = 64;

/// The limits, and whether they have been reached.
#[derive(Debug)]
pub(super) struct Crowd {
    most: usize,
    most_per_address: Option<usize>,
    by_address: Mutex<HashMap<IpAddr, usize>>,
    /// Connections that are about to close, to make room for others which have not come yet.
    room: AtomicUsize,
    /// Whether that has been said in the log, so that it is said once and not for each client.
    is_told: AtomicBool,
    is_told_of_address: AtomicBool,
}

/// Why a client is turned away as soon as it has connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Surplus {
    /// There are as many connections as may be, all with requests.
    Connections,
    /// Its address has as many connections as it may have.
    OfAddress,
}

/// A connection's place among those of its address.
#[derive(Debug)]
pub(super) struct AddressPlace {
    crowd: Arc<Crowd>,
    address: IpAddr,
}

impl Drop for AddressPlace {
    fn drop(&mut self) {
        let mut by_address = self.crowd.by_address.lock();
        if let Some(count) = by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                by_address.remove(&self.address);
            }
        }
    }
}

impl Crowd {
    pub(super) fn new(most: usize, most_per_address: Option<usize>) -> Arc<Crowd> {
        Arc::new(Crowd {
            most,
            most_per_address,
            by_address: Mutex::default(),
            room: AtomicUsize::new(0),
            is_told: AtomicBool::new(false),
            is_told_of_address: AtomicBool::new(false),
        })
    }

    /// Counts a connection of `address`, where that is limited.
    ///
    /// # Errors
    ///
    /// [`Surplus::OfAddress`], when there are as many as may be; it is not counted then.
    pub(super) fn enter(self: &Arc<Crowd>, address: IpAddr) -> Result<Option<AddressPlace>, Surplus> {
        let Some(most) = self.most_per_address else { return Ok(None) };
        let address = address.to_canonical();
        let mut by_address = self.by_address.lock();
        let count = by_address.entry(address).or_default();
        if *count < most {
            *count += 1;
            return Ok(Some(AddressPlace { crowd: Arc::clone(self), address }));
        }
        drop(by_address);
        if !self.is_told_of_address.swap(true, Relaxed) {
            tracing::warn!(
                %address,
                max_connections_per_address = most,
                "one address has as many connections as it may have; further ones of any such address get 503. Raise \
                 max_connections_per_address in [limits] if it is that of a proxy (said once)"
            );
        }
        Err(Surplus::OfAddress)
    }

    /// How many connections have to make room for one, of `open`; zero where there is room.
    pub(super) fn wanted_room(&self, open: u64) -> usize {
        if open <= self.most as u64 {
            return 0;
        }
        let has_room = self.room.fetch_update(Relaxed, Relaxed, |room| room.checked_sub(1)).is_ok();
        if has_room { 0 } else { (self.most / ROOM).max(1) }
    }

    /// So many connections are about to close, the first of them for the client that has just come.
    pub(super) fn makes_room(&self, connections: usize) {
        self.room.fetch_add(connections.saturating_sub(1), Relaxed);
    }

    /// Says, once, that there are as many connections as may be.
    pub(super) fn tell(&self) {
        if !self.is_told.swap(true, Relaxed) {
            let max_connections = self.most;
            tracing::warn!(
                max_connections,
                "there are as many connections as may be, all with requests; further clients get 503. Raise \
                 max_connections in [limits], and the number of descriptors that the process may have (`ulimit -n`, \
                 `LimitNOFILE=`)"
            );
        }
    }

    /// Takes note that `open` connections are open, so that a later rush is told again.
    pub(super) fn note(&self, open: u64) {
        if open < self.most as u64 / 2 {
            if self.is_told.load(Relaxed) {
                self.is_told.store(false, Relaxed);
            }
            if self.room.load(Relaxed) > 0 {
                self.room.store(0, Relaxed);
            }
        }
    }

    /// Whether `open` connections leave no room even for those that are told so.
    pub(super) fn is_full(&self, open: u64) -> bool {
        open >= (self.most + (self.most / 8).clamp(8, 256)) as u64
    }

    /// What a client beyond a limit is told.
    pub(super) fn trouble(&self, surplus: Surplus) -> Trouble {
        let (words, reason) = match surplus {
            Surplus::Connections => (
                "the server has as many connections as it may have; try again in a second",
                format!("max_connections is {}", self.most),
            ),
            Surplus::OfAddress => (
                "your address has as many connections as it may have; close some, or try again in a second",
                format!("max_connections_per_address is {}", self.most_per_address.unwrap_or_default()),
            ),
        };
        let trouble = Trouble::new(StatusCode::SERVICE_UNAVAILABLE, words);
        Trouble { retry_after: Some(1), reason: Some(reason), ..trouble }
    }
}
