//! Data that outlives the code it was made by: shared in place between generations.
//!
//! ```
//! use plugin_api::prelude::*;
//! use plugin_api::sync::Mutex;
//! use std::sync::atomic::{AtomicU64, Ordering};
//!
//! #[derive(Resident, Default)]
//! struct Stats {
//!     hits: AtomicU64,
//!     last: Mutex<Option<String>>,
//! }
//!
//! static STATS: registry::Lazy<Stats> = registry::Lazy::new("stats", || Ok(Stats::default()));
//!
//! fn hit(req: &Request) -> Result<String> {
//!     let stats = STATS.get()?;
//!     *stats.last.lock() = Some(req.path().to_owned());
//!     Ok(format!("hit {}\n", stats.hits.fetch_add(1, Ordering::Relaxed) + 1))
//! }
//! ```
//!
//! # Why this is sound
//!
//! A value is made by one generation and then read, written and dropped by others, each a library of its
//! own. Four things have to hold.
//!
//! *The memory is everybody's.* All heap blocks come from the C library, see [`Alloc`](crate::Alloc).
//!
//! *Both sides mean the same type.* A type is described by a text ([`layout`]) of names, offsets, sizes,
//! alignments and variants, down to types of `std`, and by the exact compiler and version of this crate. What the text leaves out,
//! the inside of `std`'s types, a compiler decides alike for the same type every time. The host compares the
//! texts; a value is read as a `T` only by code whose text for `T` is the value's. `TypeId` would not do:
//! it stays the same when a field's type changes.
//!
//! *Nothing in it points into a library.* There is no implementation for references, functions, `dyn`,
//! `Rc` or `Arc<str>` (its empty value is a static). One exception is known: a `HashMap` or `HashSet` without room
//! for an entry points to a constant of the library that made or emptied it. The locks of [`sync`](crate::sync) see to it
//! that code meets only such maps as are its own, and maps that no lock guards are given room. Only a map that cannot be
//! reached for that, directly in an `Arc<T>` or in a key of a map, has its libraries kept: see [`Layout::keeps_code`].
//!
//! What the text cannot say is what an author's unchecked code relies on, such as "this number is below that
//! length". A crate that has such code and derives `Resident` for the type relies on every earlier version of
//! itself; where that changes, the type has to change its name.
//!
//! *The code that drops it is mapped.* The host keeps the drop glue of one generation with each value. A
//! newer one that asks for it with the same text puts its own in place, so the older is not needed.
//!
//! When the text has changed the value is *upgraded*, see [`upgrade`].
//!
//! # Values that go deep
//!
//! Of a type that contains itself, such as a list made of boxes, a value may go as deep as it likes, and to build it anew or to
//! drop it takes a frame for each step. Both are done on a large stack, see [`deep`]; what does not fit there refuses the
//! edit. What a handler drops itself it drops on its own stack, as in any program: a `Vec` knows no such limit.
//!
//! # Invariants
//!
//! - A value under upgrade has no users: see [`DataCell`](crate::abi::DataCell).
//! - Nothing here trusts a layout text but for one thing: that the host hands out the one it was given.
#![expect(unsafe_code, reason = "values are reached by address here")]

mod containers;
pub mod deep;
pub mod layout;
mod leaves;
mod maps;
mod nature;
mod settle;
mod shapes;
#[cfg(test)]
mod tests;
pub mod upgrade;

pub use self::layout::{Kind, Layout};
pub use self::nature::{Nature, WithDrop, WithoutDrop};
pub use self::settle::Settling;
pub(crate) use self::settle::{Empties, settle};
pub use self::shapes::Shapes;
pub(crate) use self::shapes::TypeInfo;
pub use self::upgrade::{Definition, FieldNames, Misfit, Old, OldType, VariantNames, Work, Written};

/// Types that can be shared in place between generations of code. Derive it.
///
/// ```
/// use plugin_api::prelude::*;
///
/// #[derive(Resident)]
/// struct Session {
///     user: String,
///     #[resident(default = 30)]
///     minutes: u32,
///     #[resident(rename = "colour")]
///     theme: Option<String>,
/// }
/// ```
///
/// When a definition changes between two generations, values are upgraded: fields that kept name and
/// type are moved, new ones take `Default` or `#[resident(default = expression)]`, removed ones are
/// dropped; `#[resident(rename = "old")]` says what a field, a variant or the type itself was called before (a type as a path,
/// such as `rename = "shop::Basket"` or `rename = "Basket"`), and
/// `#[resident(upgrade = function)]` on the type lets a `fn(&resident::Old) -> Result<Self>` decide.
///
/// A `rename` may stay for ever: a field takes the value of its own name where there is one. Where a field is gone and a new one
/// has its type nothing is guessed, and the edit is refused: say `rename`, or `#[resident(dropped = "old")]` on the new field,
/// its variant or its type. What is dropped is said in the log and in the event of the reload.
///
/// Until an edit is live nothing that the author's code does changes the older value: `Hash`, `Eq` and `Ord` of keys see copies,
/// and so does a hook where it could change what it sees. What such code takes out of a copy, the older value has still.
///
/// # Safety
///
/// The derive keeps these promises; whoever writes an implementation by hand makes them:
///
/// - `shape` and `REPR` describe the type completely: two types with the same name, size, alignment and
///   these have the same values, represented in the same way.
/// - No value contains a pointer into a library, a thread-local or anything else that ends with one copy
///   of the code; all heap blocks are the global allocator's.
/// - `variant`, `children` and `dissolve` fit `shape`: the parts visited are those described, in order, each
///   with the type described.
/// - `settle` settles every part that is not behind a lock, an `Arc` or a map's key; `MAY_SETTLE` is true if there is
///   any whose own is.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be shared with later generations of this plugin's code",
    label = "not `Resident`",
    note = "data that survives a reload may not point into code that does not: no references, functions, `dyn`, `Rc` or types of other crates",
    note = "for a type of your own add `#[derive(Resident)]`; for locks use `plugin_api::sync::{{Mutex, RwLock, OnceCell}}`",
    note = "for a lock that stays within one generation, say in a `static`, use `std::sync`"
)]
pub unsafe trait Resident: Sized + 'static {
    /// What `#[repr(...)]` says. It decides where an enum keeps its parts, which nothing else in a shape tells.
    #[doc(hidden)]
    const REPR: &'static str = "";

    /// What the type was called before, as [`layout::was_called`] reads it.
    #[doc(hidden)]
    const BEFORE: &'static [&'static str] = &[];

    /// Whether [`settle`](Resident::settle) may have anything to do. Types that lead to their parts through a pointer say
    /// so without asking what these are: a type may contain itself.
    #[doc(hidden)]
    const MAY_SETTLE: bool;

    /// Makes maps without room for an entry point elsewhere, without reading through their pointers: the library that they
    /// lead into may be gone.
    #[doc(hidden)]
    fn settle(&mut self, how: Settling<'_>);

    /// What its parts do not tell of the type.
    #[doc(hidden)]
    fn nature() -> Nature {
        Nature::UNKNOWN
    }

    /// What the type is made of.
    #[doc(hidden)]
    fn shape(shapes: &mut Shapes) -> Kind;

    /// Which variant the value is at.
    #[doc(hidden)]
    fn variant(&self) -> u32 {
        0
    }

    /// Visits the parts of a container, or the fields of an enum's variant, in order.
    ///
    /// # Safety
    ///
    /// `this` is a valid value that nobody else uses. Its empty maps may point anywhere.
    #[doc(hidden)]
    unsafe fn children(this: *mut Self, visit: &mut dyn FnMut(*mut u8)) {
        let _ = (this, visit);
    }

    /// Frees what a container holds beside its parts.
    ///
    /// # Safety
    ///
    /// `this` is a valid value that nobody uses any more, and neither are its parts.
    #[doc(hidden)]
    unsafe fn dissolve(this: *mut Self) {
        let _ = this;
    }

    /// Whether any value of the old type can become one of this type.
    #[doc(hidden)]
    fn fits(old: OldType<'_>, work: &mut Work) -> Result<(), Misfit> {
        let _ = work;
        Err(Misfit::retyped::<Self>(old))
    }

    /// Builds a value from one of another layout, as the author's hook says if there is one.
    ///
    /// # Safety
    ///
    /// As [`rebuild`](Resident::rebuild).
    #[doc(hidden)]
    unsafe fn convert(old: Old<'_>, into: *mut Self, work: &mut Work) -> Result<Written, Misfit> {
        // SAFETY: this function's contract.
        unsafe { Self::rebuild(old, into, work) }
    }

    /// Builds a value part by part from one of another layout, or of the same if it is to be a copy. No code of an author
    /// runs on anything but what was made for this, see [`upgrade`].
    ///
    /// # Safety
    ///
    /// `into` is writable, and stays where it is until `work` ends; nobody uses `old`, whose type fits.
    #[doc(hidden)]
    unsafe fn rebuild(old: Old<'_>, into: *mut Self, work: &mut Work) -> Result<Written, Misfit> {
        let _ = (into, work);
        Err(Misfit::retyped::<Self>(old.ty()))
    }
}

/// Whether a field's type has a `Default`, found without asking for one. For the derive.
#[doc(hidden)]
#[derive(Debug)]
pub struct Probe<T>(std::marker::PhantomData<fn() -> T>);

impl<T> Probe<T> {
    /// A probe.
    pub const NEW: Probe<T> = Probe(std::marker::PhantomData);
}

/// Chosen for types with a `Default`, being one reference nearer.
#[doc(hidden)]
pub trait WithDefault<T> {
    /// How a new field gets its value.
    fn default_fn(&self) -> Option<fn() -> T>;
}

/// Chosen for the others.
#[doc(hidden)]
pub trait WithoutDefault<T> {
    /// A new field has no value.
    fn default_fn(&self) -> Option<fn() -> T>;
}

impl<T: Default> WithDefault<T> for &Probe<T> {
    fn default_fn(&self) -> Option<fn() -> T> {
        Some(T::default)
    }
}

impl<T> WithoutDefault<T> for Probe<T> {
    fn default_fn(&self) -> Option<fn() -> T> {
        None
    }
}
