//! The walk through a value that makes empty maps point elsewhere.
//!
//! It goes down by calls, and a list of a million boxes must not take a million frames: parts behind a pointer are, from
//! some depth on, noted down and walked through later, from the top.
#![expect(unsafe_code, reason = "notes parts of a value down by address")]

use std::cell::RefCell;

use super::Resident;

/// How many pointers are followed by calls.
const DEPTH: u32 = 64;

/// Where a map without room for an entry is to point. It has no memory of its own, and points to a constant of the library
/// whose code made or emptied it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Empties {
    /// Into the library that runs.
    Ours,
    /// Into no library: it is given room.
    Nowhere,
}

/// A walk, at one of its parts.
#[doc(hidden)]
#[derive(Debug, Clone, Copy)]
pub struct Settling<'w> {
    empties: Empties,
    depth: u32,
    later: &'w RefCell<Vec<Later>>,
}

/// A part that is walked through later.
#[derive(Debug)]
struct Later {
    part: *mut u8,
    settle: unsafe fn(*mut u8, Settling<'_>),
}

/// Walks through a value.
pub(crate) fn settle<T: Resident>(value: &mut T, empties: Empties) {
    if !T::MAY_SETTLE {
        return;
    }
    let later = RefCell::new(Vec::new());
    let top = Settling { empties, depth: 0, later: &later };
    value.settle(top);
    loop {
        // Not held while the part is walked through, which may note down more.
        let Some(Later { part, settle }) = later.borrow_mut().pop() else { return };
        // SAFETY: a part of `value`, noted down with the function of its type. It is where it was: the walk exchanges empty
        // maps alone, which have no parts. `value` is not used otherwise until this function returns.
        unsafe { settle(part, top) };
    }
}

impl Settling<'_> {
    /// Where empty maps are to point.
    pub(crate) fn empties(self) -> Empties {
        self.empties
    }

    /// Walks through a part that lies in a block of its own, now or later.
    pub(super) fn behind<T: Resident>(self, part: &mut T) {
        if !T::MAY_SETTLE {
            return;
        }
        if self.depth < DEPTH {
            part.settle(Settling { depth: self.depth + 1, ..self });
        } else {
            let part = (&raw mut *part).cast();
            self.later.borrow_mut().push(Later { part, settle: settle_at::<T> });
        }
    }
}

/// # Safety
///
/// `part` is a valid `T` that nobody else uses.
unsafe fn settle_at<T: Resident>(part: *mut u8, how: Settling<'_>) {
    // SAFETY: this function's contract.
    unsafe { &mut *part.cast::<T>() }.settle(how);
}
