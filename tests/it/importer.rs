//! The faults of importers that reload by name and time, each of which must not happen here.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use tests::fixture;
use tests::host::{Event, Launch, TestHost};
use tests::http::Client;
use tests::wait::{BUILD, SOON, eventually};
use tests::{Load, SourcePlugin};

/// A plugin that says the shared helper's word, and its own.
fn source(own: &str) -> String {
    format!(
        "//! A plugin that depends on a helper.\n#![forbid(unsafe_code)]\nuse plugin_api::prelude::*;\n\n\
         plugin! {{ routes: {{ inline GET \"/\" => index }} }}\n\n\
         fn index(_: &Request) -> String {{\n    format!(\"{{}} {own}\", helper::word())\n}}\n"
    )
}

/// A package beside the plugins that both depend on.
struct Helper(PathBuf);

impl Helper {
    fn write(dir: &Path, word: &str) -> Helper {
        let helper = Helper(dir.join("helper"));
        fs::create_dir_all(helper.0.join("src")).unwrap();
        let manifest =
            "[package]\nname = \"helper\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n[workspace]\n";
        fs::write(helper.0.join("Cargo.toml"), manifest).unwrap();
        helper.save(&format!("pub fn word() -> &'static str {{ \"{word}\" }}\n"));
        helper
    }

    fn save(&self, text: &str) {
        let hidden = self.0.join("src/.lib.rs.saving");
        fs::write(&hidden, text).unwrap();
        fs::rename(hidden, self.0.join("src/lib.rs")).unwrap();
    }

    /// Makes a plugin depend on it.
    fn give_to(&self, plugin: &SourcePlugin) {
        let manifest = plugin.dir().join("Cargo.toml");
        let text = fs::read_to_string(&manifest).unwrap();
        let with = format!("[dependencies]\nhelper = {{ path = {:?} }}", self.0);
        fs::write(&manifest, text.replacen("[dependencies]", &with, 1)).unwrap();
        // Cargo would write the lock file within the host's first build, which the host has to take for an
        // edit: it would build a second time, at the same time as the test makes its own edit.
        let cargo = Command::new("cargo")
            .args(["update", "--workspace", "--offline", "--quiet"])
            .current_dir(plugin.dir())
            .status();
        assert!(cargo.expect("cargo is there").success(), "the lock file of {}", plugin.dir().display());
    }
}

/// Two plugins and what they share.
fn pair() -> (TestHost, Helper, SourcePlugin, SourcePlugin) {
    let launch = Launch::new().warm();
    let helper = Helper::write(launch.scratch(), "one");
    let left = launch.plugins().write_source("left", &source("left"));
    let right = launch.plugins().write_source("right", &source("right"));
    [&left, &right].into_iter().for_each(|plugin| helper.give_to(plugin));
    let host = launch.start();
    assert_eq!(words(&host), ("one left".into(), "one right".into()));
    (host, helper, left, right)
}

fn words(host: &TestHost) -> (String, String) {
    (host.get("/left/").text(), host.get("/right/").text())
}

/// Outcomes of a plugin, the newest first.
fn outcomes(host: &TestHost, plugin: &str) -> Vec<String> {
    let is_outcome = |kind: &String| ["loaded", "reloaded", "refused", "unchanged"].contains(&kind.as_str());
    host.events(plugin).iter().map(Event::kind).filter(is_outcome).collect()
}

/// An edit of something shared makes one reload of each dependent, and both at once: who sees the same word
/// of the one before and after sees no other of the other in between.
#[test]
fn edited_helper_reloads_each_dependent_once_and_all_at_once() {
    let (host, helper, ..) = pair();
    let mut client = Client::new(host.listen());
    let mut word_of = |path: &str| {
        let text = client.get(path).expect("an answer").text();
        text.split(' ').next().unwrap_or_default().to_owned()
    };
    helper.save("pub fn word() -> &'static str { \"two\" }\n");
    eventually(BUILD, "both to say the new word", || {
        let (before, between, after) = (word_of("/left/"), word_of("/right/"), word_of("/left/"));
        assert!(before != after || between == before, "a mixture: {before} {between} {after}");
        if between == "two" && before == "two" { Ok(()) } else { Err(between) }
    });
    for plugin in ["left", "right"] {
        // Told a moment after both are live.
        host.wait_for(plugin, "to be reloaded", |status| status.last_outcome() == "reloaded");
        assert_eq!(outcomes(&host, plugin), ["reloaded", "loaded"], "{plugin}");
    }
}

/// Where one of a pair does not come along, none does; and no later edit of the one alone makes a mixture.
#[test]
fn pair_that_must_move_together_moves_together_or_not_at_all() {
    let (host, helper, _, right) = pair();
    // `right` still calls the function of old.
    let text = source("left").replace("helper::word()", "helper::words()[0]");
    helper.save("pub fn words() -> [&'static str; 2] { [\"two\", \"three\"] }\n");
    host.wait_for("right", "to be refused", |status| status.last_outcome() == "refused");
    host.wait_for("left", "to be refused", |status| status.last_outcome() == "refused");
    assert_eq!(words(&host), ("one left".into(), "one right".into()));

    // `left` fits now, and would serve by itself.
    let told =
        host.refuse("left", |plugins| fs::write(plugins.path().join("left/src/lib.rs"), &text).unwrap());
    assert!(told.contains("`right`, which goes live together with it"), "{told}");
    assert!(told.contains("helper/src/lib.rs"), "{told}");
    assert_eq!(words(&host), ("one left".into(), "one right".into()));

    right.save(&source("right").replace("helper::word()", "helper::words()[1]"));
    host.wait_generation("right", 2);
    assert_eq!(words(&host), ("two left".into(), "three right".into()));
    for plugin in ["left", "right"] {
        // Each of their outcomes is told a moment after both are live.
        let status = host.wait_for(plugin, "to be reloaded", |status| status.last_outcome() == "reloaded");
        assert_eq!(status.reason(), "", "{plugin}");
    }

    // What only one is made of is its own affair again.
    right.edit(" right", " RIGHT");
    host.wait_generation("right", 3);
    assert_eq!(
        (host.plugin("left").generation(), host.get("/right/").text()),
        (Some(2), "three RIGHT".into())
    );
}

/// Modules of one name in two plugins are two modules.
#[test]
fn files_of_one_name_in_two_directories_are_two() {
    let launch = Launch::new().warm();
    let text =
        source("").replace("helper::word()", "words::WORD").replace("plugin! {", "mod words;\n\nplugin! {");
    let words = |plugin: &SourcePlugin, word: &str| {
        let text = format!("//! A word.\npub const WORD: &str = \"{word}\";\n");
        fs::write(plugin.dir().join("src/words.rs"), text).unwrap();
    };
    let left = launch.plugins().write_source("left", &text);
    let right = launch.plugins().write_source("right", &text);
    words(&left, "left");
    words(&right, "right");
    let host = launch.start();
    assert_eq!(self::words(&host), ("left ".into(), "right ".into()));
    host.reload("left", |_| words(&left, "LEFT"));
    assert_eq!(self::words(&host), ("LEFT ".into(), "right ".into()));
    assert_eq!(host.plugin("right").generation(), Some(1));
}

/// Two libraries of one name are not one plugin that changes all the time: the second is refused, with both
/// named, and the first serves on.
#[test]
fn second_library_of_a_name_is_refused() {
    let host = TestHost::start([("shop", "version_a")]);
    host.plugins.install("libshop", "version_b");
    eventually(SOON, "the second one to be told of", || {
        let log = host.log();
        let words =
            log.lines().find(|line| line.contains("two plugins are named `shop`")).unwrap_or_default();
        if words.contains("/shop.so") && words.contains("/libshop.so") { Ok(()) } else { Err(log) }
    });
    assert_eq!(host.get("/shop/ping").text(), "a");
    assert_eq!((host.plugin_list().len(), host.plugin("shop").generation()), (1, Some(1)));
}

/// A file is one plugin, by whatever names it can be reached.
#[test]
fn file_behind_a_symlink_and_a_hard_link_is_one_plugin() {
    let launch = Launch::new();
    let outside = launch.scratch().join("elsewhere.so");
    fs::copy(fixture::library("version_a"), &outside).unwrap();
    let name = |name: &str| launch.plugins().library(name);
    symlink(&outside, name("shop")).unwrap();
    symlink(name("shop"), name("tops")).unwrap();
    fs::copy(fixture::library("version_b"), name("hard")).unwrap();
    fs::hard_link(name("hard"), name("less")).unwrap();
    let host = launch.start();
    let names: Vec<String> = host.plugin_list().iter().map(|plugin| plugin.name()).collect();
    assert_eq!(names, ["hard", "shop"]);

    // Behind the link the file is replaced: the very plugin goes live, once.
    let fresh = outside.with_extension("fresh");
    fs::copy(fixture::library("version_b"), &fresh).unwrap();
    host.reload("shop", |_| fs::rename(&fresh, &outside).unwrap());
    assert_eq!(host.get("/shop/ping").text(), "b");
    assert_eq!(outcomes(&host, "shop"), ["reloaded", "loaded"]);
    assert_eq!(host.plugin("hard").generation(), Some(1));
}

/// 64 clients ask for a plugin that is just coming: it is loaded once, and each answer is a whole one.
#[test]
fn cold_route_hit_by_64_clients_is_loaded_once() {
    let host = TestHost::start([("other", "version_a")]);
    let load = Load::start(host.listen(), 64, "/shop/ping", |response| match response.status {
        status @ (404 | 503) => Ok(status.to_string()),
        200 if response.text() == "b" => Ok("b".to_owned()),
        status => Err(format!("{status}: {}", response.text())),
    });
    load.wait_answers(64);
    host.reload("shop", |plugins| plugins.install("shop", "version_b"));
    load.wait_answers(64);
    let tally = load.finish();
    tally.assert_flawless();
    assert!(tally.labels.contains_key("b"), "{:?}", tally.labels);
    assert_eq!((outcomes(&host, "shop"), host.plugin("shop").generation()), (vec!["loaded".into()], Some(1)));
}

/// What a starting plugin is about to be is seen by nobody: no route, no generation, until its init is done.
#[test]
fn half_initialised_plugin_is_never_visible() {
    let launch = Launch::new();
    let gate = launch.scratch().join("gate");
    let host = launch.env("FIXTURE_GATE", &gate).start();
    host.plugins.install("shop", "on_load_slow");
    let waiting = gate.with_extension("waiting");
    eventually(SOON, "the init to wait", || waiting.exists().then_some(()).ok_or("it does not"));
    let status = host.plugin("shop");
    assert_eq!((status.state(), status.generation()), ("building".into(), None), "{status}");
    assert!(status.routes().is_empty(), "{status}");
    assert!((0..20).all(|_| host.get("/shop/ping").status != 200));
    fs::write(&gate, "").unwrap();
    host.wait_generation("shop", 1);
    assert_eq!(host.get("/shop/ping").text(), "slow");
}

/// Switched off is switched off: no edit, no signal and no order brings other code.
#[test]
fn frozen_host_serves_what_it_was_started_with() {
    let launch = Launch::new().arg("--freeze");
    launch.plugins().install("shop", "version_a");
    let host = launch.start();
    host.plugins.replace("shop", "version_b");
    host.plugins.install("late", "version_b");
    host.signal("HUP");
    eventually(SOON, "the signal to be answered in the log", || match host.log() {
        log if log.contains("the host was started with --freeze") => Ok(()),
        log => Err(log),
    });
    let state = host.state_dir();
    let refused = host.cli(&["reload", "shop", "--state", state.to_str().unwrap()]);
    assert_ne!(refused.code(), 0, "{refused}");
    assert!(refused.stderr.contains("reloading is switched off"), "{refused}");
    assert_eq!(host.get("/shop/ping").text(), "a");
    assert_eq!((host.plugin_list().len(), host.plugin("shop").generation()), (1, Some(1)));
}
