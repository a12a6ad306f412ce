//! Facts about reloading: new code goes live, bad code changes nothing, nobody notices.

use std::fs::{self, File};
use std::path::Path;
use std::time::SystemTime;

use tests::host::{Launch, PluginsDir, TestHost};
use tests::http::Response;
use tests::load::Load;
use tests::wait::{SOON, eventually};

/// Which version gave this answer, if one version gave all of it.
fn version(response: &Response) -> Result<String, String> {
    let text = response.text();
    let words: Vec<&str> = text.split_whitespace().collect();
    let whole = match words.as_slice() {
        ["begin", first, letters, "end", last] => {
            first == last && letters.len() == 64 * 1024 && *letters == first.repeat(64 * 1024)
        }
        _ => false,
    };
    match (response.status, whole) {
        (200, true) => Ok(words[1].to_owned()),
        (status, _) => Err(format!("{status}: {}...", text.chars().take(80).collect::<String>())),
    }
}

/// The new code answers, the generation counts, the event says what was replaced.
#[test]
fn replaced_library_goes_live_as_the_next_generation() {
    let host = TestHost::start([("shop", "version_a")]);
    assert_eq!(host.plugin("shop").generation(), Some(1));
    assert_eq!(host.get("/shop/ping").text(), "a");

    assert_eq!(host.reload("shop", |plugins| plugins.replace("shop", "version_b")), 2);
    assert_eq!(host.get("/shop/ping").text(), "b");
    assert_eq!(version(&host.get("/shop/")), Ok("b".to_owned()));

    let status = host.plugin("shop");
    assert_eq!((status.state(), status.last_outcome()), ("serving".into(), "reloaded".into()));
    let steps: Vec<String> = status.steps().into_iter().map(|(step, _)| step).collect();
    for step in ["stage", "vet", "probe", "open", "init", "publish"] {
        assert!(steps.contains(&step.to_owned()), "no duration of `{step}` in {steps:?}");
    }
    assert!(status.steps().iter().all(|(_, ms)| *ms >= 0.0), "{status}");
}

/// Routes that the new code no longer declares are gone, those it added are there.
#[test]
fn routes_come_and_go_with_the_code() {
    let host = TestHost::start([("shop", "version_a")]);
    assert_eq!(host.get("/shop/only-a").status, 200);
    assert_eq!(host.get("/shop/only-b").status, 404);
    host.reload("shop", |plugins| plugins.replace("shop", "version_b"));
    assert_eq!(host.get("/shop/only-a").status, 404);
    assert_eq!(host.get("/shop/only-b").status, 200);
    let routes = host.plugin("shop").routes();
    assert!(routes.iter().any(|route| route.ends_with("/only-b")), "{routes:?}");
    assert!(!routes.iter().any(|route| route.ends_with("/only-a")), "{routes:?}");
}

/// 32 clients in closed loops, 100 reloads: every request is answered, wholly by one generation.
#[test]
fn clients_do_not_notice_a_hundred_reloads() {
    let host = TestHost::start([("shop", "version_a")]);
    let load = Load::start(host.listen(), 32, "/shop/", version);
    load.wait_answers(32);
    for reload in 1..=100 {
        let fixture = if reload % 2 == 0 { "version_a" } else { "version_b" };
        let generation = host.reload("shop", |plugins| plugins.rebuild("shop", fixture, reload));
        assert_eq!(generation, reload as u64 + 1);
    }
    load.wait_answers(64);
    let tally = load.finish();
    tally.assert_flawless();
    assert_eq!(tally.labels.len(), 2, "both versions answered: {:?}", tally.labels);
    assert_eq!(host.plugin("shop").generation(), Some(101));
}

/// After a good answer comes a bad file: each of these is refused while the old code serves all, and the
/// next good file goes live. The reason is in the JSON, in the log and in `host status`.
fn refused_while_serving(change: impl FnOnce(&PluginsDir), reason: &[&str]) {
    let host = TestHost::start([("shop", "version_a")]);
    let load = Load::start(host.listen(), 4, "/shop/", version);
    load.wait_answers(8);

    let told = host.refuse("shop", change);
    load.wait_answers(50);
    for word in reason {
        assert!(told.contains(word), "`{word}` is not in the reason: {told}");
    }
    let status = host.plugin("shop");
    assert_eq!((status.state(), status.generation()), ("serving".into(), Some(1)), "{status}");
    assert_eq!((status.last_outcome(), status.reason()), ("refused".into(), told.clone()));
    let first_line = told.lines().next().unwrap();
    assert!(host.log().contains(first_line), "the log does not say `{first_line}`:\n{}", host.log());
    let state = host.state_dir();
    let shown = host.cli(&["status", "--state", state.to_str().unwrap()]);
    assert_eq!(shown.code(), 0, "{shown}");
    // The terminal may be narrower than the reason is long.
    let flat = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(flat(&shown.stdout).contains(&flat(first_line)), "`host status` hides the reason:\n{shown}");

    let tally = load.finish();
    tally.assert_flawless();
    assert_eq!(tally.labels.keys().collect::<Vec<_>>(), ["a"], "only the old code served");
    host.reload("shop", |plugins| plugins.replace("shop", "version_b"));
    assert_eq!(host.get("/shop/ping").text(), "b");
    assert_eq!(host.plugin("shop").reason(), "");
}

#[test]
fn panic_in_on_load_keeps_the_current_generation() {
    refused_while_serving(
        |plugins| plugins.replace("shop", "on_load_panics"),
        &["on_load panics, as this fixture must"],
    );
}

#[test]
fn error_from_on_load_keeps_the_current_generation() {
    refused_while_serving(
        |plugins| plugins.replace("shop", "on_load_errs"),
        &["on_load errs, as this fixture must"],
    );
}

#[test]
fn error_from_connect_keeps_the_current_generation() {
    refused_while_serving(|plugins| plugins.replace("shop", "connect_errs"), &["connect_errs"]);
}

#[test]
fn truncated_library_keeps_the_current_generation() {
    refused_while_serving(|plugins| plugins.write_truncated("shop", "version_b", 40), &["truncated"]);
}

#[test]
fn garbage_keeps_the_current_generation() {
    refused_while_serving(|plugins| plugins.write_garbage("shop", b"once upon a time\n"), &["ELF"]);
}

#[test]
fn library_for_another_abi_keeps_the_current_generation() {
    refused_while_serving(|plugins| plugins.replace("shop", "wrong_abi"), &["ABI", "99"]);
}

#[test]
fn library_without_descriptor_keeps_the_current_generation() {
    refused_while_serving(|plugins| plugins.replace("shop", "no_descriptor"), &["descriptor"]);
}

#[test]
fn library_for_another_architecture_keeps_the_current_generation() {
    refused_while_serving(
        |plugins| {
            let mut bytes = fs::read(tests::fixture::library("version_b")).unwrap();
            // e_machine: AArch64 where we are x86-64, and the other way round.
            bytes[18] = if cfg!(target_arch = "x86_64") { 183 } else { 62 };
            plugins.write_garbage("shop", &bytes);
        },
        &["built for"],
    );
}

/// A refused file is tried once, however many requests come: the events count one refusal per file.
#[test]
fn bad_code_is_tried_once_per_edit() {
    let host = TestHost::start([("shop", "version_a")]);
    host.refuse("shop", |plugins| plugins.replace("shop", "on_load_panics"));
    for _ in 0..50 {
        assert_eq!(host.get("/shop/ping").text(), "a");
    }
    host.refuse("shop", |plugins| plugins.replace("shop", "on_load_errs"));
    let refused = host.events("shop").iter().filter(|event| event.kind() == "refused").count();
    assert_eq!(refused, 2);
}

/// A plugin whose first library is bad is known, answers that it failed, and recovers.
#[test]
fn first_load_may_fail_and_the_next_file_serves() {
    let host = TestHost::start([("shop", "on_load_errs"), ("other", "version_a")]);
    let status = host.plugin("shop");
    assert_eq!((status.state(), status.generation()), ("refused".into(), None), "{status}");
    assert_eq!(host.get("/shop/ping").status, 503);
    assert_eq!(host.get("/other/ping").text(), "a");
    host.reload("shop", |plugins| plugins.replace("shop", "version_b"));
    assert_eq!(host.get("/shop/ping").text(), "b");
}

/// Content decides. The same bytes again are no new code; other bytes are, however old the file says it is.
#[test]
fn content_decides_and_not_time() {
    let host = TestHost::start([("shop", "version_a")]);
    host.plugins.replace("shop", "version_a");
    let stale = host.plugins.path().join(".stale");
    fs::copy(tests::fixture::library("version_b"), &stale).unwrap();
    File::options().write(true).open(&stale).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();

    let generation = host.reload("shop", |plugins| fs::rename(&stale, plugins.library("shop")).unwrap());
    assert_eq!(generation, 2, "the same bytes made a generation");
    assert_eq!(host.get("/shop/ping").text(), "b");
}

/// A file that is still being written is not code yet: what serves goes on, and the whole file goes live.
#[test]
fn half_written_library_waits_for_its_other_half() {
    let host = TestHost::start([("shop", "version_a")]);
    let load = Load::start(host.listen(), 2, "/shop/", version);
    let half = host.plugins.begin_write("shop", "version_b");
    load.wait_answers(50);
    half.finish();
    host.wait_for("shop", "to serve version b", |_| host.get("/shop/ping").text() == "b");
    load.finish().assert_flawless();
}

/// Libraries may come and go while the host runs.
#[test]
fn plugins_come_and_go_with_their_files() {
    let host = TestHost::start([("shop", "version_a")]);
    host.reload("more", |plugins| plugins.install("more", "version_b"));
    assert_eq!(host.get("/more/ping").text(), "b");

    host.plugins.remove("more");
    eventually(SOON, "plugin `more` to be gone", || match host.get("/more/ping").status {
        404 => Ok(()),
        status => Err(status.to_string()),
    });
    assert_eq!(host.get("/shop/ping").text(), "a");

    host.reload("more", |plugins| plugins.install("more", "version_b"));
    assert_eq!(host.get("/more/ping").text(), "b");
}

/// While the next generation takes its time to start, the current one serves.
#[test]
fn slow_start_delays_nobody() {
    let launch = Launch::new();
    let gate = launch.scratch().join("gate");
    launch.plugins().install("shop", "version_a");
    let host = launch.env("FIXTURE_GATE", &gate).start();

    let load = Load::start(host.listen(), 4, "/shop/", version);
    host.plugins.replace("shop", "on_load_slow");
    wait_for_file(&gate.with_extension("waiting"));
    load.wait_answers(100);
    let tally = load.finish();
    tally.assert_flawless();
    assert_eq!(tally.labels.keys().collect::<Vec<_>>(), ["a"]);

    fs::write(&gate, "").unwrap();
    host.wait_generation("shop", 2);
    assert_eq!(host.get("/shop/ping").text(), "slow");
}

/// A promise to plugins that are compiled already.
#[test]
fn plugin_frozen_at_version_1_answers() {
    let host = TestHost::start([("frozen", "abi_v1_frozen")]);
    assert_eq!(host.get("/frozen/").text(), "frozen v1 at /frozen/");
    // 3: no such key; 8 or 3: no such pool. The numbers are part of the contract.
    let tables = host.get("/frozen/tables").text();
    assert!(tables.starts_with("abi 1 generation 1 get 3 checkout "), "{tables}");
    assert!(host.log().contains("the frozen plugin is here"));
}

/// Nothing of Rust crosses the boundary.
#[test]
fn plugin_in_c_loads_answers_and_reloads() {
    let host = TestHost::start([("plain", "c_plugin")]);
    assert_eq!(host.get("/plain/").text(), "hello from C");
    assert_eq!(host.get("/plain/Ada%20L").text(), "hello from C, Ada L");
    assert_eq!(host.get("/plain/fail").status, 500);
    assert!(host.log().contains("C says no"), "{}", host.log());
    host.reload("plain", |plugins| plugins.replace("plain", "version_a"));
    host.reload("plain", |plugins| plugins.replace("plain", "c_plugin"));
    assert_eq!(host.get("/plain/").text(), "hello from C");
}

fn wait_for_file(path: &Path) {
    eventually(SOON, "the fixture to wait at its gate", || match path.exists() {
        true => Ok(()),
        false => Err(format!("no {}", path.display())),
    });
}
