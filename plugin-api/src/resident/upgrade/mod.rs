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
//! # Invariants
//!
//! - Nobody uses the old value meanwhile; the host sees to it.
//! - What is made here and is not below a lock is settled when it is made; what is copied from there was settled before.
//!   What is below a lock gets a new lock, without a home.
//! - What an entry of a list refers to stays where it is until the list has been worked off: values that
//!   have to be put together before they are moved in are *staged* in blocks that live as long.
#![expect(unsafe_code, reason = "moves values between layouts by address")]

mod misfit;
mod old;
mod step;
mod work;

use std::alloc;
use std::collections::{HashMap, HashSet};
use std::ffi::c_void;
use std::marker::PhantomData;

pub use self::misfit::Misfit;
pub use self::old::{Old, OldFields, OldType};
use self::step::Step;
pub use self::work::Work;
use super::deep::{TO_BUILD, on_large_stack};
use super::layout::Layout;
use super::{Resident, TypeInfo};
use crate::abi::{ErrorSink, OldDataView, Status, UpgradeView};
use crate::entry::{guard, report};

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
    let mut work = Work {
        new: TypeInfo::of::<T>(),
        stack: None,
        same: HashMap::new(),
        fitting: HashSet::new(),
        commit: Vec::new(),
        undo: Vec::new(),
        staged: Vec::new(),
    };
    // SAFETY: the host passes a value that is valid for this call, and that nobody uses.
    let built = guard(|| unsafe { build::<T>(&*old, &mut work) });
    let failed = match built {
        Ok(Ok(value)) => {
            let data = Box::into_raw(Box::new(work)).cast();
            let view = UpgradeView {
                size: size_of::<UpgradeView>(),
                value: value.cast(),
                data,
                finish: Some(finish),
            };
            // SAFETY: `out` is writable during this call.
            unsafe { out.write(view) };
            return Status::OK;
        }
        Ok(Err(misfit)) => (Status::OUTDATED, misfit.to_string()),
        Err(panic) => (Status::PANICKED, format!("the upgrade panicked: {panic}")),
    };
    work.finish(false);
    // SAFETY: the host passes a sink that is valid for this call.
    unsafe { report(error, failed.0, &failed.1) }
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
    let old = Old { ty, glue, at: view.value.cast(), lent: PhantomData };
    work.check::<T>(ty)?;
    let into = work.block::<T>();
    if work.fitting.iter().any(|(changed, _)| layout.leads_back(*changed)) {
        // SAFETY: as below.
        unsafe { place_deep(old, into, work)? };
    } else {
        // SAFETY: the block is fresh and stays; nobody uses the old value.
        unsafe { work.place(old, into)? };
    }
    let root = &layout.types[0];
    let freed = alloc::Layout::from_size_align(root.size, root.align)
        .map_err(|_| Misfit::new("its layout says a size that no value has"))?;
    if freed.size() > 0 {
        work.commit.push(Step::Free(view.value.cast(), freed));
    }
    Ok(into)
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
        unsafe { work.place(old, into) }
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
    let work = unsafe { Box::from_raw(data.cast::<Work>()) };
    let _ = guard(|| work.finish(commit == 1));
}
