//! Facts about the threads that code of plugins runs on: what a generation has left there stays while its code can run
//! there again, and goes when it cannot.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use tests::host::{Launch, TestHost};
use tests::http::{Client, Response};
use tests::load::Load;
use tests::stress::run_services;
use tests::wait::{SOON, eventually};

const FIXTURE: &str = "service_threads";

/// A host with the fixture under some names, and the files by which a test is told and tells.
struct Askers {
    host: TestHost,
    /// Of its own, so that it is there when the host has ended.
    _scratch: tempfile::TempDir,
    drops: PathBuf,
    gate: PathBuf,
}

impl Askers {
    fn start(plugins: &[&str]) -> Askers {
        let launch = Launch::new();
        for plugin in plugins {
            launch.plugins().install(plugin, FIXTURE);
        }
        let scratch = tempfile::tempdir().unwrap();
        let (drops, gate) = (scratch.path().join("drops"), scratch.path().join("gate"));
        let host = launch.env("FIXTURE_DROPS", &drops).env("FIXTURE_GATE", &gate).start();
        Askers { host, _scratch: scratch, drops, gate }
    }

    #[track_caller]
    fn ask(&self, path: &str) -> String {
        let response = self.host.get(path);
        assert_eq!(response.status, 200, "{path}: {}\n{}", response.text(), self.host.log());
        response.text()
    }

    fn rebuild(&self, plugin: &str, build: usize) -> u64 {
        self.host.reload(plugin, |plugins| plugins.rebuild(plugin, FIXTURE, build))
    }

    /// How many lines of what was destroyed say `what`, such as `local of 140`.
    fn destroyed(&self, what: &str) -> usize {
        fs::read_to_string(&self.drops).unwrap_or_default().lines().filter(|line| *line == what).count()
    }

    /// Waits until exactly these generations are parked, each with its holders.
    #[track_caller]
    fn wait_parked(&self, plugin: &str, expected: &[(u64, &[&str])]) {
        let words = |holders: &[&str]| holders.iter().map(|holder| (*holder).to_owned()).collect();
        let expected: Vec<(u64, Vec<String>)> =
            expected.iter().map(|&(number, holders)| (number, words(holders))).collect();
        eventually(SOON, &format!("{expected:?} to be parked"), || {
            let parked = self.host.plugin(plugin).parked();
            if parked == expected { Ok(()) } else { Err(format!("{parked:?}")) }
        });
    }
}

fn answer(response: &Response) -> Result<String, String> {
    match response.status {
        200 => Ok(response.text()),
        status => Err(format!("{status}: {}", response.text())),
    }
}

/// A service of generation 1 serves generations 2 to 50 on every thread, though its code asks for its thread, its
/// thread-locals and its runtime. When it is replaced, what it has left goes, and its generation too.
#[test]
fn service_asks_for_its_thread_fifty_generations_later() {
    let shop = Askers::start(&["shop"]);
    let first = shop.ask("/shop/all");
    let address = shop.host.listen();
    let all = Load::start(address, 6, &format!("/shop/all?address={address}"), answer);
    let inline = Load::start(address, 2, "/shop/inline", answer);
    for build in 2..=50 {
        shop.rebuild("shop", build);
        all.wait_answers(8);
        inline.wait_answers(2);
    }
    assert_eq!(shop.ask("/shop/thread"), "HELLO", "on a thread that the plugin starts");
    let all = all.finish();
    all.assert_flawless();
    inline.finish().assert_flawless();
    assert_eq!(all.labels.keys().collect::<Vec<_>>(), [&first], "one generation's code has run");
    shop.wait_parked("shop", &[(1, &["service `asker`", "1 thread started by it (`client`)"])]);
    assert_eq!(shop.host.plugin("shop").unloaded(), 48);
    // One of each thread that ran `on_load`, one of the plugin's thread above: they have ended.
    let local = format!("local of {first}");
    assert_eq!(shop.destroyed(&local), 51, "threads that live on keep theirs");

    assert_eq!(shop.ask("/shop/replace/asker"), "replaced");
    shop.host.wait_unloaded("shop", 49);
    shop.wait_parked("shop", &[]);
    assert_eq!(shop.destroyed(&format!("service of {first}")), 1);
    assert!(shop.destroyed(&local) > 53, "those of workers and I/O threads have gone");
    assert_ne!(shop.ask("/shop/all"), first);
}

/// Services of several generations run on the same threads; each generation goes with its own service.
#[test]
fn services_of_several_generations_share_threads() {
    let shop = Askers::start(&["shop"]);
    for build in 1..=3 {
        let made = shop.ask(&format!("/shop/ask/of-{build}"));
        assert!(made.starts_with("own 1 "), "{made}");
        shop.rebuild("shop", build);
    }
    let loads: Vec<Load> = ["of-1", "of-2", "of-3", "of-1"]
        .map(|key| Load::start(shop.host.listen(), 1, &format!("/shop/ask/{key}"), answer))
        .into();
    for build in 4..=8 {
        shop.rebuild("shop", build);
        loads.iter().for_each(|load| load.wait_answers(3));
    }
    loads.into_iter().for_each(|load| load.finish().assert_flawless());

    // The second first, in between those that stay; then the one that made two.
    let client = "1 thread started by it (`client`)";
    let both = "2 threads started by it (`client`, `client`)";
    let (one, three) = ("service `of-1`", "service `of-3`");
    shop.ask("/shop/remove/of-2");
    shop.wait_parked("shop", &[(1, &["service `asker`", one, both]), (3, &[three, client])]);
    shop.ask("/shop/remove/asker");
    shop.wait_parked("shop", &[(1, &[one, client]), (3, &[three, client])]);
    assert!(shop.ask("/shop/ask/of-1").starts_with("other "), "with one service left it can run everywhere");
    shop.ask("/shop/remove/of-1");
    shop.wait_parked("shop", &[(3, &[three, client])]);
    assert!(shop.ask("/shop/ask/of-3").starts_with("other "));
}

/// A service is shared: its maker's plugin is deleted, and its code still runs, for another plugin, on every thread.
#[test]
fn service_of_a_deleted_plugin_asks_for_its_thread() {
    let both = Askers::start(&["shop"]);
    both.ask("/shop/who");
    both.host.plugins.install("other", FIXTURE);
    both.host.wait_generation("other", 1);
    let load = Load::start(both.host.listen(), 4, "/other/all", answer);
    load.wait_answers(8);
    both.host.plugins.remove("shop");
    eventually(SOON, "the maker to be gone", || match both.host.get("/shop/ping").status {
        404 => Ok(()),
        status => Err(status),
    });
    for build in 1..=4 {
        both.rebuild("other", build);
        load.wait_answers(8);
    }
    load.finish().assert_flawless();
    assert_eq!(both.host.mapped_libraries(), 2);
    both.ask("/other/remove/asker");
    eventually(SOON, "the maker's code to be unmapped", || match both.host.mapped_libraries() {
        1 => Ok(()),
        libraries => Err(libraries),
    });
}

/// A thread that a plugin has started and that lives on keeps what a service has left on it, by name, until it ends.
#[test]
fn thread_of_a_plugin_keeps_what_a_service_left_on_it() {
    let shop = Askers::start(&["shop"]);
    shop.ask("/shop/who");
    shop.rebuild("shop", 2);
    assert_eq!(shop.ask("/shop/lingering"), "lingers");
    shop.ask("/shop/replace/asker");
    eventually(SOON, "the first generation to be held by the thread alone", || {
        match shop.host.plugin("shop").parked().as_slice() {
            [(1, holders)] if holders.iter().all(|holder| holder.ends_with(" on thread `lingerer`")) => {
                Ok(())
            }
            parked => Err(format!("{parked:?}")),
        }
    });
    fs::write(&shop.gate, "").unwrap();
    shop.wait_parked("shop", &[]);
}

/// How its thread is, told by the fixture `changes_thread`: its number, and the rest.
#[track_caller]
fn thread_of(host: &TestHost, path: &str) -> (String, String) {
    let response = host.get(path);
    assert_eq!(response.status, 200, "{path}: {}", response.text());
    let text = response.text();
    let (number, state) = text.split_once(' ').unwrap_or((&text, ""));
    let mut words: Vec<&str> = state.split(' ').collect();
    if !is_root() {
        // Who is not root may make a thread nicer and not take that back: the host says so.
        let nice = words.iter().position(|word| *word == "nice").expect("it is told");
        words.drain(nice..nice + 2);
    }
    (number.to_owned(), words.join(" "))
}

/// Whether this process may do everything.
fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

/// Whatever code changes of its thread, in a handler or in the destructor of a thread-local, is put back when its
/// generation is retired; and a fault on that thread is recorded, though the library's signal stack is gone.
#[test]
fn what_code_changes_of_a_thread_is_put_back() {
    for (kind, way) in [("", "local"), ("", "handler"), ("/inline", "local"), ("/inline", "handler")] {
        let launch = Launch::new().supervised();
        launch.plugins().install("shop", "changes_thread");
        // One thread of each kind, so that the one that was changed is asked.
        fs::write(launch.scratch().join("host.toml"), "[limits]\nmax_workers = 1\nio_threads = 1\n").unwrap();
        let host = launch.start();
        let state = format!("/shop{kind}/state");
        let (thread, healthy) = thread_of(&host, &state);
        assert!(healthy.contains("stack true"), "{healthy}");
        assert_eq!(host.get(&format!("/shop{kind}/{way}")).text(), thread, "the same thread");
        if way == "handler" {
            let (_, changed) = thread_of(&host, &state);
            assert!(changed.contains("name changed") && changed.contains("policy 3"), "{changed}");
            let tenth =
                |text: &str| text.split(' ').skip_while(|word| *word != "tenth").nth(1).map(str::to_owned);
            assert_eq!(tenth(&changed), tenth(&healthy), "how it rounds is put back at once: {changed}");
        }
        host.reload("shop", |plugins| plugins.rebuild("shop", "changes_thread", 2));
        host.wait_unloaded("shop", 1);
        eventually(SOON, "the thread to be as it was", || match thread_of(&host, &state) {
            now if now == (thread.clone(), healthy.clone()) => Ok(()),
            now => Err(format!("{kind} {way}: {now:?}\nit was {healthy}")),
        });

        let is_told =
            host.log().contains("changed this thread's niceness, and the system does not let it be put back");
        assert_eq!(is_told, !is_root(), "{}", host.log());

        let before = host.serving_pid();
        let answer = Client::new(host.listen()).get(&format!("/shop{kind}/segfault"));
        assert!(answer.is_err(), "{answer:?}");
        host.wait_restarted(before);
        let said = "the serving process ended: SIGSEGV at address 0x10 in shop generation 2, ";
        assert!(host.log().contains(said), "{kind} {way}: {}", host.log());
    }
}

/// What all threads share is not put back, for others may rely on it by now; it is told, with who served meanwhile.
#[test]
fn what_code_changes_of_the_process_is_told() {
    let host = TestHost::start([("shop", "changes_thread")]);
    assert_eq!(host.get("/shop/process").text(), "changed");
    host.reload("shop", |plugins| plugins.replace("shop", "version_a"));
    host.wait_unloaded("shop", 1);
    let log = host.log();
    for said in ["shop g1 the working directory is /, it was ", "shop g1 the file mode mask is 0007, it was "]
    {
        assert!(log.contains(said), "{said}: {log}");
    }
    host.reload("shop", |plugins| plugins.replace("shop", "version_b"));
    host.wait_unloaded("shop", 2);
    assert_eq!(host.log().matches("the working directory is ").count(), 1, "once");
}

/// The stress command with services in a short form: a runtime, thread-locals and a client, from eight threads.
#[test]
fn services_that_ask_for_their_thread_serve_through_reloads() {
    let outcome = run_services(40, 8);
    assert!(outcome.wrong.is_empty(), "{outcome:#?}");
    assert_eq!((outcome.reloads, outcome.failed), (40, 0), "{outcome:#?}");
}
