//! From a value of an older layout to one of today's: all of it, or nothing.
//!
//! The new code knows its own types; of the old value it has the layout text, the address, and the glue
//! of the code that made it. The new value is built aside, in memory of its own. What stayed is *copied* as
//! bytes, so the old value remains as it was while anything can still fail: a default or a hook may
//! panic, a field may not fit. Until the end the value exists twice as bytes, but is used only once. Then
//! one of two lists is worked off, which cannot fail:
//!
//! - *commit*: what was removed is dropped and emptied containers are freed, by the old code's glue;
//! - *undo*: what was made is dropped and new containers are freed, by this code; what was copied is forgotten.
//!
//! # What the code of an author sees
//!
//! An upgrade may be refused until the very end, by a field that does not fit or by the plugin's `check`. So whatever an
//! author's code does until then, the older value has to stay as it was. Of that code nothing is assumed but that it
//! returns or panics: it may change what it sees through a lock or an atomic, lie, keep what it can clone, ask the registry.
//! In order:
//!
//! 1. *Whether it fits* is found out from the texts of the layouts alone. No author's code runs.
//! 2. *Parts are moved*, as bytes. No author's code sees these copies; it could free what the older value still owns.
//! 3. *`Default` and `default = ...`* are given nothing. What they return belongs to the new value and to the list that
//!    undoes it.
//! 4. *`Hash`, `Eq`, `Ord`* run where a map or set is filled. They see keys that are real copies (see `copy`), in memory of
//!    their own, and no values. The map is one of keys without a drop until it is done, so neither a panic nor an answer that
//!    contradicts another drops anything; that an entry is missing is found by counting.
//! 5. *`upgrade` hooks* see the older value itself where it cannot be changed through a reference, and a copy where it can.
//!    What they return is as what a default returns.
//! 6. Either *undo*: each value that defaults and hooks have made is dropped by its `Drop`, copies are freed without one.
//!    The older value is not touched, so it may be in use by then.
//! 7. Or *commit*: the new value is in use, and what was dropped of the older one is dropped by the `Drop` of the code that
//!    made it. Nothing else leads there.
//!
//! # Invariants
//!
//! - No code of an author runs on anything that undoing the upgrade relies on.
//! - While such code runs the host may give the upgrade up, and others use the older value: see `progress`.
//! - Nobody uses the old value meanwhile; the host sees to it.
//! - No value counts as built that was not written: what builds one returns [`Written`], and only writing yields that.
//! - What is made here and is not below a lock is settled when it is made; what is copied from there was settled before.
//!   What is below a lock gets a new lock, without a home.
//! - What an entry of a list refers to stays where it is until the list has been worked off: values that
//!   have to be put together before they are moved in are *staged* in blocks that live as long.
//! - An undo goes as deep as what was made, so it has a stack of the size that it was made on.
#![expect(unsafe_code, reason = "moves values between layouts by address")]

mod copy;
mod fields;
mod lost;
mod misfit;
mod old;
mod progress;
mod step;
mod work;

use std::alloc;
use std::ffi::c_void;
use std::mem::offset_of;

use self::copy::Shown;
pub(crate) use self::copy::free_copy;
pub use self::fields::{Definition, FieldNames, VariantNames};
pub use self::misfit::Misfit;
pub use self::old::{Old, OldType};
use self::progress::Progress;
use self::step::Step;
pub use self::work::{Work, Written};
use super::deep::{TO_BUILD, on_large_stack};
use super::layout::Layout;
use super::{Empties, Resident, TypeInfo, settle};
use crate::abi::{ErrorSink, OldDataView, Status, StrView, UpgradeView};
use crate::entry::{guard, report};

/// An upgrade that waits to be ended.
struct Built {
    work: Work,
    /// What it drops, one a line; the host has been shown where it is.
    lost: String,
}

/// Builds a `T` from the older value that the host has.
///
/// # Safety
///
/// The contract of [`DataTypeView::upgrade`](crate::abi::DataTypeView).
pub(super) unsafe extern "C" fn run<T: Resident>(
    old: *const OldDataView,
    out: *mut UpgradeView,
    error: *const ErrorSink,
) -> Status {
    let mut work = Work::new(TypeInfo::of::<T>());
    // SAFETY: the host passes a view that is valid for this call, in which the work ends.
    work.progress = unsafe { Progress::of(&*old) };
    // SAFETY: the host passes a value that is valid for this call, and that nobody uses.
    let built = guard(|| unsafe { build::<T>(&*old, &mut work) });
    let failed = match built {
        Ok(Ok(value)) => {
            let lost = work.lost.to_text();
            let built = Box::new(Built { work, lost });
            let (lost, hooked) = (StrView::new(&built.lost), u32::from(built.work.is_hooked));
            // SAFETY: `out` is writable during this call, and says how large it is.
            unsafe { tell(out, value.cast(), (lost, hooked), Box::into_raw(built).cast()) };
            return Status::OK;
        }
        Ok(Err(misfit)) => (Status::OUTDATED, misfit.to_string()),
        Err(panic) => (Status::PANICKED, format!("the upgrade panicked: {panic}")),
    };
    work.progress.end();
    work.undo();
    // SAFETY: the host passes a sink that is valid for this call.
    unsafe { report(error, failed.0, &failed.1) }
}

/// Tells the host what was built, as far as it can hear it: hosts from before `lost` have a shorter struct.
///
/// # Safety
///
/// `out` is writable for as many bytes as it says.
unsafe fn tell(out: *mut UpgradeView, value: *mut c_void, (lost, hooked): (StrView, u32), data: *mut c_void) {
    // SAFETY: this function's contract; every version of the struct has these.
    unsafe {
        (*out).value = value;
        (*out).data = data;
        (*out).finish = Some(finish);
    }
    // SAFETY: this function's contract.
    let has_room = unsafe { (*out).size } >= offset_of!(UpgradeView, lost) + size_of::<StrView>();
    if has_room {
        // SAFETY: the struct reaches that far.
        unsafe { (*out).lost = lost };
    }
    // SAFETY: this function's contract.
    let has_room = unsafe { (*out).size } >= offset_of!(UpgradeView, hooked) + size_of::<u32>();
    if has_room {
        // SAFETY: the struct reaches that far.
        unsafe { (*out).hooked = hooked };
    }
}

/// # Safety
///
/// As [`run`].
unsafe fn build<T: Resident>(view: &OldDataView, work: &mut Work) -> Result<*mut T, Misfit> {
    // SAFETY: the host's views are valid for this call.
    let text = String::from_utf8_lossy(unsafe { view.layout.as_bytes() });
    let layout = Layout::parse(&text)
        .filter(|layout| layout.types.len() == view.glue_count)
        .ok_or_else(|| Misfit::new("its layout is written in a form that this code cannot read"))?;
    if layout.compiler != work.new.layout.compiler {
        return Err(Misfit::new(layout.difference(&work.new.layout)));
    }
    // SAFETY: the host passes as many as it says.
    let glue = unsafe { std::slice::from_raw_parts(view.glue, view.glue_count) };
    let ty = OldType { layout: &layout, number: 0 };
    let shown = Shown::default();
    let old = Old { ty, glue, at: view.value.cast(), shown: &shown };
    work.check::<T>(ty)?;
    let into = work.block::<T>();
    if layout.is_recursive() || work.new.layout.is_recursive() {
        // SAFETY: as below.
        unsafe { place_deep(old, into, work)? };
    } else {
        // SAFETY: the block is fresh and stays; nobody uses the old value.
        let _written = unsafe { work.place(old, into)? };
    }
    let root = &layout.types[0];
    let freed = alloc::Layout::from_size_align(root.size, root.align)
        .map_err(|_| Misfit::new("its layout says a size that no value has"))?;
    if freed.size() > 0 {
        work.commit.push(Step::Free(view.value.cast(), freed));
    }
    Ok(into)
}

/// Builds a copy of a value of the type, which may outlive it.
///
/// # Safety
///
/// The contract of [`DataTypeView::copy`](crate::abi::DataTypeView).
pub(super) unsafe extern "C" fn copy_whole<T: Resident>(
    old: *const OldDataView,
    out: *mut UpgradeView,
    error: *const ErrorSink,
) -> Status {
    let mut work = Work::new(TypeInfo::of::<T>());
    // SAFETY: the host passes a view that is valid for this call, in which the work ends.
    work.progress = unsafe { Progress::of(&*old) };
    // SAFETY: the host passes a value that is valid for this call, and that nobody uses.
    let failed = match guard(|| unsafe { copy_of::<T>(&*old, &mut work) }) {
        Ok(Ok(copy)) => {
            work.keep(copy.cast());
            work.forget();
            // SAFETY: `out` is writable during this call; every version of the struct has these.
            unsafe {
                (*out).value = copy.cast();
                (*out).finish = None;
            }
            return Status::OK;
        }
        Ok(Err(misfit)) => (Status::OUTDATED, misfit.to_string()),
        Err(panic) => (Status::PANICKED, format!("the copy panicked: {panic}")),
    };
    work.progress.end();
    work.undo();
    // SAFETY: the host passes a sink that is valid for this call.
    unsafe { report(error, failed.0, &failed.1) }
}

/// # Safety
///
/// As [`copy_whole`].
unsafe fn copy_of<T: Resident>(view: &OldDataView, work: &mut Work) -> Result<*mut T, Misfit> {
    // SAFETY: the host's views are valid for this call.
    let text = String::from_utf8_lossy(unsafe { view.layout.as_bytes() });
    let layout = Layout::parse(&text)
        .filter(|layout| layout.types.len() == view.glue_count && *layout == work.new.layout)
        .ok_or_else(|| Misfit::new("it is laid out otherwise"))?;
    if layout.is_recursive() {
        return Err(Misfit::new("it may go deep, so it is not copied"));
    }
    work.new.may_outlive_its_original().map_err(Misfit::new)?;
    // SAFETY: the host passes as many as it says.
    let glue = unsafe { std::slice::from_raw_parts(view.glue, view.glue_count) };
    let shown = Shown::default();
    let old = Old { ty: OldType { layout: &layout, number: 0 }, glue, at: view.value.cast(), shown: &shown };
    // SAFETY: nobody uses the value.
    let copy = unsafe { work.copy::<T>(old)? };
    // SAFETY: whole, in a block of its own, and nobody else's yet.
    settle(unsafe { &mut *copy }, Empties::Nowhere);
    Ok(copy)
}

/// As [`Work::place`] for the whole value, which may go deep. (A hook that asks the registry there does so on a thread of
/// its own.)
///
/// # Safety
///
/// As [`Resident::rebuild`].
unsafe fn place_deep<T: Resident>(old: Old<'_>, into: *mut T, work: &mut Work) -> Result<(), Misfit> {
    let place = |stack| {
        work.stack = Some(stack);
        // SAFETY: this function's contract.
        unsafe { work.place(old, into) }.map(|_written| ())
    };
    // SAFETY: it leads to the older value and to the parts of the new one, which are `Send`: the registry takes no data that
    // is not. Nobody else uses them, and the lists of the work are used here alone.
    let placed = unsafe { on_large_stack(TO_BUILD, place) };
    placed.unwrap_or_else(|(_, error)| {
        Err(Misfit::new(format!("it may go deep, and there is no memory for a large stack: {error}")))
    })
}

/// Ends an upgrade.
///
/// # Safety
///
/// `data` comes from [`run`], and this is the first call with it.
unsafe extern "C" fn finish(data: *mut c_void, commit: u32) {
    // The steps catch their own panics.
    // SAFETY: this function's contract.
    let Built { work, .. } = *unsafe { Box::from_raw(data.cast::<Built>()) };
    let _ = guard(|| if commit == 1 { work.finish() } else { work.undo() });
}
