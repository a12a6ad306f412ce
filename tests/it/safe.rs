//! Facts about the safe, through a real host: what was put outlives code, plugin, process and crash.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use tests::host::{Launch, TestHost};
use tests::http::Client;

/// Asks with the body as the answer.
#[track_caller]
fn ask(host: &TestHost, path: &str) -> String {
    let response = host.get(path);
    assert_eq!(response.status, 200, "{path}: {}", response.text());
    response.text()
}

/// Version, expiry and bytes are the same in the next generation, and after the plugin was gone.
#[test]
fn what_was_put_survives_reload_and_removal() {
    let host = TestHost::start([("probe", "safe_probe")]);
    assert_eq!(ask(&host, "/probe/visit/ann"), "1");
    let entry = ask(&host, "/probe/entry/ann");
    assert!(entry.contains("version: 1") && !entry.contains("expires_at: 0"), "{entry}");

    host.reload("probe", |plugins| plugins.rebuild("probe", "safe_probe", 1));
    assert_eq!(ask(&host, "/probe/entry/ann"), entry);

    host.plugins.remove("probe");
    tests::eventually(tests::wait::SOON, "the plugin to be gone", || {
        let list = host.plugin_list();
        if list.is_empty() { Ok(()) } else { Err(list[0].to_string()) }
    });
    host.reload("probe", |plugins| plugins.install("probe", "safe_probe"));
    assert_eq!(ask(&host, "/probe/entry/ann"), entry);
}

/// A field added across a reload takes its default; what does not fit is an error, and its bytes are there.
#[test]
fn type_may_grow_across_a_reload() {
    let host = TestHost::start([("probe", "safe_probe")]);
    ask(&host, "/probe/visit/ann");
    let entry = ask(&host, "/probe/entry/ann");
    host.reload("probe", |plugins| plugins.replace("probe", "safe_probe_grown"));
    assert_eq!(ask(&host, "/probe/entry/ann"), entry);
    assert_eq!(ask(&host, "/probe/show/ann"), "Some(Visitor { visits: 0, name: \"ann\" })");
    let wrong = ask(&host, "/probe/wrong/ann");
    assert!(wrong.starts_with("Some(Decode { message: \"the value under `"), "{wrong}");
    assert!(wrong.ends_with("name\u{fffd}ann"), "the raw bytes are readable: {wrong}");
}

#[test]
fn what_was_put_survives_a_restart_and_a_kill() {
    let host = TestHost::start([("probe", "safe_probe")]);
    ask(&host, "/probe/visit/ann");
    let entry = ask(&host, "/probe/entry/ann");
    let host = host.restart();
    assert_eq!(ask(&host, "/probe/entry/ann"), entry);
    let host = host.kill9().start();
    assert_eq!(ask(&host, "/probe/entry/ann"), entry);
    // Versions go on where they were.
    assert_eq!(ask(&host, "/probe/visit/bob"), "2");
}

/// How often the host is killed under its writers; the run that counts says 100.
fn kills() -> usize {
    std::env::var("SAFE_KILLS").ok().and_then(|number| number.parse().ok()).unwrap_or(3)
}

/// Eight writers count; whatever number was answered is there after a kill, and at most one more.
#[test]
fn kill_under_eight_writers_loses_no_acknowledged_write() {
    let mut host = TestHost::start([("probe", "safe_probe")]);
    let acknowledged: Vec<AtomicU64> = (0..8).map(|_| AtomicU64::new(0)).collect();
    for round in 0..kills() {
        let before: u64 = acknowledged.iter().map(|sum| sum.load(Ordering::SeqCst)).sum();
        let address = host.listen();
        let total = || acknowledged.iter().map(|sum| sum.load(Ordering::SeqCst)).sum::<u64>();
        let launch = thread::scope(|scope| {
            for (writer, sum) in acknowledged.iter().enumerate() {
                scope.spawn(move || {
                    let mut client = Client::new(address);
                    while let Ok(response) = client.get(&format!("/probe/incr/{writer}")) {
                        assert_eq!(response.status, 200, "{}", response.text());
                        sum.store(response.text().parse().unwrap(), Ordering::SeqCst);
                    }
                });
            }
            // Another moment each round.
            while total() < before + 40 + 7 * (round as u64 % 16) {
                thread::yield_now();
            }
            host.kill9()
        });
        host = launch.start();
        for (writer, sum) in acknowledged.iter().enumerate() {
            let told = sum.load(Ordering::SeqCst);
            // This adds one.
            let found: u64 = ask(&host, &format!("/probe/incr/{writer}")).parse().unwrap();
            assert!(
                (told + 1..=told + 2).contains(&found),
                "round {round}, writer {writer}: {told} was acknowledged, then {found}"
            );
            sum.store(found, Ordering::SeqCst);
        }
    }
}

#[test]
fn plugin_cannot_see_the_safe_of_another() {
    let host = TestHost::start([("one", "safe_probe"), ("two", "safe_probe")]);
    ask(&host, "/one/visit/ann");
    assert_eq!(ask(&host, "/two/entry/ann"), "None");
    assert_eq!(ask(&host, "/two/visit/ann"), "1");
    assert!(ask(&host, "/one/entry/ann").contains("version: 1"));
}

#[test]
fn every_operation_does_what_it_says() {
    let host = TestHost::start([("probe", "safe_probe")]);
    let expected = "[\"a\", \"b\"] [\"c\"] true\n[None]\nSome([97])\ntrue\n[2, 11]\nfalse false\n\
                    Some(1) Some(2) None false\n4\n";
    assert_eq!(ask(&host, "/probe/tour"), expected);
    assert_eq!(ask(&host, "/probe/short/x"), "false");
}

/// The disk is no place for an I/O thread to wait.
#[test]
fn inline_route_is_told_that_the_safe_blocks() {
    let host = TestHost::start([("probe", "safe_probe")]);
    let told = ask(&host, "/probe/inline");
    assert!(told.contains("the safe's calls block; declare the route without `inline`"), "{told}");
}

/// Two hosts do not share a state directory; the second may have it when the first is dead.
#[test]
fn second_host_is_refused_and_takes_over_from_a_dead_one() {
    let host = TestHost::start([("probe", "safe_probe")]);
    ask(&host, "/probe/visit/ann");
    let second = Launch::new().run(&[
        "run",
        "--listen",
        "127.0.0.1:0",
        "--admin",
        "off",
        "--plugins",
        host.plugins.path().to_str().unwrap(),
        "--state",
        host.state_dir().to_str().unwrap(),
    ]);
    assert_eq!(second.code(), 1, "{second}");
    assert!(second.complaint().contains("another host is running with the state directory"), "{second}");
    let host = host.kill9().start();
    assert_eq!(ask(&host, "/probe/show/ann"), "Some(Visitor { name: \"ann\" })");
}
