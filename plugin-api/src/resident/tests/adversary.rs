//! Upgrades of values whose author's code does whatever checked code can: it takes what it sees through locks, keeps what it
//! can clone, contradicts itself, panics, and asks the registry.
//!
//! Whatever it does, an upgrade that is refused or undone leaves the old value as it was, and one that is made valid has every
//! entry. Tokens that are dropped twice or never are counted. Miri finds what that does not show. (`tests/fuzz-upgrade` does
//! the same with types by chance, under AddressSanitizer.)
#![expect(
    clippy::box_collection,
    clippy::vec_box,
    clippy::redundant_allocation,
    reason = "blocks within blocks are what goes wrong"
)]

use std::cell::{Cell, RefCell};
use std::cmp::Ordering as Order;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::{Numbers, build};
use crate::Resident;
use crate::error::{Error, Result};
use crate::resident::Old;
use crate::sync::{Mutex, OnceCell};
use crate::testing::edit::Built;

/// What the author's code does, while it is armed.
struct Script {
    numbers: Numbers,
    is_armed: bool,
    /// One of so many calls panics.
    panics: usize,
    /// One of so many answers is another.
    lies: usize,
}

thread_local! {
    static SCRIPT: RefCell<Script> =
        const { RefCell::new(Script { numbers: Numbers(1), is_armed: false, panics: 1, lies: 1 }) };
    static KEPT: RefCell<Vec<Arc<String>>> = const { RefCell::new(Vec::new()) };
    static WEAK: RefCell<Vec<std::sync::Weak<String>>> = const { RefCell::new(Vec::new()) };
    static TOKENS: Cell<i64> = const { Cell::new(0) };
}

/// A number by chance, or the end of the range where nothing is to happen.
fn chance(end: impl Fn(&Script) -> usize) -> usize {
    SCRIPT.with_borrow_mut(|script| {
        let end = end(script);
        if script.is_armed { script.numbers.below(end) } else { end }
    })
}

/// Dropped as often as it was made.
#[derive(Resident, Debug)]
struct Token(u8);

impl Token {
    fn new(number: u8) -> Token {
        TOKENS.set(TOKENS.get() + 1);
        Token(number)
    }
}

impl Default for Token {
    fn default() -> Token {
        mischief(None);
        Token::new(200)
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        TOKENS.set(TOKENS.get() - 1);
        // Not while another panics: that would end the process, as anywhere.
        if !std::thread::panicking() && chance(|script| script.panics) == 0 {
            panic!("a drop panics");
        }
    }
}

/// What a key is made of.
#[derive(Resident, Debug)]
struct Inside {
    note: Mutex<Option<String>>,
    cell: OnceCell<Box<String>>,
    shared: Arc<String>,
    words: Vec<Box<String>>,
}

impl Inside {
    fn new(id: u8) -> Inside {
        let text = format!("key number {id}");
        Inside {
            note: Mutex::new(Some(text.clone())),
            cell: OnceCell::new(),
            shared: Arc::new(text.clone()),
            words: vec![Box::new(text)],
        }
    }
}

/// Does one thing by chance to what is lent.
fn mischief(lent: Option<&Inside>) {
    if chance(|script| script.panics) == 0 {
        panic!("by chance");
    }
    let what = chance(|_| 12);
    if let Some(inside) = lent {
        match what {
            0 => drop(inside.note.lock().take()),
            1 => *inside.note.lock() = Some("put in the place".to_owned()),
            2 => drop(inside.note.lock().as_mut().map(|text| text.push_str(" and longer, so that it moves"))),
            3 => drop(inside.cell.set(Box::new("filled".to_owned()))),
            4 => KEPT.with_borrow_mut(|kept| kept.push(Arc::clone(&inside.shared))),
            5 => WEAK.with_borrow_mut(|weak| weak.push(Arc::downgrade(&inside.shared))),
            6 => KEPT.with_borrow_mut(Vec::clear),
            7 => drop(inside.words.clone()),
            _ => {}
        }
    }
    if what == 8 {
        // There is no host here: it is an error, as it may be anywhere.
        let _ = crate::registry::remove("other");
    }
}

/// The code of a key, of the one definition and of the other.
macro_rules! key {
    ($key:ty) => {
        impl PartialEq for $key {
            fn eq(&self, other: &$key) -> bool {
                mischief(Some(&self.inside));
                (self.id == other.id) != (chance(|script| script.lies) == 0)
            }
        }
        impl Eq for $key {}
        impl PartialOrd for $key {
            fn partial_cmp(&self, other: &$key) -> Option<Order> {
                Some(self.cmp(other))
            }
        }
        impl Ord for $key {
            fn cmp(&self, other: &$key) -> Order {
                mischief(Some(&other.inside));
                match chance(|script| script.lies) {
                    0 => self.id.cmp(&other.id).reverse(),
                    1 => Order::Equal,
                    _ => self.id.cmp(&other.id),
                }
            }
        }
        impl Hash for $key {
            fn hash<H: Hasher>(&self, state: &mut H) {
                mischief(Some(&self.inside));
                // Few hashes, so that there is much to compare.
                (usize::from(self.id % 2) + chance(|script| script.lies) / 8).hash(state);
            }
        }
    };
}

/// As it was.
mod old {
    use super::*;

    #[derive(Resident, Debug)]
    pub(super) struct Key {
        pub(super) id: u8,
        pub(super) inside: Inside,
        pub(super) gone: Box<u8>,
    }
    key!(Key);

    #[derive(Resident, Debug)]
    pub(super) struct Row {
        pub(super) kept: Token,
        pub(super) gone: Token,
        pub(super) boxed: Box<Token>,
    }

    #[derive(Resident, Debug)]
    pub(super) enum Mode {
        Idle,
        Busy(Token, Mutex<Vec<Row>>),
    }

    #[derive(Resident, Debug)]
    pub(super) struct Hooked {
        pub(super) names: Mutex<Vec<String>>,
        pub(super) inside: Inside,
        pub(super) token: Token,
    }

    #[derive(Resident, Debug)]
    pub(super) struct All {
        pub(super) rows: Mutex<HashMap<Key, Row>>,
        pub(super) tree: BTreeMap<Key, Row>,
        pub(super) set: HashSet<Key>,
        pub(super) ordered: BTreeSet<Key>,
        pub(super) modes: Vec<Mode>,
        pub(super) hooked: Vec<Hooked>,
        pub(super) same: HashMap<String, Arc<Row>>,
        pub(super) gone: Token,
    }
}

/// After an edit.
mod new {
    use super::*;

    #[derive(Resident, Debug)]
    pub(super) struct Key {
        #[resident(default = { mischief(None); Box::new(Box::new(1)) })]
        pub(super) added: Box<Box<u8>>,
        pub(super) inside: Inside,
        pub(super) id: u8,
    }
    key!(Key);

    #[derive(Resident, Debug)]
    #[resident(dropped = "gone")]
    pub(super) struct Row {
        pub(super) boxed: Box<Token>,
        pub(super) added: Token,
        pub(super) kept: Token,
        pub(super) more: Box<Token>,
    }

    #[derive(Resident, Debug)]
    pub(super) enum Mode {
        #[resident(rename = "Busy")]
        Working(Token, Mutex<Vec<Row>>, Option<Token>),
        Idle,
    }

    #[derive(Resident, Debug)]
    #[resident(upgrade = hook)]
    pub(super) struct Hooked {
        pub(super) names: Vec<String>,
        pub(super) shared: Arc<String>,
        pub(super) token: Token,
    }

    fn hook(old: &Old<'_>) -> Result<Hooked> {
        let inside = old.field::<Inside>("inside")?;
        mischief(Some(inside));
        let names = old.field::<Mutex<Vec<String>>>("names")?;
        let names =
            if chance(|_| 2) == 0 { std::mem::take(&mut *names.lock()) } else { names.lock().clone() };
        mischief(Some(inside));
        if chance(|script| script.panics) == 0 {
            return Err(Error::msg("by chance"));
        }
        let number = old.field::<Token>("token")?.0;
        Ok(Hooked { names, shared: Arc::clone(&inside.shared), token: Token::new(number) })
    }

    #[derive(Resident, Debug)]
    #[resident(dropped = "gone")]
    pub(super) struct All {
        pub(super) hooked: Vec<Hooked>,
        pub(super) rows: Mutex<HashMap<Key, Row>>,
        pub(super) same: HashMap<String, Arc<Row>>,
        pub(super) tree: BTreeMap<Key, Row>,
        pub(super) set: HashSet<Key>,
        pub(super) ordered: BTreeSet<Key>,
        pub(super) modes: Vec<Mode>,
        pub(super) last: Token,
    }
}

fn row(number: u8) -> old::Row {
    old::Row { kept: Token::new(number), gone: Token::new(number), boxed: Box::new(Token::new(number)) }
}

fn key(id: u8) -> old::Key {
    old::Key { id, inside: Inside::new(id), gone: Box::new(id) }
}

fn all(keys: u8) -> old::All {
    let hooked = |id| old::Hooked {
        names: Mutex::new(vec![format!("name {id}")]),
        inside: Inside::new(id),
        token: Token::new(id),
    };
    old::All {
        rows: Mutex::new((0..keys).map(|id| (key(id), row(id))).collect()),
        tree: (0..keys).map(|id| (key(id), row(id))).collect(),
        set: (0..keys).map(key).collect(),
        ordered: (0..keys).map(key).collect(),
        modes: vec![old::Mode::Idle, old::Mode::Busy(Token::new(1), Mutex::new(vec![row(2)]))],
        hooked: (0..2).map(hooked).collect(),
        same: HashMap::from([("one".to_owned(), Arc::new(row(3)))]),
        gone: Token::new(4),
    }
}

fn arm(is_armed: bool) {
    SCRIPT.with_borrow_mut(|script| script.is_armed = is_armed);
}

/// Numbers of the entries that a value must have, whatever their order.
fn entries(new: &new::All) -> Vec<Vec<u8>> {
    let rows = new.rows.lock();
    let mut entries = vec![
        rows.iter().map(|(key, row)| if key.id == row.kept.0 { key.id } else { u8::MAX }).collect(),
        new.tree.iter().map(|(key, row)| if key.id == row.boxed.0 { key.id } else { u8::MAX }).collect(),
        new.set.iter().map(|key| key.id).collect(),
        new.ordered.iter().map(|key| key.id).collect::<Vec<_>>(),
    ];
    entries.iter_mut().for_each(|of| of.sort_unstable());
    entries
}

/// One value, one edit, one end. Says what that was.
fn round(seed: u64, keys: u8) -> &'static str {
    let before = TOKENS.get();
    SCRIPT.with_borrow_mut(|script| {
        script.numbers = Numbers(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        // Some are honest or quiet, so that some edits come about.
        script.panics = [usize::MAX, 400, 40][script.numbers.below(3)];
        script.lies = [usize::MAX, 200, 20][script.numbers.below(3)];
    });
    let value = all(keys);
    let (shown, made) = (format!("{value:?}"), TOKENS.get());
    arm(true);
    let built = build::<_, new::All>(value);
    let is_undone = chance(|_| 2) == 0;
    let end = |kept: Box<old::All>| {
        arm(false);
        assert_eq!(format!("{kept:?}"), shown, "seed {seed}: the old value has changed");
        assert_eq!(TOKENS.get(), made, "seed {seed}: more is left of the edit than the old value, or less");
        drop(kept);
    };
    let outcome = match built {
        Err((kept, _)) => {
            end(kept);
            "refused"
        }
        Ok(built) if is_undone => {
            end(Built::undo(built));
            "undone"
        }
        Ok(built) => {
            let new = built.commit();
            arm(false);
            assert_eq!(entries(&new), vec![(0..keys).collect::<Vec<_>>(); 4], "seed {seed}");
            assert!(!format!("{new:?}").is_empty());
            drop(new);
            "valid"
        }
    };
    assert_eq!(TOKENS.get(), before, "seed {seed}: tokens were dropped twice or never");
    KEPT.with_borrow_mut(|kept| kept.iter().for_each(|text| assert!(text.starts_with("key number "))));
    KEPT.take();
    WEAK.take();
    outcome
}

#[test]
fn an_upgrade_is_whole_or_undone_whatever_the_code_of_the_author_does() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let rounds = if cfg!(miri) { 6 } else { 4_000 };
    let first = std::env::var("ADVERSARY_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let tried = catch_unwind(AssertUnwindSafe(|| {
        let mut seen = HashMap::<_, u64>::new();
        for seed in first..first + rounds {
            *seen.entry(round(seed, if cfg!(miri) { 2 } else { 6 })).or_default() += 1;
        }
        seen
    }));
    std::panic::set_hook(hook);
    let seen = tried.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    assert!(cfg!(miri) || ["refused", "undone", "valid"].iter().all(|end| seen[end] > 100), "{seen:?}");
}
