//! The journal: what it adds to the engine's file, and what is never taken from it.

use super::fake::FakeDisk;
use super::{Contents, add, changes, contents, delete, put, put_for, soon, value, version};
use crate::safe::{OpenError, Safe};

/// A safe whose last writes are in the journal only, and what each write left.
fn written(disk: &FakeDisk) -> (Safe, Vec<Contents>) {
    let safe = disk.safe();
    let writes = [
        vec![put("first", b"by the engine itself")],
        vec![put("a", b"1"), put_for("b", b"2", 1 << 40)],
        vec![delete("first"), add("n", 5)],
        vec![put("a", &[7; 3000]), add("n", 2)],
        vec![put("b", b"without expiry")],
        vec![put("last", b"value")],
    ];
    let after = writes.into_iter().map(|write| {
        version(safe.write(changes(write), soon()));
        contents(&safe)
    });
    let after = after.collect();
    (safe, after)
}

#[test]
fn killed_process_leaves_all_it_acknowledged() {
    let disk = FakeDisk::new();
    let (_safe, after) = written(&disk);
    // Without the journal there is what the engine has made durable by itself, so the journal was needed.
    let without = disk.with_journal_of(&FakeDisk::new()).safe();
    assert_eq!(contents(&without), after[0]);
    let left = disk.after_kill();
    let safe = left.safe();
    assert_eq!(contents(&safe), after[5]);
    // It is replayed once: what comes after is built on it.
    let next = version(safe.write(changes([put("next", b"")]), soon()));
    assert!(next > after[5].values().map(|entry| entry.0).max().unwrap());
    assert_eq!(contents(&left.after_kill().safe()), contents(&safe));
}

/// The last record may have been cut short by a crash, before it was acknowledged; no other may be missing.
#[test]
fn flipped_bit_of_the_journal_is_an_error_or_takes_the_last_write_back() {
    let disk = FakeDisk::new();
    let (_safe, after) = written(&disk);
    let (mut refused, mut taken_back) = (0, 0);
    for byte in (0..disk.journal_bytes()).step_by(3) {
        let Some(damaged) = disk.with_flipped_bit_of_the_journal(byte, u32::try_from(byte % 8).unwrap())
        else {
            continue;
        };
        match Safe::on("tested", Box::new(damaged)) {
            Err(OpenError::Corrupt { reason, .. }) => {
                assert!(reason.contains("journal"), "{reason}");
                refused += 1;
            }
            Err(error) => panic!("byte {byte}: {error}"),
            Ok(safe) => {
                assert_eq!(contents(&safe), after[4], "byte {byte}");
                taken_back += 1;
            }
        }
    }
    assert!(refused > 100 && taken_back > 10, "{refused} refused, {taken_back} taken back");
}

/// Of an earlier time, of a later time, of another safe.
#[test]
fn journal_that_does_not_belong_to_the_file_is_not_replayed() {
    let disk = FakeDisk::new();
    let (safe, _) = written(&disk);
    let early = disk.after_kill();
    // Too large for the journal, so the engine makes it durable.
    version(safe.write(changes([put("large", &[1; 9_000])]), soon()));
    let checkpoint = disk.after_kill();
    let at_checkpoint = contents(&safe);
    version(safe.write(changes([put("a", b"later")]), soon()));
    let other = FakeDisk::new();
    let (_other_safe, of_other) = written(&other);
    for journal in [&early, &other] {
        assert_eq!(contents(&checkpoint.with_journal_of(journal).safe()), at_checkpoint);
    }
    assert_eq!(value(&checkpoint.with_journal_of(&disk).safe(), "a"), Some(b"later".to_vec()));
    assert_eq!(contents(&other.with_journal_of(&disk).safe()), of_other[0]);
}

#[test]
fn full_journal_is_begun_anew() {
    let disk = FakeDisk::new();
    let safe = disk.safe();
    for number in 0..50 {
        version(safe.write(changes([put(&format!("key {}", number % 7), &[7; 2000])]), soon()));
        if number % 5 == 0 {
            assert_eq!(contents(&disk.after_kill().safe()), contents(&safe), "write {number}");
        }
    }
    assert_eq!(contents(&disk.after_power_cut().safe()), contents(&safe));
}

#[test]
fn safe_without_room_for_a_journal_is_slower_and_as_durable() {
    let disk = FakeDisk::new();
    let safe = disk.safe();
    disk.set_full(true);
    for number in 0..5 {
        version(safe.write(changes([put("key", format!("{number}").as_bytes())]), soon()));
    }
    assert_eq!(disk.journal_bytes(), 0);
    assert_eq!(value(&disk.after_power_cut().safe(), "key"), Some(b"4".to_vec()));
}

#[test]
fn compacting_and_checking_leave_nothing_to_the_journal() {
    let disk = FakeDisk::new();
    let (safe, after) = written(&disk);
    safe.compact().unwrap();
    assert_eq!(contents(&disk.with_journal_of(&FakeDisk::new()).safe()), after[5]);
    version(safe.write(changes([put("next", b"")]), soon()));
    assert_eq!(contents(&disk.after_kill().safe()), contents(&safe));
    let checked = crate::safe::operate::check(&safe).unwrap();
    assert_eq!(checked["is_sound"], true, "{checked}");
    assert_eq!(contents(&disk.with_journal_of(&FakeDisk::new()).safe()), contents(&safe));
}
