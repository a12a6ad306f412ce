//! One value's upgrade: built beside the old one, then valid or undone.
//!
//! Owns the claim on the old value while it lasts, and what is left of it afterwards. Does not own when this happens, which
//! is for the registry's own `upgrade` to say, nor how it is done, which is the new code's.
//!
//! # Invariants
//!
//! - The old value is claimed from before the new code sees it until the upgrade is over.
//! - The new code is told once how it ended.
#![expect(unsafe_code, reason = "calls the functions of types with addresses of values")]

use std::ffi::c_void;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use plugin_api::abi::{ErrorSink, ErrorView, OldDataView, Status, StrView, UpgradeView};

use super::claim::ClaimHolder;
use super::{Claim, Data, DataType, Keeper, Tenure, going_deep, held_for, keep_if_several};
use crate::registry::Author;

/// An upgraded value that waits to be valid. Dropped, it is undone, and the old value is in use again.
pub(in crate::registry) struct Upgrade {
    old: Arc<Tenure>,
    /// Of the glue that the new code was given: another generation may become the owner meanwhile.
    glue: Keeper,
    ty: DataType,
    author: Author,
    view: Option<UpgradeView>,
    /// Whether the older value is claimed for this.
    has_claim: bool,
    /// What it drops of the old value, such as `Item.colour: String`.
    lost: Vec<String>,
    /// A copy of the old value, where going back needs one; or why there is none.
    kept: Option<OlderCopy>,
}

// SAFETY: the view's functions may be called on any thread, by the contract of `UpgradeView`; the values it leads to
// are used by nobody until one thread ends the upgrade.
unsafe impl Send for Upgrade {}

/// A copy of an older value, its type and whose that is; or why there is none.
pub(in crate::registry) type OlderCopy = Result<(Arc<Tenure>, DataType, Author), String>;

/// Why there is no upgrade. The old value is in use as before.
#[derive(Debug)]
pub(in crate::registry) enum UpgradeFailure {
    /// There is another value by now: look again.
    Gone,
    /// Another upgrade of the value is under way.
    Taken,
    /// Code of its author did not return in time.
    GivenUp(Duration),
    /// It was used all the time.
    Busy(u64),
    /// The new code could not do it; its words.
    Refused(String),
}

impl Upgrade {
    /// Claims the old value and lets the new code build the new one beside it.
    pub(in crate::registry) fn build(
        old: &Arc<Tenure>,
        ty: &DataType,
        author: &Author,
        deadline: Instant,
        allowed: Duration,
    ) -> Result<Upgrade, UpgradeFailure> {
        old.0.claim(deadline).map_err(|claim| match claim {
            Claim::Gone => UpgradeFailure::Gone,
            Claim::Taken => UpgradeFailure::Taken,
            Claim::Busy(users) => UpgradeFailure::Busy(users),
        })?;
        // From here on, also for a panic of ours, dropping it opens the value again.
        let (before, _) = old.owner();
        let mut upgrade = Upgrade {
            old: Arc::clone(old),
            glue: Arc::clone(&before.keeper),
            ty: ty.clone(),
            author: author.clone(),
            view: None,
            has_claim: true,
            lost: Vec::new(),
            kept: None,
        };
        let holder = ClaimHolder::new(author, allowed);
        old.0.note_claim(&holder);
        // A hook sees the old value, locks and all, and may exchange what is in it.
        old.0.touch(author, &ty.keeper);
        let view = OldDataView {
            size: size_of::<OldDataView>(),
            layout: StrView::new(&before.text),
            glue: before.glue.as_ptr(),
            glue_count: before.glue.len(),
            value: old.0.value(),
            progress: holder.progress(),
        };
        let mut made = nothing_made();
        let mut words = String::new();
        let sink = ErrorSink { data: (&raw mut words).cast(), report: Some(report) };
        // SAFETY: the value is claimed, so nobody uses it; all views live until the call returns.
        let status = unsafe { (ty.upgrade)(&view, &mut made, &sink) };
        upgrade.has_claim = old.0.note_return(&holder);
        if status == Status::OK {
            // SAFETY: the new code's text, which stays until `finish`.
            let lost = String::from_utf8_lossy(unsafe { made.lost.as_bytes() });
            upgrade.lost = lost.lines().map(str::to_owned).collect();
            upgrade.view = Some(made);
        }
        if upgrade.has_claim && status == Status::OK && (!upgrade.lost.is_empty() || made.hooked == 1) {
            upgrade.keep_older(&view, allowed);
        }
        match status {
            _ if !upgrade.has_claim => Err(UpgradeFailure::GivenUp(holder.allowed())),
            Status::OK => Ok(upgrade),
            _ => Err(UpgradeFailure::Refused(words)),
        }
    }

    /// Copies the older value by its own code, so that going back brings it back.
    fn keep_older(&mut self, of: &OldDataView, allowed: Duration) {
        let (before, owner) = self.old.owner();
        let Some(copy) = before.copy else {
            self.kept = Some(Err("its code was built with an older plugin-api".to_owned()));
            return;
        };
        // That code compares keys, which may hang as well as the new one's.
        let holder = ClaimHolder::new(&self.author, allowed);
        self.old.0.note_claim(&holder);
        let view = OldDataView { progress: holder.progress(), ..*of };
        let mut made = nothing_made();
        let mut words = String::new();
        let sink = ErrorSink { data: (&raw mut words).cast(), report: Some(report) };
        // SAFETY: the value is claimed, so nobody uses it; its type is `before`'s, whose library is mapped; all views live
        // until the call returns.
        let status = unsafe { copy(&view, &mut made, &sink) };
        self.has_claim = self.old.0.note_return(&holder);
        self.kept = Some(if status == Status::OK {
            // SAFETY: a whole value of the type in a block of the C library's, which is ours now.
            let value = unsafe { Tenure::new(before.clone(), owner.clone(), made.value) };
            Ok((value, before, owner))
        } else {
            Err(words)
        });
    }

    /// The copy of the older value, if there is to be one, for the registry to keep.
    pub(in crate::registry) fn take_kept(&mut self) -> Option<OlderCopy> {
        self.kept.take()
    }

    /// Lets users of the older value begin again: what is left of undoing this does not touch it, and may take its time.
    pub(in crate::registry) fn reopen(&mut self) {
        // After a commit the value is over, and stays shut until its slot has the new one.
        if self.has_claim && !self.old.0.is_over.load(Ordering::Acquire) {
            self.old.0.end_claim();
        }
        self.has_claim = false;
    }

    /// Whose place the new value takes.
    pub(in crate::registry) fn old(&self) -> &Arc<Tenure> {
        &self.old
    }

    /// What it drops of the old value, by name and type.
    pub(in crate::registry) fn lost(&self) -> &[String] {
        &self.lost
    }

    /// Makes the new value valid. The old one is over; what is left of it goes with the second thing returned.
    pub(in crate::registry) fn commit(mut self) -> (Arc<Tenure>, Remains) {
        let view = self.view.take().expect("an upgrade that was built has a value");
        // What is left of the old value is the new code's to free.
        self.old.0.is_over.store(true, Ordering::Release);
        // Maps that stayed are the old ones, empty or not.
        let touched = std::mem::take(&mut *self.old.0.touched.lock());
        // SAFETY: the new code made the value of its own type, and it is valid since it is to be committed.
        let new = unsafe { Data::new(self.ty.clone(), self.author.clone(), view.value) };
        if new.keeps_code {
            let earlier = touched.into_iter().filter(|(author, _)| *author != self.author);
            new.touched.lock().extend(earlier);
        } else {
            keep_if_several(touched);
        }
        new.upgrades.store(self.old.0.upgrades.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        let (old, glue, ty) = (Arc::clone(&self.old), Arc::clone(&self.glue), self.ty.clone());
        (Arc::new(Tenure(new)), Remains { old, glue, ty, view })
    }
}

/// What is left of a value that was upgraded. It is freed when this is dropped, by the code that built the new value and
/// the code that had the old one; the new one may be in use meanwhile.
pub(in crate::registry) struct Remains {
    old: Arc<Tenure>,
    glue: Keeper,
    ty: DataType,
    view: UpgradeView,
}

// SAFETY: as for `Upgrade`.
unsafe impl Send for Remains {}

impl Drop for Remains {
    fn drop(&mut self) {
        let (before, _) = self.old.owner();
        self.glue.is_held_by(format!("the drop of what a `{}` has lost in its upgrade", before.name));
        if let Some(finish) = self.view.finish {
            // SAFETY: the first and only end of this upgrade; `ty` and `glue` keep both libraries mapped.
            let end = || unsafe { finish(self.view.data, 1) };
            // SAFETY: it uses what is left of the value; the view's functions may be called on any thread.
            unsafe { going_deep(&before.layout, end) };
        }
        // A copy of the older value may be kept.
        self.glue.is_held_by(held_for(&before.name));
        drop(before);
        self.old.0.free_code();
    }
}

impl fmt::Debug for Remains {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remains").field("of", &self.ty).finish_non_exhaustive()
    }
}

impl Drop for Upgrade {
    fn drop(&mut self) {
        self.reopen();
        if let Some(UpgradeView { data, finish: Some(finish), .. }) = self.view.take() {
            // SAFETY: the first and only end of this upgrade; the library is mapped.
            unsafe { finish(data, 0) };
        }
    }
}

impl fmt::Debug for Upgrade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upgrade").field("to", &self.ty).finish_non_exhaustive()
    }
}

/// # Safety
///
/// `data` is the `String` of [`Upgrade::build`]; `error` is valid for this call.
unsafe extern "C" fn report(data: *mut c_void, error: *const ErrorView) {
    // SAFETY: this function's contract.
    let words = unsafe { &mut *data.cast::<String>() };
    // SAFETY: this function's contract.
    *words = String::from_utf8_lossy(unsafe { (*error).message.as_bytes() }).into_owned();
}

/// What a library fills in with the value that it makes.
fn nothing_made() -> UpgradeView {
    UpgradeView {
        size: size_of::<UpgradeView>(),
        value: std::ptr::null_mut(),
        data: std::ptr::null_mut(),
        finish: None,
        lost: StrView::new(""),
        hooked: 0,
    }
}
