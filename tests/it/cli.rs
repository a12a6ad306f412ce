//! Facts about the command line: what is wrong is said in one sentence, with what to do.

use std::fs;
use std::net::TcpListener;

use tests::fixture;
use tests::host::{Finished, Launch, TestHost, run_cli};

/// A command that fails for its user: its exit code is one for failures, not one of a crash, and the
/// first line says what is wrong.
#[track_caller]
fn assert_refused(finished: &Finished, words: &[&str]) {
    assert!(![0, 101, -1].contains(&finished.code()), "{finished}");
    for word in words {
        assert!(finished.stderr.contains(word), "`{word}` is not said:\n{finished}");
    }
    assert!(!finished.stderr.contains("panicked at"), "{finished}");
    assert!(!finished.complaint().is_empty(), "{finished}");
}

#[test]
fn unknown_flag_suggests_the_nearest() {
    let finished = run_cli(&["run", "--plugin", "x"]);
    assert_refused(&finished, &["--plugin", "--plugins"]);
    assert_eq!(finished.code(), 2);
}

#[test]
fn unknown_command_suggests_the_nearest() {
    assert_refused(&run_cli(&["stauts"]), &["stauts", "status"]);
}

#[test]
fn missing_plugins_directory_is_named() {
    let launch = Launch::new();
    let missing = launch.scratch().join("nowhere");
    let finished = launch.run(&["run", "--plugins", missing.to_str().unwrap(), "--listen", "127.0.0.1:0"]);
    assert_refused(&finished, &["nowhere", "host new"]);
}

#[test]
fn file_instead_of_a_plugins_directory_is_named() {
    let launch = Launch::new();
    let file = launch.scratch().join("file");
    fs::write(&file, "").unwrap();
    assert_refused(&launch.run(&["run", "--plugins", file.to_str().unwrap()]), &["file", "directory"]);
}

/// An empty directory is no error, for plugins may come; but the screen says how to make one.
#[test]
fn empty_plugins_directory_says_how_to_begin() {
    let host = Launch::new().start();
    assert!(host.plugin_list().is_empty());
    assert_eq!(host.get("/").status, 200);
    let finished = host.terminate();
    let said = format!("{}{}", finished.stdout, finished.stderr);
    assert!(said.contains("host new"), "{finished}");
    assert_eq!(finished.code(), 0);
}

#[test]
fn port_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let launch = Launch::new();
    launch.plugins().install("shop", "version_a");
    let plugins = launch.plugins().path().to_str().unwrap();
    assert_refused(
        &launch.run(&["run", "--plugins", plugins, "--listen", &address]),
        &[&address, "--listen"],
    );
    let admin = ["run", "--plugins", plugins, "--listen", "127.0.0.1:0", "--admin", &address];
    assert_refused(&launch.run(&admin), &[&address, "--admin"]);
}

#[test]
fn address_that_is_none_is_named() {
    assert_refused(&run_cli(&["run", "--plugins", ".", "--listen", "localhost"]), &["localhost", "--listen"]);
}

/// Two plugins of one name: which would answer? Nobody guesses; both places are named.
#[test]
fn two_plugins_of_one_name_are_refused_by_name() {
    let launch = Launch::new();
    launch.plugins().install("shop", "version_a");
    launch.plugins().write_source("shop", "");
    let plugins = launch.plugins().path().to_str().unwrap();
    let finished = launch.run(&["run", "--plugins", plugins, "--listen", "127.0.0.1:0", "--admin", "off"]);
    assert_refused(&finished, &["shop", "shop.so"]);
}

/// `check` says of a file what a reload would say, and changes nothing.
#[test]
fn check_judges_libraries() {
    let check = |fixture: &str| {
        let library = fixture::library(fixture);
        run_cli(&["check", library.to_str().unwrap()])
    };
    for good in ["version_a", "abi_v1_frozen", "c_plugin"] {
        assert_eq!(check(good).code(), 0, "{}", check(good));
    }
    assert_refused(&check("wrong_abi"), &["ABI", "99"]);
    assert_refused(&check("no_descriptor"), &["descriptor"]);
}

#[test]
fn check_names_what_is_no_library() {
    let launch = Launch::new();
    let text = launch.scratch().join("story.so");
    fs::write(&text, "once upon a time").unwrap();
    assert_refused(&launch.run(&["check", text.to_str().unwrap()]), &["story.so", "ELF"]);
    let mut foreign = fs::read(fixture::library("version_a")).unwrap();
    foreign[18] = if cfg!(target_arch = "x86_64") { 183 } else { 62 };
    fs::write(&text, foreign).unwrap();
    assert_refused(&launch.run(&["check", text.to_str().unwrap()]), &["built for"]);
    assert_refused(&launch.run(&["check", "nothing.so"]), &["nothing.so"]);
}

/// What `new` writes is a plugin that builds as it is, and does not overwrite anybody's work.
#[test]
fn new_makes_a_plugin_that_passes_check() {
    let launch = Launch::new();
    let made = launch.run(&["new", "shop"]);
    assert_eq!(made.code(), 0, "{made}");
    let checked = launch.run(&["check", "plugins/shop"]);
    assert_eq!(checked.code(), 0, "{checked}");
    let again = launch.run(&["new", "shop"]);
    assert_refused(&again, &["shop", "exists"]);
    assert_refused(&launch.run(&["new", "no/good name"]), &["no/good name"]);
}

#[test]
fn status_without_a_host_says_how_to_start_one() {
    let launch = Launch::new();
    let state = launch.state_dir();
    assert_refused(&launch.run(&["status", "--state", state.to_str().unwrap()]), &["host run"]);
}

/// `status` tells people and programs the same.
#[test]
fn status_shows_every_plugin_in_words_and_in_json() {
    let host = TestHost::start([("shop", "version_a"), ("sick", "on_load_errs")]);
    let state = host.state_dir();
    let words = host.cli(&["status", "--state", state.to_str().unwrap()]);
    assert_eq!(words.code(), 0, "{words}");
    for word in ["shop", "serving", "sick", "refused"] {
        assert!(words.stdout.contains(word), "`{word}` is missing:\n{words}");
    }
    let json = host.cli(&["status", "--json", "--state", state.to_str().unwrap()]);
    let told: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(told["plugins"].as_array().map(Vec::len), Some(2), "{told}");
}

#[test]
fn second_host_on_the_same_state_is_refused() {
    let host = TestHost::start([("shop", "version_a")]);
    let (plugins, state) = (host.plugins.path().to_owned(), host.state_dir());
    let finished = host.cli(&[
        "run",
        "--listen",
        "127.0.0.1:0",
        "--admin",
        "127.0.0.1:0",
        "--plugins",
        plugins.to_str().unwrap(),
        "--state",
        state.to_str().unwrap(),
    ]);
    assert_refused(&finished, &["--state"]);
    assert_eq!(host.get("/shop/ping").text(), "a");
}
