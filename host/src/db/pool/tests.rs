//! Tests of the pool, on a driver that does what the test says and writes down what it was asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::{Pool, PoolConfig};
use crate::db::{CheckoutError, ConnectError, Connection, Driver, OpenError, QueryError, Reset, Value};

/// Longer than any of these tests may take; reached only by one that fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the fake database does, and what happened to it.
#[derive(Debug, Default)]
struct Script {
    is_down: AtomicBool,
    /// Idle connections no longer answer.
    are_dead: AtomicBool,
    reset_closes: AtomicBool,
    made: AtomicU64,
    events: Mutex<Vec<String>>,
    /// `connect` waits while this is true.
    is_slow: Mutex<bool>,
    hurry: Condvar,
}

impl Script {
    fn note(&self, event: String) {
        self.events.lock().push(event);
    }

    fn events(&self) -> Vec<String> {
        self.events.lock().clone()
    }

    fn set_slow(&self, is_slow: bool) {
        *self.is_slow.lock() = is_slow;
        self.hurry.notify_all();
    }
}

#[derive(Debug)]
struct Scripted(Arc<Script>);

impl Driver for Scripted {
    fn name(&self) -> &'static str {
        "scripted"
    }

    fn address(&self) -> &str {
        "scripted:"
    }

    fn connect(&self) -> Result<Box<dyn Connection>, ConnectError> {
        let mut is_slow = self.0.is_slow.lock();
        while *is_slow {
            self.0.hurry.wait(&mut is_slow);
        }
        drop(is_slow);
        if self.0.is_down.load(Ordering::SeqCst) {
            return Err(ConnectError::Unreachable {
                address: "scripted:".to_owned(),
                reason: "down".to_owned(),
                sqlstate: None,
            });
        }
        let number = self.0.made.fetch_add(1, Ordering::SeqCst) + 1;
        self.0.note(format!("connect {number}"));
        Ok(Box::new(Fake { script: self.0.clone(), number, is_broken: false, is_in_transaction: false }))
    }
}

struct Fake {
    script: Arc<Script>,
    number: u64,
    is_broken: bool,
    is_in_transaction: bool,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.script.note(format!("close {}", self.number));
    }
}

impl Connection for Fake {
    fn query(&mut self, _: &str, _: &[Value<'_>]) -> Result<Vec<u8>, QueryError> {
        Ok(Vec::new())
    }

    fn execute(&mut self, sql: &str, _: &[Value<'_>]) -> Result<u64, QueryError> {
        match sql {
            "break" => self.is_broken = true,
            "panic" => panic!("the driver panicked"),
            _ => {}
        }
        Ok(0)
    }

    fn batch_execute(&mut self, _: &str) -> Result<(), QueryError> {
        Ok(())
    }

    fn begin(&mut self) -> Result<(), QueryError> {
        self.is_in_transaction = true;
        Ok(())
    }

    fn commit(&mut self) -> Result<(), QueryError> {
        self.is_in_transaction = false;
        Ok(())
    }

    fn rollback(&mut self) -> Result<(), QueryError> {
        self.commit()
    }

    fn has_broken(&self) -> bool {
        self.is_broken
    }

    fn is_valid(&mut self, _: Duration) -> bool {
        self.script.note(format!("ask {}", self.number));
        !self.script.are_dead.load(Ordering::SeqCst)
    }

    fn reset(&mut self) -> Reset {
        if std::mem::take(&mut self.is_in_transaction) {
            self.script.note(format!("roll back {}", self.number));
        }
        if self.script.reset_closes.load(Ordering::SeqCst) { Reset::Close } else { Reset::Ready }
    }

    fn is_clean(&self) -> bool {
        !self.is_in_transaction
    }

    fn settle(&mut self) {}

    fn backend_id(&self) -> Option<u64> {
        Some(self.number)
    }
}

fn pool(max_size: u32) -> (Pool, Arc<Script>) {
    let script = Arc::new(Script::default());
    let config = PoolConfig { max_size, checkout_timeout: PATIENCE, ..PoolConfig::default() };
    (Pool::with_driver(Box::new(Scripted(script.clone())), config).unwrap(), script)
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
    assert_eq!((status.open, status.connect_failures, status.timeouts), (1, 5, 0));
    script.is_down.store(false, Ordering::SeqCst);
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
    drop(pool.checkout().unwrap());
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
    let status = pool.status();
    assert_eq!((status.open, status.connect_failures, status.waiting), (0, 1, 0));
}

#[test]
fn a_connection_that_died_while_idle_is_replaced_unseen() {
    let script = Arc::new(Script::default());
    let config = PoolConfig { stale_after: Duration::ZERO, ..PoolConfig::default() };
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
    let busy = lease.physical.lock();
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
