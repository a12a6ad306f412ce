//! Connections that several borrowers share.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::{PATIENCE, Pool, backend, pool, pool_with, wait_for};
use crate::db::fake::Script;
use crate::db::{CheckoutError, Lease, PoolConfig, QueryError};

fn sharing(max_size: u32, max_shared: u32) -> (Pool, Arc<Script>) {
    pool_with(PoolConfig { max_size, max_shared, checkout_timeout: PATIENCE, ..PoolConfig::default() })
}

fn share(pool: &Pool) -> Lease {
    pool.checkout_shared(None, None).unwrap()
}

/// How many leases each connection has.
fn spread(leases: &[Lease]) -> BTreeMap<u64, usize> {
    let mut spread = BTreeMap::new();
    for lease in leases {
        *spread.entry(backend(lease)).or_default() += 1;
    }
    spread
}

#[test]
fn where_nothing_is_shared_a_share_is_a_connection() {
    let (pool, _script) = pool(2);
    assert_ne!(backend(&share(&pool)), 0);
    let (first, second) = (share(&pool), share(&pool));
    assert_ne!(backend(&first), backend(&second));
    assert_eq!(pool.status().shared, 0);
}

#[test]
fn max_shared_is_filled_first_then_the_least_shared() {
    let (pool, script) = sharing(5, 5);
    let mut leases: Vec<Lease> = (0..5).map(|_| share(&pool)).collect();
    assert_eq!(spread(&leases).len(), 5);
    leases.extend((5..35).map(|_| share(&pool)));
    assert!(spread(&leases).values().all(|count| *count == 7), "{:?}", spread(&leases));
    assert_eq!((script.count("connect"), pool.status().shared, pool.status().shares), (5, 5, 35));
}

#[test]
fn shares_rebalance() {
    let (pool, _script) = sharing(5, 5);
    let leases: Vec<Lease> = (0..35).map(|_| share(&pool)).collect();
    let busiest = backend(&leases[0]);
    // All of two connections' leases go but one each; the next ones fill these up again.
    let mut kept: Vec<Lease> = Vec::new();
    for lease in leases {
        let number = backend(&lease);
        let is_first = !kept.iter().any(|known| backend(known) == number);
        if number > busiest + 1 || is_first {
            kept.push(lease);
        }
    }
    let missing = 35 - kept.len();
    kept.extend((0..missing).map(|_| share(&pool)));
    assert!(spread(&kept).values().all(|count| *count == 7), "{:?}", spread(&kept));
}

#[test]
fn dedicated_connections_are_not_shared() {
    let (pool, _script) = sharing(3, 1);
    let own = pool.checkout().unwrap();
    let (first, second) = (share(&pool), share(&pool));
    assert_eq!(backend(&first), backend(&second));
    assert_ne!(backend(&first), backend(&own));
}

#[test]
fn the_last_share_brings_the_connection_back() {
    let (pool, script) = sharing(1, 1);
    let (first, second) = (share(&pool), share(&pool));
    drop(first);
    assert_eq!(pool.status().idle, 0);
    drop(second);
    assert_eq!((pool.status().idle, pool.status().shared), (1, 0));
    drop(pool.checkout_timeout(Duration::ZERO).unwrap());
    assert_eq!(script.events(), ["connect 1"]);
}

#[test]
fn one_in_a_transaction_is_not_shared() {
    let (pool, _script) = sharing(2, 2);
    let first = share(&pool);
    first.begin().unwrap();
    let others: Vec<Lease> = (0..4).map(|_| share(&pool)).collect();
    assert!(others.iter().all(|lease| backend(lease) != 1));
    first.commit().unwrap();
    assert_eq!(backend(&share(&pool)), 1, "now it is the one with the fewest shares");
}

#[test]
fn who_shares_waits_for_the_end_of_anothers_transaction() {
    let (pool, script) = sharing(1, 1);
    let (first, second) = (share(&pool), share(&pool));
    first.begin().unwrap();
    first.execute("inside", &[]).unwrap();
    thread::scope(|scope| {
        let other = scope.spawn(|| second.execute("outside", &[]));
        first.execute("inside", &[]).unwrap();
        first.commit().unwrap();
        other.join().unwrap().unwrap();
    });
    assert_eq!(script.statements(), ["1: inside", "1: inside", "1: outside"]);
}

#[test]
fn a_share_waits_no_longer_than_a_checkout() {
    let timeout = Duration::from_millis(10);
    let config =
        PoolConfig { max_size: 1, max_shared: 1, checkout_timeout: timeout, ..PoolConfig::default() };
    let (pool, _script) = pool_with(config);
    let (first, second) = (share(&pool), share(&pool));
    first.begin().unwrap();
    assert!(matches!(second.execute("x", &[]), Err(QueryError::Busy)));
    assert!(matches!(pool.checkout_shared(None, None), Err(CheckoutError::Exhausted { .. })));
    first.rollback().unwrap();
    second.execute("x", &[]).unwrap();
}

#[test]
fn one_in_line_gets_a_share_when_the_transaction_ends() {
    let (pool, _script) = sharing(1, 1);
    let first = share(&pool);
    first.begin().unwrap();
    thread::scope(|scope| {
        let other = scope.spawn(|| backend(&share(&pool)));
        wait_for(&pool, |status| status.waiting == 1);
        first.commit().unwrap();
        assert_eq!(other.join().unwrap(), 1);
    });
}

#[test]
fn a_transaction_ends_with_the_share_that_began_it() {
    let (pool, script) = sharing(1, 1);
    let (first, second) = (share(&pool), share(&pool));
    first.begin().unwrap();
    drop(first);
    second.execute("x", &[]).unwrap();
    assert_eq!(script.events(), ["connect 1", "roll back 1"]);
}

#[test]
fn what_a_statement_leaves_in_a_shared_session_is_undone_at_once() {
    let (pool, script) = sharing(1, 1);
    let (first, _second) = (share(&pool), share(&pool));
    first.execute("set x", &[]).unwrap();
    assert_eq!(script.events(), ["connect 1", "reset 1"]);
}

#[test]
fn a_share_whose_connection_breaks_is_on_a_new_one() {
    let (pool, _script) = sharing(1, 1);
    let (first, second) = (share(&pool), share(&pool));
    assert!(first.execute("lose", &[]).is_err());
    second.execute("x", &[]).unwrap();
    assert_eq!((backend(&first), backend(&second)), (2, 2));
}

#[test]
fn a_failed_connect_leaves_room_for_the_next_share() {
    let (pool, script) = sharing(1, 1);
    pool.checkout().unwrap().execute("break", &[]).unwrap();
    script.set_down(true);
    assert!(matches!(pool.checkout_shared(None, None), Err(CheckoutError::Unreachable(_))));
    script.set_down(false);
    wait_for(&pool, |status| !status.is_down);
    share(&pool).execute("x", &[]).unwrap();
    assert_eq!(pool.status().shared, 0);
}

#[test]
fn closing_accounts_for_shared_connections_too() {
    let (pool, script) = sharing(2, 2);
    let (first, second) = (share(&pool), share(&pool));
    pool.close();
    drop((first, second));
    assert_eq!((script.count("connect"), script.count("close")), (2, 2));
}
