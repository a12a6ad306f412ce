//! How many connections there are, which is lent first, and what becomes of one that comes back.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::{PATIENCE, backend, pool, pool_with, wait_for};
use crate::db::fake::Behaviour;
use crate::db::{CheckoutError, Order, Ping, PoolConfig, QueryError, ResetPolicy, SteadyConfig};

#[test]
fn min_idle_connections_are_made_at_the_start() {
    let (pool, script) = pool_with(PoolConfig { max_size: 5, min_idle: 3, ..PoolConfig::default() });
    assert_eq!(script.count("connect"), 3);
    assert_eq!((pool.status().idle, pool.status().open), (3, 3));
}

#[test]
fn a_fixed_pool_makes_all_its_connections_at_the_start_and_no_more() {
    let (pool, script) = pool_with(PoolConfig { checkout_timeout: Duration::ZERO, ..PoolConfig::fixed(2) });
    assert_eq!(script.count("connect"), 2);
    let (_first, _second) = (pool.checkout().unwrap(), pool.checkout().unwrap());
    assert!(matches!(pool.checkout(), Err(CheckoutError::Exhausted { max_size: 2, .. })));
    assert_eq!(script.count("connect"), 2);
}

#[test]
fn surplus_is_closed_at_its_return() {
    let (pool, script) = pool_with(PoolConfig { max_size: 5, max_idle: Some(2), ..PoolConfig::default() });
    let leases: Vec<_> = (0..5).map(|_| pool.checkout().unwrap()).collect();
    drop(leases);
    assert_eq!((script.count("connect"), script.count("close"), pool.status().idle), (5, 3, 2));
}

#[test]
fn the_last_one_back_is_lent_first_and_the_others_rest() {
    let (pool, _script) = pool_with(PoolConfig { max_size: 5, min_idle: 5, ..PoolConfig::default() });
    let first = backend(&pool.checkout().unwrap());
    for _ in 0..15 {
        assert_eq!(backend(&pool.checkout().unwrap()), first);
    }
}

#[test]
fn fifo_uses_all_connections_alike() {
    let config = PoolConfig { max_size: 5, min_idle: 5, order: Order::Fifo, ..PoolConfig::default() };
    let (pool, _script) = pool_with(config);
    let mut uses = [0; 5];
    for _ in 0..15 {
        uses[usize::try_from(backend(&pool.checkout().unwrap())).unwrap() - 1] += 1;
    }
    assert_eq!(uses, [3; 5]);
}

#[test]
fn reset_always_undoes_what_no_text_showed() {
    let (pool, script) = pool_with(PoolConfig { reset: ResetPolicy::Always, ..PoolConfig::default() });
    drop(pool.checkout().unwrap());
    assert_eq!(script.events(), ["connect 1", "reset 1"]);
}

#[test]
fn reset_if_dirty_does_nothing_to_a_clean_connection() {
    let (pool, script) = pool(1);
    pool.checkout().unwrap().execute("x", &[]).unwrap();
    assert_eq!(script.events(), ["connect 1"]);
    pool.checkout().unwrap().execute("set x", &[]).unwrap();
    assert_eq!(script.events(), ["connect 1", "reset 1"]);
}

#[test]
fn reopen_gives_each_borrower_a_new_connection() {
    let (pool, _script) = pool_with(PoolConfig { reset: ResetPolicy::Reopen, ..PoolConfig::default() });
    let backends: Vec<u64> = (0..3).map(|_| backend(&pool.checkout().unwrap())).collect();
    assert_eq!(backends, [1, 2, 3]);
    assert_eq!(pool.status().open, 0);
}

#[test]
fn a_reset_that_takes_the_session_away_is_followed_by_its_statements() {
    let steady = SteadyConfig { session: vec!["set a".to_owned()], ..SteadyConfig::default() };
    let (pool, script) = pool_with(PoolConfig { steady, ..PoolConfig::default() });
    pool.checkout().unwrap().execute("set b", &[]).unwrap();
    assert_eq!(script.statements(), ["1: set a", "1: set b", "1: set a"]);
    pool.checkout().unwrap().execute("x", &[]).unwrap();
    assert_eq!(script.events(), ["connect 1", "reset 1"], "and the session's own are no dirt");
}

#[test]
fn max_uses_replaces_a_worn_connection() {
    let steady = SteadyConfig { max_uses: 2, ping: Ping::NEVER, ..SteadyConfig::default() };
    let (pool, _script) = pool_with(PoolConfig { max_size: 1, steady, ..PoolConfig::default() });
    let mut backends = Vec::new();
    for _ in 0..5 {
        let lease = pool.checkout().unwrap();
        lease.execute("x", &[]).unwrap();
        backends.push(backend(&lease));
    }
    assert_eq!(backends, [1, 1, 2, 2, 3]);
}

#[test]
fn a_broken_connection_is_replaced_inside_the_lease() {
    let (pool, _script) = pool(1);
    let lease = pool.checkout().unwrap();
    lease.execute("break", &[]).unwrap();
    lease.execute("x", &[]).unwrap();
    assert_eq!(backend(&lease), 2);
    drop(lease);
    let status = pool.status();
    assert_eq!((status.open, status.idle, status.reopens), (1, 1, 1));
    assert_eq!((status.connects, status.closes, status.backends), (2, 1, vec![2]));
}

#[test]
fn a_transaction_that_lost_its_connection_does_not_reach_the_next_borrower() {
    let (pool, _script) = pool(1);
    let lease = pool.checkout().unwrap();
    lease.begin().unwrap();
    assert!(lease.execute("lose", &[]).is_err());
    drop(lease);
    let next = pool.checkout().unwrap();
    next.execute("x", &[]).unwrap();
    assert!(matches!(next.commit(), Err(QueryError::NoTransaction)));
}

/// A session that ended alone costs no other borrower anything; where the server is gone, no dead one is lent.
#[test]
fn after_a_fatal_error_older_connections_are_asked_before_they_are_lent() {
    for are_dead in [false, true] {
        let (pool, script) = pool_with(PoolConfig { max_size: 4, min_idle: 4, ..PoolConfig::default() });
        let lease = pool.checkout().unwrap();
        script.are_dead.store(are_dead, std::sync::atomic::Ordering::SeqCst);
        assert!(lease.execute("lose", &[]).is_err());
        lease.execute("x", &[]).unwrap();
        assert!(backend(&lease) > 4);
        let others: Vec<_> = (0..3).map(|_| pool.checkout().unwrap()).collect();
        assert!(others.iter().all(|other| (backend(other) > 4) == are_dead), "{:?}", script.events());
        wait_for(&pool, |status| status.closes == if are_dead { 4 } else { 1 });
    }
}

#[test]
fn a_connection_that_worked_after_the_fatal_error_stays() {
    let (pool, _script) = pool_with(PoolConfig { max_size: 2, min_idle: 2, ..PoolConfig::default() });
    let (first, second) = (pool.checkout().unwrap(), pool.checkout().unwrap());
    assert!(first.execute("lose", &[]).is_err());
    let kept = backend(&second);
    second.execute("x", &[]).unwrap();
    drop(second);
    assert_eq!(backend(&pool.checkout().unwrap()), kept);
}

#[test]
fn pings_at_checkout_are_as_many_as_checkouts() {
    for (ping, asked) in [(Ping::NEVER, 0), (Ping::CHECKOUT, 3), (Ping::QUERY, 0)] {
        let steady = SteadyConfig { ping, ping_after: Duration::ZERO, ..SteadyConfig::default() };
        let (pool, script) = pool_with(PoolConfig { steady, ..PoolConfig::default() });
        for _ in 0..3 {
            pool.checkout().unwrap().execute("x", &[]).unwrap();
        }
        assert_eq!(script.count("ask"), asked, "{ping:?}");
    }
}

#[test]
fn one_thread_may_have_two_connections() {
    let (pool, script) = pool(2);
    for _ in 0..3 {
        let (first, second) = (pool.checkout().unwrap(), pool.checkout().unwrap());
        assert_ne!(backend(&first), backend(&second));
    }
    assert_eq!(script.count("connect"), 2);
}

#[test]
fn no_waiter_starves_however_fast_the_others_are() {
    let (pool, _script) = pool(2);
    let (is_done, mut waits) = (AtomicBool::new(false), Vec::new());
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !is_done.load(Ordering::Relaxed) {
                    drop(pool.checkout().unwrap());
                }
            });
        }
        for _ in 0..200 {
            let begun = Instant::now();
            drop(pool.checkout().unwrap());
            waits.push(begun.elapsed());
        }
        is_done.store(true, Ordering::Relaxed);
    });
    // Not a figure: one who is passed for ever would wait until the pool gave up.
    assert!(waits.iter().all(|wait| *wait < PATIENCE));
    assert_eq!(pool.status().timeouts, 0);
}

#[test]
fn one_who_has_waited_is_served_before_a_newcomer() {
    let (pool, _script) = pool(1);
    let held = pool.checkout().unwrap();
    thread::scope(|scope| {
        let waiter = scope.spawn(|| pool.checkout().map(|lease| backend(&lease)));
        wait_for(&pool, |status| status.waiting == 1);
        let begun = Instant::now();
        while begun.elapsed() < super::super::state::FAIR_AFTER {
            thread::yield_now();
        }
        drop(held);
        // Whoever comes now finds nothing to take: it was handed over.
        match pool.checkout_timeout(Duration::ZERO) {
            Err(CheckoutError::Exhausted { .. }) => {}
            // Unless the waiter has come and gone already.
            Ok(_) => assert_eq!(pool.status().checkouts, 3),
            Err(other) => panic!("{other}"),
        }
        assert_eq!(waiter.join().unwrap().unwrap(), 1);
    });
    assert!(pool.status().waits.longest_us >= 1000, "{:?}", pool.status().waits);
}

#[test]
fn a_lazy_pool_opens_while_the_database_is_down_and_connects_when_it_is_back() {
    let script = std::sync::Arc::new(crate::db::fake::Script::default());
    script.set_down(true);
    let config = PoolConfig { lazy: true, min_idle: 2, ..PoolConfig::default() };
    let pool = super::Pool::with_driver(Box::new(super::Scripted(script.clone())), config).unwrap();
    assert!(matches!(pool.checkout(), Err(CheckoutError::Unreachable(_))));
    script.set_down(false);
    wait_for(&pool, |status| status.idle == 2);
    assert!(!pool.status().is_down);
}

#[test]
fn a_lost_commit_is_resolved_on_another_connection_of_the_pool() {
    let (pool, script) = pool(2);
    script.behave(Behaviour::LosesCommit(crate::db::Outcome::Committed));
    let lease = pool.checkout().unwrap();
    lease.begin().unwrap();
    lease.commit().unwrap();
    assert_eq!(script.count("outcome of tx 1"), 1);
}
