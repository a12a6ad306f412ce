//! Facts about code of an edit that does not return while it has claimed live data: it is given up, and the data is in use
//! again.

use std::fs;

use tests::host::{Launch, TestHost};
use tests::workshop::Workshop;

/// A plugin whose value an edit is about to change. What hangs does so until there is a file.
const BEFORE: &str = r#"
#![forbid(unsafe_code)]
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use plugin_api::prelude::*;
use plugin_api::sync::Mutex;

plugin! {
    routes: { GET "/hit" => hit, GET "/version" => version },
    state: [STATE],
}

fn version(_: &Request) -> &'static str { "1" }

#[derive(Resident, Debug, PartialEq, Eq, PartialOrd, Ord, Clone)]
pub struct Name(u64);

#[derive(Resident, Debug)]
pub struct Item {
    count: u64,
}

#[derive(Resident, Debug)]
pub struct State {
    hits: AtomicU64,
    items: Mutex<BTreeMap<Name, Item>>,
}

static STATE: registry::Lazy<State> = registry::Lazy::new("state", || Ok(fresh()));

fn fresh() -> State {
    let items = Mutex::new(BTreeMap::from([(Name(1), Item { count: 1 }), (Name(2), Item { count: 1 })]));
    State { hits: 0.into(), items }
}

fn hit(_: &Request) -> Result<String> {
    let state = STATE.get()?;
    let hit = state.hits.fetch_add(1, Ordering::Relaxed) + 1;
    let mut items = state.items.lock();
    items.insert(Name(hit + 10), Item { count: hit });
    items.remove(&Name(hit + 9));
    Ok(format!("{hit} {}", items.len()))
}

#[allow(dead_code)]
fn hang() -> u32 {
    let gate = std::env::var("FIXTURE_GATE").unwrap_or_default();
    while !std::path::Path::new(&gate).exists() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    7
}
"#;

/// Edits whose upgrade does not return, by what hangs.
const EDITS: &[(&str, &[(&str, &str)])] = &[
    (
        "a default",
        &[
            (
                "    hits: AtomicU64,\n",
                "    hits: AtomicU64,\n    #[resident(default = hang())]\n    added: u32,\n",
            ),
            ("State { hits: 0.into(), items }", "State { hits: 0.into(), items, added: 0 }"),
        ],
    ),
    (
        "a hook",
        &[
            (
                "#[derive(Resident, Debug)]\npub struct State {\n",
                "#[derive(Resident, Debug)]\n#[resident(upgrade = hook)]\npub struct State {\n    added: u32,\n",
            ),
            ("State { hits: 0.into(), items }", "State { hits: 0.into(), items, added: 0 }"),
            (
                "fn hit(",
                "fn hook(old: &plugin_api::resident::Old<'_>) -> Result<State> {\n    \
                     let hits = old.field::<AtomicU64>(\"hits\")?;\n    let added = hang();\n    \
                     let items = old.field::<Mutex<BTreeMap<Name, Item>>>(\"items\")?;\n    \
                     let _ = items.lock().len();\n    \
                     Ok(State { hits: hits.load(Ordering::Relaxed).into(), added, ..fresh() })\n}\n\nfn hit(",
            ),
        ],
    ),
    (
        "the order of a key",
        &[
            ("Debug, PartialEq, Eq, PartialOrd, Ord, Clone", "Debug, PartialEq, Eq, Clone"),
            (
                "#[derive(Resident, Debug)]\npub struct Item {\n",
                "impl PartialOrd for Name {\n    fn partial_cmp(&self, other: &Name) -> Option<std::cmp::Ordering> { Some(self.cmp(other)) }\n}\n\
                 impl Ord for Name {\n    fn cmp(&self, other: &Name) -> std::cmp::Ordering {\n        hang();\n        self.0.cmp(&other.0)\n    }\n}\n\n\
                 #[derive(Resident, Debug)]\npub struct Item {\n    #[resident(default = 3)]\n    more: u8,\n",
            ),
            (
                "Item { count: 1 }), (Name(2), Item { count: 1 })",
                "Item { more: 1, count: 1 }), (Name(2), Item { more: 1, count: 1 })",
            ),
            ("Item { count: hit }", "Item { more: 2, count: hit }"),
        ],
    ),
];

fn edited(edits: &[(&str, &str)]) -> String {
    edits.iter().fold(BEFORE.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "no `{from}`");
        text.replacen(from, to, 1)
    })
}

fn hit(host: &TestHost) -> String {
    let response = host.get("/probe/hit");
    assert_eq!(response.status, 200, "{}\n{}", response.text(), host.log());
    response.text()
}

fn start(library: &[u8], allowed_ms: u32) -> (TestHost, std::path::PathBuf) {
    let launch = Launch::new();
    let (gate, config) = (launch.scratch().join("gate"), launch.scratch().join("host.toml"));
    fs::write(&config, format!("[limits]\nload_timeout_ms = {allowed_ms}\n")).unwrap();
    launch.plugins().put_library("probe", library);
    (launch.env("FIXTURE_GATE", &gate).arg("--config").arg(&config).start(), gate)
}

/// A hanging upgrade refuses its generation, and at once the older value is in use, also for newer code; what hangs may
/// return whenever it likes.
#[test]
fn staged_upgrade_that_hangs_is_given_up_with_its_generation() {
    let workshop = Workshop::open("hanging");
    let before = workshop.build(BEFORE, &[]);
    let restored = workshop.build(&edited(&[("\"1\"", "\"restored\"")]), &[]);
    let mended = workshop.build(
        &edited(&[
            ("\"1\"", "\"mended\""),
            (
                "    hits: AtomicU64,\n",
                "    hits: AtomicU64,\n    #[resident(default = 9)]\n    added: u8,\n",
            ),
            ("State { hits: 0.into(), items }", "State { hits: 0.into(), items, added: 0 }"),
        ]),
        &[],
    );
    for (what, edits) in EDITS {
        let (host, gate) = start(&before, 500);
        assert_eq!(hit(&host), "1 3", "{what}");
        let hanging = workshop.build(&edited(edits), &[]);
        let told = host.refuse("probe", |plugins| plugins.put_library("probe", &hanging));
        assert!(told.contains("still running after 500ms"), "{what}: {told}");
        assert_eq!(hit(&host), "2 3", "{what}: the value is not in use again");
        assert!(host.log().contains("given up"), "{what}: {}", host.log());
        host.reload("probe", |plugins| plugins.put_library("probe", &restored));
        assert_eq!(hit(&host), "3 3", "{what}: restoring the source does not help");
        fs::write(&gate, "").unwrap();
        assert_eq!(hit(&host), "4 3", "{what}");
        host.wait_for("probe", "to be rid of the code that hung", |status| status.unloaded() >= 1);
        host.reload("probe", |plugins| plugins.put_library("probe", &mended));
        assert_eq!(hit(&host), "5 3", "{what}");
        assert_eq!(host.get("/probe/version").text(), "mended");
    }
}

/// An upgrade at the first use that hangs costs its own request; those that wait give it up, and it is not tried again.
#[test]
fn upgrade_at_first_use_that_hangs_is_given_up_by_those_who_wait() {
    let workshop = Workshop::open("hanging_late");
    let unlisted = [("    state: [STATE],\n", "")];
    let timed = (
        "let state = STATE.get()?;",
        "let allowed = std::time::Duration::from_millis(400);\n    \
         let state = registry::entry(\"state\").timeout(allowed).get_or_init(|| Ok::<_, Error>(fresh()))?;",
    );
    for (what, edits) in EDITS {
        let (host, gate) = start(&workshop.build(&edited(&unlisted), &[]), 30_000);
        assert_eq!(hit(&host), "1 3", "{what}");
        let edits = [&unlisted[..], &[timed, ("\"1\"", "\"2\"")], edits].concat();
        let hanging = workshop.build(&edited(&edits), &[]);
        let back = workshop.build(&edited(&[&unlisted[..], &[("\"1\"", "\"back\"")]].concat()), &[]);
        host.reload("probe", |plugins| plugins.put_library("probe", &hanging));
        std::thread::scope(|scope| {
            let (answered, answer) = std::sync::mpsc::channel();
            for _ in 0..2 {
                let (answered, host) = (answered.clone(), &host);
                scope.spawn(move || answered.send(host.get("/probe/hit")));
            }
            // One of them upgrades, and hangs; the other waits for it, gives it up, and is told.
            let told = answer.recv_timeout(tests::wait::SOON).expect("the one that waits is told");
            assert_eq!(told.status, 503, "{what}: {}", told.text());
            assert_eq!(host.get("/probe/hit").status, 503, "{what}: it is not tried again");
            host.reload("probe", |plugins| plugins.put_library("probe", &back));
            assert_eq!(hit(&host), "2 3", "{what}: {}", host.log());
            fs::write(&gate, "").unwrap();
            assert_ne!(answer.recv().unwrap().status, 200, "{what}");
        });
        assert_eq!(hit(&host), "3 3", "{what}");
        assert!(host.log().contains("given up"), "{what}: {}", host.log());
    }
}
