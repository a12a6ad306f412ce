//! Facts about homes: what another library left empty is replaced before anybody sees it, and never looked at.
//!
//! There is one library here. A map that was left by an unmapped one is made by writing an address that nobody may
//! read where its own is.
//!
//! These, the round trip over the boundary and whatever else takes values by address run under Miri, too:
//!
//! ```text
//! MIRIFLAGS="-Zmiri-ignore-leaks -Zmiri-disable-isolation" \
//!     cargo +nightly miri test -p plugin-api --lib -- testing registry::memory sync resident --test-threads 1
//! ```
//!
//! (Some ten minutes. What a generation knows of its types is kept to its end, hence the leaks.)
#![expect(unsafe_code, reason = "makes maps that point nowhere")]

use std::collections::{HashMap, HashSet};
use std::mem::MaybeUninit;
use std::sync::{Arc, Mutex as StdMutex};
use std::{ptr, slice};

use super::*;
use crate::resident::{Kind, Settling, Shapes, TypeInfo};
use crate::sync::{Condvar, Mutex, OnceCell, RwLock};

/// An empty map as a library left it that is gone: reading through its pointer ends the process.
fn left() -> HashMap<String, u32> {
    let mut map = HashMap::<String, u32>::new();
    let mut roomy = HashMap::with_capacity_and_hasher(1, map.hasher().clone());
    roomy.insert(String::new(), 0);
    roomy.clear();
    const WORDS: usize = size_of::<HashMap<String, u32>>() / size_of::<*const u8>();
    // SAFETY: a map is words, all of them initialised: a pointer, numbers and the hasher's.
    let words = |map: *mut HashMap<String, u32>| unsafe {
        slice::from_raw_parts_mut(map.cast::<MaybeUninit<*const u8>>(), WORDS)
    };
    let own = words(&raw mut map);
    let mut found = 0;
    for (word, roomy) in own.iter_mut().zip(words(&raw mut roomy)) {
        // SAFETY: as above.
        let (value, other) = unsafe { (word.assume_init_read(), roomy.assume_init_read()) };
        // The pointer is what differs and is not nought; the numbers of an empty map are.
        if !value.is_null() && value != other {
            word.write(ptr::without_provenance(16));
            found += 1;
        }
    }
    assert_eq!(found, 1, "a map is laid out in another way than this test knows");
    map
}

fn is_usable(map: &mut HashMap<String, u32>) -> bool {
    map.iter().next().is_none() && map.insert("one".to_owned(), 1).is_none() && map["one"] == 1
}

/// What another library's lock would be.
fn elsewhere<T: Resident>(value: T) -> Homed<T> {
    let mut homed = Homed::new(value);
    homed.home = 7;
    homed
}

#[test]
fn a_map_that_another_library_left_empty_is_replaced_unread() {
    let mut homed = elsewhere(left());
    homed.take_as(8);
    assert_eq!(homed.home, 8);
    assert_eq!(homed.value.capacity(), 0, "no block for what may stay empty");
    assert!(is_usable(homed.value_mut()));
    // Once more: what is in it stays.
    homed.take_as(9);
    assert_eq!(homed.value["one"], 1);
}

#[test]
fn all_maps_below_a_lock_are_found() {
    type Nested = (
        [Option<HashMap<String, u32>>; 2],
        Box<Vec<HashMap<String, HashMap<String, u32>>>>,
        std::collections::BTreeMap<u8, Result<HashMap<String, u32>, std::collections::VecDeque<HashSet<u8>>>>,
        OnceCell<HashMap<String, u32>>,
    );
    let nested: Nested = (
        [Some(left()), None],
        Box::new(vec![HashMap::from([("in".to_owned(), left())])]),
        [(1, Ok(left())), (2, Err([HashSet::new()].into()))].into(),
        OnceCell::moved(left()),
    );
    let mut homed = elsewhere(nested);
    homed.take_as(8);
    let (array, boxed, tree, cell) = homed.value_mut();
    assert!(is_usable(array[0].as_mut().unwrap()));
    assert!(is_usable(boxed[0].get_mut("in").unwrap()));
    assert!(is_usable(tree.get_mut(&1).unwrap().as_mut().unwrap()));
    assert!(is_usable(cell.get_mut().unwrap()));
}

#[test]
fn readers_of_all_libraries_share_what_was_settled() {
    let mut homed = elsewhere(vec![left()]);
    assert!(homed.is_readable_by(7) && !homed.is_readable_by(8));
    homed.settle();
    assert!(homed.value[0].capacity() > 0);
    assert!(homed.is_readable_by(7) && homed.is_readable_by(8));
    homed.take_as(8);
    assert!(homed.is_readable_by(8) && !homed.is_readable_by(7));
}

/// A lock in data is dropped by whoever drops the data, and so are maps that a `Drop` of the author's looks at.
#[test]
fn a_drop_finds_maps_of_its_own_library() {
    #[derive(crate::Resident)]
    struct Parting(HashMap<String, u32>, Arc<StdSum>);
    #[derive(crate::Resident, Default)]
    struct StdSum(std::sync::atomic::AtomicU32);
    impl Drop for Parting {
        fn drop(&mut self) {
            let sum = self.0.values().sum::<u32>() + 1;
            self.1.0.store(sum, Ordering::Relaxed);
        }
    }
    let sum = Arc::new(StdSum::default());
    drop(elsewhere(Parting(left(), Arc::clone(&sum))));
    assert_eq!(sum.0.load(Ordering::Relaxed), 1);
}

#[test]
fn every_way_to_the_content_goes_by_its_home() {
    fn mutex() -> Mutex<HashMap<String, u32>> {
        Mutex(StdMutex::new(elsewhere(left())))
    }
    fn rw_lock() -> RwLock<HashMap<String, u32>> {
        RwLock(std::sync::RwLock::new(elsewhere(left())))
    }
    assert!(is_usable(&mut mutex().lock()));
    assert!(is_usable(&mut mutex().try_lock().unwrap()));
    assert!(is_usable(mutex().get_mut()));
    assert!(is_usable(&mut mutex().into_inner()));
    assert_eq!(format!("{:?} {:?}", mutex(), rw_lock()), "Mutex { data: {}, .. } RwLock { data: {}, .. }");
    assert!(is_usable(&mut rw_lock().write()));
    assert!(is_usable(rw_lock().get_mut()));
    assert!(is_usable(&mut rw_lock().into_inner()));
    let lock = rw_lock();
    assert_eq!(lock.read().iter().count(), 0);
    assert!(is_usable(&mut lock.write()));
}

/// Another library may hold the lock while this one waits.
#[test]
fn what_is_there_after_a_wait_is_its_own() {
    let (mutex, changed) = (Mutex::new(HashMap::from([("one".to_owned(), 1)])), Condvar::new());
    std::thread::scope(|scope| {
        let guard = mutex.lock();
        scope.spawn(|| {
            // As code of another library would do it.
            let mut held = mutex.0.lock().unwrap();
            *held = elsewhere(left());
            drop(held);
            changed.notify_all();
        });
        let mut guard = changed.wait(guard);
        while !guard.is_empty() {
            guard = changed.wait(guard);
        }
        assert!(is_usable(&mut guard));
    });
}

/// What is reached without a lock has a place of its own before others can reach it.
#[test]
fn a_filled_cell_points_to_the_heap() {
    let (set, made) = (OnceCell::new(), OnceCell::new());
    assert!(set.set((HashSet::<u8>::new(), left())).is_ok());
    let made: &HashMap<String, u32> = made.get_or_init(left);
    let (first, second) = set.get().unwrap();
    assert!(first.capacity() > 0 && second.capacity() > 0 && made.capacity() > 0);
}

/// The walk enters no lock, and asks nobody who has nothing to settle.
#[test]
fn the_walk_is_told_what_to_do_and_stops_at_locks() {
    thread_local! {
        static SEEN: std::cell::RefCell<Vec<Empties>> = const { std::cell::RefCell::new(Vec::new()) };
    }
    struct Spy;
    // SAFETY: has no values to represent.
    unsafe impl Resident for Spy {
        const MAY_SETTLE: bool = true;
        fn settle(&mut self, how: Settling<'_>) {
            SEEN.with_borrow_mut(|seen| seen.push(how.empties()));
        }
        fn shape(_: &mut Shapes) -> Kind {
            Kind::Leaf
        }
    }
    let mut homed = elsewhere((Spy, Mutex::new(Spy), RwLock::new(Spy), Arc::new(Spy)));
    homed.take_as(8);
    homed.take_as(8);
    homed.settle();
    homed.take_as(9);
    assert_eq!(SEEN.take(), [Empties::Ours, Empties::Nowhere]);
    std::mem::forget(homed);
    let none =
        [<Vec<Arc<Spy>>>::MAY_SETTLE, <Mutex<Spy>>::MAY_SETTLE, <(u8, String, Option<Arc<u8>>)>::MAY_SETTLE];
    assert_eq!(none, [true, false, false]);
}

fn keeps_code<T: Resident>() -> bool {
    let layout = &TypeInfo::of::<T>().layout;
    // The host knows no more than the text.
    let read = crate::resident::Layout::parse(&layout.to_text()).unwrap();
    assert_eq!(read.keeps_code(), layout.keeps_code());
    read.keeps_code()
}

/// Data whose maps cannot all be reached alone keeps what it may point into.
#[test]
fn a_map_that_cannot_be_reached_alone_keeps_its_code() {
    type Map = HashMap<String, u32>;
    #[derive(crate::Resident)]
    struct Tree {
        _here: Map,
        _below: Vec<Tree>,
    }
    assert!(!keeps_code::<String>());
    assert!(!keeps_code::<Tree>());
    assert!(!keeps_code::<(Mutex<Map>, RwLock<Vec<HashSet<u8>>>, OnceCell<Map>, Arc<Mutex<Map>>)>());
    assert!(!keeps_code::<std::collections::VecDeque<Map>>());
    assert!(!keeps_code::<Arc<u8>>());
    assert!(keeps_code::<Arc<Map>>());
    assert!(keeps_code::<Mutex<Option<Arc<Vec<Tree>>>>>());
    assert!(!keeps_code::<std::collections::BTreeMap<Vec<std::collections::BTreeSet<u8>>, u8>>());
    // What an earlier version of this crate says of a map, which does not know of homes.
    let text = TypeInfo::of::<Mutex<Map>>().layout.to_text().replace("repr settled\n", "");
    assert!(crate::resident::Layout::parse(&text).unwrap().keeps_code());
}

/// A map as a key has to have a hash, which the maps of `std` do not.
#[test]
fn a_map_in_a_key_keeps_its_code() {
    #[derive(crate::Resident, PartialEq, Eq)]
    struct Key(HashMap<String, u32>);
    impl std::hash::Hash for Key {
        fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
            self.0.len().hash(state);
        }
    }
    assert!(keeps_code::<Mutex<HashMap<Key, u8>>>());
    assert!(keeps_code::<Mutex<HashSet<Key>>>());
    assert!(!keeps_code::<Mutex<HashMap<u8, Key>>>());
}
