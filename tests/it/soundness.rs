//! Facts about checked code that means harm or does not know better: nothing in a plugin without unchecked code
//! reaches memory that is no longer what it was.
//!
//! Each case is one that once did, or might have.

use tests::fixture::{compile_c, repository};
use tests::host::{Launch, TestHost};
use tests::wait::{SOON, eventually};
use tests::workshop::Workshop;

/// A plugin that keeps a map. An empty one points to a constant of the library that made it.
const MAP: &str = r#"
#![forbid(unsafe_code)]
use std::collections::HashMap;
use std::sync::OnceLock;

use plugin_api::prelude::*;
use plugin_api::sync::Mutex;

plugin! {
    routes: { GET "/show" => show, GET "/move" => move_out, GET "/moved" => moved, GET "/remove" => remove },
    state: [STATE],
    on_load: load,
}

#[derive(Resident, Debug, Default)]
struct State {
    map: Mutex<HashMap<u8, u8>>,
}

static STATE: registry::Lazy<State> = registry::Lazy::new("state", || Ok(State::default()));
static MOVED: OnceLock<HashMap<u8, u8>> = OnceLock::new();

fn load() -> Result<()> {
    Ok(())
}

fn show(_: &Request) -> Result<String> {
    Ok(format!("{:?}", *STATE.get()?))
}

fn move_out(_: &Request) -> Result<&'static str> {
    let map = std::mem::take(&mut *STATE.get()?.map.lock());
    MOVED.get_or_init(|| map);
    Ok("moved")
}

fn moved(_: &Request) -> String {
    format!("{:?}", MOVED.get())
}

fn remove(_: &Request) -> Result<&'static str> {
    registry::remove("state")?;
    Ok("removed")
}
"#;

fn start(library: &[u8]) -> TestHost {
    let launch = Launch::new();
    launch.plugins().put_library("probe", library);
    launch.start()
}

#[track_caller]
fn ask(host: &TestHost, path: &str) -> String {
    let response = host.get(path);
    assert_eq!(response.status, 200, "{path}: {}\n{}", response.text(), host.log());
    response.text()
}

/// Whether the library that was staged as this one is mapped. (Each attempt is staged once, under its number.)
fn is_mapped(host: &TestHost, attempt: u64) -> bool {
    let library = host.state_dir().join(format!("stage/probe-{attempt}.so"));
    host.mappings().iter().any(|line| line.contains(library.to_str().unwrap()))
}

/// Waits until the library of an attempt has gone.
#[track_caller]
fn wait_gone(host: &TestHost, attempt: u64) {
    eventually(SOON, &format!("library {attempt} to go"), || match is_mapped(host, attempt) {
        false => Ok(()),
        true => Err(format!("{:?}", host.plugin("probe").parked())),
    });
}

/// An upgrade takes empty maps along as they are; the library that made them goes.
#[test]
fn an_empty_map_outlives_the_code_that_made_it_through_upgrades() {
    let workshop = Workshop::open("emptied");
    let wider = MAP.replacen("u8>>,\n}", "u8>>,\n    added: u32,\n}", 1);
    let widest = MAP.replacen("u8>>,\n}", "u8>>,\n    added: u32,\n    more: u32,\n}", 1);
    let host = start(&workshop.build(MAP, &[]));
    assert_eq!(ask(&host, "/probe/show"), "State { map: Mutex { data: {}, .. } }");
    for (generation, text) in [(1, wider), (2, widest)] {
        assert!(is_mapped(&host, generation));
        host.reload("probe", |plugins| plugins.put_library("probe", &workshop.build(&text, &[])));
        wait_gone(&host, generation);
        assert!(ask(&host, "/probe/show").contains("data: {}"));
    }
}

/// Code that is refused may have left an empty map of its own in a value.
#[test]
fn an_empty_map_outlives_refused_code_that_put_it_there() {
    let workshop = Workshop::open("refilled");
    let refused = MAP.replacen(
        "Ok(())",
        "*STATE.get()?.map.lock() = HashMap::new();\n    Err(Error::msg(\"not today\"))",
        1,
    );
    let host = start(&workshop.build(MAP, &[]));
    let shown = ask(&host, "/probe/show");
    let refused = workshop.build(&refused, &[]);
    let told = host.refuse("probe", |plugins| plugins.put_library("probe", &refused));
    assert!(told.contains("not today"), "{told}");
    wait_gone(&host, 2);
    assert_eq!(ask(&host, "/probe/show"), shown);
}

/// A map that is moved out of a value is that of the code which does it, whoever left it there.
#[test]
fn an_empty_map_that_was_moved_out_outlives_its_value_and_the_code_that_made_it() {
    let workshop = Workshop::open("moved");
    let host = start(&workshop.build(MAP, &[]));
    ask(&host, "/probe/show");
    let next = workshop.build(
        &format!("{MAP}\n// The next.\npub const NEXT: u8 = 1;\n#[used]\nstatic N: u8 = NEXT;\n"),
        &[],
    );
    host.reload("probe", |plugins| plugins.put_library("probe", &next));
    ask(&host, "/probe/move");
    ask(&host, "/probe/remove");
    wait_gone(&host, 1);
    assert_eq!(ask(&host, "/probe/moved"), "Some({})");
}

/// A thread-local that logs when it ends does so after the bridge's own, if that was made later.
const PARTING: &str = r#"
#![forbid(unsafe_code)]
use plugin_api::prelude::*;

plugin! { routes: { GET "/touch" => touch, GET "/thread" => thread, GET "/" => index } }

struct Parting(&'static str);

impl Drop for Parting {
    fn drop(&mut self) {
        tracing::info!("{} ended", self.0);
        tracing::info_span!("outer", who = self.0).in_scope(|| tracing::info!("in a span"));
    }
}

thread_local! {
    static WORKER: Parting = const { Parting("worker") };
    static THREAD: Parting = const { Parting("thread") };
}

fn touch(_: &Request) -> &'static str {
    WORKER.with(|_| ());
    tracing::info_span!("touch").in_scope(|| tracing::info!("after the thread-local"));
    "touched"
}

fn thread(_: &Request) -> Result<&'static str> {
    let thread = std::thread::spawn(|| {
        THREAD.with(|_| ());
        tracing::info_span!("thread").in_scope(|| tracing::info!("after the thread-local"));
    });
    thread.join().map_err(|_| Error::msg("it panicked"))?;
    Ok("ended")
}

fn index(_: &Request) -> &'static str {
    "here"
}
"#;

/// The last words of a thread-local reach the log, on a thread that ends and on one that goes on in newer code.
#[test]
fn a_thread_local_may_log_when_it_ends() {
    let workshop = Workshop::open("parting");
    let host = start(&workshop.build(PARTING, &[]));
    let next = workshop.build(&PARTING.replacen("\"here\"", "\"still here\"", 1), &[]);
    assert_eq!(ask(&host, "/probe/thread"), "ended");
    assert_eq!(ask(&host, "/probe/touch"), "touched");
    host.reload("probe", |plugins| plugins.put_library("probe", &next));
    eventually(SOON, "generation 1 to be unmapped", || match host.plugin("probe") {
        status if status.unloaded() == 1 => Ok(()),
        status => Err(status),
    });
    assert_eq!(ask(&host, "/probe/"), "still here");
    let log = host.log();
    assert!(log.contains("thread ended") && log.contains("worker ended"), "{log}");
}

/// A value with a part that speaks when it is dropped.
const LOUD: &str = r#"
#![forbid(unsafe_code)]
use plugin_api::prelude::*;

plugin! { routes: { GET "/" => index }, state: [STATE] }

#[derive(Resident, Default)]
struct Loud(u8);

impl Drop for Loud {
    fn drop(&mut self) {
        tracing::info!("gone");
    }
}

#[derive(Resident, Default)]
struct State {
    kept: u8,
    loud: Loud,
}

static STATE: registry::Lazy<State> = registry::Lazy::new("state", || Ok(State::default()));

fn index(_: &Request) -> Result<String> {
    Ok(STATE.get()?.kept.to_string())
}
"#;

/// What old code leaves on the thread that drops a removed part does not keep it mapped.
#[test]
fn a_removed_part_that_logs_when_dropped_does_not_hold_its_code() {
    let workshop = Workshop::open("loud");
    let host = start(&workshop.build(LOUD, &[]));
    let next = workshop.build(&LOUD.replacen("    loud: Loud,\n", "", 1), &[]);
    host.reload("probe", |plugins| plugins.put_library("probe", &next));
    eventually(SOON, "generation 1 to be unmapped", || match host.plugin("probe") {
        status if status.unloaded() == 1 => Ok(()),
        status => Err(status),
    });
    assert_eq!(ask(&host, "/probe/"), "0");
    assert!(host.log().contains("gone"), "{}", host.log());
}

/// Where a refused library was mapped another may come to lie, and is not taken for a copy of it.
#[test]
fn the_place_of_refused_code_is_free_for_other_code() {
    let workshop = Workshop::open("misplaced");
    let small = "use plugin_api::prelude::*;\nplugin! { routes: { get \"/\" => index } }\n\
                 fn index(_: &Request) -> &'static str {\n    \"here\"\n}\n";
    let bad = workshop.build(small, &[]);
    let good = workshop.build(&small.replacen("get", "GET", 1), &[]);
    let host = start(&good);
    for build in 0..40 {
        let other = [&bad[..], format!("build {build}").as_bytes()].concat();
        let told = host.refuse("probe", |plugins| plugins.put_library("probe", &other));
        assert!(told.contains("`get` is no method"), "build {build}: {told}");
    }
    host.reload("probe", |plugins| plugins.put_library("probe", &[&good[..], b"build"].concat()));
    assert_eq!(ask(&host, "/probe/"), "here");
}

/// A library that leaves a process behind when it is tried does not keep its reload waiting for that process.
#[test]
fn a_process_that_a_constructor_leaves_behind_is_not_waited_for() {
    let launch = Launch::new();
    let source = launch.scratch().join("forks.c");
    // The process goes when the host lets go of its standard input.
    let words = "#include <unistd.h>\n\
                 __attribute__((constructor)) static void leave(void) {\n    char c;\n    \
                 if (fork() == 0) {\n        while (read(0, &c, 1) > 0) {\n        }\n        _exit(0);\n    }\n    \
                 _exit(3);\n}\n";
    std::fs::write(&source, words).unwrap();
    let plugin = repository().join("tests/fixtures/c_plugin/plugin.c");
    let flags = ["-shared", "-fPIC", source.to_str().unwrap()];
    let library = std::fs::read(compile_c(&plugin, "libc_leaves_a_process.so", &flags)).unwrap();
    launch.plugins().install("probe", "version_a");
    let host = launch.start();
    let told = host.refuse("probe", |plugins| plugins.put_library("probe", &library));
    assert!(told.contains("did not finish"), "{told}");
    assert_eq!(host.get("/probe/ping").text(), "a");
}
