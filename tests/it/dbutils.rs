//! The table that maps DBUtils' tests to ours names tests that exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use tests::fixture::repository;

/// Tests of DBUtils 3.2.0, those of its own helpers aside. A row that is lost would be missed by nobody.
const ROWS: usize = 221;

/// The names of all tests below a directory.
fn tests_below(directory: &Path, names: &mut BTreeSet<String>) {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            tests_below(&path, names);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let source = fs::read_to_string(&path).unwrap();
            for item in source.split("#[test]\n").skip(1) {
                let name = item.trim_start().strip_prefix("fn ").and_then(|rest| rest.split('(').next());
                names.extend(name.map(str::to_owned));
            }
        }
    }
}

#[test]
fn every_test_of_dbutils_has_one_here_or_a_reason() {
    let mut ours = BTreeSet::new();
    for room in ["host/src/db", "tests/it"] {
        tests_below(&repository().join(room), &mut ours);
    }
    let table = fs::read_to_string(repository().join("tests/DBUTILS.md")).unwrap();
    let rows =
        table.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |")?.split_once(" | "));
    let rows: Vec<(&str, &str)> = rows.filter(|(there, _)| *there != "there").collect();
    assert_eq!(rows.len(), ROWS);
    for (there, here) in rows {
        let named: Vec<&str> = here.split('`').skip(1).step_by(2).filter(|name| name.contains('_')).collect();
        let unknown: Vec<&&str> = named.iter().filter(|name| !ours.contains(**name)).collect();
        assert!(unknown.is_empty(), "{there}: there is no test {unknown:?}");
        let has_reason = here.strip_prefix("does not apply: ").is_some_and(|reason| reason.len() > 10);
        assert!(has_reason || !named.is_empty(), "{there} has neither a test nor a reason: {here}");
    }
}
