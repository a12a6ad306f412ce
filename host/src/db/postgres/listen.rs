//! LISTEN: a connection of its own that waits for NOTIFY, for as long as anybody wants to hear.
//!
//! Owns the connection, its reconnects, and the queue of what was heard and not yet asked for. Who
//! asks may change: a subscription belongs to whoever holds it, and to no code.
//!
//! # Invariants
//!
//! - A loss is never silent. After a reconnect, and when the queue was full, a [`Notice::Gap`] comes
//!   before the next notification: something may have been said that nobody heard.
//! - The lock is not held while the connection is used.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::Arc;
use std::thread::Builder;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::Postgres;
use super::client::Client;
use super::error::chain;
use crate::db::{ConfigError, ConnectError, Driver as _, OpenError};

/// How often the thread looks whether it is still wanted, at most.
const ROUND: Duration = Duration::from_millis(250);
/// After so long without a word the server is asked whether it is there.
const SILENCE: Duration = Duration::from_secs(30);
/// Between two tries to reconnect: the first, and the longest.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// What was heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Somebody notified a channel.
    Notification {
        /// The channel.
        channel: String,
        /// What was said; maybe empty.
        payload: String,
        /// The server's process that said it.
        backend: i32,
    },
    /// The connection was lost and made again, or the queue was full: notifications may be missing here.
    Gap,
}

/// A subscription to channels of one database. Dropped, it ends.
#[derive(Debug)]
pub struct Listener {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    address: String,
    channels: Vec<String>,
    capacity: usize,
    state: Mutex<State>,
    /// Signalled when something was heard or the end has come.
    heard: Condvar,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Notice>,
    connects: u64,
    received: u64,
    dropped: u64,
    is_connected: bool,
    is_closed: bool,
    last_error: Option<String>,
}

/// A listener at one moment.
#[derive(Clone, Debug, serde::Serialize)]
pub struct ListenerStatus {
    /// Where it listens, without a password.
    pub address: String,
    /// To what.
    pub channels: Vec<String>,
    /// Whether it hears anything now.
    pub is_connected: bool,
    /// How often it connected.
    pub connects: u64,
    /// Notifications heard.
    pub received: u64,
    /// Notifications that fell out of a full queue.
    pub dropped: u64,
    /// Notifications that wait to be asked for.
    pub queued: usize,
    /// Why it was disconnected last.
    pub last_error: Option<String>,
}

impl Listener {
    /// Connects, and listens to `channels` from then on. Keeps the newest `capacity` notifications.
    ///
    /// # Errors
    ///
    /// When the URL is wrong or not PostgreSQL's, or the database cannot be reached.
    pub fn open(url: &str, channels: &[&str], capacity: usize) -> Result<Listener, OpenError> {
        let refuse = |reason: &str| ConfigError::Address { driver: "postgres", reason: reason.to_owned() };
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            return Err(refuse("only PostgreSQL has LISTEN: write `postgres://user@host/database`").into());
        }
        if channels.is_empty() || channels.iter().any(|name| name.is_empty() || name.contains('\0')) {
            return Err(refuse("name at least one channel to listen to").into());
        }
        let driver = Postgres::parse(url)?;
        if driver.is_pooled {
            return Err(refuse(
                "LISTEN needs a session of its own: connect to the server itself, past the pooler",
            )
            .into());
        }
        let shared = Arc::new(Shared {
            address: driver.address().to_owned(),
            channels: channels.iter().map(|name| (*name).to_owned()).collect(),
            capacity: capacity.max(1),
            state: Mutex::default(),
            heard: Condvar::new(),
        });
        let client = shared.connect(&driver)?;
        let listener = Listener { shared: Arc::clone(&shared) };
        let thread = Builder::new().name("db-listen".to_owned());
        thread.spawn(move || shared.listen(&driver, client)).map_err(|error| ConnectError::Unreachable {
            address: listener.shared.address.clone(),
            reason: format!("no thread for it: {error}"),
            sqlstate: None,
        })?;
        Ok(listener)
    }

    /// What was heard first, waiting up to `timeout` for it. `None`: nothing, or the end.
    pub fn next(&self, timeout: Duration) -> Option<Notice> {
        let deadline = Instant::now().checked_add(timeout);
        let mut state = self.shared.state.lock();
        loop {
            if let Some(notice) = state.queue.pop_front() {
                return Some(notice);
            }
            if state.is_closed {
                return None;
            }
            match deadline {
                Some(deadline) if self.shared.heard.wait_until(&mut state, deadline).timed_out() => {
                    return state.queue.pop_front();
                }
                Some(_) => {}
                None => self.shared.heard.wait(&mut state),
            }
        }
    }

    /// Ends it. The connection is closed soon; who waits is told at once.
    pub fn close(&self) {
        self.shared.state.lock().is_closed = true;
        self.shared.heard.notify_all();
    }

    /// How it is doing.
    pub fn status(&self) -> ListenerStatus {
        let state = self.shared.state.lock();
        ListenerStatus {
            address: self.shared.address.clone(),
            channels: self.shared.channels.clone(),
            is_connected: state.is_connected,
            connects: state.connects,
            received: state.received,
            dropped: state.dropped,
            queued: state.queue.len(),
            last_error: state.last_error.clone(),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    /// A connection that listens.
    fn connect(&self, driver: &Postgres) -> Result<Client, ConnectError> {
        let mut text = String::new();
        for channel in &self.channels {
            // Writing to a `String` cannot fail.
            let _ = write!(text, "LISTEN \"{}\";", channel.replace('"', "\"\""));
        }
        let client = driver.dial(move |mut client| client.batch_execute(&text).map(|()| client))?;
        let mut state = self.state.lock();
        state.is_connected = true;
        state.connects += 1;
        Ok(client)
    }

    /// The thread's life: hears, and reconnects, until nobody wants to know.
    fn listen(&self, driver: &Postgres, mut client: Client) {
        loop {
            let error = self.hear(&mut client);
            drop(client);
            let Some(error) = error else { return };
            tracing::warn!(address = self.address, "listener disconnected: {error}");
            {
                let mut state = self.state.lock();
                state.is_connected = false;
                state.last_error = Some(error);
            }
            let Some(again) = self.reconnect(driver) else { return };
            tracing::info!(address = self.address, "listener connected again");
            self.push(Notice::Gap);
            client = again;
        }
    }

    /// Hears until the connection is lost (why) or nobody wants to know (`None`).
    fn hear(&self, client: &mut Client) -> Option<String> {
        let mut last_word = Instant::now();
        loop {
            match client.notification(ROUND) {
                Ok(Some(heard)) => {
                    last_word = Instant::now();
                    self.push(Notice::Notification {
                        channel: heard.channel().to_owned(),
                        payload: heard.payload().to_owned(),
                        backend: heard.process_id(),
                    });
                }
                Ok(None) if client.is_closed() => return Some("the server closed the connection".to_owned()),
                Ok(None) if last_word.elapsed() >= SILENCE => {
                    if !client.is_valid(Duration::from_secs(5)) {
                        return Some("the server does not answer".to_owned());
                    }
                    last_word = Instant::now();
                }
                Ok(None) => {}
                Err(error) => return Some(chain(&error)),
            }
            if self.state.lock().is_closed {
                return None;
            }
        }
    }

    /// Tries until it works (the connection) or nobody wants to know (`None`).
    fn reconnect(&self, driver: &Postgres) -> Option<Client> {
        let mut pause = BACK_OFF.0;
        loop {
            match self.connect(driver) {
                Ok(client) => return Some(client),
                Err(error) => self.state.lock().last_error = Some(error.to_string()),
            }
            let until = Instant::now() + pause;
            let mut state = self.state.lock();
            while !state.is_closed && !self.heard.wait_until(&mut state, until).timed_out() {}
            if state.is_closed {
                return None;
            }
            pause = (pause * 2).min(BACK_OFF.1);
        }
    }

    fn push(&self, notice: Notice) {
        let mut state = self.state.lock();
        if let Notice::Notification { .. } = notice {
            state.received += 1;
        }
        if state.queue.len() >= self.capacity {
            // The gap stands in the place of what is lost: the oldest notification.
            if state.queue.front() == Some(&Notice::Gap) {
                state.queue.remove(1);
            } else {
                state.queue[0] = Notice::Gap;
            }
            state.dropped += 1;
        }
        state.queue.push_back(notice);
        drop(state);
        self.heard.notify_one();
    }
}
