//! Persistent handles: made once, kept by the host, found again by every later generation.
//!
//! ```no_run
//! use plugin_api::prelude::*;
//!
//! fn connect() -> Result<db::Pool> {
//!     Ok(db::Pool::open("sqlite:guestbook.db")?)
//! }
//!
//! fn count(_: &Request) -> Result<String> {
//!     let db = registry::get_or_init("db", connect)?;
//!     let row = db.get()?.query_one("SELECT count(*) FROM entry", &[])?;
//!     Ok(format!("{} entries", row.get::<i64>(0)?))
//! }
//! ```
//!
//! The registry is the process's: two plugins that ask for `"db"` share one value. A plugin that wants
//! a namespace of its own takes a [`module`].
//!
//! All functions may be called from any thread. Only [`get_or_init`] and [`Lazy::get`] block: while the
//! value is made, by this caller or another, for at most 30 seconds.
#![expect(unsafe_code, reason = "calls the host through the C ABI")]

mod data;
mod entry;
mod error;
mod handles;
mod lazy;
mod memory;
mod services;

use std::ffi::c_void;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;

pub(crate) use self::data::begin_call;
pub(crate) use self::entry::Wishes;
pub use self::entry::{Config, Entry};
pub use self::error::RegistryError;
pub use self::lazy::Lazy;
#[doc(hidden)]
pub use self::lazy::prepare;
#[doc(hidden)]
pub use self::services::{find_service, lend_service, service_into_owned};
use crate::abi::{ErrorSink, HandleId, InitView, KeyView, ON_CHANGE_KEEP, Status, StrView};
use crate::entry::{guard, report};
use crate::error::Error;
use crate::host;
use crate::service::Interface;

/// What the registry can keep: data that is [`Resident`](crate::Resident), [`Send`] and [`Sync`], handles to
/// objects of the host, such as [`db::Pool`](crate::db::Pool), and [services](crate::service), `dyn Mailer`.
///
/// Sealed: the kinds of values that survive a reload soundly are the host's to decide.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be kept in the registry",
    note = "data of your own: `#[derive(Resident)]`, and share what changes by atomics or `plugin_api::sync::Mutex`",
    note = "the registry is the process's, so data has to be `Send + Sync`; of other things it keeps host handles such as `db::Pool`",
    note = "what cannot be data can be a service: `Box<dyn Trait>` of a trait with `#[plugin_api::resident]`"
)]
pub trait Keep: sealed::Keep {}

impl<T: ?Sized + sealed::Keep> Keep for T {}

/// What an init returns: the value that is kept or, for a service, the box that it is in.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be kept in the registry",
    note = "data of your own: `#[derive(Resident)]`, and share what changes by atomics or `plugin_api::sync::Mutex`",
    note = "the registry is the process's, so data has to be `Send + Sync`; of other things it keeps host handles such as `db::Pool`",
    note = "what cannot be data can be a service: `Box<dyn Trait>` of a trait with `#[plugin_api::resident]`"
)]
pub trait IntoKept: Sized {
    /// What is kept.
    type Kept: ?Sized + Keep + sealed::Keep<Made = Self>;
}

impl<T: sealed::Keep<Made = T>> IntoKept for T {
    type Kept = T;
}

pub(crate) mod sealed {
    use super::memory::KeyMemory;
    use super::{Init, Key, RegistryError};
    use crate::host::Owned;

    /// What a host handle says of itself. [`host_handle`](super::host_handle) makes it a [`Keep`].
    #[expect(unreachable_pub, reason = "beside `Keep`, which the compiler wants to be as public as its user")]
    pub trait HostHandle: Sized + 'static {
        /// The type's name, the same in host and plugin.
        const TYPE_NAME: &'static str;
        /// Wraps a handle of this type.
        fn from_owned(handle: Owned) -> Self;
        /// Gives the handle up; the text says why not.
        fn into_owned(self) -> Result<Owned, String>;
    }

    /// The boundary's side of [`super::Keep`].
    pub trait Keep: 'static {
        /// What an init makes.
        type Made;
        /// What a handle consists of.
        type Held;
        /// Where a `Lazy` remembers what it found.
        type Cache;
        /// What a `Lazy` lends.
        type Lent<'a>;
        /// A `Lazy` that has found nothing yet.
        const EMPTY: Self::Cache;
        /// The value.
        fn target(held: &Self::Held) -> &Self;
        /// Gives a value that was just made to the host; the text says why not.
        fn into_owned(made: Self::Made) -> Result<Owned, String>;
        /// Finds the value, or makes it if there is an `init`.
        fn find(key: Key<'_>, init: Option<&Init<'_>>) -> Result<Self::Held, RegistryError>;
        /// What the generation remembers of the key, if it is still that.
        fn recall(_memory: KeyMemory<Self>) -> Option<Self::Held> {
            None
        }
        /// As `find`, and remembers it.
        fn find_to_recall(
            _memory: KeyMemory<Self>,
            key: Key<'_>,
            init: &Init<'_>,
        ) -> Result<Self::Held, RegistryError> {
            Self::find(key, Some(init))
        }
        /// Remembers it no more.
        fn forget(_memory: KeyMemory<Self>) {}
        /// What the cache remembers, if it does and the value is still that.
        fn remembered(_cache: &Self::Cache) -> Option<Self::Lent<'_>> {
            None
        }
        /// As `find`, by way of what the cache remembers.
        fn lend<'a>(
            cache: &'a Self::Cache,
            key: Key<'_>,
            init: &Init<'_>,
        ) -> Result<Self::Lent<'a>, RegistryError>;
        /// Readies the key at the end of loading.
        fn prepare(cache: &Self::Cache, key: Key<'_>, init: &Init<'_>) -> Result<(), RegistryError>;
    }
}

/// Makes a type that is a [`sealed::HostHandle`] one that the registry keeps.
macro_rules! host_handle {
    ($of:ty) => {
        impl $crate::registry::sealed::Keep for $of {
            type Made = $of;
            type Held = $crate::registry::Held<$of>;
            type Cache = ::once_cell::sync::OnceCell<$of>;
            type Lent<'a> = &'a $of;
            #[expect(clippy::declare_interior_mutable_const, reason = "each `Lazy` begins with its own")]
            const EMPTY: Self::Cache = ::once_cell::sync::OnceCell::new();

            #[inline]
            fn target(held: &Self::Held) -> &$of {
                held
            }

            #[inline]
            fn recall(memory: $crate::registry::KeyMemory<$of>) -> Option<Self::Held> {
                $crate::registry::recall_host_handle(memory)
            }

            fn find_to_recall(
                memory: $crate::registry::KeyMemory<$of>,
                key: $crate::registry::Key<'_>,
                init: &$crate::registry::Init<'_>,
            ) -> ::std::result::Result<Self::Held, $crate::registry::RegistryError> {
                $crate::registry::find_host_handle_to_recall(memory, key, init)
            }

            fn forget(memory: $crate::registry::KeyMemory<$of>) {
                $crate::registry::forget_host_handle(memory)
            }

            fn into_owned(made: $of) -> ::std::result::Result<$crate::host::Owned, String> {
                $crate::registry::sealed::HostHandle::into_owned(made)
            }

            fn find(
                key: $crate::registry::Key<'_>,
                init: Option<&$crate::registry::Init<'_>>,
            ) -> ::std::result::Result<Self::Held, $crate::registry::RegistryError> {
                $crate::registry::find_host_handle(key, init).map($crate::registry::Held::Own)
            }

            #[inline]
            fn remembered(cache: &Self::Cache) -> Option<&$of> {
                cache.get()
            }

            fn lend<'a>(
                cache: &'a Self::Cache,
                key: $crate::registry::Key<'_>,
                init: &$crate::registry::Init<'_>,
            ) -> ::std::result::Result<&'a $of, $crate::registry::RegistryError> {
                $crate::registry::lend_host_handle(cache, key, init)
            }

            fn prepare(
                cache: &Self::Cache,
                key: $crate::registry::Key<'_>,
                init: &$crate::registry::Init<'_>,
            ) -> ::std::result::Result<(), $crate::registry::RegistryError> {
                $crate::registry::lend_host_handle(cache, key, init).map(|_| ())
            }
        }
    };
}
pub(crate) use host_handle;

pub use self::handles::Held;
pub(crate) use self::handles::{
    find_host_handle, find_host_handle_to_recall, forget_host_handle, lend_host_handle, recall_host_handle,
};
pub use self::memory::KeyMemory;
pub(crate) use self::memory::forget_all;

/// A value of the registry. Derefs to it; dropping it does not close the value.
///
/// A handle to data is a use of it: while there is one, the data cannot be upgraded to a changed layout.
/// So take it for a request, and keep a [`Lazy`] where you would keep a handle. A handle to a service keeps that
/// service, also when another took its place: the same advice.
pub struct Handle<T: ?Sized + Keep>(T::Held);

impl<T: ?Sized + Keep> Deref for Handle<T> {
    type Target = T;

    fn deref(&self) -> &T {
        T::target(&self.0)
    }
}

impl<T: ?Sized + Keep + sealed::Keep<Held: Clone>> Clone for Handle<T> {
    fn clone(&self) -> Handle<T> {
        Handle(self.0.clone())
    }
}

impl<T: ?Sized + Keep + fmt::Debug> fmt::Debug for Handle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Handle").field(&&**self).finish()
    }
}

/// A key, and what becomes of its value when it cannot be upgraded.
#[derive(Debug, Clone, Copy)]
pub struct Key<'a> {
    module: &'a str,
    name: &'a str,
    on_change: u32,
}

impl Key<'_> {
    fn view(&self) -> KeyView {
        KeyView {
            size: size_of::<KeyView>(),
            module: StrView::new(self.module),
            key: StrView::new(self.name),
        }
    }
}

/// Finds the value under `key`, making it with `init` if there is none.
///
/// At any time one `init` runs for a key, whatever the number of threads, generations and plugins.
/// If it fails, it and all who waited get its error, the slot stays empty, and a later caller tries
/// again: at once after the first failure, after 50 ms to 5 s of back-off from then on. A value made
/// in `on_load` becomes visible to others when the generation is published.
///
/// A generation remembers what it found, until a value leaves its key somewhere in the registry; so asking
/// again costs no call of the host. What is remembered counts as held until the generation next asks.
///
/// # Errors
///
/// [`RegistryError`].
pub fn get_or_init<M: IntoKept, E: Into<Error>>(
    key: &str,
    init: impl FnOnce() -> Result<M, E>,
) -> Result<Handle<M::Kept>, RegistryError> {
    module("").get_or_init(key, init)
}

/// Finds the value under `key`. Does not wait for one that is being made.
///
/// # Errors
///
/// [`RegistryError::NotFound`], [`RegistryError::WrongType`].
pub fn get<T: ?Sized + Keep>(key: &str) -> Result<Handle<T>, RegistryError> {
    module("").get(key)
}

/// Empties the slot of `key`. Whoever holds the value keeps it; the next [`get_or_init`] makes a new one.
///
/// # Errors
///
/// [`RegistryError::NotFound`] if there was no value.
pub fn remove(key: &str) -> Result<(), RegistryError> {
    module("").remove(key)
}

/// A key with wishes: a configuration to follow, a restart with each reload, a deadline.
///
/// ```no_run
/// use plugin_api::prelude::*;
///
/// fn connect(url: &str) -> Result<db::Pool> {
///     Ok(db::Pool::open(url)?)
/// }
///
/// fn pool() -> Result<registry::Handle<db::Pool>> {
///     let url: String = env_or("SHOP_DATABASE", "sqlite:shop.db")?;
///     Ok(registry::entry("db").config(&url).get_or_init(|| connect(&url))?)
/// }
/// ```
pub fn entry(key: &str) -> Entry<'_> {
    Entry::new(Key { module: "", name: key, on_change: ON_CHANGE_KEEP })
}

/// Puts a service in the place of the one under `key`, or there where there is none.
///
/// Everybody who looks the key up from then on finds the new one. Who holds a handle to the old one goes on with
/// it; it is dropped by its own code when nobody holds it any more. In `on_load` this happens when the generation
/// is published. The list of methods may be another one: callers that expect the old one are refused then.
///
/// ```no_run
/// # use plugin_api::prelude::*;
/// # #[plugin_api::resident]
/// # trait Mailer: Send + Sync { fn send(&self, to: &str) -> Result<()>; }
/// # fn connect() -> Result<Box<dyn Mailer>> { Err(Error::msg("")) }
/// fn prepare() -> Result<()> {
///     registry::replace::<dyn Mailer>("mailer", connect()?)?;
///     Ok(())
/// }
/// ```
///
/// # Errors
///
/// [`RegistryError::WrongType`] if there is anything but a service of the same name.
pub fn replace<I: ?Sized + Interface>(key: &str, service: Box<I>) -> Result<(), RegistryError> {
    module("").replace(key, service)
}

/// A namespace of the registry: the pseudo-module.
pub const fn module(name: &str) -> Module<'_> {
    Module(name)
}

/// A namespace of the registry. See [`module`].
#[derive(Debug, Clone, Copy)]
pub struct Module<'a>(&'a str);

impl Module<'_> {
    /// As [`get_or_init`](fn@get_or_init), in this module.
    ///
    /// # Errors
    ///
    /// [`RegistryError`].
    pub fn get_or_init<M: IntoKept, E: Into<Error>>(
        &self,
        key: &str,
        init: impl FnOnce() -> Result<M, E>,
    ) -> Result<Handle<M::Kept>, RegistryError> {
        let key = self.key(key);
        // SAFETY: called with the place that is taken for this type.
        let forget = |memory| <M::Kept as sealed::Keep>::forget(unsafe { KeyMemory::new(memory) });
        let memory = memory::of::<M::Kept>(&key, forget);
        if let Some(held) = memory.and_then(<M::Kept as sealed::Keep>::recall) {
            return Ok(Handle(held));
        }
        let mut init = Some(init);
        // `init` lives until these return, and the host runs it within, at most once.
        let wishes = Wishes::default();
        let view = Init::new::<M::Kept, E, _>(&mut init, &wishes);
        let found = match memory {
            Some(memory) => <M::Kept as sealed::Keep>::find_to_recall(memory, key, &view),
            None => <M::Kept as sealed::Keep>::find(key, Some(&view)),
        };
        found.map(Handle)
    }

    /// As [`entry`], in this module.
    pub fn entry<'k>(&'k self, key: &'k str) -> Entry<'k> {
        Entry::new(self.key(key))
    }

    /// As [`get`](fn@get), in this module.
    ///
    /// # Errors
    ///
    /// [`RegistryError::NotFound`], [`RegistryError::WrongType`].
    pub fn get<T: ?Sized + Keep>(&self, key: &str) -> Result<Handle<T>, RegistryError> {
        T::find(self.key(key), None).map(Handle)
    }

    /// As [`remove`](fn@remove), in this module.
    ///
    /// # Errors
    ///
    /// [`RegistryError::NotFound`] if there was no value.
    pub fn remove(&self, key: &str) -> Result<(), RegistryError> {
        let name = self.key(key).view();
        let outcome = host::table().and_then(|host| {
            host::call(|error| {
                // SAFETY: the table's own `ctx`; the view lives until the call returns.
                unsafe { ((*host.registry).remove)(host.ctx, &name, error) }
            })
        });
        outcome.map_err(RegistryError::from)
    }

    /// As [`replace`](fn@replace), in this module.
    ///
    /// # Errors
    ///
    /// [`RegistryError::WrongType`] if there is anything but a service of the same name.
    pub fn replace<I: ?Sized + Interface>(&self, key: &str, service: Box<I>) -> Result<(), RegistryError> {
        services::replace(self.key(key), service)
    }

    fn key<'k>(&'k self, name: &'k str) -> Key<'k> {
        Key { module: self.0, name, on_change: ON_CHANGE_KEEP }
    }
}

type InitFn = unsafe extern "C" fn(*mut c_void, *mut HandleId, *const ErrorSink) -> Status;

/// What the host needs to run an init. Made here alone: its address and its function belong together, and live as long as it
/// does. It stays on its thread, so the init is run by one at a time.
#[derive(Debug)]
pub struct Init<'i> {
    view: InitView,
    of: PhantomData<&'i mut ()>,
}

impl<'i> Init<'i> {
    fn new<T: ?Sized + Keep, E: Into<Error>, F: FnOnce() -> Result<T::Made, E>>(
        init: &'i mut Option<F>,
        wishes: &'i Wishes,
    ) -> Init<'i> {
        let call: InitFn = run::<T, E, F>;
        let view = InitView {
            size: size_of::<InitView>(),
            data: (&raw mut *init).cast(),
            call,
            timeout_ns: wishes.timeout_ns(),
            flags: wishes.flags(),
            config: StrView::new(wishes.config()),
        };
        Init { view, of: PhantomData }
    }

    /// For the host, which runs it within the call that it is passed to.
    pub(crate) fn view(&self) -> &InitView {
        &self.view
    }
}

/// Runs the author's init, in the guard.
///
/// # Safety
///
/// `data` points to an `Option<F>` that nobody else uses; `out` and `error` are valid for this call.
unsafe extern "C" fn run<T: ?Sized + Keep, E: Into<Error>, F: FnOnce() -> Result<T::Made, E>>(
    data: *mut c_void,
    out: *mut HandleId,
    error: *const ErrorSink,
) -> Status {
    // SAFETY: this function's contract.
    let init = unsafe { &mut *data.cast::<Option<F>>() };
    let outcome =
        guard(|| init.take().map(|init| T::into_owned(init().map_err(|failed| failed.into().chain())?)));
    let (status, message) = match outcome {
        Ok(Some(Ok(handle))) => {
            // SAFETY: this function's contract. The handle becomes the host's.
            unsafe { out.write(handle.into_id()) };
            return Status::OK;
        }
        Ok(Some(Err(failed))) => (Status::FAILED, failed),
        Ok(None) => (Status::INVALID, "the host ran an init twice".to_owned()),
        Err(message) => (Status::PANICKED, message),
    };
    // SAFETY: this function's contract.
    unsafe { report(error, status, &message) }
}
