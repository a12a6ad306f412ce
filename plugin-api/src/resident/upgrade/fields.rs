//! Which part of an older value becomes which field of today's: the one place that decides it.
//!
//! A field takes the value of its own name where the older value has one, else that of a name it had before. So
//! `#[resident(rename = "...")]` may stay in the source for ever. Whether a type fits and how its value is rebuilt both
//! start from here, and cannot disagree.
//!
//! # Invariants
//!
//! - A part of the older value goes to one field at most.
//! - Where two fields could take the same part, or a part that goes looks like a field that comes, nothing is guessed: the
//!   edit is refused and names both.

use super::{Misfit, Old, OldType};

/// What a field is called, and what it was called before.
#[doc(hidden)]
#[derive(Debug, Clone, Copy)]
pub struct FieldNames {
    /// Its name, or its number in a tuple.
    pub name: &'static str,
    /// What it was called before.
    pub before: &'static [&'static str],
}

/// The fields of a struct or of a variant, and what its author says was dropped from it.
#[doc(hidden)]
#[derive(Debug, Clone, Copy)]
pub struct Definition {
    /// In the order of the definition.
    pub fields: &'static [FieldNames],
    /// Fields of earlier definitions that none of these has replaced.
    pub dropped: &'static [&'static str],
}

/// A variant of an enum.
#[doc(hidden)]
#[derive(Debug, Clone, Copy)]
pub struct VariantNames {
    /// Its name.
    pub name: &'static str,
    /// What it was called before.
    pub before: &'static [&'static str],
    /// Its fields.
    pub fields: Definition,
}

impl Definition {
    /// For each field the index of the older part that it takes.
    fn assign(&self, olds: &[&str]) -> Result<Vec<Option<usize>>, Misfit> {
        let find = |wanted: &str| olds.iter().position(|old| *old == wanted);
        let is_own = |old: &str| self.fields.iter().any(|field| field.name == old);
        let mut taken = vec![None; olds.len()];
        let mut sources = Vec::with_capacity(self.fields.len());
        for field in self.fields {
            let source = find(field.name).or_else(|| field.before.iter().find_map(|before| find(before)));
            if let Some(at) = source {
                let is_lent = olds[at] != field.name && is_own(olds[at]);
                let other = if is_lent { Some(olds[at]) } else { taken[at] };
                if let Some(other) = other {
                    return Err(two_for_one(olds[at], field.name, other));
                }
                taken[at] = Some(field.name);
            }
            sources.push(source);
        }
        Ok(sources)
    }
}

/// The index of the variant that an older one is now: the one of its name, else one that had it before.
pub(super) fn variant_of(old: &str, variants: &[VariantNames]) -> Option<usize> {
    let of_the_name = variants.iter().position(|variant| variant.name == old);
    of_the_name.or_else(|| variants.iter().position(|variant| variant.before.contains(&old)))
}

/// The types of an older struct's or variant's fields, as today's fields take them.
#[doc(hidden)]
#[derive(Debug)]
pub struct FieldTypes<'w> {
    pub(super) names: &'static [FieldNames],
    /// For each of today's fields.
    pub(super) sources: Vec<Option<OldType<'w>>>,
    /// Parts that no field takes, and that the author has not said to be dropped.
    pub(super) unexplained: Vec<(&'w str, OldType<'w>)>,
}

impl<'w> FieldTypes<'w> {
    pub(super) fn new(of: &Definition, olds: &[(&'w str, OldType<'w>)]) -> Result<FieldTypes<'w>, Misfit> {
        let names: Vec<_> = olds.iter().map(|(name, _)| *name).collect();
        let assigned = of.assign(&names)?;
        let is_left = |at: usize| !assigned.contains(&Some(at)) && !of.dropped.contains(&names[at]);
        Ok(FieldTypes {
            names: of.fields,
            sources: assigned.iter().map(|source| source.map(|at| olds[at].1)).collect(),
            unexplained: (0..olds.len()).filter(|at| is_left(*at)).map(|at| olds[at]).collect(),
        })
    }
}

/// The fields of an older value, as today's fields take them.
#[doc(hidden)]
#[derive(Debug)]
pub struct OldFields<'w> {
    pub(super) names: &'static [FieldNames],
    /// For each of today's fields.
    pub(super) sources: Vec<Option<Old<'w>>>,
    /// What no field takes.
    pub(super) rest: Vec<(&'w str, Old<'w>)>,
    /// What the fields belong to, for humans: a type, or an enum's variant.
    pub(super) owner: String,
}

impl<'w> OldFields<'w> {
    pub(super) fn new(
        of: &Definition,
        olds: &[(&'w str, Old<'w>)],
        owner: String,
    ) -> Result<OldFields<'w>, Misfit> {
        let names: Vec<_> = olds.iter().map(|(name, _)| *name).collect();
        let assigned = of.assign(&names)?;
        Ok(OldFields {
            names: of.fields,
            sources: assigned.iter().map(|source| source.map(|at| olds[at].1)).collect(),
            rest: (0..olds.len()).filter(|at| !assigned.contains(&Some(*at))).map(|at| olds[at]).collect(),
            owner,
        })
    }
}

fn two_for_one(old: &str, one: &str, other: &str) -> Misfit {
    Misfit::new(format!(
        "both `{one}` and `{other}` would take what the older value has as `{old}`; take `rename = \"{old}\"` off one of \
         them, or do this in two edits"
    ))
}
