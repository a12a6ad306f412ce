//! Facts about the sources themselves, for what only a reader would notice.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use tests::fixture::repository;

/// The files that may contain code the compiler does not check, each with a reason at its top.
///
/// Raw fixtures are written against the bare ABI, by design. `abi.rs` has only types of functions.
const UNCHECKED: &[&str] = &[
    "host/src/build/process.rs",
    "host/src/build/tests.rs",
    "host/src/build/tests/content.rs",
    "host/src/build/tests/names.rs",
    "host/src/memory.rs",
    "host/src/hostcall/data.rs",
    "host/src/hostcall/db/open.rs",
    "host/src/hostcall/db/pool.rs",
    "host/src/hostcall/db/statement.rs",
    "host/src/hostcall/db/tests.rs",
    "host/src/hostcall/db/transaction.rs",
    "host/src/hostcall/db_listen.rs",
    "host/src/hostcall/db_rows.rs",
    "host/src/hostcall/db_stream.rs",
    "host/src/hostcall/log.rs",
    "host/src/hostcall/mod.rs",
    "host/src/hostcall/registry.rs",
    "host/src/hostcall/safe.rs",
    "host/src/hostcall/safe/later.rs",
    "host/src/hostcall/safe/tests.rs",
    "host/src/hostcall/service.rs",
    "host/src/hostcall/table.rs",
    "host/src/hostcall/tx.rs",
    "host/src/hostcall/view.rs",
    "host/src/pins/code.rs",
    "host/src/pins/crash.rs",
    "host/src/pins/fault_handlers.rs",
    "host/src/pins/forked.rs",
    "host/src/pins/handlers.rs",
    "host/src/pins/interpose.rs",
    "host/src/pins/interpose/ends.rs",
    "host/src/pins/interpose/planted.rs",
    "host/src/pins/interpose/signals.rs",
    "host/src/pins/leads.rs",
    "host/src/pins/lost.rs",
    "host/src/pins/real.rs",
    "host/src/pins/signals.rs",
    "host/src/pins/stack.rs",
    "host/src/pins/tests.rs",
    "host/src/pins/thread.rs",
    "host/src/pins/thread_state.rs",
    "host/src/pins/tombstone.rs",
    "host/src/plugin/invoke.rs",
    "host/src/plugin/library.rs",
    "host/src/plugin/mapped_file.rs",
    "host/src/plugin/probe.rs",
    "host/src/plugin/reaper.rs",
    "host/src/registry/data/mod.rs",
    "host/src/registry/data/types.rs",
    "host/src/registry/data/upgrade.rs",
    "host/src/supervisor/handover.rs",
    "host/src/registry/service.rs",
    "plugin-api/macros/src/expand.rs",
    "plugin-api/src/alloc.rs",
    "plugin-api/src/alloc/arena.rs",
    "plugin-api/src/db/call.rs",
    "plugin-api/src/db/open.rs",
    "plugin-api/src/db/stream_call.rs",
    "plugin-api/src/db/tx_call.rs",
    "plugin-api/src/entry.rs",
    "plugin-api/src/host.rs",
    "plugin-api/src/log.rs",
    "plugin-api/src/plugin.rs",
    "plugin-api/src/registry.rs",
    "plugin-api/src/registry/data.rs",
    "plugin-api/src/registry/handles.rs",
    "plugin-api/src/registry/memory.rs",
    "plugin-api/src/registry/memory/tests.rs",
    "plugin-api/src/registry/services.rs",
    "plugin-api/src/request.rs",
    "plugin-api/src/resident/containers.rs",
    "plugin-api/src/resident/deep.rs",
    "plugin-api/src/resident/leaves.rs",
    "plugin-api/src/resident/maps.rs",
    "plugin-api/src/resident/mod.rs",
    "plugin-api/src/resident/settle.rs",
    "plugin-api/src/resident/shapes.rs",
    "plugin-api/src/resident/tests.rs",
    "plugin-api/src/resident/tests/fields.rs",
    "plugin-api/src/resident/tests/given_up.rs",
    "plugin-api/src/resident/upgrade/copy.rs",
    "plugin-api/src/resident/upgrade/mod.rs",
    "plugin-api/src/resident/upgrade/old.rs",
    "plugin-api/src/resident/upgrade/progress.rs",
    "plugin-api/src/resident/upgrade/step.rs",
    "plugin-api/src/resident/upgrade/work.rs",
    "plugin-api/src/safe/call.rs",
    "plugin-api/src/service/remote.rs",
    "plugin-api/src/service/serve.rs",
    "plugin-api/src/sync/home.rs",
    "plugin-api/src/sync/home/tests.rs",
    "plugin-api/src/testing/edit.rs",
    "plugin-api/src/testing/host.rs",
    "plugin-api/src/testing/mod.rs",
    "plugin-api/src/testing/safe.rs",
    "plugin-api/src/view.rs",
    "plugin-api/tests/allocations.rs",
    "tests/benches/safe/boundary.rs",
    "tests/fixtures/abi_v1_frozen/lib.rs",
    "tests/fixtures/changes_thread/lib.rs",
    "tests/fixtures/crashes/lib.rs",
    "tests/fixtures/crashes_on_load/lib.rs",
    "tests/fixtures/forks/lib.rs",
    "tests/fixtures/no_descriptor/lib.rs",
    "tests/fixtures/reads_freed/lib.rs",
    "tests/fixtures/signals/lib.rs",
    "tests/fixtures/wrong_abi/lib.rs",
];

/// Inside the host: who may name whom. A room that is not here may name all and be named by none.
///
/// The state that outlives code (`registry`, `db`, `safe`, `tx`) knows nothing of the rest.
const ARROWS: &[(&str, &[&str])] = &[
    (
        "cli",
        &[
            "host",
            "http",
            "plugin",
            "tx",
            "build",
            "watch",
            "hostcall",
            "registry",
            "db",
            "safe",
            "supervisor",
            "pins",
        ],
    ),
    ("host", &["http", "plugin", "tx", "build", "hostcall", "registry", "db", "safe", "supervisor", "pins"]),
    // It reads what a signal handler has written, and knows nothing else of the rest.
    ("supervisor", &["pins"]),
    // Threads that run plugin code have a drain point.
    ("http", &["plugin", "tx", "pins"]),
    // Publishing commits what a generation's init has registered.
    ("plugin", &["build", "watch", "hostcall", "registry", "pins"]),
    ("build", &["watch"]),
    ("watch", &[]),
    ("hostcall", &["registry", "tx", "db", "safe", "pins"]),
    ("registry", &[]),
    ("db", &[]),
    ("safe", &[]),
    // A request's transactions are of databases, and of nothing else.
    ("tx", &["db"]),
    ("pins", &[]),
];

/// Written so that this file does not contain it.
const WORD: &str = concat!("un", "safe");

/// Every source file of the workspace, relative to its root.
fn sources(extension: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for top in ["host", "plugin-api", "plugins", "tests"] {
        collect(&repository().join(top), extension, &mut files);
    }
    assert!(files.len() > 10 || extension != "rs", "the sources were not found: {files:?}");
    files
}

fn collect(dir: &Path, extension: &str, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            collect(&path, extension, files);
        } else if path.extension().is_some_and(|of| of == extension) {
            files.push(path.strip_prefix(repository()).unwrap().to_owned());
        }
    }
}

fn read(file: &Path) -> String {
    fs::read_to_string(repository().join(file)).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// The code of a line, without a comment at its end.
fn code(line: &str) -> &str {
    line.split("//").next().unwrap_or_default()
}

/// Whether a line opens a block, function, impl or attribute the compiler does not check.
///
/// The type of a function that is unchecked to call is no unchecked code.
fn is_unchecked(line: &str) -> bool {
    code(line).match_indices(WORD).any(|(at, _)| {
        let before = code(line)[..at].chars().next_back();
        let after = &code(line)[at + WORD.len()..];
        let is_word = before.is_none_or(|c| !c.is_alphanumeric() && c != '_');
        let is_type = after.starts_with(" extern \"C\" fn(");
        is_word && !is_type && (after.starts_with([' ', '(']) || after.is_empty())
    })
}

/// The list above is complete, and nobody stays on it without need.
#[test]
fn unchecked_code_is_in_the_listed_files_only() {
    let found: BTreeSet<String> = sources("rs")
        .iter()
        .filter(|file| read(file).lines().any(is_unchecked))
        .map(|file| file.display().to_string())
        .collect();
    let listed: BTreeSet<String> = UNCHECKED.iter().map(|file| (*file).to_owned()).collect();
    assert_eq!(found, listed, "found on the left, listed on the right");
}

/// Nothing but a listed file lifts the workspace's lint, and every member has it.
#[test]
fn the_lint_against_unchecked_code_holds_everywhere() {
    let lift = format!("({WORD}_code");
    for file in sources("rs") {
        let lifts = read(&file).lines().any(|line| code(line).contains(&lift) && !line.contains("forbid"));
        let listed = UNCHECKED.contains(&file.display().to_string().as_str());
        assert!(!lifts || listed, "{} lifts the lint and is not listed", file.display());
    }
    for manifest in sources("toml").iter().filter(|file| file.ends_with("Cargo.toml")) {
        let text = read(manifest);
        assert!(text.contains("[lints]\nworkspace = true"), "{} has lints of its own", manifest.display());
    }
}

/// A newcomer opens any file and reads first what it owns.
#[test]
fn every_file_begins_by_saying_what_it_owns() {
    let silent: Vec<PathBuf> = sources("rs")
        .into_iter()
        .filter(|file| {
            let text = read(file);
            let first = text.lines().next().unwrap_or_default();
            !first.starts_with("//! ") || first.split(' ').count() < 3
        })
        .collect();
    assert!(silent.is_empty(), "these do not begin with a `//!` line that says something: {silent:#?}");
}

/// What no module names is never compiled, and looks as if it were.
#[test]
fn every_file_of_a_library_is_one_of_its_modules() {
    let is_root = |file: &Path| file.ends_with("lib.rs") || file.ends_with("main.rs");
    let files: Vec<PathBuf> = sources("rs")
        .into_iter()
        .filter(|file| {
            ["host/src", "plugin-api/src", "plugin-api/macros/src"].iter().any(|top| file.starts_with(top))
        })
        .collect();
    assert!(files.len() > 100, "{files:?}");
    let mut nameless = Vec::new();
    for file in files.iter().filter(|file| !is_root(file)) {
        // `a/b.rs` and `a/b/mod.rs` are the module `b` of `a`.
        let module = if file.ends_with("mod.rs") { file.parent().unwrap() } else { file };
        let named = format!("mod {};", module.file_stem().unwrap().display());
        let dir = module.parent().unwrap();
        let parents = [dir.join("mod.rs"), dir.with_extension("rs"), dir.join("lib.rs"), dir.join("main.rs")];
        let is_named = |parent: &PathBuf| files.contains(parent) && read(parent).contains(&named);
        if !parents.iter().any(is_named) {
            nameless.push(file);
        }
    }
    assert!(nameless.is_empty(), "no module names these: {nameless:#?}");
}

/// Other characters than ASCII come from the outside and are written as escapes.
#[test]
fn sources_are_ascii() {
    let mut foreign = Vec::new();
    for file in ["rs", "toml", "c", "h"].into_iter().flat_map(sources) {
        for (number, line) in read(&file).lines().enumerate().filter(|(_, line)| !line.is_ascii()) {
            foreign.push(format!("{}:{}: {line}", file.display(), number + 1));
        }
    }
    assert!(foreign.is_empty(), "{foreign:#?}");
}

/// What is not finished is not merged.
#[test]
fn nothing_is_left_to_do() {
    let markers = ["todo!", "unimplemented!", "dbg!"].map(|name| format!("{name}("));
    let notes = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];
    for file in sources("rs") {
        for (number, line) in read(&file).lines().enumerate() {
            let found = markers.iter().any(|marker| line.contains(marker))
                || notes
                    .iter()
                    .any(|note| line.split(|c: char| !c.is_alphanumeric()).any(|word| word == *note));
            assert!(!found, "{}:{}: {line}", file.display(), number + 1);
        }
    }
}

/// Shipped plugins are what newcomers copy: they cannot contain unchecked code.
#[test]
fn shipped_plugins_forbid_unchecked_code() {
    let forbid = format!("#![forbid({WORD}_code)]");
    let mains: Vec<PathBuf> = sources("rs")
        .into_iter()
        .filter(|file| file.starts_with("plugins") && file.ends_with("src/lib.rs"))
        .collect();
    assert!(!mains.is_empty());
    for file in mains {
        assert!(read(&file).contains(&forbid), "{} does not forbid it", file.display());
    }
}

/// The arrows between the host's rooms point one way. A room's own tests may look around.
#[test]
fn rooms_know_only_whom_they_may() {
    for file in sources("rs") {
        let Ok(within) = file.strip_prefix("host/src") else { continue };
        if within
            .components()
            .any(|part| ["tests", "tests.rs"].map(AsRef::as_ref).contains(&part.as_os_str()))
        {
            continue;
        }
        let room = within.components().next().unwrap().as_os_str().to_str().unwrap().trim_end_matches(".rs");
        let Some((_, may)) = ARROWS.iter().find(|(name, _)| *name == room) else { continue };
        for (number, line) in read(&file).lines().enumerate() {
            for named in rooms_named(code(line)) {
                let is_room = ARROWS.iter().any(|(name, _)| *name == named);
                assert!(
                    named == room || !is_room || may.contains(&named),
                    "{}:{}: `{room}` names `{named}`: {line}",
                    file.display(),
                    number + 1
                );
            }
        }
    }
}

/// What follows `crate::` in a line; for `crate::{a::B, c}` each of the names.
fn rooms_named(line: &str) -> Vec<&str> {
    let word = |text: &'_ str| text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let mut rooms = Vec::new();
    for (at, prefix) in line.match_indices("crate::") {
        let rest = &line[at + prefix.len()..];
        let listed = rest.strip_prefix('{').map(|list| list.split('}').next().unwrap_or(list));
        for path in listed.map_or_else(|| vec![rest], |list| list.split(',').collect()) {
            let path = path.trim_start();
            rooms.push(&path[..word(path)]);
        }
    }
    rooms
}

/// A plugin carries no copy of what lives in the host, nor the host itself.
#[test]
fn plugins_carry_nothing_of_the_host() {
    let manifest = read(Path::new("plugin-api/Cargo.toml"));
    for heavy in ["tokio", "hyper", "postgres", "rusqlite", "parking_lot", "host"] {
        let depends = manifest
            .lines()
            .any(|line| line.starts_with(&format!("{heavy}.")) || line.starts_with(&format!("{heavy} =")));
        assert!(!depends, "plugin-api depends on `{heavy}`, which every plugin would carry");
    }
    for file in sources("toml").iter().filter(|file| file.starts_with("plugins")) {
        let text = read(file);
        assert!(!text.lines().any(|line| line.starts_with("host")), "{} depends on the host", file.display());
    }
}

/// The README is short, and the plugin in it is the one that is shipped.
#[test]
fn readme_shows_the_plugin_that_is_shipped() {
    let readme = read(Path::new("README.md"));
    let lines = readme.lines().count();
    assert!(lines <= 150, "README.md has {lines} lines; 150 is the limit");
    let shown = readme.split("```rust\n").nth(1).and_then(|rest| rest.split("```").next());
    assert_eq!(shown.expect("a plugin in README.md"), read(Path::new("plugins/hello/src/lib.rs")));
}

/// Each row of README's table of what survives is the claim of a test in `survives.rs`, and of no other row.
#[test]
fn what_survives_is_shown_row_by_row() {
    let readme = read(Path::new("README.md"));
    let section =
        readme.split("## What survives a reload\n").nth(1).and_then(|rest| rest.split("\n## ").next());
    let cells = |line: &'_ str| line.split('|').nth(1).map(|cell| cell.trim().to_owned());
    let rows: BTreeSet<String> =
        section.unwrap().lines().filter(|line| line.starts_with('|')).skip(2).filter_map(cells).collect();
    assert!(rows.len() >= 7, "README's table was not found: {rows:?}");
    let tests = read(Path::new("tests/it/survives.rs"));
    let claims = tests.split("\n\n").filter_map(|item| {
        let row = item.lines().find_map(|line| line.strip_prefix("/// Row: "))?;
        item.contains("\n#[test]\n").then(|| row.trim_end_matches('.').to_owned())
    });
    assert_eq!(claims.collect::<BTreeSet<_>>(), rows, "tested on the left, README on the right");
}
