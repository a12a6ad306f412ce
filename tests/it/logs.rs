//! Facts about `host logs`: what is kept, who sees it, and that following goes on over a crash.

use serde_json::Value;
use tests::eventually;
use tests::guard;
use tests::host::{Launch, TestHost};
use tests::wait::SOON;

fn logs(host: &TestHost, args: &[&str]) -> String {
    let state = host.state_dir();
    let finished = host.cli(&[&["logs", "--state", state.to_str().unwrap()], args].concat());
    assert_eq!(finished.code(), 0, "{finished}");
    finished.stdout
}

fn both() -> Launch {
    let launch = Launch::new();
    launch.plugins().install("shop", "version_a");
    launch.plugins().install("zoo", "handler_faults");
    launch
}

/// What a plugin says and what is said of it are both found by its name, as on the screen.
#[test]
fn log_of_a_plugin_has_its_words_and_its_events() {
    let host = both().start();
    assert_eq!(host.get("/zoo/panic").status, 500);

    let all = logs(&host, &["--lines", "1000"]);
    for line in ["loaded shop: generation 1", "loaded zoo: generation 1", "zoo g1 GET /panic ["] {
        assert!(all.contains(line), "`{line}` is missing:\n{all}");
    }
    let of_shop = logs(&host, &["shop"]);
    assert!(of_shop.contains("loaded shop") && !of_shop.contains("zoo"), "{of_shop}");
    assert_eq!(logs(&host, &["-n", "1"]).lines().count(), 1);

    let bad = logs(&host, &["zoo", "--level", "error", "--json"]);
    let bad: Vec<Value> = bad.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let said = &bad.first().expect("the panic was logged");
    assert!(bad.iter().all(|line| line["level"] == "error" && line["plugin"] == "zoo"), "{bad:?}");
    assert_eq!((&said["route"], &said["generation"]), (&"GET /panic".into(), &"1".into()), "{said}");
    assert!(said["message"].as_str().unwrap().contains("a handler panics"), "{said}");
}

/// Records of the `log` crate come without a line by the author, with the spans they happened in; panics and threads without
/// a name are called after the plugin.
#[test]
fn records_and_threads_without_a_name_are_the_plugins() {
    let launch = Launch::new().arg("--log=debug");
    launch.plugins().install("shop", "logs_records");
    let host = launch.start();
    assert_eq!(host.get("/shop/log").text(), "said");
    let log = host.log();
    let record =
        log.lines().find(|line| line.contains("a record about stock")).expect("the record is in the log");
    assert!(record.contains("WARN") && record.contains("order{id=7}: a record"), "{record}");
    assert!(log.lines().any(|line| line.contains("DEBUG") && line.contains("a detail")), "{log}");
    assert_eq!(host.get("/shop/thread").text(), "shop\n");
    assert_eq!(host.get("/shop/panic").status, 500);
    assert_eq!(host.get("/shop/thread-panic").text(), "over");
    let log = host.log();
    for said in ["on a worker", "on a thread of its own"] {
        let line = log.lines().find(|line| line.contains(said)).expect("the panic is in the log");
        assert!(line.contains("(thread `shop`)"), "{line}");
    }
}

/// Code that installs a logger, as programs do, is told that the host has one, and what to do.
#[test]
fn logger_of_the_plugins_own_is_refused_with_advice() {
    for what in ["logger", "subscriber"] {
        let launch = Launch::new().env("FIXTURE_INSTALLS", what);
        launch.plugins().install("shop", "logs_records");
        let host = launch.start();
        let reason = host.plugin("shop").reason();
        assert!(reason.contains("remove that call"), "{what}: {reason}");
    }
}

/// The log may name what nobody else should read: the network has no path to it.
#[test]
fn log_is_not_on_the_network() {
    let host = both().start();
    let answer = tests::http::Client::new(host.admin()).get("/api/logs").unwrap();
    assert_eq!(answer.status, 404, "{}", answer.text());
}

/// Whoever follows sees what comes, also from the process that takes the place of one that was killed; and
/// ends with a sentence when there is none left.
#[test]
fn following_goes_on_in_the_next_process_and_ends_with_the_host() {
    let launch = both().supervised();
    let host = launch.start();
    let state = host.state_dir();
    let mut follower = host.spawn_cli(&["logs", "shop", "--follow", "--state", state.to_str().unwrap()]);
    let sees = |follower: &tests::host::Program, words: &str| {
        eventually(SOON, words, || match follower.stdout().contains(words) {
            true => Ok(()),
            false => Err(follower.stdout()),
        });
    };
    sees(&follower, "loaded shop: generation 1");
    host.reload("shop", |plugins| plugins.replace("shop", "version_b"));
    sees(&follower, "reloaded shop: generation 1 -> 2");

    let before = host.serving_pid();
    guard::signal("KILL", &[before]);
    host.wait_restarted(before);
    sees(&follower, "resumed shop: generation");

    assert_eq!(host.terminate().code(), 0);
    let finished = follower.wait(SOON);
    assert_eq!(finished.code(), 1, "{finished}");
    assert!(finished.stderr.contains("no host is running"), "{finished}");
}
