//! Numbers, addresses, durations and characters, on both databases: every digit, or an error.

use std::fmt::Debug;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::time::Duration;

use host::db::{Block, Lease, Pool, PoolConfig, Value};
use plugin_api::db::{FromValue, Mismatch, Number, Rows, ToValue};
use rust_decimal::Decimal;

fn open(url: &str) -> Lease {
    Pool::open(url, Path::new("/nowhere"), PoolConfig::default()).unwrap().checkout().unwrap()
}

fn get<T: for<'a> FromValue<'a>>(lease: &Lease, sql: &str, params: &[Value<'_>]) -> Result<T, String> {
    let block =
        Block::parse(lease.query(sql, params).unwrap_or_else(|error| panic!("{sql}: {error}"))).unwrap();
    Rows::from(block).first().unwrap().get(0).map_err(|error| error.to_string())
}

#[track_caller]
fn comes_back<T: ToValue + for<'a> FromValue<'a> + PartialEq + Debug>(lease: &Lease, ty: &str, value: T) {
    let sent = value.to_value().unwrap();
    let found = get::<T>(lease, &format!("SELECT CAST($1 AS {ty})"), &[sent.as_value()]);
    assert_eq!(found.as_ref(), Ok(&value), "{ty}");
}

#[test]
fn numbers_of_numeric_are_read_and_written_by_choice() {
    let lease = open(&super::url());
    comes_back(&lease, "numeric", Number(u64::MAX));
    comes_back(&lease, "numeric", Number(i128::MIN));
    comes_back(&lease, "numeric", Number(-7_i32));
    comes_back(&lease, "numeric", Number(0.1_f64));
    comes_back(&lease, "numeric", Number(f64::INFINITY));
    comes_back(&lease, "numeric[]", vec![Number(u64::MAX), Number(0)]);
    assert_eq!(get::<Number<i64>>(&lease, "SELECT 42.00::numeric", &[]), Ok(Number(42)));
    assert!(get::<Number<i64>>(&lease, "SELECT 42.5::numeric", &[]).is_err());
    assert!(get::<Number<u8>>(&lease, "SELECT 256::numeric", &[]).is_err());
    assert!(get::<Number<i64>>(&lease, "SELECT 'NaN'::numeric", &[]).is_err());
    assert_eq!(get::<Number<f64>>(&lease, "SELECT 0.10000000000000000001::numeric", &[]), Ok(Number(0.1)));
    // An integer column does not take what is no integer of its own.
    let sent = Number(u64::MAX).to_value().unwrap();
    assert!(lease.query("SELECT $1::int8", &[sent.as_value()]).is_err());
    assert!(u64::MAX.to_value().unwrap_err().to_string().contains("`db::Number`"));
    comes_back(&open("sqlite::memory:"), "TEXT", Number(u64::MAX));
}

#[test]
fn decimals_keep_every_digit() {
    let long: Decimal = "-1234567890.123456789012345678".parse().unwrap();
    let lease = open(&super::url());
    comes_back(&lease, "numeric", long);
    comes_back(&lease, "numeric[]", vec![long, Decimal::ONE]);
    assert!(get::<Decimal>(&lease, "SELECT 'NaN'::numeric", &[]).is_err());
    assert!(get::<Decimal>(&lease, "SELECT 1e40::numeric", &[]).is_err());
    let lease = open("sqlite::memory:");
    comes_back(&lease, "TEXT", long);
    lease.batch_execute("CREATE TABLE t (n NUMERIC)").unwrap();
    let short: Decimal = "19.90".parse().unwrap();
    lease.execute("INSERT INTO t VALUES ($1)", &[short.to_value().unwrap().as_value()]).unwrap();
    assert_eq!(get::<Decimal>(&lease, "SELECT n FROM t", &[]), Ok(short));
}

#[test]
fn addresses_durations_and_characters_are_read_and_written() {
    for (lease, types) in [
        (open(&super::url()), ["inet", "interval", "\"char\"", "char(1)"]),
        (open("sqlite::memory:"), ["TEXT"; 4]),
    ] {
        comes_back(&lease, types[0], IpAddr::from([10, 0, 0, 1]));
        comes_back(&lease, types[0], Ipv4Addr::LOCALHOST);
        comes_back(&lease, types[0], Ipv6Addr::LOCALHOST);
        for duration in [
            Duration::ZERO,
            Duration::from_micros(1),
            Duration::from_millis(93_784_567),
            Duration::from_secs(86_400 * 400),
        ] {
            comes_back(&lease, types[1], duration);
        }
        comes_back(&lease, types[3], 'x');
        comes_back(&lease, types[3], '\u{fc}');
    }
    let lease = open(&super::url());
    comes_back(&lease, "inet[]", vec![IpAddr::from([10, 0, 0, 1])]);
    assert!(get::<IpAddr>(&lease, "SELECT '10.0.0.0/8'::inet", &[]).is_err());
    assert!(get::<Ipv4Addr>(&lease, "SELECT '::1'::inet", &[]).is_err());
    assert_eq!(
        get::<Duration>(&lease, "SELECT '1 day 02:00:00.5'::interval", &[]),
        Ok(Duration::from_millis(93_600_500))
    );
    for strange in ["1 mon", "1 year", "-00:00:01", "-1 day"] {
        assert!(get::<Duration>(&lease, &format!("SELECT '{strange}'::interval"), &[]).is_err(), "{strange}");
    }
    assert_eq!(
        char::from_value(Value::Text("ab")),
        Err(Mismatch::Unreadable { reason: "it is not one character".to_owned() })
    );
    assert!(char::from_value(Value::Text("")).is_err());
}
