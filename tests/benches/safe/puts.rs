//! Durable puts: the bare disk, the safe, and SQLite behind the same kind of group commit.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use host::safe::Safes;
use tests::pairs::Quartiles;

use super::{peers, put, soon};

/// How long each rate is measured, in each round.
const SPAN: Duration = Duration::from_millis(500);
const ROUNDS: usize = 9;

/// What some writers achieved.
#[derive(Clone, Copy)]
struct Puts {
    /// Acknowledged per second.
    rate: f64,
    count: f64,
    /// Commits that were synced; SQLite's syncs of its file, at checkpoints, come on top.
    commits: f64,
    /// Bytes that the system had to write for each.
    bytes_each: f64,
}

impl Puts {
    fn per_commit(&self) -> f64 {
        self.count / self.commits
    }
}

/// The rates of one number of writers in one round.
struct Round {
    safe: Puts,
    sqlite: Puts,
    /// Synced writes in place by nobody else, right before.
    bare: f64,
}

/// Puts by so many writers each, beside SQLite.
pub(super) fn compare(scratch: &Path, writers: &[usize]) {
    let appends = Quartiles::of((0..ROUNDS).map(|_| bare_syncs(scratch, false)).collect());
    let mut rounds: Vec<Vec<Round>> = Vec::new();
    for number in 0..ROUNDS {
        let place = scratch.join(format!("round{number}"));
        fs::create_dir(&place).expect("the directory is writable");
        rounds.push(writers.iter().map(|writers| round(&place, *writers, number)).collect());
        fs::remove_dir_all(&place).expect("the directory is writable");
    }
    let in_place = Quartiles::of(rounds.iter().flatten().map(|round| round.bare).collect());
    println!(
        "bare disk, synced writes per second: {:.0} appended ({:.0} to {:.0}), {:.0} in place ({:.0} to {:.0})",
        appends.median, appends.low, appends.high, in_place.median, in_place.low, in_place.high
    );
    for (index, writers) in writers.iter().enumerate() {
        let of = |what: &dyn Fn(&Round, &Round) -> f64| {
            Quartiles::of(rounds.iter().map(|round| what(&round[index], &round[0])).collect())
        };
        let rate = of(&|round, _| round.safe.rate);
        println!(
            "put, {writers} writers: {:.0} per second ({:.0} to {:.0}); {:.2} per sync, {:.1} kB to the disk each; \
             {} x the first line's, {} x the disk's {writers} per sync; SQLite {:.0} ({:.2} per commit), {} x of it",
            rate.median,
            rate.low,
            rate.high,
            of(&|round, _| round.safe.per_commit()).median,
            of(&|round, _| round.safe.bytes_each / 1e3).median,
            of(&|round, first| round.safe.rate / first.safe.rate),
            of(&|round, _| round.safe.rate / round.bare / *writers as f64),
            of(&|round, _| round.sqlite.rate).median,
            of(&|round, _| round.sqlite.per_commit()).median,
            of(&|round, _| round.safe.rate / round.sqlite.rate),
        );
    }
}

fn round(place: &Path, writers: usize, number: usize) -> Round {
    let bare = bare_syncs(place, true);
    let safe = || put_rate(&place.join(format!("put{writers}")), writers);
    let sqlite = || sqlite_rate(place, writers);
    if number.is_multiple_of(2) {
        let safe = safe();
        Round { safe, sqlite: sqlite(), bare }
    } else {
        let sqlite = sqlite();
        Round { safe: safe(), sqlite, bare }
    }
}

/// Synced writes of one block per second: appended, or to a file that has its blocks.
fn bare_syncs(directory: &Path, in_place: bool) -> f64 {
    let file = File::create(directory.join("bare")).expect("the directory is writable");
    let block = [b'v'; 4096];
    let blocks = if in_place { 512 } else { u64::MAX };
    if in_place {
        (0..blocks).for_each(|number| file.write_all_at(&block, number * 4096).expect("the disk works"));
        file.sync_all().expect("the disk works");
    }
    let begun = Instant::now();
    let mut count = 0_u64;
    while begun.elapsed() < SPAN / 2 {
        let at = count % blocks * 4096;
        file.write_all_at(&block, at).and_then(|()| file.sync_data()).expect("the disk works");
        count += 1;
    }
    count as f64 / begun.elapsed().as_secs_f64()
}

fn put_rate(directory: &Path, writers: usize) -> Puts {
    let safes = Safes::new(directory.to_owned());
    let safe = safes.open("bench").expect("a new safe");
    // The file and its journal are there before the clock runs.
    safe.write(put(b"first".to_vec(), 0), soon()).expect("the disk works");
    let syncs = safe.status().syncs;
    let puts = closed_loop(writers, || {
        |key, number| {
            safe.write(put(key, number), soon()).expect("the disk works");
        }
    });
    Puts { commits: (safe.status().syncs - syncs) as f64, ..puts }
}

fn sqlite_rate(directory: &Path, writers: usize) -> Puts {
    let lite = peers::Lite::open(&directory.join(format!("sqlite{writers}")));
    let puts = closed_loop(writers, || lite.writer());
    Puts { commits: lite.close() as f64, ..puts }
}

/// Lets so many writers put, each as soon as its last put is acknowledged. Does not know the commits.
fn closed_loop<W: FnMut(Vec<u8>, u64) + Send>(writers: usize, writer: impl Fn() -> W) -> Puts {
    let (stop, done) = (AtomicBool::new(false), AtomicU64::new(0));
    let bytes = written();
    let begun = Instant::now();
    thread::scope(|scope| {
        for name in 0..writers {
            let (mut write, stop, done) = (writer(), &stop, &done);
            scope.spawn(move || {
                let mut number = 0_u64;
                while !stop.load(Ordering::Relaxed) {
                    write(format!("{name}:{}", number % 1000).into_bytes(), number);
                    done.fetch_add(1, Ordering::Relaxed);
                    number += 1;
                }
            });
        }
        thread::sleep(SPAN);
        stop.store(true, Ordering::Relaxed);
    });
    let done = done.load(Ordering::Relaxed) as f64;
    Puts {
        rate: done / begun.elapsed().as_secs_f64(),
        count: done,
        commits: f64::NAN,
        bytes_each: (written() - bytes) as f64 / done,
    }
}

/// Bytes that this process has sent towards a disk.
fn written() -> u64 {
    let numbers = fs::read_to_string("/proc/self/io").expect("the system counts");
    let number = numbers.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    number.and_then(|number| number.parse().ok()).expect("it counts bytes")
}
