//! A type of data, as a generation describes it: the text of its layout, and functions for its values.
//!
//! Owns what is known of a type and whether two are the same. Does not own values, nor the libraries that the functions are
//! in: those are kept mapped by a [`Keeper`].
//!
//! # Invariants
//!
//! - There is a function for each type that the text describes.
#![expect(unsafe_code, reason = "the functions of a type are addresses to the host")]

use std::fmt;
use std::sync::Arc;

use plugin_api::abi::{ErrorSink, GlueView, OldDataView, Status, UpgradeView};
use plugin_api::resident::Layout;

/// Builds a value of a newer layout from an older one.
pub type UpgradeFn = unsafe extern "C" fn(*const OldDataView, *mut UpgradeView, *const ErrorSink) -> Status;

/// Keeps the library mapped in which the functions of a type are, until it is dropped.
pub trait Keep: Send + Sync {
    /// Completes "held by ..." for the library, from now on.
    fn is_held_by(&self, reason: String);
}

/// As many have it as need the library.
pub type Keeper = Arc<dyn Keep>;

/// In the place of one that is not needed any more.
pub(super) struct Nothing;

impl Keep for Nothing {
    fn is_held_by(&self, _: String) {}
}

/// A type of data, as a generation describes it.
#[derive(Clone)]
pub struct DataType {
    pub(super) name: String,
    pub(super) text: Arc<str>,
    pub(super) layout: Arc<Layout>,
    pub(super) glue: Arc<[GlueView]>,
    pub(super) upgrade: UpgradeFn,
    /// Builds a copy of a value; a plugin may be too old to have one.
    pub(super) copy: Option<UpgradeFn>,
    pub(super) keeper: Keeper,
    /// Whether a value that cannot be upgraded is dropped and made anew.
    pub restarts: bool,
}

impl DataType {
    /// A type; `None` if the layout's text is not one, or has not as many types as there is glue.
    ///
    /// # Safety
    ///
    /// `glue`, `upgrade` and `copy` are functions for the types that `text` describes, in a library that stays mapped as
    /// long as `keeper` is about.
    pub unsafe fn new(
        name: &str,
        text: &str,
        glue: &[GlueView],
        (upgrade, copy): (UpgradeFn, Option<UpgradeFn>),
        restarts: bool,
        keeper: Keeper,
    ) -> Option<DataType> {
        let layout = Layout::parse(text)?;
        (layout.types.len() == glue.len()).then(|| DataType {
            name: name.to_owned(),
            text: text.into(),
            layout: Arc::new(layout),
            glue: glue.into(),
            upgrade,
            copy,
            keeper,
            restarts,
        })
    }

    /// The type's name for humans.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What keeps its functions mapped.
    pub fn keeper(&self) -> &Keeper {
        &self.keeper
    }

    /// The type's name with its modules.
    pub(in crate::registry) fn full_name(&self) -> &str {
        &self.layout.types[0].name
    }

    /// Whether values of `other` are laid out as values of this.
    pub(in crate::registry) fn is_same(&self, other: &DataType) -> bool {
        Arc::ptr_eq(&self.text, &other.text) || self.text == other.text
    }

    /// Whether `other` is this type before or after an edit.
    pub(in crate::registry) fn is_akin(&self, other: &DataType) -> bool {
        self.layout.types[0].is_called_like(&other.layout.types[0])
    }

    /// Whether what the compiler decides may differ between the two.
    pub(in crate::registry) fn is_of_other_compiler(&self, other: &DataType) -> bool {
        self.layout.compiler != other.layout.compiler
    }

    /// The first difference between this type and a newer one.
    pub(in crate::registry) fn difference(&self, newer: &DataType) -> String {
        self.layout.difference(&newer.layout)
    }
}

impl fmt::Debug for DataType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataType").field("name", &self.name).finish_non_exhaustive()
    }
}
