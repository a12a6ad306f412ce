//! Layouts compared, and values taken from one layout to another, within one library.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use super::layout::{Field, Kind, Layout, Type, Variant, same};
use super::{Empties, TypeInfo, settle};
use crate::Resident;
use crate::sync::{Mutex, OnceCell, RwLock};
use crate::testing::edit::{self, Built};

mod adversary;
mod fields;
mod given_up;

/// How many of these there are, so that one dropped twice or never shows.
#[derive(Resident, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Counted(String);

static ALIVE: AtomicI64 = AtomicI64::new(0);
/// The tests that count take turns.
static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());

impl Counted {
    fn new(text: &str) -> Counted {
        ALIVE.fetch_add(1, Ordering::Relaxed);
        Counted(text.to_owned())
    }
}

impl Default for Counted {
    fn default() -> Counted {
        Counted::new("default")
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        ALIVE.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Definitions as they were.
mod old {
    use super::*;

    #[derive(Resident)]
    pub(super) struct Item {
        pub(super) kept: Counted,
        pub(super) gone: Counted,
    }

    #[derive(Resident)]
    pub(super) enum Mode {
        Idle,
        Busy(Item, u8),
    }

    #[derive(Resident)]
    pub(super) struct Tree {
        pub(super) here: Item,
        pub(super) below: Vec<Tree>,
    }

    #[derive(Resident, PartialEq, Eq, Hash, PartialOrd, Ord)]
    pub(super) struct Name {
        pub(super) words: Vec<Option<Box<Word>>>,
        pub(super) gone: Counted,
    }

    #[derive(Resident, PartialEq, Eq, Hash, PartialOrd, Ord)]
    pub(super) struct Word(pub(super) Counted, pub(super) Counted);

    #[derive(Resident)]
    pub(super) struct All {
        pub(super) list: Vec<Item>,
        pub(super) ring: VecDeque<Item>,
        pub(super) map: HashMap<Counted, Item>,
        pub(super) tree: BTreeMap<Counted, Item>,
        pub(super) set: HashSet<Counted>,
        pub(super) boxed: Box<Item>,
        pub(super) shared: Arc<Item>,
        pub(super) array: [Item; 2],
        pub(super) pair: (Item, u8),
        pub(super) some: Option<Item>,
        pub(super) none: Option<Item>,
        pub(super) result: Result<u8, Item>,
        pub(super) lock: Mutex<Item>,
        pub(super) rwlock: RwLock<Item>,
        pub(super) cell: OnceCell<Item>,
        pub(super) mode: Mode,
        pub(super) idle: Mode,
        pub(super) nested: Tree,
    }
}

/// The same after an edit of `Item`, and of what is called what.
mod new {
    use super::*;

    #[derive(Resident, Debug)]
    pub(super) struct Item {
        #[resident(dropped = "gone")]
        pub(super) added: Counted,
        pub(super) kept: Counted,
    }

    #[derive(Resident, Debug)]
    pub(super) enum Mode {
        Paused,
        #[resident(rename = "Busy")]
        Working(Item, u8, Counted),
        Idle,
    }

    #[derive(Resident, Debug)]
    pub(super) struct Tree {
        pub(super) below: Vec<Tree>,
        pub(super) here: Item,
    }

    #[derive(Resident, PartialEq, Eq, Hash, PartialOrd, Ord)]
    pub(super) struct Name {
        pub(super) added: u8,
        pub(super) words: Vec<Option<Box<Word>>>,
    }

    #[derive(Resident, PartialEq, Eq, Hash, PartialOrd, Ord)]
    pub(super) struct Word(pub(super) Counted);

    #[derive(Resident)]
    pub(super) struct All {
        pub(super) list: Vec<Item>,
        pub(super) ring: VecDeque<Item>,
        pub(super) map: HashMap<Counted, Item>,
        pub(super) tree: BTreeMap<Counted, Item>,
        pub(super) set: HashSet<Counted>,
        pub(super) boxed: Box<Item>,
        pub(super) shared: Arc<Item>,
        pub(super) array: [Item; 2],
        pub(super) pair: (Item, u8),
        pub(super) some: Option<Item>,
        pub(super) none: Option<Item>,
        pub(super) result: Result<u8, Item>,
        pub(super) lock: Mutex<Item>,
        pub(super) rwlock: RwLock<Item>,
        pub(super) cell: OnceCell<Item>,
        pub(super) mode: Mode,
        pub(super) idle: Mode,
        pub(super) nested: Tree,
        /// Is reached last, when everything else has been built.
        #[resident(default = last())]
        pub(super) last: Counted,
    }

    pub(super) static FAILS: AtomicBool = AtomicBool::new(false);

    fn last() -> Counted {
        assert!(!FAILS.load(Ordering::Relaxed), "no default today");
        Counted::default()
    }
}

fn item(name: &str) -> old::Item {
    old::Item { kept: Counted::new(name), gone: Counted::new("gone") }
}

fn all() -> old::All {
    let cell = OnceCell::new();
    assert!(cell.set(item("cell")).is_ok());
    let leaf = |name| old::Tree { here: item(name), below: Vec::new() };
    old::All {
        list: vec![item("list 1"), item("list 2")],
        ring: VecDeque::from([item("ring")]),
        map: HashMap::from([(Counted::new("a"), item("map a")), (Counted::new("b"), item("map b"))]),
        tree: BTreeMap::from([(Counted::new("a"), item("tree"))]),
        set: HashSet::from([Counted::new("member")]),
        boxed: Box::new(item("boxed")),
        shared: Arc::new(item("shared")),
        array: [item("array 1"), item("array 2")],
        pair: (item("pair"), 7),
        some: Some(item("some")),
        none: None,
        result: Err(item("err")),
        lock: Mutex::new(item("lock")),
        rwlock: RwLock::new(item("rwlock")),
        cell,
        mode: old::Mode::Busy(item("busy"), 9),
        idle: old::Mode::Idle,
        nested: old::Tree { here: item("root"), below: vec![leaf("left"), leaf("right")] },
    }
}

/// Builds what a value of a type in `old` becomes as one of `new`: the modules stand for generations.
fn build<Old: Resident + Send + Sync, New: Resident + Send + Sync>(
    value: Old,
) -> Result<Built<Old, New>, (Box<Old>, String)> {
    // SAFETY: types that are described alike have the same values here; nothing is unchecked in them.
    unsafe { edit::build(value, ("::old::", "::new::")) }
}

/// The same, made valid at once.
fn upgraded<Old: Resident + Send + Sync, New: Resident + Send + Sync>(
    value: Old,
) -> Result<Box<New>, (Box<Old>, String)> {
    build(value).map(Built::commit)
}

#[test]
fn every_container_takes_its_parts_along_and_nothing_is_dropped_twice_or_never() {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let before = ALIVE.load(Ordering::Relaxed);
    let Ok(new) = upgraded::<_, new::All>(all()) else { panic!("it fits") };
    assert_eq!(new.list.iter().map(|item| &*item.kept.0).collect::<Vec<_>>(), ["list 1", "list 2"]);
    assert_eq!(new.ring[0].kept.0, "ring");
    assert_eq!(new.map[&Counted::new("b")].kept.0, "map b");
    assert_eq!(new.tree[&Counted::new("a")].kept.0, "tree");
    assert!(new.set.contains(&Counted::new("member")));
    assert_eq!(
        [&*new.boxed.kept.0, &new.shared.kept.0, &new.array[1].kept.0],
        ["boxed", "shared", "array 2"]
    );
    assert_eq!((&*new.pair.0.kept.0, new.pair.1), ("pair", 7));
    assert!(matches!(&new.some, Some(item) if item.kept.0 == "some") && new.none.is_none());
    assert!(matches!(&new.result, Err(item) if item.kept.0 == "err"));
    assert_eq!((&*new.lock.lock().kept.0, &*new.rwlock.read().added.0), ("lock", "default"));
    assert!(matches!(new.cell.get(), Some(item) if item.kept.0 == "cell"));
    assert!(matches!(&new.mode, new::Mode::Working(item, 9, _) if item.kept.0 == "busy"));
    assert!(matches!(&new.idle, new::Mode::Idle));
    assert_eq!(new.nested.below[1].here.kept.0, "right");
    drop(new);
    assert_eq!(ALIVE.load(Ordering::Relaxed), before);
}

#[test]
fn upgrade_that_fails_at_the_last_field_leaves_the_value_as_it_was() {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let before = ALIVE.load(Ordering::Relaxed);
    let value = all();
    let made = ALIVE.load(Ordering::Relaxed);
    new::FAILS.store(true, Ordering::Relaxed);
    let Err((old, words)) = upgraded::<_, new::All>(value) else { panic!("its last default panics") };
    new::FAILS.store(false, Ordering::Relaxed);
    assert!(words.contains("no default today"), "{words}");
    assert_eq!(
        ALIVE.load(Ordering::Relaxed),
        made,
        "what was made for the upgrade is gone, and nothing else"
    );
    assert_eq!(old.map[&Counted("b".to_owned())].kept.0, "map b");
    ALIVE.fetch_add(1, Ordering::Relaxed);
    drop(old);
    assert_eq!(ALIVE.load(Ordering::Relaxed), before);
}

#[test]
fn shared_parts_are_not_split() {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let first = Arc::new(item("shared"));
    let second = Arc::clone(&first);
    let Err((old, words)) = upgraded::<_, Vec<Arc<new::Item>>>(vec![first]) else {
        panic!("it has two owners")
    };
    assert!(words.contains("more than one owner"), "{words}");
    assert!(Arc::ptr_eq(&old[0], &second));
}

/// Keys are lent by their maps for reading only. (Miri tells whether more is done to them where they are.)
#[test]
fn keys_that_changed_are_taken_along() {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let before = ALIVE.load(Ordering::Relaxed);
    let name = |text: &str| old::Name {
        words: vec![Some(Box::new(old::Word(Counted::new(text), Counted::new("gone")))), None],
        gone: Counted::new("gone"),
    };
    let maps = |texts: &[&str]| {
        let entries = || texts.iter().map(|text| (name(text), Counted::new(text)));
        let (hashed, ordered): (HashMap<_, _>, BTreeMap<_, _>) = (entries().collect(), entries().collect());
        let (set, tree): (HashSet<_>, std::collections::BTreeSet<_>) =
            (texts.iter().map(|text| name(text)).collect(), texts.iter().map(|text| name(text)).collect());
        (hashed, ordered, set, tree)
    };
    type New = (
        HashMap<new::Name, Counted>,
        BTreeMap<new::Name, Counted>,
        HashSet<new::Name>,
        std::collections::BTreeSet<new::Name>,
    );
    let Ok(new) = upgraded::<_, New>(maps(&["a", "b", "c"])) else { panic!("they fit") };
    let key =
        |text: &str| new::Name { added: 0, words: vec![Some(Box::new(new::Word(Counted::new(text)))), None] };
    for text in ["a", "b", "c"] {
        assert_eq!((&*new.0[&key(text)].0, &*new.1[&key(text)].0), (text, text));
        assert!(new.2.contains(&key(text)) && new.3.contains(&key(text)));
    }
    drop(new);
    assert_eq!(ALIVE.load(Ordering::Relaxed), before);
    // What was told apart by a field that is gone is not any more: then nothing has changed.
    let twins = [
        old::Name { gone: Counted::new("one"), ..name("a") },
        old::Name { gone: Counted::new("two"), ..name("a") },
    ];
    let made = ALIVE.load(Ordering::Relaxed);
    let Err((old, words)) = upgraded::<_, HashSet<new::Name>>(HashSet::from(twins)) else {
        panic!("two are one")
    };
    assert!(words.contains("two keys of a `HashSet<Name>` have become equal"), "{words}");
    assert_eq!((ALIVE.load(Ordering::Relaxed), old.len()), (made, 2));
    drop(old);
    assert_eq!(ALIVE.load(Ordering::Relaxed), before);
}

/// Lists as some write them: each link is a step down.
mod links {
    #[derive(crate::Resident)]
    pub(super) struct Link<T: super::Resident>(pub(super) T, pub(super) Option<Box<Link<T>>>);
}

/// How long a list is.
const LINKS: u32 = if cfg!(miri) { 100 } else { 20_000 };

fn list<T: Resident>(make: impl Fn(u32) -> T) -> links::Link<T> {
    (1..LINKS)
        .fold(links::Link(make(0), None), |rest, number| links::Link(make(number), Some(Box::new(rest))))
}

/// Taken apart link by link: its drop would go down the list by calls.
fn numbers<T: Resident>(list: links::Link<T>, number: impl Fn(T) -> u32) -> Vec<u32> {
    let mut next = Some(Box::new(list));
    let mut found = Vec::new();
    while let Some(link) = next {
        found.push(number(link.0));
        next = link.1;
    }
    found
}

#[test]
fn long_list_is_taken_along_link_by_link() {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let before = ALIVE.load(Ordering::Relaxed);
    let old =
        list(|number| old::Item { kept: Counted::new(&number.to_string()), gone: Counted::new("gone") });
    let Ok(new) = upgraded::<_, links::Link<new::Item>>(old) else { panic!("it fits") };
    let found = numbers(*new, |item| item.kept.0.parse().unwrap());
    assert!(found.into_iter().eq((0..LINKS).rev()));
    assert_eq!(ALIVE.load(Ordering::Relaxed), before);
}

#[test]
fn long_list_is_settled_link_by_link() {
    let mut list = list(|_| HashMap::<u8, u32>::new());
    settle(&mut list, Empties::Nowhere);
    let rooms = numbers(list, |map| u32::try_from(map.capacity().min(1)).unwrap());
    assert_eq!(rooms, vec![1; LINKS as usize]);
}

#[test]
fn types_that_contain_themselves_are_known() {
    assert!(TypeInfo::of::<links::Link<u8>>().layout.is_recursive());
    assert!(TypeInfo::of::<Vec<old::Tree>>().layout.is_recursive());
    assert!(!TypeInfo::of::<(old::Item, Vec<Box<old::Item>>)>().layout.is_recursive());
}

/// A small generator: the same numbers every time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % end as u64).expect("below a usize")
    }
}

/// A layout with a struct over structs, enums, containers and leaves.
fn any_layout(numbers: &mut Numbers) -> Layout {
    let count = 2 + numbers.below(6);
    let ty = |number: usize, kind| Type {
        name: format!("shop::T{number}"),
        size: 64,
        align: 8,
        repr: String::new(),
        before: Vec::new(),
        kind,
    };
    let types = (0..count)
        .map(|number| {
            let mut inner = || (number + 1 + numbers.below(count)).min(count);
            let kind = match number % 4 {
                0 => Kind::Struct(
                    (0..3).map(|i| Field { name: format!("f{i}"), offset: 0, ty: inner() }).collect(),
                ),
                1 => Kind::Enum(
                    (0..2)
                        .map(|i| Variant {
                            name: format!("V{i}"),
                            discriminant: i,
                            parts: vec![("0".into(), inner())],
                        })
                        .collect(),
                ),
                2 => Kind::Container(vec![inner(), inner()]),
                _ => Kind::Leaf,
            };
            ty(number, kind)
        })
        .chain([Type {
            name: "u8".into(),
            size: 1,
            align: 1,
            repr: String::new(),
            before: Vec::new(),
            kind: Kind::Leaf,
        }])
        .collect();
    Layout { compiler: "rustc 1".into(), types }
}

/// Changes one thing about one type; the type changed.
fn mutate(layout: &mut Layout, numbers: &mut Numbers) -> usize {
    let number = numbers.below(layout.types.len());
    let what = numbers.below(4);
    let ty = &mut layout.types[number];
    match (&mut ty.kind, what) {
        (Kind::Struct(fields), 0) => fields[1].name.push('x'),
        (Kind::Struct(fields), 1) => fields[2].offset += 8,
        (Kind::Struct(fields), 2) => drop(fields.pop()),
        (Kind::Struct(fields), _) => fields.swap(0, 1),
        (Kind::Enum(variants), 0) => variants[0].name.push('x'),
        (Kind::Enum(variants), 1) => variants[1].discriminant += 1,
        (Kind::Enum(variants), 2) => variants.swap(0, 1),
        (Kind::Enum(variants), _) => variants[0].parts[0].0.push('x'),
        (_, 0) => ty.size += 8,
        (_, 1) => ty.align *= 2,
        (_, 2) => ty.repr.push('C'),
        (_, _) => ty.name.push('x'),
    }
    number
}

/// Whether type 0 contains type `number`.
fn reaches(layout: &Layout, number: usize) -> bool {
    let mut seen = HashSet::new();
    let mut open = vec![0];
    while let Some(at) = open.pop() {
        if seen.insert(at) {
            match &layout.types[at].kind {
                Kind::Leaf => {}
                Kind::Struct(fields) => open.extend(fields.iter().map(|field| field.ty)),
                Kind::Enum(variants) => {
                    open.extend(variants.iter().flat_map(|v| &v.parts).map(|part| part.1))
                }
                Kind::Container(params) => open.extend(params),
            }
        }
    }
    seen.contains(&number)
}

/// Every change of a type that the value contains is seen, and nothing else is.
#[test]
fn a_changed_definition_has_another_text_and_an_unchanged_one_the_same() {
    let mut numbers = Numbers(0x2545_f491_4f6c_dd1d);
    let mut seen = [0; 2];
    // Under Miri each takes seconds.
    let rounds = if cfg!(miri) { 2 } else { 5_000 };
    for _ in 0..rounds {
        let layout = any_layout(&mut numbers);
        assert_eq!(Layout::parse(&layout.to_text()).as_ref(), Some(&layout));
        assert!(same(&layout, 0, &layout.clone(), 0));
        let mut other = layout.clone();
        let changed = mutate(&mut other, &mut numbers);
        let is_part = reaches(&layout, changed) || reaches(&other, changed);
        assert_ne!(layout.to_text(), other.to_text());
        assert_eq!(same(&layout, 0, &other, 0), !is_part, "{layout:#?}\n{other:#?}");
        assert!(!layout.difference(&other).is_empty());
        seen[usize::from(is_part)] += 1;
    }
    assert!(
        cfg!(miri) || seen.iter().all(|count| *count > rounds / 10),
        "the mutations are one-sided: {seen:?}"
    );
}

/// A text that was cut off or tampered with is refused, or is another layout that is closed in itself.
#[test]
fn a_damaged_text_is_never_read_beyond_its_types() {
    let text = TypeInfo::of::<old::All>().layout.to_text();
    assert!(Layout::parse(&text).is_some());
    for cut in (0..text.len()).step_by(if cfg!(miri) { 997 } else { 1 }) {
        if let Some(layout) = Layout::parse(&text[..cut]) {
            assert_eq!(Layout::parse(&layout.to_text()), Some(layout));
        }
    }
    assert_eq!(Layout::parse(&text.replacen("field 0 1 ", "field 0 100000 ", 1)), None);
    assert_eq!(Layout::parse(&text.replacen("resident 1", "resident 2", 1)), None);
}

/// Private fields of this crate's own types are in no layout: its version is, and a compiler without a name is none.
#[test]
fn a_text_names_the_compiler_and_this_crate() {
    let layout = &TypeInfo::of::<old::All>().layout;
    let version = format!(" plugin-api {} ", env!("CARGO_PKG_VERSION"));
    assert!(
        layout.compiler.starts_with("rustc ") && layout.compiler.contains(&version),
        "{}",
        layout.compiler
    );
    let number = layout.compiler.rsplit(' ').next().unwrap();
    assert!(number.len() == 16 && u64::from_str_radix(number, 16).is_ok_and(|n| n != 0), "{number}");
    let nameless = layout.to_text().replacen("compiler rustc", "compiler ", 1);
    assert_eq!(Layout::parse(&nameless), None);
    let other =
        Layout { compiler: layout.compiler.replacen(&version, " plugin-api 0.0.1 ", 1), ..layout.clone() };
    assert!(!same(&other, 0, layout, 0));
    assert!(other.difference(layout).contains("plugin-api 0.0.1"), "{}", other.difference(layout));
}

/// `repr` moves the parts of an enum without changing its size: the text says it, and the value is rebuilt.
#[test]
fn a_representation_is_part_of_the_layout() {
    #[derive(Debug, PartialEq)]
    enum Told {
        Bit(bool),
        Word(u32),
    }
    mod old {
        #[derive(crate::Resident)]
        pub(super) enum Packet {
            Bit(bool),
            Word(u32),
        }
    }
    mod new {
        #[derive(crate::Resident)]
        #[repr(C)]
        pub(super) enum Packet {
            Bit(bool),
            Word(u32),
        }
    }
    let (was, is) = (&TypeInfo::of::<old::Packet>().layout, &TypeInfo::of::<new::Packet>().layout);
    assert_eq!((was.types[0].size, was.types[0].align), (is.types[0].size, is.types[0].align));
    let renamed = Layout::parse(&was.to_text().replace("::old::", "::new::")).unwrap();
    assert!(!same(&renamed, 0, is, 0));
    assert_eq!(renamed.difference(is), "`Packet` was `repr()` and is `repr(C)`");

    let values = vec![old::Packet::Bit(true), old::Packet::Word(7), old::Packet::Bit(false)];
    let Ok(values) = upgraded::<_, Vec<new::Packet>>(values) else { panic!("it fits") };
    let told: Vec<Told> = values
        .iter()
        .map(|packet| match packet {
            new::Packet::Bit(bit) => Told::Bit(*bit),
            new::Packet::Word(word) => Told::Word(*word),
        })
        .collect();
    assert_eq!(told, [Told::Bit(true), Told::Word(7), Told::Bit(false)]);
}
