//! The safe against its own disk: durable puts, gets, opening. `cargo bench -p tests --bench safe`.
//!
//! `SAFE_BENCH_DIR` says on which disk, `SAFE_BENCH_RECORDS` how many records the large safe has; arguments
//! (`put`, `ancestor`, `get`, `open`) choose parts, and numbers how many writers put. Prints figures and ratios and
//! judges nothing: machines differ. The bare disk's own rates come first. Rates are taken in rounds, peer after
//! peer; shown are the medians, of ratios those within a round.

mod boundary;
mod peers;
mod puts;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use host::safe::{Change, Expiry, Safe, Safes, Write};
use redb::{Database, ReadableDatabase as _, TableDefinition};
use tests::pairs::{Cost, Pairs};

const RAW: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("raw");

fn main() {
    let place = std::env::var_os("SAFE_BENCH_DIR").map_or_else(std::env::temp_dir, Into::into);
    let scratch = tempfile::tempdir_in(place).expect("a directory to write in");
    let arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with('-'));
    let (numbers, chosen): (Vec<String>, Vec<String>) =
        arguments.partition(|argument| argument.parse::<usize>().is_ok());
    let writers: Vec<usize> = numbers.iter().filter_map(|number| number.parse().ok()).collect();
    let is_chosen = |part: &str| chosen.is_empty() || chosen.iter().any(|name| name == part);
    if is_chosen("put") {
        puts::compare(scratch.path(), if writers.is_empty() { &[1, 8, 64] } else { &writers });
    }
    if is_chosen("ancestor") {
        peers::berkeley_db(scratch.path());
    }
    if is_chosen("get") {
        gets(scratch.path());
    }
    if is_chosen("open") {
        opening(scratch.path());
    }
}

/// A value of 100 bytes, another one for each number: who stores the same bytes again may have nothing to do.
fn value(number: u64) -> Vec<u8> {
    let mut value = vec![b'v'; 100];
    value[..8].copy_from_slice(&number.to_le_bytes());
    value
}

fn put(key: Vec<u8>, number: u64) -> Write {
    let value = value(number);
    Write {
        checks: Vec::new(),
        changes: vec![Change::Put { key, encoding: 0, value, expiry: Expiry::Never }],
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

/// Makes many writes with few syncs.
fn fill(safe: &Safe, records: u64) {
    for first in (0..records).step_by(10_000) {
        let numbers = first..records.min(first + 10_000);
        let queued: Vec<_> = numbers
            .map(|number| safe.queue(put(number.to_be_bytes().to_vec(), number)).expect("room in the queue"))
            .collect();
        for queued in &queued {
            safe.wait(queued, soon()).expect("the disk works");
        }
    }
}

/// Pairs of rounds of `get`.
const PAIRS: usize = 40;

/// Asks for each key once, in an order in which no page is asked for twice in a row.
fn round(mut body: impl FnMut(u64)) -> Cost {
    const KEYS: u64 = 10_000;
    Cost::of_process(|| {
        (0..KEYS).for_each(|number| body(number.wrapping_mul(7_919) % KEYS));
        KEYS
    })
}

fn gets(directory: &Path) {
    let keys: Vec<String> = (0..10_000).map(|number| format!("{number:08}")).collect();
    let key = |number: u64| keys[usize::try_from(number).expect("it is below 10000")].as_str();
    let safes = Safes::new(directory.join("get"));
    let safe = safes.open("bench").expect("a new safe");
    for (key, number) in keys.iter().zip(0..) {
        safe.queue(put(key.clone().into_bytes(), number)).expect("room in the queue");
    }
    safe.settle(soon()).expect("the disk works");
    let raw = Database::create(directory.join("raw.redb")).expect("a new database");
    let write = raw.begin_write().expect("a transaction");
    let mut table = write.open_table(RAW).expect("a table");
    for (key, number) in keys.iter().zip(0..) {
        table.insert(key.as_bytes(), value(number).as_slice()).expect("the disk works");
    }
    drop(table);
    write.commit().expect("the disk works");
    let held = raw.begin_read().expect("a snapshot").open_table(RAW).expect("the table");
    let of_raw = || {
        round(|number| {
            let found = held.get(key(number).as_bytes()).expect("the disk works");
            std::hint::black_box(found.expect("it was put").value().to_vec());
        })
    };
    let of_safe = || {
        round(|number| {
            let found =
                safe.get(key(number).as_bytes(), |entry| entry.value.to_vec()).expect("the disk works");
            std::hint::black_box(found.expect("it was put"));
        })
    };
    let in_host = Pairs::take(PAIRS, of_safe, of_raw).wall();
    drop(safe);
    safes.close();
    boundary::attach(&directory.join("get"));
    let plugins = plugin_api::safe::open();
    let of_plugin = || {
        round(|number| {
            let found = plugins.get_bytes(key(number)).expect("the disk works");
            std::hint::black_box(found.expect("it was put"));
        })
    };
    let in_plugin = Pairs::take(PAIRS, of_plugin, of_raw).wall();
    println!(
        "get: {:.0} ns in a plugin, {:.0} ns in the host; {:.0} ns on a snapshot of the bare engine; {} x with the \
         boundary, {} x in the host",
        in_plugin.ours, in_host.ours, in_plugin.theirs, in_plugin.ratio, in_host.ratio
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
