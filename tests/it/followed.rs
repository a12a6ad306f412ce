//! Facts about edits that are easy to miss: old times, equal names, replaced links, a directory that a handler leaves.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::SystemTime;

use tests::host::{Launch, TestHost};
use tests::http::Client;
use tests::wait::{BUILD, SOON, eventually};
use tests::{SourcePlugin, fixture};

/// A plugin that says `word`.
fn source(word: &str) -> String {
    format!(
        "//! A plugin under edit.\n#![forbid(unsafe_code)]\nuse plugin_api::prelude::*;\n\n\
         plugin! {{ routes: {{ GET \"/\" => index, GET \"/leave\" => leave }} }}\n\n\
         fn index(_: &Request) -> &'static str {{\n    \"{word}\"\n}}\n\n\
         fn leave(_: &Request) -> Result<&'static str> {{\n    std::env::set_current_dir(\"/\")?;\n    Ok(\"left\")\n}}\n"
    )
}

/// Waits until `path` is answered with `word`.
#[track_caller]
fn says(host: &TestHost, path: &str, word: &str) {
    eventually(BUILD, &format!("{path} to say `{word}`"), || match host.get(path).text() {
        text if text == word => Ok(()),
        text => Err(text),
    });
}

/// Edits a file and puts its time back to what it was.
fn rewrite_unseen(file: &Path, text: &str) {
    let time = fs::metadata(file).unwrap().modified().unwrap();
    fs::write(file, text).unwrap();
    fs::File::options().append(true).open(file).unwrap().set_modified(time).unwrap();
}

/// A backup is restored, times included, while the host runs and while it does not.
#[test]
fn source_with_its_older_time_is_built_while_running_and_at_a_restart() {
    let launch = Launch::new().warm();
    let plugin = launch.plugins().write_source("shop", &source("one"));
    let host = launch.start();
    says(&host, "/shop/", "one");
    rewrite_unseen(&plugin.file(), &source("two"));
    says(&host, "/shop/", "two");

    let launch = host.kill9();
    rewrite_unseen(&plugin.file(), &source("six"));
    let host = launch.start();
    assert_eq!(host.get("/shop/").text(), "six");
}

/// Gives a package's library the name `handlers`.
fn name_library(plugin: &SourcePlugin) {
    let manifest = plugin.dir().join("Cargo.toml");
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, text.replacen("[lib]\n", "[lib]\nname = \"handlers\"\n", 1)).unwrap();
}

#[test]
fn plugins_with_one_library_name_serve_their_own_code_after_a_restart() {
    let launch = Launch::new().warm();
    for name in ["shop", "billing"] {
        name_library(&launch.plugins().write_source(name, &source(name)));
    }
    let mut host = launch.start();
    for _ in 0..2 {
        host = host.restart();
        assert_eq!(host.get("/shop/").text(), "shop");
        assert_eq!(host.get("/billing/").text(), "billing");
    }
}

/// `shop -> ../current/shop`, and `current` is led to the next release, which may be older than the last build.
#[test]
fn release_behind_a_replaced_link_is_served_and_watched() {
    let launch = Launch::new().warm();
    let releases = launch.scratch().join("releases");
    let plugin = launch.plugins().write_source("shop", &source("one"));
    for release in ["1", "2"] {
        let dir = releases.join(release);
        fs::create_dir_all(&dir).unwrap();
        let copied = std::process::Command::new("cp").arg("-a").arg(plugin.dir()).arg(&dir).status();
        assert!(copied.unwrap().success());
    }
    let in_second = releases.join("2/shop/src/lib.rs");
    rewrite_unseen(&in_second, &source("two"));
    fs::remove_dir_all(plugin.dir()).unwrap();
    symlink("1", releases.join("current")).unwrap();
    symlink(releases.join("current/shop"), launch.plugins().path().join("shop")).unwrap();
    let host = launch.start();
    assert_eq!(host.get("/shop/").text(), "one");

    swap(&releases.join("current"), "2");
    says(&host, "/shop/", "two");
    fs::write(&in_second, source("three")).unwrap();
    says(&host, "/shop/", "three");
    swap(&releases.join("current"), "1");
    says(&host, "/shop/", "one");
    assert_eq!(host.plugin_list().len(), 1);
}

/// Leads a link elsewhere at once, as deployments do.
fn swap(link: &Path, target: &str) {
    let new = link.with_file_name("swapped-in");
    symlink(target, &new).unwrap();
    fs::rename(&new, link).unwrap();
}

/// Kubernetes' way to replace all files of a volume at once.
#[test]
fn libraries_behind_a_replaced_link_are_served_and_watched() {
    let launch = Launch::new();
    let root = launch.plugins().path().to_owned();
    for (dir, fixture) in [("..1", "version_a"), ("..2", "version_b")] {
        fs::create_dir(root.join(dir)).unwrap();
        fs::copy(fixture::library(fixture), root.join(dir).join("shop.so")).unwrap();
    }
    symlink("..1", root.join("..data")).unwrap();
    symlink("..data/shop.so", root.join("shop.so")).unwrap();
    let host = launch.start();
    assert_eq!(host.get("/shop/ping").text(), "a");
    swap(&root.join("..data"), "..2");
    says(&host, "/shop/ping", "b");
    // What it leads to now is watched.
    let bytes = fs::read(fixture::library("version_a")).unwrap();
    fs::write(root.join("..2/new"), bytes).unwrap();
    fs::rename(root.join("..2/new"), root.join("..2/shop.so")).unwrap();
    says(&host, "/shop/ping", "a");
}

/// The whole plugins directory is behind the link.
#[test]
fn plugins_directory_behind_a_replaced_link_is_followed() {
    let launch = Launch::new();
    let root = launch.scratch().to_owned();
    for (dir, fixture) in [("r1", "version_a"), ("r2", "version_b")] {
        fs::create_dir(root.join(dir)).unwrap();
        fs::copy(fixture::library(fixture), root.join(dir).join("shop.so")).unwrap();
    }
    fs::copy(fixture::library("version_a"), root.join("r2/late.so")).unwrap();
    fs::remove_dir(launch.plugins().path()).unwrap();
    symlink("r1", launch.plugins().path()).unwrap();
    let host = launch.start();
    assert_eq!(host.get("/shop/ping").text(), "a");
    swap(&root.join("plugins"), "r2");
    says(&host, "/shop/ping", "b");
    says(&host, "/late/ping", "a");
}

/// Every path was made absolute at the start: edits, new plugins, safes and orders go on.
#[test]
fn handler_that_changes_the_working_directory_changes_nothing_else() {
    let launch = Launch::new().warm();
    let plugin = launch.plugins().write_source("shop", &source("one"));
    let ready = launch.scratch().join("ready.json");
    let mut host = launch.spawn(&[
        "run",
        "--plugins",
        "plugins",
        "--state",
        "state",
        "--listen",
        "127.0.0.1:0",
        "--admin",
        "127.0.0.1:0",
        "--no-supervisor",
        "--ready-file",
        "ready.json",
    ]);
    let listen = eventually(BUILD, "the ready file", || {
        let text = fs::read_to_string(&ready).map_err(|error| error.to_string())?;
        let ready: serde_json::Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        Ok::<SocketAddr, String>(ready["listen"].as_str().unwrap().parse().unwrap())
    });
    let mut client = Client::new(listen);
    let mut get = |path: &str| client.get(path).map(|response| response.text()).unwrap_or_default();
    assert_eq!(get("/shop/leave"), "left");
    plugin.edit("\"one\"", "\"two\"");
    eventually(BUILD, "the edit", || match get("/shop/") {
        text if text == "two" => Ok(()),
        text => Err(text),
    });
    launch.plugins().install("late", "version_a");
    eventually(SOON, "the new plugin", || match get("/late/ping") {
        text if text == "a" => Ok(()),
        text => Err(text),
    });
    host.signal("TERM");
    host.wait(BUILD);
}

/// A network file system tells nobody.
#[test]
fn polling_host_sees_edits_too() {
    let launch = Launch::new().arg("--poll-ms").arg("50");
    launch.plugins().install("shop", "version_a");
    let host = launch.start();
    host.reload("shop", |plugins| plugins.replace("shop", "version_b"));
    assert_eq!(host.get("/shop/ping").text(), "b");
    let older = fs::read(fixture::library("version_a")).unwrap();
    host.reload("shop", |plugins| {
        plugins.put_library("shop", &older);
        let file = fs::File::options().append(true).open(plugins.library("shop")).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
    });
    assert_eq!(host.get("/shop/ping").text(), "a");
}
