//! What is typed, what comes of it, and what is shown: the texts are the contract with people.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{CommandFactory as _, Parser as _};
use serde_json::json;

use super::args::{Cli, Command, RunArgs};
use super::ask::{events_text, status_text};
use super::check::{Finding, Refusal, complaint, details, table};
use super::db::db_text;
use super::log::Format;
use super::new::{Surroundings, check_name, covers, render_manifest, source};
use super::ready::{Outcome, ReadyFile};
use super::registry::{registry_text, slot_text};
use super::screen::{Builds, sentence};
use super::settings::RunSettings;
use super::text::{harmless, lasted, took, url, utc};
use crate::admin::LogLine;
use crate::build::Step;
use crate::config::FileConfig;
use crate::plugin::{self, Event, EventKind, PluginState, PluginStatus, RouteStatus, SourceStatus};

fn run_args(words: &[&str]) -> RunArgs {
    let cli = Cli::try_parse_from([&["host", "run"], words].concat()).unwrap();
    let Command::Run(args) = cli.command else { panic!("`run` is parsed as something else") };
    args
}

fn settings(words: &[&str], file: &str) -> RunSettings {
    let file = FileConfig::parse(Path::new("host.toml"), file).unwrap();
    RunSettings::of(&run_args(words), file).unwrap()
}

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn every_setting_of_run_has_its_environment_variable() {
    let command = Cli::command();
    let run = command.find_subcommand("run").unwrap();
    for argument in run
        .get_arguments()
        .filter(|argument| !matches!(argument.get_id().as_str(), "watch" | "help" | "supervised"))
    {
        let expected = format!("HOST_{}", argument.get_id().as_str().to_uppercase());
        assert_eq!(argument.get_env().and_then(|name| name.to_str()), Some(expected.as_str()));
    }
}

#[test]
fn options_win_over_the_file_and_the_file_over_the_defaults() {
    let file = "[host]\nlisten = \"127.0.0.1:1\"\nadmin = \"127.0.0.1:2\"\nplugins = \"p\"\nstate = \"s\"\n";
    let of_file = settings(&[], file).host;
    assert_eq!((of_file.listen.as_str(), of_file.admin.as_deref()), ("127.0.0.1:1", Some("127.0.0.1:2")));
    assert_eq!(of_file.plugins.plugins_dir, PathBuf::from("p"));
    assert_eq!(of_file.plugins.state_dir, PathBuf::from("s"));

    let words = ["--plugins", "q", "--listen", "127.0.0.1:3", "--admin", "off", "--state", "t"];
    let of_options = settings(&words, file).host;
    assert_eq!((of_options.listen.as_str(), of_options.admin), ("127.0.0.1:3", None));
    assert_eq!(of_options.plugins.plugins_dir, PathBuf::from("q"));
    assert_eq!(of_options.plugins.state_dir, PathBuf::from("t"));

    let of_defaults = settings(&["--plugins", "q"], "").host;
    assert_eq!(of_defaults.listen, "127.0.0.1:8080");
    assert_eq!(of_defaults.admin.as_deref(), Some("127.0.0.1:8081"));
    assert_eq!(of_defaults.plugins.state_dir, PathBuf::from(".host"));
}

#[test]
fn development_mode_is_on_when_watching_unless_production() {
    let mode = |words: &[&str], file: &str| {
        let host = settings(&[&["--plugins", "p"], words].concat(), file).host;
        (host.plugins.watch, host.limits.development)
    };
    assert_eq!(mode(&[], ""), (true, true));
    assert_eq!(mode(&["--no-watch"], ""), (false, false));
    assert_eq!(mode(&["--production"], ""), (true, false));
    assert_eq!(mode(&[], "[host]\nwatch = false\n"), (false, false));
    assert_eq!(mode(&["--watch"], "[host]\nwatch = false\n"), (true, true));
    assert_eq!(mode(&[], "[host]\nproduction = true\n"), (true, false));
    assert_eq!(mode(&["--freeze"], "[host]\nwatch = true\n"), (false, false));
}

#[test]
fn freezing_is_off_unless_it_is_asked_for() {
    let frozen = |words: &[&str], file: &str| {
        settings(&[&["--plugins", "p"], words].concat(), file).host.plugins.freeze
    };
    assert!(!frozen(&[], "") && !frozen(&["--no-watch"], ""));
    assert!(frozen(&["--freeze"], "") && frozen(&[], "[host]\nfreeze = true\n"));
    assert!(!frozen(&["--watch"], "[host]\nfreeze = true\n"));
}

/// Following edits, only whoever says so has new code taken back; otherwise only `off` prevents it.
#[test]
fn probation_depends_on_watching_unless_something_is_said() {
    let of = |words: &[&str], file: &str| {
        let rule = settings(&[&["--plugins", "p"], words].concat(), file).host.plugins.probation;
        rule.map(|rule| (rule.lasts.as_millis(), rule.budget))
    };
    assert_eq!(of(&[], ""), None);
    assert_eq!(of(&["--no-watch"], ""), Some((10_000, 3)));
    assert_eq!(of(&["--no-watch", "--probation", "off"], ""), None);
    assert_eq!(of(&["--probation", "2m"], ""), Some((120_000, 3)));
    assert_eq!(of(&["--budget", "5"], ""), Some((10_000, 5)));
    let file = "[host]\nprobation_ms = 700\nbudget = 2\n";
    assert_eq!(of(&[], file), Some((700, 2)));
    assert_eq!(of(&["--budget", "1"], file), Some((700, 1)));
    assert_eq!(of(&["--no-watch"], "[host]\nprobation_ms = \"off\"\n"), None);
}

#[test]
fn without_a_plugins_directory_or_with_one_address_for_both_nothing_starts() {
    let error = |words: &[&str]| RunSettings::of(&run_args(words), FileConfig::default()).unwrap_err();
    assert!(error(&[]).to_string().contains("host run --plugins DIR"));
    let both = error(&["--plugins", "p", "--listen", "127.0.0.1:8081"]);
    assert_eq!(
        both.to_string(),
        "--listen and --admin both name 127.0.0.1:8081; give --admin another port, or say `--admin off`"
    );
    assert_eq!(both.code(), 2);
    // Two free ports are two addresses.
    settings(&["--plugins", "p", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"], "");
}

fn event(kind: EventKind) -> Event {
    Event {
        id: 1,
        at_ms: 0,
        event: kind,
        plugin: "hello".into(),
        generation: Some(3),
        previous_generation: Some(2),
        failed_step: None,
        reason: None,
        details: None,
        dropped: Vec::new(),
        steps: vec![
            plugin::Step { step: "build", ms: 280.4 },
            plugin::Step { step: "stage", ms: 0.1 },
            plugin::Step { step: "probe", ms: 4.0 },
        ],
        ms: 284.5,
    }
}

#[test]
fn an_event_is_one_sentence() {
    assert_eq!(
        sentence(&event(EventKind::Reloaded)),
        "reloaded hello: generation 2 -> 3 in 284 ms (build 280, probe 4)"
    );
    assert_eq!(
        sentence(&event(EventKind::Loaded)),
        "loaded hello: generation 3 in 284 ms (build 280, probe 4)"
    );
    let back = Event {
        reason: Some("asked by the operator, back to the code of generation 1".to_owned()),
        ..event(EventKind::RolledBack)
    };
    let words = "asked by the operator, back to the code of generation 1";
    assert_eq!(
        sentence(&back),
        format!("rolled back hello: generation 2 -> 3 in 284 ms (build 280, probe 4): {words}")
    );
    assert_eq!(
        super::order::outcome(&json!(back)),
        format!("rolled back hello: generation 2 -> 3 in 284 ms: {words}\n")
    );
    let refused = Event {
        generation: None,
        failed_step: Some("init"),
        reason: Some("`on_load` failed: \x1b[2Jno\nconfig".to_owned()),
        ..event(EventKind::Refused)
    };
    assert_eq!(
        sentence(&refused),
        "refused hello at init: `on_load` failed: \\u{1b}[2Jno\n    config; generation 2 still serves"
    );
    let first = Event {
        failed_step: Some("build"),
        reason: Some("does not compile: src/lib.rs:1:1: x".to_owned()),
        previous_generation: None,
        ..refused
    };
    assert_eq!(sentence(&first), "refused hello: does not compile: src/lib.rs:1:1: x; it does not serve yet");
}

#[test]
fn the_live_line_shows_what_builds_and_who_waits() {
    let start = Instant::now();
    let at = |ms| start + Duration::from_millis(ms);
    let mut builds = Builds::default();
    assert!(builds.step("hello", Step::Compiling { name: "serde" }, start));
    assert!(!builds.step("hello", Step::Compiled { name: "serde_json", done: 12 }, at(10)));
    builds.step("shop", Step::Queued { behind: "" }, at(20));
    assert_eq!(builds.line(at(100)), "");
    assert_eq!(builds.line(at(8100)), "building hello: 12 crates (serde_json) 8.1 s, 1 waiting");
    builds.end("hello");
    builds.step("shop", Step::Blocked { words: "waiting for file lock" }, at(9000));
    assert_eq!(
        builds.line(at(9500)),
        "building shop: (waiting for another cargo: waiting for file lock) 0.5 s"
    );
    builds.end("shop");
    assert_eq!(builds.line(at(9600)), "");
}

#[test]
fn without_a_terminal_a_build_is_mentioned_at_once_and_then_every_ten_seconds() {
    let start = Instant::now();
    let mut builds = Builds::default();
    builds.step("hello", Step::Compiling { name: "serde" }, start);
    assert_eq!(builds.mentions(start), ["building hello"]);
    assert!(builds.mentions(start + Duration::from_secs(9)).is_empty());
    assert_eq!(builds.mentions(start + Duration::from_secs(10)), ["building hello: (serde) 10.0 s"]);
}

const LINE: Format = Format { has_colours: false, has_date: false };

#[test]
fn a_plugins_log_line_names_plugin_generation_route_and_request() {
    let said = LogLine {
        at_ms: 43_262_000,
        level: "info".to_owned(),
        target: "plugin".to_owned(),
        message: "no such guest\n2026 forged \x1b[2J".to_owned(),
        plugin: "hello".to_owned(),
        generation: "3".to_owned(),
        route: "GET /{name}".to_owned(),
        request_id: "5f2c-1".to_owned(),
        origin: "hello::guests".to_owned(),
        fields: " name=bob".to_owned(),
        ..LogLine::default()
    };
    assert_eq!(
        LINE.line(&said),
        "12:01:02 INFO  hello g3 GET /{name} [5f2c-1] no such guest\n    2026 forged \\u{1b}[2J name=bob\n"
    );
    let level = "warn".to_owned();
    let other = LogLine { at_ms: 0, level, origin: "sqlx".to_owned(), route: String::new(), ..said };
    assert!(LINE.line(&other).starts_with("00:00:00 WARN  hello g3 [5f2c-1] sqlx: no such"));
}

#[test]
fn the_compilers_colours_stay_only_where_colours_are_welcome() {
    let refused = LogLine {
        at_ms: 1_795_262_462_000,
        level: "error".to_owned(),
        target: "host::cli::screen".to_owned(),
        plugin: "hello".to_owned(),
        is_plugin_in_message: true,
        message: "refused hello\n\x1b[31merror\x1b[0m: x".to_owned(),
        ..LogLine::default()
    };
    let dated = Format { has_date: true, ..LINE };
    assert_eq!(dated.line(&refused), "2026-11-21T12:01:02Z ERROR refused hello\nerror: x\n");
    let coloured = Format { has_colours: true, has_date: false };
    assert!(coloured.line(&refused).contains("\x1b[31merror\x1b[0m: x"));
}

fn status(name: &str, routes: usize) -> PluginStatus {
    let route = |i: usize| RouteStatus {
        method: "GET".to_owned(),
        path: if i == 0 { format!("/{name}/{{id}}") } else { format!("/{name}/r{i}") },
        kind: "blocking",
    };
    PluginStatus {
        activity: None,
        name: name.to_owned(),
        state: PluginState::Serving,
        generation: Some(1),
        source: SourceStatus { kind: "directory", path: format!("/p/{name}") },
        mount: format!("/{name}"),
        routes: (0..routes).map(route).collect(),
        version: None,
        requests: 0,
        in_flight: 0,
        panics: 0,
        missed_deadlines: 0,
        degraded: None,
        loaded_at_ms: None,
        refused: None,
        last_outcome: None,
        parked: Vec::new(),
        unloaded: 0,
        heap_bytes: None,
    }
}

fn outcome(plugins: &[PluginStatus]) -> Outcome<'_> {
    Outcome {
        listen: "127.0.0.1:8080".parse().unwrap(),
        admin: Some("127.0.0.1:8081".parse().unwrap()),
        plugins_dir: Path::new("plugins"),
        state_dir: None,
        is_watching: true,
        program: "host",
        plugins,
    }
}

#[test]
fn the_start_up_screen_says_where_what_and_what_next() {
    let refused = PluginStatus {
        state: PluginState::Refused,
        generation: None,
        refused: Some("does not compile: src/lib.rs:1:1: x".to_owned()),
        ..status("shop", 0)
    };
    assert_eq!(
        outcome(&[status("hello", 6), refused]).screen(),
        "
  serving on http://127.0.0.1:8080/
  admin   on http://127.0.0.1:8081/

  plugin  state    gen  mount   routes
  hello   serving  1    /hello  GET /{id}, GET /r1, GET /r2, GET /r3, and 2 more
  shop    refused  -    /shop   -

  shop is refused: does not compile: src/lib.rs:1:1: x

  try   curl http://127.0.0.1:8080/hello/r1
  edit  /p/hello/src/lib.rs and save: it is served without a restart
  see   host status

"
    );
}

#[test]
fn an_empty_plugins_directory_gets_a_suggestion() {
    let screen = outcome(&[]).screen();
    assert!(screen.contains("no plugins in plugins yet"), "{screen}");
    assert!(screen.contains("host new hello --plugins plugins\n"), "{screen}");
}

#[test]
fn the_ready_file_appears_whole_and_goes_with_its_owner() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ready");
    let file = ReadyFile::write(&path, "127.0.0.1:80".parse().unwrap(), None, 7).unwrap();
    let body: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(body, json!({ "listen": "127.0.0.1:80", "admin": null, "pid": 7 }));
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    drop(file);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn status_shows_troubles_and_what_is_parked() {
    let host = json!({
        "version": "0.1.0", "pid": 7, "uptime_ms": 190_000, "is_ready": true, "listen": "127.0.0.1:80",
        "admin": null, "numbers": { "requests": 1, "status_5xx": 0, "in_flight": 2, "connections": 3 },
    });
    let held = |by: &str| json!({ "generation": 1, "held_by": [by] });
    let plugin = json!({
        "name": "hello", "state": "serving", "generation": 4, "mount": "/hello", "requests": 12, "in_flight": 0, "heap_bytes": 3481,
        "refused": "does not compile: x",
        "last_outcome": { "event": "refused", "failed_step": "build", "at_ms": 1000, "ms": 1500.0, "details": "error: x\n" },
        "parked": [held("a"), held("b"), held("a")],
    });
    assert_eq!(
        status_text(&host, &[plugin], 4000),
        "host 0.1.0, pid 7, up 3 min, ready
serving on http://127.0.0.1:80/, admin off
1 request answered, 0 of them 5xx; 2 in flight on 3 connections

PLUGIN  STATE    GENERATION  MOUNT   REQUESTS  IN FLIGHT  HEAP     LAST OUTCOME
hello   serving  4           /hello  12        0          3.4 KiB  refused at build 3 s ago in 1.5 s

hello: newest code refused at build: does not compile: x; generation 4 still serves
    error: x

hello: 2 parked: a

hello: 1 parked: b
"
    );
}

#[test]
fn pools_are_a_table_with_waits_statements_and_events_below() {
    let pool = json!({
        "address": "postgres://shop@db:5432/shop", "max_size": 8, "open": 3, "idle": 1, "in_use": 2, "shared": 0,
        "waiting": 0, "connects": 4, "closes": 1, "reopens": 1, "checkouts": 900, "timeouts": 0, "leaks": 1,
        "is_down": true, "is_closed": false,
        "waits": { "below_1ms": 2, "below_10ms": 1, "below_100ms": 0, "below_1s": 0, "longer": 0, "longest_us": 4200 },
        "slowest": [{ "statement": "SELECT\n1", "longest_us": 12_000 }],
        "events": [{ "at_ms": 1_795_262_462_000_u64, "event": "leak", "detail": "lent to x\nat y" }],
    });
    assert_eq!(
        db_text(&[pool]),
        "\
DATABASE                      STATE  OPEN    IDLE  IN USE  SHARED  WAITING  CONNECTS  CLOSES  REOPENS  CHECKOUTS  TIMEOUTS  LEAKS
postgres://shop@db:5432/shop  down   3 of 8  1     2       0       0        4         1       1        900        0         1

postgres://shop@db:5432/shop
  waited  < 1 ms: 2, < 10 ms: 1, < 100 ms: 0, < 1 s: 0, longer: 0; longest 4 ms
  slowest     12 ms  SELECT 1
  2026-11-21 12:01:02  leak: lent to x
    at y
"
    );
    assert!(db_text(&[]).starts_with("no pools"));
}

#[test]
fn registry_and_events_are_tables() {
    let slot = json!({
        "module": "", "key": "db", "state": "ready", "type": "db::Pool", "created_at_ms": 0, "hits": 9,
        "created_by": { "plugin": "shop", "generation": 1 }, "failures": 1, "reloads_survived": 47,
        "used_by": ["shop", "bill"], "value": null,
        "last_error": { "message": "refused", "by": { "plugin": "bill", "generation": 2 }, "at_ms": 3000 },
    });
    assert_eq!(
        registry_text(&[slot], 5000),
        "KEY  STATE  TYPE      CREATED BY  AGE  HITS  FAILURES  RELOADS SURVIVED  USED BY
db   ready  db::Pool  shop g1     5 s  9     1         47                shop, bill

db: bill g2 failed 2 s ago: refused
"
    );
    let slot = json!({
        "module": "bill", "key": "rates", "state": "ready", "type": "db::Pool", "kind": "host handle",
        "created_at_ms": 1_795_262_462_000_u64, "hits": 9, "created_by": { "plugin": "shop", "generation": 1 },
        "failures": 0, "made": 1, "reloads_survived": 47, "used_by": ["shop"], "policy": "configuration",
        "config": { "url": "postgres://bob:***@db/shop" }, "value": null, "last_error": null, "is_orphan": true,
    });
    assert_eq!(
        slot_text(&slot, 1_795_262_467_000),
        "bill/rates: connected once, survived 47 reloads, 5 s old
  type      db::Pool, host handle
  made      by shop g1 at 2026-11-21 12:01:02 UTC
  reloads   kept as long as its configuration is the same
  config    {\"url\":\"postgres://bob:***@db/shop\"}
  asked     9 answered by the host (what a generation remembers is not counted)
  failures  0
  used by   shop

an orphan: nobody has asked for it since those who used it were reloaded or deleted; `host registry rm` lets go of it
"
    );
    let event = json!({
        "at_ms": 1_795_262_462_000_u64, "event": "refused", "plugin": "shop", "generation": null,
        "previous_generation": 2, "failed_step": "init", "reason": "no", "ms": 3.0,
    });
    assert_eq!(
        events_text(&[event]),
        "TIME (UTC)           EVENT    PLUGIN  GENERATION  TOOK  REASON
2026-11-21 12:01:02  refused  shop    2           3 ms  init: no
"
    );
}

#[test]
fn a_check_keeps_facts_and_complaints_apart() {
    let good = Finding {
        path: "p/shop.so".into(),
        name: "shop".to_owned(),
        mount: Some("/shop".to_owned()),
        routes: vec!["GET /".to_owned(), "inline GET /ping".to_owned()],
        ..Finding::default()
    };
    let details = details(&good);
    assert_eq!(
        details,
        "plugin   shop\nmount    /shop\nroutes   GET /, inline GET /ping\nresult   can be loaded\n"
    );
    assert_eq!(complaint(&good), "");
    let refusal = Refusal {
        step: "build",
        reason: "does not compile: x".to_owned(),
        details: Some("error: x\n\n".to_owned()),
    };
    let bad = Finding {
        path: "p/bill".into(),
        name: "bill".to_owned(),
        refused: Some(refusal),
        ..Finding::default()
    };
    assert_eq!(complaint(&bad), "error: p/bill is refused at build: does not compile: x\nerror: x\n");
    assert_eq!(
        table(&[good, bad]),
        "PLUGIN  RESULT         VERSION  ABI  MOUNT  ROUTES
shop    can be loaded  -        -    /shop  2
bill    refused        -        -    -      0

1 of 2 plugins refused
"
    );
}

#[test]
fn a_new_plugin_fits_its_surroundings() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    assert_eq!(Surroundings::of(&root.join("plugins/x")), Surroundings::default());
    let workspace = |text: &str| std::fs::write(root.join("Cargo.toml"), text).unwrap();
    workspace(
        "[workspace]\nmembers = [\"host\", \"plugins/*\"]\n[workspace.dependencies]\nplugin-api = \"1\"\n",
    );
    let member = Surroundings { is_member: true, shares_plugin_api: true };
    assert_eq!(Surroundings::of(&root.join("plugins/x")), member);
    assert_eq!(Surroundings::of(&root.join("others/x")), Surroundings::default());
    workspace("[workspace]\nmembers = [\"plugins/*\"]\nexclude = [\"plugins/x\"]\n");
    assert_eq!(Surroundings::of(&root.join("plugins/x")), Surroundings::default());
    assert_eq!(
        Surroundings::of(&root.join("plugins/y")),
        Surroundings { is_member: true, shares_plugin_api: false }
    );
}

#[test]
fn members_are_matched_as_cargo_does() {
    assert!(covers("plugins/*", Path::new("plugins/hello")));
    assert!(covers("./plugins/h?ll*", Path::new("plugins/hello")));
    assert!(!covers("plugins/*", Path::new("plugins/deep/hello")));
    assert!(!covers("plugins/*", Path::new("plugin/hello")));
    assert!(!covers("plugins/hell", Path::new("plugins/hello")));
}

#[test]
fn a_new_plugins_files_are_complete() {
    assert_eq!(
        render_manifest("shop", "plugin-api.workspace = true", true),
        "[package]\nname = \"shop\"\nversion = \"0.1.0\"\nedition = \"2024\"\npublish = false\n\n\
         [lib]\ncrate-type = [\"cdylib\"]\n\n[dependencies]\nplugin-api.workspace = true\n"
    );
    assert!(render_manifest("shop", "x", false).ends_with("\n[workspace]\n"));
    let source = source("shop");
    assert!(source.contains("#![forbid(unsafe_code)]") && source.contains("sqlite:shop.db"), "{source}");
    assert!(!source.contains("NAME"), "{source}");
}

#[test]
fn only_names_of_packages_name_plugins() {
    for name in ["shop", "shop-2", "a_b"] {
        check_name(name).unwrap();
    }
    for name in ["", "Shop", "2shop", "-x", "a/b", "../x", "a b", "fn", "std", "plugin-api", "caf\u{e9}"] {
        assert_eq!(check_name(name).unwrap_err().code(), 2, "{name}");
    }
}

#[test]
fn durations_and_addresses_read_well() {
    assert_eq!((took(0.42), took(312.4), took(8123.0)), ("0.4 ms".into(), "312 ms".into(), "8.1 s".into()));
    assert_eq!((lasted(12_999), lasted(300_000)), ("12 s".into(), "5 min".into()));
    assert_eq!((lasted(3 * 3_600_000), lasted(72 * 3_600_000)), ("3 h".into(), "3 days".into()));
    assert_eq!(url("127.0.0.1:80".parse().unwrap()), "http://127.0.0.1:80/");
    assert!(url("0.0.0.0:80".parse().unwrap()).starts_with("http://127.0.0.1:80/ "));
    assert_eq!(harmless("a\tb\u{7}\nc\n"), "a b\\u{7}\n    c");
    assert_eq!(utc(951_782_400).0, "2000-02-29");
    assert_eq!(utc(0), ("1970-01-01".to_owned(), "00:00:00".to_owned()));
}
