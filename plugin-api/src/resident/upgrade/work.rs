//! An upgrade under way: what the types do to build today's value from the older one, and what that leaves to be done.
//!
//! Owns the lists of steps and what was found out about pairs of types. Does not own the rules by which a type becomes
//! another, which are in [`Resident::fits`] and [`Resident::rebuild`] of each, nor the beginning and the end of the work.
//!
//! # Invariants
//!
//! - Whatever is made or allocated is noted in the list that undoes it, before anything else may fail.
//! - A part of the old value is copied, dropped or dissolved, one of them, and once.
#![expect(unsafe_code, reason = "moves values between layouts by address")]

use std::alloc;
use std::any::{TypeId, type_name};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::ptr;

use super::step::{Step, allocate, block, dissolve, drop_in_place};
use super::{Misfit, Old, OldFields, OldType};
use crate::error::Error;
use crate::resident::deep::Stack;
use crate::resident::layout::{Kind, base, same, short};
use crate::resident::{Empties, Resident, TypeInfo, settle};

/// An upgrade under way. What it did so far is in its lists.
pub struct Work {
    pub(super) new: &'static TypeInfo,
    /// Where the new value is built, if it may go deep.
    pub(super) stack: Option<Stack>,
    /// What was found out about pairs of an old and a new type.
    pub(super) same: HashMap<(usize, TypeId), bool>,
    pub(super) fitting: HashSet<(usize, TypeId)>,
    pub(super) commit: Vec<Step>,
    pub(super) undo: Vec<Step>,
    pub(super) staged: Vec<Step>,
}

impl fmt::Debug for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Work").finish_non_exhaustive()
    }
}

impl Work {
    fn is_same<T: Resident>(&mut self, old: OldType<'_>) -> bool {
        let new = self.new;
        *self.same.entry((old.number, TypeId::of::<T>())).or_insert_with(|| {
            new.number::<T>().is_some_and(|number| same(old.layout, old.number, &new.layout, number))
        })
    }

    /// Whether values of the old type can become a `T`.
    pub(crate) fn check<T: Resident>(&mut self, old: OldType<'_>) -> Result<(), Misfit> {
        // A pair that is being checked counts as fitting: a type may contain itself.
        if self.is_same::<T>(old) || !self.fitting.insert((old.number, TypeId::of::<T>())) {
            return Ok(());
        }
        T::fits(old, self)
    }

    /// Builds a `T` at `into` from an older value.
    ///
    /// # Safety
    ///
    /// As [`Resident::rebuild`].
    pub(crate) unsafe fn place<T: Resident>(&mut self, old: Old<'_>, into: *mut T) -> Result<(), Misfit> {
        if self.is_same::<T>(old.ty) {
            // SAFETY: the layouts are the same, so the bytes of the old value are those of a `T`; `into` is
            // another place and writable. The old value will not be used again, or the copy will not.
            unsafe { ptr::copy_nonoverlapping(old.at.cast::<T>(), into, 1) };
            return Ok(());
        }
        if self.stack.is_some_and(Stack::is_used_up) {
            return Err(Misfit::new(format!(
                "a `{}` lies so deep in it that the largest stack does not reach there; keep what is long in a `Vec`, or take \
                 it apart with `#[resident(upgrade = ...)]`",
                short(type_name::<T>())
            )));
        }
        // SAFETY: this function's contract.
        unsafe { T::rebuild(old, into, self) }
    }

    /// The fields of an older struct of the same name.
    pub fn struct_fields<'w, T>(&self, old: OldType<'w>) -> Result<Vec<(&'w str, OldType<'w>)>, Misfit> {
        match old.kind() {
            Kind::Struct(fields) if is_named::<T>(old) => {
                Ok(fields.iter().map(|field| (field.name.as_str(), old.of(field.ty))).collect())
            }
            _ => Err(Misfit::retyped::<T>(old)),
        }
    }

    /// The variants of an older enum of the same name, with their fields.
    #[expect(clippy::type_complexity, reason = "names with names and types, for the derive alone")]
    pub fn enum_variants<'w, T>(
        &self,
        old: OldType<'w>,
    ) -> Result<Vec<(&'w str, Vec<(&'w str, OldType<'w>)>)>, Misfit> {
        match old.kind() {
            Kind::Enum(variants) if is_named::<T>(old) => {
                let parts = |parts: &'w [(String, usize)]| {
                    parts.iter().map(|(name, ty)| (name.as_str(), old.of(*ty))).collect()
                };
                Ok(variants.iter().map(|variant| (variant.name.as_str(), parts(&variant.parts))).collect())
            }
            _ => Err(Misfit::retyped::<T>(old)),
        }
    }

    /// Whether a field of an older type can become the field `name`.
    pub fn fit_field<F: Resident>(
        &mut self,
        fields: &[(&str, OldType<'_>)],
        name: &str,
        before: &[&str],
        has_default: bool,
    ) -> Result<(), Misfit> {
        match fields.iter().find(|(old, _)| *old == name || before.contains(old)) {
            Some((_, ty)) => self.check::<F>(*ty).map_err(|misfit| misfit.within(name)),
            None if has_default => Ok(()),
            None => Err(no_default::<F>(name)),
        }
    }

    /// The fields of an older struct's value.
    pub fn open_struct<'w, T>(&self, old: Old<'w>) -> Result<OldFields<'w>, Misfit> {
        match old.ty.kind() {
            Kind::Struct(fields) if is_named::<T>(old.ty) => {
                // SAFETY: the layout was read with every field inside its struct.
                let part = |at: usize, ty| old.part(ty, unsafe { old.at.add(at) });
                Ok(fields.iter().map(|field| (field.name.as_str(), part(field.offset, field.ty))).collect())
            }
            _ => Err(Misfit::retyped::<T>(old.ty)),
        }
    }

    /// The variant that an older enum's value is at, and its fields.
    pub fn open_enum<'w, T>(&self, old: Old<'w>) -> Result<(&'w str, OldFields<'w>), Misfit> {
        let Kind::Enum(variants) = old.ty.kind() else { return Err(Misfit::retyped::<T>(old.ty)) };
        // SAFETY: the glue is that of the value's type.
        let at = unsafe { (old.glue().variant)(old.at.cast()) };
        let variant = variants
            .get(at as usize)
            .filter(|_| is_named::<T>(old.ty))
            .ok_or_else(|| Misfit::retyped::<T>(old.ty))?;
        let parts = variant.parts.iter().zip(old.children());
        let fields = parts.map(|((name, ty), at)| (name.as_str(), old.part(*ty, at))).collect();
        Ok((variant.name.as_str(), fields))
    }

    /// Builds the field `name` from the older value's, or from its default.
    ///
    /// # Safety
    ///
    /// As [`Resident::rebuild`].
    pub unsafe fn place_field<F: Resident>(
        &mut self,
        fields: &mut OldFields<'_>,
        name: &str,
        before: &[&str],
        default: Option<fn() -> F>,
        into: *mut F,
    ) -> Result<(), Misfit> {
        if let Some(at) = fields.iter().position(|(old, _)| *old == name || before.contains(old)) {
            let (_, old) = fields.swap_remove(at);
            // SAFETY: this function's contract.
            return unsafe { self.place(old, into) }.map_err(|misfit| misfit.within(name));
        }
        let mut value = default.ok_or_else(|| no_default::<F>(name))?();
        settle(&mut value, Empties::Nowhere);
        // SAFETY: `into` is writable and stays, by this function's contract.
        unsafe { self.made(value, into) };
        Ok(())
    }

    /// Writes a value that was made for the upgrade.
    ///
    /// # Safety
    ///
    /// `into` is writable and stays where it is until the work ends.
    pub(crate) unsafe fn made<F>(&mut self, value: F, into: *mut F) {
        // SAFETY: this function's contract.
        unsafe { into.write(value) };
        self.undo.push(Step::Call(drop_in_place::<F>, into.cast()));
    }

    /// Lets a hook build the value.
    ///
    /// # Safety
    ///
    /// As [`Resident::rebuild`].
    pub unsafe fn upgrade<T: Resident, E: Into<Error>>(
        &mut self,
        old: Old<'_>,
        into: *mut T,
        hook: impl FnOnce(&Old<'_>) -> Result<T, E>,
    ) -> Result<(), Misfit> {
        let mut value = hook(&old).map_err(|error| {
            Misfit::new(format!(
                "the upgrade of `{}` failed: {}",
                short(type_name::<T>()),
                error.into().chain()
            ))
        })?;
        settle(&mut value, Empties::Nowhere);
        // SAFETY: this function's contract.
        unsafe { self.made(value, into) };
        self.drop_old(old);
        Ok(())
    }

    /// The old value goes, unmoved.
    pub fn drop_old(&mut self, old: Old<'_>) {
        self.commit.push(Step::Call(old.glue().drop_value, old.at));
    }

    /// The fields that nobody took go, unmoved.
    pub fn drop_rest(&mut self, fields: OldFields<'_>) {
        for (_, old) in fields {
            self.drop_old(old);
        }
    }

    /// The old container goes, all its parts having been moved.
    pub(crate) fn dissolve_old(&mut self, old: Old<'_>) {
        self.commit.push(Step::Call(old.glue().dissolve, old.at));
    }

    /// The container at `into` was made for the upgrade; its parts have been put there by other steps.
    pub(crate) fn shell<C: Resident>(&mut self, into: *mut C) {
        self.undo.push(Step::Call(dissolve::<C>, into.cast()));
    }

    /// An array's length is in its name only, and may not change.
    pub(crate) fn same_length<C>(&self, old: OldType<'_>, length: usize) -> Result<(), Misfit> {
        if old.name().ends_with(&format!("; {length}]")) { Ok(()) } else { Err(Misfit::retyped::<C>(old)) }
    }

    /// The value has other owners, inside or outside of it.
    pub(crate) fn is_shared<C>(&self) -> Misfit {
        let name = short(type_name::<C>());
        Misfit::new(format!("what a `{name}` leads to has changed its layout and more than one owner"))
    }

    /// Two entries of a map or set have become one.
    pub(crate) fn keys_collide<C>(&self) -> Misfit {
        Misfit::new(format!("two keys of a `{}` have become equal", short(type_name::<C>())))
    }

    /// Room for a value that has to be whole before it can be moved to where it belongs.
    pub fn staging<F>(&mut self) -> *mut F {
        let (block, layout) = block::<F>();
        if layout.size() > 0 {
            self.staged.push(Step::Free(block.cast(), layout));
        }
        block
    }

    /// The older value of something that may be read only where it is. If it is to be taken apart for a `T`, that is
    /// done to a copy of its bytes: what holds it forgets the value there, as all that was moved.
    pub(crate) fn apart<'w, T: Resident>(&mut self, old: Old<'w>) -> Old<'w> {
        let ty = &old.ty.layout.types[old.ty.number];
        let of = alloc::Layout::from_size_align(ty.size, ty.align).ok().filter(|of| of.size() > 0);
        match of {
            Some(of) if !self.is_same::<T>(old.ty) => {
                let copy = allocate(of);
                self.staged.push(Step::Free(copy, of));
                // SAFETY: as many bytes as its layout says, to a block of as many.
                unsafe { ptr::copy_nonoverlapping(old.at, copy, of.size()) };
                Old { at: copy, ..old }
            }
            _ => old,
        }
    }

    /// A block that belongs to the new value.
    pub(crate) fn block<F>(&mut self) -> *mut F {
        let (block, layout) = block::<F>();
        if layout.size() > 0 {
            self.undo.push(Step::Free(block.cast(), layout));
        }
        block
    }

    /// Works one list off, and forgets the other.
    pub(super) fn finish(mut self, commit: bool) {
        let steps = if commit {
            std::mem::take(&mut self.commit)
        } else {
            std::mem::take(&mut self.undo).into_iter().rev().collect()
        };
        for step in steps.into_iter().chain(self.staged.drain(..)) {
            // SAFETY: each step is run once, and what it refers to is still where it was. Of the two
            // copies of what was moved, the list's own side forgets its one.
            unsafe { step.run() };
        }
    }
}

fn is_named<T>(old: OldType<'_>) -> bool {
    let name = type_name::<T>();
    base(old.name()) == base(name) || (name.starts_with('(') && old.name().starts_with('('))
}

fn no_default<F>(name: &str) -> Misfit {
    Misfit::new(format!(
        "the field `{name}: {}` is new and its type has no `Default`; say `#[resident(default = ...)]`",
        short(type_name::<F>())
    ))
}
