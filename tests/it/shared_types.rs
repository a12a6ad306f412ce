//! Facts about live data of a type that several plugins share: one edit of it is one upgrade, for all that go live with it.

use std::fs;
use std::path::PathBuf;

use tests::SourcePlugin;
use tests::host::{Launch, TestHost};
use tests::wait::{BUILD, eventually};

/// The package that both plugins depend on.
const SHARED: &str = "#![forbid(unsafe_code)]\nuse plugin_api::Resident;\nuse plugin_api::sync::Mutex;\n\n\
     #[derive(Resident, Debug, Default)]\npub struct Shared {\n    pub hits: Mutex<u64>,\n}\n";

fn plugin(own: &str, listed: bool) -> String {
    let state = if listed { ", state: [STATE]" } else { "" };
    format!(
        "#![forbid(unsafe_code)]\nuse plugin_api::prelude::*;\nuse shared::Shared;\n\n\
         plugin! {{ routes: {{ GET \"/\" => index }}{state} }}\n\n\
         static STATE: registry::Lazy<Shared> = registry::Lazy::new(\"shared\", || Ok(Shared::default()));\n\n\
         fn index(_: &Request) -> Result<String> {{\n    let state = STATE.get()?;\n    *state.hits.lock() += 1;\n    \
         Ok(format!(\"{own} {{:?}}\", *state))\n}}\n"
    )
}

struct Pair {
    host: TestHost,
    shared: PathBuf,
    left: SourcePlugin,
}

impl Pair {
    /// Two plugins that use one value, with what `left` and `right` list under `state:`.
    fn start(left: bool, right: bool) -> Pair {
        let launch = Launch::new().warm();
        let dir = launch.scratch().join("shared");
        fs::create_dir_all(dir.join("src")).unwrap();
        let api = tests::fixture::repository().join("plugin-api");
        let manifest = format!(
            "[package]\nname = \"shared\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n[dependencies]\nplugin-api = {{ path = {api:?} }}\n\n[workspace]\n"
        );
        fs::write(dir.join("Cargo.toml"), manifest).unwrap();
        fs::write(dir.join("src/lib.rs"), SHARED).unwrap();
        let write = |name: &str, listed| {
            let plugin = launch.plugins().write_source(name, &plugin(name, listed));
            let file = plugin.dir().join("Cargo.toml");
            let text = fs::read_to_string(&file).unwrap();
            let with = format!("[dependencies]\nshared = {{ path = {dir:?} }}");
            fs::write(&file, text.replacen("[dependencies]", &with, 1)).unwrap();
            plugin
        };
        let (left, _) = (write("left", left), write("right", right));
        let host = launch.start();
        let pair = Pair { host, shared: dir, left };
        assert_eq!(pair.ask("left"), "left Shared { hits: Mutex { data: 1, .. } }");
        assert!(pair.ask("right").contains("data: 2"));
        pair
    }

    fn ask(&self, plugin: &str) -> String {
        let response = self.host.get(&format!("/{plugin}/"));
        assert_eq!(response.status, 200, "{plugin}: {}\n{}", response.text(), self.host.log());
        response.text()
    }

    fn edit(&self, from: &str, to: &str) {
        let file = self.shared.join("src/lib.rs");
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains(from), "{text}");
        let hidden = self.shared.join("src/.saving");
        fs::write(&hidden, text.replacen(from, to, 1)).unwrap();
        fs::rename(hidden, file).unwrap();
    }

    fn wait(&self, outcome: &str, generation: u64) {
        for plugin in ["left", "right"] {
            eventually(BUILD, &format!("{plugin} to be {outcome}"), || match self.host.plugin(plugin) {
                status if status.last_outcome() == outcome && status.generation() == Some(generation) => {
                    Ok(())
                }
                status => Err(status),
            });
        }
    }
}

/// The value is taken along once, and both go on with it: where both list the key, where one does, and where none does.
#[test]
fn an_edit_of_a_shared_type_upgrades_its_value_once_for_all_plugins() {
    for (left, right) in [(true, true), (false, true), (false, false)] {
        let pair = Pair::start(left, right);
        pair.edit(
            "pub struct Shared {\n",
            "pub struct Shared {\n    #[resident(default = 7)]\n    pub added: u32,\n",
        );
        pair.wait("reloaded", 2);
        assert!(pair.ask("left").contains("added: 7, hits: Mutex { data: 3"), "{}", pair.host.log());
        assert!(pair.ask("right").contains("added: 7, hits: Mutex { data: 4"));
        let registry = pair.host.api("/api/registry").to_string();
        assert!(registry.contains("\"upgrades\":1"), "{registry}");
    }
}

/// If one of them is refused both are, and the value is as it was, for both.
#[test]
fn a_refused_edit_of_a_shared_type_leaves_its_value_to_all_plugins() {
    let pair = Pair::start(true, true);
    pair.edit(
        "pub struct Shared {\n",
        "pub struct Shared {\n    #[resident(default = panic!(\"not today\"))]\n    pub added: u32,\n",
    );
    pair.wait("refused", 1);
    assert!(pair.ask("left").contains("{ hits: Mutex { data: 3"));
    assert!(pair.ask("right").contains("{ hits: Mutex { data: 4"));
    pair.edit("panic!(\"not today\")", "8");
    pair.wait("reloaded", 3);
    assert!(pair.ask("right").contains("added: 8, hits: Mutex { data: 5"), "{}", pair.host.log());
    assert!(pair.ask("left").contains("added: 8, hits: Mutex { data: 6"));
}

/// A plugin that was deleted does not stand in the way of an edit, whichever of them made the value.
#[test]
fn a_deleted_plugin_does_not_use_a_shared_value() {
    let pair = Pair::start(true, true);
    fs::remove_dir_all(pair.left.dir()).unwrap();
    eventually(BUILD, "the plugin to be gone", || match pair.host.plugin_list() {
        list if list.iter().all(|status| status.name() != "left") => Ok(()),
        list => Err(format!("{list:?}")),
    });
    pair.edit(
        "pub struct Shared {\n",
        "pub struct Shared {\n    #[resident(default = 9)]\n    pub added: u32,\n",
    );
    pair.host.wait_generation("right", 2);
    assert!(pair.ask("right").contains("added: 9, hits: Mutex { data: 3"), "{}", pair.host.log());
}
