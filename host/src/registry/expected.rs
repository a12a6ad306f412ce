//! What a caller expects to find under a key: a type, and the rules by which its value is made.
//!
//! Owns how a caller names a type and whether a value is of it. Does not own what becomes of a value that is not.
//!
//! # Invariants
//!
//! - A host handle is known by its name, data by its layout, a service by its interface; never by what it is called alone.

use super::data::DataType;
use super::service::Interface;
use super::{Policy, Value};

/// What type a caller expects.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    pub(super) what: What<'a>,
    pub(super) policy: Policy<'a>,
    /// Whether who finds the value counts as its user at once.
    pub(super) counts: bool,
}

/// A type, as a caller names it.
#[derive(Clone, Copy, Debug)]
pub(super) enum What<'a> {
    /// A host handle, by the name of its type.
    Host(&'a str),
    /// Data, all of it.
    Data(&'a DataType),
    /// A service.
    Service(&'a Interface),
}

impl<'a> From<&'a str> for Expected<'a> {
    fn from(name: &'a str) -> Expected<'a> {
        Expected { what: What::Host(name), policy: Policy::default(), counts: true }
    }
}

impl<'a> From<&'a String> for Expected<'a> {
    fn from(name: &'a String) -> Expected<'a> {
        name.as_str().into()
    }
}

impl<'a> From<&'a DataType> for Expected<'a> {
    fn from(ty: &'a DataType) -> Expected<'a> {
        Expected { what: What::Data(ty), policy: Policy::default(), counts: true }
    }
}

impl<'a> From<&'a Interface> for Expected<'a> {
    fn from(interface: &'a Interface) -> Expected<'a> {
        Expected { what: What::Service(interface), policy: Policy::default(), counts: true }
    }
}

impl<'a> Expected<'a> {
    /// The same, of a value that is made by these rules.
    pub fn with(mut self, policy: Policy<'a>) -> Expected<'a> {
        self.policy = policy;
        self
    }

    /// The same, asked for by somebody who does not count as a user, or not yet.
    pub(super) fn uncounted(mut self) -> Expected<'a> {
        self.counts = false;
        self
    }

    /// The type's name for humans.
    pub(super) fn name(&self) -> String {
        match self.what {
            What::Host(name) => name.to_owned(),
            What::Data(ty) => ty.name().to_owned(),
            What::Service(interface) => interface.type_name(),
        }
    }

    pub(super) fn accepts(&self, value: &Value) -> bool {
        match (value, self.what) {
            (Value::Host(resource), What::Host(name)) => resource.type_name() == name,
            (Value::Data(tenure), What::Data(ty)) => tenure.owner().0.is_same(ty),
            (Value::Service(service), What::Service(interface)) => service.interface() == interface,
            _ => false,
        }
    }
}
