//! Data in the registry: used in place, counted while it is used.
//!
//! Two parties: a user, who wants to begin, and the host, which wants the value for itself to upgrade it.
//! Both change one atomic word, so one of them comes first. If the user does, the host finds it counted
//! and waits; if the host does, the user finds the flag, takes its count back, and asks the host, which
//! makes it wait. (Unless its thread uses the value already, in an outer function: then it joins, while
//! the host has not claimed the value, or both would wait for ever.) A user that leaves touches the word for the last time when it subtracts: after that the
//! cell may be gone, unless it was the last user of a gone value, for whom the host keeps it.
#![expect(unsafe_code, reason = "uses shared values by address")]

use std::cell::Cell;
use std::ffi::c_void;
use std::fmt;
use std::marker::PhantomData;
use std::mem::offset_of;
use std::ops::Deref;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use super::memory::{KeyMemory, MOST_FILLS};
use super::sealed::Keep;
use super::{Handle, Init, Key, RegistryError};
use crate::abi::{
    DATA_CLAIMED, DATA_FROZEN, DATA_GONE, DataCell, DataTable, FIND_JOIN, FIND_KEEP, HandleId, HostTable,
    Status,
};
use crate::host::{self, CallError, Owned};
use crate::resident::{Empties, Resident, TypeInfo, settle};

/// One use of a value.
pub struct Used<T> {
    cell: *const DataCell,
    of: PhantomData<fn() -> T>,
}

thread_local! {
    /// How many uses this thread has begun and not ended. A hint: a use may end on another thread.
    static USES: Cell<u32> = const { Cell::new(0) };
}

/// A call of the host begins, on a thread that may have begun uses before: those of earlier calls do not count. (One that
/// was leaked, or ended on another thread, would make this thread pass upgrades by for ever.)
pub(crate) fn begin_call() {
    USES.set(0);
}

impl<T> Used<T> {
    /// Of a cell in which the caller has just been counted.
    fn counted(cell: *const DataCell) -> Used<T> {
        USES.set(USES.get().saturating_add(1));
        Used { cell, of: PhantomData }
    }
}

// SAFETY: a use is a reference to a `T` that any thread may share, being `Sync`, and a count that is atomic.
// Two threads: one clones and drops uses, the other moves its own; each counts for itself.
unsafe impl<T: Send + Sync> Send for Used<T> {}
// SAFETY: as for `Send`; a shared use gives nothing but `&T`.
unsafe impl<T: Send + Sync> Sync for Used<T> {}

impl<T> Deref for Used<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the cell stays as long as it is counted as used, and so does its value, which the host
        // has found to be laid out as a `T`.
        unsafe { &*(*self.cell).value.cast::<T>() }
    }
}

impl<T> Clone for Used<T> {
    fn clone(&self) -> Used<T> {
        // One more where there is one: whoever waits for none waits for both.
        // SAFETY: the cell stays as long as it is counted as used.
        unsafe { &(*self.cell).users }.fetch_add(1, Ordering::Relaxed);
        Used::counted(self.cell)
    }
}

impl<T> Drop for Used<T> {
    fn drop(&mut self) {
        USES.set(USES.get().saturating_sub(1));
        // SAFETY: this use is counted.
        unsafe { leave(self.cell) };
    }
}

impl<T: fmt::Debug> fmt::Debug for Used<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

/// The cell that a `Lazy` has found. The host keeps each one to the end of the library, because another thread may be
/// about to look at it; so a `Lazy` whose value leaves its key again and again stops remembering, and asks the host at
/// each use.
#[derive(Debug)]
pub struct CachedCell<T> {
    cell: AtomicPtr<DataCell>,
    /// How many cells it has remembered.
    fills: AtomicU32,
    /// One for values of another type is of another type.
    of: PhantomData<fn() -> T>,
}

impl<T> CachedCell<T> {
    #[expect(clippy::declare_interior_mutable_const, reason = "each `Lazy` begins with its own")]
    const EMPTY: CachedCell<T> =
        CachedCell { cell: AtomicPtr::new(ptr::null_mut()), fills: AtomicU32::new(0), of: PhantomData };

    /// Whether another cell may be remembered.
    fn may_fill(&self) -> bool {
        self.fills.load(Ordering::Relaxed) < MOST_FILLS
    }

    /// Remembers a cell that the host keeps; the last one that it may is not looked at any more.
    fn fill(&self, cell: *const DataCell) {
        if self.cell.swap(cell.cast_mut(), Ordering::AcqRel).cast_const() != cell
            && self.fills.fetch_add(1, Ordering::Relaxed) + 1 >= MOST_FILLS
        {
            self.cell.store(ptr::null_mut(), Ordering::Release);
        }
    }
}

/// Begins to use a value, if its cell allows it.
///
/// # Safety
///
/// `cell` is null or one that the host was asked to keep: it is readable as long as this library is mapped. Its value
/// was found as a `T`.
#[inline]
unsafe fn begin<T>(cell: *const DataCell) -> Option<Used<T>> {
    if cell.is_null() {
        return None;
    }
    // SAFETY: this function's contract.
    let before = unsafe { &(*cell).users }.fetch_add(1, Ordering::Acquire);
    if before & (DATA_FROZEN | DATA_GONE | DATA_CLAIMED) == 0 {
        return Some(Used::counted(cell));
    }
    // SAFETY: counted a few lines above.
    unsafe { leave(cell) };
    None
}

/// Takes a count back.
///
/// # Safety
///
/// The caller has counted itself in the cell, and uses neither cell nor value any more.
#[inline]
unsafe fn leave(cell: *const DataCell) {
    // SAFETY: counted by this function's contract, so the cell is there until the subtraction.
    if unsafe { &(*cell).users }.fetch_sub(1, Ordering::AcqRel) == DATA_GONE + 1 {
        // SAFETY: the value is gone, and this was its last user.
        unsafe { release(cell) };
    }
}

/// Tells the host that the last user has left.
///
/// # Safety
///
/// The value of the cell is gone, and the caller was its last user.
#[cold]
unsafe fn release(cell: *const DataCell) {
    if let Ok((host, table)) = tables() {
        // SAFETY: the table's own `ctx`; the host keeps the cell of a gone value until this call.
        unsafe { (table.release)(host.ctx, cell) };
    }
}

/// The host's table, and the part of it that is for data.
fn tables() -> Result<(&'static HostTable, &'static DataTable), CallError> {
    let host = host::table()?;
    if host.size < offset_of!(HostTable, data) + size_of::<*const DataTable>() {
        return Err(CallError::new(Status::INVALID, "this host is too old to keep data; update the host"));
    }
    // SAFETY: a host whose table reaches this far has filled it in, for as long as the table lives.
    Ok((host, unsafe { &*host.data }))
}

impl<T: Resident + Send + Sync> Keep for T {
    type Made = T;
    type Held = Used<T>;
    type Cache = CachedCell<T>;
    type Lent<'a> = Handle<T>;
    const EMPTY: CachedCell<T> = CachedCell::EMPTY;

    fn target(held: &Used<T>) -> &T {
        held
    }

    fn into_owned(mut made: T) -> Result<Owned, String> {
        // From here on others may reach what is not below a lock.
        settle(&mut made, Empties::Nowhere);
        let (host, table) = tables().map_err(|error| error.to_string())?;
        let view = TypeInfo::of::<T>().view(0);
        let value = Box::into_raw(Box::new(made));
        let mut id = HandleId::NONE;
        let created = host::call(|error| {
            // SAFETY: the table's own `ctx`; the views and `id` live until the call returns; the value is a
            // whole `T` in a block of the C library's, which is the global allocator's.
            unsafe { (table.create)(host.ctx, &view, value.cast::<c_void>(), &mut id, error) }
        });
        match created {
            Ok(()) => {
                crate::alloc::handed_over(size_of::<T>());
                Ok(Owned::new(id))
            }
            Err(error) => {
                // SAFETY: the host did not take it.
                drop(unsafe { Box::from_raw(value) });
                Err(error.to_string())
            }
        }
    }

    fn find(key: Key<'_>, init: Option<&Init<'_>>) -> Result<Used<T>, RegistryError> {
        find(key, init, 0)
    }

    #[inline]
    fn recall(memory: KeyMemory<T>) -> Option<Used<T>> {
        // SAFETY: `find_to_recall` asked for it to be kept, and the place is taken for this type.
        unsafe { begin(memory.cell.load(Ordering::Acquire).cast()) }
    }

    fn find_to_recall(memory: KeyMemory<T>, key: Key<'_>, init: &Init<'_>) -> Result<Used<T>, RegistryError> {
        if !memory.may_fill() {
            return find(key, Some(init), 0);
        }
        let found: Used<T> = find(key, Some(init), FIND_KEEP)?;
        memory.fill_cell(found.cell.cast_mut().cast());
        Ok(found)
    }

    #[inline]
    fn remembered(cache: &CachedCell<T>) -> Option<Handle<T>> {
        // SAFETY: `lend` asked for it to be kept.
        unsafe { begin(cache.cell.load(Ordering::Acquire)) }.map(Handle)
    }

    fn lend(cache: &CachedCell<T>, key: Key<'_>, init: &Init<'_>) -> Result<Handle<T>, RegistryError> {
        if !cache.may_fill() {
            return find(key, Some(init), 0).map(Handle);
        }
        let found: Used<T> = find(key, Some(init), FIND_KEEP)?;
        cache.fill(found.cell);
        Ok(Handle(found))
    }

    fn prepare(_: &CachedCell<T>, key: Key<'_>, init: &Init<'_>) -> Result<(), RegistryError> {
        let (host, table) = tables()?;
        let (name, view) = (key.view(), TypeInfo::of::<T>().view(key.on_change));
        Ok(host::call(|error| {
            // SAFETY: the table's own `ctx`; the views and `init` live until the call returns.
            unsafe { (table.prepare)(host.ctx, &name, &view, init.view(), error) }
        })?)
    }
}

/// Asks the host for a use of the value.
fn find<T: Resident>(key: Key<'_>, init: Option<&Init<'_>>, flags: u32) -> Result<Used<T>, RegistryError> {
    let (host, table) = tables()?;
    let (name, view) = (key.view(), TypeInfo::of::<T>().view(key.on_change));
    let init = init.map_or(ptr::null(), |init| ptr::from_ref(init.view()));
    let flags = if USES.get() > 0 { flags | FIND_JOIN } else { flags };
    let mut cell = ptr::null();
    host::call(|error| {
        // SAFETY: the table's own `ctx`; the views, `init` and `cell` live until the call returns.
        unsafe { (table.find)(host.ctx, &name, &view, init, flags, &mut cell, error) }
    })?;
    Ok(Used::counted(cell))
}
