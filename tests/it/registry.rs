//! Facts about the registry: one init per key at a time, and a bad one harms nobody.

use std::fs;
use std::path::PathBuf;
use std::sync::Barrier;
use std::thread;

use tests::host::{Launch, TestHost};
use tests::http::Client;
use tests::wait::{SOON, eventually};

/// A host with the probe, and where its inits are counted.
struct Probe {
    host: TestHost,
    scratch: PathBuf,
}

impl Probe {
    fn start() -> Probe {
        let launch = Launch::new();
        launch.plugins().install("probe", "registry_probe");
        let scratch = launch.scratch().to_owned();
        Probe { host: launch.start(), scratch }
    }

    fn path(&self, route: &str, key: &str) -> String {
        format!("/probe/{route}?key={key}&count={}", self.scratch.join(key).display())
    }

    fn ask(&self, route: &str, key: &str) -> String {
        let response = self.host.get(&self.path(route, key));
        assert_eq!(response.status, 200, "{}", response.text());
        response.text()
    }

    /// How many inits of the key have run.
    fn inits(&self, key: &str) -> usize {
        fs::read_to_string(self.scratch.join(key)).unwrap_or_default().lines().count()
    }

    /// 64 clients ask at once; the first init waits until they had time to pile up behind it.
    fn ask_at_once(&self, route: &str, key: &str) -> Vec<String> {
        let gate = self.scratch.join(format!("{key}.gate"));
        let path = format!("{}&gate={}", self.path(route, key), gate.display());
        let barrier = Barrier::new(65);
        thread::scope(|scope| {
            let clients: Vec<_> = (0..64)
                .map(|_| {
                    scope.spawn(|| {
                        barrier.wait();
                        Client::new(self.host.listen()).get(&path).expect("an answer").text()
                    })
                })
                .collect();
            barrier.wait();
            eventually(SOON, "the first init", || match self.inits(key) {
                0 => Err("none"),
                _ => Ok(()),
            });
            fs::write(&gate, "").unwrap();
            clients.into_iter().map(|client| client.join().unwrap()).collect()
        })
    }
}

#[test]
fn cold_key_asked_by_64_clients_has_one_init() {
    let probe = Probe::start();
    let answers = probe.ask_at_once("ok", "cold");
    assert!(answers.iter().all(|answer| answer == "ok"), "{answers:?}");
    assert_eq!(probe.inits("cold"), 1);
    let slot = probe.host.slot("cold");
    assert_eq!((slot.created_by(), slot.failures()), (("probe".to_owned(), 1), 0), "{slot}");
}

/// Every client gets the init's error, or that the next try is not due; the next try succeeds.
#[test]
fn init_that_errs_is_told_to_all_and_may_succeed_next_time() {
    let probe = Probe::start();
    let answers = probe.ask_at_once("errs", "failing");
    assert!(answers.iter().all(|answer| is_failure(answer, "Init(")), "{answers:?}");
    assert!(answers.iter().any(|answer| answer.contains("this init errs")), "{answers:?}");
    recovers(&probe, "failing", "this init errs");
}

/// A panic is an error like another: typed, not cached, and no lock is poisoned.
#[test]
fn init_that_panics_is_told_to_all_and_may_succeed_next_time() {
    let probe = Probe::start();
    let answers = probe.ask_at_once("panics", "panicking");
    assert!(answers.iter().all(|answer| is_failure(answer, "Panicked(")), "{answers:?}");
    assert!(answers.iter().any(|answer| answer.contains("this init panics")), "{answers:?}");
    recovers(&probe, "panicking", "this init panics");
}

/// An init that needs its own value is an error, not a deadlock.
#[test]
fn init_that_recurses_is_told_to_all_and_may_succeed_next_time() {
    let probe = Probe::start();
    let answers = probe.ask_at_once("recurses", "circular");
    assert!(answers.iter().all(|answer| is_failure(answer, "Init(")), "{answers:?}");
    assert!(answers.iter().any(|answer| answer.contains("circular")), "the key is not named: {answers:?}");
    recovers(&probe, "circular", "circular");
}

fn is_failure(answer: &str, kind: &str) -> bool {
    answer.starts_with(kind) || answer.starts_with("BackingOff(") || answer.starts_with("Recursive(")
}

/// After failures the slot shows them, is empty, and takes a good value as soon as the next try is due.
fn recovers(probe: &Probe, key: &str, words: &str) {
    let slot = probe.host.slot(key);
    assert!(slot.failures() >= 1 && slot.last_error().contains(words), "{slot}");
    assert!(probe.ask("get", key).starts_with("NotFound("));
    eventually(SOON, "an init that succeeds", || match probe.ask("ok", key) {
        answer if answer == "ok" => Ok(()),
        answer => Err(answer),
    });
    let inits = probe.inits(key);
    assert_eq!(probe.ask("ok", key), "ok");
    assert_eq!(probe.inits(key), inits, "the value was there and was made again");
}

/// While one key's init stands still, another key is made and found.
#[test]
fn slow_key_does_not_delay_another() {
    let probe = Probe::start();
    let gate = probe.scratch.join("gate");
    let path = format!("{}&gate={}", probe.path("ok", "slow"), gate.display());
    thread::scope(|scope| {
        let slow = scope.spawn(|| Client::new(probe.host.listen()).get(&path).expect("an answer").text());
        eventually(SOON, "the slow init", || match probe.inits("slow") {
            0 => Err("not begun"),
            _ => Ok(()),
        });
        assert_eq!(probe.ask("ok", "quick"), "ok");
        assert!(probe.ask("get", "slow").starts_with("NotFound("), "half-made values are not there");
        fs::write(&gate, "").unwrap();
        assert_eq!(slow.join().unwrap(), "ok");
    });
}

/// A value survives the code that made it, and the slot says so.
#[test]
fn value_survives_reloads() {
    let probe = Probe::start();
    assert_eq!(probe.ask("ok", "kept"), "ok");
    for reload in 1..=3 {
        probe.host.reload("probe", |plugins| plugins.rebuild("probe", "registry_probe", reload));
        assert_eq!(probe.ask("ok", "kept"), "ok");
    }
    assert_eq!(probe.inits("kept"), 1);
    let slot = probe.host.slot("kept");
    assert_eq!((slot.created_by().1, slot.reloads_survived()), (1, 3), "{slot}");
}

/// A removed value is gone for those who ask next, who make a new one.
#[test]
fn removed_value_is_made_again() {
    let probe = Probe::start();
    assert_eq!(probe.ask("ok", "passing"), "ok");
    assert_eq!(probe.ask("remove", "passing"), "ok");
    assert!(probe.ask("get", "passing").starts_with("NotFound("));
    assert_eq!(probe.ask("ok", "passing"), "ok");
    assert_eq!(probe.inits("passing"), 2);
}

/// Two plugins that ask for one key share one value.
#[test]
fn plugins_share_a_key() {
    let probe = Probe::start();
    assert_eq!(probe.ask("ok", "shared"), "ok");
    probe.host.reload("twin", |plugins| plugins.install("twin", "registry_probe"));
    let path = probe.path("ok", "shared").replace("/probe/", "/twin/");
    assert_eq!(probe.host.get(&path).text(), "ok");
    assert_eq!(probe.inits("shared"), 1);
}
