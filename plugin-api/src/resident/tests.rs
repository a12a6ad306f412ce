//! Layouts compared, and values taken from one layout to another, within one library.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use super::layout::{Field, Kind, Layout, Type, Variant, same};
use super::{TypeInfo, upgrade};
use crate::Resident;
use crate::abi::{ErrorSink, ErrorView, OldDataView, Status, StrView, UpgradeView};
use crate::sync::{Mutex, OnceCell, RwLock};

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

    thread_local! {
        pub(super) static FAILS: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
    }

    fn last() -> Counted {
        assert!(!FAILS.get(), "no default today");
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

/// Does what the host does to a value of the type `Old` that a generation expects to be a `New`.
///
/// The modules stand for generations, so the text of one is made to say the name of the other.
fn upgraded<Old: Resident, New: Resident>(value: Old) -> Result<Box<New>, (Box<Old>, String)> {
    unsafe extern "C" fn report(data: *mut std::ffi::c_void, error: *const ErrorView) {
        // SAFETY: `data` is the `String` below, and the error is valid for this call.
        unsafe {
            *data.cast::<String>() = String::from_utf8_lossy((*error).message.as_bytes()).into_owned();
        }
    }
    let info = TypeInfo::of::<Old>();
    let view = info.view(0);
    let text = info.layout.to_text().replace("::old::", "::new::");
    let value = Box::into_raw(Box::new(value));
    let old = OldDataView {
        size: size_of::<OldDataView>(),
        layout: StrView::new(&text),
        glue: view.glue,
        glue_count: view.glue_count,
        value: value.cast(),
    };
    let mut words = String::new();
    let sink = ErrorSink { data: (&raw mut words).cast(), report: Some(report) };
    let mut out = MaybeUninit::<UpgradeView>::uninit();
    // SAFETY: all views live until the call returns; nobody uses the value.
    match unsafe { upgrade::run::<New>(&old, out.as_mut_ptr(), &sink) } {
        Status::OK => {
            // SAFETY: `OK` says that it was written.
            let view = unsafe { out.assume_init() };
            let finish = view.finish.expect("an upgrade can be ended");
            // SAFETY: the only end of this upgrade, after which the value is a whole `New` in a block of its own.
            Ok(unsafe {
                finish(view.data, 1);
                Box::from_raw(view.value.cast::<New>())
            })
        }
        // SAFETY: a failed upgrade leaves the value as it was.
        _ => Err((unsafe { Box::from_raw(value) }, words)),
    }
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
    new::FAILS.set(true);
    let Err((old, words)) = upgraded::<_, new::All>(value) else { panic!("its last default panics") };
    new::FAILS.set(false);
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
        .chain([Type { name: "u8".into(), size: 1, align: 1, repr: String::new(), kind: Kind::Leaf }])
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
