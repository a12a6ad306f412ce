//! What a generation remembers of the keys it has asked for, so that it need not ask the host again.
//!
//! Places for a few dozen keys, in the library's own zeroed memory: they are gone with the library. A place is
//! taken once, by a key with a type, and read without a lock. What is remembered there is one word and a small
//! value, which [`Memory`] lends out and may be told to forget.
//!
//! Two threads: one lends the value, the other finds that the host's number has changed and forgets it. Both
//! change one atomic word. If the lender counts itself first, the other marks the value as stale, and whoever
//! leaves last drops it. If the other comes first, the lender finds no `FULL` and goes to ask the host.
//!
//! # Invariants
//!
//! - The value is written and dropped by whoever has set `BUSY`, alone: nobody is counted then who uses it.
//! - It is used by those who were counted while it was `FULL`, until they leave.
//! - It is lent only if the host's number is the one that was read before the host was asked for it.
#![expect(unsafe_code, reason = "shares values in place")]

use std::any::TypeId;
use std::cell::UnsafeCell;
use std::ffi::c_void;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::Deref;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::Key;

/// There is a value, to be lent.
const FULL: u64 = 1 << 63;
/// There is a value that is lent no more; its last user drops it.
const STALE: u64 = 1 << 62;
/// Somebody is writing or dropping the value.
const BUSY: u64 = 1 << 61;

/// How often a place, or a `Lazy`, is filled anew. A key that comes and goes all the time is not worth remembering, and the
/// host keeps something for each time.
pub(super) const MOST_FILLS: u32 = 64;

/// What is remembered of one key.
#[derive(Debug)]
pub struct Memory {
    /// The flags above, and below them how many use the value.
    word: AtomicU64,
    /// The host's number when the value was asked for. Written under `BUSY`.
    epoch: AtomicU64,
    /// A value of the type that the place was taken for, if there is one.
    value: UnsafeCell<MaybeUninit<[u64; 2]>>,
    /// For data: its cell, which says itself whether it may be used.
    pub(super) cell: AtomicPtr<c_void>,
    fills: AtomicU32,
}

// SAFETY: `value` is reached under the rules above, and holds a `T: Send + Sync` by the contract of `fill`; all
// else is atomic. Two threads: see the file's head.
unsafe impl Sync for Memory {}

impl Memory {
    pub(super) const fn new() -> Memory {
        Memory {
            word: AtomicU64::new(0),
            epoch: AtomicU64::new(0),
            value: UnsafeCell::new(MaybeUninit::uninit()),
            cell: AtomicPtr::new(ptr::null_mut()),
            fills: AtomicU32::new(0),
        }
    }

    /// Whether it may be filled once more.
    pub(super) fn may_fill(&self) -> bool {
        self.fills.load(Ordering::Relaxed) < MOST_FILLS
    }

    /// Remembers a cell of data, that the host keeps; the last one that it may is not looked at any more.
    pub(super) fn fill_cell(&self, cell: *mut c_void) {
        if self.cell.swap(cell, Ordering::AcqRel) != cell
            && self.fills.fetch_add(1, Ordering::Relaxed) + 1 >= MOST_FILLS
        {
            self.cell.store(ptr::null_mut(), Ordering::Release);
        }
    }

    /// Lends the value, if there is one and `epoch` says that it is still the key's.
    ///
    /// # Safety
    ///
    /// Whatever has been filled in is a `T`.
    #[inline]
    pub(super) unsafe fn lend<T>(&'static self, epoch: &AtomicU64) -> Option<Lent<T>> {
        let before = self.word.fetch_add(1, Ordering::Acquire);
        if before & FULL != 0 {
            // Counted: from here to its drop the value stays, and with it its number.
            let lent = Lent { memory: self, of: PhantomData };
            if self.epoch.load(Ordering::Relaxed) == epoch.load(Ordering::Acquire) {
                return Some(lent);
            }
            // SAFETY: this function's contract.
            unsafe { self.forget::<T>() };
            return None;
        }
        // SAFETY: counted above; this function's contract.
        unsafe { self.leave::<T>() };
        None
    }

    /// Remembers a value that the host was asked for after `epoch` was read, unless there is still another one.
    ///
    /// # Safety
    ///
    /// `T` is the type of the place, always the same, and not larger than two words.
    pub(super) unsafe fn fill<T: Send + Sync + 'static>(&self, value: T, epoch: u64) -> Result<(), T> {
        const { assert!(size_of::<T>() <= 16 && align_of::<T>() <= 8) };
        if self.word.compare_exchange(0, BUSY, Ordering::Acquire, Ordering::Relaxed).is_err() {
            return Err(value);
        }
        self.fills.fetch_add(1, Ordering::Relaxed);
        self.epoch.store(epoch, Ordering::Relaxed);
        // SAFETY: alone under `BUSY`; room and alignment by the assertion.
        unsafe { self.value.get().cast::<T>().write(value) };
        // Others may be counted by now who found no `FULL` and are about to leave.
        self.word.fetch_add(FULL - BUSY, Ordering::Release);
        Ok(())
    }

    /// Lends the value no more, and drops it as soon as nobody uses it.
    ///
    /// # Safety
    ///
    /// Whatever has been filled in is a `T`.
    pub(super) unsafe fn forget<T>(&self) {
        let shut = |word| (word & FULL != 0).then_some((word & !FULL) | STALE);
        let shut = self.word.fetch_update(Ordering::AcqRel, Ordering::Relaxed, shut);
        if shut.is_ok_and(|before| before & !FULL == 0) {
            // SAFETY: this function's contract.
            unsafe { self.drop_stale::<T>() };
        }
    }

    /// Takes a count back.
    ///
    /// # Safety
    ///
    /// The caller is counted, and uses the value no more. Whatever has been filled in is a `T`.
    #[inline]
    unsafe fn leave<T>(&self) {
        if self.word.fetch_sub(1, Ordering::AcqRel) == STALE + 1 {
            // SAFETY: this function's contract.
            unsafe { self.drop_stale::<T>() };
        }
    }

    /// Drops a stale value that nobody uses. Somebody may have counted himself meanwhile: then he does it.
    ///
    /// # Safety
    ///
    /// Whatever has been filled in is a `T`.
    #[cold]
    unsafe fn drop_stale<T>(&self) {
        if self.word.compare_exchange(STALE, BUSY, Ordering::Acquire, Ordering::Relaxed).is_ok() {
            // SAFETY: alone under `BUSY`; there was a value, for it was stale, and it is over with this line.
            let value = unsafe { self.value.get().cast::<T>().read() };
            self.word.fetch_sub(BUSY, Ordering::Release);
            // Dropped last: it calls the host.
            drop(value);
        }
    }
}

/// What is remembered of one key with one type: made by a look-up of both, so that values of one type are never read as
/// values of another.
#[derive(Debug)]
pub struct KeyMemory<T: ?Sized> {
    memory: &'static Memory,
    of: PhantomData<fn() -> *const T>,
}

impl<T: ?Sized> Clone for KeyMemory<T> {
    fn clone(&self) -> KeyMemory<T> {
        *self
    }
}

impl<T: ?Sized> Copy for KeyMemory<T> {}

impl<T: ?Sized> KeyMemory<T> {
    /// # Safety
    ///
    /// The place is taken for this type.
    pub(super) unsafe fn new(memory: &'static Memory) -> KeyMemory<T> {
        KeyMemory { memory, of: PhantomData }
    }
}

impl<T: ?Sized> Deref for KeyMemory<T> {
    type Target = &'static Memory;

    #[inline]
    fn deref(&self) -> &&'static Memory {
        &self.memory
    }
}

/// A use of a remembered value.
#[derive(Debug)]
pub struct Lent<T: 'static> {
    memory: &'static Memory,
    of: PhantomData<&'static T>,
}

impl<T> Deref for Lent<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: counted since before it was lent, so the value is there; it is a `T` by the contract of `lend`.
        unsafe { &*self.memory.value.get().cast::<T>() }
    }
}

impl<T> Drop for Lent<T> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: counted in `lend`, whose contract says what was filled in.
        unsafe { self.memory.leave::<T>() };
    }
}

/// How many keys are remembered.
const PLACES: usize = 64;
const _: () = assert!(PLACES.is_power_of_two());
/// How long a key may be, with its module, to be remembered.
const LONGEST: usize = 56;

/// A place for one key with one type.
#[repr(align(64))]
struct Place {
    /// 0: free. Else the key's hash, with the lowest bit set. Written last, once.
    hash: AtomicU64,
    key: UnsafeCell<MaybeUninit<Taken>>,
    memory: Memory,
}

/// Who has taken a place.
#[derive(Clone, Copy)]
struct Taken {
    of: TypeId,
    module_len: u8,
    len: u8,
    text: [u8; LONGEST],
    /// Forgets the value, whatever its type.
    forget: fn(&'static Memory),
}

// SAFETY: `key` is written once, under the lock of `TAKE`, before `hash` is stored with `Release`, and read after
// `hash` was loaded with `Acquire`. Two threads: one takes the place, the other finds it free or whole.
unsafe impl Sync for Place {}

static TABLE: [Place; PLACES] = [const {
    Place { hash: AtomicU64::new(0), key: UnsafeCell::new(MaybeUninit::uninit()), memory: Memory::new() }
}; PLACES];
static TAKE: Mutex<()> = Mutex::new(());

impl Place {
    /// Who has taken it, if `hash` is that of the key.
    #[inline]
    fn taken(&self, hash: u64) -> Option<&Taken> {
        if self.hash.load(Ordering::Acquire) != hash {
            return None;
        }
        // SAFETY: written before `hash`, which is never 0, and never again.
        Some(unsafe { (*self.key.get()).assume_init_ref() })
    }
}

/// What is remembered of a key with a type, in a place that is taken for it if there is one; `forget` is for that
/// type.
#[inline]
pub(super) fn of<T: ?Sized + 'static>(key: &Key<'_>, forget: fn(&'static Memory)) -> Option<KeyMemory<T>> {
    let hash = hash(key);
    let memory =
        find::<T>(key, hash).map_or_else(|| take::<T>(key, hash, forget), |place| Some(&place.memory))?;
    // SAFETY: found by the type it was taken for, or taken for it.
    Some(unsafe { KeyMemory::new(memory) })
}

#[inline]
fn find<T: ?Sized + 'static>(key: &Key<'_>, hash: u64) -> Option<&'static Place> {
    for place in probe(hash) {
        if let Some(taken) = place.taken(hash) {
            let (module, name) = taken.text[..usize::from(taken.len)].split_at(usize::from(taken.module_len));
            let is_key = is_same(name, key.name.as_bytes()) && is_same(module, key.module.as_bytes());
            if is_key && taken.of == TypeId::of::<T>() {
                return Some(place);
            }
        } else if place.hash.load(Ordering::Relaxed) == 0 {
            return None;
        }
    }
    None
}

#[cold]
fn take<T: ?Sized + 'static>(
    key: &Key<'_>,
    hash: u64,
    forget: fn(&'static Memory),
) -> Option<&'static Memory> {
    let (module, name) = (key.module.as_bytes(), key.name.as_bytes());
    let mut text = [0; LONGEST];
    let len = module.len() + name.len();
    text.get_mut(..len)?.copy_from_slice(&[module, name].concat());
    let _alone = TAKE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(place) = find::<T>(key, hash) {
        return Some(&place.memory);
    }
    let place = probe(hash).find(|place| place.hash.load(Ordering::Relaxed) == 0)?;
    let module_len = u8::try_from(module.len()).ok()?;
    let taken = Taken { of: TypeId::of::<T>(), module_len, len: u8::try_from(len).ok()?, text, forget };
    // SAFETY: free, so nobody reads it, and nobody else takes it, by the lock.
    unsafe { (*place.key.get()).write(taken) };
    place.hash.store(hash, Ordering::Release);
    Some(&place.memory)
}

/// All places, from the one where a key with this hash would be first.
#[inline]
fn probe(hash: u64) -> impl Iterator<Item = &'static Place> {
    // The bits in which all others have a say.
    let first = (hash >> 32) as usize >> (u32::BITS - PLACES.ilog2());
    TABLE[first..].iter().chain(&TABLE[..first])
}

/// Forgets everything: the generation is over. What is still in use is dropped by its last user.
pub(crate) fn forget_all() {
    for place in &TABLE {
        let hash = place.hash.load(Ordering::Acquire);
        if let Some(taken) = place.taken(hash).filter(|_| hash != 0) {
            (taken.forget)(&place.memory);
        }
    }
}

/// A number for the key's texts, eight bytes at a time: a key is looked up more often than anything else, and
/// most are not longer. Odd.
#[inline]
fn hash(key: &Key<'_>) -> u64 {
    // Any odd number that has no pattern.
    const FACTOR: u64 = 0x9d8b_3c52_e6f1_4a77;
    let step = |hash: u64, word: u64| (hash.rotate_left(29) ^ word).wrapping_mul(FACTOR);
    let text = |hash, text: &[u8]| {
        let (words, rest) = text.as_chunks::<8>();
        let hash = words.iter().fold(hash, |hash, chunk| step(hash, u64::from_le_bytes(*chunk)));
        step(hash, word(rest))
    };
    let lengths = (key.module.len() as u64) << 32 ^ key.name.len() as u64;
    let module = if key.module.is_empty() { lengths } else { text(lengths, key.module.as_bytes()) };
    text(module, key.name.as_bytes()) | 1
}

/// Whether two texts are equal. Short ones without the call that a comparison of slices is.
#[inline]
fn is_same(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && if one.len() <= 8 { word(one) == word(other) } else { one == other }
}

/// Up to eight bytes as a number: of two texts of one length, another one for each.
#[inline]
fn word(bytes: &[u8]) -> u64 {
    let half = |four: &[u8; 4]| u64::from(u32::from_le_bytes(*four));
    match (bytes.first_chunk::<8>(), bytes.first_chunk(), bytes.last_chunk()) {
        (Some(all), ..) => u64::from_le_bytes(*all),
        // They overlap where there are less than eight.
        (None, Some(first), Some(last)) => half(first) << 32 | half(last),
        _ => bytes.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)),
    }
}

#[cfg(test)]
mod tests;
