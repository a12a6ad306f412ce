//! The clients of a stress run: closed loops over every kind of route, with a histogram of latencies.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::http::Client;

/// What a client asks for, one after the other. The first has the largest share of clients.
const PATHS: [&str; 3] = ["/shop/ping", "/shop/", "/shop/thread"];

/// Clients at work.
pub(super) struct Clients {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Tally>>,
}

/// What they got.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) answered: u64,
    pub(super) failures: Vec<String>,
    pub(super) latency: Histogram,
}

impl Clients {
    pub(super) fn start(address: SocketAddr, clients: usize) -> Clients {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = (0..clients)
            .map(|index| {
                let stop = Arc::clone(&stop);
                thread::spawn(move || run(address, PATHS[index % PATHS.len()], &stop))
            })
            .collect();
        Clients { stop, threads }
    }

    pub(super) fn finish(self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        let mut sum = Tally::default();
        for thread in self.threads {
            let tally = thread.join().expect("a client does not panic");
            sum.answered += tally.answered;
            sum.failures.extend(tally.failures);
            sum.latency.add(&tally.latency);
        }
        sum
    }
}

fn run(address: SocketAddr, path: &str, stop: &AtomicBool) -> Tally {
    let mut client = Client::new(address);
    let mut tally = Tally::default();
    while !stop.load(Ordering::Relaxed) && tally.failures.len() < 100 {
        let begun = Instant::now();
        match client.get(path) {
            Ok(answer) if answer.status == 200 => tally.answered += 1,
            // A plugin that lingers has no such route: for its time, that is the right answer.
            Ok(answer) if answer.status == 404 && path != "/shop/ping" => tally.answered += 1,
            Ok(answer) => tally.failures.push(format!("{path}: {} {}", answer.status, answer.text())),
            Err(error) => tally.failures.push(format!("{path}: {error}")),
        }
        tally.latency.record(begun.elapsed());
    }
    tally
}

/// Buckets of 1/16 of a power of two of microseconds.
const BUCKETS: usize = 16 * 32;

/// How often requests took how long.
pub(super) struct Histogram(Vec<u64>);

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram(vec![0; BUCKETS])
    }
}

impl Histogram {
    fn record(&mut self, took: Duration) {
        let micros = (took.as_secs_f64() * 1e6).max(1.0);
        let bucket = ((micros.log2() * 16.0) as usize).min(BUCKETS - 1);
        self.0[bucket] += 1;
    }

    fn add(&mut self, other: &Histogram) {
        for (sum, more) in self.0.iter_mut().zip(&other.0) {
            *sum += more;
        }
    }

    /// The time, in milliseconds, that this share of all requests did not exceed.
    pub(super) fn at(&self, share: f64) -> f64 {
        let all: u64 = self.0.iter().sum();
        let mut seen = 0;
        for (bucket, count) in self.0.iter().enumerate() {
            seen += count;
            if seen as f64 >= all as f64 * share && seen > 0 {
                return 2f64.powf((bucket + 1) as f64 / 16.0) / 1e3;
            }
        }
        0.0
    }
}
