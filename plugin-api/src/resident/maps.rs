//! Maps and sets: a new one is filled entry by entry.
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
use std::hash::Hash;
use std::mem::{ManuallyDrop, forget, offset_of};

use super::{Empties, Kind, Misfit, Old, OldType, Resident, Settling, Shapes, Work};

/// A key. Maps lend their keys for reading only, values for more: whoever takes one apart does so elsewhere, see
/// [`Work::apart`].
fn see<T>(part: &T, visit: &mut dyn FnMut(*mut u8)) {
    visit((&raw const *part).cast_mut().cast());
}

/// Stands for what has been moved out of a map, of which only the memory is left to free. Not even a look at it would be
/// allowed: what its boxes led to is freed, or somebody else's.
type Gone<T> = ManuallyDrop<T>;

/// Ends the process if a key's hash or order panics the second time, having succeeded a moment before:
/// the unwinding would have dropped what the older value still holds.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        std::process::abort();
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

            unsafe fn rebuild(old: Old<'_>, into: *mut Self, work: &mut Work) -> Result<(), Misfit> {
                let (elements, new): (_, fn(usize) -> Self) = (old.elements(), $new);
                // SAFETY: `into` is writable; rooms are fresh, and what is in them whole before it is moved in.
                unsafe {
                    into.write(new(elements.len() / 2));
                    work.shell(into);
                    for entry in elements.chunks_exact(2) {
                        let (key, value) = (work.staging::<K>(), work.staging::<V>());
                        let old_key = work.apart::<K>(entry[0]);
                        work.place::<K>(old_key, key)?;
                        work.place::<V>(entry[1], value)?;
                        if (*into).contains_key(&*key) {
                            return Err(work.keys_collide::<Self>());
                        }
                        let bomb = Bomb;
                        (*into).insert(key.read(), value.read());
                        forget(bomb);
                    }
                }
                work.dissolve_old(old);
                Ok(())
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

            unsafe fn rebuild(old: Old<'_>, into: *mut Self, work: &mut Work) -> Result<(), Misfit> {
                let (elements, new): (_, fn(usize) -> Self) = (old.elements(), $new);
                // SAFETY: `into` is writable; the room is fresh, and what is in it whole before it is moved in.
                unsafe {
                    into.write(new(elements.len()));
                    work.shell(into);
                    for member in elements {
                        let key = work.staging::<K>();
                        let member = work.apart::<K>(member);
                        work.place::<K>(member, key)?;
                        if (*into).contains(&*key) {
                            return Err(work.keys_collide::<Self>());
                        }
                        let bomb = Bomb;
                        (*into).insert(key.read());
                        forget(bomb);
                    }
                }
                work.dissolve_old(old);
                Ok(())
            }
        }
    )*};
}

sets! {
    HashSet (Hash, Eq) "settled" settle_empty |members| HashSet::with_capacity(members.max(1));
    BTreeSet (Ord) "" nothing_to_settle |_| BTreeSet::new();
}
