//! Facts about upgrades of data whose author's code does what it must not be relied on not to do.
//!
//! Each case is a plugin before and after an edit, really built. Whatever becomes of the edit, what serves afterwards reads
//! values that are whole. `tests/memcheck` runs these, too, and finds what an answer does not show.

use std::process::Command;

use tests::host::{Launch, TestHost};
use tests::wait::{SOON, eventually};
use tests::workshop::Workshop;

const IMPORTS: &str = "#![forbid(unsafe_code)]\nuse plugin_api::prelude::*;\nuse plugin_api::sync::Mutex;\n\
                       use plugin_api::resident::Old;\nuse std::collections::*;\nuse std::hash::{Hash, Hasher};\n\
                       use std::sync::Arc;\nuse std::sync::atomic::{AtomicU64, Ordering};\n";

/// A host that serves `before`, with its values made by `GET path`; and what that answers.
fn serve(workshop: &Workshop, before: &str, path: &str) -> (TestHost, String) {
    let launch = Launch::new();
    launch.plugins().put_library("probe", &build(workshop, before));
    let host = launch.start();
    let shown = show(&host, path);
    (host, shown)
}

fn build(workshop: &Workshop, text: &str) -> Vec<u8> {
    workshop.build(&format!("{IMPORTS}{text}"), &[])
}

#[track_caller]
fn show(host: &TestHost, path: &str) -> String {
    let response = host.get(path);
    assert_eq!(response.status, 200, "{}\n{}", response.text(), host.log());
    response.text()
}

fn wait_log(host: &TestHost, words: &str) {
    eventually(SOON, words, || {
        let log = host.log();
        if log.contains(words) { Ok(()) } else { Err(log) }
    });
}

fn edit(text: &str, edits: &[(&str, &str)]) -> String {
    edits.iter().fold(text.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "`{from}` is not in the source");
        text.replacen(from, to, 1)
    })
}

const KEYS: &str = r#"
plugin! { routes: { GET "/" => show }, state: [S] }
#[derive(Resident)]
struct K { id: u32, note: Mutex<Option<String>>, shared: Arc<String> }
impl PartialEq for K { fn eq(&self, o: &K) -> bool { self.id == o.id } }
impl Eq for K {}
impl PartialOrd for K { fn partial_cmp(&self, o: &K) -> Option<std::cmp::Ordering> { Some(self.cmp(o)) } }
impl Ord for K { fn cmp(&self, o: &K) -> std::cmp::Ordering { self.id.cmp(&o.id) } }
impl Hash for K { fn hash<H: Hasher>(&self, h: &mut H) { self.id.hash(h) } }
#[derive(Resident)]
struct Row { n: u32, name: String }
#[derive(Resident)]
struct S1 {
    rows: Mutex<HashMap<K, Row>>, tree: Mutex<BTreeMap<K, Row>>, set: HashSet<Wide>, ordered: BTreeSet<Wide>,
}
#[derive(Resident)]
struct Wide(K);
impl PartialEq for Wide { fn eq(&self, o: &Wide) -> bool { self.0 == o.0 } }
impl Eq for Wide {}
impl PartialOrd for Wide { fn partial_cmp(&self, o: &Wide) -> Option<std::cmp::Ordering> { Some(self.cmp(o)) } }
impl Ord for Wide { fn cmp(&self, o: &Wide) -> std::cmp::Ordering { self.0.cmp(&o.0) } }
impl Hash for Wide { fn hash<H: Hasher>(&self, h: &mut H) { self.0.hash(h) } }
fn note(id: u32) -> String { format!("the note of key number {id:03} is this long text") }
fn key(id: u32) -> K { K { id, note: Mutex::new(Some(note(id))), shared: Arc::new(note(id)) } }
fn row(id: u32) -> Row { Row { n: id, name: note(id) } }
static S: registry::Lazy<S1> = registry::Lazy::new("rows", || Ok(S1 {
    rows: Mutex::new((0..100).map(|id| (key(id), row(id))).collect()),
    tree: Mutex::new((0..100).map(|id| (key(id), row(id))).collect()),
    set: (0..100).map(|id| Wide(key(id))).collect(),
    ordered: (0..100).map(|id| Wide(key(id))).collect(),
}));
fn show(_: &Request) -> Result<String> {
    let s = S.get()?;
    let noise: Vec<String> = (0..500).map(|i| format!("XXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXX{i}")).collect();
    let good = |k: &K| k.note.lock().as_deref() == Some(&note(k.id)) && *k.shared == note(k.id);
    let (rows, tree) = (s.rows.lock(), s.tree.lock());
    let row = |(k, r): (&K, &Row)| good(k) && r.n == k.id && r.name == note(k.id);
    Ok(format!("{} {} {} {} of {}", rows.iter().filter(|e| row(*e)).count(), tree.iter().filter(|e| row(*e)).count(),
        s.set.iter().filter(|k| good(&k.0)).count(), s.ordered.iter().filter(|k| good(&k.0)).count(), noise.len()))
}
"#;

/// What the keys' new code does, whatever it is asked, and the value has to be another one than before for it to be asked.
const WIDER: &[(&str, &str)] = &[
    ("struct Row { n: u32, name: String }", "struct Row { n: u32, name: String, more: Option<String> }"),
    ("struct Wide(K);", "struct Wide(K, #[resident(default)] u8);"),
    ("Row { n: id, name: note(id) }", "Row { n: id, name: note(id), more: None }"),
    ("set: (0..100).map(|id| Wide(key(id)))", "set: (0..100).map(|id| Wide(key(id), 0))"),
    ("ordered: (0..100).map(|id| Wide(key(id)))", "ordered: (0..100).map(|id| Wide(key(id), 0))"),
];

const TAKES: &str = "self.note.lock().take(); ";
const KEEPS: &str = "KEPT.lock().unwrap().push(self.shared.clone()); std::mem::forget(self.shared.clone()); ";
const KEPT: &str = "static KEPT: std::sync::Mutex<Vec<Arc<String>>> = std::sync::Mutex::new(Vec::new());\n";

/// The code of a candidate's keys takes what a key owns, keeps what it can, lies, and panics: then the edit is refused,
/// for that or by `check`, and the old code finds each key as it was.
#[test]
fn keys_of_a_refused_upgrade_are_as_they_were_whatever_their_code_did() {
    let workshop = Workshop::open("keys");
    let (host, shown) = serve(&workshop, KEYS, "/probe");
    assert_eq!(shown, "100 100 100 100 of 500");
    let refuses = (
        "state: [S] }",
        "state: [S], check: check }\nfn check() -> Result<()> { Err(Error::msg(\"not this one\")) }",
    );
    let in_hash = |what: &str| {
        edit(&edit(KEYS, WIDER), &[("{ self.id.hash(h) }", &format!("{{ {what}self.id.hash(h) }}"))])
    };
    let in_cmp = |what: &str| {
        edit(&edit(KEYS, WIDER), &[("{ self.id.cmp(&o.id) }", &format!("{{ {what}self.id.cmp(&o.id) }}"))])
    };
    let in_eq = |what: &str| {
        edit(&edit(KEYS, WIDER), &[("{ self.id == o.id }", what), ("{ self.id.hash(h) }", "{ 7.hash(h) }")])
    };
    let counter = "static N: AtomicU64 = AtomicU64::new(0);\n";
    let liar = format!("{{ {counter} N.fetch_add(1, Ordering::Relaxed) % 2 == 1 }}");
    let cases = [
        ("takes in hash", edit(&in_hash(TAKES), &[refuses]), "not this one"),
        ("takes in cmp", edit(&in_cmp(TAKES), &[refuses]), "not this one"),
        ("keeps", edit(&(in_hash(KEEPS) + KEPT), &[refuses]), "not this one"),
        ("contradicts itself", in_eq(&liar), "have become equal"),
        ("panics in hash", in_hash("if self.id == 50 { panic!(\"not fifty\") } "), "not fifty"),
        ("panics in cmp", in_cmp("if self.id == 50 { panic!(\"not fifty\") } "), "not fifty"),
        (
            "asks the registry",
            edit(&in_hash("let _ = S.get(); let _ = registry::remove(\"other\"); "), &[refuses]),
            "not this one",
        ),
    ];
    for (name, text, words) in cases {
        let library = build(&workshop, &text);
        let told = host.refuse("probe", |plugins| plugins.put_library("probe", &library));
        assert!(told.contains(words), "{name}: {told}");
        assert_eq!(show(&host, "/probe"), shown, "{name}");
    }
    // The same code where nothing refuses it: each entry is there, and what the new code took from its own keys is gone.
    let library = build(&workshop, &in_hash(KEEPS).replace("fn note(", &format!("{KEPT}fn note(")));
    host.reload("probe", |plugins| plugins.put_library("probe", &library));
    assert_eq!(show(&host, "/probe"), shown);
}

/// `Arc` in a key may be seen from elsewhere: a copy would be another value, so where its content can change it is refused.
#[test]
fn a_key_that_cannot_be_copied_refuses_the_edit_and_is_named() {
    let workshop = Workshop::open("uncopied");
    let before = r#"
plugin! { routes: { GET "/" => show }, state: [S] }
#[derive(Resident)]
struct K { id: u32, hits: Arc<AtomicU64> }
impl PartialEq for K { fn eq(&self, o: &K) -> bool { self.id == o.id } }
impl Eq for K {}
impl Hash for K { fn hash<H: Hasher>(&self, h: &mut H) { self.id.hash(h) } }
#[derive(Resident, Debug)]
struct Row { n: u32 }
#[derive(Resident)]
struct Rows { rows: Mutex<HashMap<K, Row>>, all: Arc<AtomicU64> }
static S: registry::Lazy<Rows> = registry::Lazy::new("rows", || {
    let all = Arc::new(AtomicU64::new(5));
    Ok(Rows { rows: Mutex::new(HashMap::from([(K { id: 1, hits: all.clone() }, Row { n: 1 })])), all })
});
fn show(_: &Request) -> Result<String> {
    let s = S.get()?;
    let rows = s.rows.lock();
    Ok(rows.iter().map(|(k, r)| format!("{} {:?} {}", k.hits.load(Ordering::Relaxed), r, Arc::ptr_eq(&k.hits, &s.all))).collect())
}
"#;
    let (host, shown) = serve(&workshop, before, "/probe");
    assert_eq!(shown, "5 Row { n: 1 } true");
    let after = edit(
        before,
        &[
            ("struct Row { n: u32 }", "struct Row { n: u32, more: u8 }"),
            ("Row { n: 1 }", "Row { n: 1, more: 0 }"),
            ("{ self.id.hash(h) }", "{ self.hits.store(9, Ordering::Relaxed); self.id.hash(h) }"),
        ],
    );
    let told = host.refuse("probe", |plugins| plugins.put_library("probe", &build(&workshop, &after)));
    assert!(told.contains("field `rows.hits`") && told.contains("`Arc<Atomic"), "{told}");
    assert_eq!(show(&host, "/probe"), shown);
}

/// A field takes the value of its own name where there is one, also if it says that it had another name once. Fit and
/// place agree: what fits by one field is not built from another.
#[test]
fn a_field_takes_the_value_of_its_own_name_before_that_of_a_former_one() {
    let workshop = Workshop::open("renames");
    let before = r#"
plugin! { routes: { GET "/item" => item, GET "/count" => count, GET "/tuple" => tuple, GET "/mode" => mode, GET "/boxed" => boxed } }
#[derive(Resident, Debug)]
struct Item { id: u64, #[resident(rename = "name")] title: String, name: String }
static I: registry::Lazy<Item> = registry::Lazy::new("item", || Ok(Item { id: 1, title: "The Title".into(), name: "the-name".into() }));
#[derive(Resident, Debug)]
struct Count { id: u64, #[resident(rename = "hits")] totals: Mutex<Vec<u64>>, hits: u64 }
static C: registry::Lazy<Count> = registry::Lazy::new("count", || Ok(Count { id: 1, totals: Mutex::new(vec![1, 2, 3]), hits: 3 }));
#[derive(Resident, Debug)]
struct Tuple(String, String);
static T: registry::Lazy<Tuple> = registry::Lazy::new("tuple", || Ok(Tuple("first".into(), "second".into())));
#[derive(Resident, Debug)]
enum Mode { New(Box<String>), Old(u64) }
static M: registry::Lazy<Mode> = registry::Lazy::new("mode", || Ok(Mode::Old(5)));
#[derive(Resident, Debug)]
struct Boxed { a: u8, name: Box<String>, old: u64 }
static B: registry::Lazy<Boxed> = registry::Lazy::new("boxed", || Ok(Boxed { a: 1, name: Box::new("ann".into()), old: 7 }));
fn item(_: &Request) -> Result<String> { Ok(format!("{:?}", *I.get()?)) }
fn count(_: &Request) -> Result<String> { Ok(format!("{:?}", *C.get()?)) }
fn tuple(_: &Request) -> Result<String> { Ok(format!("{:?}", *T.get()?)) }
fn mode(_: &Request) -> Result<String> { Ok(format!("{:?}", *M.get()?)) }
fn boxed(_: &Request) -> Result<String> { Ok(format!("{:?}", *B.get()?)) }
"#;
    let (host, shown) = serve(&workshop, before, "/probe/item");
    assert!(shown.contains("The Title"), "{shown}");
    for path in ["count", "tuple", "mode", "boxed"] {
        show(&host, &format!("/probe/{path}"));
    }
    let after = edit(
        before,
        &[
            ("title: String, name: String }", "title: String, name: String, more: u8 }"),
            ("name: \"the-name\".into() }", "name: String::new(), more: 9 }"),
            (
                "totals: Mutex<Vec<u64>>, hits: u64 }",
                "totals: Mutex<Vec<u64>>, #[resident(default)] hits: u64, more: u8 }",
            ),
            ("hits: 3 }", "hits: 3, more: 9 }"),
            ("struct Tuple(String, String);", "struct Tuple(#[resident(rename = \"1\")] String);"),
            ("Tuple(\"first\".into(), \"second\".into())", "Tuple(String::new())"),
            (
                "enum Mode { New(Box<String>), Old(u64) }",
                "enum Mode { #[resident(rename = \"Old\")] New(Box<String>) }",
            ),
            ("Ok(Mode::Old(5))", "Ok(Mode::New(Box::default()))"),
            ("name: Box<String>, old: u64 }", "#[resident(rename = \"old\")] name: Box<String> }"),
            (", old: 7 }", " }"),
        ],
    );
    host.reload("probe", |plugins| plugins.put_library("probe", &build(&workshop, &after)));
    assert_eq!(
        show(&host, "/probe/item"),
        "Item { id: 1, title: \"The Title\", name: \"the-name\", more: 0 }"
    );
    let count = show(&host, "/probe/count");
    assert!(count.contains("[1, 2, 3]") && count.contains("hits: 3, more: 0"), "{count}");
    assert_eq!(show(&host, "/probe/tuple"), "Tuple(\"first\")");
    assert_eq!(show(&host, "/probe/boxed"), "Boxed { a: 1, name: \"ann\" }");
    assert_eq!(host.get("/probe/mode").status, 503);
    // The log is written beside the answers.
    for words in [
        "field `0`: what was `u64` is `Box<String>` now",
        "has dropped Tuple.1: String",
        "has dropped Boxed.old: u64",
    ] {
        tests::wait::eventually(tests::wait::SOON, "the log to say it", || match host.log() {
            log if log.contains(words) => Ok(()),
            log => Err(format!("no `{words}` in {log}")),
        });
    }
}

/// A new part goes a million steps deep and the edit is refused: by `check`, or by a later default that panics.
#[test]
fn what_an_edit_made_goes_however_deep_it_is() {
    let workshop = Workshop::open("deepundo");
    let before = "plugin! { routes: { GET \"/\" => show }, state: [D1] }\n#[derive(Resident)]\nstruct D { a: u8 }\n\
                  static D1: registry::Lazy<D> = registry::Lazy::new(\"d\", || Ok(D { a: 1 }));\n\
                  fn show(_: &Request) -> Result<String> { Ok(format!(\"{}\", D1.get()?.a)) }\n";
    let (host, shown) = serve(&workshop, before, "/probe");
    let deep = edit(
        before,
        &[
            (
                "struct D { a: u8 }",
                "struct D { a: u8, chain: Chain, last: Last }\n#[derive(Resident)]\nstruct Link(u64, Option<Box<Link>>);\n\
          #[derive(Resident)]\nstruct Chain(Link);\nimpl Default for Chain { fn default() -> Chain {\n\
          Chain((0..1_000_000).fold(Link(0, None), |rest, n| Link(n, Some(Box::new(rest))))) } }\n\
          #[derive(Resident)]\nstruct Last(u8);\nimpl Default for Last { fn default() -> Last { LAST } }",
            ),
            ("|| Ok(D { a: 1 })", "|| Err(Error::msg(\"never\"))"),
        ],
    );
    let panics = deep.replace("{ LAST }", "{ panic!(\"no last one\") }");
    let refused = edit(
        &deep.replace("{ LAST }", "{ Last(0) }"),
        &[(
            "state: [D1] }",
            "state: [D1], check: check }\nfn check() -> Result<()> { Err(Error::msg(\"not this one\")) }",
        )],
    );
    for (text, words) in [(panics, "no last one"), (refused, "not this one")] {
        let told = host.refuse("probe", |plugins| plugins.put_library("probe", &build(&workshop, &text)));
        assert!(told.contains(words), "{told}");
        assert_eq!(show(&host, "/probe"), shown);
    }
}

/// A hook empties the locks and changes the atomics that it is shown, and then the edit is refused.
#[test]
fn hooks_change_copies() {
    let workshop = Workshop::open("hooked");
    let before = r#"
plugin! { routes: { GET "/" => show }, state: [S] }
#[derive(Resident, Debug)]
struct Part { names: Mutex<Vec<String>>, map: Mutex<HashMap<String, u32>> }
#[derive(Resident, Debug)]
struct Whole { hits: AtomicU64, part: Part, plain: Vec<String>, only: Arc<Mutex<String>> }
static S: registry::Lazy<Whole> = registry::Lazy::new("whole", || Ok(Whole {
    hits: 7.into(),
    part: Part { names: Mutex::new(vec!["ann".into(), "bob".into()]), map: Mutex::new(HashMap::from([("one".into(), 1)])) },
    plain: vec!["plain".into()],
    only: Arc::new(Mutex::new("only".into())),
}));
fn show(_: &Request) -> Result<String> { Ok(format!("{:?}", *S.get()?)) }
"#;
    let (host, shown) = serve(&workshop, before, "/probe");
    assert!(shown.contains("\"ann\", \"bob\"") && shown.contains("\"one\": 1"), "{shown}");
    let hooked = edit(
        before,
        &[
            (
                "#[derive(Resident, Debug)]\nstruct Whole { hits: AtomicU64",
                "#[derive(Resident, Debug)]\n#[resident(upgrade = up)]\nstruct Whole { hits: u64",
            ),
            ("hits: 7.into()", "hits: 7"),
            (
                "fn show(",
                r#"fn up(old: &Old) -> Result<Whole> {
    let hits = old.field::<AtomicU64>("hits")?;
    hits.fetch_add(100, Ordering::Relaxed);
    let part = old.field::<Part>("part")?;
    let names = std::mem::take(&mut *part.names.lock());
    let map = std::mem::take(&mut *part.map.lock());
    old.at("part")?.field::<Mutex<Vec<String>>>("names")?.lock().clear();
    let only = std::mem::take(&mut *old.field::<Arc<Mutex<String>>>("only")?.lock());
    END
    Ok(Whole { hits: hits.load(Ordering::Relaxed), part: Part { names: Mutex::new(names), map: Mutex::new(map) },
        plain: old.field::<Vec<String>>("plain")?.clone(), only: Arc::new(Mutex::new(only)) })
}
fn show("#,
            ),
        ],
    );
    let refused = [
        (hooked.replace("END", "return Err(Error::msg(\"not by me\"));"), "not by me"),
        (hooked.replace("END", "panic!(\"not by me either\");"), "not by me either"),
        (
            hooked.replace("END", "").replace(
                "state: [S] }",
                "state: [S], check: check }\nfn check() -> Result<()> { Err(Error::msg(\"not this one\")) }",
            ),
            "not this one",
        ),
    ];
    for (text, words) in refused {
        let text = text.replace("#![forbid", "#![allow(unreachable_code)]\n#![forbid");
        let told = host.refuse("probe", |plugins| plugins.put_library("probe", &build(&workshop, &text)));
        assert!(told.contains(words), "{told}");
        assert_eq!(show(&host, "/probe"), shown);
    }
    host.reload("probe", |plugins| {
        plugins.put_library("probe", &build(&workshop, &hooked.replace("END", "")))
    });
    assert_eq!(show(&host, "/probe"), shown.replace("hits: 7", "hits: 107"));
}

/// A default and a drop that ask for the very value which is being upgraded get an answer, and the edit ends.
#[test]
fn code_of_an_upgrade_may_ask_for_the_value_itself() {
    let workshop = Workshop::open("asking");
    let before = "plugin! { routes: { GET \"/\" => show }, state: [D1] }\n#[derive(Resident)]\nstruct D { a: u8, gone: Gone }\n\
                  static D1: registry::Lazy<D> = registry::Lazy::new(\"d\", || Ok(D { a: 1, gone: Gone(1) }));\n\
                  #[derive(Resident)]\nstruct Gone(u8);\n\
                  impl Drop for Gone { fn drop(&mut self) {\n    let d = D1.get().map(|d| d.a).map_err(|e| e.to_string());\n    \
                  tracing::info!(\"gone {} {}\", self.0, d.is_ok());\n} }\n\
                  fn show(_: &Request) -> Result<String> { Ok(format!(\"{}\", D1.get()?.a)) }\n";
    let (host, shown) = serve(&workshop, before, "/probe");
    let after = edit(
        before,
        &[
            (
                "gone: Gone }",
                "me: Me }\n#[derive(Resident)]\nstruct Me(String, Gone);\nimpl Default for Me { fn default() -> Me {\n    \
          let asked = D1.get().map(|d| d.a).map_err(|e| e.to_string());\n    \
          let removed = registry::remove(\"other\").map(|_| ()).map_err(|e| e.to_string());\n    \
          Me(format!(\"{} {}\", asked.is_ok(), removed.is_ok()), Gone(2))\n} }",
            ),
            ("gone: Gone(1) }", "me: Me(String::new(), Gone(3)) }"),
            ("D1.get()?.a)) }", "D1.get()?.a)) }\nfn me() -> Result<String> { Ok(D1.get()?.me.0.clone()) }"),
        ],
    );
    let after = after.replace(
        "fn show(_: &Request) -> Result<String> { Ok(format!(\"{}\", D1.get()?.a)) }",
        "fn show(_: &Request) -> Result<String> { Ok(format!(\"{} {}\", D1.get()?.a, me()?)) }",
    );
    let refused = edit(
        &after,
        &[(
            "state: [D1] }",
            "state: [D1], check: check }\nfn check() -> Result<()> { Err(Error::msg(\"not this one\")) }",
        )],
    );
    let told = host.refuse("probe", |plugins| plugins.put_library("probe", &build(&workshop, &refused)));
    assert!(told.contains("not this one"), "{told}");
    assert_eq!(show(&host, "/probe"), shown);
    // What the default had made is dropped, and its drop is told at once that this code is not to be.
    wait_log(&host, "gone 2 false");
    assert_eq!(show(&host, "/probe"), shown);
    host.reload("probe", |plugins| plugins.put_library("probe", &build(&workshop, &after)));
    assert!(show(&host, "/probe").starts_with("1 false "), "{}", host.log());
    wait_log(&host, "gone 1 ");
}

/// What an upgrade drops is said with its key, field and type: where it lies in lists, variants and nested types, too.
#[test]
fn what_an_upgrade_drops_is_said_by_name_and_type() {
    let workshop = Workshop::open("dropping");
    let before = r#"
plugin! { routes: { GET "/" => show }, state: [S] }
#[derive(Resident, Debug)]
struct Item { label: String, colour: Option<String> }
#[derive(Resident, Debug)]
enum Mode { Idle, Busy { since: u64, who: String } }
#[derive(Resident, Debug)]
struct Whole { items: Mutex<Vec<Item>>, mode: Mode, note: String, count: u32 }
static S: registry::Lazy<Whole> = registry::Lazy::new("whole", || Ok(Whole {
    items: Mutex::new(vec![Item { label: "a".into(), colour: None }, Item { label: "b".into(), colour: Some("red".into()) }]),
    mode: Mode::Busy { since: 9, who: "bob".into() }, note: "note".into(), count: 1,
}));
fn show(_: &Request) -> Result<String> { Ok(format!("{:?}", *S.get()?)) }
"#;
    let (host, _) = serve(&workshop, before, "/probe");
    let after = edit(
        before,
        &[
            ("label: String, colour: Option<String> }", "label: String }"),
            ("Busy { since: u64, who: String }", "Busy { since: u64 }"),
            ("note: String, count: u32 }", "count: u32 }"),
            ("label: \"a\".into(), colour: None }", "label: \"a\".into() }"),
            ("label: \"b\".into(), colour: Some(\"red\".into()) }", "label: \"b\".into() }"),
            ("Busy { since: 9, who: \"bob\".into() }, note: \"note\".into()", "Busy { since: 9 }"),
        ],
    );
    host.reload("probe", |plugins| plugins.put_library("probe", &build(&workshop, &after)));
    let dropped =
        ["Item.colour: Option<String> (in 2 values)", "Mode::Busy.who: String", "Whole.note: String"];
    let log = host.log();
    let told =
        log.lines().find(|line| line.contains("the upgrade has dropped")).unwrap_or_else(|| panic!("{log}"));
    let status = host.api("/api/plugins").to_string();
    for part in dropped {
        assert!(told.contains("WARN") && told.contains(part), "{part}: {told}");
        assert!(status.contains(&format!("`whole`: {part}")), "{part}: {status}");
    }
}

/// An attribute below the derive changes the type of a field after the derive has seen it: that does not compile, also
/// where a reference to the one type becomes one to the other by itself, and where a hook decides on upgrades.
#[test]
fn a_field_whose_type_an_attribute_changes_does_not_compile() {
    let workshop = Workshop::open("swapping").depend_on_macros(
        "use proc_macro::TokenStream;\n#[proc_macro_attribute]\npub fn with(attr: TokenStream, item: TokenStream) -> TokenStream {\n    \
         item.to_string().replace(\"u64\", &attr.to_string()).parse().unwrap()\n}\n",
    );
    let with = |definition: &str, value: &str| {
        format!(
            "{IMPORTS}plugin! {{ routes: {{}} }}\n{definition}\nfn up(_: &Old) -> Result<S> {{ Err(Error::msg(\"no\")) }}\n\
             static S1: registry::Lazy<S> = registry::Lazy::new(\"s\", || Ok({value}));\npub fn s() {{ let _ = S1.get(); up; }}\n"
        )
    };
    let hook = "#[resident(upgrade = up)]\n";
    for (item, value) in [
        ("enum S { A(u64) }", "S::A(FILL)"),
        ("enum S { A { a: u64 } }", "S::A { a: FILL }"),
        ("struct S { a: u64 }", "S { a: FILL }"),
        ("struct S(u64);", "S(FILL)"),
    ] {
        for hook in [hook, ""] {
            for (to, fill) in
                [("String", "String::new()"), ("Box<u64>", "Box::new(1)"), ("Arc<u64>", "Arc::new(1)")]
            {
                let text = with(
                    &format!("#[derive(Resident)]\n{hook}#[dependency::with({to})]\n{item}"),
                    &value.replace("FILL", fill),
                );
                let told = workshop.refuse(&text);
                assert!(told.contains("mismatched types"), "{item} {to}: {told}");
            }
        }
    }
    // The attribute by itself does no harm.
    let text =
        with(&format!("#[derive(Resident)]\n{hook}#[dependency::with(u64)]\nenum S {{ A(u64) }}"), "S::A(1)");
    workshop.build(&text, &[]);
}

/// A program of definitions by chance, as `tests/fuzz-upgrade` runs many: each end of an upgrade comes about, and nothing is
/// found. (The allocator overwrites what is freed, so that a use of it shows.)
#[test]
fn definitions_and_edits_by_chance_end_whole_or_undone() {
    let written = Command::new(env!("CARGO_BIN_EXE_fuzz-upgrade"))
        .arg("1")
        .output()
        .expect("it was built with this test");
    let text = String::from_utf8(written.stdout).expect("a program is text");
    let program = Workshop::open("fuzzed").program(&text);
    let run =
        Command::new(program).arg("40").env("MALLOC_PERTURB_", "165").output().expect("it was just built");
    let (said, found) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{said}{found}");
    for end in ["refused", "undone", "valid"] {
        assert!(said.contains(end), "no upgrade was {end}: {said}");
    }
}
