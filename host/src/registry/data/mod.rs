//! Data that plugins share in place: who may use it, who drops it, how it is upgraded.
//!
//! The value itself is opaque here. With it come the text of its layout, which is its identity, and glue:
//! functions of a library that can drop it and take it apart. The boundary's [`DataCell`] says who uses it.
//!
//! # Invariants
//!
//! - A value is dropped once, by `Data::drop_value`, or moved away once, by `Upgrade::commit`.
//! - It is dropped when the slot has let go of it and nobody uses it. The cell outlives both.
//! - Glue is code: the library of `Data::owner` has to stay mapped as long as the value lives. A [`Keeper`] of it is
//!   with the value. A newer generation that uses the value becomes the owner.
//! - An empty hash map points into the library that made or emptied it. The plugins' locks see to it that code meets only
//!   maps of its own, where they can reach all maps; else, as [`Layout::keeps_code`] says, each library that has used
//!   the value stays as well, and once there are two, both stay for good: a map can be moved out of its value, and
//!   nobody can tell when the last is gone.
//! - An upgrade begins when the value is claimed, that is when it is frozen and nobody uses it.
#![expect(unsafe_code, reason = "values and their glue are addresses to the host")]

mod claim;
mod types;
mod upgrade;

use std::alloc::{GlobalAlloc, Layout as Block, System};
use std::collections::HashMap;
use std::ffi::c_void;
use std::fmt;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use plugin_api::abi::{DATA_CLAIMED, DATA_FROZEN, DATA_GONE, DataCell};
use plugin_api::resident::{Layout, deep};

use self::claim::ClaimHolder;
use self::types::Nothing;
pub use self::types::{DataType, Keep, Keeper, UpgradeFn};
pub(super) use self::upgrade::{Remains, Upgrade, UpgradeFailure};
use super::Author;

/// The flags in a cell's word; below them users are counted.
const FLAGS: u64 = DATA_FROZEN | DATA_GONE | DATA_CLAIMED;
/// How often a waiting upgrade looks whether the last user has left: users leave without a word.
const LOOK: Duration = Duration::from_micros(500);

/// Generations that have used a value which may point into them, and what keeps their code.
type Touched = Vec<(Author, Keeper)>;

/// A value and what is known of it.
pub struct Data {
    cell: NonNull<DataCell>,
    /// As the owner describes it.
    owner: Mutex<(DataType, Author)>,
    /// Whether it may keep pointers to constants of the libraries that use it.
    keeps_code: bool,
    /// Generations that may have left such pointers in it.
    touched: Mutex<Touched>,
    /// Set by whoever drops the value or moves it away.
    is_over: AtomicBool,
    /// For those who wait for the end of an upgrade.
    gate: Mutex<()>,
    opened: Condvar,
    /// How often a value under this key has been upgraded.
    upgrades: AtomicU64,
    /// The upgrade that has claimed it. Lock order: this, then the gate.
    claimed_by: Mutex<Option<Arc<ClaimHolder>>>,
    /// Generations whose upgrade of it was given up, and after what time.
    given_up: Mutex<Vec<(Author, Duration)>>,
}

// SAFETY: `cell` points to a block of the `Data`'s own, written only through its atomic word. The value behind it
// is `Send + Sync` by the contract of `Data::new`. Two threads: one drops the value, which nobody uses any
// more, another looks at the word; neither touches what the other does.
unsafe impl Send for Data {}
// SAFETY: as for `Send`.
unsafe impl Sync for Data {}

impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Data").field("users", &self.users()).finish_non_exhaustive()
    }
}

/// Values that their slot has let go of and somebody uses, by the address of the cell.
static LINGERING: LazyLock<Mutex<HashMap<usize, Arc<Data>>>> = LazyLock::new(Mutex::default);

/// What became of the wish to use a value.
#[derive(Debug)]
pub enum Begun {
    /// The caller is a user.
    Using(NonNull<DataCell>),
    /// There is another value under the key by now, or none.
    Gone,
    /// An upgrade did not end in time.
    TimedOut,
}

impl Data {
    /// # Safety
    ///
    /// `value` is a whole value of the type, `Send + Sync`, in a block of the C library's, and nobody else's.
    unsafe fn new(ty: DataType, author: Author, value: *mut c_void) -> Arc<Data> {
        let cell = DataCell { size: size_of::<DataCell>(), users: AtomicU64::new(0), value };
        let (keeps_code, maker, keeper) = (ty.layout.keeps_code(), author.clone(), Arc::clone(&ty.keeper));
        let data = Arc::new(Data {
            cell: NonNull::from(Box::leak(Box::new(cell))),
            keeps_code,
            touched: Mutex::default(),
            owner: Mutex::new((ty, author)),
            is_over: AtomicBool::new(false),
            gate: Mutex::new(()),
            opened: Condvar::new(),
            upgrades: AtomicU64::new(0),
            claimed_by: Mutex::default(),
            given_up: Mutex::default(),
        });
        data.touch(&maker, &keeper);
        data
    }

    fn word(&self) -> &AtomicU64 {
        // SAFETY: the cell lives as long as `self`; of it only this atomic word is ever written.
        unsafe { &(*self.cell.as_ptr()).users }
    }

    fn value(&self) -> *mut c_void {
        // SAFETY: as for `word`; this field is never written.
        unsafe { (*self.cell.as_ptr()).value }
    }

    fn users(&self) -> u64 {
        self.word().load(Ordering::Relaxed) & !FLAGS
    }

    /// Makes the caller a user, waiting for the end of an upgrade. With `joins`, a thread that is a user already
    /// does not wait for an upgrade that waits for it.
    pub fn begin(&self, joins: bool, deadline: Instant) -> Begun {
        loop {
            let word = self.word().load(Ordering::Relaxed);
            let is_free = word & FLAGS == 0;
            let may_join = joins && word & FLAGS == DATA_FROZEN && word & !FLAGS > 0;
            if is_free || may_join {
                let taken =
                    self.word().compare_exchange_weak(word, word + 1, Ordering::Acquire, Ordering::Relaxed);
                if taken.is_ok() {
                    return Begun::Using(self.cell);
                }
            } else if word & DATA_GONE != 0 {
                return Begun::Gone;
            } else {
                let late = self.claim_deadline();
                let until = late.map_or(deadline, |late| late.min(deadline));
                let mut gate = self.gate.lock();
                // Looked at again under the lock under which the flags are changed.
                let is_shut = self.word().load(Ordering::Relaxed) & FLAGS == word & FLAGS;
                if is_shut && self.opened.wait_until(&mut gate, until).timed_out() {
                    drop(gate);
                    if self.give_up_late_claim() {
                        continue;
                    }
                    if Instant::now() >= deadline {
                        return Begun::TimedOut;
                    }
                    std::thread::sleep(LOOK);
                }
            }
        }
    }

    /// Waits for the end of an upgrade that is under way.
    pub(super) fn begin_and_leave(&self, deadline: Instant) -> bool {
        let is_using = matches!(self.begin(false, deadline), Begun::Using(_));
        if is_using {
            self.leave();
        }
        is_using
    }

    /// Takes a count back.
    fn leave(&self) {
        if self.word().fetch_sub(1, Ordering::AcqRel) == DATA_GONE + 1 {
            release(self.cell.as_ptr() as usize);
        }
    }

    /// Keeps users from beginning, and waits until those who are there have left. On an error it is as it was,
    /// with the number of users that there still are.
    fn claim(&self, deadline: Instant) -> Result<(), Claim> {
        {
            let _gate = self.gate.lock();
            // Flags change under the gate only, so what is looked at here stays until it is changed here. (A user
            // that leaves a gone value must not see another flag beside that, not even for a moment.)
            let before = self.word().load(Ordering::Relaxed);
            if before & DATA_GONE != 0 {
                return Err(Claim::Gone);
            }
            if before & DATA_FROZEN != 0 {
                return Err(Claim::Taken);
            }
            self.word().fetch_or(DATA_FROZEN, Ordering::Relaxed);
        }
        loop {
            let claimed = self.word().compare_exchange(
                DATA_FROZEN,
                DATA_FROZEN | DATA_CLAIMED,
                Ordering::Acquire,
                Ordering::Relaxed,
            );
            match claimed {
                Ok(_) => return Ok(()),
                Err(_) if Instant::now() >= deadline => {
                    let users = self.users();
                    self.open();
                    return Err(Claim::Busy(users));
                }
                Err(_) => std::thread::sleep(LOOK),
            }
        }
    }

    /// Lets users begin again.
    fn open(&self) {
        let _gate = self.gate.lock();
        self.word().fetch_and(!(DATA_FROZEN | DATA_CLAIMED), Ordering::Release);
        self.opened.notify_all();
    }

    /// The slot lets go: nobody begins any more, and the last user ends it. May happen twice.
    fn retire(self: &Arc<Self>) {
        let address = self.cell.as_ptr() as usize;
        LINGERING.lock().insert(address, Arc::clone(self));
        let before = {
            let _gate = self.gate.lock();
            // At once: a user that leaves has to see either flags of before or `DATA_GONE` alone.
            let shut = |word| Some((word | DATA_GONE) & !(DATA_FROZEN | DATA_CLAIMED));
            let (Ok(before) | Err(before)) =
                self.word().fetch_update(Ordering::AcqRel, Ordering::Relaxed, shut);
            self.opened.notify_all();
            before
        };
        if before & !FLAGS == 0 {
            release(address);
        }
    }

    fn drop_value(&self) {
        if self.is_over.swap(true, Ordering::AcqRel) {
            return;
        }
        let owner = self.owner.lock().0.clone();
        let root = &owner.layout.types[0];
        owner.keeper.is_held_by(format!("the drop of a `{}`", owner.name));
        // SAFETY: the glue is that of the value's own type, whose library is mapped; nobody uses the value, and
        // the flag above lets this happen once.
        let end = || unsafe { (owner.glue[0].drop_value)(self.value()) };
        // SAFETY: it uses the value, and its glue, which is code.
        unsafe { going_deep(&owner.layout, end) };
        if let Ok(block) = Block::from_size_align(root.size, root.align)
            && block.size() > 0
        {
            // SAFETY: the value came in a block of the C library's of this layout, and is dropped.
            unsafe { System.dealloc(self.value().cast(), block) };
        }
        drop(owner);
        self.free_code();
    }

    /// Notes a use by a generation. One that is newer than the owner becomes the owner: from now on its glue is
    /// used, and the earlier owner's code is not needed any more.
    fn note_user(&self, ty: &DataType, author: &Author) {
        let mut owner = self.owner.lock();
        if owner.1 == *author {
            return;
        }
        if self.is_over.load(Ordering::Acquire) {
            return;
        }
        self.touch(author, &ty.keeper);
        if owner.1.plugin != author.plugin || owner.1.generation < author.generation {
            let before = std::mem::replace(&mut *owner, (ty.clone(), author.clone()));
            drop(owner);
            // The last keeper of a library sends word to whoever unmaps it.
            drop(before);
        }
    }

    /// Notes that a generation is about to use the value, and may leave a pointer to a constant of its own in it.
    pub fn touch(&self, author: &Author, keeper: &Keeper) {
        if self.keeps_code {
            let mut touched = self.touched.lock();
            let is_over = self.is_over.load(Ordering::Acquire);
            if !is_over && !touched.iter().any(|(known, _)| known == author) {
                touched.push((author.clone(), Arc::clone(keeper)));
            }
        }
    }

    /// The value is over, and needs no code any more. (Its cell may be kept by the very library.)
    fn free_code(&self) {
        let owner = std::mem::replace(&mut self.owner.lock().0.keeper, Arc::new(Nothing));
        let touched = std::mem::take(&mut *self.touched.lock());
        keep_if_several(touched);
        drop(owner);
    }
}

impl Drop for Data {
    fn drop(&mut self) {
        // SAFETY: leaked in `new`. Whoever could reach the cell holds a reference to this `Data`, or is a user of
        // a lingering one.
        drop(unsafe { Box::from_raw(self.cell.as_ptr()) });
    }
}

/// Completes "held by ..." for the library of a type whose values are in use.
pub fn held_for(name: &str) -> String {
    format!("data of type `{name}`, which it would drop or has touched")
}

/// Runs `end`, which may go down a value step by step: on a large stack, where the type sets no end to that.
///
/// # Safety
///
/// `end` uses data, and what else may be used on another thread while this one waits.
unsafe fn going_deep(layout: &Layout, end: impl FnOnce()) {
    if !layout.is_recursive() {
        return end();
    }
    // SAFETY: all data is `Send`; for the rest, this function's contract.
    if let Err((run, error)) = unsafe { deep::on_large_stack(deep::TO_DROP, |_| end()) } {
        tracing::warn!("no memory for a large stack, so data is dropped on a small one: {error}");
        // The one that would have been made has no other stack than this.
        run(deep::Stack::here());
    }
}

/// Keeps the code of generations that have used the same value: one may have moved out what another had made.
fn keep_if_several(touched: Touched) {
    if touched.len() > 1 {
        // A pin that is never dropped; `held_by` names its type.
        std::mem::forget(touched);
    }
}

/// Why a value could not be claimed.
enum Claim {
    Gone,
    Taken,
    Busy(u64),
}

/// The last user of a gone value has left. An unknown address is ignored: that value is over already.
pub fn release(address: usize) {
    let data = LINGERING.lock().remove(&address);
    if let Some(data) = data {
        data.drop_value();
    }
}

/// The right of a slot to a value. With the last clone the slot lets go of it.
#[derive(Debug)]
pub struct Tenure(Arc<Data>);

impl Drop for Tenure {
    fn drop(&mut self) {
        self.0.retire();
    }
}

impl Tenure {
    /// Takes a value over.
    ///
    /// # Safety
    ///
    /// `value` is a whole value of the type, `Send + Sync`, in a block of the C library's, and nobody else's.
    pub unsafe fn new(ty: DataType, author: Author, value: *mut c_void) -> Arc<Tenure> {
        // SAFETY: this function's contract.
        Arc::new(Tenure(unsafe { Data::new(ty, author, value) }))
    }

    /// Ends the tenure now, whoever else has a clone of it.
    pub(super) fn end(&self) {
        self.0.retire();
    }

    /// The value, which may outlive the tenure.
    pub fn data(&self) -> &Arc<Data> {
        &self.0
    }

    /// The type's name for humans.
    pub fn type_name(&self) -> String {
        self.0.owner.lock().0.name.clone()
    }

    /// The type as the owner describes it, and the owner.
    pub(super) fn owner(&self) -> (DataType, Author) {
        self.0.owner.lock().clone()
    }

    pub(super) fn note_user(&self, ty: &DataType, author: &Author) {
        self.0.note_user(ty, author);
    }

    pub(super) fn describe(&self) -> serde_json::Value {
        let (ty, owner) = self.owner();
        serde_json::json!({
            "size": ty.layout.types[0].size,
            "layout": format!("{:016x}", xxhash_rust::xxh3::xxh3_64(ty.text.as_bytes())),
            "users": self.0.users(),
            "upgrades": self.0.upgrades.load(Ordering::Relaxed),
            "dropped_by": owner.to_string(),
        })
    }
}
