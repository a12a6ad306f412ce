//! Maps and sets: a new one is filled entry by entry.
//!
//! A map with the standard hasher keeps its keys' hash state inside, so it works in every generation. Should
//! an edit change how a key is hashed or ordered while its layout stays the same, entries may not be found;
//! that is a wrong answer, and never undefined behaviour.
#![expect(unsafe_code, reason = "takes maps apart by address")]

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::Hash;
use std::mem::forget;

use super::{Kind, Misfit, Old, OldType, Resident, Shapes, Work};

/// A key as the address of what may be taken apart: nobody uses it any more. Maps lend their keys for reading
/// only, values for more.
fn see<T>(part: &T, visit: &mut dyn FnMut(*mut u8)) {
    visit((&raw const *part).cast_mut().cast());
}

/// Ends the process if a key's hash or order panics the second time, having succeeded a moment before:
/// the unwinding would have dropped what the older value still holds.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        std::process::abort();
    }
}

macro_rules! maps {
    ($($map:ident ($($bound:ident),*) $new:expr;)*) => {$(
        // SAFETY: entries in blocks of the global allocator.
        unsafe impl<K: Resident $(+ $bound)*, V: Resident> Resident for $map<K, V> {
            fn shape(shapes: &mut Shapes) -> Kind {
                Kind::Container(vec![shapes.of::<K>(), shapes.of::<V>()])
            }

            unsafe fn children(this: *mut Self, visit: &mut dyn FnMut(*mut u8)) {
                // SAFETY: valid and unused by this function's contract.
                for (key, value) in unsafe { &mut *this } {
                    see(key, visit);
                    visit((&raw mut *value).cast());
                }
            }

            unsafe fn dissolve(this: *mut Self) {
                // SAFETY: the last use of the map; its entries, moved out before, are forgotten.
                unsafe { this.read() }.into_iter().for_each(forget);
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
                        work.place::<K>(entry[0], key)?;
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
    HashMap (Hash, Eq) |entries| HashMap::with_capacity(entries);
    BTreeMap (Ord) |_| BTreeMap::new();
}

macro_rules! sets {
    ($($set:ident ($($bound:ident),*) $new:expr;)*) => {$(
        // SAFETY: members in blocks of the global allocator.
        unsafe impl<K: Resident $(+ $bound)*> Resident for $set<K> {
            fn shape(shapes: &mut Shapes) -> Kind {
                Kind::Container(vec![shapes.of::<K>()])
            }

            unsafe fn children(this: *mut Self, visit: &mut dyn FnMut(*mut u8)) {
                // SAFETY: valid and unused by this function's contract.
                unsafe { &*this }.iter().for_each(|key| see(key, visit));
            }

            unsafe fn dissolve(this: *mut Self) {
                // SAFETY: the last use of the set; its members, moved out before, are forgotten.
                unsafe { this.read() }.into_iter().for_each(forget);
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
    HashSet (Hash, Eq) |members| HashSet::with_capacity(members);
    BTreeSet (Ord) |_| BTreeSet::new();
}
