//! The table of faults: that it is complete, and the tests of those faults that no other room tests.
//!
//! Each refused library comes while clients ask: every answer is the old code's, and right.

use std::fs::{self, File};
use std::thread;
use std::time::SystemTime;

use tests::fixture::{self, repository};
use tests::host::{Launch, PluginsDir, TestHost};
use tests::http::{Client, Response};
use tests::load::Load;
use tests::wait::{SOON, eventually};

/// The faults of the design's table, cell by cell. What is not here is not promised, and what is here has a row.
const FAULTS: &[&str] = &[
    "compile error",
    "library for another ABI",
    "library of another compiler",
    "library for another architecture",
    "missing symbol",
    "text file",
    "empty file",
    "truncated file",
    "half-written file",
    "bit-flipped file",
    "constructor crashes",
    "constructor aborts",
    "constructor calls exit(0)",
    "constructor hangs",
    "IFUNC crashes",
    "on_load errs",
    "on_load panics",
    "on_load hangs",
    "on_load staged something",
    "package renamed",
    "build script hangs",
    "build changes its own inputs",
    "build prints without end",
    "compiler killed",
    "failure said twice",
    "state directory deleted",
    "restart after a roll-back",
    "library beside a library",
    "contradiction between routes or mounts",
    "deleted plugin leaves code behind",
    "logger of the plugin's own",
    "registry init errs",
    "registry init panics",
    "registry init hangs",
    "registry init recurses",
    "handler panics",
    "handler panics in Drop of the payload",
    "handler errs",
    "handler hangs",
    "handler passes its deadline",
    "handler exits",
    "handler aborts",
    "handler overflows its stack",
    "handler segfaults",
    "process killed",
    "plugin thread outlives its generation",
    "thread-locals",
    "service asks for its thread after a reload",
    "thread left changed by a handler or a thread-local",
    "leaked runtime",
    "signal handler calls the one before",
    "plugin takes the host's signals",
    "plugin handles crashes",
    "resource used up",
    "forked child comes back",
    "forked child lives on",
    "drop of a value hangs",
    "value goes deep",
    "keys' code of an edit takes, keeps, lies or panics",
    "hook of an edit changes what it is shown",
    "field renamed beside one of its former name",
    "field renamed without a word",
    "edit makes what goes deep, and is refused",
    "attribute changes a field's type",
    "code of an upgrade asks for the value",
    "code of an upgrade hangs",
    "type that several plugins share is edited",
    "user of a shared value is gone",
    "type renamed or moved to another module",
    "edit drops data that is missed later",
    "key comes and goes all the time",
    "author's word in an unchecked block",
    "checked code calls what macros call",
    "compiler without a name, other plugin-api",
    "value that MessagePack reads back as another",
    "database down at start",
    "database restarted",
    "database failed over",
    "database half-open",
    "database refusing",
    "stream ended early",
    "COPY whose reader fails",
    "COPY of the client's in a text",
    "error of any class on a connection",
    "session changed by hidden means",
    "session left inside a transaction",
    "statement that cannot be sent",
    "one session ended by the server",
    "column or type changed under a prepared statement",
    "connection lost before COMMIT is sent",
    "server without room for a connection",
    "server that can be written no more",
    "type of somebody's own behind a pooler",
    "setting that ends with its transaction behind a pooler",
    "setting of libpq's that is not offered",
    "SQLite ends a transaction by itself",
    "schema changed by another process",
    "readers of one SQLite file",
    "lock held by another for the whole time-out",
    "number or moment that a database would alter",
    "request waits for its own connection",
    "kill -9 under the safe",
    "power cut under the safe",
    "disk full under the safe",
    "EIO under the safe",
    "bit rot under the safe",
    "backup to a bad place",
    "SIGTERM under load",
    "reload storm under load",
    "client leaves before its handler begins",
    "client leaves while its handler runs",
    "client resets most of its requests",
    "bodies that do not end",
    "responses that nobody takes",
    "connections without requests",
    "request without one clear host",
    "reader of the log that stops",
    "flood of a library's events",
    "admin clients that do not read",
    "state directory that everyone may write to",
];

/// The importer's faults, in the same table.
const IMPORTER: &[&str] = &[
    "cold route hit by 64 clients",
    "cold key hit by 64 clients",
    "slow key",
    "older time with other content",
    "source with its older time, size included",
    "build that was cancelled or killed",
    "two packages with one library name",
    "repair outside the sources",
    "configuration above the package",
    "replaced link to a directory",
    "handler that changes the working directory",
    "file system that tells nobody",
    "two files of one name in two directories",
    "shared helper edited",
    "pair that must move together",
    "symlink or hard link",
    "reload and kept connections",
    "failed reload and connections",
    "deleted route",
    "broken code asked for often",
    "half-initialised plugin",
    "reloading switched off",
];

/// A row of the table: fault, promise, tests.
fn rows() -> Vec<[String; 3]> {
    let table = fs::read_to_string(repository().join("tests/FAULTS.md")).expect("tests/FAULTS.md is there");
    let row = |line: &str| {
        let cells: Vec<&str> = line.strip_prefix("| ")?.strip_suffix(" |")?.split(" | ").collect();
        let cells: [&str; 3] = cells.try_into().unwrap_or_else(|_| panic!("not three cells: {line}"));
        (cells[0] != "fault").then(|| cells.map(str::to_owned))
    };
    table.lines().filter_map(row).collect()
}

/// Every fault has its row, in this order, and every row names tests that exist.
#[test]
fn table_of_faults_is_complete_and_its_tests_exist() {
    let rows = rows();
    let listed: Vec<&str> = rows.iter().map(|[fault, ..]| fault.as_str()).collect();
    assert_eq!(listed, [FAULTS, IMPORTER].concat());
    for [fault, promise, tests] in &rows {
        assert!(promise.split(' ').count() > 2, "`{fault}`: what is promised?");
        let names: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "`{fault}` has no test");
        for name in names {
            let (file, test) = name.rsplit_once("::").unwrap_or_else(|| panic!("`{name}` is no test"));
            let path = if file.contains('/') { file.to_owned() } else { format!("tests/it/{file}.rs") };
            let text = fs::read_to_string(repository().join(&path)).unwrap_or_default();
            let is_there = text.contains(&format!("#[test]\nfn {test}()"))
                || text.contains(&format!("#[test]\n    fn {test}()"));
            assert!(is_there, "`{fault}`: there is no test `{test}` in {path}");
        }
    }
}

fn is_old(response: &Response) -> Result<String, String> {
    match (response.status, response.text()) {
        (200, text) if text == "a" => Ok(text),
        (status, text) => Err(format!("{status}: {text}")),
    }
}

/// A host whose clients all get answers of `version_a` while `body` does what it does.
fn while_serving(launch: Launch, body: impl FnOnce(&TestHost)) {
    launch.plugins().install("shop", "version_a");
    let host = launch.start();
    let load = Load::start(host.listen(), 4, "/shop/ping", is_old);
    load.wait_answers(20);
    body(&host);
    load.wait_answers(100);
    load.finish().assert_flawless();
    assert_eq!(host.plugin("shop").generation(), Some(1));
    host.reload("shop", |plugins| plugins.replace("shop", "version_b"));
    assert_eq!(host.get("/shop/ping").text(), "b");
}

/// A library that is refused for this reason, before and after which the old code serves.
fn refused(change: impl FnOnce(&PluginsDir), reason: &[&str]) {
    while_serving(Launch::new(), |host| {
        let told = host.refuse("shop", change);
        for word in reason {
            assert!(told.contains(word), "`{word}` is not in the reason: {told}");
        }
    });
}

/// Puts bytes in place of a library as if they had been lying there: what is fresh and cut short could be a
/// copy that is going on.
fn put_settled(plugins: &PluginsDir, name: &str, bytes: &[u8]) {
    let hidden = plugins.path().join(".settled");
    fs::write(&hidden, bytes).unwrap();
    File::options().write(true).open(&hidden).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    fs::rename(&hidden, plugins.library(name)).unwrap();
}

#[test]
fn empty_library_keeps_the_current_generation() {
    refused(|plugins| put_settled(plugins, "shop", b""), &["empty"]);
}

#[test]
fn library_with_a_missing_symbol_keeps_the_current_generation() {
    refused(|plugins| plugins.replace("shop", "c_plugin_missing_symbol"), &["nobody_defines_this"]);
}

#[test]
fn constructor_that_crashes_keeps_the_current_generation() {
    refused(|plugins| plugins.replace("shop", "c_plugin_constructor_crashes"), &["signal 11"]);
}

#[test]
fn constructor_that_aborts_keeps_the_current_generation() {
    refused(|plugins| plugins.replace("shop", "c_plugin_constructor_aborts"), &["signal 6"]);
}

/// An exit status of zero is no word that all went well.
#[test]
fn constructor_that_exits_keeps_the_current_generation() {
    refused(|plugins| plugins.replace("shop", "c_plugin_constructor_exits"), &["exit"]);
}

#[test]
fn constructor_that_hangs_keeps_the_current_generation() {
    refused(|plugins| plugins.replace("shop", "c_plugin_constructor_hangs"), &["10s"]);
}

#[test]
fn ifunc_that_crashes_keeps_the_current_generation() {
    refused(|plugins| plugins.replace("shop", "c_plugin_ifunc_crashes"), &["signal"]);
}

/// One bit of each byte of the header is wrong: each such file is refused, or serves as if it were not.
#[test]
fn library_with_a_bit_flipped_in_its_header_harms_nothing() {
    let whole = fs::read(fixture::library("version_b")).unwrap();
    let host = TestHost::start([("shop", "version_a")]);
    let right = |response: &Response| match (response.status, response.text()) {
        (200, text) if text == "a" || text == "b" => Ok(text),
        (status, text) => Err(format!("{status}: {text}")),
    };
    let load = Load::start(host.listen(), 2, "/shop/ping", right);
    let mut refused = 0;
    for at in 0..64 {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        // So that no two of them are the same library, whatever the byte says.
        bytes.extend_from_slice(format!("flip {at}").as_bytes());
        let newest = host.events("shop").iter().map(tests::host::Event::id).max();
        put_settled(&host.plugins, "shop", &bytes);
        refused += eventually(SOON, &format!("an outcome of the flip at {at}"), || {
            let events = host.events("shop");
            let outcome = events.iter().find(|event| {
                Some(event.id()) > newest && ["refused", "reloaded"].contains(&event.kind().as_str())
            });
            outcome.map(|event| usize::from(event.kind() == "refused")).ok_or(format!("{events:?}"))
        });
    }
    assert!(refused > 20, "only {refused} of 64 were refused");
    load.wait_answers(20);
    load.finish().assert_flawless();
}

/// The compiler is no part of the contract: what another one built serves.
#[test]
fn library_of_another_compiler_serves() {
    let mut bytes = fs::read(fixture::library("version_b")).unwrap();
    let word = b"rustc=";
    let at = bytes.windows(word.len()).position(|window| window == word).expect("a descriptor");
    let digit = bytes[at..].iter().position(u8::is_ascii_digit).expect("a version") + at;
    bytes[digit] = if bytes[digit] == b'9' { b'8' } else { b'9' };
    let host = TestHost::start([("shop", "version_a")]);
    host.reload("shop", |plugins| plugins.put_library("shop", &bytes));
    assert_eq!(host.get("/shop/ping").text(), "b");
}

/// An init that does not end is given up at its deadline; until then, and after, the old code serves.
#[test]
fn on_load_that_hangs_keeps_the_current_generation() {
    let launch = Launch::new();
    let (gate, config) = (launch.scratch().join("gate"), launch.scratch().join("host.toml"));
    fs::write(&config, "[limits]\nload_timeout_ms = 400\n").unwrap();
    let launch = launch.env("FIXTURE_GATE", &gate).arg("--config").arg(&config);
    while_serving(launch, |host| {
        let told = host.refuse("shop", |plugins| plugins.replace("shop", "on_load_slow"));
        assert!(told.contains("`on_load` is still running after 400ms"), "{told}");
        let held = |parked: &[(u64, Vec<String>)]| {
            parked.iter().any(|(number, by)| *number == 2 && by.iter().any(|by| by.contains("still running")))
        };
        assert!(held(&host.plugin("shop").parked()), "{}", host.plugin("shop"));
        fs::write(&gate, "").unwrap();
        host.wait_for("shop", "to be rid of the refused code", |status| status.unloaded() == 1);
    });
}

/// The host knows nothing of a plugin's own runtime but its thread, and that is enough.
#[test]
fn leaked_runtime_keeps_its_generation_mapped() {
    let host = TestHost::start([("shop", "leaks_runtime")]);
    host.reload("shop", |plugins| plugins.rebuild("shop", "leaks_runtime", 2));
    host.reload("shop", |plugins| plugins.replace("shop", "version_a"));
    host.reload("shop", |plugins| plugins.replace("shop", "version_b"));
    host.wait_for("shop", "to be rid of generation 3", |status| status.unloaded() == 1);
    let held = |generation| (generation, vec!["1 thread started by it (`runtime`)".to_owned()]);
    assert_eq!(host.plugin("shop").parked(), [held(1), held(2)]);
    let load = Load::start(host.listen(), 2, "/shop/ping", |response| match response.status {
        200 => Ok(response.text()),
        status => Err(status.to_string()),
    });
    load.wait_answers(300);
    load.finish().assert_flawless();
}

/// Each request that found the port open is answered; then the port is closed and the exit is clean.
#[test]
fn terminated_host_fails_no_request_under_load() {
    let host = TestHost::start([("shop", "version_a")]);
    let address = host.listen();
    let ask = move || {
        let mut answered = 0;
        loop {
            // A connection each: one that was kept may be closed just when it is used again.
            match Client::new(address).get("/shop/") {
                Ok(response) if response.status == 200 => answered += 1,
                Ok(response) => return Err(format!("{}: {}", response.status, response.text())),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => return Ok(answered),
                Err(error) => return Err(format!("after {answered} answers: {error}")),
            }
        }
    };
    let clients: Vec<_> = (0..8).map(|_| thread::spawn(ask)).collect();
    let load = Load::start(address, 1, "/shop/ping", is_old);
    load.wait_answers(100);
    load.finish().assert_flawless();
    let finished = host.terminate();
    assert_eq!(finished.code(), 0, "{finished}");
    for client in clients {
        let answered: u64 = client.join().unwrap().expect("no request fails");
        assert!(answered > 0);
    }
}

/// Libraries come faster than they can be loaded: nobody notices, and the newest one serves in the end.
#[test]
fn reload_storm_ends_in_the_newest_code() {
    let host = TestHost::start([("shop", "version_a")]);
    let load = Load::start(host.listen(), 8, "/shop/ping", |response| match response.status {
        200 => Ok(response.text()),
        status => Err(format!("{status}: {}", response.text())),
    });
    for storm in 0..200 {
        host.plugins.rebuild("shop", "version_a", storm);
    }
    host.plugins.replace("shop", "version_b");
    host.wait_for("shop", "to serve the newest code", |_| host.get("/shop/ping").text() == "b");
    load.wait_answers(50);
    load.finish().assert_flawless();
    let current = host.plugin("shop").generation().expect("it serves");
    assert!(current > 2, "generation {current}: there was no storm");
    eventually(SOON, "all older code to be unmapped", || match host.plugin("shop") {
        status if status.parked().is_empty() && status.unloaded() + 1 == current => Ok(()),
        status => Err(status),
    });
}
