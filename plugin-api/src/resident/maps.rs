//! Maps and sets: a new one is filled entry by entry.
//!
//! That runs the `Hash`, `Eq` and `Ord` of the keys' author, while the upgrade may still be undone. So the keys of the new
//! map are copies (see [`upgrade`](super::upgrade)), and the old map keeps its own until the end. No drop of an author runs for
//! what goes in until all is in, and what went in is counted: code that contradicts itself loses nothing.
//!
//! A map with the standard hasher keeps its keys' hash state inside, so it works in every generation. Should
//! an edit change how a key is hashed or ordered while its layout stays the same, entries may not be found;
//! that is a wrong answer, and never undefined behaviour.
//!
//! A hash map without room for an entry points to a constant of the library that made or emptied it, which may be unmapped
//! by now. `capacity`, `is_empty` and `drop` look at its numbers alone, and that is all that is done with one here before
//! it has been replaced. (It is also what has no room because of entries removed long ago; that is replaced, too.)
#![expect(unsafe_code, reason = "takes maps apart by address")]

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::mem::{ManuallyDrop, offset_of};

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

/// A key of a map that is being filled: a copy, and freed as one, wherever the code of its author leaves it.
///
/// That code gets a reference to it while it is on its way into the map, and may change it there. So it is this that is
/// moved, and what is dropped is what that code has left.
#[repr(transparent)]
struct CopiedKey<K: Resident>(ManuallyDrop<K>);

impl<K: Resident> CopiedKey<K> {
    /// # Safety
    ///
    /// `key` is a whole copy, and nobody uses it where it is any more.
    unsafe fn moved_from(key: *const K) -> CopiedKey<K> {
        // SAFETY: this function's contract.
        CopiedKey(ManuallyDrop::new(unsafe { key.read() }))
    }
}

impl<K: Resident> Drop for CopiedKey<K> {
    fn drop(&mut self) {
        // SAFETY: a copy by how it was made, at its last use.
        unsafe { free_copy::<K>(&raw mut *self.0) };
    }
}

impl<K: Resident + PartialEq> PartialEq for CopiedKey<K> {
    fn eq(&self, other: &CopiedKey<K>) -> bool {
        *self.0 == *other.0
    }
}

impl<K: Resident + Eq> Eq for CopiedKey<K> {}

impl<K: Resident + Hash> Hash for CopiedKey<K> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (*self.0).hash(state);
    }
}

impl<K: Resident + Ord> PartialOrd for CopiedKey<K> {
    fn partial_cmp(&self, other: &CopiedKey<K>) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<K: Resident + Ord> Ord for CopiedKey<K> {
    fn cmp(&self, other: &CopiedKey<K>) -> Ordering {
        (*self.0).cmp(&*other.0)
    }
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
                const {
                    assert!(
                        offset_of!((K, V), 0) == offset_of!((CopiedKey<K>, Gone<V>), 0)
                            && offset_of!((K, V), 1) == offset_of!((CopiedKey<K>, Gone<V>), 1)
                            && size_of::<Self>() == size_of::<$map<CopiedKey<K>, Gone<V>>>()
                    );
                }
                let elements = old.elements();
                let new: fn(usize) -> $map<CopiedKey<K>, Gone<V>> = $new;
                let map = into.cast::<$map<CopiedKey<K>, Gone<V>>>();
                // SAFETY: `into` is writable, also for a map of copied keys and values without a drop, which is laid out as this
                // one. Rooms are fresh, and what is in them whole before it is moved in.
                let written = unsafe {
                    let written = work.made(new(elements.len() / 2), map);
                    for (count, entry) in elements.chunks_exact(2).enumerate() {
                        let value = work.staging::<V>();
                        let _: Written = work.place::<V>(entry[1], value)?;
                        let old_key = work.apart(entry[0]);
                        let key = CopiedKey::moved_from(work.copy::<K>(old_key)?);
                        let insert = || {
                            (*map).insert(key, value.cast::<Gone<V>>().read());
                            (*map).len()
                        };
                        if work.run_code(insert)? == count {
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
                const { assert!(size_of::<Self>() == size_of::<$set<CopiedKey<K>>>()) };
                let elements = old.elements();
                let new: fn(usize) -> $set<CopiedKey<K>> = $new;
                let set = into.cast::<$set<CopiedKey<K>>>();
                // SAFETY: as for maps.
                let written = unsafe {
                    let written = work.made(new(elements.len()), set);
                    for (count, member) in elements.into_iter().enumerate() {
                        let member = work.apart(member);
                        let key = CopiedKey::moved_from(work.copy::<K>(member)?);
                        let insert = || {
                            (*set).insert(key);
                            (*set).len()
                        };
                        if work.run_code(insert)? == count {
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
