//! Tests of the steady connection, on a driver that does what the test says.

use std::sync::Arc;
use std::time::Duration;

use super::{How, Steady};
use crate::db::fake::{Behaviour, Script, Scripted};
use crate::db::{ConnectError, OpenError, Outcome, Ping, QueryError, SteadyConfig};

const PLAIN: How = How { is_idempotent: false, failover: true };
const IDEMPOTENT: How = How { is_idempotent: true, failover: true };

fn steady(config: SteadyConfig) -> (Steady, Arc<Script>) {
    let script = Arc::new(Script::default());
    (Steady::with_driver(Box::new(Scripted(script.clone())), config).unwrap(), script)
}

fn plain() -> (Steady, Arc<Script>) {
    steady(SteadyConfig { ping: Ping::NEVER, ..SteadyConfig::default() })
}

fn run(steady: &mut Steady, sql: &str) -> Result<u64, QueryError> {
    steady.execute(PLAIN, sql, &[])
}

/// Why there is no connection.
fn reason(outcome: Result<u64, QueryError>) -> ConnectError {
    match outcome {
        Err(QueryError::Reconnect(error)) => *error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_closed_connection_is_made_again_at_the_next_use_and_its_uses_restart_at_one() {
    let (mut steady, script) = plain();
    for _ in 0..3 {
        run(&mut steady, "x").unwrap();
    }
    assert_eq!(steady.uses(), 3);
    steady.close();
    steady.close();
    assert_eq!((script.events(), steady.uses()), (vec!["connect 1".to_owned(), "close 1".to_owned()], 0));
    run(&mut steady, "x").unwrap();
    assert_eq!((steady.backend_id(), steady.uses()), (Some(2), 1));
}

#[test]
fn a_connection_that_broke_unused_is_made_again_at_the_next_use() {
    let (mut steady, script) = plain();
    run(&mut steady, "break").unwrap();
    run(&mut steady, "x").unwrap();
    assert_eq!((steady.backend_id(), steady.uses()), (Some(2), 1));
    assert_eq!(script.statements(), ["1: break", "2: x"]);
    assert_eq!(steady.source.tally().reopens, 1);
}

#[test]
fn a_statement_that_may_have_taken_effect_is_not_sent_again() {
    let (mut steady, script) = plain();
    assert!(matches!(run(&mut steady, "lose"), Err(QueryError::Lost { .. })));
    assert_eq!(script.statements(), ["1: lose"]);
    run(&mut steady, "x").unwrap();
    assert_eq!(steady.backend_id(), Some(2));
}

#[test]
fn an_idempotent_statement_is_sent_again_on_a_new_connection() {
    let script = Script::behaving(Behaviour::FailsAfter(2));
    let config = SteadyConfig { ping: Ping::NEVER, ..SteadyConfig::default() };
    let mut steady = Steady::with_driver(Box::new(Scripted(script.clone())), config).unwrap();
    for _ in 0..5 {
        steady.execute(IDEMPOTENT, "x", &[]).unwrap();
    }
    assert_eq!(script.statements(), ["1: x", "1: x", "1: x", "2: x", "2: x", "2: x", "3: x"]);
    assert_eq!((steady.backend_id(), steady.uses()), (Some(3), 1));
}

#[test]
fn an_error_on_the_retry_is_raised_and_the_next_use_connects_again() {
    let (mut steady, script) = plain();
    let error = steady.execute(IDEMPOTENT, "lose", &[]).unwrap_err();
    assert!(matches!(error, QueryError::Lost { .. }));
    assert_eq!(script.statements(), ["1: lose", "2: lose"]);
    run(&mut steady, "x").unwrap();
    assert_eq!(steady.backend_id(), Some(3));
}

#[test]
fn when_reopening_fails_the_first_error_is_raised() {
    let (mut steady, script) = plain();
    script.set_down(true);
    let error = steady.execute(IDEMPOTENT, "lose", &[]).unwrap_err();
    assert!(matches!(error, QueryError::Lost { .. }), "{error}");
    // Now that there is none, the next use says why there is none.
    assert!(matches!(reason(run(&mut steady, "x")), ConnectError::Down { .. }));
}

#[test]
fn session_statements_are_replayed_on_every_reopen() {
    let session = vec!["set a".to_owned(), "set b".to_owned()];
    let (mut steady, script) = steady(SteadyConfig { session, ..SteadyConfig::default() });
    run(&mut steady, "break").unwrap();
    run(&mut steady, "x").unwrap();
    assert_eq!(script.statements(), ["1: set a", "1: set b", "1: break", "2: set a", "2: set b", "2: x"]);
    assert_eq!(steady.uses(), 1, "the session's own statements do not count");
}

#[test]
fn a_failing_session_statement_closes_and_raises() {
    let script = Arc::new(Script::default());
    let config = SteadyConfig { session: vec!["refuse 42601".to_owned()], ..SteadyConfig::default() };
    let opened = Steady::with_driver(Box::new(Scripted(script.clone())), config);
    let Err(OpenError::Connect(ConnectError::Session { statement, sqlstate, .. })) = opened else {
        panic!("{opened:?}")
    };
    assert_eq!((statement.as_str(), sqlstate.as_str()), ("refuse 42601", "42601"));
    assert_eq!(script.events(), ["connect 1", "close 1"]);
}

#[test]
fn only_fatal_failures_replace_the_connection() {
    let (mut steady, script) = plain();
    for code in ["23505", "57014", "40001", "40P01", "55P03", "25P02", "42601"] {
        let error = steady.execute(IDEMPOTENT, &format!("refuse {code}"), &[]).unwrap_err();
        assert!(matches!(error, QueryError::Database { .. }), "{error}");
    }
    assert_eq!((script.events().len(), steady.uses()), (1, 7));
}

#[test]
fn is_fatal_names_further_failures_by_code_or_class() {
    let is_fatal = vec!["53300".to_owned(), "58".to_owned()];
    let (mut steady, script) = steady(SteadyConfig { is_fatal, ..SteadyConfig::default() });
    for (code, backend) in [("53300", 2), ("58030", 3), ("53100", 3), ("23505", 3)] {
        assert!(run(&mut steady, &format!("refuse {code}")).is_err());
        run(&mut steady, "x").unwrap();
        assert_eq!(steady.backend_id(), Some(backend), "after {code}");
    }
    assert_eq!(script.count("close"), 2);
}

#[test]
fn inside_a_transaction_the_error_is_raised_and_nothing_continues_in_another_one() {
    let (mut steady, script) = plain();
    steady.begin().unwrap();
    run(&mut steady, "x").unwrap();
    let error = steady.execute(IDEMPOTENT, "lose", &[]).unwrap_err();
    assert!(matches!(error, QueryError::Lost { .. }));
    assert!(matches!(run(&mut steady, "y"), Err(QueryError::TransactionLost)));
    assert!(matches!(steady.begin(), Err(QueryError::TransactionLost)), "nor in a savepoint");
    assert!(matches!(steady.commit(), Err(QueryError::TransactionLost)));
    assert_eq!(script.statements(), ["1: x", "1: lose"]);
    // It is over now; what follows is outside of it.
    run(&mut steady, "z").unwrap();
    assert_eq!(script.statements(), ["1: x", "1: lose", "2: z"]);
}

#[test]
fn a_lost_transaction_ends_by_rollback_without_an_error_at_every_level() {
    let (mut steady, _script) = plain();
    steady.begin().unwrap();
    steady.begin().unwrap();
    assert!(run(&mut steady, "lose").is_err());
    steady.rollback().unwrap();
    assert!(matches!(run(&mut steady, "y"), Err(QueryError::TransactionLost)));
    steady.rollback().unwrap();
    assert!(!steady.is_in_transaction());
    run(&mut steady, "z").unwrap();
    assert!(matches!(steady.rollback(), Err(QueryError::NoTransaction)));
}

#[test]
fn beginning_on_a_dead_connection_begins_on_a_new_one() {
    let (mut steady, script) = plain();
    run(&mut steady, "break").unwrap();
    steady.begin().unwrap();
    run(&mut steady, "x").unwrap();
    steady.commit().unwrap();
    assert_eq!(script.statements(), ["1: break", "2: x"]);
}

#[test]
fn what_was_left_in_the_session_is_not_lost_unseen() {
    let (mut steady, _script) = plain();
    run(&mut steady, "set a").unwrap();
    run(&mut steady, "break").unwrap();
    assert!(matches!(run(&mut steady, "x"), Err(QueryError::SessionLost)));
    run(&mut steady, "x").unwrap();
    assert_eq!(steady.backend_id(), Some(2));
}

#[test]
fn a_failing_commit_is_raised_and_the_connection_replaced() {
    let (mut steady, script) = plain();
    script.behave(Behaviour::FailsCommit);
    steady.begin().unwrap();
    assert!(matches!(steady.commit(), Err(QueryError::Lost { .. })));
    assert!(!steady.is_in_transaction());
    run(&mut steady, "x").unwrap();
    assert_eq!(steady.backend_id(), Some(2));
}

#[test]
fn a_failing_rollback_is_raised_and_the_connection_replaced() {
    let (mut steady, script) = plain();
    script.behave(Behaviour::FailsRollback);
    steady.begin().unwrap();
    assert!(matches!(steady.rollback(), Err(QueryError::Lost { .. })));
    run(&mut steady, "x").unwrap();
    assert_eq!(steady.backend_id(), Some(2));
}

#[test]
fn a_commit_without_an_answer_is_looked_up_on_a_new_connection() {
    for (outcome, is_ok) in [(Outcome::Committed, true), (Outcome::RolledBack, false)] {
        let (mut steady, script) = plain();
        script.behave(Behaviour::LosesCommit(outcome));
        steady.begin().unwrap();
        let answer = steady.commit();
        assert_eq!(answer.is_ok(), is_ok, "{answer:?}");
        assert!(is_ok || matches!(answer, Err(QueryError::NotCommitted { .. })));
        assert_eq!(script.events(), ["connect 1", "close 1", "connect 2", "outcome of tx 1 on 2"]);
    }
}

#[test]
fn a_commit_that_cannot_be_looked_up_is_unknown() {
    let (mut steady, script) = plain();
    script.behave(Behaviour::LosesCommit(Outcome::Unknown));
    steady.begin().unwrap();
    assert!(matches!(steady.commit(), Err(QueryError::OutcomeUnknown { .. })));
    assert!(script.count("outcome") > 1, "asked more than once");
    steady.begin().unwrap();
    script.set_down(true);
    assert!(matches!(steady.commit(), Err(QueryError::OutcomeUnknown { .. })), "nor where nobody answers");
}

#[test]
fn max_uses_counts_statements_and_waits_for_the_end_of_a_transaction() {
    let config = SteadyConfig { max_uses: 3, ping: Ping::NEVER, ..SteadyConfig::default() };
    let (mut steady, _script) = steady(config);
    let mut backends = Vec::new();
    for _ in 0..7 {
        run(&mut steady, "x").unwrap();
        backends.push(steady.backend_id().unwrap());
    }
    assert_eq!(backends, [1, 1, 1, 2, 2, 2, 3]);
    steady.begin().unwrap();
    for _ in 0..9 {
        run(&mut steady, "x").unwrap();
        assert_eq!(steady.backend_id(), Some(3));
    }
    steady.commit().unwrap();
    run(&mut steady, "x").unwrap();
    assert_eq!((steady.backend_id(), steady.uses()), (Some(4), 1));
}

#[test]
fn a_worn_connection_serves_on_while_no_new_one_can_be_made() {
    let (mut steady, script) = steady(SteadyConfig { max_uses: 1, ..SteadyConfig::default() });
    run(&mut steady, "x").unwrap();
    script.set_down(true);
    run(&mut steady, "x").unwrap();
    assert_eq!((steady.backend_id(), script.count("close")), (Some(1), 0));
}

#[test]
fn all_eight_ping_combinations_ask_as_often_as_they_say() {
    for bits in 0..=7 {
        let config = SteadyConfig {
            ping: Ping::from_bits(bits).unwrap(),
            ping_after: Duration::ZERO,
            ..SteadyConfig::default()
        };
        let (mut steady, script) = steady(config);
        for _ in 0..3 {
            run(&mut steady, "x").unwrap();
        }
        for _ in 0..5 {
            steady.query(PLAIN, "x", &[]).unwrap();
        }
        steady.begin().unwrap();
        steady.query(PLAIN, "x", &[]).unwrap();
        run(&mut steady, "x").unwrap();
        steady.commit().unwrap();
        // The beginning of the transaction is asked like a statement, nothing inside is.
        let expected = usize::from(bits & 2 != 0) * 4 + usize::from(bits & 4 != 0) * 5;
        assert_eq!(script.count("ask"), expected, "ping {bits}");
    }
    assert!(matches!(Ping::from_bits(8), Err(OpenError::PingBits { bits: 8 })));
}

#[test]
fn a_connection_that_just_worked_is_not_asked() {
    let config =
        SteadyConfig { ping: Ping::ALWAYS, ping_after: Duration::from_secs(3600), ..SteadyConfig::default() };
    let (mut steady, script) = steady(config);
    for _ in 0..3 {
        run(&mut steady, "x").unwrap();
    }
    assert_eq!(script.count("ask"), 0);
}

#[test]
fn a_dead_connection_is_found_by_its_ping_and_replaced() {
    let config = SteadyConfig { ping: Ping::QUERY, ping_after: Duration::ZERO, ..SteadyConfig::default() };
    let (mut steady, script) = steady(config);
    script.are_dead.store(true, std::sync::atomic::Ordering::SeqCst);
    steady.query(PLAIN, "x", &[]).unwrap();
    assert_eq!(script.events(), ["connect 1", "ask 1", "close 1", "connect 2"]);
}

#[test]
fn a_failing_custom_ping_means_reconnect() {
    let config = SteadyConfig {
        ping: Ping::STATEMENT,
        ping_sql: Some("refuse 57014".to_owned()),
        ping_after: Duration::ZERO,
        ..SteadyConfig::default()
    };
    let (mut steady, script) = steady(config);
    run(&mut steady, "x").unwrap();
    assert_eq!((steady.backend_id(), script.count("ask")), (Some(2), 0));
    assert_eq!(script.statements(), ["1: refuse 57014", "2: x"]);
}

#[test]
fn a_custom_ping_that_works_is_what_is_sent() {
    let config = SteadyConfig {
        ping: Ping::ALWAYS,
        ping_sql: Some("ping".to_owned()),
        ping_after: Duration::ZERO,
        ..SteadyConfig::default()
    };
    let (mut steady, script) = steady(config);
    run(&mut steady, "x").unwrap();
    assert_eq!(script.statements(), ["1: ping", "1: x"]);
    assert_eq!(steady.uses(), 1, "a ping is no use");
}

#[test]
fn a_driver_without_ping_is_not_asked() {
    let config = SteadyConfig { ping: Ping::ALWAYS, ping_after: Duration::ZERO, ..SteadyConfig::default() };
    let (mut steady, script) = steady(config);
    script.has_no_ping.store(true, std::sync::atomic::Ordering::SeqCst);
    run(&mut steady, "x").unwrap();
    assert_eq!(script.events(), ["connect 1"]);
}

#[test]
fn no_failover_sends_nothing_again_and_nests() {
    let (mut steady, script) = plain();
    steady.no_failover(|steady| {
        assert!(steady.execute(IDEMPOTENT, "lose", &[]).is_err());
        steady.no_failover(|steady| assert!(steady.execute(IDEMPOTENT, "lose", &[]).is_err()));
        assert!(steady.execute(IDEMPOTENT, "lose", &[]).is_err(), "still inside the outer one");
        run(steady, "break").unwrap();
        assert!(matches!(run(steady, "x"), Err(QueryError::Lost { .. })), "nor is it replaced unseen");
    });
    assert_eq!(script.statements(), ["1: lose", "2: lose", "3: lose", "4: break"]);
    // Outside again: sent twice.
    assert!(steady.execute(IDEMPOTENT, "lose", &[]).is_err());
    assert_eq!(script.statements().len(), 6);
}

#[test]
fn raw_access_is_neither_counted_nor_guarded() {
    let (mut steady, script) = plain();
    steady.raw().unwrap().execute("x", &[]).unwrap();
    assert_eq!(steady.uses(), 0);
    assert!(steady.raw().unwrap().execute("lose", &[]).is_err());
    assert_eq!(script.statements(), ["1: x", "1: lose"]);
    // The next use sees that it broke.
    run(&mut steady, "y").unwrap();
    assert_eq!(steady.backend_id(), Some(2));
}

#[test]
fn a_scope_commits_on_ok_and_rolls_back_on_err() {
    let (mut steady, _script) = plain();
    let value: Result<u64, QueryError> = steady.scope(|steady| run(steady, "x"));
    assert_eq!((value.unwrap(), steady.is_in_transaction()), (0, false));
    let value: Result<(), QueryError> = steady.scope(|steady| {
        assert!(steady.is_in_transaction());
        run(steady, "refuse 23505").map(|_| ())
    });
    assert!(matches!(value, Err(QueryError::Database { .. })));
    assert!(!steady.is_in_transaction());
}

#[test]
fn a_scope_whose_commit_fails_is_an_error() {
    let (mut steady, script) = plain();
    script.behave(Behaviour::FailsCommit);
    let value: Result<u64, QueryError> = steady.scope(|steady| run(steady, "x"));
    assert!(matches!(value, Err(QueryError::Lost { .. })));
}

#[test]
fn closing_what_is_not_closeable_only_ends_its_transaction() {
    let (mut steady, script) = steady(SteadyConfig { closeable: false, ..SteadyConfig::default() });
    steady.begin().unwrap();
    steady.close();
    assert_eq!(script.events(), ["connect 1", "roll back 1"]);
    assert!(!steady.is_in_transaction());
    run(&mut steady, "x").unwrap();
    assert_eq!(steady.backend_id(), Some(1));
}

#[test]
fn a_database_that_is_down_fails_fast_and_says_since_when() {
    let (mut steady, script) = plain();
    run(&mut steady, "break").unwrap();
    script.set_down(true);
    assert!(matches!(reason(run(&mut steady, "x")), ConnectError::Unreachable { .. }));
    assert!(matches!(reason(run(&mut steady, "x")), ConnectError::Down { .. }));
    assert_eq!(steady.source.tally().failures, 1, "nobody asked the database again");
}
