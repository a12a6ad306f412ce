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

use std::alloc::{self, handle_alloc_error};
use std::any::{TypeId, type_name};
use std::collections::{HashMap, HashSet};
use std::ffi::c_void;
use std::fmt;
use std::marker::PhantomData;
use std::ptr;

use super::deep::{Stack, TO_BUILD, on_large_stack};
use super::layout::{Kind, Layout, base, names, same, short};
use super::{Empties, Resident, TypeInfo, settle};
use crate::abi::{ErrorSink, GlueView, OldDataView, Status, UpgradeView};
use crate::entry::{guard, report};
use crate::error::Error;

/// How many fields are named on the way to one.
const PLACES: usize = 8;

/// Why a value of an older layout did not become one of today's. The old value is as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misfit {
    /// Where, from the inside out.
    path: Vec<String>,
    reason: String,
}

impl Misfit {
    fn new(reason: impl Into<String>) -> Misfit {
        Misfit { path: Vec::new(), reason: reason.into() }
    }

    /// The type is another one.
    pub(crate) fn retyped<T>(old: OldType<'_>) -> Misfit {
        let (was, is) = names(old.name(), type_name::<T>());
        Misfit::new(format!("what was `{was}` is `{is}` now"))
    }

    /// An enum's value is at a variant that is no longer there.
    pub fn variant_is_gone<T>(variant: &str) -> Misfit {
        let name = short(type_name::<T>());
        Misfit::new(format!("the value is at the variant `{variant}`, which `{name}` has no longer"))
    }

    fn within(mut self, place: &str) -> Misfit {
        self.path.push(place.to_owned());
        self
    }
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((innermost, outer)) = self.path.split_first() {
            f.write_str("field `")?;
            for place in outer.iter().rev().take(PLACES) {
                write!(f, "{place}.")?;
            }
            if outer.len() > PLACES {
                f.write_str(" ... .")?;
            }
            write!(f, "{innermost}`: ")?;
        }
        f.write_str(&self.reason)
    }
}

impl std::error::Error for Misfit {}

/// A type of the older layout.
#[derive(Debug, Clone, Copy)]
pub struct OldType<'w> {
    layout: &'w Layout,
    number: usize,
}

impl<'w> OldType<'w> {
    fn name(self) -> &'w str {
        &self.layout.types[self.number].name
    }

    fn kind(self) -> &'w Kind {
        &self.layout.types[self.number].kind
    }

    fn of(self, number: usize) -> OldType<'w> {
        OldType { number, ..self }
    }

    /// What the container holds, if it is the same container as `C`.
    pub(crate) fn params<C>(self) -> Result<Vec<OldType<'w>>, Misfit> {
        match self.kind() {
            Kind::Container(params) if base(self.name()) == base(type_name::<C>()) => {
                Ok(params.iter().map(|param| self.of(*param)).collect())
            }
            _ => Err(Misfit::retyped::<C>(self)),
        }
    }
}

impl<'w> OldType<'w> {
    /// What a container holds, whichever it is.
    pub(crate) fn any_params(self) -> Vec<OldType<'w>> {
        match self.kind() {
            Kind::Container(params) => params.iter().map(|param| self.of(*param)).collect(),
            _ => Vec::new(),
        }
    }
}

/// A value of the older layout, as an upgrade hook sees it: to be looked at, not taken apart.
#[derive(Debug, Clone, Copy)]
pub struct Old<'w> {
    ty: OldType<'w>,
    glue: &'w [GlueView],
    at: *mut u8,
    lent: PhantomData<&'w ()>,
}

impl<'w> Old<'w> {
    pub(crate) fn ty(self) -> OldType<'w> {
        self.ty
    }

    fn part(self, ty: usize, at: *mut u8) -> Old<'w> {
        Old { ty: self.ty.of(ty), at, ..self }
    }

    fn glue(self) -> &'w GlueView {
        &self.glue[self.ty.number]
    }

    /// The parts of a container or of an enum's variant.
    pub(crate) fn children(self) -> Vec<*mut u8> {
        unsafe extern "C" fn visit(data: *mut c_void, child: *mut c_void) {
            // SAFETY: `data` is the vector below, which nobody else uses during the call.
            unsafe { (*data.cast::<Vec<*mut u8>>()).push(child.cast()) };
        }
        let mut found: Vec<*mut u8> = Vec::new();
        // SAFETY: the glue is that of the value's type, and nobody else uses the value.
        unsafe { (self.glue().children)(self.at.cast(), (&raw mut found).cast(), visit) };
        found
    }

    /// The parts of a container that holds one type.
    pub(crate) fn elements(self) -> Vec<Old<'w>> {
        let Kind::Container(params) = self.ty.kind() else { return Vec::new() };
        let Some(count) = (!params.is_empty()).then_some(params.len()) else { return Vec::new() };
        let children = self.children().into_iter().enumerate();
        children.map(|(i, at)| self.part(params[i % count], at)).collect()
    }

    /// A field of the older value.
    ///
    /// # Errors
    ///
    /// [`Misfit`] if there is none of that name, or its type is not `T` as this code knows it.
    pub fn field<T: Resident>(&self, name: &str) -> Result<&'w T, Misfit> {
        let field = self.at(name)?;
        let info = TypeInfo::of::<T>();
        if same(self.ty.layout, field.ty.number, &info.layout, 0) {
            // SAFETY: the layouts are the same down to the compiler, so the field is a `T`; nobody
            // changes the value for `'w`.
            Ok(unsafe { &*field.at.cast::<T>() })
        } else {
            Err(Misfit::retyped::<T>(field.ty).within(name))
        }
    }

    /// A field of the older value as an older value itself, to look for fields in it.
    ///
    /// # Errors
    ///
    /// [`Misfit`] if there is none of that name.
    pub fn at(&self, name: &str) -> Result<Old<'w>, Misfit> {
        let found = match self.ty.kind() {
            Kind::Struct(fields) => fields.iter().find(|field| field.name == name),
            _ => None,
        };
        let field = found.ok_or_else(|| {
            Misfit::new(format!("the older `{}` has no field `{name}`", short(self.ty.name())))
        })?;
        // SAFETY: the layout was read with every field inside its struct.
        Ok(self.part(field.ty, unsafe { self.at.add(field.offset) }))
    }
}

/// An entry of a list: one call that cannot fail.
enum Step {
    Call(unsafe extern "C" fn(*mut c_void), *mut u8),
    Free(*mut u8, alloc::Layout),
}

impl Step {
    /// # Safety
    ///
    /// The step is due, and was not run before.
    unsafe fn run(self) {
        match self {
            // SAFETY: the function was noted down together with a value of its type, which is due.
            Step::Call(function, at) => unsafe { function(at.cast()) },
            // SAFETY: the block was allocated with this layout, and nothing in it is used any more.
            Step::Free(block, layout) => unsafe { alloc::dealloc(block, layout) },
        }
    }
}

/// An upgrade under way. What it did so far is in its lists.
pub struct Work {
    new: &'static TypeInfo,
    /// Where the new value is built, if it may go deep.
    stack: Option<Stack>,
    /// What was found out about pairs of an old and a new type.
    same: HashMap<(usize, TypeId), bool>,
    fitting: HashSet<(usize, TypeId)>,
    commit: Vec<Step>,
    undo: Vec<Step>,
    staged: Vec<Step>,
}

impl fmt::Debug for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Work").finish_non_exhaustive()
    }
}

/// The fields of an older value that nobody has taken yet.
pub type OldFields<'w> = Vec<(&'w str, Old<'w>)>;

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
    fn finish(mut self, commit: bool) {
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

/// Memory for a value, from the global allocator.
fn block<F>() -> (*mut F, alloc::Layout) {
    let layout = alloc::Layout::new::<F>();
    if layout.size() == 0 {
        return (ptr::NonNull::dangling().as_ptr(), layout);
    }
    (allocate(layout).cast(), layout)
}

/// A block that is not empty.
fn allocate(layout: alloc::Layout) -> *mut u8 {
    assert_ne!(layout.size(), 0, "nobody asks for an empty block");
    // SAFETY: the layout has a size.
    let block = unsafe { alloc::alloc(layout) };
    if block.is_null() {
        handle_alloc_error(layout);
    }
    block
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

/// # Safety
///
/// `value` is a valid `F` that nobody uses any more.
unsafe extern "C" fn drop_in_place<F>(value: *mut c_void) {
    // A panic has been reported by the hook.
    // SAFETY: this function's contract.
    let _ = guard(|| unsafe { value.cast::<F>().drop_in_place() });
}

/// # Safety
///
/// As [`Resident::dissolve`].
unsafe extern "C" fn dissolve<C: Resident>(value: *mut c_void) {
    // SAFETY: this function's contract.
    let _ = guard(|| unsafe { C::dissolve(value.cast::<C>()) });
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
