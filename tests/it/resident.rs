//! Facts about data that outlives code: it is the same memory, whichever generation looks at it.

use std::thread;

use tests::host::TestHost;
use tests::http::Client;

const FIXTURE: &str = "resident_probe";

fn start() -> TestHost {
    TestHost::start([("probe", FIXTURE)])
}

fn ask(host: &TestHost, path: &str) -> String {
    let response = host.get(path);
    assert_eq!(response.status, 200, "{path}: {}\n{}", response.text(), host.log());
    response.text()
}

/// Numbers, texts and maps go on through reloads, and belong to the newest code.
#[test]
fn data_survives_reloads() {
    let host = start();
    for build in 0..20 {
        for who in ["ann", "bob", "a name that is long enough for a block of its own"] {
            ask(&host, &format!("/probe/hit/{}", who.replace(' ', "%20")));
        }
        host.reload("probe", |plugins| plugins.rebuild("probe", FIXTURE, build));
    }
    let long = "a name that is long enough for a block of its own";
    assert_eq!(ask(&host, "/probe/show"), format!("60 Some(\"{long}\") {long}=20,ann=20,bob=20"));
    let registry = host.api("/api/registry").to_string();
    let slot = host.slot("stats");
    assert_eq!((slot.created_by(), slot.reloads_survived()), (("probe".to_owned(), 1), 20), "{slot}");
    assert!(registry.contains("\"dropped_by\":\"probe generation 21\""), "{registry}");
    assert!(registry.contains("\"upgrades\":0") && registry.contains("\"kind\":\"data\""), "{registry}");
}

/// No hit is lost while eight clients hit and the code changes under them.
#[test]
fn no_update_is_lost_in_reloads_under_load() {
    let host = start();
    let hits: u64 = thread::scope(|scope| {
        let clients: Vec<_> = (0..8)
            .map(|i| {
                let listen = host.listen();
                scope.spawn(move || {
                    let mut client = Client::new(listen);
                    (0..250)
                        .filter(|_| client.get(&format!("/probe/hit/c{i}")).unwrap().status == 200)
                        .count()
                })
            })
            .collect();
        for build in 0..10 {
            host.reload("probe", |plugins| plugins.rebuild("probe", FIXTURE, build));
        }
        clients.into_iter().map(|client| client.join().unwrap() as u64).sum()
    });
    assert_eq!(hits, 8 * 250);
    let shown = ask(&host, "/probe/show");
    assert!(shown.starts_with("2000 ") && shown.contains("c0=250") && shown.contains("c7=250"), "{shown}");
}

/// Two plugins that name the same key and type share the value; another type is refused with both names.
#[test]
fn data_is_shared_between_plugins_and_never_read_as_another_type() {
    let host = TestHost::start([("one", FIXTURE), ("two", FIXTURE)]);
    ask(&host, "/one/hit/ann");
    ask(&host, "/two/hit/ann");
    assert_eq!(ask(&host, "/one/show"), "2 Some(\"ann\") ann=2");
    let told = ask(&host, "/two/other");
    assert!(told.contains("`Stats`") && told.contains("`Other`") && told.contains("generation 1"), "{told}");
    assert_eq!(ask(&host, "/two/show"), "2 Some(\"ann\") ann=2");
}

/// Whoever holds a removed value keeps it; everybody else begins anew.
#[test]
fn removed_data_begins_anew_and_its_holders_are_not_disturbed() {
    let host = start();
    ask(&host, "/probe/hit/ann");
    ask(&host, "/probe/hold");
    for _ in 0..3 {
        ask(&host, "/probe/remove");
        assert_eq!(ask(&host, "/probe/hit/bob"), "0");
        assert_eq!(ask(&host, "/probe/show"), "1 Some(\"bob\") bob=1");
    }
    host.reload("probe", |plugins| plugins.rebuild("probe", FIXTURE, 1));
    assert_eq!(ask(&host, "/probe/show"), "1 Some(\"bob\") bob=1");
}

/// A value that is found and removed ten thousand times leaves nothing behind, however it is found.
#[test]
fn keys_that_come_and_go_cost_no_memory() {
    let host = start();
    for how in ["lazy", "key", "keys"] {
        ask(&host, &format!("/probe/churn/{how}/200"));
        let before = resident_kb(&host);
        ask(&host, &format!("/probe/churn/{how}/10000"));
        let grown = resident_kb(&host).saturating_sub(before);
        assert!(grown < 4_000, "{how}: {grown} KB for 10000 values");
    }
}

/// What of the host is in memory.
fn resident_kb(host: &TestHost) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", host.serving_pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
}
