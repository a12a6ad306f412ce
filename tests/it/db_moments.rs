//! Every type of a date or time of three crates against every column that holds one: right, or an error that says why.

use std::path::Path;

use host::db::{Block, Lease, Pool, PoolConfig, Value};
use plugin_api::db::{FromValue, Rows, ToValue};

fn open(url: &str) -> Lease {
    Pool::open(url, Path::new("/nowhere"), PoolConfig::default()).unwrap().checkout().unwrap()
}

fn sqlite() -> Lease {
    open("sqlite::memory:")
}

/// Reads the first cell as a plugin does.
fn get<T: for<'a> FromValue<'a>>(lease: &Lease, sql: &str, params: &[Value<'_>]) -> Result<T, String> {
    let block =
        Block::parse(lease.query(sql, params).unwrap_or_else(|error| panic!("{sql}: {error}"))).unwrap();
    Rows::from(block).first().unwrap().get(0).map_err(|error| error.to_string())
}

/// The kinds of types, in the order of the cases below.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Date,
    Time,
    Civil,
    Moment,
}

/// Which of the types can be read of what a statement finds.
fn readable(lease: &Lease, sql: &str) -> Vec<(&'static str, Kind)> {
    use Kind::{Civil, Date, Moment, Time};
    macro_rules! those {
        ($($type:ty => $kind:ident),* $(,)?) => {{
            let mut those = Vec::new();
            $(if get::<$type>(lease, sql, &[]).is_ok() { those.push((stringify!($type), $kind)); })*
            those
        }};
    }
    those! {
        chrono::NaiveDate => Date, jiff::civil::Date => Date, time::Date => Date,
        chrono::NaiveTime => Time, jiff::civil::Time => Time, time::Time => Time,
        chrono::NaiveDateTime => Civil, jiff::civil::DateTime => Civil, time::PrimitiveDateTime => Civil,
        chrono::DateTime<chrono::Utc> => Moment, chrono::DateTime<chrono::FixedOffset> => Moment,
        jiff::Timestamp => Moment, time::OffsetDateTime => Moment,
    }
}

fn are(readable: &[(&str, Kind)], kinds: &[Kind]) -> bool {
    let count = |kind: &Kind| if *kind == Kind::Moment { 4 } else { 3 };
    readable.iter().all(|(_, kind)| kinds.contains(kind))
        && readable.len() == kinds.iter().map(count).sum::<usize>()
}

#[test]
fn a_column_becomes_the_types_that_hold_all_of_it_and_no_other() {
    use Kind::{Civil, Date, Moment, Time};
    let lease = open(&super::url());
    lease.batch_execute("SET TimeZone = 'Asia/Kolkata'").unwrap();
    for (column, kinds) in [
        ("date '2024-02-29'", &[Date][..]),
        ("time '23:59:58.010203'", &[Time]),
        ("timetz '23:59:58+02'", &[]),
        ("timestamp '2024-02-29 23:59:58'", &[Civil]),
        ("timestamptz '2024-02-29 23:59:58+00'", &[Moment]),
        ("text '2024-02-29 23:59:58'", &[Civil]),
        ("timestamp '0001-01-01 00:00:00'", &[Civil]),
        ("date 'infinity'", &[]),
        ("timestamptz '-infinity'", &[]),
        ("date '0044-03-15 BC'", &[]),
        ("time '24:00'", &[]),
        ("interval '1 day'", &[]),
    ] {
        let readable = readable(&lease, &format!("SELECT {column}"));
        assert!(are(&readable, kinds), "{column}: {readable:?}");
    }
    let lease = sqlite();
    for (sql, kinds) in [
        ("SELECT CURRENT_TIMESTAMP", &[Civil, Moment][..]),
        ("SELECT datetime('now')", &[Civil, Moment]),
        ("SELECT strftime('%Y-%m-%dT%H:%M:%fZ')", &[Moment]),
        ("SELECT date('now')", &[Date]),
        ("SELECT time('now')", &[Time]),
        ("SELECT '2024-02-29 23:59'", &[Civil, Moment]),
        ("SELECT '2024-02-29 23:59:60'", &[]),
        ("SELECT '2024-02-30 23:59:58'", &[]),
        ("SELECT '2024-02-29 23:59:58.0123456789'", &[]),
        ("SELECT '2024-02-29 23:59:58 '", &[]),
        ("SELECT '2024-02-29 23:59:58+0530'", &[Moment]),
        ("SELECT unixepoch()", &[]),
        ("SELECT julianday()", &[]),
        ("SELECT ''", &[]),
    ] {
        let readable = readable(&lease, sql);
        assert!(are(&readable, kinds), "{sql}: {readable:?}");
    }
}

/// An array is read element by element, by the same rules.
#[test]
fn an_array_of_times_without_zone_holds_no_moments() {
    let lease = open(&super::url());
    let sql = "SELECT ARRAY[timestamp '2024-02-29 23:59:58']";
    assert!(get::<Vec<jiff::Timestamp>>(&lease, sql, &[]).is_err());
    assert!(get::<Vec<Option<jiff::Timestamp>>>(&lease, sql, &[]).is_err());
    assert_eq!(get::<Vec<jiff::civil::DateTime>>(&lease, sql, &[]).unwrap().len(), 1);
    assert!(get::<Option<jiff::Timestamp>>(&lease, "SELECT timestamp '2024-02-29 23:59:58'", &[]).is_err());
    let sql = "SELECT ARRAY[timestamptz '2024-02-29 23:59:58']";
    assert_eq!(get::<Vec<jiff::Timestamp>>(&lease, sql, &[]).unwrap().len(), 1);
}

/// What Rust has written and what SQLite's functions make is in one order.
#[test]
fn moments_in_sqlite_compare_with_its_own() {
    let lease = sqlite();
    let jiff: jiff::Timestamp = "2024-02-29T23:59:58.5Z".parse().unwrap();
    let chrono = chrono::DateTime::parse_from_rfc3339("2024-03-01T05:29:58.5+05:30").unwrap();
    let time = time::OffsetDateTime::from_unix_timestamp_nanos(jiff.as_nanosecond()).unwrap();
    let utc = chrono.to_utc();
    let sent = [
        jiff.to_value().unwrap(),
        chrono.to_value().unwrap(),
        utc.to_value().unwrap(),
        time.to_value().unwrap(),
    ];
    for sent in &sent {
        let params = [sent.as_value()];
        let ask = |sql: &str| get::<bool>(&lease, sql, &params).unwrap();
        assert!(ask("SELECT $1 > datetime('2024-02-29 23:59:58')"), "{sent:?}");
        assert!(ask("SELECT $1 < datetime('2024-02-29 23:59:59')"), "{sent:?}");
        assert!(ask("SELECT datetime($1) = '2024-02-29 23:59:58'"), "{sent:?}");
        assert!(ask("SELECT $1 > '2024-02-29' AND $1 < datetime('now')"), "{sent:?}");
        assert_eq!(get::<jiff::Timestamp>(&lease, "SELECT $1", &params), Ok(jiff));
        assert_eq!(get::<chrono::DateTime<chrono::FixedOffset>>(&lease, "SELECT $1", &params), Ok(chrono));
        assert_eq!(get::<time::OffsetDateTime>(&lease, "SELECT $1", &params), Ok(time));
    }
    // In the order of the moments, whatever their digits.
    let digits = ["", ".000000001", ".01", ".010203", ".5", ".999999999"];
    let texts = digits.map(|digits| {
        let moment: jiff::Timestamp = format!("1969-12-31T23:59:58{digits}Z").parse().unwrap();
        match moment.to_value().unwrap().as_value() {
            Value::Text(text) => text.to_owned(),
            other => panic!("{other}"),
        }
    });
    assert!(texts.is_sorted(), "{texts:?}");
    let civil = jiff::civil::date(2024, 2, 29).at(23, 59, 58, 0);
    assert_eq!(civil.to_value().unwrap().as_value(), Value::Text("2024-02-29 23:59:58"));
}

#[test]
fn a_default_of_the_database_is_read_as_a_moment() {
    let lease = sqlite();
    lease.batch_execute("CREATE TABLE t (at DEFAULT CURRENT_TIMESTAMP, x)").unwrap();
    lease.execute("INSERT INTO t (x) VALUES (1)", &[]).unwrap();
    let now = jiff::Timestamp::now();
    let at = get::<jiff::Timestamp>(&lease, "SELECT at FROM t", &[]).unwrap();
    assert!(now.duration_since(at).as_secs().abs() < 60, "{at}");
    let same = get::<chrono::DateTime<chrono::Utc>>(&lease, "SELECT at FROM t", &[]).unwrap();
    assert_eq!(same.timestamp(), at.as_second());
}

/// What a database would alter, order wrongly or not take is refused before it is sent.
#[test]
fn what_no_database_keeps_is_refused() {
    use chrono::{NaiveDate, NaiveTime};
    for year in [-43, 0, 10_000] {
        let chrono = NaiveDate::from_ymd_opt(year, 3, 15).unwrap();
        assert!(chrono.to_value().unwrap_err().to_string().contains("1 to 9999"), "{year}");
        assert!(chrono.and_hms_opt(0, 0, 0).unwrap().and_utc().to_value().is_err(), "{year}");
    }
    assert!(jiff::civil::date(-43, 3, 15).to_value().is_err());
    assert!(
        jiff::civil::date(1, 1, 1).to_value().is_ok() && jiff::civil::date(9999, 12, 31).to_value().is_ok()
    );
    // In UTC it is in the year 0.
    let early = chrono::DateTime::parse_from_rfc3339("0001-01-01T00:30:00+01:00").unwrap();
    assert!(early.to_value().is_err());
    let leap = NaiveTime::from_hms_milli_opt(23, 59, 59, 1_500).unwrap();
    assert!(leap.to_value().unwrap_err().to_string().contains("leap second"));
}

/// Offsets with seconds are those of old zones; cut to minutes they would be another moment.
#[test]
fn a_moment_of_an_odd_offset_stays_the_same_moment() {
    for lease in [sqlite(), open(&super::url())] {
        let offset = chrono::FixedOffset::east_opt(3_723).unwrap();
        let there = chrono::DateTime::from_timestamp(-3_000_000_000, 0).unwrap().with_timezone(&offset);
        let sent = there.to_value().unwrap();
        let sql = if lease.query("SELECT sqlite_version()", &[]).is_ok() {
            "SELECT $1"
        } else {
            "SELECT $1::timestamptz"
        };
        assert_eq!(get(&lease, sql, &[sent.as_value()]), Ok(there));
    }
}
