//! Types around one other: lists, boxes, locks, options.
//!
//! How a container looks inside is never guessed: the old code's glue finds its parts and frees what is
//! left of it, this code makes the new one by its ordinary functions.
#![expect(unsafe_code, reason = "takes containers apart by address")]

use std::collections::VecDeque;
use std::mem::MaybeUninit;
use std::sync::Arc;

use super::{
    Definition, FieldNames, Kind, Misfit, Nature, Old, OldType, Resident, Settling, Shapes, TypeInfo,
    VariantNames, Work, Written,
};
use crate::sync::{Mutex, OnceCell, RwLock};

/// The one type that a container holds.
fn fits_one<C, T: Resident>(old: OldType<'_>, work: &mut Work) -> Result<(), Misfit> {
    match *old.params::<C>()? {
        [element] => work.check::<T>(element),
        _ => Err(Misfit::retyped::<C>(old)),
    }
}

/// Settles parts, if theirs may have to be.
fn settle_all<'p, T: Resident>(parts: impl IntoIterator<Item = &'p mut T>, how: Settling<'_>) {
    if T::MAY_SETTLE {
        parts.into_iter().for_each(|part| part.settle(how));
    }
}

/// As [`settle_all`], for parts in a block of their own.
fn settle_behind<'p, T: Resident>(parts: impl IntoIterator<Item = &'p mut T>, how: Settling<'_>) {
    if T::MAY_SETTLE {
        parts.into_iter().for_each(|part| how.behind(part));
    }
}

/// Visits the value that a reference leads to.
fn see<T>(part: &mut T, visit: &mut dyn FnMut(*mut u8)) {
    visit((&raw mut *part).cast());
}

// SAFETY: a list of `T`s in a block of the global allocator.
unsafe impl<T: Resident> Resident for Vec<T> {
    const MAY_SETTLE: bool = true;

    fn settle(&mut self, how: Settling<'_>) {
        settle_behind(self, how);
    }

    fn nature() -> Nature {
        Nature::PLAIN
    }

    fn shape(shapes: &mut Shapes) -> Kind {
        Kind::Container(vec![shapes.of::<T>()])
    }

    unsafe fn children(this: *mut Self, visit: &mut dyn FnMut(*mut u8)) {
        // SAFETY: valid and unused by this function's contract.
        unsafe { &mut *this }.iter_mut().for_each(|part| see(part, visit));
    }

    unsafe fn dissolve(this: *mut Self) {
        // SAFETY: the parts have been moved out by this function's contract; the list is the last user.
        unsafe {
            (*this).set_len(0);
            this.drop_in_place();
        }
    }

    fn fits(old: OldType<'_>, work: &mut Work) -> Result<(), Misfit> {
        fits_one::<Self, T>(old, work)
    }

    unsafe fn rebuild(old: Old<'_>, into: *mut Self, work: &mut Work) -> Result<Written, Misfit> {
        let elements = old.elements();
        // SAFETY: `into` is writable; the list's block is as long as there are parts, and stays. It is as long as has been
        // written when that is said.
        let written = unsafe {
            let written = Written::by(into, Vec::with_capacity(elements.len()));
            work.shell(into);
            let first = (*into).as_mut_ptr();
            let mut count = 0;
            for element in elements {
                let _: Written = work.place::<T>(element, first.add(count))?;
                count += 1;
            }
            (*into).set_len(count);
            written
        };
        work.dissolve_old(old);
        Ok(written)
    }
}

// SAFETY: a ring of `T`s in a block of the global allocator.
unsafe impl<T: Resident> Resident for VecDeque<T> {
    const MAY_SETTLE: bool = true;

    fn settle(&mut self, how: Settling<'_>) {
        settle_behind(self, how);
    }

    fn nature() -> Nature {
        Nature::PLAIN
    }

    fn shape(shapes: &mut Shapes) -> Kind {
        Kind::Container(vec![shapes.of::<T>()])
    }

    unsafe fn children(this: *mut Self, visit: &mut dyn FnMut(*mut u8)) {
        // SAFETY: valid and unused by this function's contract.
        unsafe { &mut *this }.iter_mut().for_each(|part| see(part, visit));
    }

    unsafe fn dissolve(this: *mut Self) {
        // SAFETY: the last use of the ring.
        let mut parts = Vec::from(unsafe { this.read() });
        // SAFETY: they have been moved out by this function's contract.
        unsafe { parts.set_len(0) };
    }

    fn fits(old: OldType<'_>, work: &mut Work) -> Result<(), Misfit> {
        fits_one::<Self, T>(old, work)
    }

    unsafe fn rebuild(old: Old<'_>, into: *mut Self, work: &mut Work) -> Result<Written, Misfit> {
        let elements = old.elements();
        // SAFETY: `into` is writable; each part is whole before it is moved in.
        let written = unsafe {
            let written = Written::by(into, VecDeque::with_capacity(elements.len()));
            work.shell(into);
            for element in elements {
                let staged = work.staging::<T>();
                let _: Written = work.place::<T>(element, staged)?;
                (*into).push_back(staged.read());
            }
            written
        };
        work.dissolve_old(old);
        Ok(written)
    }
}

// SAFETY: a `T` in a block of the global allocator.
unsafe impl<T: Resident> Resident for Box<T> {
    const MAY_SETTLE: bool = true;

    fn settle(&mut self, how: Settling<'_>) {
        settle_behind([&mut **self], how);
    }

    fn nature() -> Nature {
        Nature::PLAIN
    }

    fn shape(shapes: &mut Shapes) -> Kind {
        Kind::Container(vec![shapes.of::<T>()])
    }

    unsafe fn children(this: *mut Self, visit: &mut dyn FnMut(*mut u8)) {
        // SAFETY: valid and unused by this function's contract.
        see(unsafe { &mut **this }, visit);
    }

    unsafe fn dissolve(this: *mut Self) {
        // SAFETY: the last use of the box; what was in it has been moved out, so the block is as good as
        // uninitialised.
        unsafe { drop(Box::from_raw(Box::into_raw(this.read()).cast::<MaybeUninit<T>>())) };
    }

    fn fits(old: OldType<'_>, work: &mut Work) -> Result<(), Misfit> {
        fits_one::<Self, T>(old, work)
    }

    unsafe fn rebuild(old: Old<'_>, into: *mut Self, work: &mut Work) -> Result<Written, Misfit> {
        let element = old.only_element::<Self>()?;
        let block = work.block::<T>();
        // SAFETY: the block is fresh, of the allocator and the layout that a box has, and what is in it whole.
        let written = unsafe {
            let _: Written = work.place::<T>(element, block)?;
            Written::by(into, Box::from_raw(block))
        };
        work.dissolve_old(old);
        Ok(written)
    }
}

// SAFETY: a `T` and two counts in a block of the global allocator.
unsafe impl<T: Resident> Resident for Arc<T> {
    const MAY_SETTLE: bool = false;

    fn settle(&mut self, _: Settling<'_>) {}

    fn nature() -> Nature {
        Nature::PLAIN
    }

    fn shape(shapes: &mut Shapes) -> Kind {
        Kind::Container(vec![shapes.of::<T>()])
    }

    unsafe fn children(this: *mut Self, visit: &mut dyn FnMut(*mut u8)) {
        // SAFETY: valid and unused by this function's contract. With other owners there is no access.
        if let Some(part) = Arc::get_mut(unsafe { &mut *this }) {
            see(part, visit);
        }
    }

    unsafe fn dissolve(this: *mut Self) {
        // SAFETY: the last use of the only owner; what was in it has been moved out.
        unsafe { drop(Arc::from_raw(Arc::into_raw(this.read()).cast::<MaybeUninit<T>>())) };
    }

    fn fits(old: OldType<'_>, work: &mut Work) -> Result<(), Misfit> {
        fits_one::<Self, T>(old, work)
    }

    unsafe fn rebuild(old: Old<'_>, into: *mut Self, work: &mut Work) -> Result<Written, Misfit> {
        // What is the same gets here to be copied only. What nobody can change has one owner more, and is no copy.
        let is_same = work.expect_same::<Self>(old).is_ok();
        if is_same && !TypeInfo::of::<T>().has_cells() {
            // SAFETY: it is an `Arc` of this type, which nobody changes.
            return unsafe { work.clone_std(old, into) };
        }
        let Ok(element) = old.only_element::<Self>() else {
            return Err(if is_same { work.is_shared_cell::<Self>() } else { work.is_shared::<Self>() });
        };
        let staged = work.staging::<Arc<MaybeUninit<T>>>();
        // SAFETY: the room is fresh; the new block has one owner, so nobody else sees it being filled.
        let written = unsafe {
            let _: Written = work.made(Arc::new_uninit(), staged);
            let _: Written = work.place::<T>(element, Arc::as_ptr(&*staged).cast_mut().cast())?;
            Written::by(into, staged.read().assume_init())
        };
        work.dissolve_old(old);
        Ok(written)
    }
}

// SAFETY: `N` times `T`.
unsafe impl<T: Resident, const N: usize> Resident for [T; N] {
    const MAY_SETTLE: bool = T::MAY_SETTLE;

    fn settle(&mut self, how: Settling<'_>) {
        settle_all(self, how);
    }

    fn nature() -> Nature {
        Nature::PLAIN
    }

    fn shape(shapes: &mut Shapes) -> Kind {
        Kind::Container(vec![shapes.of::<T>()])
    }

    unsafe fn children(this: *mut Self, visit: &mut dyn FnMut(*mut u8)) {
        // SAFETY: valid and unused by this function's contract.
        unsafe { &mut *this }.iter_mut().for_each(|part| see(part, visit));
    }

    fn fits(old: OldType<'_>, work: &mut Work) -> Result<(), Misfit> {
        work.same_length::<Self>(old, N)?;
        match *old.any_params().as_slice() {
            [element] => work.check::<T>(element),
            _ => Err(Misfit::retyped::<Self>(old)),
        }
    }

    unsafe fn rebuild(old: Old<'_>, into: *mut Self, work: &mut Work) -> Result<Written, Misfit> {
        let elements = old.elements();
        if elements.len() != N {
            return Err(Misfit::retyped::<Self>(old.ty()));
        }
        let mut written = Vec::with_capacity(N);
        for (i, element) in elements.into_iter().enumerate() {
            // SAFETY: `into` is writable and `i` below its length.
            written.push(unsafe { work.place::<T>(element, into.cast::<T>().add(i))? });
        }
        <[Written; N]>::try_from(written).map(Written::all).map_err(|_| Misfit::retyped::<Self>(old.ty()))
    }
}

macro_rules! locks {
    ($($lock:ident)*) => {$(
        // SAFETY: a `T` beside a word that the kernel waits on. Nobody uses the lock during an upgrade, so
        // it is not held, and a fresh one takes its place.
        unsafe impl<T: Resident> Resident for $lock<T> {
            // What is below has a home of its own.
            const MAY_SETTLE: bool = false;

            fn settle(&mut self, _: Settling<'_>) {}

            fn nature() -> Nature {
                Nature::CELL
            }

            fn shape(shapes: &mut Shapes) -> Kind {
                Kind::Container(vec![shapes.of::<T>()])
            }

            unsafe fn children(this: *mut Self, visit: &mut dyn FnMut(*mut u8)) {
                // SAFETY: valid and unused by this function's contract.
                see(unsafe { &mut *this }.get_mut(), visit);
            }

            fn fits(old: OldType<'_>, work: &mut Work) -> Result<(), Misfit> {
                fits_one::<Self, T>(old, work)
            }

            unsafe fn rebuild(old: Old<'_>, into: *mut Self, work: &mut Work) -> Result<Written, Misfit> {
                let (element, staged) = (old.only_element::<Self>()?, work.staging::<T>());
                // SAFETY: the room is fresh; what is in it is whole before it is moved on.
                unsafe {
                    let _: Written = work.place::<T>(element, staged)?;
                    Ok(Written::by(into, $lock::new(staged.read())))
                }
            }
        }
    )*};
}

locks! { Mutex RwLock }

// SAFETY: a `T`, or none, beside a word that the kernel waits on.
unsafe impl<T: Resident> Resident for OnceCell<T> {
    const MAY_SETTLE: bool = T::MAY_SETTLE;

    fn settle(&mut self, how: Settling<'_>) {
        settle_all(self.get_mut(), how);
    }

    fn nature() -> Nature {
        Nature::CELL
    }

    fn shape(shapes: &mut Shapes) -> Kind {
        Kind::Container(vec![shapes.of::<T>()])
    }

    unsafe fn children(this: *mut Self, visit: &mut dyn FnMut(*mut u8)) {
        // SAFETY: valid and unused by this function's contract.
        if let Some(part) = unsafe { &mut *this }.get_mut() {
            see(part, visit);
        }
    }

    fn fits(old: OldType<'_>, work: &mut Work) -> Result<(), Misfit> {
        fits_one::<Self, T>(old, work)
    }

    unsafe fn rebuild(old: Old<'_>, into: *mut Self, work: &mut Work) -> Result<Written, Misfit> {
        // SAFETY: `into` is writable; the room is fresh, and what is in it whole before it is moved on.
        unsafe {
            let mut written = Written::by(into, OnceCell::new());
            for element in old.elements() {
                let staged = work.staging::<T>();
                let _: Written = work.place::<T>(element, staged)?;
                written = Written::by(into, OnceCell::moved(staged.read()));
            }
            Ok(written)
        }
    }
}

const NOTHING: Definition = Definition { fields: &[], dropped: &[] };
const ONE: Definition = Definition { fields: &[FieldNames { name: "0", before: &[] }], dropped: &[] };
const OPTION: [VariantNames; 2] = [
    VariantNames { name: "None", before: &[], fields: NOTHING },
    VariantNames { name: "Some", before: &[], fields: ONE },
];
const RESULT: [VariantNames; 2] = [
    VariantNames { name: "Ok", before: &[], fields: ONE },
    VariantNames { name: "Err", before: &[], fields: ONE },
];

// SAFETY: described as the enum that it is.
unsafe impl<T: Resident> Resident for Option<T> {
    const MAY_SETTLE: bool = T::MAY_SETTLE;

    fn settle(&mut self, how: Settling<'_>) {
        settle_all(self, how);
    }

    fn nature() -> Nature {
        Nature::PLAIN
    }

    fn shape(shapes: &mut Shapes) -> Kind {
        let part = ("0".to_owned(), shapes.of::<T>());
        Kind::Enum(vec![shapes.variant("None", 0, Vec::new()), shapes.variant("Some", 1, vec![part])])
    }

    fn variant(&self) -> u32 {
        u32::from(self.is_some())
    }

    unsafe fn children(this: *mut Self, visit: &mut dyn FnMut(*mut u8)) {
        // SAFETY: valid and unused by this function's contract.
        if let Some(part) = unsafe { &mut *this } {
            see(part, visit);
        }
    }

    fn fits(old: OldType<'_>, work: &mut Work) -> Result<(), Misfit> {
        for (variant, fields) in work.enum_variants::<Self>(old, &OPTION)? {
            if variant == 1 {
                work.fit_field::<T>(&fields, 0, false)?;
            }
        }
        Ok(())
    }

    unsafe fn rebuild(old: Old<'_>, into: *mut Self, work: &mut Work) -> Result<Written, Misfit> {
        let (variant, fields) = work.open_enum::<Self>(old, &OPTION)?;
        // SAFETY: `into` is writable; the room is fresh, and what is in it whole before it is moved on.
        unsafe {
            if variant == 0 {
                return Ok(Written::by(into, None));
            }
            let staged = work.staging::<T>();
            let _: Written = work.place_field::<T>(&fields, 0, None, staged)?;
            Ok(Written::by(into, Some(staged.read())))
        }
    }
}

// SAFETY: described as the enum that it is.
unsafe impl<T: Resident, E: Resident> Resident for Result<T, E> {
    const MAY_SETTLE: bool = T::MAY_SETTLE || E::MAY_SETTLE;

    fn settle(&mut self, how: Settling<'_>) {
        match self {
            Ok(part) => part.settle(how),
            Err(part) => part.settle(how),
        }
    }

    fn nature() -> Nature {
        Nature::PLAIN
    }

    fn shape(shapes: &mut Shapes) -> Kind {
        let (ok, err) = (("0".to_owned(), shapes.of::<T>()), ("0".to_owned(), shapes.of::<E>()));
        Kind::Enum(vec![shapes.variant("Ok", 0, vec![ok]), shapes.variant("Err", 1, vec![err])])
    }

    fn variant(&self) -> u32 {
        u32::from(self.is_err())
    }

    unsafe fn children(this: *mut Self, visit: &mut dyn FnMut(*mut u8)) {
        // SAFETY: valid and unused by this function's contract.
        match unsafe { &mut *this } {
            Ok(part) => see(part, visit),
            Err(part) => see(part, visit),
        }
    }

    fn fits(old: OldType<'_>, work: &mut Work) -> Result<(), Misfit> {
        for (variant, fields) in work.enum_variants::<Self>(old, &RESULT)? {
            match variant {
                0 => work.fit_field::<T>(&fields, 0, false)?,
                _ => work.fit_field::<E>(&fields, 0, false)?,
            }
        }
        Ok(())
    }

    unsafe fn rebuild(old: Old<'_>, into: *mut Self, work: &mut Work) -> Result<Written, Misfit> {
        let (variant, fields) = work.open_enum::<Self>(old, &RESULT)?;
        // SAFETY: `into` is writable; the room is fresh, and what is in it whole before it is moved on.
        unsafe {
            if variant == 0 {
                let staged = work.staging::<T>();
                let _: Written = work.place_field::<T>(&fields, 0, None, staged)?;
                Ok(Written::by(into, Ok(staged.read())))
            } else {
                let staged = work.staging::<E>();
                let _: Written = work.place_field::<E>(&fields, 0, None, staged)?;
                Ok(Written::by(into, Err(staged.read())))
            }
        }
    }
}
