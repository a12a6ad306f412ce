//! Addresses of SQLite, and what their settings do.

use std::path::Path;

use tempfile::TempDir;

use super::{one, text_of};
use crate::db::{Block, ConfigError, OpenError, Pool, PoolConfig, QueryError, driver};

fn open(dir: &TempDir, url: &str) -> Result<Pool, OpenError> {
    Pool::open(url, dir.path(), PoolConfig::default())
}

fn ask(pool: &Pool, sql: &str) -> String {
    one(&Block::parse(pool.checkout().unwrap().query(sql, &[]).unwrap()).unwrap()).to_string()
}

#[test]
fn forms_of_an_address_lead_to_the_same_file() {
    let address = |url: &str| driver(url, Path::new("/data")).unwrap().address().to_owned();
    for url in [
        "sqlite:a b.db",
        "file:a b.db",
        "sqlite:file:a%20b.db",
        "file:/data/a%20b.db",
        "file:///data/a%20b.db",
        "file://localhost/data/a%20b.db#x",
        "sqlite:///data/a b.db",
        "file:a%20b.db?mode=rwc&cache=private",
    ] {
        assert_eq!(address(url), "sqlite:/data/a b.db", "{url}");
    }
    for url in ["sqlite::memory:", "file::memory:", "sqlite:x.db?mode=memory", "file:?mode=memory"] {
        if url == "file:?mode=memory" {
            assert!(driver(url, Path::new("/data")).is_err());
        } else {
            assert_eq!(address(url), "sqlite::memory:", "{url}");
        }
    }
}

#[test]
fn a_setting_that_is_not_supported_is_refused_by_its_name() {
    for (url, name) in [
        ("sqlite:a.db?vfs=unix-none", "`vfs`"),
        ("sqlite:a.db?mode=rx", "`mode=rx`"),
        ("sqlite:a.db?cache=shared", "`cache=shared`"),
        ("sqlite:a.db?busy_timeout=soon", "`busy_timeout=soon`"),
        ("sqlite:a.db?busy_timeout=99999999999", "`busy_timeout=99999999999`"),
        ("sqlite:a.db?synchronous=maybe", "`synchronous=maybe`"),
        ("sqlite:a.db?foreign_keys=", "`foreign_keys=`"),
        ("sqlite:a.db?journal_mode=log", "`journal_mode=log`"),
        ("file://server/a.db", "localhost"),
        ("file:%ff.db", "UTF-8"),
        ("file:a%00b.db", "NUL"),
    ] {
        let Err(ConfigError::Address { reason, .. }) = driver(url, Path::new("/data")) else {
            panic!("{url}")
        };
        assert!(reason.contains(name), "{url}: {reason}");
    }
}

#[test]
fn settings_of_an_address_are_those_of_every_connection() {
    let dir = tempfile::tempdir().unwrap();
    let pool =
        open(&dir, "sqlite:a.db?busy_timeout=2s&foreign_keys=off&synchronous=normal&journal_mode=delete")
            .unwrap();
    assert_eq!(ask(&pool, "PRAGMA busy_timeout"), "2000");
    assert_eq!(ask(&pool, "PRAGMA foreign_keys"), "0");
    assert_eq!(ask(&pool, "PRAGMA synchronous"), "1");
    assert_eq!(ask(&pool, "PRAGMA journal_mode"), "\"delete\"");
    let pool = open(&dir, "sqlite:b.db?synchronous=EXTRA&busy_timeout=250ms").unwrap();
    assert_eq!(ask(&pool, "PRAGMA synchronous"), "3");
    assert_eq!(ask(&pool, "PRAGMA busy_timeout"), "250");
    assert_eq!(ask(&pool, "PRAGMA journal_mode"), "\"wal\"");
}

#[test]
fn a_file_that_is_only_read_is_neither_made_nor_changed() {
    let dir = tempfile::tempdir().unwrap();
    for url in ["sqlite:none/a.db?mode=ro", "sqlite:none/a.db?mode=rw"] {
        assert!(open(&dir, url).unwrap_err().to_string().contains("a.db"));
        assert!(!dir.path().join("none").exists(), "{url}");
    }
    // In either journal: that of the file is not altered.
    for journal in ["wal", "delete"] {
        let name = format!("{journal}.db");
        let pool = open(&dir, &format!("sqlite:{name}?journal_mode={journal}")).unwrap();
        pool.checkout().unwrap().batch_execute("CREATE TABLE t (x); INSERT INTO t VALUES (1)").unwrap();
        pool.close();
        drop(pool);
        for mode in ["mode=ro", "immutable=1", "mode=ro&immutable=1"] {
            let reader = open(&dir, &format!("sqlite:{name}?{mode}")).unwrap();
            let lease = reader.checkout().unwrap();
            assert_eq!(text_of(&Block::parse(lease.query("SELECT * FROM t", &[]).unwrap()).unwrap()), "x: 1");
            let refused = lease.execute("INSERT INTO t VALUES (2)", &[]).unwrap_err();
            assert!(
                matches!(&refused, QueryError::Database { sqlstate, .. } if sqlstate == "25006"),
                "{refused}"
            );
            drop(lease);
            assert_eq!(
                ask(&reader, "PRAGMA journal_mode"),
                if mode.contains("immutable") {
                    ask(&reader, "PRAGMA journal_mode")
                } else {
                    format!("\"{journal}\"")
                }
            );
        }
    }
}

/// A path is a path: nothing in it is a setting, an escape or the end.
#[test]
fn odd_names_of_files_are_names() {
    let dir = tempfile::tempdir().unwrap();
    for (url, name) in [
        ("sqlite:50%25.db", "50%25.db"),
        ("file:50%25.db", "50%.db"),
        ("file:a%3Fb.db", "a?b.db"),
        ("sqlite:gr\u{fc}n & #1.db", "gr\u{fc}n & #1.db"),
    ] {
        let pool = open(&dir, url).unwrap();
        pool.checkout().unwrap().batch_execute("CREATE TABLE t (x)").unwrap();
        assert!(dir.path().join(name).exists(), "{url}");
    }
}
