//! Facts about unloading: retired code leaves the process, and never while anything leads into it.

use std::fs;

use tests::fixture::{compile_c, repository};
use tests::host::{Event, Launch, TestHost};
use tests::http::{Client, Response};
use tests::load::Load;
use tests::stress::{Plan, run};
use tests::wait::{SOON, eventually};

fn is_answered(response: &Response) -> Result<String, String> {
    match response.status {
        200 => Ok("answered".to_owned()),
        status => Err(format!("{status}: {}", response.text())),
    }
}

/// 100 reloads of a plugin that leaves traces on every thread, under load on workers and I/O threads.
#[test]
fn retired_generations_are_unmapped() {
    let host = TestHost::start([("shop", "threads_and_locals")]);
    let blocking = Load::start(host.listen(), 2, "/shop/", is_answered);
    let inline = Load::start(host.listen(), 2, "/shop/ping", is_answered);
    let threads = Load::start(host.listen(), 1, "/shop/thread", is_answered);
    let mut settled = 0;
    for reload in 1..=100 {
        let generation = host.reload("shop", |plugins| plugins.rebuild("shop", "threads_and_locals", reload));
        for load in [&blocking, &inline, &threads] {
            load.wait_answers(4);
        }
        assert_eq!(host.get("/shop/panic").status, 500);
        if reload == 50 {
            host.wait_unloaded("shop", generation - 1);
            settled = host.mappings().len();
        }
    }
    host.wait_unloaded("shop", 100);
    for load in [blocking, inline, threads] {
        load.finish().assert_flawless();
    }
    assert_eq!(host.mapped_libraries(), 1, "the one that serves");
    let all = host.mappings().len();
    // Stacks of workers and tombstones come, go and merge; one mapping lost per reload would show.
    assert!(all < settled + 50, "{settled} mappings after 50 reloads, {all} after 100");
}

/// A plugin whose thread does not end: exactly its generations stay, by name, until the thread ends.
#[test]
fn running_thread_keeps_its_generation_mapped() {
    let launch = Launch::new();
    let gate = launch.scratch().join("gate");
    launch.plugins().install("shop", "keeps_thread");
    let host = launch.env("FIXTURE_GATE", &gate).start();
    host.reload("shop", |plugins| plugins.rebuild("shop", "keeps_thread", 2));
    host.reload("shop", |plugins| plugins.replace("shop", "threads_and_locals"));
    host.reload("shop", |plugins| plugins.replace("shop", "version_a"));

    eventually(SOON, "generation 3 to be unmapped", || match host.plugin("shop") {
        status if status.unloaded() == 1 => Ok(()),
        status => Err(status),
    });
    let held = |generation| (generation, vec!["1 thread started by it (`lingerer`)".to_owned()]);
    assert_eq!(host.plugin("shop").parked(), [held(1), held(2)]);
    assert_eq!(host.mapped_libraries(), 3);

    fs::write(&gate, "").unwrap();
    host.wait_unloaded("shop", 3);
    assert_eq!(host.mapped_libraries(), 1);
    assert_eq!(host.get("/shop/ping").text(), "a");
}

/// Code that was refused after it had been opened leaves as well, and so does that of a deleted plugin.
#[test]
fn refused_and_deleted_code_is_unmapped() {
    let host = TestHost::start([("shop", "version_a"), ("more", "threads_and_locals")]);
    for fixture in ["on_load_panics", "on_load_errs"] {
        host.refuse("shop", |plugins| plugins.replace("shop", fixture));
    }
    host.wait_unloaded("shop", 2);
    assert_eq!(host.mapped_libraries(), 2);
    assert_eq!(Client::new(host.listen()).get("/more/thread").unwrap().status, 200);
    host.plugins.remove("more");
    eventually(SOON, "the deleted plugin to be unmapped", || match host.mapped_libraries() {
        1 => Ok(()),
        libraries => Err(format!("{libraries} libraries")),
    });
    assert_eq!(host.get("/shop/ping").text(), "a");
}

/// What a request still runs in stays, and says so.
#[test]
fn running_request_keeps_its_generation_mapped() {
    let host = TestHost::start([("shop", "handler_faults")]);
    let gate = host.state_dir().with_file_name("gate");
    let (address, path) = (host.listen(), format!("/shop/slow?gate={}", gate.display()));
    let slow = std::thread::spawn(move || Client::new(address).get(&path));
    let waiting = gate.with_extension("waiting");
    eventually(SOON, "the handler to wait at its gate", || waiting.exists().then_some(()).ok_or("no file"));
    host.reload("shop", |plugins| plugins.replace("shop", "version_b"));
    let parked = host.plugin("shop").parked();
    assert_eq!((parked[0].0, parked[0].1[0].as_str()), (1, "1 request in it"));
    fs::write(&gate, "").unwrap();
    assert_eq!(slow.join().unwrap().unwrap().text(), "the gate opened");
    host.wait_unloaded("shop", 1);
}

/// The stress command in a short form: good and bad reloads, panics, plugins that leave a thread behind.
#[test]
fn short_stress_finds_nothing_wrong() {
    let plan = Plan { duration: 6 * SOON, reloads: 24, clients: 3, lingerers: 2 };
    let outcome = run(plan);
    assert!(outcome.wrong.is_empty(), "{outcome:#?}");
    assert_eq!((outcome.reloads, outcome.refused, outcome.parked), (24, 3, 2), "{outcome:#?}");
}

/// Some libraries the loader never unmaps, and some have left a handler behind: they stay, by name.
#[test]
fn library_that_cannot_go_is_parked_with_the_reason() {
    let host = TestHost::start([("shop", "c_plugin_nodelete")]);
    host.reload("shop", |plugins| plugins.replace("shop", "c_plugin_signal"));
    host.reload("shop", |plugins| plugins.replace("shop", "version_a"));
    let reasons = [(1, "`-z nodelete`"), (2, "signal handler for SIGFPE")];
    eventually(SOON, "both to be parked", || {
        let parked = host.plugin("shop").parked();
        let is_named = |&(generation, reason): &(u64, &str)| {
            parked.iter().any(|(number, held_by)| *number == generation && held_by[0].contains(reason))
        };
        if parked.len() == 2 && reasons.iter().all(is_named) { Ok(()) } else { Err(format!("{parked:?}")) }
    });
    assert_eq!((host.get("/shop/ping").text().as_str(), host.plugin("shop").unloaded()), ("a", 0));
}

/// What would change the whole process is refused before any of it runs.
#[test]
fn executable_stack_is_refused() {
    let host = TestHost::start([("shop", "version_a")]);
    let reason = host.refuse("shop", |plugins| plugins.replace("shop", "c_plugin_execstack"));
    assert!(reason.contains("executable stack"), "{reason}");
    let maps = host.mappings();
    assert!(maps.iter().any(|line| line.ends_with("[stack]") && line.contains(" rw-p ")), "{maps:#?}");
}

/// A library that came with a plugin stays when the plugin goes: its own traces are not tracked. One that
/// is not there is named before anything runs.
#[test]
fn library_that_a_plugin_brings_stays() {
    let launch = Launch::new();
    let source = launch.scratch().join("dependency.c");
    fs::write(&source, "int dependency(void);\nint dependency(void) { return 7; }\n").unwrap();
    let dependency = compile_c(&source, "libdependency.so", &["-shared", "-fPIC"]);
    let dir = dependency.parent().unwrap().to_str().unwrap();
    let plugin = repository().join("tests/fixtures/c_plugin/plugin.c");
    let link = ["-shared", "-fPIC", "-Wl,--no-as-needed", "-L", dir, "-ldependency"];
    let bytes = fs::read(compile_c(&plugin, "libneeds_dependency.so", &link)).unwrap();

    let without = TestHost::start([("shop", "version_a")]);
    let reason = without.refuse("shop", |plugins| plugins.write_garbage("shop", &bytes));
    assert!(reason.contains("needs `libdependency.so`, which is not on this machine"), "{reason}");

    launch.plugins().install("shop", "version_a");
    let host = launch.env("LD_LIBRARY_PATH", dir).start();
    host.reload("shop", |plugins| plugins.write_garbage("shop", &bytes));
    host.reload("shop", |plugins| plugins.replace("shop", "version_b"));
    host.wait_unloaded("shop", 2);
    let maps = host.mappings();
    assert!(
        maps.iter().any(|line| line.ends_with("/libdependency.so")),
        "it left with the plugin:\n{maps:#?}"
    );
}

/// A handler that ends its process costs a thread; its generation is retired as any other, its code stays, and
/// stopping does not wait for it.
#[test]
fn code_in_which_a_thread_was_lost_is_retired_and_stays_mapped() {
    let launch = Launch::new().supervised();
    launch.plugins().install("shop", "crashes");
    let host = launch.start();
    assert_eq!(host.get("/shop/exit").status, 500);
    host.reload("shop", |plugins| plugins.replace("shop", "version_a"));
    eventually(SOON, "the generation to be retired", || {
        let events = host.events("shop");
        let is_it = |event: &&Event| event.kind() == "retired" && event.generation() == Some(1);
        events.iter().find(is_it).map(|_| ()).ok_or_else(|| host.plugin("shop"))
    });
    let parked = host.plugin("shop").parked();
    let holders = parked.first().map(|(_, holders)| holders.join(", ")).unwrap_or_default();
    assert!(holders.contains("a handler that called `exit` or `abort`"), "{parked:?}");
    let finished = host.terminate();
    assert_eq!(finished.code(), 0, "{finished}");
    assert!(!finished.stderr.contains("gave up waiting"), "{finished}");
}

/// Stacks of threads that have ended are reused or given back, however many there were at one time; and neither
/// plugins nor builds find the host's own settings in their environment.
#[test]
fn stacks_of_a_burst_of_threads_are_given_back() {
    let launch = Launch::new().supervised();
    launch.plugins().install("shop", "threads_and_locals");
    let host = launch.start();
    let pid = host.serving_pid();
    let answer = host.get("/shop/burst");
    assert_eq!((answer.status, answer.text()), (200, "nothing".to_owned()));
    // Each of the threads ends a moment after it was waited for.
    eventually(SOON, "all stacks to belong to a thread, but for four", || {
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
        let stacks = maps.lines().filter(|line| is_stack(line)).count();
        let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap().count();
        if stacks <= threads + 4 { Ok(()) } else { Err(format!("{stacks} stacks, {threads} threads")) }
    });
}

/// Whether a line of `maps` is the stack of a thread of std's usual size.
fn is_stack(line: &str) -> bool {
    let (range, rest) = line.split_once(' ').unwrap_or_default();
    let number = |text: &str| u64::from_str_radix(text, 16).unwrap_or_default();
    let (start, end) = range.split_once('-').map_or((0, 0), |(start, end)| (number(start), number(end)));
    end - start == 2 << 20 && rest.starts_with("rw-p 00000000 00:00 0")
}
