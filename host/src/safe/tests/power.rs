//! Power cuts: at any operation of the disk, with any part of what was not synced.
//!
//! `SAFE_POWER_CUTS` says how many; the run that counts makes ten thousand, `SAFE_POWER_FIRST` lets it be parts.

use super::fake::{Chance, FakeDisk};
use super::{Contents, add, changes, contents, delete, put, put_for, soon};
use crate::safe::{Change, Expiry, Safe, Write};

/// How many cuts a plain test run makes.
const CUTS: u64 = 200;
/// Batches of a workload.
const BATCHES: u64 = 8;

fn cuts() -> u64 {
    std::env::var("SAFE_POWER_CUTS").ok().and_then(|number| number.parse().ok()).unwrap_or(CUTS)
}

/// A few writes that are queued together, hence one commit. Single-threaded, so the same for a seed.
fn batch(chance: &mut Chance) -> Vec<Write> {
    let key = |chance: &mut Chance| format!("key {}", chance.below(12));
    let count = 1 + chance.below(3);
    let write = |chance: &mut Chance| {
        let mut list: Vec<Change> = vec![add("writes", 1)];
        let len = [3, 60, 700, 5000][usize::try_from(chance.below(4)).unwrap()];
        let value: Vec<u8> = (0..len).map(|_| chance.next().to_le_bytes()[0]).collect();
        match chance.below(4) {
            0 => list.push(delete(&key(chance))),
            1 => list.push(put_for(&key(chance), &value, 1 << 40)),
            _ => list.push(put(&key(chance), &value)),
        }
        list.push(Change::Add {
            key: "sum".into(),
            delta: i64::try_from(chance.below(100)).unwrap(),
            initial: 7,
            encoding: 1,
            expiry: Expiry::Never,
        });
        changes(list)
    };
    (0..count).map(|_| write(chance)).collect()
}

/// Commits a batch; tells whether it was acknowledged.
fn commit(safe: &Safe, writes: Vec<Write>) -> bool {
    let queued: Vec<_> = writes.into_iter().map(|write| safe.queue(write).unwrap()).collect();
    let outcomes: Vec<_> = queued.iter().map(|queued| safe.wait(queued, soon()).is_ok()).collect();
    assert!(outcomes.iter().all(|outcome| *outcome == outcomes[0]), "one commit, two outcomes");
    outcomes[0]
}

/// What one power cut did.
#[derive(Debug)]
enum Damage {
    None,
    /// The safe does not open.
    NoOpen,
    /// What is in it is neither what was acknowledged nor that and the commit under way.
    Wrong,
}

/// Works until the power goes, then looks at what is left.
///
/// The file is there from the start: that it appears whole is its maker's affair.
fn cut(seed: u64, syncs_work: bool, operations: u64) -> Damage {
    let mut chance = Chance::new(seed);
    let disk = FakeDisk::new();
    drop(disk.safe());
    if !syncs_work {
        disk.break_syncs();
    }
    disk.cut_after(chance.below(operations), seed ^ 0xdead_beef);
    let mut acknowledged = Contents::new();
    let mut under_way = Contents::new();
    if let Ok(safe) = Safe::on("tested", Box::new(disk.clone())) {
        // The same writes on a disk that never fails say what each commit leaves.
        let model = FakeDisk::new().safe();
        safe.core.clock.set.store(1, std::sync::atomic::Ordering::SeqCst);
        model.core.clock.set.store(1, std::sync::atomic::Ordering::SeqCst);
        for _ in 0..BATCHES {
            let writes = batch(&mut chance);
            assert!(commit(&model, writes.clone()));
            under_way = contents(&model);
            if !commit(&safe, writes) {
                break;
            }
            acknowledged.clone_from(&under_way);
        }
    }
    let after = disk.after_power_cut();
    match Safe::on("tested", Box::new(after)) {
        Err(error) => {
            eprintln!("seed {seed}: {error}");
            Damage::NoOpen
        }
        Ok(safe) => {
            safe.core.clock.set.store(1, std::sync::atomic::Ordering::SeqCst);
            let left = contents(&safe);
            let is_right = left == acknowledged || left == under_way;
            // It must also work on.
            if is_right && commit(&safe, vec![changes([put("after", b"the cut")])]) {
                Damage::None
            } else {
                Damage::Wrong
            }
        }
    }
}

/// How many operations the longest workload makes, from opening on.
fn operations_of_a_workload() -> u64 {
    let most = (0..4).map(|seed| {
        let mut chance = Chance::new(seed);
        let disk = FakeDisk::new();
        drop(disk.safe());
        let before = disk.operations();
        let safe = disk.safe();
        for _ in 0..BATCHES {
            assert!(commit(&safe, batch(&mut chance)));
        }
        disk.operations() - before
    });
    most.max().unwrap()
}

#[test]
fn power_cut_loses_no_acknowledged_write() {
    let operations = operations_of_a_workload();
    let first = std::env::var("SAFE_POWER_FIRST").ok().and_then(|number| number.parse().ok()).unwrap_or(0);
    for seed in first..first + cuts() {
        let damage = cut(seed, true, operations);
        assert!(matches!(damage, Damage::None), "seed {seed}: {damage:?}");
    }
}

/// The control: a disk whose syncs do nothing must be caught by the same test.
#[test]
fn power_cut_on_a_disk_that_lies_about_syncs_is_noticed() {
    let operations = operations_of_a_workload();
    let caught = (0..40).filter(|seed| !matches!(cut(*seed, false, operations), Damage::None)).count();
    assert!(caught > 10, "only {caught} of 40 cuts were noticed: the harness is blind");
}
