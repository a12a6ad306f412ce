//! Tests of URLs.

use std::path::Path;

use super::{ConfigError, driver};

#[test]
fn a_url_chooses_its_driver() {
    let data = Path::new("/data");
    let name = |url| driver(url, data).unwrap().name();
    assert_eq!(name("postgres://localhost/x"), "postgres");
    assert_eq!(name("postgresql:///x?host=/run"), "postgres");
    assert_eq!(name("sqlite::memory:"), "sqlite");
}

#[test]
fn an_unknown_url_is_refused_without_repeating_it() {
    for url in ["mysql://me:secret@db/x", "secret", "", "me:secret@db"] {
        let error = driver(url, Path::new("/data")).unwrap_err();
        assert!(matches!(error, ConfigError::Scheme { .. }));
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}

#[test]
fn a_relative_path_lies_below_the_data_directory() {
    let address = |url| driver(url, Path::new("/data")).unwrap().address().to_owned();
    assert_eq!(address("sqlite:a/b.db"), "sqlite:/data/a/b.db");
    assert_eq!(address("sqlite:/abs.db"), "sqlite:/abs.db");
    assert_eq!(address("sqlite:///abs.db"), "sqlite:/abs.db");
    assert_eq!(address("sqlite::memory:"), "sqlite::memory:");
    assert!(driver("sqlite:", Path::new("/data")).is_err());
    assert!(driver("sqlite:a.db?mode=none", Path::new("/data")).is_err());
}
