//! A value of an older layout as today's code sees it: by the older layout's text, its address, and the older code's glue.
//!
//! Owns the way down into it. Does not own what becomes of its parts: nothing is changed or taken here.
//!
//! # Invariants
//!
//! - A part is read as a `T` only where its layout is that of `T`, down to the compiler.
//! - A field lies inside of its struct: a text that says otherwise is no layout. The parts of containers and of enums are
//!   where the older code's glue says.
#![expect(unsafe_code, reason = "goes down into values by address")]

use std::any::type_name;

use super::Misfit;
use super::copy::{Shown, children};
use crate::abi::GlueView;
use crate::resident::layout::{Kind, Layout, base, same, short};
use crate::resident::{Resident, TypeInfo};

/// A type of the older layout.
#[derive(Debug, Clone, Copy)]
pub struct OldType<'w> {
    pub(super) layout: &'w Layout,
    pub(super) number: usize,
}

impl<'w> OldType<'w> {
    pub(super) fn name(self) -> &'w str {
        &self.layout.types[self.number].name
    }

    pub(super) fn kind(self) -> &'w Kind {
        &self.layout.types[self.number].kind
    }

    pub(super) fn of(self, number: usize) -> OldType<'w> {
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
    pub(super) ty: OldType<'w>,
    pub(super) glue: &'w [GlueView],
    pub(super) at: *mut u8,
    pub(super) shown: &'w Shown,
}

impl<'w> Old<'w> {
    pub(crate) fn ty(self) -> OldType<'w> {
        self.ty
    }

    pub(super) fn part(self, ty: usize, at: *mut u8) -> Old<'w> {
        Old { ty: self.ty.of(ty), at, ..self }
    }

    /// In bytes.
    pub(super) fn size(self) -> usize {
        self.ty.layout.types[self.ty.number].size
    }

    pub(super) fn glue(self) -> &'w GlueView {
        &self.glue[self.ty.number]
    }

    /// The parts of a container or of an enum's variant.
    pub(crate) fn children(self) -> Vec<*mut u8> {
        // SAFETY: the glue is that of the value's type, and nobody else uses the value.
        unsafe { children(self.glue(), self.at) }
    }

    /// The parts of a container, each with its type.
    pub(crate) fn elements(self) -> Vec<Old<'w>> {
        let Kind::Container(params) = self.ty.kind() else { return Vec::new() };
        let Some(count) = (!params.is_empty()).then_some(params.len()) else { return Vec::new() };
        let children = self.children().into_iter().enumerate();
        children.map(|(i, at)| self.part(params[i % count], at)).collect()
    }

    /// The part of a container that holds exactly one.
    pub(crate) fn only_element<C>(self) -> Result<Old<'w>, Misfit> {
        match *self.elements() {
            [element] => Ok(element),
            _ => Err(Misfit::retyped::<C>(self.ty)),
        }
    }

    /// A field of the older value, to be looked at. What could be changed through it, locks and atomics, is shown as a
    /// copy: a refused edit leaves the older value as it was, whatever a hook does.
    ///
    /// # Errors
    ///
    /// [`Misfit`] if there is none of that name, or its type is not `T` as this code knows it; also if it has to be copied
    /// and cannot be: an `Arc` with several owners that leads to a lock or an atomic, a lock around a type with a `Drop`.
    pub fn field<T: Resident>(&self, name: &str) -> Result<&'w T, Misfit> {
        let field = self.at(name)?;
        let info = TypeInfo::of::<T>();
        if !same(self.ty.layout, field.ty.number, &info.layout, 0) {
            return Err(Misfit::retyped::<T>(field.ty).within(name));
        }
        if info.has_cells() {
            return self.shown.copy::<T>(field).map_err(|misfit| misfit.within(name));
        }
        // SAFETY: the layouts are the same down to the compiler, so the field is a `T`; nobody changes the value for `'w`,
        // and there is nothing in it that could be changed through a reference.
        Ok(unsafe { &*field.at.cast::<T>() })
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
        let part = self.part(field.ty, unsafe { self.at.add(field.offset) });
        self.shown.note(part.at);
        Ok(part)
    }
}
