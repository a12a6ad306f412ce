//! A connection for each thread.
//!
//! Owns which connection is whose, and that it goes when its thread ends. For code that runs on few
//! threads and uses the database in every call: there is no line to wait in and nothing to return.
//!
//! # Invariants
//!
//! - A connection is used by the thread that got it and by no other; a lease that wandered to another
//!   thread is an error there.
//! - When the last lease of a thread is dropped, what was left open on its connection is undone: the
//!   next one may be somebody else's.

use std::cell::RefCell;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::pool::Alone;
use super::source::Source;
use super::{CheckoutError, Driver, Lease, OpenError, Steady, SteadyConfig};

/// Connections to one database, one for each thread that asks. DBUtils: `PersistentDB`.
///
/// A clone is the same set of connections. Dropping the last one closes them.
#[derive(Clone, Debug)]
pub struct Persistent {
    origin: Arc<Origin>,
}

/// What clones share.
#[derive(Debug)]
struct Origin {
    source: Arc<Source>,
    /// Never used twice, unlike an address.
    number: u64,
    is_closed: AtomicBool,
    /// For closing them all. Written by threads that get their first connection.
    all: Mutex<Vec<Weak<Alone>>>,
}

static LAST_NUMBER: AtomicU64 = AtomicU64::new(0);

/// The connections of this thread, by the number of their origin.
struct Mine(Vec<(u64, Arc<Alone>)>);

thread_local! {
    static MINE: RefCell<Mine> = const { RefCell::new(Mine(Vec::new())) };
}

impl Drop for Mine {
    fn drop(&mut self) {
        for (_, alone) in self.0.drain(..) {
            // A lease may still hold the rest of it, somewhere.
            drop(alone.steady.lock().take());
        }
    }
}

impl Persistent {
    /// Opens a set for the database of a URL (see [`driver`](super::driver)), with a connection for this
    /// thread, so that a wrong address shows at once.
    ///
    /// # Errors
    ///
    /// When the URL or a setting is wrong or the database cannot be reached.
    pub fn open(url: &str, data_dir: &Path, config: SteadyConfig) -> Result<Persistent, OpenError> {
        Persistent::with_driver(super::driver(url, data_dir)?, config)
    }

    /// Opens a set by a driver.
    ///
    /// # Errors
    ///
    /// As [`open`](Persistent::open), and when all connections of the driver would be one database each.
    pub fn with_driver(driver: Box<dyn Driver>, config: SteadyConfig) -> Result<Persistent, OpenError> {
        config.check()?;
        if driver.is_its_connection() {
            return Err(OpenError::OneConnection { address: driver.address().to_owned() });
        }
        let origin = Origin {
            source: Source::new(driver, config, None),
            number: LAST_NUMBER.fetch_add(1, Ordering::Relaxed) + 1,
            is_closed: AtomicBool::new(false),
            all: Mutex::default(),
        };
        let persistent = Persistent { origin: Arc::new(origin) };
        match persistent.get() {
            Ok(_) => Ok(persistent),
            Err(CheckoutError::Unreachable(error)) => Err(OpenError::Connect(error)),
            Err(_) => Err(OpenError::OneConnection { address: persistent.address() }),
        }
    }

    /// This thread's connection, made if it has none.
    ///
    /// # Errors
    ///
    /// When the database cannot be reached, or the set is closed.
    pub fn get(&self) -> Result<Lease, CheckoutError> {
        let closed = || CheckoutError::Closed { address: self.address() };
        if self.origin.is_closed.load(Ordering::Acquire) {
            return Err(closed());
        }
        // A thread that is ending gets none: nobody would close it.
        let alone = MINE.try_with(|mine| self.mine(&mut mine.borrow_mut())).map_err(|_| closed())?;
        let mut place = alone.steady.lock();
        let steady = place.get_or_insert_with(|| Steady::closed(self.origin.source.clone()));
        steady.check_out()?;
        drop(place);
        Ok(Lease::alone(alone))
    }

    /// Closes all connections, each when the statement on it has ended. Later calls of `get` fail.
    pub fn close(&self) {
        self.origin.close();
    }

    /// How many threads have a connection.
    pub fn len(&self) -> usize {
        let all = self.origin.all.lock();
        all.iter().filter_map(Weak::upgrade).filter(|alone| alone.steady.lock().is_some()).count()
    }

    /// Whether no thread has one.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where the database is, without a password.
    pub fn address(&self) -> String {
        self.origin.source.driver.address().to_owned()
    }

    /// Finds this thread's place, or makes one.
    fn mine(&self, mine: &mut Mine) -> Arc<Alone> {
        let number = self.origin.number;
        if let Some((_, alone)) = mine.0.iter().find(|(known, _)| *known == number) {
            return alone.clone();
        }
        // Those of closed origins have been emptied; this is the moment to forget them.
        mine.0.retain(|(_, alone)| alone.steady.lock().is_some());
        let alone = Arc::new(Alone {
            thread: Some(std::thread::current().id()),
            steady: Mutex::new(Some(Steady::closed(self.origin.source.clone()))),
            leases: AtomicU64::new(0),
        });
        mine.0.push((number, alone.clone()));
        let mut all = self.origin.all.lock();
        all.retain(|known| known.strong_count() > 0);
        all.push(Arc::downgrade(&alone));
        alone
    }
}

impl Origin {
    fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        let all = std::mem::take(&mut *self.all.lock());
        for alone in all.iter().filter_map(Weak::upgrade) {
            drop(alone.steady.lock().take());
        }
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.close();
    }
}

#[cfg(test)]
mod tests;
