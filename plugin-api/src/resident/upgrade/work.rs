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

use super::copy::Shown;
use super::fields::{self, Definition, FieldTypes, OldFields, VariantNames};
use super::lost::Lost;
use super::progress::Progress;
use super::step::{Step, allocate, block, dissolve, drop_in_place};
use super::{Misfit, Old, OldType};
use crate::error::Error;
use crate::resident::deep::{Stack, TO_DROP, on_large_stack};
use crate::resident::layout::{Kind, base, same, short, was_called};
use crate::resident::{Empties, Resident, TypeInfo, settle};

/// An upgrade under way. What it did so far is in its lists.
pub struct Work {
    pub(super) new: &'static TypeInfo,
    /// What the host sees of it.
    pub(super) progress: Progress,
    /// Where the new value is built, if it may go deep.
    pub(super) stack: Option<Stack>,
    /// Whether a hook has built anything.
    pub(super) is_hooked: bool,
    /// Whether what is built now is a copy: nothing is moved, also where the layouts are the same.
    pub(super) is_copying: bool,
    /// What was found out about pairs of an old and a new type.
    same: HashMap<(usize, TypeId), bool>,
    fitting: HashSet<(usize, TypeId)>,
    pub(super) commit: Vec<Step>,
    pub(super) undo: Vec<Step>,
    staged: Vec<Step>,
    pub(super) lost: Lost,
}

impl fmt::Debug for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Work").finish_non_exhaustive()
    }
}

/// Says that a value has been written to where it was to be built. Only what writes one has it to give.
#[doc(hidden)]
#[must_use = "it is what a `rebuild` returns"]
#[derive(Debug)]
pub struct Written(());

impl Written {
    /// Writes a value.
    ///
    /// # Safety
    ///
    /// `into` is writable.
    pub unsafe fn by<T>(into: *mut T, value: T) -> Written {
        // SAFETY: this function's contract.
        unsafe { into.write(value) };
        Written(())
    }

    /// Of something whose parts have been written, all of them.
    pub fn all<const N: usize>(_: [Written; N]) -> Written {
        Written(())
    }
}

impl Work {
    pub(super) fn new(new: &'static TypeInfo) -> Work {
        Work {
            new,
            progress: Progress::default(),
            stack: None,
            is_hooked: false,
            is_copying: false,
            same: HashMap::new(),
            fitting: HashSet::new(),
            commit: Vec::new(),
            undo: Vec::new(),
            staged: Vec::new(),
            lost: Lost::default(),
        }
    }

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
    pub(crate) unsafe fn place<T: Resident>(
        &mut self,
        old: Old<'_>,
        into: *mut T,
    ) -> Result<Written, Misfit> {
        let is_same = self.is_same::<T>(old.ty);
        if is_same && !self.is_copying {
            // SAFETY: the layouts are the same, so the bytes of the old value are those of a `T`; `into` is
            // another place and writable. The old value will not be used again, or the copy will not.
            unsafe { ptr::copy_nonoverlapping(old.at.cast::<T>(), into, 1) };
            return Ok(Written(()));
        }
        if self.stack.is_some_and(Stack::is_used_up) {
            return Err(Misfit::new(format!(
                "a `{}` lies so deep in it that the largest stack does not reach there; keep what is long in a `Vec`, or take \
                 it apart with `#[resident(upgrade = ...)]`",
                short(type_name::<T>())
            )));
        }
        if is_same {
            // SAFETY: this function's contract.
            return unsafe { T::rebuild(old, into, self) };
        }
        // SAFETY: this function's contract.
        unsafe { T::convert(old, into, self) }
    }

    /// Copies a leaf bit by bit: it owns nothing.
    ///
    /// # Safety
    ///
    /// As [`Resident::rebuild`]; a `T` owns nothing.
    pub(crate) unsafe fn copy_bits<T: Resident>(
        &mut self,
        old: Old<'_>,
        into: *mut T,
    ) -> Result<Written, Misfit> {
        self.expect_same::<T>(old)?;
        // SAFETY: the layouts are the same, so the bytes are those of a `T`; `into` is another place and writable.
        unsafe { ptr::copy_nonoverlapping(old.at.cast::<T>(), into, 1) };
        Ok(Written(()))
    }

    /// Copies a value of `std` by its own `Clone`, which is none of an author's.
    ///
    /// # Safety
    ///
    /// As [`Resident::rebuild`].
    pub(crate) unsafe fn clone_std<T: Resident + Clone>(
        &mut self,
        old: Old<'_>,
        into: *mut T,
    ) -> Result<Written, Misfit> {
        self.expect_same::<T>(old)?;
        // SAFETY: the layouts are the same, so it is a `T`, and nobody changes it; `into` is writable and stays.
        let written = unsafe { self.made((*old.at.cast::<T>()).clone(), into) };
        self.drop_old(old);
        Ok(written)
    }

    /// Whether the older value is laid out as a `T`.
    pub(crate) fn expect_same<T: Resident>(&mut self, old: Old<'_>) -> Result<(), Misfit> {
        if self.is_same::<T>(old.ty) { Ok(()) } else { Err(Misfit::retyped::<T>(old.ty)) }
    }

    /// The fields of an older struct of the same name.
    pub fn struct_fields<'w, T: Resident>(
        &self,
        old: OldType<'w>,
        of: &Definition,
    ) -> Result<FieldTypes<'w>, Misfit> {
        match old.kind() {
            Kind::Struct(fields) if is_named::<T>(old) => {
                let olds: Vec<_> =
                    fields.iter().map(|field| (field.name.as_str(), old.of(field.ty))).collect();
                FieldTypes::new(of, &olds)
            }
            _ => Err(Misfit::renamed_type::<T>(old)),
        }
    }

    /// The variants of an older enum of the same name that are some of today's: the numbers of these, and the fields.
    pub fn enum_variants<'w, T: Resident>(
        &self,
        old: OldType<'w>,
        of: &[VariantNames],
    ) -> Result<Vec<(usize, FieldTypes<'w>)>, Misfit> {
        let Kind::Enum(variants) = old.kind() else { return Err(Misfit::renamed_type::<T>(old)) };
        if !is_named::<T>(old) {
            return Err(Misfit::renamed_type::<T>(old));
        }
        let mut found = Vec::new();
        for variant in variants {
            if let Some(at) = fields::variant_of(&variant.name, of) {
                let olds: Vec<_> =
                    variant.parts.iter().map(|(name, ty)| (name.as_str(), old.of(*ty))).collect();
                let fields = FieldTypes::new(&of[at].fields, &olds);
                found.push((at, fields.map_err(|misfit| misfit.within(of[at].name))?));
            }
        }
        Ok(found)
    }

    /// Whether what a field is to take can become its value; or, where it takes nothing, whether it has one of its own.
    pub fn fit_field<F: Resident>(
        &mut self,
        fields: &FieldTypes<'_>,
        number: usize,
        has_default: bool,
    ) -> Result<(), Misfit> {
        let name = fields.names[number].name;
        if let Some(ty) = fields.sources[number] {
            return self.check::<F>(ty).map_err(|misfit| misfit.within(name));
        }
        for (gone, ty) in &fields.unexplained {
            // Without a size there is nothing to lose.
            let is_like = self.is_same::<F>(*ty)
                || ty.name() == type_name::<F>()
                || was_called(ty.name(), type_name::<F>(), F::BEFORE);
            if is_like && size_of::<F>() > 0 {
                return Err(Misfit::renamed::<F>(gone, name));
            }
        }
        if has_default { Ok(()) } else { Err(no_default::<F>(name)) }
    }

    /// The fields of an older struct's value.
    pub fn open_struct<'w, T: Resident>(
        &self,
        old: Old<'w>,
        of: &Definition,
    ) -> Result<OldFields<'w>, Misfit> {
        match old.ty.kind() {
            Kind::Struct(fields) if is_named::<T>(old.ty) => {
                // SAFETY: the layout was read with every field inside its struct.
                let part = |at: usize, ty| old.part(ty, unsafe { old.at.add(at) });
                let olds: Vec<_> =
                    fields.iter().map(|field| (field.name.as_str(), part(field.offset, field.ty))).collect();
                OldFields::new(of, &olds, short(old.ty.name()))
            }
            _ => Err(Misfit::retyped::<T>(old.ty)),
        }
    }

    /// Which of today's variants an older enum's value is at, and its fields.
    pub fn open_enum<'w, T: Resident>(
        &self,
        old: Old<'w>,
        of: &[VariantNames],
    ) -> Result<(usize, OldFields<'w>), Misfit> {
        let Kind::Enum(variants) = old.ty.kind() else { return Err(Misfit::retyped::<T>(old.ty)) };
        // SAFETY: the glue is that of the value's type.
        let at = unsafe { (old.glue().variant)(old.at.cast()) };
        let parts = old.children();
        let variant = variants
            .get(at as usize)
            .filter(|variant| is_named::<T>(old.ty) && variant.parts.len() == parts.len())
            .ok_or_else(|| Misfit::retyped::<T>(old.ty))?;
        let Some(now) = fields::variant_of(&variant.name, of) else {
            return Err(Misfit::variant_is_gone::<T>(&variant.name));
        };
        let olds: Vec<_> = variant
            .parts
            .iter()
            .zip(parts)
            .map(|((name, ty), at)| (name.as_str(), old.part(*ty, at)))
            .collect();
        let owner = format!("{}::{}", short(old.ty.name()), variant.name);
        Ok((now, OldFields::new(&of[now].fields, &olds, owner)?))
    }

    /// Builds a field from what it takes of the older value, or from its default.
    ///
    /// # Safety
    ///
    /// As [`Resident::rebuild`].
    pub unsafe fn place_field<F: Resident>(
        &mut self,
        fields: &OldFields<'_>,
        number: usize,
        default: Option<fn() -> F>,
        into: *mut F,
    ) -> Result<Written, Misfit> {
        let name = fields.names[number].name;
        if let Some(old) = fields.sources[number] {
            // SAFETY: this function's contract. No other field takes the same part.
            return unsafe { self.place(old, into) }.map_err(|misfit| misfit.within(name));
        }
        let default = default.ok_or_else(|| no_default::<F>(name))?;
        let mut value = self.run_code(default)?;
        settle(&mut value, Empties::Nowhere);
        // SAFETY: `into` is writable and stays, by this function's contract.
        Ok(unsafe { self.made(value, into) })
    }

    /// Runs code of an author that is shown nothing of the older value.
    pub(crate) fn run_code<R>(&self, code: impl FnOnce() -> R) -> Result<R, Misfit> {
        self.progress.run(code)
    }

    /// Writes a value that was made for the upgrade.
    ///
    /// # Safety
    ///
    /// `into` is writable and stays where it is until the work ends.
    pub(crate) unsafe fn made<F>(&mut self, value: F, into: *mut F) -> Written {
        // SAFETY: this function's contract.
        let written = unsafe { Written::by(into, value) };
        self.undo.push(Step::Call(drop_in_place::<F>, into.cast()));
        written
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
    ) -> Result<Written, Misfit> {
        self.is_hooked = true;
        let progress = self.progress.in_hook();
        let shown = Shown::new(progress);
        let lent = Old { shown: &shown, ..old };
        let failed = |error: E| {
            let name = short(type_name::<T>());
            Misfit::new(format!("the upgrade of `{name}` failed: {}", error.into().chain()))
        };
        let mut value = progress.run(|| hook(&lent).map_err(failed))??;
        settle(&mut value, Empties::Nowhere);
        // SAFETY: this function's contract.
        let written = unsafe { self.made(value, into) };
        self.lose_unasked(lent);
        self.drop_old(old);
        Ok(written)
    }

    /// The old value goes, unmoved.
    pub fn drop_old(&mut self, old: Old<'_>) {
        self.commit.push(Step::Call(old.glue().drop_value, old.at));
    }

    /// The fields that nobody took go, unmoved.
    pub fn drop_rest(&mut self, fields: OldFields<'_>) {
        for (name, old) in fields.rest {
            self.lost.note(&fields.owner, name, old);
            self.drop_old(old);
        }
    }

    /// Says that what a hook has not even looked at is lost.
    fn lose_unasked(&mut self, old: Old<'_>) {
        let owner = short(old.ty.name());
        match old.ty.kind() {
            Kind::Struct(fields) => {
                for field in fields {
                    // SAFETY: the layout was read with every field inside its struct.
                    let part = old.part(field.ty, unsafe { old.at.add(field.offset) });
                    if !old.shown.was_asked_for(part.at) {
                        self.lost.note(&owner, &field.name, part);
                    }
                }
            }
            // It cannot be looked into.
            _ => self.lost.note_whole(old),
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

    /// The older value of something that may be read only where it is: taken apart it is as a copy of its bytes. What holds
    /// it forgets the value there, as all that was moved.
    pub(crate) fn apart<'w>(&mut self, old: Old<'w>) -> Old<'w> {
        let ty = &old.ty.layout.types[old.ty.number];
        let of = alloc::Layout::from_size_align(ty.size, ty.align).ok().filter(|of| of.size() > 0);
        match of {
            Some(of) => {
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

    /// Works the list of what is left to do off. What was made stays.
    pub(super) fn finish(mut self) {
        let steps = std::mem::take(&mut self.commit);
        self.run(steps);
    }

    /// Undoes what was done. The older value is not touched by that.
    ///
    /// What was made may go deep, as what is dropped otherwise, so this is done on a large stack where its type allows that.
    pub(super) fn undo(mut self) {
        let steps: Vec<_> = std::mem::take(&mut self.undo).into_iter().rev().collect();
        if !self.new.layout.is_recursive() {
            return self.run(steps);
        }
        // SAFETY: it leads to parts that were made for a value that is `Send`: the registry takes no data that is not. Nobody
        // else has seen them.
        if let Err((undo, _)) = unsafe { on_large_stack(TO_DROP, move |_| self.run(steps)) } {
            // There is no memory for one. The stack at hand reaches, unless what was made goes deep.
            undo(Stack::here());
        }
    }

    /// Forgets what was done, which somebody else has taken over.
    pub(super) fn forget(mut self) {
        self.run(Vec::new());
    }

    fn run(&mut self, steps: Vec<Step>) {
        for step in steps.into_iter().chain(self.staged.drain(..)) {
            // SAFETY: each step is run once, and what it refers to is still where it was. Of the two
            // copies of what was moved, the list's own side forgets its one.
            unsafe { step.run() };
        }
    }

    /// Gives a staged room away: whoever asks for this frees it.
    pub(super) fn keep(&mut self, room: *mut u8) {
        self.staged.retain(|step| !matches!(step, Step::Free(block, _) if *block == room));
    }
}

/// Whether an older type is `T`, by its name, before or after it was given another.
fn is_named<T: Resident>(old: OldType<'_>) -> bool {
    let (now, was) = (type_name::<T>(), &old.layout.types[old.number]);
    base(&was.name) == base(now)
        || (now.starts_with('(') && was.name.starts_with('('))
        || was_called(&was.name, now, T::BEFORE)
        || was_called(now, &was.name, &was.before)
}

fn no_default<F>(name: &str) -> Misfit {
    Misfit::new(format!(
        "the field `{name}: {}` is new and its type has no `Default`; say `#[resident(default = ...)]`",
        short(type_name::<F>())
    ))
}
