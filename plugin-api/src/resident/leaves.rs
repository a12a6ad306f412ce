//! Types of `std` that have no parts which could change by themselves, and tuples.
#![expect(unsafe_code, reason = "promises what `Resident` asks for")]

use std::marker::PhantomData;
use std::mem::offset_of;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::num::{NonZeroI32, NonZeroI64, NonZeroU8, NonZeroU16, NonZeroU32, NonZeroU64, NonZeroUsize};
use std::ptr::addr_of_mut;
use std::sync::atomic::{
    AtomicBool, AtomicI8, AtomicI16, AtomicI32, AtomicI64, AtomicIsize, AtomicU8, AtomicU16, AtomicU32,
    AtomicU64, AtomicUsize,
};
use std::time::{Duration, Instant, SystemTime};

use super::{Kind, Misfit, Old, OldType, Resident, Settling, Shapes, Work};

macro_rules! leaves {
    ($($of:ty),* $(,)?) => {$(
        // SAFETY: complete as a leaf: a type of `std` is the same wherever compiler and name are. It holds
        // numbers only, or owns bytes of the global allocator.
        unsafe impl Resident for $of {
            const MAY_SETTLE: bool = false;

            fn settle(&mut self, _: Settling<'_>) {}

            fn shape(_: &mut Shapes) -> Kind {
                Kind::Leaf
            }
        }
    )*};
}

leaves! {
    (), bool, char, u8, u16, u32, u64, u128, usize, i8, i16, i32, i64, i128, isize, f32, f64,
    String, Box<str>, std::path::PathBuf, std::ffi::OsString, std::ffi::CString,
    Duration, Instant, SystemTime,
    AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize,
    AtomicI8, AtomicI16, AtomicI32, AtomicI64, AtomicIsize,
    NonZeroU8, NonZeroU16, NonZeroU32, NonZeroU64, NonZeroUsize, NonZeroI32, NonZeroI64,
    IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6,
    std::cmp::Ordering, crate::sync::Condvar,
}

// SAFETY: has no values to represent; what `T` is does not matter.
unsafe impl<T: 'static> Resident for PhantomData<T> {
    const MAY_SETTLE: bool = false;

    fn settle(&mut self, _: Settling<'_>) {}

    fn shape(_: &mut Shapes) -> Kind {
        Kind::Leaf
    }

    fn fits(_: OldType<'_>, _: &mut Work) -> Result<(), Misfit> {
        Ok(())
    }

    unsafe fn rebuild(old: Old<'_>, into: *mut Self, work: &mut Work) -> Result<(), Misfit> {
        // SAFETY: writable by this function's contract.
        unsafe { into.write(PhantomData) };
        work.drop_old(old);
        Ok(())
    }
}

macro_rules! tuples {
    ($(($($of:ident $at:tt),*))*) => {$(
        // SAFETY: every field is described, at its place, and is `Resident` itself.
        unsafe impl<$($of: Resident),*> Resident for ($($of,)*) {
            const MAY_SETTLE: bool = false $(|| $of::MAY_SETTLE)*;

            fn settle(&mut self, how: Settling<'_>) {
                $(self.$at.settle(how);)*
            }

            fn shape(shapes: &mut Shapes) -> Kind {
                Kind::Struct(vec![$(shapes.field::<$of>(stringify!($at), offset_of!(Self, $at))),*])
            }

            fn fits(old: OldType<'_>, work: &mut Work) -> Result<(), Misfit> {
                let fields = work.struct_fields::<Self>(old)?;
                $(work.fit_field::<$of>(&fields, stringify!($at), &[], false)?;)*
                Ok(())
            }

            unsafe fn rebuild(old: Old<'_>, into: *mut Self, work: &mut Work) -> Result<(), Misfit> {
                let mut fields = work.open_struct::<Self>(old)?;
                // SAFETY: each field of `into` is written once, within what the caller promised.
                unsafe {
                    $(work.place_field::<$of>(&mut fields, stringify!($at), &[], None, addr_of_mut!((*into).$at))?;)*
                }
                work.drop_rest(fields);
                Ok(())
            }
        }
    )*};
}

tuples! {
    (A 0)
    (A 0, B 1)
    (A 0, B 1, C 2)
    (A 0, B 1, C 2, D 3)
    (A 0, B 1, C 2, D 3, E 4)
    (A 0, B 1, C 2, D 3, E 4, F 5)
}
