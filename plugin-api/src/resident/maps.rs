//! Maps and sets: a new one is filled entry by entry.
//!
//! That runs the `Hash`, `Eq` and `Ord` of the keys' author, while the upgrade may still be undone. So the keys of the new
//! map are copies (see [`upgrade::copy`](super::upgrade)), and the old map keeps its own until the end. Nothing that goes in
//! has a drop until all is in, and what went in is counted: code that contradicts itself loses nothing.
//!
//! A map with the standard hasher keeps its keys' hash state inside, so it works in every generation. Should
//! an edit change how a key is hashed or ordered while its layout stays the same, entries may not be found;
//! that is a wrong answer, and never undefined behaviour.
//!
//! A hash map without room for an entry points to a constant of the library that made or emptied it, which may be unmapped
//! by now. `capacity`, `is_empty` and `drop` look at its numbers alone, and that is all that is done with one here before
//! it has been replaced. (It is also what has no room because of entries removed long ago; that is replaced, too.)
#![expect(unsafe_code, reason = "takes maps apart by address")]

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ffi::c_void;
use std::hash::Hash;
use std::mem::{ManuallyDrop, offset_of};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use super::upgrade::free_copy;
use super::{Empties, Kind, Misfit, Nature, Old, OldType, Resident, Settling, Shapes, Work, Written};

/// A key. Maps lend their keys for reading only, values for more: whoever takes one apart does so elsewhere, see
/// [`Work::apart`].
fn see<T>(part: &T, visit: &mut dyn FnMut(*mut u8)) {
    visit((&raw const *part).cast_mut().cast());
}

/// Stands for what has been moved out of a map, of which only the memory is left to free. Not even a look at it would be
/// allowed: what its boxes led to is freed, or somebody else's.
type Gone<T> = ManuallyDrop<T>;

/// Ends a map that was being filled: its keys are copies, and its values other steps' business.
///
/// # Safety
///
/// `K` is what the keys are.
unsafe fn discard<'k, K: Resident>(keys: impl IntoIterator<Item = &'k Gone<K>>) {
    for key in keys {
        // SAFETY: a copy, which nobody uses any more: the map is only freed after this.
        unsafe { free_copy::<K>((&raw const *key).cast_mut().cast()) };
    }
}

/// Lets a map or set take in a key, by the code of the key's author, and says whether it has.
///
/// What goes in has no drop, so it does not matter what that code says or whether it panics: where `count` has not grown the
/// key is still in its room, and is freed there.
///
/// # Safety
///
/// `key` is a whole copy that nobody uses but `insert`, which moves its bytes and says how many entries there are then.
unsafe fn take_in<K: Resident>(key: *mut K, count: usize, insert: impl FnOnce() -> usize) -> bool {
    let outcome = catch_unwind(AssertUnwindSafe(insert));
    let is_in = outcome.as_ref().is_ok_and(|now| *now > count);
    if !is_in {
        // SAFETY: the map has not kept it, whose count says so: a key is hashed and compared before it is let in. After that
        // no author's code runs, as there is room for all.
        unsafe { free_copy(key) };
    }
    if let Err(panic) = outcome {
        resume_unwind(panic);
    }
    is_in
}

/// Replaces a hash map or set that points into a library. What it is depends on the text only, and both have it.
macro_rules! settle_empty {
    ($this:expr, $map:ident, $empties:expr) => {
        if $this.capacity() == 0 {
            // The old one is dropped, whose memory nobody looks at.
            *$this = $map::with_hasher($this.hasher().clone());
            if $empties == Empties::Nowhere {
                $this.reserve(1);
            }
        }
    };
}

/// Others point to the heap, or to nothing.
macro_rules! nothing_to_settle {
    ($this:expr, $map:ident, $empties:expr) => {};
}

macro_rules! maps {
    ($($map:ident ($($bound:ident),*) $repr:literal $settle_empty:ident $new:expr;)*) => {$(
        // SAFETY: entries in blocks of the global allocator, or none and settled.
        unsafe impl<K: Resident $(+ $bound)*, V: Resident> Resident for $map<K, V> {
            const REPR: &'static str = $repr;
            const MAY_SETTLE: bool = true;

            fn settle(&mut self, how: Settling<'_>) {
                $settle_empty!(self, $map, how.empties());
                if V::MAY_SETTLE {
                    self.values_mut().for_each(|value| how.behind(value));
                }
            }

            fn nature() -> Nature {
                Nature::PLAIN
            }

            fn shape(shapes: &mut Shapes) -> Kind {
                Kind::Container(vec![shapes.of::<K>(), shapes.of::<V>()])
            }

            unsafe fn children(this: *mut Self, visit: &mut dyn FnMut(*mut u8)) {
                // SAFETY: valid and unused by this function's contract.
                let map = unsafe { &mut *this };
                if map.is_empty() {
                    return;
                }
                for (key, value) in map {
                    see(key, visit);
                    visit((&raw mut *value).cast());
                }
            }

            unsafe fn dissolve(this: *mut Self) {
                const {
                    assert!(
                        offset_of!((K, V), 0) == offset_of!((Gone<K>, Gone<V>), 0)
                            && offset_of!((K, V), 1) == offset_of!((Gone<K>, Gone<V>), 1)
                            && size_of::<Self>() == size_of::<$map<Gone<K>, Gone<V>>>()
                    );
                }
                // SAFETY: the last use of the map, whose entries have been moved out. `Gone` is laid out as what it stands
                // for, and so is what is made of it; see above.
                drop(unsafe { this.cast::<$map<Gone<K>, Gone<V>>>().read() });
            }

            fn fits(old: OldType<'_>, work: &mut Work) -> Result<(), Misfit> {
                match *old.params::<Self>()?.as_slice() {
                    [key, value] => {
                        work.check::<K>(key)?;
                        work.check::<V>(value)
                    }
                    _ => Err(Misfit::retyped::<Self>(old)),
                }
            }

            unsafe fn rebuild(old: Old<'_>, into: *mut Self, work: &mut Work) -> Result<Written, Misfit> {
                unsafe extern "C" fn discard_map<K: Resident, V>(map: *mut c_void) {
                    // SAFETY: the map below, whose entries have no drop, at its last use.
                    unsafe {
                        let map = map.cast::<$map<Gone<K>, Gone<V>>>();
                        discard((*map).keys());
                        map.drop_in_place();
                    }
                }
                let elements = old.elements();
                let new: fn(usize) -> $map<Gone<K>, Gone<V>> = $new;
                let map = into.cast::<$map<Gone<K>, Gone<V>>>();
                // SAFETY: `into` is writable, also for the map of entries without a drop, which is laid out as this one (see
                // `dissolve`). Rooms are fresh, and what is in them whole before it is moved in; keys are copies.
                let written = unsafe {
                    let written = Written::by(map, new(elements.len() / 2));
                    work.undo_with(discard_map::<K, V>, into.cast());
                    for (count, entry) in elements.chunks_exact(2).enumerate() {
                        let value = work.staging::<V>();
                        let _: Written = work.place::<V>(entry[1], value)?;
                        let old_key = work.apart(entry[0]);
                        let key = work.copy::<K>(old_key)?;
                        let insert = || {
                            (*map).insert(key.cast::<Gone<K>>().read(), value.cast::<Gone<V>>().read());
                            (*map).len()
                        };
                        if !work.run_code(|| take_in(key, count, insert))? {
                            return Err(work.keys_collide::<Self>());
                        }
                    }
                    written
                };
                work.dissolve_old(old);
                Ok(written)
            }
        }
    )*};
}

maps! {
    HashMap (Hash, Eq) "settled" settle_empty |entries| HashMap::with_capacity(entries.max(1));
    BTreeMap (Ord) "" nothing_to_settle |_| BTreeMap::new();
}

macro_rules! sets {
    ($($set:ident ($($bound:ident),*) $repr:literal $settle_empty:ident $new:expr;)*) => {$(
        // SAFETY: members in blocks of the global allocator, or none and settled.
        unsafe impl<K: Resident $(+ $bound)*> Resident for $set<K> {
            const REPR: &'static str = $repr;
            const MAY_SETTLE: bool = true;

            fn settle(&mut self, how: Settling<'_>) {
                let _ = how;
                $settle_empty!(self, $set, how.empties());
            }

            fn nature() -> Nature {
                Nature::PLAIN
            }

            fn shape(shapes: &mut Shapes) -> Kind {
                Kind::Container(vec![shapes.of::<K>()])
            }

            unsafe fn children(this: *mut Self, visit: &mut dyn FnMut(*mut u8)) {
                // SAFETY: valid and unused by this function's contract.
                let set = unsafe { &*this };
                if !set.is_empty() {
                    set.iter().for_each(|key| see(key, visit));
                }
            }

            unsafe fn dissolve(this: *mut Self) {
                const { assert!(size_of::<Self>() == size_of::<$set<Gone<K>>>()) };
                // SAFETY: the last use of the set, whose members have been moved out. `Gone` is laid out as what it stands for,
                // and so is what is made of it.
                drop(unsafe { this.cast::<$set<Gone<K>>>().read() });
            }

            fn fits(old: OldType<'_>, work: &mut Work) -> Result<(), Misfit> {
                match *old.params::<Self>()?.as_slice() {
                    [key] => work.check::<K>(key),
                    _ => Err(Misfit::retyped::<Self>(old)),
                }
            }

            unsafe fn rebuild(old: Old<'_>, into: *mut Self, work: &mut Work) -> Result<Written, Misfit> {
                unsafe extern "C" fn discard_set<K: Resident>(set: *mut c_void) {
                    // SAFETY: the set below, whose members have no drop, at its last use.
                    unsafe {
                        let set = set.cast::<$set<Gone<K>>>();
                        discard((*set).iter());
                        set.drop_in_place();
                    }
                }
                let elements = old.elements();
                let new: fn(usize) -> $set<Gone<K>> = $new;
                let set = into.cast::<$set<Gone<K>>>();
                // SAFETY: as for maps.
                let written = unsafe {
                    let written = Written::by(set, new(elements.len()));
                    work.undo_with(discard_set::<K>, into.cast());
                    for (count, member) in elements.into_iter().enumerate() {
                        let member = work.apart(member);
                        let key = work.copy::<K>(member)?;
                        let insert = || {
                            (*set).insert(key.cast::<Gone<K>>().read());
                            (*set).len()
                        };
                        if !work.run_code(|| take_in(key, count, insert))? {
                            return Err(work.keys_collide::<Self>());
                        }
                    }
                    written
                };
                work.dissolve_old(old);
                Ok(written)
            }
        }
    )*};
}

sets! {
    HashSet (Hash, Eq) "settled" settle_empty |members| HashSet::with_capacity(members.max(1));
    BTreeSet (Ord) "" nothing_to_settle |_| BTreeSet::new();
}
