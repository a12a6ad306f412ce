//! An edit of a definition, without a host: what becomes of a value. For tests of upgrades.
//!
//! The definitions before and after lie in two modules of one program, which stand for the two generations.
//!
//! # Invariants
//!
//! - An upgrade is ended once: by [`Built::commit`], [`Built::undo`], or its drop, which undoes it.
#![expect(unsafe_code, reason = "plays the host's side of an upgrade")]

use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ptr;
use std::sync::atomic::AtomicU32;

use super::with_words;
use crate::abi::{OldDataView, StrView, UpgradeView};
use crate::resident::{Resident, TypeInfo};

/// An upgrade that waits for its end.
#[derive(Debug)]
pub struct Built<Old: Resident, New: Resident> {
    value: *mut Old,
    view: UpgradeView,
    new: PhantomData<New>,
}

/// Builds what a value becomes when its definition is edited. In the older definition's description `was` is replaced by
/// `is`, such as `::old::` by `::new::`.
///
/// # Errors
///
/// The value, as it was, and why it cannot become a `New`.
///
/// # Safety
///
/// Where the descriptions of two types are the same after that, a value of the one may be used as one of the other.
pub unsafe fn build<Old, New>(value: Old, names: (&str, &str)) -> Result<Built<Old, New>, (Box<Old>, String)>
where
    Old: Resident + Send + Sync,
    New: Resident + Send + Sync,
{
    // SAFETY: this function's contract.
    unsafe { build_with(value, names, ptr::null()) }
}

/// As [`build`], of an upgrade that may be given up by way of `progress`.
///
/// # Safety
///
/// As [`build`]; `progress` is null or valid during this call.
pub(crate) unsafe fn build_with<Old, New>(
    value: Old,
    (was, is): (&str, &str),
    progress: *const AtomicU32,
) -> Result<Built<Old, New>, (Box<Old>, String)>
where
    Old: Resident + Send + Sync,
    New: Resident + Send + Sync,
{
    let (before, after) = (TypeInfo::of::<Old>().view(0), TypeInfo::of::<New>().view(0));
    let text = TypeInfo::of::<Old>().layout.to_text().replace(was, is);
    let value = Box::into_raw(Box::new(value));
    let old = OldDataView {
        size: size_of::<OldDataView>(),
        layout: StrView::new(&text),
        glue: before.glue,
        glue_count: before.glue_count,
        value: value.cast(),
        progress,
    };
    let mut view = UpgradeView {
        size: size_of::<UpgradeView>(),
        value: ptr::null_mut(),
        data: ptr::null_mut(),
        finish: None,
        lost: StrView::new(""),
        hooked: 0,
    };
    // SAFETY: all views live until the call returns; nobody uses the value.
    let built = with_words(|sink| unsafe { (after.upgrade)(&raw const old, &raw mut view, sink) });
    match built {
        Ok(()) => Ok(Built { value, view, new: PhantomData }),
        // SAFETY: a failed upgrade leaves the value as it was, in its block.
        Err(words) => Err((unsafe { Box::from_raw(value) }, words)),
    }
}

impl<Old: Resident, New: Resident> Built<Old, New> {
    /// What the upgrade drops, such as `Item.colour: String`.
    pub fn dropped(&self) -> Vec<String> {
        // SAFETY: it stays until the end.
        let text = String::from_utf8_lossy(unsafe { self.view.lost.as_bytes() });
        text.lines().map(str::to_owned).collect()
    }

    /// The new value; what is left of the old one is dropped.
    pub fn commit(self) -> Box<New> {
        let built = ManuallyDrop::new(self);
        built.end(1);
        // SAFETY: a whole `New` in a block of its own, which is the caller's from here on.
        unsafe { Box::from_raw(built.view.value.cast::<New>()) }
    }

    /// The old value; what was made for the new one is dropped.
    pub fn undo(self) -> Box<Old> {
        let built = ManuallyDrop::new(self);
        built.end(0);
        // SAFETY: it is as it was, in its block, and the caller's from here on.
        unsafe { Box::from_raw(built.value) }
    }

    fn end(&self, commit: u32) {
        if let Some(finish) = self.view.finish {
            // SAFETY: whoever calls this gives `self` up, so it is the only end of this upgrade.
            unsafe { finish(self.view.data, commit) };
        }
    }
}

impl<Old: Resident, New: Resident> Drop for Built<Old, New> {
    fn drop(&mut self) {
        self.end(0);
        // SAFETY: as in `undo`.
        drop(unsafe { Box::from_raw(self.value) });
    }
}
