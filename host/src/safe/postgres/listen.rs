//! Hearing of changes that other hosts make.
//!
//! # Invariants
//!
//! - `start` has returned: every later commit of another host wakes the watches it concerns.
//! - A connection that was lost may have missed something: then all watches wake.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use postgres::fallible_iterator::FallibleIterator as _;

use super::super::watch::Watches;
use super::connection::{Server, Session, words};

/// How often the thread looks whether it is to stop, and tries to connect anew.
const TICK: Duration = Duration::from_millis(200);

/// The thread that listens, for one safe; not started before somebody watches.
#[derive(Debug)]
pub(super) struct Listener {
    ears: Arc<Ears>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Ears {
    server: Server,
    name: String,
    /// Of the store that it belongs to, whose changes are known already.
    instance: u64,
    watches: Arc<Watches>,
    is_stopping: AtomicBool,
}

impl Listener {
    pub(super) fn new(server: Server, name: &str, instance: u64, watches: Arc<Watches>) -> Listener {
        let ears =
            Ears { server, name: name.to_owned(), instance, watches, is_stopping: AtomicBool::new(false) };
        Listener { ears: Arc::new(ears), thread: Mutex::new(None) }
    }

    /// Returns when the server tells this listener of changes.
    pub(super) fn start(&self) -> Result<(), String> {
        let mut thread = self.thread.lock();
        if thread.is_some() || self.ears.is_stopping.load(Ordering::Acquire) {
            return Ok(());
        }
        let (ready, is_ready) = mpsc::channel();
        let ears = Arc::clone(&self.ears);
        let name = format!("safe watch {}", ears.name);
        let spawned = std::thread::Builder::new().name(name).spawn(move || ears.run(&ready));
        let spawned = spawned.map_err(|error| format!("no thread to listen: {error}"))?;
        match is_ready.recv() {
            Ok(Ok(())) => {
                *thread = Some(spawned);
                Ok(())
            }
            Ok(Err(reason)) => Err(reason),
            Err(_) => Err("the thread that listens has ended".to_owned()),
        }
    }

    pub(super) fn stop(&self) {
        self.ears.is_stopping.store(true, Ordering::Release);
        if let Some(thread) = self.thread.lock().take() {
            // It catches nothing that could be told here.
            let _ = thread.join();
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Ears {
    fn connect(&self) -> Result<Session, String> {
        let mut session = self.server.connect()?;
        session.client.batch_execute("LISTEN host_safe").map_err(|error| words(&error))?;
        Ok(session)
    }

    fn run(&self, ready: &Sender<Result<(), String>>) {
        let mut session = match self.connect() {
            Ok(session) => session,
            // Whoever asked has gone only if the host is stopping.
            Err(reason) => return drop(ready.send(Err(reason))),
        };
        let _ = ready.send(Ok(()));
        while !self.is_stopping.load(Ordering::Acquire) {
            if self.hear(&mut session).is_ok() {
                continue;
            }
            std::thread::sleep(TICK);
            if let Ok(fresh) = self.connect() {
                session = fresh;
                self.watches.all_changed();
            }
        }
    }

    /// Listens for a tick.
    fn hear(&self, session: &mut Session) -> Result<(), postgres::Error> {
        let mut notifications = session.client.notifications();
        let mut heard = notifications.timeout_iter(TICK);
        while let Some(tiding) = heard.next()? {
            match read(tiding.payload()) {
                Some((instance, name, _)) if instance == self.instance || name != self.name => {}
                Some((_, _, Some(key))) => self.watches.changed(&key),
                Some((_, _, None)) | None => self.watches.all_changed(),
            }
        }
        drop(heard);
        drop(notifications);
        // An end of the connection is no error to the iterator.
        if session.client.is_closed() { session.client.batch_execute("") } else { Ok(()) }
    }
}

/// What a commit tells: who made it, in which safe, and a key; without one, many.
pub(super) fn tiding(instance: u64, name: &str, key: Option<&[u8]>) -> String {
    let key: String = key.into_iter().flatten().map(|byte| format!("{byte:02x}")).collect();
    format!("{instance:016x} {name} {key}")
}

fn read(tiding: &str) -> Option<(u64, &str, Option<Vec<u8>>)> {
    let mut parts = tiding.splitn(3, ' ');
    let instance = u64::from_str_radix(parts.next()?, 16).ok()?;
    let (name, hex) = (parts.next()?, parts.next()?);
    let byte = |at| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok();
    let key: Option<Vec<u8>> = (0..hex.len()).step_by(2).map(byte).collect();
    Some((instance, name, key.filter(|key| !key.is_empty())))
}
