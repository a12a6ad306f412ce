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
        "SELECT temp FROM t WHERE a IN (1, 2) AND count(*) > (SELECT pg_catalog.lower(b)) ORDER BY set",
        "SET LOCAL x = 1",
        "/* a */ set -- b\n local x = 1; SET TRANSACTION READ ONLY; SET CONSTRAINTS ALL DEFERRED",
        "SELECT set_config('a', $1, true)",
        "SELECT set_config(concat('a', 'b'), (SELECT 'x'), TRUE), pg_advisory_xact_lock(1)",
        "DECLARE c CURSOR FOR SELECT 1",
        "DECLARE c CURSOR WITHOUT HOLD FOR SELECT 1",
        "LOCK TABLE t; NOTIFY a, 'SET x'",
        "with a as (select $1::int) select * from a",
    ] {
        let effect = postgres(sql);
        assert_eq!((effect.dirt, effect.ends_transaction), (Dirt::None, false), "{sql}");
    }
}

/// What a trigger, a default, a rule or a function does in its own body no text shows.
#[test]
fn what_may_run_code_of_others_is_suspect() {
    for sql in [
        "UPDATE t SET a = 'x; SET search_path = y' WHERE b = $1",
        "INSERT INTO t VALUES (E'it\\'s; SET x')",
        "CREATE FUNCTION f() RETURNS int AS $body$ BEGIN; SET x = 1; END $body$ LANGUAGE plpgsql",
        "CREATE TABLE temperature (temp int)",
        "SELECT temp FROM t; DELETE FROM \"set\"",
        "SELECT f(1)",
        "SELECT a FROM f (1)",
        "SELECT other.lower('A')",
        "with a as (delete from t returning 1) select 1",
        "EXPLAIN ANALYZE UPDATE t SET a = 1",
        "SELECT 1 INTO t",
        "UPDATE pg_settings SET setting = 'x' WHERE name = 'y'",
        "SELECT U&\"set\\005Fconfig\"('a', 'b', false)",
    ] {
        let effect = postgres(sql);
        assert_eq!(
            (effect.dirt, effect.ends_transaction, effect.stays),
            (Dirt::Suspect, false, false),
            "{sql}"
        );
        assert!(!effect.only_reads(), "{sql}");
    }
}

#[test]
fn a_copy_of_the_clients_is_seen() {
    for sql in
        ["COPY t FROM STDIN", "SELECT 1; copy (select 1) to/* */stdout", "-- \rCOPY \"from\" FROM stdin CSV"]
    {
        assert!(postgres(sql).copies, "{sql}");
    }
    for sql in [
        "COPY t FROM 'stdin'",
        "COPY (SELECT a FROM stdin) TO '/x'",
        "SELECT a FROM stdin",
        "COPY stdin TO PROGRAM 'x'",
    ] {
        assert!(!postgres(sql).copies, "{sql}");
    }
}

#[test]
fn the_highest_placeholder_is_seen() {
    assert_eq!(postgres("SELECT $1, '$9', $$ $8 $$, $12 -- $77\n, a$5").placeholders, 12);
    assert_eq!(postgres("SELECT $99999999999999999999999").placeholders, u64::MAX);
    assert_eq!(postgres("SELECT 1").placeholders, 0);
}

/// Behind a pooler: what would reach the next client, and what ends with the transaction.
#[test]
fn the_code_of_a_do_is_judged_by_its_words() {
    for (sql, stays) in [
        ("DO $$ BEGIN UPDATE t SET a = 1; PERFORM f(); END $$", false),
        ("DO $$ BEGIN SET LOCAL x = 1; EXECUTE 'SET LOCAL y = 2'; END $$", false),
        ("DO LANGUAGE plpgsql 'BEGIN IF true THEN SET x = 1; END IF; END'", true),
        ("DO $$ BEGIN EXECUTE $a$SET x = 1$a$; END $$", true),
        ("DO $$ BEGIN CREATE TEMP TABLE x (a int); END $$", true),
        ("DO $$ BEGIN PERFORM pg_advisory_lock(1); END $$", true),
        ("DO $$ BEGIN LISTEN a; END $$", true),
        ("CALL p(1)", false),
    ] {
        assert_eq!((postgres(sql).stays, postgres(sql).dirt), (stays, Dirt::Session), "{sql}");
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
        "SELECT set_config('a', 'true', $1)",
        "SELECT set_config('a', 'b', not true)",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
        "SET SESSION AUTHORIZATION x",
        "SET ROLE x",
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
    for sql in [
        "PREPARE p AS SELECT 1",
        "DEALLOCATE ALL",
        "DISCARD ALL",
        "LOAD 'x'",
        "SET a = 1; LOAD 'x'",
        "SELECT setseed(0)",
    ] {
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

#[test]
fn a_single_statement_is_told_from_what_surrounds_it() {
    for (sql, expected) in [
        ("SELECT 1", Some(("SELECT", "SELECT 1"))),
        ("-- a\n/* ; */ (select 1); -- b;\n ;", Some(("select", "-- a\n/* ; */ (select 1)"))),
        ("SELECT ';' -- ;", Some(("SELECT", "SELECT ';' -- ;"))),
        ("SELECT 1; SELECT 2", None),
        ("-- nothing", None),
    ] {
        assert_eq!(super::single_statement(Dialect::Postgres, sql), expected, "{sql}");
    }
}
