//! Connections that rest with the thread that gave them back.

use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use super::super::perch::thread_number;
use super::{PATIENCE, backend, pool, pool_with, wait_for};
use crate::db::{CheckoutError, Order, PoolConfig};

#[test]
fn each_thread_is_lent_again_what_it_gave_back() {
    let (pool, script) = pool_with(PoolConfig { max_size: 64, ..PoolConfig::default() });
    let (both_hold, both_gave_back) = (Barrier::new(2), Barrier::new(2));
    let run = || {
        let lease = pool.checkout().unwrap();
        let first = backend(&lease);
        both_hold.wait();
        drop(lease);
        both_gave_back.wait();
        let again: Vec<u64> = (0..10).map(|_| backend(&pool.checkout().unwrap())).collect();
        (thread_number() % 64, again.iter().all(|next| *next == first))
    };
    let (one, other) = thread::scope(|scope| {
        let (one, other) = (scope.spawn(run), scope.spawn(run));
        (one.join().unwrap(), other.join().unwrap())
    });
    // With as many threads between them as there are perches, they have one together.
    assert!((one.1 && other.1) || one.0 == other.0);
    assert_eq!((script.count("connect"), pool.status().idle, pool.status().checkouts), (2, 2, 22));
}

#[test]
fn of_two_leases_of_a_thread_the_one_that_came_back_last_is_lent_first() {
    let (pool, _script) = pool(2);
    for second_comes_first in [false, true, false, true] {
        let (first, second) = (pool.checkout().unwrap(), pool.checkout().unwrap());
        let (early, late) = if second_comes_first { (second, first) } else { (first, second) };
        let last = backend(&late);
        drop(early);
        drop(late);
        assert_eq!(backend(&pool.checkout().unwrap()), last);
    }
}

#[test]
fn what_rests_with_another_thread_is_lent_before_one_is_made() {
    let (pool, script) = pool(5);
    for _ in 0..4 {
        thread::scope(|scope| scope.spawn(|| drop(pool.checkout().unwrap())).join().unwrap());
    }
    let held = pool.checkout().unwrap();
    assert_eq!((backend(&held), script.count("connect")), (1, 1));
}

#[test]
fn a_lease_given_back_by_another_thread_is_whole() {
    let (pool, _script) = pool(2);
    for _ in 0..5 {
        let leases = [pool.checkout().unwrap(), pool.checkout().unwrap()];
        thread::scope(|scope| scope.spawn(move || drop(leases)).join().unwrap());
        let status = pool.status();
        assert_eq!((status.open, status.idle, status.in_use), (2, 2, 0));
    }
    assert_eq!(pool.status().checkouts, 10);
}

#[test]
fn nothing_rests_while_somebody_waits() {
    let (pool, _script) = pool(2);
    let (first, second) = (pool.checkout().unwrap(), pool.checkout().unwrap());
    thread::scope(|scope| {
        let waiters: Vec<_> = (0..2).map(|_| scope.spawn(|| backend(&pool.checkout().unwrap()))).collect();
        wait_for(&pool, |status| status.waiting == 2);
        // Lent to this thread, and due to the others.
        drop((first, second));
        let mut served: Vec<u64> = waiters.into_iter().map(|waiter| waiter.join().unwrap()).collect();
        served.sort_unstable();
        served.dedup();
        assert!(served.len() <= 2 && served.iter().all(|backend| [1, 2].contains(backend)), "{served:?}");
    });
    assert_eq!((pool.status().waiting, pool.status().idle), (0, 2));
    // And afterwards it does again.
    let held = backend(&pool.checkout().unwrap());
    assert_eq!(backend(&pool.checkout().unwrap()), held);
}

#[test]
fn no_wake_up_is_lost_between_one_who_returns_and_one_who_begins_to_wait() {
    let (pool, _script) =
        pool_with(PoolConfig { max_size: 2, checkout_timeout: PATIENCE, ..PoolConfig::default() });
    let start = Barrier::new(3);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..500 {
                    // All at once: two take, one begins to wait while the two give back.
                    start.wait();
                    drop(pool.checkout().unwrap());
                }
            });
        }
    });
    let status = pool.status();
    assert_eq!((status.checkouts, status.timeouts, status.waiting), (1500, 0, 0));
    assert!(status.open <= 2 && status.idle == status.open, "{status:?}");
}

#[test]
fn a_forgotten_connection_is_seen_wherever_its_loan_is_noted() {
    let config =
        PoolConfig { leak_after: Some(Duration::from_millis(20)), max_size: 3, ..PoolConfig::default() };
    let (pool, _script) = pool_with(config);
    // The second one finds its thread's place taken.
    let held = [pool.checkout().unwrap(), pool.checkout().unwrap()];
    wait_for(&pool, |status| status.leaks == 2);
    drop(held);
}

#[test]
fn a_checkout_in_vain_is_not_counted() {
    let (pool, script) = pool(2);
    let held = pool.checkout().unwrap();
    script.set_down(true);
    assert!(matches!(pool.checkout(), Err(CheckoutError::Unreachable(_))));
    thread::scope(|scope| {
        let elsewhere = scope.spawn(|| pool.checkout().map(drop)).join().unwrap();
        assert!(matches!(elsewhere, Err(CheckoutError::Unreachable(_))));
    });
    drop(held);
    assert_eq!(pool.status().checkouts, 1);
}

#[test]
fn closing_closes_what_rests() {
    let (pool, script) = pool(2);
    drop(pool.checkout().unwrap());
    let held = pool.checkout().unwrap();
    pool.close();
    drop(held);
    assert_eq!((pool.status().open, script.count("close")), (0, 1));
    let (pool, script) = super::pool(2);
    drop(pool.checkout().unwrap());
    pool.close();
    assert_eq!((pool.status().open, script.count("close")), (0, 1));
}

#[test]
fn a_lease_outlives_its_pool() {
    let (pool, script) = pool(2);
    let (held, rests) = (pool.checkout().unwrap(), pool.checkout().unwrap());
    drop(rests);
    drop(pool);
    assert_eq!(script.events(), ["connect 1", "connect 2", "close 2"]);
    held.execute("x", &[]).unwrap();
    drop(held);
    assert_eq!(script.events().last().unwrap(), "close 1");
}

#[test]
fn fifo_and_a_bound_on_idle_ones_are_kept_over_all_threads() {
    for config in [
        PoolConfig { max_size: 3, min_idle: 2, order: Order::Fifo, ..PoolConfig::default() },
        PoolConfig { max_size: 3, min_idle: 2, max_idle: Some(2), ..PoolConfig::default() },
    ] {
        let is_fifo = config.order == Order::Fifo;
        let (pool, _script) = pool_with(config);
        let here = backend(&pool.checkout().unwrap());
        let there = thread::scope(|scope| scope.spawn(|| backend(&pool.checkout().unwrap())).join().unwrap());
        assert_eq!(here != there, is_fifo);
    }
}
