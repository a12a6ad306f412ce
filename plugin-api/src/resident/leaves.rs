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

use super::{
    Definition, FieldNames, Kind, Misfit, Nature, Old, OldType, Resident, Settling, Shapes, Work, Written,
};

macro_rules! leaves {
    ($nature:ident $copy:ident: $($of:ty),* $(,)?) => {$(
        // SAFETY: complete as a leaf: a type of `std` is the same wherever compiler and name are. It holds
        // numbers only, or owns bytes of the global allocator.
        unsafe impl Resident for $of {
            const MAY_SETTLE: bool = false;

            fn settle(&mut self, _: Settling<'_>) {}

            fn nature() -> Nature {
                Nature::$nature
            }

            fn shape(_: &mut Shapes) -> Kind {
                Kind::Leaf
            }

            unsafe fn rebuild(old: Old<'_>, into: *mut Self, work: &mut Work) -> Result<Written, Misfit> {
                // SAFETY: this function's contract.
                unsafe { work.$copy(old, into) }
            }
        }
    )*};
}

leaves! { PLAIN copy_bits:
    (), bool, char, u8, u16, u32, u64, u128, usize, i8, i16, i32, i64, i128, isize, f32, f64,
    Duration, Instant, SystemTime,
    NonZeroU8, NonZeroU16, NonZeroU32, NonZeroU64, NonZeroUsize, NonZeroI32, NonZeroI64,
    IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6,
    std::cmp::Ordering,
}

leaves! { PLAIN clone_std:
    String, Box<str>, std::path::PathBuf, std::ffi::OsString, std::ffi::CString,
}

// Nobody waits for any of these while a value is upgraded.
leaves! { CELL copy_bits:
    AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize,
    AtomicI8, AtomicI16, AtomicI32, AtomicI64, AtomicIsize,
    crate::sync::Condvar,
}

// SAFETY: has no values to represent; what `T` is does not matter.
unsafe impl<T: 'static> Resident for PhantomData<T> {
    const MAY_SETTLE: bool = false;

    fn settle(&mut self, _: Settling<'_>) {}

    fn nature() -> Nature {
        Nature::PLAIN
    }

    fn shape(_: &mut Shapes) -> Kind {
        Kind::Leaf
    }

    fn fits(_: OldType<'_>, _: &mut Work) -> Result<(), Misfit> {
        Ok(())
    }

    unsafe fn rebuild(old: Old<'_>, into: *mut Self, work: &mut Work) -> Result<Written, Misfit> {
        work.drop_old(old);
        // SAFETY: writable by this function's contract.
        Ok(unsafe { Written::by(into, PhantomData) })
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

            fn nature() -> Nature {
                Nature::PLAIN
            }

            fn shape(shapes: &mut Shapes) -> Kind {
                Kind::Struct(vec![$(shapes.field::<$of>(stringify!($at), offset_of!(Self, $at))),*])
            }

            fn fits(old: OldType<'_>, work: &mut Work) -> Result<(), Misfit> {
                let fields = work.struct_fields::<Self>(old, &Definition { fields: &[$(FieldNames { name: stringify!($at), before: &[] }),*], dropped: &[] })?;
                $(work.fit_field::<$of>(&fields, $at, false)?;)*
                Ok(())
            }

            unsafe fn rebuild(old: Old<'_>, into: *mut Self, work: &mut Work) -> Result<Written, Misfit> {
                let fields = work.open_struct::<Self>(old, &Definition { fields: &[$(FieldNames { name: stringify!($at), before: &[] }),*], dropped: &[] })?;
                // SAFETY: each field of `into` is written once, within what the caller promised.
                let written = unsafe {
                    [$(work.place_field::<$of>(&fields, $at, None, addr_of_mut!((*into).$at))?),*]
                };
                work.drop_rest(fields);
                Ok(Written::all(written))
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
