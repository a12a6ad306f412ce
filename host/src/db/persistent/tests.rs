//! Tests of connections that belong to threads.

use std::sync::Arc;
use std::sync::mpsc;
use std::thread;

use super::Persistent;
use crate::db::fake::{Script, Scripted};
use crate::db::{CheckoutError, OpenError, QueryError, Sqlite, SteadyConfig};

fn persistent(config: SteadyConfig) -> (Persistent, Arc<Script>) {
    let script = Arc::new(Script::default());
    (Persistent::with_driver(Box::new(Scripted(script.clone())), config).unwrap(), script)
}

fn backend(persistent: &Persistent) -> u64 {
    persistent.get().unwrap().backend_id().unwrap().unwrap()
}

#[test]
fn the_same_thread_gets_the_same_connection_and_others_never_see_it() {
    let (persistent, script) = persistent(SteadyConfig::default());
    assert_eq!((backend(&persistent), backend(&persistent)), (1, 1));
    let others: Vec<u64> = thread::scope(|scope| {
        let threads: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let first = backend(&persistent);
                    assert_eq!(backend(&persistent), first);
                    first
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let mut sorted = others;
    sorted.sort_unstable();
    assert_eq!((sorted, script.count("connect")), (vec![2, 3, 4], 4));
}

#[test]
fn two_leases_of_one_thread_are_one_connection() {
    let (persistent, script) = persistent(SteadyConfig::default());
    let (first, second) = (persistent.get().unwrap(), persistent.get().unwrap());
    first.begin().unwrap();
    second.execute("x", &[]).unwrap();
    second.commit().unwrap();
    assert!(matches!(first.commit(), Err(QueryError::NoTransaction)));
    assert_eq!(script.events(), ["connect 1"]);
}

#[test]
fn a_connection_is_closed_when_its_thread_ends() {
    let (persistent, script) = persistent(SteadyConfig::default());
    let kept = thread::scope(|scope| scope.spawn(|| persistent.get().unwrap()).join().unwrap());
    // `join` returns after the thread's values are gone.
    assert_eq!(script.events(), ["connect 1", "connect 2", "close 2"]);
    assert_eq!(persistent.len(), 1);
    // A lease that outlived its thread is of no use anywhere.
    assert!(matches!(kept.execute("x", &[]), Err(QueryError::WrongThread)));
}

#[test]
fn a_lease_is_of_no_use_on_another_thread() {
    let (persistent, _script) = persistent(SteadyConfig::default());
    let lease = persistent.get().unwrap();
    let error = thread::scope(|scope| scope.spawn(|| lease.begin()).join().unwrap()).unwrap_err();
    assert!(matches!(error, QueryError::WrongThread), "{error}");
    lease.begin().unwrap();
}

#[test]
fn close_is_ignored_unless_closeable() {
    let (kept, script) = persistent(SteadyConfig { closeable: false, ..SteadyConfig::default() });
    let lease = kept.get().unwrap();
    lease.begin().unwrap();
    lease.close().unwrap();
    lease.execute("x", &[]).unwrap();
    assert_eq!(script.events(), ["connect 1", "roll back 1"]);

    let (closed, script) = persistent(SteadyConfig::default());
    closed.get().unwrap().close().unwrap();
    assert_eq!(script.events(), ["connect 1", "close 1"]);
    assert_eq!(backend(&closed), 2);
}

#[test]
fn what_is_left_open_ends_with_the_last_lease_of_the_thread() {
    let (persistent, script) = persistent(SteadyConfig::default());
    let (first, second) = (persistent.get().unwrap(), persistent.get().unwrap());
    first.begin().unwrap();
    drop(first);
    assert_eq!(script.events(), ["connect 1"], "the other lease may be at work in it");
    drop(second);
    assert_eq!(script.events(), ["connect 1", "roll back 1"]);
}

#[test]
fn max_uses_and_session_hold_for_each_thread() {
    let session = vec!["set a".to_owned()];
    let (persistent, script) = persistent(SteadyConfig { max_uses: 2, session, ..SteadyConfig::default() });
    thread::scope(|scope| {
        scope.spawn(|| {
            let lease = persistent.get().unwrap();
            for expected in [2, 2, 3] {
                lease.execute("x", &[]).unwrap();
                assert_eq!(lease.backend_id().unwrap(), Some(expected));
            }
        });
    });
    assert_eq!(script.statements(), ["1: set a", "2: set a", "2: x", "2: x", "3: set a", "3: x"]);
}

#[test]
fn a_lost_transaction_is_over_and_the_next_use_is_on_a_new_connection() {
    let (persistent, script) = persistent(SteadyConfig::default());
    let lease = persistent.get().unwrap();
    lease.begin().unwrap();
    assert!(lease.execute("lose", &[]).is_err());
    assert!(matches!(lease.execute("x", &[]), Err(QueryError::TransactionLost)));
    lease.rollback().unwrap();
    lease.execute("y", &[]).unwrap();
    assert_eq!(script.statements(), ["1: lose", "2: y"]);
}

#[test]
fn closing_the_set_closes_every_threads_connection() {
    let (persistent, script) = persistent(SteadyConfig::default());
    let (ready, is_ready) = mpsc::channel();
    let (done, is_done) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let other = &persistent;
        scope.spawn(move || {
            let lease = other.get().unwrap();
            ready.send(()).unwrap();
            is_done.recv().unwrap();
            assert!(matches!(lease.execute("x", &[]), Err(QueryError::Lost { .. })));
        });
        is_ready.recv().unwrap();
        persistent.close();
        assert_eq!((script.count("connect"), script.count("close")), (2, 2));
        assert!(matches!(persistent.get(), Err(CheckoutError::Closed { .. })));
        done.send(()).unwrap();
    });
    assert!(persistent.is_empty());
}

#[test]
fn a_database_in_memory_is_one_connection_and_no_set() {
    let memory = Sqlite::parse(":memory:", std::path::Path::new("/nowhere")).unwrap();
    let opened = Persistent::with_driver(Box::new(memory), SteadyConfig::default());
    assert!(matches!(opened, Err(OpenError::OneConnection { .. })));
}
