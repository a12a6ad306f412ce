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

/// The same answers from a running host and, when it has stopped, from the files.
#[test]
fn command_line_looks_changes_and_backs_up() {
    let host = TestHost::start([("probe", "safe_probe")]);
    let state = host.state_dir().to_str().unwrap().to_owned();
    ask(&host, "/probe/tour");
    let run = |host: &TestHost, args: &[&str]| {
        let mut all = vec!["safe"];
        all.extend(args);
        all.extend(["--state", &state]);
        host.cli(&all)
    };
    let listed = run(&host, &["ls", "probe", "--json"]);
    assert_eq!(listed.code(), 0, "{listed}");
    let listed: serde_json::Value = serde_json::from_str(&listed.stdout).unwrap();
    let keys: Vec<&str> =
        listed["entries"].as_array().unwrap().iter().map(|entry| entry["key"].as_str().unwrap()).collect();
    assert_eq!(keys, [r"\x00\x02tour\x00\x02b\x00", r"\x00\x02tour\x00\x02c\x00", "from", "moved"]);
    assert_eq!(run(&host, &["get", "probe", "from"]).stdout, "11\n");
    assert_eq!(run(&host, &["put", "probe", "from", "{\"a\":1}"]).code(), 0);
    assert_eq!(run(&host, &["get", "probe", "from"]).stdout, "{\n  \"a\": 1\n}\n");
    assert_eq!(run(&host, &["rm", "probe", "moved"]).code(), 0);
    let again = run(&host, &["rm", "probe", "moved"]);
    assert_eq!((again.code(), again.complaint().contains("there is no entry `moved`")), (1, true), "{again}");
    assert_eq!(run(&host, &["check"]).stdout, "probe: sound, 3 entries\n");
    let stat = host.api("/api/safes");
    assert_eq!(
        (&stat["safes"][0]["name"], &stat["safes"][0]["entries"]),
        (&"probe".into(), &3.into()),
        "{stat}"
    );

    let copy = host.state_dir().join("copy.redb");
    let copy = copy.to_str().unwrap();
    let done = run(&host, &["backup", "probe", copy]);
    assert_eq!(done.code(), 0, "{done}");
    assert_eq!(run(&host, &["put", "probe", "from", "0"]).code(), 0);
    let refused = run(&host, &["restore", "probe", copy]);
    assert_eq!((refused.code(), refused.complaint().contains("in use")), (1, true), "{refused}");

    let launch = host.kill9();
    let restored = launch.run(&["safe", "restore", "probe", copy, "--state", &state]);
    assert_eq!(restored.code(), 0, "{restored}");
    let shown = launch.run(&["safe", "get", "probe", "from", "--state", &state]);
    assert_eq!(shown.stdout, "{\n  \"a\": 1\n}\n", "{shown}");
    assert_eq!(ask(&launch.start(), "/probe/incr/x"), "1");
}

/// What plugins keep is shown to whoever may use the control socket, and not on the network.
#[test]
fn contents_are_not_shown_on_the_admin_listener() {
    let host = TestHost::start([("probe", "safe_probe")]);
    ask(&host, "/probe/tour");
    let order = br#"{"order":"get","safe":"probe","key":"from"}"#;
    let refused = Client::new(host.admin()).post("/api/safes", order).unwrap();
    assert_eq!(refused.status, 405, "{}", refused.text());
}

/// The shipped example: a login outlives the process, and the sixth within a minute is refused.
#[test]
fn sessions_survive_a_restart_and_logins_are_limited() {
    let host = TestHost::start([("sessions", "sessions_plugin")]);
    let login = |host: &TestHost, name: &str| {
        let headers = [("content-type", "application/x-www-form-urlencoded")];
        let body = format!("name={name}");
        Client::new(host.listen()).request("POST", "/sessions/login", &headers, body.as_bytes()).unwrap()
    };
    let answer = login(&host, "ann");
    assert_eq!(answer.status, 303, "{}", answer.text());
    let cookie = answer.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    let home = |host: &TestHost| {
        Client::new(host.listen()).request("GET", "/sessions/", &[("cookie", &cookie)], b"").unwrap().text()
    };
    assert!(home(&host).contains("Visit number 1"));
    let host = host.restart();
    assert!(home(&host).contains("Hello, ann") && home(&host).contains("Visit number 3"));
    for _ in 0..4 {
        assert_eq!(login(&host, "bob").status, 303);
    }
    assert_eq!(login(&host, "eve").status, 429);
}
