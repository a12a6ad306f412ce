//! Facts about builds that hang, loop or change their own inputs, about plugins that are renamed, and about a state
//! directory that somebody deletes: other plugins go on, and what happens is said.

use std::fs;

use tests::host::{Finished, Launch, PluginStatus, TestHost};
use tests::source::SourcePlugin;
use tests::wait::{BUILD, SOON, eventually};

/// A plugin of the test's own, as source.
const SOURCE: &str = r#"//! A plugin under edit.
#![forbid(unsafe_code)]

use plugin_api::prelude::*;

plugin! { routes: { GET "/" => index } }

fn index(_: &Request) -> &'static str {
    "one"
}
"#;

/// A small library that a plugin needs, and the plugin that calls it as soon as it is opened.
fn build_with_library(launch: &Launch, name_itself: bool) {
    let (plugins, repository) = (launch.plugins().path(), tests::fixture::repository());
    let beside = plugins.join("beside");
    fs::create_dir_all(&beside).unwrap();
    fs::write(beside.join("beside.h"), "void beside(void);\n").unwrap();
    fs::write(beside.join("beside.c"), "void beside(void) {}\n").unwrap();
    let cc = |args: &[&str]| {
        let output = std::process::Command::new("cc").args(args).current_dir(&beside).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let named: &[&str] = if name_itself { &["-Wl,-soname,libbeside-here.so"] } else { &[] };
    cc(&[&["-shared", "-fPIC", "beside.c", "-o", "libbeside-here.so"], named].concat());
    let include = format!("-I{}", repository.join("plugin-api/include").display());
    let source = repository.join("tests/fixtures/c_plugin/plugin.c");
    let source = source.to_str().unwrap();
    cc(&[
        "-shared",
        "-fPIC",
        "-include",
        "beside.h",
        "-DCONSTRUCTOR=beside()",
        &include,
        source,
        "-L.",
        "-lbeside-here",
        "-Wl,-rpath,$ORIGIN/beside",
        "-Wl,-z,noexecstack",
        "-o",
        ".new.so",
    ]);
    fs::rename(beside.join(".new.so"), plugins.join("shop.so")).unwrap();
}

/// The copy that is opened lies elsewhere, and finds what its original finds; or is refused with what to do.
#[test]
fn search_path_of_a_library_is_relative_to_where_it_was_put() {
    let launch = Launch::new();
    build_with_library(&launch, true);
    let host = launch.start();
    assert_eq!(host.get("/shop/").text(), "hello from C", "{}", host.log());
    let file = host.plugins.library("shop").display().to_string();
    assert_eq!(tell(&host, &["check", &file]).code(), 0);

    let launch = Launch::new();
    build_with_library(&launch, false);
    let host = launch.start();
    let reason = host.plugin("shop").reason();
    assert!(reason.contains("-Wl,-soname,libbeside-here.so"), "{reason}");
    fs::remove_file(host.plugins.path().join("beside/libbeside-here.so")).unwrap();
    let told = tell(&host, &["reload", "shop"]);
    assert!(told.stdout.contains("it needs `libbeside-here.so`, which is not on this machine"), "{told}");
}

/// What the host refuses, `host check` refuses, in the same words.
#[test]
fn check_refuses_what_run_refuses() {
    let launch = Launch::new();
    fs::write(launch.scratch().join("host.toml"), "[plugin.zoo]\nmount = \"/shop\"\n").unwrap();
    launch.plugins().install("shop", "version_a");
    launch.plugins().install("unclear", "conflicting_routes");
    launch.plugins().install("zoo", "version_b");
    let host = launch.start();
    let plugins = host.plugins.path().display().to_string();
    let checked = tell(&host, &["check", &plugins, "--json"]);
    assert_eq!(checked.code(), 1, "{checked}");
    let checked: serde_json::Value = serde_json::from_str(&checked.stdout).unwrap();
    let found = checked["plugins"].as_array().unwrap();
    let check = |name: &str| found.iter().find(|of| of["name"] == name).unwrap()["refused"]["reason"].clone();
    assert!(check("shop").is_null(), "{checked}");
    // Which of the two comes first when the host starts is not said; that one of them is refused is.
    let run = |name: &str| host.plugin(name).reason();
    assert_eq!(check("unclear").as_str().unwrap(), run("unclear"));
    let words = "; set `mount` for one of them in host.toml";
    assert!(check("zoo").as_str().unwrap().ends_with(words), "{checked}");
    assert!([run("shop"), run("zoo")].iter().any(|reason| reason.ends_with(words)), "{}", host.log());

    // What was rolled back is kept out, and that is said too.
    let launch = Launch::new();
    launch.plugins().install("shop", "version_a");
    let host = launch.start();
    host.reload("shop", |plugins| plugins.replace("shop", "version_b"));
    let file = host.plugins.library("shop").display().to_string();
    assert_eq!(tell(&host, &["check", &file]).code(), 0);
    assert_eq!(tell(&host, &["rollback", "shop"]).code(), 0);
    let checked = tell(&host, &["check", &file]);
    assert!(checked.stderr.contains("rolled back: asked by the operator"), "{checked}");
}

/// Code of a deleted plugin that something holds is shown for as long as it is held.
#[test]
fn parked_code_of_a_deleted_plugin_stays_visible() {
    let launch = Launch::new();
    let gate = launch.scratch().join("gate");
    launch.plugins().install("shop", "keeps_thread");
    let host = launch.env("FIXTURE_GATE", gate.to_str().unwrap()).start();
    host.plugins.remove("shop");
    let status = host.wait_for("shop", "to be deleted and parked", |of| of.state() == "removed");
    assert!(status.parked().iter().any(|(_, by)| by.iter().any(|by| by.contains("lingerer"))), "{status}");
    let shown = tell(&host, &["status"]);
    assert!(shown.stdout.contains("shop: 1 parked: "), "{shown}");
    fs::write(gate, "").unwrap();
    eventually(SOON, "nothing to be left of it", || {
        let list = host.plugin_list();
        if list.is_empty() { Ok(()) } else { Err(list[0].to_string()) }
    });
}

/// Runs a command of the host's binary about this host.
#[track_caller]
fn tell(host: &TestHost, args: &[&str]) -> Finished {
    let state = host.state_dir();
    host.cli(&[args, &["--state", state.to_str().unwrap()]].concat())
}

/// Gives the package of a plugin another name.
#[track_caller]
fn rename(plugin: &SourcePlugin, from: &str, to: &str) {
    let file = plugin.dir().join("Cargo.toml");
    let text = fs::read_to_string(&file).unwrap();
    let (old, new) = (format!("name = \"{from}\""), format!("name = \"{to}\""));
    assert!(text.contains(&old), "{text}");
    let saved = plugin.dir().join(".saving");
    fs::write(&saved, text.replacen(&old, &new, 1)).unwrap();
    fs::rename(saved, file).unwrap();
}

/// Waits until the host knows exactly these plugins, all serving.
#[track_caller]
fn wait_serving(host: &TestHost, names: &[&str]) {
    eventually(BUILD, &format!("{names:?} to serve"), || {
        let list = host.plugin_list();
        let serve: Vec<String> =
            list.iter().filter(|of| of.state() == "serving").map(PluginStatus::name).collect();
        if serve == names && list.len() == names.len() {
            return Ok(());
        }
        Err(list.iter().map(PluginStatus::to_string).collect::<String>())
    });
}

/// A rename is one plugin deleted and another made, once it is clear that the other can be built; a name that
/// another plugin has is refused until it is free; and two plugins may change their names.
#[test]
fn renamed_package_is_served_under_its_new_name() {
    let launch = Launch::new().warm();
    let shop = launch.plugins().write_source("shop", SOURCE);
    let zoo = launch.plugins().write_source("zoo", &SOURCE.replace("one", "zoo"));
    let host = launch.start();
    assert_eq!(host.get("/shop/").text(), "one");

    let told = host.refuse("shop", |_| {
        shop.save(&SOURCE.replace("\"one\"", "not_defined"));
        rename(&shop, "shop", "store");
    });
    assert!(told.contains("not_defined"), "{told}");
    assert_eq!(host.get("/shop/").text(), "one");
    shop.save(SOURCE);
    wait_serving(&host, &["store", "zoo"]);
    assert_eq!(host.get("/store/").text(), "one");
    let removed = host.events("shop").into_iter().find(|event| event.kind() == "removed").unwrap();
    assert!(removed.reason().contains("its package is named `store` now"), "{removed}");

    let told = host.refuse("store", |_| rename(&shop, "store", "zoo"));
    let place = zoo.dir().display().to_string();
    assert!(told.contains("`zoo` now") && told.contains(&place) && told.contains("rename one"), "{told}");
    assert_eq!(host.get("/store/").text(), "one");
    rename(&zoo, "zoo", "store");
    eventually(BUILD, "both to have changed their names", || {
        let answers = (host.get("/store/").text(), host.get("/zoo/").text());
        if answers == ("zoo".to_owned(), "one".to_owned()) { Ok(()) } else { Err(format!("{answers:?}")) }
    });
    wait_serving(&host, &["store", "zoo"]);
    // The directory of a package is no part of its name.
    fs::rename(zoo.dir(), host.plugins.path().join("moved")).unwrap();
    let moved = host.plugins.path().join("moved").canonicalize().unwrap();
    host.wait_for("store", "to come from its new directory", |status| {
        status.state() == "serving" && status.to_string().contains(moved.to_str().unwrap())
    });
    assert!(!host.log().contains("two plugins are named"), "{}", host.log());
}

/// One build script hangs: everybody is told what runs, others are edited meanwhile, and it does not last.
#[test]
fn hanging_build_script_is_named_and_delays_no_other_plugin() {
    let launch = Launch::new().warm();
    fs::write(launch.scratch().join("host.toml"), "[limits]\nbuild_timeout_ms = 60000\nmax_builds = 2\n")
        .unwrap();
    let shop = launch.plugins().write_source("shop", SOURCE);
    let zoo = launch.plugins().write_source("zoo", SOURCE);
    let host = launch.start();

    let script = shop.dir().join("build.rs");
    fs::write(&script, "fn main() {\n    loop { std::thread::park() }\n}\n").unwrap();
    let hangs = |status: &PluginStatus| status.to_string().contains("the build script of shop");
    host.wait_for("shop", "to say what it is at", hangs);
    host.reload("zoo", |_| zoo.edit("one", "two"));
    assert_eq!((host.get("/zoo/").text(), host.get("/shop/").text()), ("two".to_owned(), "one".to_owned()));

    let asked = tell(&host, &["reload", "shop"]);
    assert_eq!(asked.code(), 1, "{asked}");
    assert!(asked.stderr.contains("still at it after 8s: build for "), "{asked}");
    assert!(asked.stderr.contains("the build script of shop"), "{asked}");
    let status = tell(&host, &["status"]);
    assert!(status.stdout.contains("shop: newer code is on its way: build for "), "{status}");

    let told = host.refuse("shop", |_| {});
    assert!(told.contains("did not finish within 60 s (the build script of shop was running)"), "{told}");
    fs::remove_file(script).unwrap();
    host.reload("shop", |_| shop.edit("one", "three"));
    assert_eq!(host.get("/shop/").text(), "three");
}

/// A build script that writes other text into `src` each time: it is named, and the plugin goes live all the same.
#[test]
fn build_that_changes_its_own_inputs_goes_live_and_is_named() {
    let launch = Launch::new().warm();
    let text = SOURCE.replace("fn index", "mod made;\n\nfn index").replace("\"one\"", "\"one\"; made::MADE");
    let text = text.replace("    \"one\"; made::MADE", "    let _ = made::MADE;\n    \"one\"");
    let shop = launch.plugins().write_source("shop", &text);
    let script = "fn main() {\n    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();\n    \
                  std::fs::write(\"src/made.rs\", format!(\"pub const MADE: u128 = {};\\n\", now.as_nanos())).unwrap();\n}\n";
    fs::write(shop.dir().join("build.rs"), script).unwrap();
    let host = launch.start();
    host.wait_for("shop", "to serve", |status| status.state() == "serving");
    eventually(BUILD, "the file to be named", || {
        let log = host.log();
        if log.contains("src/made.rs changes while shop is built") { Ok(()) } else { Err(log) }
    });
    host.reload("shop", |_| shop.edit("\"one\"", "\"two\""));
    eventually(BUILD, "the edit to be live", || match host.get("/shop/").text() {
        text if text == "two" => Ok(()),
        text => Err(text),
    });
}

/// What is wrong is said once, and that it is undone is said too.
#[test]
fn failure_is_told_once_and_so_is_its_end() {
    let launch = Launch::new().warm().arg("--log=debug");
    let broken = SOURCE.replace("\"one\"", "not_defined");
    let shop = launch.plugins().write_source("shop", &broken);
    let host = launch.start();
    let refusals = |host: &TestHost| host.events("shop").iter().filter(|of| of.kind() == "refused").count();
    // The lock file of the harness lists more than the plugin needs, so cargo has written it: that looks like an edit.
    let again = |times: usize| {
        eventually(BUILD, "a second look with the same result", || {
            let log = host.log();
            let said = log.matches("failed again as before").count();
            if said >= times { Ok(()) } else { Err(log) }
        });
    };
    again(1);
    assert_eq!(refusals(&host), 1, "{}", host.log());

    host.reload("shop", |_| shop.save(SOURCE));
    host.refuse("shop", |_| shop.save(&broken));
    shop.save(SOURCE);
    eventually(BUILD, "the end of the refusal to be told", || {
        let log = host.log();
        let last = log.lines().rfind(|line| line.contains("shop")).unwrap_or_default().to_owned();
        let is_told = last.contains("INFO") && last.contains("what was refused is undone");
        if is_told { Ok(()) } else { Err(last) }
    });
    assert_eq!(host.get("/shop/").header("x-reload-failed"), None);
}

/// Deleted under a running host, the state directory is made again: commands reach the host, new code goes live, and a
/// safe refuses what it could not keep.
#[test]
fn deleted_state_directory_is_made_again_and_what_is_lost_is_said() {
    for supervised in [false, true] {
        let launch = if supervised { Launch::new().supervised() } else { Launch::new() };
        launch.plugins().install("shop", "version_a");
        launch.plugins().install("probe", "safe_probe");
        let host = launch.start();
        assert_eq!(host.get("/probe/visit/ann").text(), "1");
        fs::remove_dir_all(host.state_dir()).unwrap();

        let answer = host.get("/probe/visit/ann");
        assert_ne!(answer.status, 200, "a write that is lost was acknowledged");
        assert!(host.log().contains("was deleted or replaced while the host runs"), "{}", host.log());
        host.reload("shop", |plugins| plugins.replace("shop", "version_b"));
        assert_eq!(host.get("/shop/ping").text(), "b");
        eventually(SOON, "commands to reach the host again", || {
            let status = tell(&host, &["status"]);
            if status.code() == 0 { Ok(()) } else { Err(status.to_string()) }
        });
        assert!(host.log().contains("the state directory"), "{}", host.log());
        // The lock is held again, too.
        let plugins = host.plugins.path().display().to_string();
        let second =
            tell(&host, &["run", "--plugins", &plugins, "--listen", "127.0.0.1:0", "--admin", "off"]);
        assert!(second.stderr.contains("another host is running"), "{second}");
        let host = host.restart();
        assert_eq!(host.get("/probe/visit/ann").text(), "1");
    }
}
