//! Facts about edits of live data: what a value becomes when its definition changes under it.
//!
//! Each case is an edit of `before.rs`, really rebuilt, and loaded over a host that has the value.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use tests::host::{Launch, TestHost};
use tests::http::Client;
use tests::workshop::Workshop;

const BEFORE: &str = include_str!("evolution/before.rs");

/// What is in the value besides what a case is about.
const ITEMS: [&str; 9] =
    ["plain", "optional", "first", "second", "\"key\": Item", "mapped", "low", "boxed", "shared"];

enum Outcome {
    /// The new code serves, and shows these.
    Becomes(&'static [&'static str]),
    /// The same, and the value was taken as it is.
    Adopted,
    /// The new code is refused with these words, and the old shows what it showed before.
    Refused(&'static [&'static str]),
}
use Outcome::{Adopted, Becomes, Refused};

struct Case {
    name: &'static str,
    edits: &'static [(&'static str, &'static str)],
    outcome: Outcome,
}

const CASES: &[Case] = &[
    Case { name: "code only", edits: &[("\"v1\"", "\"v2\"")], outcome: Adopted },
    Case {
        name: "field added, with a default",
        edits: &[
            ("    item: Item,\n", "    item: Item,\n    added: Vec<u32>,\n"),
            ("item: Item::new", "added: vec![1], item: Item::new"),
        ],
        outcome: Becomes(&["added: []", "hits: 7"]),
    },
    Case {
        name: "field added, with an expression",
        edits: &[
            ("    item: Item,\n", "    item: Item,\n    #[resident(default = 40 + 2)]\n    added: u32,\n"),
            ("item: Item::new", "added: 1, item: Item::new"),
        ],
        outcome: Becomes(&["added: 42", "hits: 7"]),
    },
    Case {
        name: "field added, without a default",
        edits: &[
            ("    item: Item,\n", "    item: Item,\n    added: Pair<u8>,\n"),
            ("item: Item::new", "added: Pair { left: 1, right: String::new() }, item: Item::new"),
        ],
        outcome: Refused(&["`added: Pair<u8>`", "Default", "#[resident(default"]),
    },
    Case {
        name: "field removed",
        edits: &[("    name: Mutex<String>,\n", ""), ("name: Mutex::new(\"ann\".into()),", "")],
        outcome: Becomes(&["hits: 7"]),
    },
    Case {
        name: "name used again for another type",
        edits: &[
            ("    boxed: Box<Item>,\n", "    boxed: Vec<Item>,\n"),
            ("boxed: Box::new(Item::new(\"boxed\", 8)),", "boxed: vec![],"),
        ],
        outcome: Refused(&["field `boxed`", "`Box<Item>`", "`Vec<Item>`"]),
    },
    Case {
        name: "field renamed, said so",
        edits: &[
            ("    name: Mutex<String>,\n", "    #[resident(rename = \"name\")]\n    title: Mutex<String>,\n"),
            ("name: Mutex::new", "title: Mutex::new"),
        ],
        outcome: Becomes(&["title: Mutex { data: \"ann\""]),
    },
    Case {
        name: "field renamed, not said",
        edits: &[
            ("    name: Mutex<String>,\n", "    title: Mutex<String>,\n"),
            ("name: Mutex::new", "title: Mutex::new"),
        ],
        outcome: Refused(&[
            "`name: Mutex<String>` is gone",
            "`title: Mutex<String>` is new",
            "rename = \"name\"",
            "dropped = \"name\"",
        ]),
    },
    Case {
        name: "field dropped beside a new one of its type, said so",
        edits: &[
            (
                "    name: Mutex<String>,\n",
                "    #[resident(dropped = \"name\")]\n    title: Mutex<String>,\n",
            ),
            ("name: Mutex::new", "title: Mutex::new"),
        ],
        outcome: Becomes(&["title: Mutex { data: \"\""]),
    },
    Case {
        name: "field renamed, said so at an earlier edit, beside a new one of the old name",
        edits: &[
            (
                "    pub label: String,\n",
                "    #[resident(rename = \"other\")]\n    pub label: String,\n    pub other: u8,\n",
            ),
            ("count: count.into() }", "count: count.into(), other: 1 }"),
        ],
        outcome: Becomes(&["{ label: \"plain\", other: 0, count: 1 }"]),
    },
    Case {
        name: "fields reordered",
        edits: &[(
            "    hits: AtomicU64,\n    name: Mutex<String>,\n",
            "    name: Mutex<String>,\n    hits: AtomicU64,\n",
        )],
        outcome: Becomes(&["name: Mutex { data: \"ann\"", "hits: 7"]),
    },
    Case {
        name: "field retyped",
        edits: &[("    hits: AtomicU64,\n", "    hits: std::sync::atomic::AtomicU32,\n")],
        outcome: Refused(&[
            "field `hits`",
            "`AtomicU64`",
            "`AtomicU32`",
            "probe generation ",
            "#[resident(upgrade",
        ]),
    },
    Case {
        name: "field retyped, with a hook",
        edits: &[
            (
                "#[derive(Resident, Debug)]\npub struct State",
                "#[derive(Resident, Debug)]\n#[resident(upgrade = from_old)]\npub struct State",
            ),
            ("    hits: AtomicU64,\n", "    hits: std::sync::atomic::AtomicU32,\n"),
            (
                "fn fresh()",
                "fn from_old(old: &plugin_api::resident::Old<'_>) -> Result<State> {\n    \
                     let hits = old.field::<AtomicU64>(\"hits\")?.load(Ordering::Relaxed);\n    \
                     Ok(State { hits: (hits as u32 + 100).into(), ..fresh() })\n}\n\nfn fresh()",
            ),
        ],
        outcome: Becomes(&["hits: 107"]),
    },
    Case {
        name: "hook that fails",
        edits: &[
            (
                "#[derive(Resident, Debug)]\npub struct State",
                "#[derive(Resident, Debug)]\n#[resident(upgrade = from_old)]\npub struct State",
            ),
            ("    item: Item,\n", "    item: Item,\n    added: u8,\n"),
            ("item: Item::new", "added: 1, item: Item::new"),
            (
                "fn fresh()",
                "fn from_old(_: &plugin_api::resident::Old<'_>) -> Result<State> {\n    Err(Error::msg(\"not today\"))\n}\n\nfn fresh()",
            ),
        ],
        outcome: Refused(&["not today", "`State`"]),
    },
    Case {
        name: "default that panics, after others were made",
        edits: &[
            (
                "    item: Item,\n",
                "    more: Vec<u64>,\n    item: Item,\n    #[resident(default = panic!(\"no default today\"))]\n    added: u8,\n",
            ),
            ("item: Item::new", "more: vec![], added: 1, item: Item::new"),
        ],
        outcome: Refused(&["no default today"]),
    },
    Case {
        name: "nested field added, inside everything",
        edits: &[
            (
                "    pub count: u32,\n",
                "    #[resident(default = \"new\".to_owned())]\n    pub note: String,\n    pub count: u32,\n",
            ),
            ("count: count.into() }", "count: count.into(), note: String::new() }"),
        ],
        outcome: Becomes(&[
            "{ label: \"plain\", note: \"new\", count: 1 }",
            "Some(Item { label: \"optional\", note: \"new\", count: 2 })",
            "[Item { label: \"first\", note: \"new\", count: 3 }, Item { label: \"second\", note: \"new\", count: 4 }]",
            "{\"key\": Item { label: \"mapped\", note: \"new\", count: 5 }}",
            "{1: Item { label: \"low\", note: \"new\", count: 6 }, 2: Item { label: \"high\", note: \"new\", count: 7 }}",
            "boxed: Item { label: \"boxed\", note: \"new\", count: 8 }",
            "shared: Item { label: \"shared\", note: \"new\", count: 9 }",
        ]),
    },
    Case {
        name: "nested field removed, inside everything",
        edits: &[
            ("    pub count: u32,\n", ""),
            (
                "count: u32) -> Item {\n        Item { label: label.into(), count: count.into() }",
                "_: u32) -> Item {\n        Item { label: label.into() }",
            ),
        ],
        outcome: Becomes(&["Some(Item { label: \"optional\" })", "{\"key\": Item { label: \"mapped\" }}"]),
    },
    Case {
        name: "nested field retyped",
        edits: &[("    pub count: u32,\n", "    pub count: u64,\n")],
        outcome: Refused(&["field `item.count`", "`u32`", "`u64`"]),
    },
    Case {
        name: "nested field retyped, with a hook",
        edits: &[
            (
                "#[derive(Resident, Debug)]\npub struct Item",
                "#[derive(Resident, Debug)]\n#[resident(upgrade = item_from_old)]\npub struct Item",
            ),
            ("    pub count: u32,\n", "    pub count: u64,\n"),
            (
                "fn fresh()",
                "fn item_from_old(old: &plugin_api::resident::Old<'_>) -> Result<Item> {\n    \
                     let count = u64::from(*old.field::<u32>(\"count\")?) * 10;\n    \
                     Ok(Item { label: old.field::<String>(\"label\")?.clone(), count })\n}\n\nfn fresh()",
            ),
        ],
        outcome: Becomes(&[
            "\"first\", count: 30",
            "{\"key\": Item { label: \"mapped\", count: 50 }}",
            "\"shared\", count: 90",
        ]),
    },
    Case {
        name: "variant added",
        edits: &[("    Idle,\n", "    Idle,\n    Paused(u8),\n")],
        outcome: Becomes(&["Busy { since: 9, who: \"bob\" }"]),
    },
    Case {
        name: "variant renamed, with a field added",
        edits: &[
            (
                "    Busy { since: u64, who: String },\n",
                "    #[resident(rename = \"Busy\")]\n    Working { who: String, since: u64, on: Option<String> },\n",
            ),
            (
                "Mode::Busy { since: 9, who: \"bob\".into() }",
                "Mode::Working { since: 9, who: \"bob\".into(), on: None }",
            ),
        ],
        outcome: Becomes(&["Working { who: \"bob\", since: 9, on: None }"]),
    },
    Case {
        name: "variant removed that the value is at",
        edits: &[
            ("    Busy { since: u64, who: String },\n", "    Away(u64),\n"),
            ("Mode::Busy { since: 9, who: \"bob\".into() }", "Mode::Away(1)"),
        ],
        outcome: Refused(&["field `mode`", "`Busy`", "`Mode`"]),
    },
    Case {
        name: "generic parameter changed",
        edits: &[("    pair: Pair<u32>,\n", "    pair: Pair<u64>,\n")],
        outcome: Refused(&["field `pair.left`", "`u32`", "`u64`"]),
    },
    Case {
        name: "container changed",
        edits: &[
            ("    list: Mutex<Vec<Item>>,\n", "    list: Mutex<std::collections::VecDeque<Item>>,\n"),
            (
                "list: Mutex::new(vec![Item::new(\"first\", 3), Item::new(\"second\", 4)])",
                "list: Default::default()",
            ),
            (".push(Item::new(\"pushed\"", ".push_back(Item::new(\"pushed\""),
        ],
        outcome: Refused(&["field `list`", "`Vec<Item>`", "`VecDeque<Item>`"]),
    },
    Case {
        name: "retyped, and the key says to start afresh",
        edits: &[
            ("    pair: Pair<u32>,\n", "    pair: Pair<u64>,\n"),
            ("|| Ok(fresh()))", "|| Ok(fresh())).or_restart()"),
            ("hits: 7.into()", "hits: 1000.into()"),
        ],
        outcome: Becomes(&["hits: 1000"]),
    },
    Case {
        name: "types renamed and moved to a module, said so",
        edits: &[
            (
                "#[derive(Resident, Debug)]\npub struct Item {\n    pub label: String,\n    pub count: u32,\n}\n",
                "pub mod things {\n    use plugin_api::prelude::*;\n\n    #[derive(Resident, Debug)]\n    \
                     #[resident(rename = \"Item\")]\n    pub struct Item {\n        pub label: String,\n        pub count: u32,\n    }\n}\nuse things::Item;\n",
            ),
            (
                "#[derive(Resident, Debug)]\npub struct Pair<T> {",
                "#[derive(Resident, Debug)]\n#[resident(rename = \"Pair\")]\npub struct Couple<T> {",
            ),
            ("pair: Pair<u32>,", "pair: Couple<u32>,"),
            ("pair: Pair {", "pair: Couple {"),
            (
                "#[derive(Resident, Debug)]\npub struct State {",
                "#[derive(Resident, Debug)]\n#[resident(rename = \"State\")]\npub struct State {",
            ),
        ],
        outcome: Becomes(&[
            "hits: 7",
            "pair: Couple { left: 5, right: \"pear\" }",
            "boxed: Item { label: \"boxed\", count: 8 }",
        ]),
    },
    Case {
        name: "the kept type renamed, said so",
        edits: &[(
            "#[derive(Resident, Debug)]\npub struct State {",
            "type State = Tally;\n#[derive(Resident, Debug)]\n#[resident(rename = \"crate::State\")]\npub struct Tally {",
        )],
        outcome: Becomes(&["Tally { hits: 7"]),
    },
    Case {
        name: "the kept type renamed, not said",
        edits: &[(
            "#[derive(Resident, Debug)]\npub struct State {",
            "type State = Tally;\n#[derive(Resident, Debug)]\npub struct Tally {",
        )],
        outcome: Refused(&["`State`", "`Tally`", "say `#[resident(rename = \"evolving::State\")]`"]),
    },
    Case {
        name: "a nested type renamed, not said",
        edits: &[
            ("pub struct Pair<T> {", "pub struct Couple<T> {"),
            ("pair: Pair<u32>,", "pair: Couple<u32>,"),
            ("pair: Pair {", "pair: Couple {"),
        ],
        outcome: Refused(&["field `pair`", "`Pair<u32>`", "`Couple<u32>`", "Pair\")]` on `Couple`"]),
    },
    Case {
        name: "visibility",
        edits: &[
            ("pub struct Item", "struct Item"),
            ("    pub label", "    label"),
            ("pub struct State", "struct State"),
        ],
        outcome: Adopted,
    },
    Case {
        name: "order of derives",
        edits: &[(
            "#[derive(Resident, Debug)]\npub struct Item",
            "#[derive(Debug, Resident)]\npub struct Item",
        )],
        outcome: Adopted,
    },
];

fn show(host: &TestHost) -> String {
    let response = host.get("/probe/show");
    assert_eq!(response.status, 200, "{}\n{}", response.text(), host.log());
    response.text()
}

fn upgrades(host: &TestHost) -> u64 {
    let registry = host.api("/api/registry").to_string();
    let (_, rest) =
        registry.split_once("\"upgrades\":").unwrap_or_else(|| panic!("no upgrades in {registry}"));
    rest.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap()
}

/// Loads `after` over a host that serves `before` and has a fresh value, and checks what becomes of both.
fn check(host: &TestHost, case: &Case, before: &[u8], after: &[u8]) {
    host.get("/probe/remove");
    let name = case.name;
    // Behind the end of what the headers describe, where nobody looks: after a refusal it serves still.
    let fresh = [before, name.as_bytes()].concat();
    host.reload("probe", |plugins| plugins.put_library("probe", &fresh));
    let shown = show(host);
    match case.outcome {
        Becomes(expected) => {
            host.reload("probe", |plugins| plugins.put_library("probe", after));
            let now = show(host);
            for part in expected.iter().chain(&ITEMS) {
                assert!(now.contains(part), "{name}: no `{part}` in\n{now}");
            }
        }
        Adopted => {
            host.reload("probe", |plugins| plugins.put_library("probe", after));
            assert_eq!(show(host).replace("v2", "v1"), shown, "{name}");
            assert_eq!(upgrades(host), 0, "{name}");
        }
        Refused(expected) => {
            let told = host.refuse("probe", |plugins| plugins.put_library("probe", after));
            for part in expected {
                assert!(told.contains(part), "{name}: no `{part}` in\n{told}");
            }
            assert_eq!(show(host), shown, "{name}");
        }
    }
    // The blocks are whose they should be: grown, shrunk and freed by whoever serves now.
    assert_eq!(host.get("/probe/use").text(), "mapped and found", "{name}: {}", host.log());
    assert_eq!(host.get("/probe/remove").status, 200, "{name}");
    assert!(show(host).contains("plain"), "{name}");
}

/// For each edit the outcome that was promised, and the values that had to survive are there.
#[test]
fn edits_of_live_data_do_what_was_promised() {
    let workshop = Workshop::open("evolving");
    let before = workshop.build(BEFORE, &[]);
    let launch = Launch::new();
    launch.plugins().install("probe", "version_a");
    let host = launch.start();
    for case in CASES {
        let mut text = BEFORE.to_owned();
        for (from, to) in case.edits {
            assert!(text.contains(from), "{}: `{from}` is not in the source", case.name);
            text = text.replacen(from, to, 1);
        }
        check(&host, case, &before, &workshop.build(&text, &[]));
    }
    let optimised = workshop.build(BEFORE, &["--config", "profile.dev.package.evolving.opt-level=2"]);
    check(&host, &Case { name: "profile", edits: &[], outcome: Adopted }, &before, &optimised);
    let adopted = |name| Case { name, edits: &[], outcome: Adopted };
    let using = BEFORE.replacen("\"v1\"", "dependency::version()", 1);
    let with = |text: &str| {
        let source = format!("pub const fn version() -> &'static str {{\n    {text}\n}}\n");
        workshop.depend(&source).build(&using, &[])
    };
    let first = with("\"v2\"");
    check(&host, &adopted("dependency added"), &before, &first);
    let (first, second) =
        (with("\"v1\""), with("const NUMBERS: [&str; 2] = [\"v1\", \"v2\"];\n    NUMBERS[1]"));
    check(&host, &adopted("dependency changed"), &first, &second);
}

/// Clients go on while the layout changes back and forth: who is caught in between is told to come again, every
/// hit that was acknowledged is there, and no other is.
#[test]
fn upgrades_under_load_lose_nothing_and_invent_nothing() {
    let workshop = Workshop::open("loaded");
    let wider = BEFORE.replacen("    item: Item,\n", "    item: Item,\n    added: Vec<u32>,\n", 1);
    let wider = wider.replacen("item: Item::new", "added: vec![1], item: Item::new", 1);
    let builds = [workshop.build(&wider, &[]), workshop.build(BEFORE, &[])];
    let launch = Launch::new();
    launch.plugins().put_library("probe", &builds[1]);
    let host = launch.start();
    show(&host);
    let (is_over, listen) = (AtomicBool::new(false), host.listen());
    let answers: Vec<u16> = thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = Client::new(listen);
                    let mut answers = Vec::new();
                    while !is_over.load(Ordering::Relaxed) {
                        answers.push(client.get("/probe/hit").expect("an answer").status);
                    }
                    answers
                })
            })
            .collect();
        for build in builds.iter().cycle().take(8) {
            host.reload("probe", |plugins| plugins.put_library("probe", build));
        }
        is_over.store(true, Ordering::Relaxed);
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    });
    let done = answers.iter().filter(|status| **status == 200).count();
    let caught = answers.iter().filter(|status| **status == 503).count();
    assert_eq!(done + caught, answers.len(), "other answers than 200 and 503\n{}", host.log());
    assert!(done > 100 && caught * 20 < done, "{caught} of {} were caught in an upgrade", answers.len());
    assert!(show(&host).contains(&format!("hits: {}", 7 + done)), "{done} hits\n{}", show(&host));
    assert_eq!(upgrades(&host), 8);
}

/// A key that is not listed under `state:` is upgraded by its first user, which gets the error if there is one.
#[test]
fn key_that_is_not_listed_is_upgraded_at_its_first_use() {
    let workshop = Workshop::open("unlisted");
    let unlisted = BEFORE.replacen("    state: [STATE],\n", "", 1);
    let wider = unlisted.replacen("    item: Item,\n", "    item: Item,\n    added: Vec<u32>,\n", 1);
    let wider = wider.replacen("item: Item::new", "added: vec![1], item: Item::new", 1);
    let retyped = wider.replacen("    hits: AtomicU64,\n", "    hits: std::sync::atomic::AtomicU32,\n", 1);
    let launch = Launch::new();
    launch.plugins().put_library("probe", &workshop.build(&unlisted, &[]));
    let host = launch.start();
    show(&host);
    host.reload("probe", |plugins| plugins.put_library("probe", &workshop.build(&wider, &[])));
    assert!(show(&host).contains("added: []"));
    host.reload("probe", |plugins| plugins.put_library("probe", &workshop.build(&retyped, &[])));
    assert_eq!(host.get("/probe/show").status, 503);
    assert!(host.log().contains("field `hits`: what was `AtomicU64`"), "{}", host.log());
    host.reload("probe", |plugins| plugins.put_library("probe", &workshop.build(&wider, &[])));
    assert!(show(&host).contains("added: []") && show(&host).contains("hits: 7"));
}

/// The shipped example is edited as its first lines suggest.
#[test]
fn counter_goes_on_after_its_struct_was_edited() {
    let launch = Launch::new().warm();
    let plugin = launch.plugins().copy_source("counter");
    let host = launch.start();
    assert_eq!(host.get("/counter/apples").text(), "1\n");
    host.reload("counter", |_| {
        plugin.edit("total: AtomicU64,", "total: AtomicU64,\n    best: Mutex<String>,")
    });
    assert_eq!(host.get("/counter/apples").text(), "2\n");
    assert_eq!(host.get("/counter/").text(), "2 in all\napples: 2\n");
}

/// A handle that earlier code keeps for ever is waited for, but not for ever: the new code is refused, and says why.
#[test]
fn a_handle_kept_in_a_static_refuses_the_upgrade_in_time() {
    let workshop = Workshop::open("holding");
    let holding =
        BEFORE.replacen("GET \"/show\" => show,", "GET \"/show\" => show, GET \"/hold\" => hold,", 1)
            + "\nfn hold(_: &Request) -> Result<&'static str> {\n    \
             static HELD: std::sync::OnceLock<registry::Handle<State>> = std::sync::OnceLock::new();\n    \
             let handle = STATE.get()?;\n    HELD.get_or_init(|| handle);\n    Ok(\"held\")\n}\n";
    let edited = holding.replacen("    item: Item,\n", "    item: Item,\n    added: u8,\n", 1);
    let edited = edited.replacen("item: Item::new", "added: 1, item: Item::new", 1);
    let launch = Launch::new();
    launch.plugins().put_library("probe", &workshop.build(&holding, &[]));
    let host = launch.start();
    let shown = show(&host);
    assert_eq!(host.get("/probe/hold").text(), "held");
    let told = host.refuse("probe", |plugins| plugins.put_library("probe", &workshop.build(&edited, &[])));
    assert!(told.contains("1 uses by earlier code") && told.contains("not in a static"), "{told}");
    assert_eq!(show(&host), shown);
}

/// What cannot be shared is refused by the compiler, which says what to do.
#[test]
fn what_would_point_into_code_does_not_compile() {
    let workshop = Workshop::open("refused");
    let with = |field: &str| {
        format!(
            "use plugin_api::prelude::*;\nplugin! {{ routes: {{}} }}\n#[derive(Resident)]\nstruct S {{ field: {field} }}\n\
             static S: registry::Lazy<S> = registry::Lazy::new(\"s\", || Err(Error::msg(\"no\")));\n\
             pub fn s() {{ let _ = S.get(); }}\n"
        )
    };
    for field in [
        "fn()",
        "Box<dyn Send + Sync>",
        "std::rc::Rc<u8>",
        "&'static str",
        "std::sync::Mutex<u8>",
        "std::thread::Thread",
    ] {
        let told = workshop.refuse(&with(field));
        assert!(told.contains("cannot be shared with later generations"), "{field}: {told}");
        assert!(told.contains("add `#[derive(Resident)]`"), "{field}: {told}");
    }
    let told = workshop.refuse(&with("std::marker::PhantomData<*const u8>"));
    assert!(told.contains("cannot be shared between threads safely"), "{told}");
    let told = workshop.refuse(
        "use plugin_api::prelude::*;\nplugin! { routes: {} }\n\
         #[global_allocator]\nstatic A: std::alloc::System = std::alloc::System;\n",
    );
    assert!(told.contains("cannot define multiple global allocators"), "{told}");
    let told = workshop.refuse(
        "use plugin_api::prelude::*;\nplugin! { routes: {} }\n#[derive(Resident)]\npub struct S<'a>(&'a str);\n",
    );
    assert!(told.contains("holds no references"), "{told}");
}
