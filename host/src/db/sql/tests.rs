//! Tests of the judgement about texts.

use super::{Dialect, Dirt, Effect, effect};

fn postgres(sql: &str) -> Effect {
    effect(Dialect::Postgres, sql)
}

#[test]
fn ordinary_work_leaves_nothing_behind() {
    for sql in [
        "",
        "SELECT 1",
        "  -- note\n /* a /* nested */ ; SET x */ select 1",
        "(SELECT 1) UNION (SELECT 2);",
        "UPDATE t SET a = 'x; SET search_path = y' WHERE b = $1",
        "INSERT INTO t VALUES (E'it\\'s; SET x')",
        "CREATE FUNCTION f() RETURNS int AS $body$ BEGIN; SET x = 1; END $body$ LANGUAGE plpgsql",
        "CREATE TABLE temperature (temp int)",
        "SELECT temp FROM t; DELETE FROM \"set\"",
        "with a as (select $1::int) select * from a",
    ] {
        let effect = postgres(sql);
        assert_eq!((effect.dirt, effect.ends_transaction), (Dirt::None, false), "{sql}");
    }
}

#[test]
fn what_does_more_than_read_is_seen() {
    for sql in [
        "UPDATE t SET a = 1",
        "with a as (delete from t returning 1) select 1",
        "SELECT 1; INSERT INTO t VALUES (1)",
    ] {
        assert!(postgres(sql).writes, "{sql}");
    }
    for sql in ["SELECT 1", "VALUES (1); SHOW x", "-- UPDATE\nTABLE t"] {
        assert!(!postgres(sql).writes, "{sql}");
    }
}

#[test]
fn what_outlives_its_statement_is_dirt() {
    for sql in [
        "SET search_path = x",
        "/* hidden */ set statement_timeout = 1",
        "SELECT 1; -- then\n SET x = 1",
        "SELECT ';'; SET x = 1",
        "SELECT 'a--b'; SET x = 1",
        "SELECT $$--$$; SET x = 1",
        "CREATE TEMP TABLE t (a int)",
        "create local temporary table t (a int)",
        "SELECT 1 INTO TEMP t",
        "CREATE TABLE pg_temp.t (a int)",
        "SELECT set_config('a', 'b', false)",
        "SELECT \"set_config\"('a', 'b', false)",
        "SELECT pg_try_advisory_lock(1)",
        "LISTEN x",
        "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
        "DO $$ BEGIN SET x = 1; END $$",
        "CALL p()",
        "RESET ALL",
        "FROBNICATE",
    ] {
        assert_eq!(postgres(sql).dirt, Dirt::Session, "{sql}");
    }
    for sql in ["PREPARE p AS SELECT 1", "DEALLOCATE ALL", "DISCARD ALL", "LOAD 'x'", "SET a = 1; LOAD 'x'"] {
        assert_eq!(postgres(sql).dirt, Dirt::Connection, "{sql}");
    }
}

#[test]
fn words_that_end_a_transaction_are_seen() {
    for sql in ["BEGIN", "start transaction", "SELECT 1; COMMIT", "END", "ROLLBACK", "rollback;", "ABORT"] {
        assert!(postgres(sql).ends_transaction, "{sql}");
    }
    for sql in ["SAVEPOINT a", "RELEASE a", "ROLLBACK TO a", "ROLLBACK WORK TO SAVEPOINT a"] {
        let effect = postgres(sql);
        assert_eq!((effect.dirt, effect.ends_transaction), (Dirt::None, false), "{sql}");
    }
    assert!(postgres("ROLLBACK TO a; ROLLBACK").ends_transaction);
}

#[test]
fn sqlite_has_no_reset_so_its_dirt_closes() {
    let sqlite = |sql| effect(Dialect::Sqlite, sql);
    for sql in
        ["PRAGMA foreign_keys = OFF", "ATTACH 'x' AS y", "CREATE TEMP TABLE t (a)", "CREATE TABLE temp.t (a)"]
    {
        assert_eq!(sqlite(sql).dirt, Dirt::Connection, "{sql}");
    }
    for sql in
        ["SELECT [a;PRAGMA b], `c;ATTACH` FROM t", "REPLACE INTO t VALUES ($1)", "SELECT \"'\"; SELECT 1"]
    {
        assert_eq!((sqlite(sql).dirt, sqlite(sql).ends_transaction), (Dirt::None, false), "{sql}");
    }
    assert!(sqlite("BEGIN IMMEDIATE").ends_transaction);
}

#[test]
fn unfinished_quotes_end_with_the_text() {
    for sql in
        ["SELECT '", "SELECT \"", "SELECT $a$", "/*", "--", "SELECT E'\\", "$", "\"gr\u{fc}n", "\u{fc}"]
    {
        let (left, right) = (effect(Dialect::Postgres, sql), effect(Dialect::Sqlite, sql));
        assert!(!left.ends_transaction && !right.ends_transaction, "{sql}");
    }
}
