//! Facts about keys whose values make room: when, in which order, and what an operator is shown and may do.

use std::fs;
use std::path::PathBuf;

use tests::host::{Launch, TestHost};
use tests::wait::{SOON, eventually};

const FIXTURE: &str = "policies";

/// A host with the fixture, and where it is told what to do.
struct Stage {
    host: TestHost,
    dir: PathBuf,
}

impl Stage {
    fn start(config: &str) -> Stage {
        let launch = Launch::new();
        launch.plugins().install("shop", FIXTURE);
        let dir = launch.scratch().to_owned();
        fs::write(dir.join("config"), config).unwrap();
        Stage { host: launch.env("FIXTURE_DIR", &dir).start(), dir }
    }

    fn tell(&self, file: &str, what: &str) {
        fs::write(self.dir.join(file), what).unwrap();
    }

    fn ask(&self, key: &str) -> String {
        let response = self.host.get(&format!("/shop/{key}"));
        assert_eq!(response.status, 200, "{}", response.text());
        response.text()
    }

    fn rebuild(&self, build: usize) {
        self.host.reload("shop", |plugins| plugins.rebuild("shop", FIXTURE, build));
    }

    fn cli(&self, args: &[&str]) -> (i32, String) {
        let state = self.host.state_dir();
        let finished = self.host.cli(&[args, &["--state", state.to_str().unwrap()]].concat());
        (finished.code(), format!("{}{}", finished.stdout, finished.stderr))
    }
}

#[test]
fn each_key_keeps_restarts_or_follows_its_configuration() {
    let stage = Stage::start("first");
    let ask_all = || ["kept", "restarted", "configured", "lazy"].map(|key| stage.ask(key));
    assert_eq!(ask_all(), ["1", "1", "1", "1"]);
    assert_eq!(ask_all(), ["1", "1", "1", "1"]);
    stage.rebuild(1);
    assert_eq!(ask_all(), ["1", "2", "1", "1"]);
    stage.tell("config", "second");
    // A `Lazy` asks for its configuration once in a generation, an entry each time.
    assert_eq!(ask_all(), ["1", "2", "2", "1"]);
    stage.rebuild(2);
    assert_eq!(ask_all(), ["1", "3", "2", "2"]);
    assert_eq!(ask_all(), ["1", "3", "2", "2"]);
}

/// The value of the old configuration stays, and serves, until one of the new can be made.
#[test]
fn init_that_fails_for_a_new_configuration_keeps_the_old_value() {
    let stage = Stage::start("first");
    assert_eq!(stage.ask("configured"), "1");
    stage.tell("load", "configured");
    stage.tell("config", "second");
    stage.tell("fail", "");
    let reason = stage.host.refuse("shop", |plugins| plugins.rebuild("shop", FIXTURE, 1));
    assert!(reason.contains("this init fails, as it was told"), "{reason}");
    stage.tell("config", "first");
    assert_eq!(stage.ask("configured"), "1");
    assert_eq!(stage.host.slot("configured").created_by(), ("shop".to_owned(), 1));

    fs::remove_file(stage.dir.join("fail")).unwrap();
    stage.tell("config", "second");
    stage.rebuild(2);
    assert_eq!(stage.ask("configured"), "2");
    assert_eq!(stage.host.slot("configured").created_by(), ("shop".to_owned(), 3));
}

/// A pool for another address is opened before the old one is closed, which is when the old code has left.
#[test]
fn pool_of_an_old_configuration_is_closed() {
    let stage = Stage::start("");
    let url = |name: &str| format!("sqlite:{}", stage.dir.join(name).display());
    let open = |name: &str| {
        let fds = fs::read_dir(format!("/proc/{}/fd", stage.host.pid())).unwrap();
        let links = fds.filter_map(|fd| fs::read_link(fd.unwrap().path()).ok());
        links.filter(|link| *link == stage.dir.join(name)).count()
    };
    stage.tell("config", &url("one.db"));
    assert_eq!(stage.ask("pool"), "1");
    stage.rebuild(1);
    assert_eq!(stage.ask("pool"), "1");
    assert_eq!((open("one.db"), open("two.db")), (1, 0), "kept");
    stage.tell("config", &url("two.db"));
    stage.rebuild(2);
    assert_eq!(stage.ask("pool"), "1");
    eventually(SOON, "the first pool to be closed", || match (open("one.db"), open("two.db")) {
        (0, 1) => Ok(()),
        counts => Err(format!("{counts:?}")),
    });
}

#[test]
fn plugins_that_configure_a_key_differently_are_told() {
    let stage = Stage::start("first");
    assert_eq!(stage.ask("configured"), "1");
    stage.tell("config", "second");
    stage.host.reload("twin", |plugins| plugins.install("twin", FIXTURE));
    let told = stage.host.get("/twin/configured").text();
    assert!(
        told.starts_with("`configured` was made by shop generation 1 from another configuration"),
        "{told}"
    );
}

#[test]
fn registry_command_lists_shows_and_removes() {
    let stage = Stage::start("postgres://bob:hidden@db/shop");
    stage.ask("kept");
    stage.ask("configured");
    stage.rebuild(1);
    stage.ask("configured");
    let (code, listed) = stage.cli(&["registry"]);
    assert_eq!(code, 0, "{listed}");
    assert!(listed.contains("kept: an orphan: nobody has asked for it"), "{listed}");
    assert!(!listed.contains("configured: an orphan"), "{listed}");
    assert_eq!(stage.cli(&["registry", "ls"]).1.lines().next(), listed.lines().next());

    let (code, shown) = stage.cli(&["registry", "show", "configured"]);
    assert_eq!(code, 0, "{shown}");
    assert!(shown.starts_with("configured: made once, survived 1 reload, "), "{shown}");
    assert!(shown.contains("\"postgres://bob:***@db/shop\"") && !shown.contains("hidden"), "{shown}");
    assert!(!stage.host.api("/api/registry").to_string().contains("hidden"));

    let (code, words) = stage.cli(&["registry", "show", "nothing"]);
    assert_eq!((code, words.as_str()), (1, "error: there is no key `nothing`; there is configured, kept\n"));

    let (code, removed) = stage.cli(&["registry", "rm", "kept"]);
    assert!(code == 0 && removed.starts_with("removed kept;"), "{removed}");
    let slots = stage.host.api("/api/registry").to_string();
    assert!(!slots.contains("\"key\":\"kept\""), "{slots}");
    assert_eq!(stage.ask("kept"), "2");

    // On the network nothing is removed.
    let body = br#"{"remove":{"key":"kept"}}"#;
    let refused = tests::http::Client::new(stage.host.admin()).post("/api/registry", body).unwrap();
    assert_eq!(refused.status, 405, "{}", refused.text());
    assert_eq!(stage.ask("kept"), "2");
}
