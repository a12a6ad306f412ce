//! Why a value of an older layout did not become one of today's, in words for the author of the edit.
//!
//! Owns the words and the way to the field that they are about. Does not own the decision, which is that of the types.
//!
//! # Invariants
//!
//! - It is text: what it tells of may be gone.

use std::any::type_name;
use std::fmt;

use super::OldType;
use crate::resident::layout::{Kind, base, names, short};

/// How many fields are named on the way to one.
const PLACES: usize = 8;

/// Why a value of an older layout did not become one of today's. The old value is as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misfit {
    /// Where, from the inside out.
    path: Vec<String>,
    reason: String,
}

impl Misfit {
    pub(super) fn new(reason: impl Into<String>) -> Misfit {
        Misfit { path: Vec::new(), reason: reason.into() }
    }

    /// The type is another one.
    pub(crate) fn retyped<T>(old: OldType<'_>) -> Misfit {
        let (was, is) = names(old.name(), type_name::<T>());
        Misfit::new(format!("what was `{was}` is `{is}` now"))
    }

    /// A struct or enum of an author has another name, or was something else before.
    pub(super) fn renamed_type<T>(old: OldType<'_>) -> Misfit {
        let misfit = Misfit::retyped::<T>(old);
        if !matches!(old.kind(), Kind::Struct(_) | Kind::Enum(_))
            || base(old.name()) == base(type_name::<T>())
        {
            return misfit;
        }
        let (was, name) = (base(old.name()), short(type_name::<T>()));
        let name = base(&name);
        Misfit::new(format!(
            "{}; if it is the same type under another name, say `#[resident(rename = \"{was}\")]` on `{name}`",
            misfit.reason
        ))
    }

    /// An enum's value is at a variant that is no longer there.
    pub fn variant_is_gone<T>(variant: &str) -> Misfit {
        let name = short(type_name::<T>());
        Misfit::new(format!("the value is at the variant `{variant}`, which `{name}` has no longer"))
    }

    /// A field is gone and another of its type is new.
    pub(super) fn renamed<F>(gone: &str, new: &str) -> Misfit {
        let name = short(type_name::<F>());
        Misfit::new(format!(
            "the field `{gone}: {name}` is gone and `{new}: {name}` is new; say `#[resident(rename = \"{gone}\")]` on `{new}` \
             if that is what it is called now, or `#[resident(dropped = \"{gone}\")]` if its value is to be dropped"
        ))
    }

    pub(super) fn within(mut self, place: &str) -> Misfit {
        self.path.push(place.to_owned());
        self
    }
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((innermost, outer)) = self.path.split_first() {
            f.write_str("field `")?;
            for place in outer.iter().rev().take(PLACES) {
                write!(f, "{place}.")?;
            }
            if outer.len() > PLACES {
                f.write_str(" ... .")?;
            }
            write!(f, "{innermost}`: ")?;
        }
        f.write_str(&self.reason)
    }
}

impl std::error::Error for Misfit {}
