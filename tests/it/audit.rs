//! Facts about what libraries leave behind in libc: it is seen, and holds what it leads into.
//!
//! `host/docs/libc.md` is the audit that they come from; it is held to the code here.

use std::collections::BTreeSet;
use std::fs;

use host::plugin::vetting::KEEPERS;
use tests::fixture::{library, repository};
use tests::host::{Launch, TestHost};
use tests::wait::{SOON, eventually};

/// What stays mapped, and what is said of it. What is known by import alone is told by [`KEEPERS`].
const STAYS: &[(&str, &str)] = &[
    ("on_exit", "a function it gave to `on_exit`"),
    ("__cxa_atexit", "a function it gave to `atexit` in the name of another library"),
    ("timer_create", "a timer that calls a function of it"),
    ("mq_notify", "a message queue that calls a function of it"),
    ("setvbuf", "a stream's buffer"),
    ("setbuf", "a stream's buffer"),
    ("setbuffer", "a stream's buffer"),
    ("putenv", "the variable `PLANTED` of the environment"),
    ("openlog", "in the data of libc.so.6"),
    ("initstate", "in the data of libc.so.6"),
    ("strtok", "in the data of libc.so.6"),
    ("getopt", "in the data of libc.so.6"),
    ("obstack_alloc_failed_handler", "in the data of libc.so.6"),
    ("error_print_progname", "in the data of libc.so.6"),
    ("program_invocation_name", "in the data of libc.so.6"),
    ("argp_program_version", "in the data of libc.so.6"),
];

/// What libc forgets by itself, or copies.
const GOES: &[&str] = &[
    "atexit",
    "at_quick_exit",
    "pthread_atfork",
    "setenv",
    "setlocale",
    "textdomain",
    "setvbuf_null",
    "pthread_key_create",
];

/// What is said of what holds the first generation of a plugin that leaves something behind; `None`: it is unmapped.
#[track_caller]
fn held_by(host: &TestHost, way: &str) -> Option<String> {
    let plugin = format!("c_{way}");
    host.plugins.install(&plugin, &format!("c_plants_{way}"));
    host.wait_generation(&plugin, 1);
    host.reload(&plugin, |plugins| plugins.replace(&plugin, "version_a"));
    let held = eventually(SOON, "the plugin to be unmapped, or why not", || {
        let status = host.plugin(&plugin);
        let parked = status.parked().into_iter().next().map(|(_, held)| held.join(", "));
        match parked {
            _ if status.unloaded() == 1 => Ok(None),
            Some(held) if is_final(&held) => Ok(Some(held)),
            _ => Err(format!("{way}: {status}")),
        }
    });
    host.plugins.remove(&plugin);
    held
}

/// Whether it is not what holds a generation for a moment.
fn is_final(held: &str) -> bool {
    !held.contains("about to be unmapped") && !held.contains("on thread") && !held.contains("running")
}

#[test]
fn what_libc_keeps_stays_mapped_and_is_named() {
    let host = TestHost::start([("zoo", "version_a")]);
    let imported = KEEPERS.iter().map(|function| (*function, format!("the function `{function}` of libc")));
    let kept = STAYS.iter().map(|(way, words)| (*way, (*words).to_owned()));
    for (way, words) in kept.chain(imported) {
        let held = held_by(&host, way);
        assert!(held.as_ref().is_some_and(|held| held.contains(&words)), "{way}: {held:?}, not {words}");
    }
    if fs::exists("/usr/lib/x86_64-linux-gnu/libstdc++.so.6").unwrap() {
        let held = held_by(&host, "set_terminate");
        assert!(held.as_ref().is_some_and(|held| held.contains("in the data of libstdc++.so.6")), "{held:?}");
    }
    assert_eq!(host.get("/zoo/ping").text(), "a");
    let finished = host.terminate();
    assert_eq!(finished.code(), 0, "{finished}");
}

/// What was registered is gone with its library: the next fork and the end of the process run into nothing.
#[test]
fn what_libc_forgets_by_itself_is_unmapped() {
    let host = TestHost::start([("shop", "forks")]);
    for way in GOES {
        assert_eq!(held_by(&host, way), None, "{way}");
    }
    let answer = host.get("/shop/fork/exits").text();
    let child = answer.strip_prefix("parent of ").unwrap();
    assert_eq!(host.get(&format!("/shop/wait/{child}")).text(), "exit 7");
    let finished = host.terminate();
    assert_eq!(finished.code(), 0, "{finished}");
}

#[test]
fn environment_of_a_plugin_keeps_it_mapped() {
    let launch = Launch::new().supervised();
    launch.plugins().install("zoo", "version_a");
    let host = launch.start();
    let held = held_by(&host, "environ");
    assert!(
        held.as_ref().is_some_and(|held| held.starts_with("the environment, which it has put")),
        "{held:?}"
    );
    assert_eq!(host.get("/zoo/ping").text(), "a");
    assert_eq!(host.terminate().code(), 0);
}

/// The rows of the audit: functions, what is done, tests.
fn rows() -> Vec<(Vec<String>, String, Vec<String>)> {
    let text = fs::read_to_string(repository().join("host/docs/libc.md")).expect("the audit is there");
    let quoted = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    let row = |line: &str| {
        let cells: Vec<&str> = line.strip_prefix("| ")?.strip_suffix(" |")?.split(" | ").collect();
        let [functions, _, done, tests] = cells.try_into().ok()?;
        (functions != "functions").then(|| (quoted(functions), done.to_owned(), quoted(tests)))
    };
    text.lines().filter_map(row).collect()
}

/// The names in the audit's rows of which so much is done as `is_so` says.
fn functions(is_so: impl Fn(&str) -> bool) -> BTreeSet<String> {
    rows().into_iter().filter(|(_, done, _)| is_so(done)).flat_map(|(functions, ..)| functions).collect()
}

/// Every function that is stood in for has its row, and every row that says so its function; and every test exists.
#[test]
fn audit_of_libc_is_complete_for_what_is_stood_in_for() {
    let script = fs::read_to_string(repository().join("host/build.rs")).unwrap();
    let exported: BTreeSet<String> = script
        .lines()
        .filter_map(|line| Some(line.trim().strip_prefix('"')?.strip_suffix("\",")?.to_owned()))
        .collect();
    assert!(exported.len() > 30, "{exported:?}");
    assert_eq!(functions(|done| done.contains("stood in for")), exported);
    let keepers: BTreeSet<String> = KEEPERS.iter().map(|&function| function.to_owned()).collect();
    assert_eq!(functions(|done| done == "by import"), keepers);
    for (functions, done, tests) in rows() {
        let needs_test =
            ["stood in for", "by import", "undone by libc"].iter().any(|word| done.contains(word));
        assert!(!tests.is_empty() || !needs_test, "{functions:?} has no test");
        for test in tests {
            let (file, name) = test.split_once("::").unwrap_or_else(|| panic!("`{test}` is no test"));
            let text = fs::read_to_string(repository().join(format!("tests/it/{file}.rs"))).unwrap();
            assert!(text.contains(&format!("fn {name}(")), "there is no test `{test}`");
        }
    }
}

/// What a library imports decides, so that nothing of the list may be spelled otherwise than in libc.
#[test]
fn functions_that_keep_are_imported_by_their_fixtures() {
    for function in KEEPERS {
        let file = fs::read(library(&format!("c_plants_{function}"))).unwrap();
        let name = format!("\0{function}\0");
        assert!(file.windows(name.len()).any(|window| window == name.as_bytes()), "{function}");
    }
}
