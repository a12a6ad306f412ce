//! Tests of the pool, on a driver that does what the test says and writes down what it was asked.

mod limits;
mod perches;
mod sharing;
mod upkeep;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::Pool;
use crate::db::fake::{Script, Scripted};
use crate::db::{CheckoutError, ConnectError, Lease, OpenError, PoolConfig, QueryError, SteadyConfig};

/// Longer than any of these tests may take; reached only by one that fails.
const PATIENCE: Duration = Duration::from_secs(20);

fn pool(max_size: u32) -> (Pool, Arc<Script>) {
    let script = Arc::new(Script::default());
    let config = PoolConfig { max_size, checkout_timeout: PATIENCE, ..PoolConfig::default() };
    (Pool::with_driver(Box::new(Scripted(script.clone())), config).unwrap(), script)
}

/// A pool with these settings, and nothing asked or reported by the clock.
fn pool_with(config: PoolConfig) -> (Pool, Arc<Script>) {
    let script = Arc::new(Script::default());
    (Pool::with_driver(Box::new(Scripted(script.clone())), config).unwrap(), script)
}

/// The number of a lease's connection.
fn backend(lease: &Lease) -> u64 {
    lease.backend_id().unwrap().unwrap()
}

/// Waits until the pool's status is as wanted.
fn wait_for(pool: &Pool, what: impl Fn(&super::PoolStatus) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !what(&pool.status()) {
        assert!(Instant::now() < deadline, "{:?}", pool.status());
        thread::yield_now();
    }
}

#[test]
fn opening_makes_one_connection_and_the_last_one_back_is_lent_first() {
    let (pool, script) = pool(3);
    assert_eq!(script.events(), ["connect 1"]);
    let (first, second) = (pool.checkout().unwrap(), pool.checkout().unwrap());
    assert_eq!(second.backend_id().unwrap(), Some(2));
    drop(second);
    drop(first);
    assert_eq!(pool.checkout().unwrap().backend_id().unwrap(), Some(1));
    let status = pool.status();
    assert_eq!((status.open, status.idle, status.in_use, status.waiting), (2, 2, 0, 0));
    assert_eq!((status.connects, status.closes, status.checkouts), (2, 0, 3));
    assert_eq!(status.backends, [1, 2]);
}

#[test]
fn a_database_that_is_down_shows_at_opening() {
    let script = Arc::new(Script::default());
    script.is_down.store(true, Ordering::SeqCst);
    let opened = Pool::with_driver(Box::new(Scripted(script.clone())), PoolConfig::default());
    assert!(matches!(opened, Err(OpenError::Connect(ConnectError::Unreachable { .. }))));
    let config = PoolConfig { max_size: 0, ..PoolConfig::default() };
    assert!(matches!(Pool::with_driver(Box::new(Scripted(script)), config), Err(OpenError::NoSize)));
}

#[test]
fn failed_connect_uses_up_no_slot_and_fails_at_once() {
    let (pool, script) = pool(2);
    let held = pool.checkout().unwrap();
    script.is_down.store(true, Ordering::SeqCst);
    for _ in 0..5 {
        // With the patience of `PATIENCE` a wait would show as a hang.
        assert!(matches!(pool.checkout(), Err(CheckoutError::Unreachable(_))));
    }
    let status = pool.status();
    assert_eq!((status.timeouts, status.is_down), (0, true));
    wait_for(&pool, |status| status.open == 1);
    script.is_down.store(false, Ordering::SeqCst);
    wait_for(&pool, |status| !status.is_down);
    assert_eq!(pool.checkout().unwrap().backend_id().unwrap(), Some(2));
    drop(held);
}

#[test]
fn exhausted_is_another_error_than_unreachable() {
    let (pool, script) = pool(1);
    let held = pool.checkout().unwrap();
    script.is_down.store(true, Ordering::SeqCst);
    let error = pool.checkout_timeout(Duration::ZERO).unwrap_err();
    assert!(matches!(error, CheckoutError::Exhausted { max_size: 1, .. }), "{error}");
    let error = pool.checkout_timeout(Duration::from_millis(5)).unwrap_err();
    let CheckoutError::Exhausted { waited, .. } = error else { panic!("{error}") };
    assert!(waited >= Duration::from_millis(5));
    assert_eq!(pool.status().timeouts, 2);
    assert_eq!(pool.status().waiting, 0);
    drop(held);
    assert!(pool.checkout_timeout(Duration::ZERO).is_ok());
}

#[test]
fn waiters_are_served_in_order() {
    let (pool, _script) = pool(1);
    let held = pool.checkout().unwrap();
    let (served, order) = mpsc::channel();
    thread::scope(|scope| {
        for number in 0..8_u32 {
            let (pool, served) = (pool.clone(), served.clone());
            scope.spawn({
                let pool = pool.clone();
                move || {
                    let lease = pool.checkout().unwrap();
                    served.send(number).unwrap();
                    drop(lease);
                }
            });
            wait_for(&pool, |status| status.waiting == number + 1);
        }
        // A newcomer passes nobody, even when a connection has just come back.
        drop(held);
    });
    assert_eq!(order.try_iter().collect::<Vec<_>>(), (0..8).collect::<Vec<_>>());
    assert_eq!(pool.status().connects, 1);
}

#[test]
fn a_waiter_that_gave_up_does_not_hold_up_the_line() {
    let (pool, _script) = pool(1);
    let held = pool.checkout().unwrap();
    assert!(pool.checkout_timeout(Duration::from_millis(1)).is_err());
    drop(held);
    assert_eq!(pool.status().idle, 1);
    assert!(pool.checkout_timeout(Duration::ZERO).is_ok());
}

#[test]
fn open_transaction_is_rolled_back_at_checkin() {
    let (pool, script) = pool(1);
    let lease = pool.checkout().unwrap();
    lease.begin().unwrap();
    drop(lease);
    assert_eq!(script.events(), ["connect 1", "roll back 1"]);
    assert_eq!(pool.status().idle, 1);
}

#[test]
fn a_broken_connection_does_not_come_back_and_its_slot_does() {
    let (pool, script) = pool(1);
    pool.checkout().unwrap().execute("break", &[]).unwrap();
    assert_eq!(script.events(), ["connect 1", "close 1"]);
    assert_eq!(pool.status().open, 0);
    assert_eq!(pool.checkout().unwrap().backend_id().unwrap(), Some(2));
}

#[test]
fn what_no_reset_undoes_closes_the_connection() {
    let (pool, script) = pool(1);
    script.reset_closes.store(true, Ordering::SeqCst);
    pool.checkout().unwrap().execute("set x", &[]).unwrap();
    assert_eq!(script.events(), ["connect 1", "close 1"]);
}

#[test]
fn the_slot_of_a_broken_connection_goes_to_the_first_waiter() {
    let (pool, _script) = pool(1);
    let held = pool.checkout().unwrap();
    thread::scope(|scope| {
        let waiter = scope.spawn(|| pool.checkout().unwrap().backend_id().unwrap());
        wait_for(&pool, |status| status.waiting == 1);
        held.execute("break", &[]).unwrap();
        drop(held);
        assert_eq!(waiter.join().unwrap(), Some(2));
    });
}

#[test]
fn waiters_hear_at_once_that_the_database_is_down() {
    let (pool, script) = pool(1);
    let held = pool.checkout().unwrap();
    thread::scope(|scope| {
        let waiters: Vec<_> = (0..3).map(|_| scope.spawn(|| pool.checkout())).collect();
        wait_for(&pool, |status| status.waiting == 3);
        script.is_down.store(true, Ordering::SeqCst);
        held.execute("break", &[]).unwrap();
        drop(held);
        for waiter in waiters {
            assert!(matches!(waiter.join().unwrap(), Err(CheckoutError::Unreachable(_))));
        }
    });
    wait_for(&pool, |status| status.open == 0 && status.connect_failures >= 1 && status.waiting == 0);
}

#[test]
fn a_connection_that_died_while_idle_is_replaced_unseen() {
    let script = Arc::new(Script::default());
    let steady = SteadyConfig { ping_after: Duration::ZERO, ..SteadyConfig::default() };
    let config = PoolConfig { steady, ..PoolConfig::default() };
    let pool = Pool::with_driver(Box::new(Scripted(script.clone())), config).unwrap();
    assert_eq!(pool.checkout().unwrap().backend_id().unwrap(), Some(1));
    script.are_dead.store(true, Ordering::SeqCst);
    assert_eq!(pool.checkout().unwrap().backend_id().unwrap(), Some(2));
    assert_eq!(script.events(), ["connect 1", "ask 1", "ask 1", "close 1", "connect 2"]);
    let status = pool.status();
    assert_eq!((status.open, status.connects, status.closes), (1, 2, 1));
}

#[test]
fn a_connection_that_was_just_used_is_not_asked() {
    let (pool, script) = pool(1);
    for _ in 0..3 {
        drop(pool.checkout().unwrap());
    }
    assert_eq!(script.events(), ["connect 1"]);
}

#[test]
fn a_slow_connect_delays_nobody_else() {
    let (pool, script) = pool(2);
    let held = pool.checkout().unwrap();
    script.set_slow(true);
    thread::scope(|scope| {
        let slow = scope.spawn(|| pool.checkout().unwrap().backend_id().unwrap());
        wait_for(&pool, |status| status.in_use == 2);
        drop(held);
        assert_eq!(pool.checkout_timeout(Duration::ZERO).unwrap().backend_id().unwrap(), Some(1));
        script.set_slow(false);
        assert_eq!(slow.join().unwrap(), Some(2));
    });
}

#[test]
fn a_second_thread_on_one_lease_gets_an_error() {
    let (pool, _script) = pool(1);
    let lease = pool.checkout().unwrap();
    let busy = lease.keep_busy();
    let error = thread::scope(|scope| scope.spawn(|| lease.begin()).join().unwrap()).unwrap_err();
    assert!(matches!(error, QueryError::Busy));
    drop(busy);
    assert!(lease.begin().is_ok());
}

#[test]
fn a_driver_that_panics_costs_its_connection_and_no_slot() {
    let (pool, script) = pool(1);
    let lease = pool.checkout().unwrap();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| lease.execute("panic", &[])));
    assert!(panicked.is_err());
    assert!(matches!(lease.begin(), Err(QueryError::Lost { .. })));
    drop(lease);
    assert_eq!(script.events(), ["connect 1", "close 1"]);
    assert_eq!(pool.checkout().unwrap().backend_id().unwrap(), Some(2));
}

#[test]
fn closing_closes_idle_ones_now_and_lent_ones_at_their_return() {
    let (pool, script) = pool(2);
    let (first, second) = (pool.checkout().unwrap(), pool.checkout().unwrap());
    drop(second);
    pool.close();
    assert_eq!(script.events(), ["connect 1", "connect 2", "close 2"]);
    assert!(matches!(pool.checkout(), Err(CheckoutError::Closed { .. })));
    drop(first);
    assert_eq!(script.events().last().unwrap(), "close 1");
    let status = pool.status();
    assert_eq!((status.open, status.connects, status.closes, status.is_closed), (0, 2, 2, true));
}

#[test]
fn closing_sends_those_in_line_away() {
    let (pool, _script) = pool(1);
    let _held = pool.checkout().unwrap();
    thread::scope(|scope| {
        let waiter = scope.spawn(|| pool.checkout());
        wait_for(&pool, |status| status.waiting == 1);
        pool.close();
        assert!(matches!(waiter.join().unwrap(), Err(CheckoutError::Closed { .. })));
    });
}

#[test]
fn dropping_the_last_clone_closes_what_is_idle() {
    let (pool, script) = pool(1);
    drop(pool.clone());
    assert_eq!(script.events(), ["connect 1"]);
    drop(pool);
    assert_eq!(script.events(), ["connect 1", "close 1"]);
}

#[test]
fn many_threads_never_exceed_the_limit_and_all_are_served() {
    let (pool, script) = pool(3);
    thread::scope(|scope| {
        for _ in 0..12 {
            scope.spawn(|| {
                for round in 0..50 {
                    let lease = pool.checkout().unwrap();
                    assert!(pool.status().open <= 3);
                    if round % 10 == 9 {
                        lease.execute("break", &[]).unwrap();
                    }
                }
            });
        }
    });
    let (status, events) = (pool.status(), script.events());
    let count = |what: &str| events.iter().filter(|event| event.starts_with(what)).count() as u64;
    assert_eq!((status.checkouts, status.in_use, status.waiting), (600, 0, 0));
    assert_eq!((status.connects, status.closes), (count("connect"), count("close")));
    assert_eq!(status.closes, 60);
    assert_eq!(u64::from(status.open), status.connects - status.closes);
}

#[test]
fn a_lease_dropped_inside_a_runtime_is_returned_by_another_thread() {
    let (pool, script) = pool(1);
    let lease = pool.checkout().unwrap();
    lease.begin().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async move { drop(lease) });
    wait_for(&pool, |status| status.idle == 1);
    assert_eq!(script.events(), ["connect 1", "roll back 1"]);
}
