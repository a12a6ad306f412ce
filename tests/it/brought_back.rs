//! Facts about data that an upgrade dropped: going back to the earlier code brings it back, for a time.

use tests::host::{Launch, TestHost};
use tests::workshop::Workshop;

const BEFORE: &str = r#"
#![forbid(unsafe_code)]
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use plugin_api::prelude::*;
use plugin_api::sync::Mutex;

plugin! { routes: { GET "/hit" => hit, GET "/show" => show }, state: [STATE] }

const VERSION: &str = "v1";

#[derive(Resident, Debug)]
pub struct Item {
    text: String,
    tags: Vec<String>,
}

#[derive(Resident, Debug)]
pub struct State {
    hits: AtomicU64,
    items: Mutex<BTreeMap<String, Item>>,
}

static STATE: registry::Lazy<State> = registry::Lazy::new("state", || Ok(fresh()));

fn fresh() -> State {
    State { hits: 0.into(), items: Mutex::default() }
}

fn hit(_: &Request) -> Result<String> {
    let state = STATE.get()?;
    let hit = state.hits.fetch_add(1, Ordering::Relaxed) + 1;
    let item = Item { text: format!("text {hit}"), tags: vec![format!("tag {hit}")] };
    state.items.lock().insert(format!("key {hit}"), item);
    Ok(hit.to_string())
}

fn show(_: &Request) -> Result<String> {
    Ok(format!("{VERSION} {:?}", *STATE.get()?))
}
"#;

const V2: (&str, &str) = ("\"v1\"", "\"v2\"");

type Replacements = &'static [(&'static str, &'static str)];

/// Edits that drop something, by what they do, with what is said of it.
const EDITS: &[(&str, Replacements, &str)] = &[
    (
        "a field goes",
        &[V2, ("    text: String,\n", ""), ("text: format!(\"text {hit}\"), ", "")],
        "Item.text: String",
    ),
    (
        "a hook builds it",
        &[
            V2,
            (
                "#[derive(Resident, Debug)]\npub struct State {\n    hits: AtomicU64,",
                "#[derive(Resident, Debug)]\n#[resident(upgrade = from_old)]\npub struct State {\n    hits: std::sync::atomic::AtomicU32,",
            ),
            (
                "fn hit(",
                "fn from_old(old: &plugin_api::resident::Old<'_>) -> Result<State> {\n    \
                     let hits = old.field::<AtomicU64>(\"hits\")?.load(Ordering::Relaxed);\n    \
                     let _ = old.field::<Mutex<BTreeMap<String, Item>>>(\"items\")?;\n    \
                     Ok(State { hits: (hits as u32 + 100).into(), ..fresh() })\n}\n\nfn hit(",
            ),
        ],
        "`upgrade = ...`",
    ),
    (
        "it starts afresh",
        &[
            V2,
            ("    hits: AtomicU64,\n", "    hits: std::sync::atomic::AtomicU32,\n"),
            ("|| Ok(fresh()))", "|| Ok(fresh())).or_restart()"),
        ],
        "starts afresh",
    ),
];

fn edited(edits: &[(&str, &str)]) -> String {
    edits.iter().fold(BEFORE.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "no `{from}`");
        text.replacen(from, to, 1)
    })
}

fn ask(host: &TestHost, path: &str) -> String {
    let response = host.get(path);
    assert_eq!(response.status, 200, "{path}: {}\n{}", response.text(), host.log());
    response.text()
}

fn tell(host: &TestHost, args: &[&str]) -> String {
    let state = host.state_dir();
    let told = host.cli(&[args, &["--state", state.to_str().unwrap()]].concat());
    assert_eq!(told.code(), 0, "{told}");
    told.stdout
}

/// The value is again what it was when the edit came, whatever the edit had dropped of it.
#[test]
fn rolling_back_brings_the_value_back_that_an_edit_has_dropped() {
    let workshop = Workshop::open("brought_back");
    let before = workshop.build(BEFORE, &[]);
    for (what, edits, said) in EDITS {
        let launch = Launch::new();
        launch.plugins().put_library("probe", &before);
        let host = launch.start();
        ask(&host, "/probe/hit");
        ask(&host, "/probe/hit");
        let shown = ask(&host, "/probe/show");
        assert!(shown.contains("text 2") && shown.contains("tag 1"), "{shown}");
        let after = workshop.build(&edited(edits), &[]);
        host.reload("probe", |plugins| plugins.put_library("probe", &after));
        ask(&host, "/probe/hit");
        assert_ne!(ask(&host, "/probe/show").replacen("v2", "v1", 1), shown, "{what}");
        for words in [tell(&host, &["registry"]), tell(&host, &["registry", "show", "state"])] {
            let is_told = words.contains(said)
                && words.contains("host rollback")
                && words.contains("probe generation 1");
            assert!(is_told, "{what}: {words}");
        }

        tell(&host, &["rollback", "probe"]);
        assert_eq!(ask(&host, "/probe/show"), shown, "{what}: {}", host.log());
        assert!(
            !tell(&host, &["registry"]).contains("host rollback"),
            "{what}: it is in use, and kept no more"
        );
        assert_eq!(ask(&host, "/probe/hit"), "3", "{what}");
        ask(&host, "/probe/show");
    }
}

/// An edit that is taken back by another edit is refused where nothing leads back, and the way is named.
#[test]
fn taking_back_an_edit_with_a_hook_is_refused_with_the_way_back() {
    let workshop = Workshop::open("taken_back");
    let launch = Launch::new();
    launch.plugins().put_library("probe", &workshop.build(BEFORE, &[]));
    let host = launch.start();
    ask(&host, "/probe/hit");
    let shown = ask(&host, "/probe/show");
    let (_, edits, _) = EDITS[1];
    host.reload("probe", |plugins| plugins.put_library("probe", &workshop.build(&edited(edits), &[])));
    let undone = workshop.build(&BEFORE.replacen("\"v1\"", "\"v1 again\"", 1), &[]);
    let told = host.refuse("probe", |plugins| plugins.put_library("probe", &undone));
    assert!(told.contains("`host rollback probe` brings it back"), "{told}");
    tell(&host, &["rollback", "probe"]);
    assert_eq!(ask(&host, "/probe/show"), shown);
    host.reload("probe", |plugins| plugins.put_library("probe", &[&undone[..], b" "].concat()));
    assert_eq!(ask(&host, "/probe/show"), shown.replacen("v1", "v1 again", 1));
}
