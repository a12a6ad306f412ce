//! Every way to a connection, over the real boundary, and what an operator sees of it.

use tests::host::{Launch, TestHost};
use tests::postgres::Cluster;
use tests::wait::{SOON, eventually};

fn start() -> TestHost {
    let cluster = Cluster::shared();
    let database = cluster.create_database();
    let launch = Launch::new();
    launch.plugins().install("probe", "pool_probe");
    let gate = launch.scratch().join("gate");
    launch.env("DATABASE_URL", cluster.url(&database)).env("GATE", gate).start()
}

/// What the pool's report says of a connection that does not come back.
fn leak(host: &TestHost) -> String {
    eventually(SOON, "the report of the leak", || {
        let pools = host.api("/api/db");
        let events = pools["pools"][0]["events"].as_array().cloned().unwrap_or_default();
        let leak = events.iter().find(|event| event["event"] == "leak");
        leak.map(|leak| leak["detail"].as_str().unwrap().to_owned()).ok_or_else(|| pools.to_string())
    })
}

#[track_caller]
fn answer(host: &TestHost, path: &str) -> String {
    let response = host.get(path);
    assert_eq!(response.status, 200, "{path}: {}", response.text());
    response.text()
}

#[test]
fn a_plugin_reaches_every_setting_of_a_pool() {
    let host = start();
    assert_eq!(answer(&host, "/probe/pool"), "5MB true 1 2 true");
}

#[test]
fn a_plugin_has_a_steady_connection_and_one_for_each_thread() {
    let host = start();
    assert_eq!(answer(&host, "/probe/steady"), "true 77ms");
    assert_eq!(answer(&host, "/probe/persistent"), "true");
    assert_eq!(host.slot("threads").failures(), 0);
}

#[test]
fn wrong_settings_are_named_to_the_plugin() {
    let host = start();
    let text = answer(&host, "/probe/refused");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 5, "{text}");
    for (line, name) in
        lines.iter().zip(["`min_idle`", "`is_fatal`", "`idle_timeout`", "`session`", "each thread"])
    {
        assert!(line.contains(name), "{line}");
    }
}

/// The report names plugin, generation and route, and `host db` shows it.
#[test]
fn a_forgotten_connection_is_shown_with_plugin_generation_and_route() {
    let host = start();
    answer(&host, "/probe/forget");
    let detail = leak(&host);
    assert!(detail.starts_with("lent to plugin `probe` generation 1, GET /forget, request "), "{detail}");
    let state = host.state_dir();
    let state = state.to_str().unwrap();
    let shown = host.cli(&["db", "--state", state]);
    assert_eq!(shown.code(), 0, "{shown}");
    for words in ["1 of 1", "LEAKS", "leak: lent to plugin `probe` generation 1"] {
        assert!(shown.stdout.contains(words), "no {words}:\n{}", shown.stdout);
    }
    let json: serde_json::Value =
        serde_json::from_str(&host.cli(&["db", "--json", "--state", state]).stdout).unwrap();
    assert_eq!(json["pools"][0]["leaks"], 1);
}

/// A request's transaction is the host's to end; its connection has a borrower like any other.
#[test]
fn a_transaction_that_stays_open_is_shown_with_its_route_too() {
    let host = start();
    std::thread::scope(|scope| {
        let held = scope.spawn(|| answer(&host, "/probe/hold"));
        let detail = leak(&host);
        assert!(detail.starts_with("lent to plugin `probe` generation 1, GET /hold, request "), "{detail}");
        std::fs::write(host.state_dir().parent().unwrap().join("gate"), "").unwrap();
        assert_eq!(held.join().unwrap(), "held\n");
    });
}
