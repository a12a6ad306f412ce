//! What becomes of Rust's types in columns, and of columns in Rust's types, on both databases.

use std::fmt::Debug;
use std::path::Path;

use host::db::{Block, Lease, Pool, PoolConfig, QueryError, Value};
use plugin_api::db::{FromValue, Json, Mismatch, Parameter, ToValue};
use tests::host::Launch;
use tests::postgres::Cluster;

fn open(url: &str) -> Lease {
    Pool::open(url, Path::new("/nowhere"), PoolConfig::default()).unwrap().checkout().unwrap()
}

fn postgres() -> Lease {
    open(&super::url())
}

fn sqlite() -> Lease {
    open("sqlite::memory:")
}

/// Reads the first cell that a statement finds.
fn read<T: for<'a> FromValue<'a>>(lease: &Lease, sql: &str, params: &[Value<'_>]) -> Result<T, Mismatch> {
    let block =
        Block::parse(lease.query(sql, params).unwrap_or_else(|error| panic!("{sql}: {error}"))).unwrap();
    T::from_value(block.cell(0, 0).unwrap().unwrap())
}

/// Sends a value as a parameter of a type, and reads it as it comes back.
#[track_caller]
fn comes_back<T>(lease: &Lease, ty: &str, value: T)
where
    T: ToValue + for<'a> FromValue<'a> + PartialEq + Debug,
{
    let sent = value.to_value().unwrap();
    let found = read::<T>(lease, &format!("SELECT CAST($1 AS {ty})"), &[sent.as_value()]);
    assert_eq!(found.as_ref(), Ok(&value), "{ty}");
}

#[test]
fn lists_are_arrays_of_postgresql() {
    let lease = postgres();
    comes_back(&lease, "int2[]", vec![1_i16, -2, i16::MIN]);
    comes_back(&lease, "int4[]", vec![Some(1_i32), None]);
    comes_back(&lease, "int8[]", vec![i64::MAX, i64::MIN]);
    comes_back(&lease, "float4[]", vec![1.5_f32, f32::NEG_INFINITY]);
    comes_back(&lease, "float8[]", vec![1e300, -0.25]);
    comes_back(&lease, "bool[]", vec![true, false]);
    let words = ["", "NULL", "a,b", "{c}", "say \"d\"", "\\e", " f ", "gr\u{fc}n"];
    comes_back(&lease, "text[]", words.map(str::to_owned).to_vec());
    comes_back(&lease, "bytea[]", vec![vec![0_u8, 255, b'\\'], vec![]]);
    comes_back(&lease, "numeric[]", vec!["1.10".to_owned(), "NaN".to_owned()]);
    comes_back(&lease, "text[]", Vec::<String>::new());
    comes_back(&lease, "int4[]", vec![vec![1_i32, 2, 3], vec![4, 5, 6]]);
    comes_back(&lease, "int4[]", vec![vec![vec![1_i32], vec![2]], vec![vec![3], vec![4]]]);
    comes_back(&lease, "int4[]", None::<Vec<i32>>);
    // A statement with the array in a condition.
    let ids = vec![2_i64, 3];
    let sent = ids.to_value().unwrap();
    let sql = "SELECT count(*) FROM generate_series(1, 9) AS x WHERE x = ANY($1)";
    assert_eq!(read::<i64>(&lease, sql, &[sent.as_value()]), Ok(2));
    assert_eq!(read::<Vec<i64>>(&lease, "SELECT '[5:6]={7,8}'::int8[]", &[]), Ok(vec![7, 8]));
}

#[test]
fn an_element_that_does_not_fit_is_refused_with_its_type() {
    let lease = postgres();
    let refused = |ty: &str, parameter: Parameter<'_>| {
        lease.query(&format!("SELECT $1::{ty}"), &[parameter.as_value()]).unwrap_err().to_string()
    };
    assert_eq!(
        refused("int2[]", [1_i64, 70_000].to_value().unwrap()),
        "parameter $1: 70000 does not fit int2"
    );
    assert_eq!(
        refused("int4[]", [vec![1_i64], vec![1 << 40]].to_value().unwrap()),
        "parameter $1: 1099511627776 does not fit int4"
    );
    assert_eq!(refused("int4[]", [true].to_value().unwrap()), "parameter $1: bool cannot be sent as int4");
    assert_eq!(refused("int4", [1_i64].to_value().unwrap()), "parameter $1: array cannot be sent as int4");
    // Rows of unequal length are the server's to refuse.
    assert!(refused("int4[]", [vec![1_i64], vec![]].to_value().unwrap()).contains("malformed array literal"));
    // And on the way back.
    assert_eq!(read::<Vec<i16>>(&lease, "SELECT ARRAY[1, 70000]", &[]), Err(Mismatch::Range));
    let Err(Mismatch::Unreadable { reason }) = read::<Vec<i64>>(&lease, "SELECT ARRAY[1, NULL]", &[]) else {
        panic!("NULL became a number")
    };
    assert!(reason.contains("`Vec<Option<i64>>`"), "{reason}");
}

/// SQLite has no arrays; it takes lists apart with a function.
#[test]
fn a_list_of_sqlite_is_one_for_json_each() {
    let lease = sqlite();
    lease.batch_execute("CREATE TABLE t (id, word)").unwrap();
    for (id, word) in [(1, "a"), (2, "say \"b\""), (3, "c")] {
        lease.execute("INSERT INTO t VALUES ($1, $2)", &[Value::Int(id), Value::Text(word)]).unwrap();
    }
    let count = |column: &str, sent: Parameter<'_>| {
        let sql = format!("SELECT count(*) FROM t WHERE {column} IN (SELECT value FROM json_each($1))");
        read::<i64>(&lease, &sql, &[sent.as_value()])
    };
    assert_eq!(count("id", [1_i64, 3, 9].to_value().unwrap()), Ok(2));
    assert_eq!(count("word", ["say \"b\"", ""].to_value().unwrap()), Ok(1));
    assert_eq!(count("id", [Some(1_i64), None].to_value().unwrap()), Ok(1));
    assert_eq!(count("id", Vec::<i64>::new().to_value().unwrap()), Ok(0));
    assert_eq!(count("id", [true].to_value().unwrap()), Ok(1));
    for refused in [[f64::NAN].to_value(), [f64::INFINITY].to_value(), vec![vec![1_u8]].to_value()] {
        lease.query("SELECT $1", &[refused.unwrap().as_value()]).unwrap_err();
    }
}

/// Columns that have no form here are read as the server prints them, in every kind of statement.
#[test]
fn other_types_come_as_text() {
    let lease = postgres();
    let create = "DROP TABLE IF EXISTS others; DROP TYPE IF EXISTS pair; CREATE TYPE pair AS (x int, y text); \
                  CREATE TABLE others (id int, at inet, span int4range, duo pair, many inet[])";
    lease.batch_execute(create).unwrap();
    let insert = "INSERT INTO others VALUES ($1, '10.0.0.1/8', '[1,5)', ROW(1, 'a b'), '{10.0.0.1,10.0.0.2}') \
                  RETURNING id, at, span, duo, many; -- all of them";
    let all = |sql: &str, params: &[Value<'_>]| {
        let block = Block::parse(lease.query(sql, params).unwrap()).unwrap();
        let cells: Vec<String> =
            (0..block.columns()).map(|column| block.cell(0, column).unwrap().unwrap().to_string()).collect();
        let types: Vec<String> =
            (0..block.columns()).map(|place| block.column(place).unwrap().1.to_owned()).collect();
        (block.rows(), cells.join(" "), types.join(" "))
    };
    let expected = "1 \"10.0.0.1/8\" \"[1,5)\" \"(1,\\\"a b\\\")\" [\"10.0.0.1/32\", \"10.0.0.2/32\"]";
    let types = "int4 inet int4range pair _inet";
    let insert = insert.split("; --").next().unwrap();
    assert_eq!(all(insert, &[Value::Int(1)]), (1, expected.to_owned(), types.to_owned()));
    // The row was stored once, and what is read keeps names and order.
    let select = "SELECT * FROM others; ";
    assert_eq!(all(select, &[]), (1, expected.to_owned(), types.to_owned()));
    lease.execute("INSERT INTO others SELECT x, '10.0.0.1' FROM generate_series(2, 300) AS x", &[]).unwrap();
    let ordered =
        "with sorted as (select id, at from others) select id, at from sorted order by id desc -- down";
    let block = Block::parse(lease.query(ordered, &[]).unwrap()).unwrap();
    let ids: Vec<String> =
        (0..block.rows()).map(|row| block.cell(row, 0).unwrap().unwrap().to_string()).collect();
    assert_eq!(ids, (1..=300).rev().map(|id| id.to_string()).collect::<Vec<_>>());
    assert_eq!(block.column(1), Some(("at", "inet")));
    assert_eq!(read::<Vec<String>>(&lease, "SELECT many FROM others WHERE id = 1", &[]).unwrap().len(), 2);
    assert_eq!(read::<String>(&lease, "SELECT $1::inet", &[Value::Text("::1")]), Ok("::1/128".to_owned()));
    // What cannot stand in another statement says what to write, and has not run.
    let nested = "WITH gone AS (DELETE FROM others RETURNING at) SELECT at FROM gone";
    let refused = lease.query(nested, &[]).unwrap_err();
    assert!(matches!(refused, QueryError::ColumnType { .. }) && refused.to_string().contains("`at::text`"));
    assert_eq!(read::<i64>(&lease, "SELECT count(*) FROM others", &[]), Ok(300));
}

#[test]
fn json_is_read_and_written() {
    let value = serde_json::json!({ "a": [1, null, "it's \"quoted\""], "b": { "c": 2.5 } });
    for (lease, ty) in [(postgres(), "json"), (postgres(), "jsonb"), (sqlite(), "TEXT")] {
        comes_back(&lease, ty, value.clone());
        comes_back(&lease, ty, Json(vec![(1_u8, "x".to_owned())]));
        let Err(Mismatch::Unreadable { reason }) =
            read::<Json<Vec<u8>>>(&lease, &format!("SELECT CAST($1 AS {ty})"), &[Value::Text("{\"a\": 1}")])
        else {
            panic!("an object became a list")
        };
        assert!(reason.starts_with("invalid type: map"), "{reason}");
    }
    comes_back(&postgres(), "jsonb[]", vec![value.clone(), value]);
}

#[test]
fn uuids_are_read_and_written() {
    let value = uuid::Uuid::from_u128(0xa0ee_bc99_9c0b_4ef8_bb6d_6bb9_bd38_0a11);
    comes_back(&postgres(), "uuid", value);
    comes_back(&postgres(), "uuid[]", vec![Some(value), None]);
    comes_back(&sqlite(), "TEXT", value);
    assert_eq!(read(&sqlite(), "SELECT $1", &[Value::Bytes(value.as_bytes())]), Ok(value));
    let Err(Mismatch::Unreadable { reason }) = read::<uuid::Uuid>(&sqlite(), "SELECT 'a0ee'", &[]) else {
        panic!("four digits became a UUID")
    };
    assert!(!reason.is_empty());
}

#[test]
fn dates_and_times_of_chrono_are_read_and_written() {
    use chrono::{DateTime, FixedOffset, NaiveDate, NaiveTime, Utc};
    let date = NaiveDate::from_ymd_opt(2024, 2, 29).unwrap();
    let time = NaiveTime::from_hms_micro_opt(23, 59, 58, 10_203).unwrap();
    let both = date.and_time(time);
    let utc: DateTime<Utc> = both.and_utc();
    let there = utc.with_timezone(&FixedOffset::east_opt(5 * 3_600 + 1_800).unwrap());
    let old = NaiveDate::from_ymd_opt(1, 1, 1).unwrap().and_hms_opt(0, 0, 0).unwrap();
    let lease = postgres();
    lease.batch_execute("SET TimeZone = 'Asia/Tokyo'").unwrap();
    for (lease, types) in [(lease, ["date", "time", "timestamp", "timestamptz"]), (sqlite(), ["TEXT"; 4])] {
        comes_back(&lease, types[0], date);
        comes_back(&lease, types[1], time);
        comes_back(&lease, types[1], NaiveTime::MIN);
        comes_back(&lease, types[2], both);
        comes_back(&lease, types[2], old);
        comes_back(&lease, types[3], utc);
        // The same moment; PostgreSQL does not keep whose noon it was.
        comes_back(&lease, types[3], there);
    }
    comes_back(&postgres(), "timestamptz[]", vec![utc, utc]);
    assert_eq!(read(&sqlite(), "SELECT '2024-02-29T23:59:58.010203Z'", &[]), Ok(utc));
    for strange in ["'infinity'::date", "'0044-03-15 BC'::date"] {
        let refused = read::<NaiveDate>(&postgres(), &format!("SELECT {strange}"), &[]);
        assert!(matches!(refused, Err(Mismatch::Unreadable { .. })), "{strange}: {refused:?}");
    }
}

#[test]
fn dates_and_times_of_jiff_are_read_and_written() {
    use jiff::civil::{Date, Time};
    let date = Date::constant(2024, 2, 29);
    let time = Time::constant(23, 59, 58, 10_203_000);
    let moment = date.to_datetime(time).to_zoned(jiff::tz::TimeZone::UTC).unwrap().timestamp();
    let lease = postgres();
    lease.batch_execute("SET TimeZone = 'Asia/Tokyo'").unwrap();
    for (lease, types) in [(lease, ["date", "time", "timestamp", "timestamptz"]), (sqlite(), ["TEXT"; 4])] {
        comes_back(&lease, types[0], date);
        comes_back(&lease, types[1], time);
        comes_back(&lease, types[2], date.to_datetime(time));
        comes_back(&lease, types[3], moment);
    }
    comes_back(&postgres(), "date[]", vec![date]);
    let refused = read::<Date>(&postgres(), "SELECT 'infinity'::date", &[]);
    assert!(matches!(refused, Err(Mismatch::Unreadable { .. })), "{refused:?}");
}

/// All of it over the real boundary, from a plugin.
#[test]
fn a_plugin_sends_and_reads_arrays_and_other_types() {
    let cluster = Cluster::shared();
    let launch = Launch::new();
    launch.plugins().install("probe", "pool_probe");
    let host = launch.env("DATABASE_URL", cluster.url(&cluster.create_database())).start();
    let response = host.get("/probe/values");
    assert_eq!(response.status, 200, "{}", response.text());
    let expected = "[1, 2] [Some(\"a\"), None] 10.0.0.1/32 3 {\"a\":1}\n\
                    column `list` holds [1, 70000], which does not fit `Vec<i16>`\n\
                    column `id` holds \"x\", which is no `Uuid`: ";
    assert!(response.text().starts_with(expected), "{}", response.text());
}
