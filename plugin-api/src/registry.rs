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

use std::ffi::c_void;
use std::fmt;
use std::ops::Deref;

use once_cell::sync::OnceCell;

use crate::abi::{ErrorSink, HandleId, InitView, KIND_HOST_HANDLE, KeyView, Status, StrView, TypeView};
use crate::entry::{guard, report};
use crate::error::Error;
use crate::host::{self, CallError, Owned};

/// What the registry can keep: handles to objects of the host, such as [`db::Pool`](crate::db::Pool).
///
/// Sealed: the kinds of values that survive a reload soundly are the host's to decide.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be kept in the registry",
    note = "a value made by this library would outlive its code; keep a host handle such as `db::Pool`"
)]
pub trait Keep: sealed::Keep + Sized + 'static {}

pub(crate) mod sealed {
    use crate::host::Owned;

    /// The boundary's side of [`super::Keep`].
    pub trait Keep {
        /// The type's name, the same in host and plugin.
        const TYPE_NAME: &'static str;
        /// Wraps a handle of this type.
        fn from_owned(handle: Owned) -> Self;
        /// Gives the handle up; the text says why not.
        fn into_owned(self) -> Result<Owned, String>;
    }
}

/// A value of the registry. Derefs to it; dropping it does not close the value.
#[derive(Debug, Clone)]
pub struct Handle<T: Keep>(T);

impl<T: Keep> Deref for Handle<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// Finds the value under `key`, making it with `init` if there is none.
///
/// At any time one `init` runs for a key, whatever the number of threads, generations and plugins.
/// If it fails, it and all who waited get its error, the slot stays empty, and a later caller tries
/// again: at once after the first failure, after 50 ms to 5 s of back-off from then on. A value made
/// in `on_load` becomes visible to others when the generation is published.
///
/// # Errors
///
/// [`RegistryError`].
pub fn get_or_init<T: Keep, E: Into<Error>>(
    key: &str,
    init: impl FnOnce() -> Result<T, E>,
) -> Result<Handle<T>, RegistryError> {
    module("").get_or_init(key, init)
}

/// Finds the value under `key`. Does not wait for one that is being made.
///
/// # Errors
///
/// [`RegistryError::NotFound`], [`RegistryError::WrongType`].
pub fn get<T: Keep>(key: &str) -> Result<Handle<T>, RegistryError> {
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
    pub fn get_or_init<T: Keep, E: Into<Error>>(
        &self,
        key: &str,
        init: impl FnOnce() -> Result<T, E>,
    ) -> Result<Handle<T>, RegistryError> {
        let mut init = Some(init);
        let view = InitView {
            size: size_of::<InitView>(),
            data: (&raw mut init).cast(),
            call: pick(&init),
            timeout_ns: 0,
        };
        self.find::<T>(key, |host, key, expected, out, error| {
            // SAFETY: the table's own `ctx`; every view, `init` behind `view.data` and `out` live until
            // the call returns, and the host runs `view.call` within it, at most once.
            unsafe { ((*host.registry).get_or_init)(host.ctx, key, expected, &view, out, error) }
        })
    }

    /// As [`get`](fn@get), in this module.
    ///
    /// # Errors
    ///
    /// [`RegistryError::NotFound`], [`RegistryError::WrongType`].
    pub fn get<T: Keep>(&self, key: &str) -> Result<Handle<T>, RegistryError> {
        self.find::<T>(key, |host, key, expected, out, error| {
            // SAFETY: the table's own `ctx`; the views and `out` live until the call returns.
            unsafe { ((*host.registry).get)(host.ctx, key, expected, out, error) }
        })
    }

    /// As [`remove`](fn@remove), in this module.
    ///
    /// # Errors
    ///
    /// [`RegistryError::NotFound`] if there was no value.
    pub fn remove(&self, key: &str) -> Result<(), RegistryError> {
        let name = self.key_view(key);
        let outcome = host::table().and_then(|host| {
            host::call(|error| {
                // SAFETY: the table's own `ctx`; the view lives until the call returns.
                unsafe { ((*host.registry).remove)(host.ctx, &name, error) }
            })
        });
        outcome.map_err(RegistryError::from)
    }

    fn key_view(&self, key: &str) -> KeyView {
        KeyView { size: size_of::<KeyView>(), module: StrView::new(self.0), key: StrView::new(key) }
    }

    fn find<T: Keep>(
        &self,
        key: &str,
        call: impl FnOnce(
            &'static crate::abi::HostTable,
            *const KeyView,
            *const TypeView,
            *mut HandleId,
            *const ErrorSink,
        ) -> Status,
    ) -> Result<Handle<T>, RegistryError> {
        let host = host::table()?;
        let name = self.key_view(key);
        let expected = TypeView {
            size: size_of::<TypeView>(),
            kind: KIND_HOST_HANDLE,
            name: StrView::new(T::TYPE_NAME),
        };
        let mut id = HandleId::NONE;
        host::call(|error| call(host, &name, &expected, &mut id, error))?;
        Ok(Handle(T::from_owned(Owned::new(id))))
    }
}

type InitFn = unsafe extern "C" fn(*mut c_void, *mut HandleId, *const ErrorSink) -> Status;

/// The trampoline for the type of `init`.
fn pick<T: Keep, E: Into<Error>, F: FnOnce() -> Result<T, E>>(_init: &Option<F>) -> InitFn {
    run::<T, E, F>
}

/// Runs the author's init, in the guard.
///
/// # Safety
///
/// `data` points to an `Option<F>` that nobody else uses; `out` and `error` are valid for this call.
unsafe extern "C" fn run<T: Keep, E: Into<Error>, F: FnOnce() -> Result<T, E>>(
    data: *mut c_void,
    out: *mut HandleId,
    error: *const ErrorSink,
) -> Status {
    // SAFETY: this function's contract.
    let init = unsafe { &mut *data.cast::<Option<F>>() };
    let outcome =
        guard(|| init.take().map(|init| init().map_err(|failed| failed.into().chain())?.into_owned()));
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

/// A key with its init, looked up once a generation: the cost of a use is that of a load.
///
/// ```no_run
/// use plugin_api::prelude::*;
///
/// static DB: registry::Lazy<db::Pool> = registry::Lazy::new("db", connect);
///
/// fn connect() -> Result<db::Pool> {
///     Ok(db::Pool::open("sqlite:guestbook.db")?)
/// }
///
/// fn count(_: &Request) -> Result<String> {
///     let row = DB.get()?.get()?.query_one("SELECT count(*) FROM entry", &[])?;
///     Ok(format!("{} entries", row.get::<i64>(0)?))
/// }
/// ```
///
/// A `Lazy` keeps its handle to the end of its generation, also when [`remove`] empties the slot.
pub struct Lazy<T: Keep> {
    module: &'static str,
    key: &'static str,
    init: fn() -> Result<T, Error>,
    cell: OnceCell<Handle<T>>,
}

impl<T: Keep> Lazy<T> {
    /// A key of the common module.
    pub const fn new(key: &'static str, init: fn() -> Result<T, Error>) -> Lazy<T> {
        Lazy::in_module("", key, init)
    }

    /// A key of the module named `module`.
    pub const fn in_module(
        module: &'static str,
        key: &'static str,
        init: fn() -> Result<T, Error>,
    ) -> Lazy<T> {
        Lazy { module, key, init, cell: OnceCell::new() }
    }

    /// The value, found or made at the first use.
    ///
    /// # Errors
    ///
    /// As [`get_or_init`]. A failure is not remembered here: the next call tries again.
    pub fn get(&self) -> Result<&Handle<T>, RegistryError> {
        if let Some(handle) = self.cell.get() {
            return Ok(handle);
        }
        // Not `get_or_try_init`: an init that uses its own `Lazy` has to reach the registry, which says
        // so, instead of waiting for itself in the cell.
        let handle = module(self.module).get_or_init(self.key, self.init)?;
        Ok(self.cell.get_or_init(|| handle))
    }
}

impl<T: Keep> fmt::Debug for Lazy<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lazy").field("module", &self.module).field("key", &self.key).finish_non_exhaustive()
    }
}

/// Why there is no value for this caller. Each variant carries the host's words, which name the key.
///
/// The slot is as it was, or empty; nothing is poisoned.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum RegistryError {
    /// The init returned an error, in this call or in the one that this caller waited for.
    Init(String),
    /// The init panicked, likewise.
    Panicked(String),
    /// Inits failed repeatedly; it is too soon for the next one.
    BackingOff(String),
    /// The init is still running, or was given up, at the deadline.
    TimedOut(String),
    /// Making the value needs the value itself, directly or through other keys and threads.
    Recursive(String),
    /// The slot holds another type.
    WrongType(String),
    /// The slot is empty.
    NotFound(String),
    /// The host did not do it for another reason.
    Refused(String),
}

impl RegistryError {
    /// What kind of failure, in the boundary's terms.
    pub(crate) fn status(&self) -> Status {
        match self {
            RegistryError::Init(_) => Status::INIT_FAILED,
            RegistryError::Panicked(_) => Status::INIT_PANICKED,
            RegistryError::BackingOff(_) => Status::BACKING_OFF,
            RegistryError::TimedOut(_) => Status::TIMED_OUT,
            RegistryError::Recursive(_) => Status::RECURSIVE,
            RegistryError::WrongType(_) => Status::WRONG_TYPE,
            RegistryError::NotFound(_) => Status::NOT_FOUND,
            RegistryError::Refused(_) => Status::FAILED,
        }
    }
}

impl From<CallError> for RegistryError {
    fn from(error: CallError) -> RegistryError {
        let words = error.message;
        match error.status {
            Status::INIT_FAILED => RegistryError::Init(words),
            Status::INIT_PANICKED => RegistryError::Panicked(words),
            Status::BACKING_OFF => RegistryError::BackingOff(words),
            Status::TIMED_OUT => RegistryError::TimedOut(words),
            Status::RECURSIVE => RegistryError::Recursive(words),
            Status::WRONG_TYPE => RegistryError::WrongType(words),
            Status::NOT_FOUND => RegistryError::NotFound(words),
            _ => RegistryError::Refused(words),
        }
    }
}

impl fmt::Display for RegistryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RegistryError::Init(words)
            | RegistryError::Panicked(words)
            | RegistryError::BackingOff(words)
            | RegistryError::TimedOut(words)
            | RegistryError::Recursive(words)
            | RegistryError::WrongType(words)
            | RegistryError::NotFound(words)
            | RegistryError::Refused(words) => f.write_str(words),
        }
    }
}

impl std::error::Error for RegistryError {}
