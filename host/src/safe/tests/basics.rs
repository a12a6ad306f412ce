//! What a safe promises while nothing fails.

use std::ops::Bound;
use std::sync::atomic::Ordering;

use super::fake::FakeDisk;
use super::{add, changes, check, contents, delete, put, put_for, results, soon, value, version};
use crate::safe::{Change, Commit, Expiry, MAX_KEY, MAX_VALUE, Safe, Write, WriteError, number};

fn keys(safe: &Safe, range: (Bound<&[u8]>, Bound<&[u8]>), is_reverse: bool, limit: usize) -> (String, bool) {
    let item = |key: &[u8], _: crate::safe::EntryRef<'_>| Some(String::from_utf8(key.to_vec()).unwrap());
    let (keys, has_more) = safe.list(range, is_reverse, limit, item).unwrap();
    (keys.join(" "), has_more)
}

#[test]
fn what_was_put_is_there_until_it_is_deleted() {
    let safe = FakeDisk::new().safe();
    assert_eq!((value(&safe, "a"), safe.len().unwrap()), (None, 0));
    version(safe.write(changes([put("a", b"one"), put("b", b"")]), soon()));
    assert_eq!((value(&safe, "a"), value(&safe, "b")), (Some(b"one".to_vec()), Some(Vec::new())));
    version(safe.write(changes([put("a", b"two")]), soon()));
    assert_eq!((value(&safe, "a"), safe.len().unwrap()), (Some(b"two".to_vec()), 2));
    assert_eq!(results(safe.write(changes([delete("a"), delete("none")]), soon())), [1, 0]);
    assert_eq!((value(&safe, "a"), safe.len().unwrap()), (None, 1));
}

#[test]
fn versions_grow_and_never_come_back() {
    let disk = FakeDisk::new();
    let safe = disk.safe();
    let first = version(safe.write(changes([put("a", b"1")]), soon()));
    version(safe.write(changes([delete("a")]), soon()));
    let second = version(safe.write(changes([put("a", b"1")]), soon()));
    assert!(first > 0 && second > first, "{first} {second}");
    drop(safe);
    let third = version(disk.safe().write(changes([put("a", b"1")]), soon()));
    assert!(third > second, "{second} {third}");
}

#[test]
fn conflict_is_a_value_and_changes_nothing() {
    let safe = FakeDisk::new().safe();
    let first =
        version(safe.write(Write { checks: vec![check("a", 0)], changes: vec![put("a", b"1")] }, soon()));
    let stale = Write { checks: vec![check("a", first), check("b", 7)], changes: vec![put("a", b"2")] };
    let syncs = safe.status().syncs;
    assert_eq!(safe.write(stale, soon()), Ok(Commit::Conflict { check: 1 }));
    assert_eq!((value(&safe, "a"), safe.status().syncs), (Some(b"1".to_vec()), syncs));
    let fresh = Write { checks: vec![check("a", first), check("b", 0)], changes: vec![put("a", b"2")] };
    version(safe.write(fresh, soon()));
    assert_eq!(value(&safe, "a"), Some(b"2".to_vec()));
}

#[test]
fn sums_are_made_in_the_safe() {
    let safe = FakeDisk::new().safe();
    let init =
        |initial, delta| Change::Add { key: "n".into(), delta, initial, encoding: 1, expiry: Expiry::Never };
    assert_eq!(results(safe.write(changes([init(10, 5)]), soon())), [15]);
    assert_eq!(results(safe.write(changes([init(10, -20)]), soon())), [-5]);
    assert_eq!(value(&safe, "n"), Some(number::write(-5).to_vec()));
    let before = contents(&safe);
    let overflow = safe.write(changes([put("other", b"x"), init(0, i64::MIN)]), soon());
    assert_eq!(overflow, Err(WriteError::Overflow { key: "`n`".to_owned() }));
    version(safe.write(changes([put("text", b"five")]), soon()));
    assert_eq!(
        safe.write(changes([add("text", 1)]), soon()),
        Err(WriteError::NotANumber { key: "`text`".to_owned() })
    );
    assert_eq!(contents(&safe).len(), before.len() + 1, "a write that failed left something behind");
}

#[test]
fn integers_are_read_in_every_form_of_messagepack() {
    let forms: [(&[u8], i64); 12] = [
        (&[0x05], 5),
        (&[0xff], -1),
        (&[0xcc, 200], 200),
        (&[0xcd, 1, 0], 256),
        (&[0xce, 0, 1, 0, 0], 65536),
        (&[0xcf, 0, 0, 0, 1, 0, 0, 0, 0], 1 << 32),
        (&[0xd0, 0x80], -128),
        (&[0xd1, 0xff, 0], -256),
        (&[0xd2, 0xff, 0xff, 0, 0], -65536),
        (&[0xd3, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0], -(1 << 32)),
        (&number::write(i64::MAX), i64::MAX),
        (&number::write(i64::MIN), i64::MIN),
    ];
    for (bytes, expected) in forms {
        assert_eq!(number::read(bytes), Some(expected), "{bytes:x?}");
    }
    for none in [&[][..], &[0xc0], &[0xcc], &[5, 5], &[0xcf, 0xff, 0, 0, 0, 0, 0, 0, 0], b"\xa1a"] {
        assert_eq!(number::read(none), None, "{none:x?}");
    }
}

#[test]
fn lists_are_in_order_and_paged() {
    let safe = FakeDisk::new().safe();
    version(safe.write(changes(["b", "a2", "a1", "c", "a3"].map(|key| put(key, b""))), soon()));
    let all = (Bound::Unbounded, Bound::Unbounded);
    assert_eq!(keys(&safe, all, false, 9), ("a1 a2 a3 b c".to_owned(), false));
    assert_eq!(keys(&safe, all, true, 9), ("c b a3 a2 a1".to_owned(), false));
    let prefix = (Bound::Included(&b"a"[..]), Bound::Excluded(&b"b"[..]));
    assert_eq!(keys(&safe, prefix, false, 2), ("a1 a2".to_owned(), true));
    assert_eq!(keys(&safe, prefix, false, 3), ("a1 a2 a3".to_owned(), false));
    let rest = (Bound::Excluded(&b"a2"[..]), Bound::Excluded(&b"b"[..]));
    assert_eq!(keys(&safe, rest, false, 2), ("a3".to_owned(), false));
    assert_eq!(keys(&safe, (prefix.1, prefix.0), false, 9), (String::new(), false));
}

#[test]
fn expired_entry_is_not_there_by_any_question() {
    let disk = FakeDisk::new();
    let safe = disk.safe();
    safe.core.clock.set.store(1_000, Ordering::SeqCst);
    version(safe.write(changes([put_for("short", b"1", 10), put_for("long", b"2", 1_000)]), soon()));
    let short = safe.get(b"short", |entry| (entry.version, entry.expires_at)).unwrap();
    assert_eq!(short, Some((1, 1_010)));
    safe.core.clock.set.store(1_009, Ordering::SeqCst);
    assert_eq!((value(&safe, "short"), safe.len().unwrap()), (Some(b"1".to_vec()), 2));
    safe.core.clock.set.store(1_010, Ordering::SeqCst);
    assert_eq!((value(&safe, "short"), safe.len().unwrap(), contents(&safe).len()), (None, 1, 1));
    let absent = Write { checks: vec![check("short", 0)], changes: vec![add("short", 3)] };
    assert_eq!(results(safe.write(absent, soon())), [3]);
    assert_eq!((value(&safe, "short"), safe.len().unwrap()), (Some(number::write(3).to_vec()), 2));
    safe.core.clock.set.store(5_000, Ordering::SeqCst);
    assert_eq!((value(&safe, "long"), safe.len().unwrap()), (None, 1));
    // A later write clears it away; what was overwritten keeps its own expiry.
    version(safe.write(changes([put("x", b"")]), soon()));
    assert_eq!((contents(&safe).len(), safe.len().unwrap()), (2, 2));
}

#[test]
fn addition_keeps_the_expiry_of_the_first() {
    let safe = FakeDisk::new().safe();
    safe.core.clock.set.store(1_000, Ordering::SeqCst);
    let hit = || {
        changes([Change::Add { key: "n".into(), delta: 1, initial: 0, encoding: 1, expiry: Expiry::In(100) }])
    };
    assert_eq!(results(safe.write(hit(), soon())), [1]);
    safe.core.clock.set.store(1_099, Ordering::SeqCst);
    assert_eq!(results(safe.write(hit(), soon())), [2]);
    safe.core.clock.set.store(1_100, Ordering::SeqCst);
    assert_eq!(results(safe.write(hit(), soon())), [1]);
}

#[test]
fn limits_are_told_before_anything_is_queued() {
    let safe = FakeDisk::new().safe();
    let long = "k".repeat(MAX_KEY + 1);
    for (write, words) in [
        (changes([put("", b"")]), "a key is not empty"),
        (changes([put(&long, b"")]), "the key has 1025 bytes"),
        (changes([put("k", &vec![0; MAX_VALUE + 1])]), "the value has"),
        (changes([put("k", b""), delete("k")]), "changes `k` twice"),
    ] {
        let error = safe.write(write, soon()).unwrap_err();
        assert!(matches!(&error, WriteError::Invalid(text) if text.contains(words)), "{error}");
    }
    let longest = "k".repeat(MAX_KEY);
    version(safe.write(changes([put(&longest, &vec![7; MAX_VALUE])]), soon()));
    assert_eq!(value(&safe, &longest).map(|value| value.len()), Some(MAX_VALUE));
}
