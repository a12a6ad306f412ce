//! The safe against its own disk: durable puts, gets, opening. `cargo bench -p tests --bench safe`.
//!
//! `SAFE_BENCH_DIR` says on which disk, `SAFE_BENCH_RECORDS` how many records the large safe has; an argument
//! (`put`, `get`, `open`) chooses a part. Prints figures and ratios and judges nothing: machines differ. The
//! bare disk's own rates come first. Rates are taken in rounds, peer after peer; shown are the medians, of
//! ratios those within a round.

mod boundary;
mod peers;

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use host::safe::{Change, Expiry, Safe, Safes, Write};
use redb::{Database, ReadableDatabase as _, TableDefinition};

/// How long each rate is measured, in each round.
const SPAN: Duration = Duration::from_secs(1);
const ROUNDS: usize = 5;
const VALUE: [u8; 100] = [b'v'; 100];
const RAW: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("raw");

fn main() {
    let place = std::env::var_os("SAFE_BENCH_DIR").map_or_else(std::env::temp_dir, Into::into);
    let scratch = tempfile::tempdir_in(place).expect("a directory to write in");
    let chosen: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let is_chosen = |part: &str| chosen.is_empty() || chosen.iter().any(|name| name == part);
    if is_chosen("put") {
        puts(scratch.path());
    }
    if is_chosen("get") {
        gets(scratch.path());
    }
    if is_chosen("open") {
        opening(scratch.path());
    }
}

fn put(key: Vec<u8>) -> Write {
    let value = VALUE.to_vec();
    Write {
        checks: Vec::new(),
        changes: vec![Change::Put { key, encoding: 0, value, expiry: Expiry::Never }],
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

/// Durable puts by one, 8 and 64 writers, beside SQLite behind the same kind of group commit.
fn puts(scratch: &Path) {
    let bare = |in_place| median((0..ROUNDS).map(|_| bare_syncs(scratch, in_place)).collect());
    println!(
        "bare disk: {:.0} appends and {:.0} writes in place, each synced, per second",
        bare(false),
        bare(true)
    );
    let mut rounds = Vec::new();
    for round in 0..ROUNDS {
        let place = scratch.join(format!("round{round}"));
        fs::create_dir(&place).expect("the directory is writable");
        rounds.push([1, 8, 64].map(|writers| {
            (put_rate(&place.join(format!("put{writers}")), writers), peers::sqlite(&place, writers))
        }));
    }
    for (index, writers) in [1, 8, 64].into_iter().enumerate() {
        let of = |what: fn(&[(Puts, f64); 3], usize) -> f64| {
            median(rounds.iter().map(|round| what(round, index)).collect())
        };
        println!(
            "put, {writers} writers: {:.0} per second ({:.2} per sync, {:.1} kB to the disk each); {:.2} x the lone \
             writer, {:.2} x SQLite ({:.0})",
            of(|round, index| round[index].0.rate),
            of(|round, index| round[index].0.per_sync),
            of(|round, index| round[index].0.bytes_each / 1e3),
            of(|round, index| round[index].0.rate / round[0].0.rate),
            of(|round, index| round[index].0.rate / round[index].1),
            of(|round, index| round[index].1),
        );
    }
    peers::berkeley_db(scratch);
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
    while begun.elapsed() < SPAN {
        let at = count % blocks * 4096;
        file.write_all_at(&block, at).and_then(|()| file.sync_data()).expect("the disk works");
        count += 1;
    }
    count as f64 / begun.elapsed().as_secs_f64()
}

/// What some writers achieved.
struct Puts {
    /// Acknowledged per second.
    rate: f64,
    per_sync: f64,
    /// Bytes that the system had to write for each.
    bytes_each: f64,
}

fn put_rate(directory: &Path, writers: usize) -> Puts {
    let safes = Safes::new(directory.to_owned());
    let safe = safes.open("bench").expect("a new safe");
    // The file and its journal are there before the clock runs.
    safe.write(put(b"first".to_vec()), soon()).expect("the disk works");
    let (stop, done) = (AtomicBool::new(false), AtomicU64::new(0));
    let (syncs, bytes) = (safe.status().syncs, written());
    let begun = Instant::now();
    thread::scope(|scope| {
        for writer in 0..writers {
            let (safe, stop, done) = (&safe, &stop, &done);
            scope.spawn(move || {
                let mut number = 0_u64;
                while !stop.load(Ordering::Relaxed) {
                    let key = format!("{writer}:{}", number % 1000).into_bytes();
                    safe.write(put(key), soon()).expect("the disk works");
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
        per_sync: done / (safe.status().syncs - syncs) as f64,
        bytes_each: (written() - bytes) as f64 / done,
    }
}

/// Bytes that this process has sent towards a disk.
fn written() -> u64 {
    let numbers = fs::read_to_string("/proc/self/io").expect("the system counts");
    let number = numbers.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    number.and_then(|number| number.parse().ok()).expect("it counts bytes")
}

/// Makes many writes with few syncs.
fn fill(safe: &Safe, records: u64) {
    for first in (0..records).step_by(10_000) {
        let numbers = first..records.min(first + 10_000);
        let queued: Vec<_> = numbers
            .map(|number| safe.queue(put(number.to_be_bytes().to_vec())).expect("room in the queue"))
            .collect();
        for queued in &queued {
            safe.wait(queued, soon()).expect("the disk works");
        }
    }
}

fn nanoseconds(mut body: impl FnMut(u64)) -> f64 {
    const TIMES: u64 = 500_000;
    let begun = Instant::now();
    for number in 0..TIMES {
        // A permutation, so that no page is asked for twice in a row.
        body(number.wrapping_mul(7_919) % 10_000);
    }
    begun.elapsed().as_secs_f64() * 1e9 / TIMES as f64
}

fn gets(directory: &Path) {
    let keys: Vec<String> = (0..10_000).map(|number| format!("{number:08}")).collect();
    let key = |number: u64| keys[usize::try_from(number).expect("it is below 10000")].as_str();
    let safes = Safes::new(directory.join("get"));
    let safe = safes.open("bench").expect("a new safe");
    for key in &keys {
        safe.queue(put(key.clone().into_bytes())).expect("room in the queue");
    }
    safe.settle(soon()).expect("the disk works");
    let raw = Database::create(directory.join("raw.redb")).expect("a new database");
    let write = raw.begin_write().expect("a transaction");
    let mut table = write.open_table(RAW).expect("a table");
    for key in &keys {
        table.insert(key.as_bytes(), VALUE.as_slice()).expect("the disk works");
    }
    drop(table);
    write.commit().expect("the disk works");
    let held = raw.begin_read().expect("a snapshot").open_table(RAW).expect("the table");
    let of_raw = nanoseconds(|number| {
        let found = held.get(key(number).as_bytes()).expect("the disk works");
        std::hint::black_box(found.expect("it was put").value().to_vec());
    });
    let of_safe = nanoseconds(|number| {
        let found = safe.get(key(number).as_bytes(), |entry| entry.value.to_vec()).expect("the disk works");
        std::hint::black_box(found.expect("it was put"));
    });
    drop(safe);
    safes.close();
    boundary::attach(&directory.join("get"));
    let plugins = plugin_api::safe::open();
    let of_plugin = nanoseconds(|number| {
        let found = plugins.get_bytes(key(number)).expect("the disk works");
        std::hint::black_box(found.expect("it was put"));
    });
    println!(
        "get: {of_plugin:.0} ns in a plugin, {of_safe:.0} ns in the host; {of_raw:.0} ns on a snapshot of the bare \
         engine; {:.2} x with the boundary",
        of_plugin / of_raw
    );
}

fn opening(directory: &Path) {
    let records = std::env::var("SAFE_BENCH_RECORDS").ok().and_then(|number| number.parse().ok());
    let records = records.unwrap_or(1_000_000);
    let (place, crashed) = (directory.join("large"), directory.join("crashed"));
    let safes = Safes::new(place.clone());
    fill(&safes.open("bench").expect("a new safe"), records);
    // What a killed process leaves is the file as it is while it is open.
    fs::create_dir(&crashed).expect("the directory is writable");
    for name in ["bench.redb", "bench.redb-journal"] {
        fs::copy(place.join(name), crashed.join(name)).expect("room for a copy");
    }
    safes.close();
    for (how, place) in [("closed", place), ("killed", crashed)] {
        let begun = Instant::now();
        let safe = Safes::new(place).open("bench").expect("it opens");
        let took = begun.elapsed();
        assert_eq!(safe.len().expect("the disk works"), records);
        println!("opening {records} records, {how}: {:.1} ms", took.as_secs_f64() * 1e3);
    }
}
