//! A safe on the real file system.

use super::{changes, contents, put, soon, value, version};
use crate::safe::{OpenError, Safes};

#[test]
fn safes_are_files_of_their_own_and_stay() {
    let directory = tempfile::tempdir().unwrap();
    let safes = Safes::new(directory.path().join("safe"));
    assert_eq!(safes.names().unwrap(), Vec::<String>::new());
    assert!(safes.open_existing("a").unwrap().is_none());
    for name in ["a", "b"] {
        let safe = safes.open(name).unwrap();
        version(safe.write(changes([put("name", name.as_bytes())]), soon()));
    }
    assert_eq!(safes.names().unwrap(), ["a", "b"]);
    let before = contents(&safes.open("a").unwrap());
    safes.close();
    assert!(matches!(safes.open("a"), Err(OpenError::Closed)));

    let again = Safes::new(directory.path().join("safe"));
    assert_eq!(contents(&again.open("a").unwrap()), before);
    assert_eq!(value(&again.open_existing("b").unwrap().unwrap(), "name"), Some(b"b".to_vec()));
}

#[test]
fn file_in_use_is_refused_and_taken_over_when_its_owner_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let first = Safes::new(directory.path().to_owned());
    version(first.open("a").unwrap().write(changes([put("k", b"v")]), soon()));
    let second = Safes::new(directory.path().to_owned());
    assert!(matches!(second.open("a"), Err(OpenError::InUse { .. })));
    drop(first);
    assert_eq!(value(&second.open("a").unwrap(), "k"), Some(b"v".to_vec()));
}

#[test]
fn names_cannot_leave_the_directory() {
    let safes = Safes::new("/nowhere".into());
    for name in ["", "..", ".hidden", "a/b", "a\0b", "\u{e9}", &"x".repeat(200)] {
        assert!(matches!(safes.open(name), Err(OpenError::Name(_))), "{name:?}");
    }
}

#[test]
fn file_that_is_no_safe_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a.redb");
    for content in ["this is a letter to my aunt\n".repeat(500).into_bytes(), vec![0xff; 8192]] {
        std::fs::write(&file, &content).unwrap();
        let error = Safes::new(directory.path().to_owned()).open("a").unwrap_err();
        assert!(matches!(error, OpenError::Corrupt { .. }), "{error}");
        assert_eq!(std::fs::read(&file).unwrap(), content);
    }
}

/// The power went while the file was being made.
#[test]
fn half_made_file_is_made_again() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("a.new"), vec![0; 4096]).unwrap();
    let safes = Safes::new(directory.path().to_owned());
    let safe = safes.open("a").unwrap();
    version(safe.write(changes([put("k", b"v")]), soon()));
    assert_eq!(safes.names().unwrap(), ["a"]);
    assert!(!directory.path().join("a.new").exists());
}
