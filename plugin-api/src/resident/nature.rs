//! What a layout does not say of a type, and a copy of a part has to know: whether it can be changed through a reference,
//! and whether its author has written a `Drop` for it.
//!
//! # Invariants
//!
//! - A type of which nothing is known counts as both.

use std::collections::HashSet;

use super::TypeInfo;
use super::layout::{base, short};

/// What is known of a type by itself, its parts not counted.
#[doc(hidden)]
#[derive(Debug, Clone, Copy)]
pub struct Nature {
    /// It can be changed through a reference: a lock, a cell, an atomic.
    pub is_cell: bool,
    /// It has a `Drop` that is not of `std` or of this crate.
    pub has_drop: bool,
}

impl Nature {
    /// Of types of `std` that are nothing but their parts or their bytes.
    pub const PLAIN: Nature = Nature { is_cell: false, has_drop: false };
    /// Of locks, cells and atomics.
    pub const CELL: Nature = Nature { is_cell: true, has_drop: false };
    /// Of a type that was not derived.
    pub const UNKNOWN: Nature = Nature { is_cell: true, has_drop: true };
}

/// Whether a type has a `Drop` of its own, found without asking for one. For the derive.
#[doc(hidden)]
pub trait WithDrop {
    /// Chosen for types that have one, being one reference nearer.
    fn nature(&self) -> Nature;
}

/// Chosen for the others.
#[doc(hidden)]
pub trait WithoutDrop {
    /// It is nothing but its parts.
    fn nature(&self) -> Nature;
}

#[expect(
    drop_bounds,
    reason = "it is asked whether there is an implementation, and not whether something is to be dropped"
)]
impl<T: Drop> WithDrop for &super::Probe<T> {
    fn nature(&self) -> Nature {
        Nature { has_drop: true, ..Nature::PLAIN }
    }
}

impl<T> WithoutDrop for super::Probe<T> {
    fn nature(&self) -> Nature {
        Nature::PLAIN
    }
}

const ARC: &str = "alloc::sync::Arc";

impl TypeInfo {
    /// Whether anything in a value can be changed through a reference to it.
    pub(crate) fn has_cells(&self) -> bool {
        self.leads_to_cell(0)
    }

    /// Whether anything below type `number` can be changed through a reference.
    pub(crate) fn leads_to_cell(&self, number: usize) -> bool {
        self.reaches(number, &|at| self.natures[at].is_cell)
    }

    /// Whether the author's code may see a copy of a value while there is the value itself: why not, if not.
    ///
    /// What lies in a lock can be taken out of the copy, and is dropped some day; the value drops it, too.
    pub(crate) fn may_be_copied(&self) -> Result<(), String> {
        for (number, ty) in self.layout.types.iter().enumerate() {
            // An `Arc` that leads to nothing changeable is not copied: it gets one owner more.
            let is_dropped_twice = |at: usize| self.natures[at].has_drop;
            if self.natures[number].is_cell
                && let Some(within) = self.first_below(number, &is_dropped_twice)
            {
                return Err(format!(
                    "a `{}` leads to a `{}`, which has a `Drop`, so no copy of it can be made for the code of the edit to look \
                     at; keep it out of keys and of what an upgrade hook asks for",
                    short(&ty.name),
                    short(&self.layout.types[within].name)
                ));
            }
        }
        Ok(())
    }

    /// Whether a copy may live on when the value is gone: why not, if not. What has a `Drop` may stand for something that
    /// there is once. An `Arc` in the copy would be the same as in the value, which the upgrade takes apart.
    pub(crate) fn may_outlive_its_original(&self) -> Result<(), String> {
        if let Some(shared) = self.layout.types.iter().find(|ty| base(&ty.name) == ARC) {
            return Err(format!("a `{}` in it would be shared with the copy", short(&shared.name)));
        }
        match self.natures.iter().position(|nature| nature.has_drop) {
            None => Ok(()),
            Some(at) => Err(format!(
                "a `{}` in it has a `Drop`, so it is not copied",
                short(&self.layout.types[at].name)
            )),
        }
    }

    fn reaches(&self, number: usize, is_it: &dyn Fn(usize) -> bool) -> bool {
        is_it(number) || self.walk(number, is_it, &|_| true).is_some()
    }

    fn first_below(&self, number: usize, is_it: &dyn Fn(usize) -> bool) -> Option<usize> {
        let enters = |at: usize| base(&self.layout.types[at].name) != ARC || self.leads_to_cell(at);
        self.walk(number, is_it, &enters)
    }

    /// The first type below `number` that is it; types that are not entered are looked at themselves.
    fn walk(
        &self,
        number: usize,
        is_it: &dyn Fn(usize) -> bool,
        enters: &dyn Fn(usize) -> bool,
    ) -> Option<usize> {
        let mut seen = HashSet::new();
        let mut open = self.layout.parts(number);
        while let Some(part) = open.pop() {
            if !seen.insert(part) {
                continue;
            }
            if is_it(part) {
                return Some(part);
            }
            if enters(part) {
                open.extend(self.layout.parts(part));
            }
        }
        None
    }
}
