//! What the monitor does without being asked.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{pool_with, wait_for};
use crate::db::{PoolConfig, SteadyConfig, pools};

/// Soon, for a limit that a test waits for.
const SOON: Duration = Duration::from_millis(20);

#[test]
fn idle_connections_beyond_min_idle_are_closed() {
    let config = PoolConfig { max_size: 4, min_idle: 1, idle_timeout: Some(SOON), ..PoolConfig::default() };
    let (pool, script) = pool_with(config);
    let leases: Vec<_> = (0..4).map(|_| pool.checkout().unwrap()).collect();
    drop(leases);
    wait_for(&pool, |status| status.open == 1);
    assert_eq!((script.count("close"), pool.status().idle), (3, 1));
}

#[test]
fn old_connections_are_replaced_and_min_idle_kept() {
    let config = PoolConfig { max_size: 2, min_idle: 2, max_lifetime: Some(SOON), ..PoolConfig::default() };
    let (pool, script) = pool_with(config);
    wait_for(&pool, |status| status.closes >= 4 && status.idle == 2);
    assert!(script.count("connect") >= 6);
}

#[test]
fn a_lent_connection_is_not_closed_for_its_age() {
    let config = PoolConfig { max_size: 2, max_lifetime: Some(SOON), ..PoolConfig::default() };
    let (pool, _script) = pool_with(config);
    let held = pool.checkout().unwrap();
    // Another one expires meanwhile.
    drop(pool.checkout().unwrap());
    wait_for(&pool, |status| status.closes == 1);
    held.execute("x", &[]).unwrap();
    assert_eq!(held.backend_id().unwrap(), Some(1));
}

#[test]
fn idle_connections_are_asked_and_dead_ones_replaced_before_anybody_comes() {
    let config = PoolConfig { max_size: 2, min_idle: 2, ping_idle: Some(SOON), ..PoolConfig::default() };
    let (pool, script) = pool_with(config);
    script.are_dead.store(true, Ordering::SeqCst);
    wait_for(&pool, |status| status.closes >= 2);
    script.are_dead.store(false, Ordering::SeqCst);
    wait_for(&pool, |status| status.idle == 2);
    assert!(script.count("ask") >= 2);
}

#[test]
fn min_idle_is_refilled_when_the_database_is_back() {
    let (pool, script) = pool_with(PoolConfig { max_size: 3, min_idle: 3, ..PoolConfig::default() });
    script.set_down(true);
    script.are_dead.store(true, std::sync::atomic::Ordering::SeqCst);
    assert!(pool.checkout().unwrap().execute("lose", &[]).is_err());
    wait_for(&pool, |status| status.closes == 3 && status.is_down);
    script.are_dead.store(false, std::sync::atomic::Ordering::SeqCst);
    script.set_down(false);
    // Nobody asks for a connection, and there they are.
    wait_for(&pool, |status| status.idle == 3);
    let events: Vec<&str> = pool.status().events.iter().map(|event| event.event).collect();
    assert_eq!(events, ["lost", "down", "back"]);
}

#[test]
fn a_forgotten_connection_is_reported_once_with_who_has_it() {
    let config = PoolConfig { leak_after: Some(SOON), leak_backtrace: true, ..PoolConfig::default() };
    let (pool, _script) = pool_with(config);
    let held = pool.checkout_for(Some(Arc::new("the one who forgot it")), None).unwrap();
    wait_for(&pool, |status| status.leaks == 1);
    let leak = pool.status().events.into_iter().find(|event| event.event == "leak").unwrap();
    assert!(leak.detail.starts_with("lent to the one who forgot it for "), "{}", leak.detail);
    assert!(leak.detail.contains("a_forgotten_connection_is_reported"), "no backtrace: {}", leak.detail);
    // Some more looks later it has not been reported again.
    drop(pool.checkout_for(Some(Arc::new("another one")), None).unwrap());
    let second = pool.checkout().unwrap();
    wait_for(&pool, |status| status.leaks == 2);
    assert_eq!(pool.status().events.iter().filter(|event| event.detail.contains("the one who")).count(), 1);
    drop((held, second));
}

#[test]
fn one_pools_slow_database_delays_no_other_pool() {
    let (_stuck, script) = pool_with(PoolConfig {
        max_size: 2,
        min_idle: 1,
        max_lifetime: Some(SOON),
        steady: SteadyConfig::default(),
        ..PoolConfig::default()
    });
    script.set_slow(true);
    let config = PoolConfig { max_size: 2, min_idle: 1, idle_timeout: Some(SOON), ..PoolConfig::default() };
    let (pool, _script) = pool_with(config);
    let leases = (pool.checkout().unwrap(), pool.checkout().unwrap());
    drop(leases);
    wait_for(&pool, |status| status.open == 1);
    script.set_slow(false);
}

#[test]
fn the_list_of_pools_has_those_that_somebody_holds() {
    let (pool, _script) = pool_with(PoolConfig { max_size: 77, ..PoolConfig::default() });
    let listed = |size| pools().iter().filter(|status| status.max_size == size).count();
    assert_eq!(listed(77), 1);
    drop(pool);
    let deadline = std::time::Instant::now() + super::PATIENCE;
    // The monitor may be looking at it at this moment.
    while listed(77) > 0 {
        assert!(std::time::Instant::now() < deadline);
        std::thread::yield_now();
    }
}
