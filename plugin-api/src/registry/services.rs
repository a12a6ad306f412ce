//! Services in the registry: found by name and methods, called across.
#![expect(unsafe_code, reason = "calls the host through the C ABI")]

use std::ptr;

use super::{Handle, Init, Key, RegistryError, sealed};
use crate::abi::HandleId;
use crate::host::{self, Owned};
use crate::service::{Interface, Remote, hand_over, tables, type_view};

/// What [`sealed::Keep`] asks of a service, for the expansion of `#[resident]`.
#[doc(hidden)]
#[macro_export]
macro_rules! __keep_service {
    ($of:ty) => {
        impl $crate::__private::Keep for $of {
            type Made = ::std::boxed::Box<$of>;
            type Held = <$of as $crate::__private::Interface>::Caller;
            type Cache = ();
            type Lent<'a> = $crate::registry::Handle<$of>;
            const EMPTY: () = ();

            fn target(held: &Self::Held) -> &Self {
                <$of as $crate::__private::Interface>::of(held)
            }

            fn into_owned(
                made: ::std::boxed::Box<$of>,
            ) -> ::core::result::Result<$crate::__private::Owned, ::std::string::String> {
                $crate::__private::service_into_owned(made)
            }

            fn find(
                key: $crate::registry::Key<'_>,
                init: ::core::option::Option<&$crate::__private::Init<'_>>,
            ) -> ::core::result::Result<Self::Held, $crate::registry::RegistryError> {
                $crate::__private::find_service::<$of>(key, init)
            }

            fn lend(
                _: &(),
                key: $crate::registry::Key<'_>,
                init: &$crate::__private::Init<'_>,
            ) -> ::core::result::Result<$crate::registry::Handle<$of>, $crate::registry::RegistryError> {
                $crate::__private::lend_service::<$of>(key, init)
            }

            fn prepare(
                _: &(),
                key: $crate::registry::Key<'_>,
                init: &$crate::__private::Init<'_>,
            ) -> ::core::result::Result<(), $crate::registry::RegistryError> {
                $crate::__private::lend_service::<$of>(key, init).map(|_| ())
            }
        }

        impl $crate::registry::IntoKept for ::std::boxed::Box<$of> {
            type Kept = $of;
        }
    };
}

/// Gives a service that an init has made to the host; the text says why not.
#[doc(hidden)]
pub fn service_into_owned<I: ?Sized + Interface>(made: Box<I>) -> Result<Owned, String> {
    hand_over(made).map_err(|error| error.to_string())
}

/// Finds a service, or makes it if there is an `init`.
///
/// # Errors
///
/// [`RegistryError`].
#[doc(hidden)]
pub fn find_service<I: ?Sized + Interface>(
    key: Key<'_>,
    init: Option<&Init<'_>>,
) -> Result<I::Caller, RegistryError> {
    let (host, table) = tables()?;
    let (name, expected) = (key.view(), type_view::<I>(key.on_change));
    let init = init.map_or(ptr::null(), |init| ptr::from_ref(init.view()));
    let mut id = HandleId::NONE;
    host::call(|error| {
        // SAFETY: the table's own `ctx`; the views, `init` and `id` live until the call returns.
        unsafe { (table.find)(host.ctx, &name, &expected, init, &mut id, error) }
    })?;
    Ok(I::caller(Remote::new(Owned::new(id))))
}

/// As [`find_service`], for a [`Lazy`](super::Lazy). Looked up at every use, so that a service that was replaced is
/// let go of.
///
/// # Errors
///
/// [`RegistryError`].
#[doc(hidden)]
pub fn lend_service<I: ?Sized + Interface + sealed::Keep<Held = <I as Interface>::Caller>>(
    key: Key<'_>,
    init: &Init<'_>,
) -> Result<Handle<I>, RegistryError> {
    find_service::<I>(key, Some(init)).map(Handle)
}

/// Puts a service in the place of the one under a key.
pub(super) fn replace<I: ?Sized + Interface>(key: Key<'_>, service: Box<I>) -> Result<(), RegistryError> {
    let owned = hand_over(service)?;
    let (host, table) = tables()?;
    let name = key.view();
    host::call(|error| {
        // SAFETY: the table's own `ctx`; the view lives until the call returns.
        unsafe { (table.replace)(host.ctx, &name, owned.id(), error) }
    })?;
    // The host has taken it.
    let _ = owned.into_id();
    Ok(())
}
