//! Clients in closed loops: each sends its next request when it has the answer to the last.
//!
//! Owns: the threads, the tally. Does not own: what a right answer is; the test judges.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use crate::http::{Client, Response};
use crate::wait::{SOON, eventually};

/// Clients at work. They stop when this value goes.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    answers: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<Tally>>,
}

/// What the clients got.
#[derive(Debug, Default)]
pub struct Tally {
    /// Right answers, by the label that the test's judge gave them.
    pub labels: BTreeMap<String, usize>,
    /// Requests without an answer, and wrong answers, each in a line. Empty is the goal.
    pub failures: Vec<String>,
}

impl Load {
    /// Sets `clients` clients on `path`. `judge` labels a right answer and says what is wrong with another.
    pub fn start(
        address: SocketAddr,
        clients: usize,
        path: &str,
        judge: fn(&Response) -> Result<String, String>,
    ) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let answers = Arc::new(AtomicUsize::new(0));
        let clients = (0..clients)
            .map(|_| {
                let (stop, answers, path) = (Arc::clone(&stop), Arc::clone(&answers), path.to_owned());
                thread::spawn(move || run(address, &path, judge, &stop, &answers))
            })
            .collect();
        Load { stop, answers, clients }
    }

    /// Waits until `more` further requests have been answered: the host serves, now.
    #[track_caller]
    pub fn wait_answers(&self, more: usize) {
        let wanted = self.answers.load(Ordering::Relaxed) + more;
        eventually(SOON, "the clients to be answered", || match self.answers.load(Ordering::Relaxed) {
            answers if answers >= wanted => Ok(()),
            answers => Err(format!("{answers} of {wanted} answers")),
        });
    }

    /// Stops the clients, each after its current request, and adds up.
    pub fn finish(mut self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        let mut sum = Tally::default();
        for client in self.clients.drain(..) {
            let tally = client.join().expect("a client does not panic");
            sum.failures.extend(tally.failures);
            for (label, count) in tally.labels {
                *sum.labels.entry(label).or_default() += count;
            }
        }
        sum
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Tally {
    /// All right answers.
    pub fn answers(&self) -> usize {
        self.labels.values().sum()
    }

    /// Fails the test unless every request was answered rightly, and at least one was made.
    ///
    /// # Panics
    ///
    /// With the number of failures and the first few.
    #[track_caller]
    pub fn assert_flawless(&self) {
        let first: Vec<&String> = self.failures.iter().take(3).collect();
        assert!(first.is_empty(), "{} of {} failed: {first:#?}", self.failures.len(), self.answers());
        assert!(self.answers() > 0, "nobody asked anything");
    }
}

fn run(
    address: SocketAddr,
    path: &str,
    judge: fn(&Response) -> Result<String, String>,
    stop: &AtomicBool,
    answers: &AtomicUsize,
) -> Tally {
    let mut client = Client::new(address);
    let mut tally = Tally::default();
    while !stop.load(Ordering::Relaxed) {
        match client.get(path).map_err(|error| error.to_string()).and_then(|response| judge(&response)) {
            Ok(label) => *tally.labels.entry(label).or_default() += 1,
            Err(failure) => tally.failures.push(failure),
        }
        answers.fetch_add(1, Ordering::Relaxed);
        if tally.failures.len() > 100 {
            // A host that is gone would fill the memory with refusals.
            break;
        }
    }
    tally
}
