//! Tests of how a request's transactions end, on SQLite.

use std::path::Path;
use std::sync::Arc;

use tempfile::TempDir;

use super::{CommitError, Ending, Joined, Reason, Rule, Scope, TxError};
use crate::db::{Access, Block, CheckoutError, Pool, PoolConfig, QueryError, TransactionOptions, Value};

const OK: Ending = Ending::Answered { status: 200 };
const NOT_FOUND: Ending = Ending::Answered { status: 404 };

/// A database with a table `t`, and one whose rows are only checked at the commit.
fn pool(dir: &TempDir, name: &str) -> Pool {
    let url = format!("sqlite:{}/{name}.db", dir.path().display());
    let pool = Pool::open(&url, Path::new("/nowhere"), PoolConfig::default()).unwrap();
    let tables = "CREATE TABLE t (x INTEGER PRIMARY KEY); \
                  CREATE TABLE checked (x INTEGER REFERENCES t (x) DEFERRABLE INITIALLY DEFERRED)";
    pool.checkout().unwrap().batch_execute(tables).unwrap();
    pool
}

fn insert(joined: &Joined, x: i64) -> Result<u64, TxError> {
    joined.run(|lease| lease.execute("INSERT INTO t VALUES ($1)", &[Value::Int(x)]))
}

/// The numbers that have been committed.
fn kept(pool: &Pool) -> Vec<i64> {
    let block = pool.checkout().unwrap().query("SELECT x FROM t ORDER BY x", &[]).unwrap();
    let block = Block::parse(block).unwrap();
    let cell = |row| match block.cell(row, 0).unwrap().unwrap() {
        Value::Int(x) => x,
        other => panic!("{other}"),
    };
    (0..block.rows()).map(cell).collect()
}

fn scope() -> Arc<Scope> {
    Arc::default()
}

#[test]
fn what_is_kept_depends_on_the_ending_and_the_rule() {
    let dir = tempfile::tempdir().unwrap();
    let pool = pool(&dir, "a");
    let cases = [
        (1, Rule::Answers, OK, true),
        (2, Rule::Answers, NOT_FOUND, true),
        (3, Rule::Answers, Ending::Failed, false),
        (4, Rule::Successes, OK, true),
        (5, Rule::Successes, NOT_FOUND, false),
        (6, Rule::Successes, Ending::Failed, false),
    ];
    for (x, rule, ending, _) in cases {
        let scope = scope();
        insert(&scope.join(&pool, rule).unwrap(), x).unwrap();
        scope.conclude(ending).unwrap();
    }
    let expected: Vec<i64> = cases.iter().filter(|case| case.3).map(|case| case.0).collect();
    assert_eq!(kept(&pool), expected);
}

#[test]
fn the_strictest_rule_holds() {
    let dir = tempfile::tempdir().unwrap();
    let pool = pool(&dir, "a");
    let scope = scope();
    insert(&scope.join(&pool, Rule::Successes).unwrap(), 1).unwrap();
    insert(&scope.join(&pool, Rule::Answers).unwrap(), 2).unwrap();
    scope.conclude(NOT_FOUND).unwrap();
    assert!(kept(&pool).is_empty());
}

#[test]
fn a_pool_that_is_only_named_is_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    let pool = pool(&dir, "a");
    let before = pool.status().checkouts;
    let scope = scope();
    let joined = scope.join(&pool, Rule::Answers).unwrap();
    scope.conclude(OK).unwrap();
    assert_eq!(pool.status().checkouts, before);
    assert!(matches!(insert(&joined, 1), Err(TxError::Ended)), "it cannot begin any more");
    assert!(matches!(scope.join(&pool, Rule::Answers), Err(TxError::Ended)));
}

#[test]
fn a_pool_has_one_transaction_in_a_scope() {
    let dir = tempfile::tempdir().unwrap();
    let pool = pool(&dir, "a");
    let (scope, before) = (scope(), pool.status().checkouts);
    let joined = [&pool, &pool.clone()].map(|pool| scope.join(pool, Rule::Answers).unwrap());
    insert(&joined[0], 1).unwrap();
    insert(&joined[1], 2).unwrap();
    assert_eq!(pool.status().checkouts, before + 1);
    scope.conclude(OK).unwrap();
    assert_eq!(kept(&pool), [1, 2]);
}

#[test]
fn a_doomed_scope_is_rolled_back_whatever_the_answer() {
    let dir = tempfile::tempdir().unwrap();
    let pool = pool(&dir, "a");
    let scope = scope();
    insert(&scope.join(&pool, Rule::Answers).unwrap(), 1).unwrap();
    scope.doom();
    scope.conclude(OK).unwrap();
    assert!(kept(&pool).is_empty());
}

#[test]
fn the_first_commit_that_fails_rolls_back_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let [first, second, third] = ["first", "second", "third"].map(|name| pool(&dir, name));
    let scope = scope();
    // Named in another order than begun: what counts is the first statement.
    let joined = [&third, &second, &first].map(|pool| scope.join(pool, Rule::Answers).unwrap());
    insert(&joined[2], 1).unwrap();
    joined[1].run(|lease| lease.execute("INSERT INTO checked VALUES (7)", &[])).unwrap();
    insert(&joined[0], 3).unwrap();
    let error = scope.conclude(OK).unwrap_err();
    let CommitError::Refused { address, committed: 1, source } = &error else { panic!("{error}") };
    let QueryError::Database { sqlstate, .. } = &**source else { panic!("{source}") };
    assert!(address.ends_with("second.db"), "{address}");
    assert_eq!(sqlstate, "23503");
    assert!(!error.is_nothing_kept() && !error.is_passing());
    assert_eq!((kept(&first), kept(&second), kept(&third)), (vec![1], vec![], vec![]));
}

#[test]
fn savepoints_belong_to_their_holder_and_end_innermost_first() {
    let dir = tempfile::tempdir().unwrap();
    let pool = pool(&dir, "a");
    let scope = scope();
    let joined = [(); 2].map(|()| scope.join(&pool, Rule::Answers).unwrap());
    insert(&joined[0], 1).unwrap();
    assert!(matches!(joined[0].commit(), Err(TxError::NotYours)), "the transaction is the host's");
    joined[0].begin().unwrap();
    insert(&joined[0], 2).unwrap();
    assert!(matches!(joined[1].rollback(), Err(TxError::NotYours)));
    joined[1].begin().unwrap();
    insert(&joined[1], 3).unwrap();
    assert!(matches!(joined[0].commit(), Err(TxError::Overlapping)));
    joined[1].rollback().unwrap();
    joined[0].commit().unwrap();
    // Left open, so nobody has kept it.
    joined[0].begin().unwrap();
    insert(&joined[0], 4).unwrap();
    scope.conclude(OK).unwrap();
    assert_eq!(kept(&pool), [1, 2]);
}

#[test]
fn an_abandoned_scope_is_rolled_back_and_never_committed() {
    let dir = tempfile::tempdir().unwrap();
    let pool = pool(&dir, "a");
    let scope = scope();
    let joined = scope.join(&pool, Rule::Answers).unwrap();
    scope.run(|| insert(&joined, 1)).unwrap();
    assert!(scope.abandon(Reason::Deadline));
    // Refused at once, be the rollback done already or not.
    let refused = scope.run(|| insert(&joined, 2)).unwrap_err();
    assert!(refused.to_string().starts_with("the request's deadline has passed"), "{refused}");
    assert!(matches!(scope.conclude(OK), Err(CommitError::Abandoned { reason: Reason::Deadline })));
    assert!(kept(&pool).is_empty());
}

#[test]
fn what_is_being_committed_is_not_abandoned() {
    let dir = tempfile::tempdir().unwrap();
    let pool = pool(&dir, "a");
    let scope = scope();
    insert(&scope.join(&pool, Rule::Answers).unwrap(), 1).unwrap();
    scope.conclude(OK).unwrap();
    assert!(!scope.abandon(Reason::Deadline));
    assert_eq!(scope.begin_again(), Err(Reason::Deadline), "the wish was remembered");
}

#[test]
fn a_dropped_scope_leaves_nothing_open() {
    let dir = tempfile::tempdir().unwrap();
    let pool = pool(&dir, "a");
    let scope = scope();
    insert(&scope.join(&pool, Rule::Answers).unwrap(), 1).unwrap();
    drop(scope);
    assert!(kept(&pool).is_empty());
    assert_eq!(pool.status().in_use, 0);
}

#[test]
fn another_run_begins_from_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let pool = pool(&dir, "a");
    let scope = scope();
    let first = scope.join(&pool, Rule::Successes).unwrap();
    insert(&first, 1).unwrap();
    scope.doom();
    scope.conclude(Ending::Failed).unwrap();
    scope.begin_again().unwrap();
    assert!(matches!(insert(&first, 2), Err(TxError::Ended)));
    insert(&scope.join(&pool, Rule::Answers).unwrap(), 3).unwrap();
    scope.conclude(NOT_FOUND).unwrap();
    assert_eq!(kept(&pool), [3]);
}

/// Whoever swallows the error of a statement that took the transaction along is told at the latest by the commit.
#[test]
fn a_transaction_that_the_database_ended_keeps_nothing_and_is_no_success() {
    let dir = tempfile::tempdir().unwrap();
    let pool = pool(&dir, "a");
    for in_savepoint in [false, true] {
        let scope = scope();
        let joined = scope.join(&pool, Rule::Answers).unwrap();
        insert(&joined, 1).unwrap();
        if in_savepoint {
            joined.begin().unwrap();
        }
        joined.run(|lease| lease.execute("INSERT OR ROLLBACK INTO t VALUES (1)", &[])).unwrap_err();
        for later in [insert(&joined, 2).map(drop), joined.begin()] {
            assert!(matches!(later, Err(TxError::Query(QueryError::TransactionEnded { .. }))), "{later:?}");
        }
        if in_savepoint {
            joined.rollback().unwrap();
            insert(&joined, 3).unwrap_err();
        }
        let error = scope.conclude(OK).unwrap_err();
        assert!(matches!(error, CommitError::Refused { committed: 0, .. }), "{error}");
        assert!(error.is_nothing_kept());
        assert!(kept(&pool).is_empty());
    }
}

#[test]
fn readers_of_several_requests_run_side_by_side() {
    let dir = tempfile::tempdir().unwrap();
    let pool = pool(&dir, "a");
    let scopes = [scope(), scope(), scope()];
    let joined = scopes.each_ref().map(|scope| scope.join(&pool, Rule::Answers).unwrap());
    for joined in &joined {
        joined.run(|lease| lease.query("SELECT x FROM t", &[])).unwrap();
    }
    // And none is in the way of who writes.
    insert(&joined[0], 1).unwrap();
    for scope in &scopes {
        scope.conclude(OK).unwrap();
    }
    assert_eq!(kept(&pool), [1]);
}

/// Who has read what is old by now runs again, and then nobody comes between.
#[test]
fn a_reader_that_was_overtaken_is_told_so_and_its_second_run_is_safe_from_that() {
    let dir = tempfile::tempdir().unwrap();
    let pool = pool(&dir, "a");
    let scope = scope();
    let read = |joined: &Joined| joined.run(|lease| lease.query("SELECT x FROM t", &[])).unwrap();
    let joined = scope.join(&pool, Rule::Answers).unwrap();
    read(&joined);
    pool.checkout().unwrap().execute("INSERT INTO t VALUES (1)", &[]).unwrap();
    insert(&joined, 2).unwrap_err();
    assert!(scope.was_serialisation_failure());
    scope.conclude(Ending::Failed).unwrap();
    scope.begin_again().unwrap();
    let joined = scope.join(&pool, Rule::Answers).unwrap();
    read(&joined);
    let other = rusqlite::Connection::open(dir.path().join("a.db")).unwrap();
    other.busy_timeout(std::time::Duration::ZERO).unwrap();
    assert!(other.execute("INSERT INTO t VALUES (3)", []).is_err(), "the right to write is the second run's");
    insert(&joined, 2).unwrap();
    scope.conclude(OK).unwrap();
    assert_eq!(kept(&pool), [1, 2]);
}

#[test]
fn holders_of_a_transaction_agree_on_how_it_begins() {
    let dir = tempfile::tempdir().unwrap();
    let pool = pool(&dir, "a");
    let scope = scope();
    let with = |access| TransactionOptions { access: Some(access), ..TransactionOptions::default() };
    let join = |options| scope.join_for(None, &pool, Rule::Answers, options);
    let first = scope.join(&pool, Rule::Answers).unwrap();
    let reader = join(with(Access::ReadOnly)).unwrap();
    assert!(matches!(join(with(Access::Immediate)), Err(TxError::OtherOptions)));
    join(with(Access::ReadOnly)).unwrap();
    let refused = insert(&first, 1).unwrap_err();
    assert!(matches!(&refused, TxError::Query(error) if error.sqlstate() == "25006"), "{refused}");
    reader.run(|lease| lease.query("SELECT x FROM t", &[])).unwrap();
    join(TransactionOptions::default()).unwrap();
    scope.conclude(OK).unwrap();
}

/// A lock that somebody else holds for the whole time-out is no fault of the request's.
#[test]
fn a_lock_that_is_held_by_another_is_passing() {
    let dir = tempfile::tempdir().unwrap();
    let pool = pool(&dir, "a");
    let other = rusqlite::Connection::open(dir.path().join("a.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    for access in [Access::Deferred, Access::Immediate] {
        let scope = Arc::new(Scope::with_access(access));
        let joined = scope.join(&pool, Rule::Answers).unwrap();
        let lock = joined.run(|lease| {
            lease.batch_execute("PRAGMA busy_timeout = 1")?;
            lease.execute("INSERT INTO t VALUES (1)", &[])
        });
        let TxError::Query(error) = lock.unwrap_err() else { panic!("no lock") };
        assert_eq!(error.sqlstate(), "55P03");
        assert!(scope.was_passing() && !scope.was_serialisation_failure());
        scope.conclude(Ending::Failed).unwrap();
    }
}

/// It would wait for what it gives back only when it has ended.
#[test]
fn a_request_that_would_wait_for_its_own_transaction_is_told_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}/a.db", dir.path().display());
    let hour = std::time::Duration::from_secs(3_600);
    let config = |max_size| PoolConfig { max_size, checkout_timeout: hour, ..PoolConfig::default() };
    let pool = Pool::open(&url, Path::new("/nowhere"), config(1)).unwrap();
    let read = |joined: &Joined| joined.run(|lease| lease.query("SELECT 1", &[])).unwrap();
    let own = |outcome: Result<crate::db::Lease, CheckoutError>| {
        matches!(outcome, Err(CheckoutError::OwnWork { .. }))
    };
    let scope = scope();
    scope.run(|| {
        read(&scope.join(&pool, Rule::Answers).unwrap());
        assert!(own(pool.checkout()));
        assert!(own(pool.checkout_shared(None, None)));
    });
    // Another one waits, as it should, for it may get it.
    let soon = Some(std::time::Duration::from_millis(1));
    assert!(matches!(pool.checkout_for(None, soon), Err(CheckoutError::Exhausted { .. })));
    scope.conclude(OK).unwrap();
    drop(pool.checkout().unwrap());
    // What it might return meanwhile is waited for; then it is told whose they are.
    let scope = Arc::<Scope>::default();
    scope.run(|| {
        let held = pool.checkout().unwrap();
        assert!(own(pool.checkout_for(None, soon)));
        drop(held);
        drop(pool.checkout().unwrap());
    });
    // With a second connection there is one to be had.
    let pool = Pool::open(&url, Path::new("/nowhere"), config(2)).unwrap();
    scope.run(|| {
        read(&scope.join(&pool, Rule::Answers).unwrap());
        drop(pool.checkout().unwrap());
    });
    scope.conclude(OK).unwrap();
}
