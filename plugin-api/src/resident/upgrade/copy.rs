//! Copies of parts of an older value, for the author's code to look at while the upgrade may still be undone.
//!
//! Owns how such a copy is made, kept and freed. `Clone` is not asked for: a copy is what [`Resident::rebuild`] makes when
//! nothing is moved, down to the types of `std`. It shares no memory with the older value but what is in an `Arc` and
//! cannot be changed there.
//!
//! # Invariants
//!
//! - A copy is freed part by part, as [`free`] does it, and no `Drop` of an author runs for it: what it copies has not gone.
//! - So nothing that has a `Drop` of its own may be taken out of a copy: [`Work::copy`] refuses a lock around such a type.
//! - When it is freed it is what the author's code has left there, which is a whole value of its type. What was noted down
//!   while it was made is of no use any more.
#![expect(unsafe_code, reason = "copies and frees parts of values by address")]

use std::alloc;
use std::cell::RefCell;
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use super::progress::Progress;
use super::step::Step;
use super::{Misfit, Old, Work, Written};
use crate::abi::GlueView;
use crate::resident::layout::{Kind, short};
use crate::resident::{Resident, TypeInfo};

/// Copies that an upgrade hook looks at, and the names that it has asked for.
#[derive(Debug, Default)]
pub(super) struct Shown {
    copies: RefCell<Vec<ShownCopy>>,
    /// Addresses of the parts that were asked for.
    asked: RefCell<Vec<*mut u8>>,
    /// Of the upgrade that the hook is part of.
    progress: Progress,
}

#[derive(Debug)]
struct ShownCopy {
    at: *mut u8,
    info: &'static TypeInfo,
    block: alloc::Layout,
}

impl Shown {
    pub(super) fn new(progress: Progress) -> Shown {
        Shown { copies: RefCell::default(), asked: RefCell::default(), progress }
    }

    /// A copy of a part that is laid out as a `T`. It stays as long as `self`.
    pub(super) fn copy<T: Resident>(&self, old: Old<'_>) -> Result<&T, Misfit> {
        self.progress.pause()?;
        let info = TypeInfo::of::<T>();
        let mut work = Work::new(info);
        work.progress = self.progress;
        let block = alloc::Layout::new::<T>();
        // SAFETY: the part is laid out as a `T`, by this function's contract, and nobody else uses it.
        let copied = catch_unwind(AssertUnwindSafe(|| unsafe { work.copy::<T>(old) }));
        self.progress.resume();
        match copied {
            Ok(Ok(at)) => {
                // The room that the copy is in is this one's now.
                work.keep(at.cast());
                work.forget();
                self.copies.borrow_mut().push(ShownCopy { at: at.cast(), info, block });
                // SAFETY: a whole `T` in a block that stays as long as `self`. It is freed by the drop of `self` alone.
                Ok(unsafe { &*at })
            }
            Ok(Err(misfit)) => {
                work.undo();
                Err(misfit)
            }
            Err(panic) => {
                work.undo();
                resume_unwind(panic)
            }
        }
    }

    pub(super) fn note(&self, part: *mut u8) {
        self.asked.borrow_mut().push(part);
    }

    /// Whether the hook has asked for the part.
    pub(super) fn was_asked_for(&self, part: *mut u8) -> bool {
        self.asked.borrow().contains(&part)
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        for ShownCopy { at, info, block } in self.copies.take() {
            // SAFETY: a whole value of the type, in a block of its own; the hook that could see it has returned.
            unsafe {
                free(info, 0, at);
                if block.size() > 0 {
                    Step::Free(at, block).run();
                }
            }
        }
    }
}

/// Frees what a copy of type `number` consists of, without a `Drop` of an author.
///
/// # Safety
///
/// `at` is a valid value of the type that nobody uses any more; it is a copy.
unsafe fn free(info: &TypeInfo, number: usize, at: *mut u8) {
    let glue = &info.glue[number];
    match &info.layout.types[number].kind {
        // SAFETY: this function's contract. A leaf that can be copied is of `std`, and so is its drop.
        Kind::Leaf => unsafe { (glue.drop_value)(at.cast()) },
        Kind::Struct(fields) => {
            for field in fields {
                // SAFETY: a field lies at its place in the value.
                unsafe { free(info, field.ty, at.add(field.offset)) };
            }
        }
        Kind::Enum(variants) => {
            // SAFETY: this function's contract; the glue is that of the type.
            let variant = unsafe { (glue.variant)(at.cast()) };
            let parts = variants.get(variant as usize).map_or(&[][..], |variant| &variant.parts);
            // SAFETY: as for `variant`.
            for ((_, part), at) in parts.iter().zip(unsafe { children(glue, at) }) {
                // SAFETY: the parts of the variant that the value is at.
                unsafe { free(info, *part, at) };
            }
        }
        Kind::Container(params) => {
            // SAFETY: as for `variant`. Of an `Arc` with other owners there are none.
            for (i, part) in unsafe { children(glue, at) }.into_iter().enumerate() {
                // SAFETY: the parts of a container are of its parameters' types, in turn.
                unsafe { free(info, params[i % params.len()], part) };
            }
            // SAFETY: the parts are gone, and this is the last use of the container.
            unsafe { (glue.dissolve)(at.cast()) };
        }
    }
}

/// Frees a copy.
///
/// # Safety
///
/// `at` is a whole `T` that nobody uses any more; it is a copy.
pub(crate) unsafe fn free_copy<T: Resident>(at: *mut T) {
    // SAFETY: this function's contract.
    unsafe { free(TypeInfo::of::<T>(), 0, at.cast()) };
}

/// The parts of a container or of an enum's variant.
///
/// # Safety
///
/// The glue is that of the value's type, and nobody else uses the value.
pub(super) unsafe fn children(glue: &GlueView, at: *mut u8) -> Vec<*mut u8> {
    unsafe extern "C" fn visit(data: *mut c_void, child: *mut c_void) {
        // SAFETY: `data` is the vector below, which nobody else uses during the call.
        unsafe { (*data.cast::<Vec<*mut u8>>()).push(child.cast()) };
    }
    let mut found: Vec<*mut u8> = Vec::new();
    // SAFETY: this function's contract.
    unsafe { (glue.children)(at.cast(), (&raw mut found).cast(), visit) };
    found
}

impl Work {
    /// A copy of an older part as a `T` of today, whole and on its own: the older value is not used by it. It is the
    /// caller's to free, with [`free_copy`]; the room that it is in is the work's.
    ///
    /// # Safety
    ///
    /// Nobody else uses `old`.
    pub(crate) unsafe fn copy<T: Resident>(&mut self, old: Old<'_>) -> Result<*mut T, Misfit> {
        TypeInfo::of::<T>().may_be_copied().map_err(Misfit::new)?;
        let room = self.staging::<T>();
        let (outer, mark) = (std::mem::replace(&mut self.is_copying, true), self.undo.len());
        // SAFETY: the room is fresh and stays; for the rest, this function's contract.
        let placed = unsafe { self.place::<T>(old, room) };
        self.is_copying = outer;
        let _: Written = placed?;
        // It is a value by now, and no more a list of things that were made.
        self.undo.truncate(mark);
        Ok(room)
    }

    /// A part whose owners see each other's changes, in something that has to be copied.
    pub(crate) fn is_shared_cell<C>(&self) -> Misfit {
        Misfit::new(format!(
            "a `{}` has more owners than one and leads to a lock or an atomic, so no copy of it can be made for the code of \
             the edit to look at; keep it out of keys and of what an upgrade hook asks for",
            short(std::any::type_name::<C>())
        ))
    }
}
