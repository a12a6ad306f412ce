//! Numbers that SQLite would alter: an error, or every digit.

use super::{memory, one};
use crate::db::{Block, Lease, QueryError, Value};

fn is_refused(outcome: Result<impl std::fmt::Debug, QueryError>, which: usize) -> bool {
    matches!(outcome, Err(QueryError::OutOfRange { number, .. }) if number == which)
}

fn count(lease: &Lease, table: &str) -> String {
    let block = lease.query(&format!("SELECT count(*) FROM {table}"), &[]).unwrap();
    one(&Block::parse(block).unwrap()).to_string()
}

#[test]
fn what_is_no_number_is_refused_and_never_null() {
    let pool = memory();
    let lease = pool.checkout().unwrap();
    for sql in ["SELECT $1", "SELECT $1 IS NULL", "VALUES ($1)"] {
        assert!(is_refused(lease.query(sql, &[Value::Float(f64::NAN)]), 1), "{sql}");
    }
    for number in [f64::INFINITY, f64::NEG_INFINITY, f64::MAX, f64::MIN_POSITIVE, 5e-324, -0.0] {
        let block = Block::parse(lease.query("SELECT $1", &[Value::Float(number)]).unwrap()).unwrap();
        assert_eq!(one(&block), Value::Float(number));
    }
    for number in [i64::MIN, i64::MAX] {
        let block = Block::parse(lease.query("SELECT $1", &[Value::Int(number)]).unwrap()).unwrap();
        assert_eq!(one(&block), Value::Int(number));
    }
}

/// Texts of more digits than a float has.
const LONG: &[&str] = &[
    "0.12345678901234567890123456789",
    "12345678901234567890",
    "-99999999999999999999.5",
    " 1234567890.1234567890 ",
    "1e400",
    "123456789012345678901234567890e-5",
    "+.1234567890123456789",
];

#[test]
fn a_number_that_a_column_would_round_is_refused_and_nothing_is_stored() {
    let pool = memory();
    let lease = pool.checkout().unwrap();
    let tables = "CREATE TABLE numeric (k INTEGER PRIMARY KEY, n NUMERIC); CREATE TABLE real (k INTEGER PRIMARY KEY, n REAL); \
                  CREATE TABLE integer (k INTEGER PRIMARY KEY, n INTEGER); CREATE TABLE decimal (k INTEGER PRIMARY KEY, n DECIMAL(40, 20)); \
                  CREATE TABLE keyed (k TEXT PRIMARY KEY, n NUMERIC) WITHOUT ROWID";
    lease.batch_execute(tables).unwrap();
    for text in LONG {
        for table in ["numeric", "real", "integer", "decimal", "keyed"] {
            for in_transaction in [false, true] {
                if in_transaction {
                    lease.begin().unwrap();
                }
                let params = [Value::Int(1), Value::Text(text)];
                let sql = format!("INSERT INTO {table} VALUES ($1, $2)");
                assert!(is_refused(lease.execute(&sql, &params), 2), "{text} into {table}");
                assert!(
                    is_refused(lease.query(&(sql.clone() + " RETURNING *"), &params), 2),
                    "{text} into {table}"
                );
                assert_eq!(count(&lease, table), "0", "{text} into {table}");
                lease.execute(&sql, &[Value::Int(1), Value::Text("0.1")]).unwrap();
                let update = format!("UPDATE {table} SET n = $1");
                assert!(is_refused(lease.execute(&update, &params[1..]), 1), "{text} into {table}");
                let upsert = format!("{sql} ON CONFLICT DO UPDATE SET n = excluded.n");
                assert!(is_refused(lease.execute(&upsert, &params), 2), "{text} into {table}");
                assert_eq!(lease.execute(&format!("DELETE FROM {table} WHERE n < 0.2"), &[]).unwrap(), 1);
                if in_transaction {
                    lease.commit().unwrap();
                }
            }
        }
    }
    let large = Value::Int((1 << 53) + 1);
    assert!(is_refused(lease.execute("INSERT INTO real (n) VALUES ($1)", &[large]), 1));
    assert_eq!(lease.execute("INSERT INTO numeric (n) VALUES ($1)", &[large]).unwrap(), 1);
}

#[test]
fn a_number_that_is_kept_whole_is_stored() {
    let pool = memory();
    let lease = pool.checkout().unwrap();
    lease.batch_execute("CREATE TABLE t (word TEXT, any, n NUMERIC, r REAL)").unwrap();
    for text in LONG {
        let sql = "INSERT INTO t (word, any) VALUES ($1, $1) RETURNING word";
        let block = Block::parse(lease.query(sql, &[Value::Text(text)]).unwrap()).unwrap();
        assert_eq!(one(&block), Value::Text(text));
    }
    for text in [
        "0.1",
        "1.10",
        "-0",
        "1e3",
        "9007199254740993",
        "9223372036854775807",
        "many",
        "",
        ".",
        "1.2.3",
        "0x10",
    ] {
        assert_eq!(
            lease.execute("INSERT INTO t (n) VALUES ($1)", &[Value::Text(text)]).unwrap(),
            1,
            "{text}"
        );
    }
    assert_eq!(lease.execute("INSERT INTO t (r) VALUES ($1)", &[Value::Int(1 << 60)]).unwrap(), 1);
    // One that only asks, and one of a trigger.
    assert_eq!(lease.execute("SELECT 1 WHERE $1 > 0", &[Value::Text(LONG[0])]).unwrap(), 1);
    let trigger = "CREATE TABLE log (n NUMERIC); CREATE TRIGGER tell AFTER INSERT ON t BEGIN INSERT INTO log VALUES (NEW.word); END";
    lease.batch_execute(trigger).unwrap();
    assert!(is_refused(lease.execute("INSERT INTO t (word) VALUES ($1)", &[Value::Text(LONG[0])]), 1));
    assert_eq!(count(&lease, "log"), "0");
}

/// What the file holds that is no text, or not of the wanted kind, is told; bytes are bytes.
#[test]
fn odd_cells_are_told_or_read_as_they_are() {
    let pool = memory();
    let lease = pool.checkout().unwrap();
    let read = |sql: &str| lease.query(sql, &[]).map(|block| one(&Block::parse(block).unwrap()).to_string());
    assert_eq!(read("SELECT 'a' || char(0) || 'b'").unwrap(), "\"a\\0b\"");
    assert_eq!(read("SELECT zeroblob(3)").unwrap(), "3 bytes");
    lease.batch_execute("CREATE TABLE t (word TEXT); INSERT INTO t VALUES (x'ff00')").unwrap();
    assert_eq!(read("SELECT word FROM t").unwrap(), "2 bytes");
    assert!(matches!(lease.query("SELECT CAST(word AS TEXT) FROM t", &[]), Err(QueryError::Cell { .. })));
    let block = Block::parse(lease.query("SELECT $1", &[Value::Text("a\0b")]).unwrap()).unwrap();
    assert_eq!(one(&block), Value::Text("a\0b"));
}
