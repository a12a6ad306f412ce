//! Many writers: exact sums, shared syncs, deadlines.

use std::ops::Bound;
use std::sync::{Barrier, mpsc};
use std::thread;
use std::time::Instant;

use super::fake::FakeDisk;
use super::{add, changes, check, delete, put, soon, value, version};
use crate::safe::{Commit, Safe, Woken, Write, WriteError, number};

fn number_at(safe: &Safe, key: &str) -> Option<i64> {
    number::read(&value(safe, key)?)
}

/// Runs `body` on 8 threads at once.
fn eight(body: impl Fn(usize) + Sync) {
    let barrier = Barrier::new(8);
    thread::scope(|scope| {
        for index in 0..8 {
            let (body, barrier) = (&body, &barrier);
            scope.spawn(move || {
                barrier.wait();
                body(index);
            });
        }
    });
}

#[test]
fn additions_of_many_threads_make_the_exact_sum() {
    let safe = FakeDisk::new().safe();
    eight(|_| {
        for _ in 0..1_000 {
            version(safe.write(changes([add("n", 1)]), soon()));
        }
    });
    assert_eq!(number_at(&safe, "n"), Some(8_000));
    let status = safe.status();
    assert_eq!(status.writes, 8_000);
    assert!(status.batches < 8_000, "no two writers shared a commit");
}

#[test]
fn compare_and_set_of_many_threads_makes_the_exact_sum() {
    let safe = FakeDisk::new().safe();
    eight(|_| {
        for _ in 0..100 {
            loop {
                let found = safe.get(b"n", |entry| (entry.version, number::read(entry.value).unwrap()));
                let (seen, count) = found.unwrap().unwrap_or_default();
                let next = put("n", &number::write(count + 1));
                let write = Write { checks: vec![check("n", seen)], changes: vec![next] };
                match safe.write(write, soon()).unwrap() {
                    Commit::Done { .. } => break,
                    Commit::Conflict { .. } => {}
                }
            }
        }
    });
    assert_eq!(number_at(&safe, "n"), Some(800));
}

#[test]
fn queued_writes_share_one_commit() {
    let safe = FakeDisk::new().safe();
    let before = safe.status();
    let queued: Vec<_> = (0..100).map(|_| safe.queue(changes([add("n", 1)])).unwrap()).collect();
    assert_eq!((value(&safe, "n"), safe.status().waiting), (None, 100), "seen before it was on disk");
    for queued in &queued {
        version(safe.wait(queued, soon()));
    }
    let after = safe.status();
    assert_eq!((number_at(&safe, "n"), after.batches - before.batches), (Some(100), 1));
}

#[test]
fn write_that_fails_in_a_batch_fails_alone() {
    let safe = FakeDisk::new().safe();
    let writes = [
        changes([put("text", b"five")]),
        changes([add("text", 1)]),
        Write { checks: vec![check("text", 99)], changes: vec![put("never", b"")] },
        changes([add("n", 1)]),
    ];
    let queued: Vec<_> = writes.into_iter().map(|write| safe.queue(write).unwrap()).collect();
    let outcomes: Vec<_> = queued.iter().map(|queued| safe.wait(queued, soon())).collect();
    assert!(matches!(outcomes[0], Ok(Commit::Done { version: 1, .. })), "{outcomes:?}");
    assert!(matches!(outcomes[1], Err(WriteError::NotANumber { .. })), "{outcomes:?}");
    assert_eq!(outcomes[2], Ok(Commit::Conflict { check: 0 }));
    assert!(matches!(outcomes[3], Ok(Commit::Done { version: 2, .. })), "{outcomes:?}");
    assert_eq!((value(&safe, "never"), safe.status().batches), (None, 1));
}

#[test]
fn write_without_a_turn_at_its_deadline_is_taken_back() {
    let safe = FakeDisk::new().safe();
    // Whoever holds this lock commits; so the leader below does not come to its end.
    let held = safe.core.backend.hold();
    thread::scope(|scope| {
        let leader = scope.spawn(|| safe.write(changes([put("first", b"1")]), soon()));
        while safe.core.group.numbers().0 > 0 || !safe.core.group.is_led() {
            thread::yield_now();
        }
        let late = safe.write(changes([put("late", b"2")]), Instant::now());
        assert_eq!(late, Err(WriteError::TimedOut));
        drop(held);
        version(leader.join().unwrap());
    });
    version(safe.write(changes([put("then", b"3")]), soon()));
    assert_eq!((value(&safe, "late"), value(&safe, "then")), (None, Some(b"3".to_vec())));
}

/// A write that is made, and about to be told of, is nobody's to lead or to watch over.
#[test]
fn writer_that_is_told_late_keeps_nobody_waiting() {
    let safe = FakeDisk::new().safe();
    let (begin, begun) = mpsc::channel();
    let (end, ended) = mpsc::channel::<()>();
    let held = safe.core.backend.hold();
    safe.submit(changes([put("before", b"")]), |_| ()).unwrap();
    while safe.core.group.numbers().0 > 0 || !safe.core.group.is_led() {
        thread::yield_now();
    }
    // These two are the next batch; the first is told of for as long as it is wanted.
    let tell = move |_: &_| {
        begin.send(()).unwrap();
        ended.recv().unwrap();
    };
    safe.submit(changes([put("told", b"")]), tell).unwrap();
    let early = safe.queue(changes([put("early", b"")])).unwrap();
    drop(held);
    begun.recv().unwrap();
    let later = safe.queue(changes([put("later", b"")])).unwrap();
    let impatient = safe.wait(&early, Instant::now() + std::time::Duration::from_micros(100));
    assert!(matches!(impatient, Err(WriteError::Indeterminate { .. })), "{impatient:?}");
    version(safe.wait(&later, soon()));
    end.send(()).unwrap();
    version(safe.wait(&early, soon()));
}

#[test]
fn queue_is_bounded() {
    let safe = FakeDisk::new().safe();
    let big = || changes([put("big", &vec![1; 15 << 20])]);
    let queued: Vec<_> = (0..4).map(|_| safe.queue(big()).unwrap()).collect();
    assert!(matches!(safe.queue(big()), Err(WriteError::Overloaded)));
    for queued in &queued {
        version(safe.wait(queued, soon()));
    }
    version(safe.write(big(), soon()));
}

#[test]
fn writes_that_nobody_waits_for_are_made_and_told() {
    let safe = FakeDisk::new().safe();
    let (tell, told) = mpsc::channel();
    for _ in 0..100 {
        let tell = tell.clone();
        safe.submit(changes([add("n", 1)]), move |outcome| tell.send(outcome.clone()).unwrap()).unwrap();
    }
    safe.settle(soon()).unwrap();
    assert_eq!(number_at(&safe, "n"), Some(100));
    let conflict = Write { checks: vec![check("n", 1)], changes: vec![put("never", b"")] };
    safe.submit(conflict, move |outcome| tell.send(outcome.clone()).unwrap()).unwrap();
    let outcomes: Vec<_> = told.iter().collect();
    assert_eq!((outcomes.len(), &outcomes[100]), (101, &Ok(Commit::Conflict { check: 0 })));
    assert!(outcomes[..100].iter().all(Result::is_ok));
}

/// Closing makes what is queued, and refuses what comes later.
#[test]
fn close_makes_what_nobody_waits_for() {
    let disk = FakeDisk::new();
    let safe = disk.safe();
    let held = safe.core.backend.hold();
    for _ in 0..10 {
        safe.submit(changes([add("n", 1)]), |_| ()).unwrap();
    }
    drop(held);
    safe.close();
    assert!(matches!(safe.submit(changes([add("n", 1)]), |_| ()), Err(WriteError::Closed)));
    assert_eq!(number_at(&disk.safe(), "n"), Some(10));
}

#[test]
fn watch_wakes_for_real_changes_of_its_range_only() {
    let safe = FakeDisk::new().safe();
    let watch = safe.watch((Bound::Included(b"b".to_vec()), Bound::Excluded(b"c".to_vec()))).unwrap();
    let asks = || watch.next(Instant::now());
    version(safe.write(changes([put("a", b""), put("c", b""), delete("b")]), soon()));
    let conflict = Write { checks: vec![check("b", 9)], changes: vec![put("b", b"")] };
    assert_eq!(safe.write(conflict, soon()), Ok(Commit::Conflict { check: 0 }));
    assert_eq!(asks(), Woken::TimedOut);
    for _ in 0..3 {
        version(safe.write(changes([add("b", 1)]), soon()));
    }
    assert_eq!((asks(), asks()), (Woken::Changed, Woken::TimedOut));
    thread::scope(|scope| {
        let waiting = scope.spawn(|| watch.next(soon()));
        version(safe.write(changes([delete("b")]), soon()));
        assert_eq!(waiting.join().unwrap(), Woken::Changed);
        let waiting = scope.spawn(|| watch.next(soon()));
        watch.cancel();
        assert_eq!((waiting.join().unwrap(), asks()), (Woken::Cancelled, Woken::Cancelled));
    });
    safe.close();
    let late = safe.watch((Bound::Unbounded, Bound::Unbounded)).unwrap();
    assert_eq!(late.next(soon()), Woken::Cancelled);
}
