//! Facts about what is remembered: it is what was found, for as long as it is that, and it is dropped once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use super::*;
use crate::abi::ON_CHANGE_KEEP;

/// How many there are: a value that is dropped twice, or never, shows.
struct Counted {
    epoch: u64,
    alive: Arc<AtomicUsize>,
}

fn counted(epoch: u64, alive: &Arc<AtomicUsize>) -> Counted {
    alive.fetch_add(1, Ordering::SeqCst);
    Counted { epoch, alive: Arc::clone(alive) }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.alive.fetch_sub(1, Ordering::SeqCst);
    }
}

fn key<'a>(module: &'a str, name: &'a str) -> Key<'a> {
    Key { module, name, on_change: ON_CHANGE_KEEP }
}

fn memory() -> &'static Memory {
    Box::leak(Box::new(Memory::new()))
}

fn lend(memory: &'static Memory, epoch: &AtomicU64) -> Option<Lent<Counted>> {
    // SAFETY: these tests fill in nothing else.
    unsafe { memory.lend(epoch) }
}

fn fill(memory: &Memory, value: Counted, epoch: u64) -> bool {
    // SAFETY: as above; two words.
    unsafe { memory.fill(value, epoch) }.is_ok()
}

#[test]
fn value_is_lent_until_the_number_changes() {
    let (memory, epoch, alive) = (memory(), AtomicU64::new(7), Arc::new(AtomicUsize::new(0)));
    assert!(lend(memory, &epoch).is_none());
    assert!(fill(memory, counted(7, &alive), 7));
    assert!(!fill(memory, counted(7, &alive), 7), "there is one");
    let first = lend(memory, &epoch).unwrap();
    assert_eq!((first.epoch, alive.load(Ordering::SeqCst)), (7, 1));
    epoch.store(8, Ordering::SeqCst);
    assert!(lend(memory, &epoch).is_none());
    assert_eq!((first.epoch, alive.load(Ordering::SeqCst)), (7, 1), "still in use");
    assert!(!fill(memory, counted(8, &alive), 8), "its place is");
    drop(first);
    assert_eq!(alive.load(Ordering::SeqCst), 0);
    // A value that was found before the number changed is remembered, and not lent.
    assert!(fill(memory, counted(7, &alive), 7));
    assert!(lend(memory, &epoch).is_none());
    assert_eq!(alive.load(Ordering::SeqCst), 0);
    assert!(fill(memory, counted(8, &alive), 8));
    assert_eq!(lend(memory, &epoch).unwrap().epoch, 8);
    // SAFETY: as in `lend`.
    unsafe { memory.forget::<Counted>() };
    assert!(lend(memory, &epoch).is_none());
    assert_eq!(alive.load(Ordering::SeqCst), 0);
}

/// Threads lend and fill while the number changes: nobody is lent what is older than when he asked.
#[test]
fn nobody_is_lent_an_older_value() {
    let (memory, alive, over) = (memory(), Arc::new(AtomicUsize::new(0)), AtomicBool::new(false));
    let epoch = AtomicU64::new(0);
    let rounds = if cfg!(miri) { 20 } else { 500 };
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let asked = epoch.load(Ordering::SeqCst);
                    match lend(memory, &epoch) {
                        Some(lent) => assert!(lent.epoch >= asked),
                        None => {
                            fill(memory, counted(asked, &alive), asked);
                        }
                    }
                }
            });
        }
        for _ in 0..rounds {
            epoch.fetch_add(1, Ordering::SeqCst);
            thread::yield_now();
        }
        over.store(true, Ordering::Relaxed);
    });
    // SAFETY: as in `lend`.
    unsafe { memory.forget::<Counted>() };
    assert_eq!(alive.load(Ordering::SeqCst), 0);
}

#[test]
fn each_key_with_its_type_has_a_place_of_its_own() {
    let forget: fn(&'static Memory) = |_| {};
    let at = |module, name| of::<Counted>(&key(module, name), forget).map(|memory| ptr::from_ref(*memory));
    let first = at("", "memory/one");
    assert!(first.is_some());
    assert_eq!(first, at("", "memory/one"));
    let others = [
        at("", "memory/two"),
        at("memory", "one"),
        of::<u8>(&key("", "memory/one"), forget).map(|memory| ptr::from_ref(*memory)),
    ];
    for (i, other) in others.iter().enumerate() {
        assert!(other.is_some() && *other != first && !others[..i].contains(other));
    }
    assert_eq!(at("", &"long".repeat(15)), None);
}

/// Texts that differ in anything are different keys, whatever their length is and wherever the difference.
#[test]
fn keys_are_told_apart_by_every_byte() {
    let texts: Vec<String> = (0..=17).map(|len| "abcdefghijklmnopq"[..len].to_owned()).collect();
    for text in &texts {
        assert!(is_same(text.as_bytes(), text.clone().as_bytes()));
        let found = hash(&key("", text));
        assert_eq!((found & 1, found), (1, hash(&key("", &text.clone()))));
        for at in 0..text.len() {
            let mut other = text.clone().into_bytes();
            other[at] ^= 0x20;
            assert!(!is_same(text.as_bytes(), &other), "{text:?} at {at}");
            assert_ne!(found, hash(&key("", str::from_utf8(&other).unwrap())), "{text:?} at {at}");
        }
    }
    let hashes: std::collections::BTreeSet<u64> =
        texts.iter().flat_map(|module| texts.iter().map(|name| hash(&key(module, name)))).collect();
    assert_eq!(hashes.len(), texts.len() * texts.len(), "also by where the module ends");
}

/// Keys such as plugins have lie apart, so that a look-up seldom has to look further.
#[test]
fn common_keys_spread_over_the_places() {
    let names = (0..PLACES / 2).map(|number| format!("key {number}"));
    let firsts: std::collections::BTreeSet<usize> = names
        .map(|name| {
            let first = probe(hash(&key("", &name))).next().unwrap();
            std::ptr::from_ref(first).addr()
        })
        .collect();
    assert!(firsts.len() > PLACES / 4, "{} places for {} keys", firsts.len(), PLACES / 2);
}
