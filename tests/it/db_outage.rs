//! What a client is told while the database is away is what the database has when it is back.
//!
//! How long it takes is measured by `./tests/outage`.

use std::time::Duration;

use tests::outage::{Plan, run};

const PLAN: Plan =
    Plan { clients: 32, outage: Duration::from_millis(500), requests: 200, reloads: false, pgbouncer: false };

/// Each acknowledged transfer exactly once, none half done, none that was refused.
#[test]
fn ledger_balances_after_the_server_was_killed_under_load() {
    let outcome = run(PLAN);
    assert!(outcome.wrong.is_empty(), "{:#?}", outcome.wrong);
    assert!(outcome.refused > 0 && outcome.acknowledged >= 400, "{outcome:?}");
}

/// The same while the plugin's code changes: the pool is not the plugin's.
#[test]
fn ledger_balances_after_a_kill_during_reloads() {
    let outcome = run(Plan { reloads: true, ..PLAN });
    assert!(outcome.wrong.is_empty(), "{:#?}", outcome.wrong);
    assert!(outcome.refused > 0 && outcome.reloads > 0, "{outcome:?}");
}

/// The same where the host cannot see the server: pgbouncer stays, and knows no better.
#[test]
fn ledger_balances_after_a_kill_behind_pgbouncer() {
    let outcome = run(Plan { pgbouncer: true, ..PLAN });
    assert!(outcome.wrong.is_empty(), "{:#?}", outcome.wrong);
    assert!(outcome.refused > 0 && outcome.acknowledged >= 400, "{outcome:?}");
}
