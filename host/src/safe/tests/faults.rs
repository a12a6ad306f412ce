//! A disk that fails, fills up or forgets: no acknowledged write is lost, and the safe goes on by itself.

use std::ops::Bound;

use super::fake::FakeDisk;
use super::{add, changes, check, contents, put, soon, value, version};
use crate::safe::{ReadError, Safe, Write, WriteError, number};

#[test]
fn failed_write_is_told_and_the_safe_goes_on() {
    let mut refused = 0;
    for nth in 1..40 {
        let disk = FakeDisk::new();
        let safe = disk.safe();
        version(safe.write(changes([put("before", b"kept")]), soon()));
        disk.fail_write(nth);
        let mut acknowledged = 0;
        for _ in 0..20 {
            match safe.write(changes([add("n", 1)]), soon()) {
                Ok(_) => acknowledged += 1,
                Err(WriteError::Refused { reason } | WriteError::Indeterminate { reason }) => {
                    assert!(reason.contains("failed"), "{reason}");
                    refused += 1;
                }
                Err(error) => panic!("write {nth}: {error}"),
            }
        }
        // At most the one that failed is there beside those that were acknowledged.
        let sum = number::read(&value(&safe, "n").unwrap()).unwrap();
        assert!((acknowledged..=acknowledged + 1).contains(&sum), "write {nth}: {acknowledged}, sum {sum}");
        assert_eq!(value(&safe, "before"), Some(b"kept".to_vec()));
        drop(safe);
        assert_eq!(number::read(&value(&disk.safe(), "n").unwrap()), Some(sum));
    }
    assert!(refused > 20, "only {refused} writes failed: nothing was tested");
}

/// Of the journal, which the safe gives up and begins anew; of the engine's file, which it opens anew.
#[test]
fn failed_sync_is_never_an_acknowledgement() {
    for (is_in_journal, recoveries) in [(true, 0), (false, 1)] {
        let disk = FakeDisk::new();
        let safe = disk.safe();
        version(safe.write(changes([put("before", b"kept")]), soon()));
        // What is too large for the journal is the engine's.
        let value_of_a = if is_in_journal { vec![1; 10] } else { vec![1; 9_000] };
        if is_in_journal {
            disk.fail_next_sync_of_the_journal();
        } else {
            disk.fail_next_sync();
        }
        let error = safe.write(changes([put("a", &value_of_a)]), soon()).unwrap_err();
        assert!(matches!(error, WriteError::Indeterminate { .. } | WriteError::Refused { .. }), "{error}");
        assert!(!is_in_journal || matches!(error, WriteError::Refused { .. }), "{error}");
        version(safe.write(changes([put("b", b"after")]), soon()));
        assert_eq!(safe.status().recoveries, recoveries);
        let after = disk.after_power_cut().safe();
        assert_eq!(value(&after, "before"), Some(b"kept".to_vec()));
        assert_eq!(value(&after, "b"), Some(b"after".to_vec()));
        assert!(!is_in_journal || value(&after, "a").is_none());
    }
}

/// Writes that were acknowledged after a sync had failed, and whether they are there after a power cut.
fn after_failed_sync(keeps_cache: bool, seed: u64) -> bool {
    let disk = FakeDisk::new();
    let safe = disk.safe();
    version(safe.write(changes([put("before", b"kept")]), soon()));
    if keeps_cache {
        disk.keep_cache();
    }
    disk.fail_next_sync();
    let lost = safe.write(changes([put("a", &[1; 9_000]), put("b", b"?")]), soon());
    assert!(matches!(lost, Err(WriteError::Indeterminate { .. } | WriteError::Refused { .. })), "{lost:?}");
    version(safe.write(changes([put("after", b"acknowledged")]), soon()));
    disk.cut_after(0, seed);
    let left = Safe::on("tested", Box::new(disk.after_power_cut()));
    let is_there =
        |key: &str| left.as_ref().is_ok_and(|safe| safe.get(key.as_bytes(), |_| ()) == Ok(Some(())));
    is_there("before") && is_there("after")
}

/// Pages that a failed sync left in the cache are not believed.
#[test]
fn nothing_is_built_on_what_a_failed_sync_left_in_the_cache() {
    for seed in 0..20 {
        assert!(after_failed_sync(false, seed), "seed {seed}");
    }
    let believed = (0..20).filter(|seed| !after_failed_sync(true, *seed)).count();
    assert!(believed > 0, "the control: a cache that is kept must lose something");
}

/// Whatever bit of a stored key flips, no question is answered wrongly.
#[test]
fn flipped_bit_of_a_key_is_never_taken_for_absence() {
    let keys: Vec<String> = (0..40).map(|number| format!("key number {number:02}")).collect();
    let mut told = 0;
    for (victim, bit) in keys.iter().step_by(3).zip((0..13 * 8).cycle().step_by(7)) {
        let disk = FakeDisk::new();
        let safe = disk.safe();
        version(
            safe.write(changes(keys.iter().map(|key| put(key, key.as_bytes())).collect::<Vec<_>>()), soon()),
        );
        drop(safe);
        // Key and value are the same bytes: this flips one bit in each place.
        disk.flip_bit_of(victim.as_bytes(), bit);
        let safe = disk.safe();
        for key in &keys {
            match safe.get(key.as_bytes(), |entry| entry.value.to_vec()) {
                Ok(found) => {
                    assert_eq!(found.as_deref(), Some(key.as_bytes()), "{key}, bit {bit} of {victim}")
                }
                Err(ReadError::Corrupt { .. }) => told += 1,
                Err(error) => panic!("{key}, bit {bit} of {victim}: {error}"),
            }
        }
        assert!(safe.get(victim.as_bytes(), |_| ()).is_err(), "bit {bit} of {victim}");
        let all = safe.list((Bound::Unbounded, Bound::Unbounded), false, usize::MAX, |_, _| Some(()));
        assert!(matches!(all, Err(ReadError::Corrupt { .. })), "bit {bit} of {victim}: {all:?}");
        let absent = Write { checks: vec![check(victim, 0)], changes: vec![put("decided", b"wrongly")] };
        assert!(matches!(safe.write(absent, soon()), Err(WriteError::Corrupt { .. })), "{victim}");
    }
    assert!(told >= 14, "only {told} questions met the damage");
}

#[test]
fn full_disk_refuses_writes_and_goes_on_reading() {
    let disk = FakeDisk::new();
    let safe = disk.safe();
    version(safe.write(changes([put("small", b"kept")]), soon()));
    disk.set_full(true);
    let big = || changes([put("big", &vec![7; 8 << 20])]);
    for _ in 0..3 {
        let error = safe.write(big(), soon()).unwrap_err();
        assert!(matches!(error, WriteError::Refused { .. }), "{error}");
        assert_eq!(value(&safe, "small"), Some(b"kept".to_vec()));
    }
    // What needs no new room is still written.
    version(safe.write(changes([put("small", b"more")]), soon()));
    disk.set_full(false);
    version(safe.write(big(), soon()));
    assert_eq!(value(&safe, "big").map(|value| value.len()), Some(8 << 20));
    assert_eq!(value(&safe, "small"), Some(b"more".to_vec()));
}

#[test]
fn flipped_bit_is_an_error_and_never_wrong_data() {
    let secret = b"thirty-two bytes of great value!";
    for bit in (0..secret.len() * 8).step_by(5) {
        let disk = FakeDisk::new();
        let safe = disk.safe();
        version(safe.write(changes([put("a", secret), put("b", b"fine")]), soon()));
        drop(safe);
        disk.flip_bit_of(secret, bit);
        let safe = disk.safe();
        let error = safe.get(b"a", |entry| entry.value.to_vec()).unwrap_err();
        assert_eq!(error, ReadError::Corrupt { key: "`a`".to_owned() });
        assert_eq!(value(&safe, "b"), Some(b"fine".to_vec()));
        // Nothing is added to it or decided by it; overwriting it is the cure.
        assert!(matches!(safe.write(changes([add("a", 1)]), soon()), Err(WriteError::Corrupt { .. })));
        version(safe.write(changes([put("a", b"new")]), soon()));
        assert_eq!((value(&safe, "a"), contents(&safe).len()), (Some(b"new".to_vec()), 2));
    }
}

#[test]
fn every_byte_of_the_envelope_is_covered() {
    let disk = FakeDisk::new();
    let safe = disk.safe();
    version(safe.write(changes([put("a", b"value")]), soon()));
    drop(safe);
    let mut sealed = Vec::new();
    let entry = crate::safe::EntryRef { version: 1, expires_at: 0, encoding: 0, value: b"value" };
    crate::safe::envelope::seal(b"a", entry, &mut sealed);
    assert_eq!(crate::safe::envelope::open(b"a", &sealed), Some(entry));
    assert_eq!(crate::safe::envelope::open(b"b", &sealed), None, "the key is part of the checksum");
    for bit in 0..sealed.len() * 8 {
        let mut bytes = sealed.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(crate::safe::envelope::open(b"a", &bytes), None, "bit {bit}");
    }
    for len in 0..sealed.len() {
        assert_eq!(crate::safe::envelope::open(b"a", &sealed[..len]), None, "cut to {len}");
    }
}

#[test]
fn closed_safe_says_so() {
    let safe: Safe = FakeDisk::new().safe();
    version(safe.write(changes([put("a", b"1")]), soon()));
    safe.close();
    assert_eq!(safe.get(b"a", |_| ()), Err(ReadError::Closed));
    assert_eq!(safe.write(changes([put("a", b"2")]), soon()), Err(WriteError::Closed));
}
