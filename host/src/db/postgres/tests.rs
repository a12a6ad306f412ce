//! Tests that need no server: addresses, parameters, printed values.

use postgres_types::Type;

use super::Postgres;
use super::params::{Param, params};
use super::text::Print;
use crate::db::{Driver, QueryError, Value};

#[test]
fn an_address_shows_no_password() {
    let driver = Postgres::parse("postgres://ada:s3cret@db.example:6543/shop?connect_timeout=1").unwrap();
    assert_eq!(driver.address(), "postgres://ada@db.example:6543/shop");
    assert!(!format!("{driver:?}").contains("s3cret"));
    for bad in ["postgres://ada:s3cret@db:port/x", "postgres://ada:s3cret@db/x?frob=1"] {
        let error = Postgres::parse(bad).unwrap_err();
        assert!(!error.to_string().contains("s3cret"), "{error}");
    }
}

#[test]
fn the_drivers_missing_timeouts_are_set() {
    let config = Postgres::parse("postgres://db/x").unwrap().config;
    assert_eq!(config.get_connect_timeout().unwrap().as_secs(), 5);
    assert_eq!(config.get_keepalives_idle().as_secs(), 30);
    assert_eq!(config.get_application_name(), Some("host"));
    let config = Postgres::parse("postgres://db/x?connect_timeout=1&application_name=a").unwrap().config;
    assert_eq!(config.get_connect_timeout().unwrap().as_secs(), 1);
    assert_eq!(config.get_application_name(), Some("a"));
}

#[test]
fn every_sslmode_of_libpq_is_understood_and_no_other() {
    use postgres::config::SslMode::{Disable, Prefer, Require};
    for (mode, driver) in [("disable", Disable), ("allow", Prefer), ("prefer", Prefer), ("require", Require)]
    {
        let url = format!("postgres://db/x?sslmode={mode}&connect_timeout=1");
        assert_eq!(Postgres::parse(&url).unwrap().config.get_ssl_mode(), driver);
    }
    assert_eq!(Postgres::parse("postgres://db/x").unwrap().config.get_ssl_mode(), Prefer);
    let unknown = Postgres::parse("postgres://db/x?sslmode=yes").unwrap_err().to_string();
    assert!(unknown.contains("`sslmode=yes`: write `disable`"), "{unknown}");
    for mode in ["verify-ca", "verify-full"] {
        let url = format!("postgres://db/x?sslmode={mode}&sslrootcert=/no%20where.pem");
        let missing = Postgres::parse(&url).unwrap_err().to_string();
        assert!(missing.contains("`sslrootcert=/no where.pem` cannot be read"), "{missing}");
    }
}

#[test]
fn integers_are_checked_against_their_parameter() {
    let out_of_range = |ty: &Type, value: i64| {
        let error = params(&[Type::TEXT, ty.clone()], &[Value::Null, Value::Int(value)]).unwrap_err();
        assert!(matches!(error, QueryError::OutOfRange { number: 2, .. }), "{error}");
        error.to_string()
    };
    assert_eq!(out_of_range(&Type::INT2, 32_768), "parameter $2: 32768 does not fit int2");
    out_of_range(&Type::INT4, 1 << 31);
    out_of_range(&Type::OID, -1);
    out_of_range(&Type::FLOAT4, (1 << 24) + 1);
    out_of_range(&Type::FLOAT8, (1 << 53) + 1);
    let kept = params(&[Type::INT2], &[Value::Int(-32_768)]).unwrap();
    assert!(matches!(kept[..], [Param::Int2(i16::MIN)]));
    let error = params(&[Type::FLOAT4], &[Value::Float(1e39)]).unwrap_err();
    assert!(matches!(error, QueryError::OutOfRange { number: 1, .. }));
}

#[test]
fn values_of_another_kind_are_refused() {
    let error = params(&[Type::TEXT], &[Value::Int(1)]).unwrap_err();
    assert_eq!(error.to_string(), "parameter $1: integer cannot be sent as text");
    assert!(params(&[Type::INT4], &[Value::Float(1.0)]).is_err());
    assert!(params(&[Type::TEXT], &[Value::Bytes(b"x")]).is_err());
    let error = params(&[Type::TEXT], &[]).unwrap_err();
    assert!(matches!(error, QueryError::ParameterCount { expected: 1, given: 0 }));
}

#[test]
fn bytes_of_a_wrong_length_are_no_value() {
    let all = [
        Print::Date,
        Print::Interval,
        Print::Jsonb,
        Print::Numeric,
        Print::Time,
        Print::Timestamp,
        Print::TimestampUtc,
        Print::Uuid,
    ];
    for print in all {
        for bytes in [&[][..], &[0xff; 3], &[0xff; 31]] {
            assert_eq!(print.write(bytes, &mut String::new()), None, "{print:?} {bytes:?}");
        }
    }
}

#[test]
fn days_before_the_year_one_are_bc() {
    let mut text = String::new();
    Print::Date.write(&(-730_120_i32).to_be_bytes(), &mut text).unwrap();
    assert_eq!(text, "0001-12-31 BC");
}

#[test]
fn a_server_that_accepts_and_says_nothing_is_given_up() {
    // The system accepts for the listener, which never reads.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("postgres://{}/x?connect_timeout=1", silent.local_addr().unwrap());
    let error = Postgres::parse(&url).unwrap().connect().err().unwrap();
    assert!(error.to_string().ends_with("no answer within 1 s"), "{error}");
}
