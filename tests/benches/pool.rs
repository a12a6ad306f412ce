//! Checkout and return: the pool beside r2d2 and, for scale, Python's DBUtils, in one run.
//!
//! ```sh
//! cargo bench -p tests --bench pool
//! ```
//!
//! Both Rust pools lend a connection that does nothing, so what is measured is the pool. Time is the
//! process's CPU time for each checkout: the machine may have other work. `wait` is the longest time
//! that any checkout took.

use std::hint::black_box;
use std::process::Command;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use host::db::{ConnectError, Connection, Driver, Pool, PoolConfig, QueryError, Reset, Value};

/// How long each measurement runs.
const ROUND: Duration = Duration::from_millis(400);
/// Rounds of each kind, taken in turns; the median counts.
const ROUNDS: usize = 5;
/// Threads and connections.
const CASES: [(usize, u32); 4] = [(1, 1), (2, 2), (8, 8), (8, 4)];

/// A database that is always there and does nothing.
#[derive(Debug)]
struct Nothing;

impl Driver for Nothing {
    fn name(&self) -> &'static str {
        "nothing"
    }

    fn address(&self) -> &str {
        "nothing:"
    }

    fn connect(&self) -> Result<Box<dyn Connection>, ConnectError> {
        Ok(Box::new(Nothing))
    }
}

impl Connection for Nothing {
    fn query(&mut self, _: &str, _: &[Value<'_>]) -> Result<Vec<u8>, QueryError> {
        Ok(Vec::new())
    }

    fn execute(&mut self, _: &str, _: &[Value<'_>]) -> Result<u64, QueryError> {
        Ok(0)
    }

    fn batch_execute(&mut self, _: &str) -> Result<(), QueryError> {
        Ok(())
    }

    fn begin(&mut self) -> Result<(), QueryError> {
        Ok(())
    }

    fn commit(&mut self) -> Result<(), QueryError> {
        Ok(())
    }

    fn rollback(&mut self) -> Result<(), QueryError> {
        Ok(())
    }

    fn has_broken(&self) -> bool {
        false
    }

    fn is_valid(&mut self, _: Duration) -> bool {
        true
    }

    fn is_clean(&self) -> bool {
        true
    }

    fn reset(&mut self) -> Reset {
        Reset::Ready
    }

    fn settle(&mut self) {}

    fn backend_id(&self) -> Option<u64> {
        None
    }
}

/// The same for r2d2, without its question at each checkout: the pool here does not ask either when a
/// connection was used a moment ago.
struct Manager;

impl r2d2::ManageConnection for Manager {
    type Connection = Nothing;
    type Error = std::convert::Infallible;

    fn connect(&self) -> Result<Nothing, Self::Error> {
        Ok(Nothing)
    }

    fn is_valid(&self, _: &mut Nothing) -> Result<(), Self::Error> {
        Ok(())
    }

    fn has_broken(&self, _: &mut Nothing) -> bool {
        false
    }
}

/// What one round measured.
#[derive(Clone, Copy, Debug)]
struct Round {
    cpu_ns: f64,
    longest: Duration,
}

fn main() {
    println!("checkout + return, CPU ns each (longest wait, ms); median of {ROUNDS} rounds in turns\n");
    println!("threads x connections |  host            |  r2d2            |  host / r2d2");
    for (threads, size) in CASES {
        let config = PoolConfig { max_size: size, ..PoolConfig::default() };
        let pool = Pool::with_driver(Box::new(Nothing), config).expect("nothing can be opened");
        let peer = r2d2::Pool::builder()
            .max_size(size)
            .test_on_check_out(false)
            .build(Manager)
            .expect("nothing can be opened");
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            ours.push(round(threads, || drop(black_box(pool.checkout().expect("there is one")))));
            theirs.push(round(threads, || drop(black_box(peer.get().expect("there is one")))));
        }
        let (ours, theirs) = (median(&ours), median(&theirs));
        println!(
            "{threads:>7} x {size:<11} | {:>7.0} ({:>6.1}) | {:>7.0} ({:>6.1}) | {:>6.2}",
            ours.cpu_ns,
            ms(ours.longest),
            theirs.cpu_ns,
            ms(theirs.longest),
            ours.cpu_ns / theirs.cpu_ns,
        );
    }
    println!("\n{}", dbutils());
}

/// Lets the threads check out and return for a while.
fn round(threads: usize, body: impl Fn() + Sync) -> Round {
    let barrier = Barrier::new(threads + 1);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    barrier.wait();
                    let (begun, mut last) = (Instant::now(), Instant::now());
                    let (mut count, mut longest) = (0_u64, Duration::ZERO);
                    while begun.elapsed() < ROUND {
                        // The clock would cost more than what is measured, so it is read for 32 of them.
                        for _ in 0..32 {
                            body();
                        }
                        let now = Instant::now();
                        longest = longest.max(now - last);
                        (last, count) = (now, count + 32);
                    }
                    (count, longest)
                })
            })
            .collect();
        let before = cpu();
        barrier.wait();
        let done: Vec<(u64, Duration)> =
            workers.into_iter().map(|worker| worker.join().expect("nothing panics")).collect();
        let spent = cpu() - before;
        let count: u64 = done.iter().map(|(count, _)| count).sum();
        #[expect(clippy::cast_precision_loss, reason = "some millions")]
        let cpu_ns = spent.as_secs_f64() * 1e9 / count as f64;
        Round { cpu_ns, longest: done.iter().map(|(_, longest)| *longest).max().unwrap_or_default() }
    })
}

/// The CPU time of this process, that of its ended threads included.
fn cpu() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(now.tv_sec.cast_unsigned(), u32::try_from(now.tv_nsec).expect("below a second"))
}

/// The median by CPU time, with the longest wait of all rounds.
fn median(rounds: &[Round]) -> Round {
    let mut sorted = rounds.to_vec();
    sorted.sort_by(|a, b| a.cpu_ns.total_cmp(&b.cpu_ns));
    let longest = rounds.iter().map(|round| round.longest).max().unwrap_or_default();
    Round { longest, ..sorted[sorted.len() / 2] }
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// PooledDB of DBUtils on Python's own SQLite, if this machine has it.
fn dbutils() -> String {
    let program = "import sqlite3, time\n\
                   from dbutils.pooled_db import PooledDB\n\
                   pool = PooledDB(sqlite3, 1, database=':memory:', check_same_thread=False)\n\
                   pool.connection().close()\n\
                   begun, count = time.process_time(), 50000\n\
                   for _ in range(count): pool.connection().close()\n\
                   print(round((time.process_time() - begun) / count * 1e9))";
    match Command::new("python3").args(["-c", program]).output() {
        Ok(output) if output.status.success() => {
            format!("DBUtils PooledDB, one thread: {} ns", String::from_utf8_lossy(&output.stdout).trim())
        }
        _ => "DBUtils PooledDB: not here (`pip install DBUtils`)".to_owned(),
    }
}
