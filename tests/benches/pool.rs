//! Checkout and return: the pool beside r2d2 and, for scale, Python's DBUtils, in one run.
//!
//! ```sh
//! cargo bench -p tests --bench pool
//! ```
//!
//! An argument such as `8x4` chooses a case: threads and connections. Threads are spread over the processors.
//! Both Rust pools lend a connection that does nothing, so what is measured is the pool. Rounds are short and in
//! pairs (`tests::pairs`): shown are the medians of their processor time for each checkout, and of the ratios
//! within a pair, with quartiles, apart for processor time and for the wall clock.
//!
//! After that the longest time that any one checkout took in a round long enough to starve in, as the median of such
//! rounds: a machine that is shared stands still for tens of milliseconds now and then, and the longest of all would
//! be that. Once with connections that are held for a moment, as by a statement, while which the processors have
//! nothing to do; and once with such as go back at once. There all threads want the processors all the time, and one
//! that loses its own in the middle of a checkout has waited for the scheduler: how long that takes is shown by a loop
//! that has no pool.

use std::hint::black_box;
use std::process::Command;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use host::db::{
    ConnectError, Connection, Driver, Pool, PoolConfig, QueryError, Reset, TransactionOptions, Value,
};
use rustix::thread::{CpuSet, sched_setaffinity};
use tests::pairs::{Cost, Pairs, Quartiles};

/// How long a round of a pair runs, and how many pairs there are of each case.
const ROUND: Duration = Duration::from_millis(25);
const PAIRS: usize = 80;
/// The same for the longest wait.
const WAIT_ROUND: Duration = Duration::from_millis(250);
const WAIT_ROUNDS: usize = 11;
/// How long a connection is held where it is.
const HELD: Duration = Duration::from_micros(100);
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

    fn begin_with(&mut self, _: &TransactionOptions) -> Result<(), QueryError> {
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

fn main() {
    println!("checkout + return, {PAIRS} pairs of rounds of {} ms", ROUND.as_millis());
    println!("threads x      |  CPU ns each  | host / r2d2, median and quartiles");
    println!("   connections |  host    r2d2 | CPU                   | wall clock");
    let chosen: Vec<String> = std::env::args().skip(1).filter(|case| !case.starts_with('-')).collect();
    let is_chosen =
        |(threads, size): &(usize, u32)| chosen.is_empty() || chosen.contains(&format!("{threads}x{size}"));
    let cases: Vec<Pools> = CASES.into_iter().filter(is_chosen).map(Pools::open).collect();
    cases.iter().for_each(Pools::compare_costs);
    println!("\nlongest checkout of a round of {} ms, median of {WAIT_ROUNDS}, ms", WAIT_ROUND.as_millis());
    println!("threads x      | held for {:>3} us | returned at once", HELD.as_micros());
    println!("   connections |   host    r2d2  |   host    r2d2  no pool");
    cases.iter().for_each(Pools::compare_waits);
    println!("\n{}", dbutils());
}

/// Both pools of a case.
struct Pools {
    threads: usize,
    size: u32,
    ours: Pool,
    theirs: r2d2::Pool<Manager>,
}

impl Pools {
    fn open((threads, size): (usize, u32)) -> Pools {
        let config = PoolConfig { max_size: size, ..PoolConfig::default() };
        let ours = Pool::with_driver(Box::new(Nothing), config).expect("nothing can be opened");
        let builder = r2d2::Pool::builder().max_size(size).test_on_check_out(false);
        Pools { threads, size, ours, theirs: builder.build(Manager).expect("nothing can be opened") }
    }

    fn compare_costs(&self) {
        let ours = || cost(self.threads, &|| self.ours.checkout().expect("there is one"));
        let theirs = || cost(self.threads, &|| self.theirs.get().expect("there is one"));
        let pairs = Pairs::take(PAIRS, ours, theirs);
        let (cpu, wall) = (pairs.cpu(), pairs.wall());
        println!(
            "{:>7} x {:<5} | {:>5.0}  {:>6.0} | {:<21} | {}",
            self.threads,
            self.size,
            cpu.ours,
            cpu.theirs,
            cpu.ratio.to_string(),
            wall.ratio
        );
    }

    fn compare_waits(&self) {
        let mut longests: [Vec<f64>; 5] = Default::default();
        for _ in 0..WAIT_ROUNDS {
            let round = [
                longest(self.threads, HELD, &|| self.ours.checkout().expect("there is one")),
                longest(self.threads, HELD, &|| self.theirs.get().expect("there is one")),
                longest(self.threads, Duration::ZERO, &|| self.ours.checkout().expect("there is one")),
                longest(self.threads, Duration::ZERO, &|| self.theirs.get().expect("there is one")),
                longest(self.threads, Duration::ZERO, &|| ()),
            ];
            longests.iter_mut().zip(round).for_each(|(all, one)| all.push(one.as_secs_f64() * 1000.0));
        }
        let [ours_held, theirs_held, ours, theirs, none] = longests.map(|all| Quartiles::of(all).median);
        println!(
            "{:>7} x {:<5} | {ours_held:>6.1}  {theirs_held:>6.1}  | {ours:>6.1}  {theirs:>6.1}   {none:>6.1}",
            self.threads, self.size
        );
    }
}

/// What a checkout costs in a round. The wall clock runs without the start and the end of threads.
fn cost<L>(threads: usize, checkout: &(impl Fn() -> L + Sync)) -> Cost {
    let mut wall = Duration::ZERO;
    let mut count = 0;
    let cost = Cost::of_process(|| {
        (count, wall) = round(threads, ROUND, &|_| drop(black_box(checkout()))).total();
        count
    });
    Cost { wall: Cost::each(Duration::ZERO, wall, count).wall, ..cost }
}

/// The longest that any checkout of a round takes, when what it gives is kept for so long.
fn longest<L>(threads: usize, held: Duration, checkout: &(impl Fn() -> L + Sync)) -> Duration {
    let timed = |longest: &mut Duration| {
        let begun = Instant::now();
        let lease = checkout();
        *longest = begun.elapsed().max(*longest);
        if !held.is_zero() {
            thread::sleep(held);
        }
        drop(lease);
    };
    round(threads, WAIT_ROUND, &timed).longest()
}

/// What the threads of a round did: checkouts, the time for all, and what the body noted.
struct Round(Vec<(u64, Duration, Duration)>);

impl Round {
    /// All checkouts, and how long the round took.
    fn total(&self) -> (u64, Duration) {
        let count = self.0.iter().map(|(count, ..)| count).sum();
        (count, self.0.iter().map(|(_, took, _)| *took).max().unwrap_or_default())
    }

    fn longest(&self) -> Duration {
        self.0.iter().map(|(.., longest)| *longest).max().unwrap_or_default()
    }
}

/// Lets the threads check out and return for a while. What the body is given is its thread's.
fn round(threads: usize, span: Duration, body: &(impl Fn(&mut Duration) + Sync)) -> Round {
    let (barrier, processors) =
        (&Barrier::new(threads), thread::available_parallelism().map_or(1, Into::into));
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|number| {
                scope.spawn(move || {
                    run_on(number % processors);
                    barrier.wait();
                    let begun = Instant::now();
                    let (mut count, mut last, mut longest) = (0_u64, begun, Duration::ZERO);
                    while last - begun < span {
                        // The clock would cost more than what is measured, so it is read for 32 of them.
                        for _ in 0..32 {
                            body(&mut longest);
                        }
                        (last, count) = (Instant::now(), count + 32);
                    }
                    (count, last - begun, longest)
                })
            })
            .collect();
        Round(workers.into_iter().map(|worker| worker.join().expect("nothing panics")).collect())
    })
}

/// Keeps this thread on one processor, so that threads meet each other in every round alike.
fn run_on(processor: usize) {
    let mut set = CpuSet::new();
    set.set(processor);
    // Where that is not allowed the system places it.
    let _ = sched_setaffinity(None, &set);
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
