//! The safe against its own disk: durable puts, gets, opening. `cargo bench -p tests --bench safe`.
//!
//! `SAFE_BENCH_DIR` says on which disk, `SAFE_BENCH_RECORDS` how many records the large safe has.
//! Prints figures and ratios and judges nothing: machines differ. The bare disk's own rate comes first.

mod boundary;
mod peers;

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use host::safe::{Change, Expiry, Safe, Safes, Write};
use redb::{Database, ReadableDatabase as _, TableDefinition};

/// How long each rate is measured.
const SPAN: Duration = Duration::from_secs(2);
const VALUE: [u8; 100] = [b'v'; 100];
const RAW: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("raw");

fn main() {
    let place = std::env::var_os("SAFE_BENCH_DIR").map_or_else(std::env::temp_dir, Into::into);
    let scratch = tempfile::tempdir_in(place).expect("a directory to write in");
    let bare = bare_syncs(scratch.path());
    println!("bare append and sync: {bare:.0} per second");
    let mut alone = 0.0;
    for writers in [1, 8, 64] {
        let (rate, per_sync) = puts(&scratch.path().join(format!("put{writers}")), writers);
        if writers == 1 {
            alone = rate;
        }
        let peer = peers::sqlite(scratch.path(), writers);
        println!(
            "put, {writers} writers: {rate:.0} per second, {per_sync:.2} per sync; {:.2} x the lone writer, \
             {:.2} x SQLite ({peer:.0})",
            rate / alone,
            rate / peer
        );
    }
    peers::berkeley_db(scratch.path());
    gets(scratch.path());
    opening(scratch.path());
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

fn bare_syncs(directory: &Path) -> f64 {
    let mut file = File::create(directory.join("bare")).expect("the directory is writable");
    let begun = Instant::now();
    let mut count = 0_u32;
    while begun.elapsed() < SPAN {
        file.write_all(&VALUE).and_then(|()| file.sync_data()).expect("the disk works");
        count += 1;
    }
    f64::from(count) / begun.elapsed().as_secs_f64()
}

/// Acknowledged puts per second, and per sync.
fn puts(directory: &Path, writers: usize) -> (f64, f64) {
    let safes = Safes::new(directory.to_owned());
    let safe = safes.open("bench").expect("a new safe");
    let (stop, done) = (AtomicBool::new(false), AtomicU64::new(0));
    let before = safe.status().syncs;
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
    (done / begun.elapsed().as_secs_f64(), done / (safe.status().syncs - before) as f64)
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
    fs::copy(place.join("bench.redb"), crashed.join("bench.redb")).expect("room for a copy");
    safes.close();
    for (how, place) in [("closed", place), ("killed", crashed)] {
        let begun = Instant::now();
        let safe = Safes::new(place).open("bench").expect("it opens");
        let took = begun.elapsed();
        assert_eq!(safe.len().expect("the disk works"), records);
        println!("opening {records} records, {how}: {:.1} ms", took.as_secs_f64() * 1e3);
    }
}
