//! Tests of which settings are refused.

use std::sync::Arc;
use std::time::Duration;

use super::{PoolConfig, SteadyConfig};
use crate::db::fake::{Script, Scripted};
use crate::db::{OpenError, Sqlite};

fn check(config: PoolConfig) -> Result<PoolConfig, OpenError> {
    config.checked(&Scripted(Arc::new(Script::default())))
}

fn steady(config: SteadyConfig) -> Result<PoolConfig, OpenError> {
    check(PoolConfig { steady: config, ..PoolConfig::default() })
}

#[test]
fn the_defaults_make_sense() {
    assert_eq!(check(PoolConfig::default()).unwrap(), PoolConfig::default());
    let fixed = check(PoolConfig::fixed(3)).unwrap();
    assert_eq!((fixed.max_size, fixed.min_idle, fixed.max_idle(), fixed.idle_timeout), (3, 3, 3, None));
}

#[test]
fn limits_that_contradict_each_other_are_refused_by_name() {
    let base = PoolConfig { max_size: 4, ..PoolConfig::default() };
    let refused = |config: PoolConfig| match check(config).unwrap_err() {
        OpenError::TooMany { name, value: 5, limit_name, limit } => (name, limit_name, limit),
        other => panic!("{other}"),
    };
    assert_eq!(refused(PoolConfig { min_idle: 5, ..base.clone() }), ("min_idle", "max_size", 4));
    assert_eq!(refused(PoolConfig { max_idle: Some(5), ..base.clone() }), ("max_idle", "max_size", 4));
    assert_eq!(refused(PoolConfig { max_shared: 5, ..base.clone() }), ("max_shared", "max_size", 4));
    let both = PoolConfig { max_size: 9, min_idle: 5, max_idle: Some(4), ..base.clone() };
    assert_eq!(refused(both), ("min_idle", "max_idle", 4));
    assert!(matches!(check(PoolConfig { max_size: 0, ..base }), Err(OpenError::NoSize)));
}

#[test]
fn durations_of_nothing_are_refused_by_name() {
    let zero = Some(Duration::ZERO);
    for (name, config) in [
        ("idle_timeout", PoolConfig { idle_timeout: zero, ..PoolConfig::default() }),
        ("max_lifetime", PoolConfig { max_lifetime: zero, ..PoolConfig::default() }),
        ("ping_idle", PoolConfig { ping_idle: zero, ..PoolConfig::default() }),
        ("leak_after", PoolConfig { leak_after: zero, ..PoolConfig::default() }),
    ] {
        assert!(matches!(check(config), Err(OpenError::ZeroDuration { name: found }) if found == name));
    }
    let ping = SteadyConfig { ping_timeout: Duration::ZERO, ..SteadyConfig::default() };
    assert!(matches!(steady(ping), Err(OpenError::ZeroDuration { name: "ping_timeout" })));
}

#[test]
fn classes_of_failures_and_statements_are_checked() {
    for code in ["5", "533", "533000", "57p01", "08 01", ""] {
        let config = SteadyConfig { is_fatal: vec![code.to_owned()], ..SteadyConfig::default() };
        assert!(matches!(steady(config), Err(OpenError::Sqlstate { .. })), "{code}");
    }
    let good =
        SteadyConfig { is_fatal: vec!["08".to_owned(), "57P01".to_owned()], ..SteadyConfig::default() };
    assert!(steady(good).is_ok());
    let session =
        SteadyConfig { session: vec!["SET a = 1".to_owned(), " ".to_owned()], ..SteadyConfig::default() };
    assert!(matches!(steady(session), Err(OpenError::EmptyStatement { name: "session" })));
    let ping_sql = SteadyConfig { ping_sql: Some(String::new()), ..SteadyConfig::default() };
    assert!(matches!(steady(ping_sql), Err(OpenError::EmptyStatement { name: "ping_sql" })));
}

#[test]
fn sharing_is_refused_below_the_level_that_it_needs() {
    let script = Arc::new(Script::default());
    script.is_unshareable.store(true, std::sync::atomic::Ordering::SeqCst);
    let config = PoolConfig { max_shared: 1, ..PoolConfig::default() };
    let error = config.checked(&Scripted(script)).unwrap_err();
    assert!(matches!(error, OpenError::NotShareable { max_shared: 1, driver: "scripted" }), "{error}");
}

#[test]
fn a_driver_with_fewer_connections_lowers_the_limits() {
    let memory = Sqlite::parse(":memory:", std::path::Path::new("/nowhere")).unwrap();
    let config =
        PoolConfig { max_size: 9, min_idle: 3, max_idle: Some(5), max_shared: 2, ..PoolConfig::default() };
    let config = config.checked(&memory).unwrap();
    assert_eq!((config.max_size, config.min_idle, config.max_idle, config.max_shared), (1, 1, Some(1), 1));
}
