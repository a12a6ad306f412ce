//! Types around one other: lists, boxes, locks, options.
//!
//! How a container looks inside is never guessed: the old code's glue finds its parts and frees what is
//! left of it, this code makes the new one by its ordinary functions.
#![expect(unsafe_code, reason = "takes containers apart by address")]

use std::collections::VecDeque;
use std::mem::MaybeUninit;
use std::sync::Arc;

use super::{Kind, Misfit, Old, OldType, Resident, Settling, Shapes, Work};
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

    unsafe fn rebuild(old: Old<'_>, into: *mut Self, work: &mut Work) -> Result<(), Misfit> {
        let elements = old.elements();
        // SAFETY: `into` is writable; the list's block is as long as there are parts, and stays.
        unsafe {
            into.write(Vec::with_capacity(elements.len()));
            work.shell(into);
            let first = (*into).as_mut_ptr();
            for (i, element) in elements.iter().enumerate() {
                work.place::<T>(*element, first.add(i))?;
            }
            (*into).set_len(elements.len());
        }
        work.dissolve_old(old);
        Ok(())
    }
}

// SAFETY: a ring of `T`s in a block of the global allocator.
unsafe impl<T: Resident> Resident for VecDeque<T> {
    const MAY_SETTLE: bool = true;

    fn settle(&mut self, how: Settling<'_>) {
        settle_behind(self, how);
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

    unsafe fn rebuild(old: Old<'_>, into: *mut Self, work: &mut Work) -> Result<(), Misfit> {
        let elements = old.elements();
        // SAFETY: `into` is writable; each part is whole before it is moved in.
        unsafe {
            into.write(VecDeque::with_capacity(elements.len()));
            work.shell(into);
            for element in elements {
                let staged = work.staging::<T>();
                work.place::<T>(element, staged)?;
                (*into).push_back(staged.read());
            }
        }
        work.dissolve_old(old);
        Ok(())
    }
}

// SAFETY: a `T` in a block of the global allocator.
unsafe impl<T: Resident> Resident for Box<T> {
    const MAY_SETTLE: bool = true;

    fn settle(&mut self, how: Settling<'_>) {
        settle_behind([&mut **self], how);
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

    unsafe fn rebuild(old: Old<'_>, into: *mut Self, work: &mut Work) -> Result<(), Misfit> {
        for element in old.elements() {
            let block = work.block::<T>();
            // SAFETY: the block is fresh, of the allocator and the layout that a box has.
            unsafe {
                work.place::<T>(element, block)?;
                into.write(Box::from_raw(block));
            }
        }
        work.dissolve_old(old);
        Ok(())
    }
}

// SAFETY: a `T` and two counts in a block of the global allocator.
unsafe impl<T: Resident> Resident for Arc<T> {
    const MAY_SETTLE: bool = false;

    fn settle(&mut self, _: Settling<'_>) {}

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

    unsafe fn rebuild(old: Old<'_>, into: *mut Self, work: &mut Work) -> Result<(), Misfit> {
        let Some(element) = old.elements().pop() else { return Err(work.is_shared::<Self>()) };
        let staged = work.staging::<Arc<MaybeUninit<T>>>();
        // SAFETY: the room is fresh; the new block has one owner, so nobody else sees it being filled.
        unsafe {
            work.made(Arc::new_uninit(), staged);
            work.place::<T>(element, Arc::as_ptr(&*staged).cast_mut().cast())?;
            into.write(staged.read().assume_init());
        }
        work.dissolve_old(old);
        Ok(())
    }
}

// SAFETY: `N` times `T`.
unsafe impl<T: Resident, const N: usize> Resident for [T; N] {
    const MAY_SETTLE: bool = T::MAY_SETTLE;

    fn settle(&mut self, how: Settling<'_>) {
        settle_all(self, how);
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

    unsafe fn rebuild(old: Old<'_>, into: *mut Self, work: &mut Work) -> Result<(), Misfit> {
        let elements = old.elements();
        if elements.len() != N {
            return Err(Misfit::retyped::<Self>(old.ty()));
        }
        for (i, element) in elements.into_iter().enumerate() {
            // SAFETY: `into` is writable and `i` below its length.
            unsafe { work.place::<T>(element, into.cast::<T>().add(i))? };
        }
        Ok(())
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

            unsafe fn rebuild(old: Old<'_>, into: *mut Self, work: &mut Work) -> Result<(), Misfit> {
                for element in old.elements() {
                    let staged = work.staging::<T>();
                    // SAFETY: the room is fresh; what is in it is whole before it is moved on.
                    unsafe {
                        work.place::<T>(element, staged)?;
                        into.write($lock::new(staged.read()));
                    }
                }
                Ok(())
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

    unsafe fn rebuild(old: Old<'_>, into: *mut Self, work: &mut Work) -> Result<(), Misfit> {
        // SAFETY: `into` is writable; the room is fresh, and what is in it whole before it is moved on.
        unsafe {
            into.write(OnceCell::new());
            for element in old.elements() {
                let staged = work.staging::<T>();
                work.place::<T>(element, staged)?;
                into.write(OnceCell::moved(staged.read()));
            }
        }
        Ok(())
    }
}

// SAFETY: described as the enum that it is.
unsafe impl<T: Resident> Resident for Option<T> {
    const MAY_SETTLE: bool = T::MAY_SETTLE;

    fn settle(&mut self, how: Settling<'_>) {
        settle_all(self, how);
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
        for (_, parts) in work.enum_variants::<Self>(old)? {
            parts.into_iter().try_for_each(|(_, part)| work.check::<T>(part))?;
        }
        Ok(())
    }

    unsafe fn rebuild(old: Old<'_>, into: *mut Self, work: &mut Work) -> Result<(), Misfit> {
        let (_, parts) = work.open_enum::<Self>(old)?;
        // SAFETY: `into` is writable; the room is fresh, and what is in it whole before it is moved on.
        unsafe {
            into.write(None);
            for (_, part) in parts {
                let staged = work.staging::<T>();
                work.place::<T>(part, staged)?;
                into.write(Some(staged.read()));
            }
        }
        Ok(())
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
        for (variant, parts) in work.enum_variants::<Self>(old)? {
            for (_, part) in parts {
                if variant == "Ok" { work.check::<T>(part)? } else { work.check::<E>(part)? }
            }
        }
        Ok(())
    }

    unsafe fn rebuild(old: Old<'_>, into: *mut Self, work: &mut Work) -> Result<(), Misfit> {
        let (variant, parts) = work.open_enum::<Self>(old)?;
        for (_, part) in parts {
            // SAFETY: `into` is writable; the room is fresh, and what is in it whole before it is moved on.
            unsafe {
                if variant == "Ok" {
                    let staged = work.staging::<T>();
                    work.place::<T>(part, staged)?;
                    into.write(Ok(staged.read()));
                } else {
                    let staged = work.staging::<E>();
                    work.place::<E>(part, staged)?;
                    into.write(Err(staged.read()));
                }
            }
        }
        Ok(())
    }
}
