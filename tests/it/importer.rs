//! The faults of importers that reload by name and time, each of which must not happen here.

use std::fs;
use std::path::{Path, PathBuf};

use tests::SourcePlugin;
use tests::host::{Event, Launch, TestHost};
use tests::http::Client;
use tests::wait::{BUILD, eventually};

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
        assert_eq!(host.wait_generation(plugin, 2).last_outcome(), "reloaded");
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
    assert_eq!((host.plugin("left").reason(), host.plugin("right").reason()), (String::new(), String::new()));

    // What only one is made of is its own affair again.
    right.edit(" right", " RIGHT");
    host.wait_generation("right", 3);
    assert_eq!(
        (host.plugin("left").generation(), host.get("/right/").text()),
        (Some(2), "three RIGHT".into())
    );
}
