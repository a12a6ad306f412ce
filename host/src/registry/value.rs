//! What a slot holds: one of three kinds of values, as the registry knows them.
//!
//! Owns what all kinds have in common: a name, words for an operator, an end. Does not own what they are: see
//! [`data`](super::data) and [`service`](super::service), and the rooms whose types are [`Resource`]s.
//!
//! # Invariants
//!
//! - A clone is the same value.

use std::any::Any;
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use super::data::Tenure;
use super::service::Service;

/// Something of the host that can be kept under a key.
pub trait Resource: Any + Send + Sync + fmt::Debug {
    /// The name authors know the type by, such as `db::Pool`.
    fn type_name(&self) -> &'static str;

    /// What an operator wants to know about it, without secrets. Does not block.
    fn describe(&self) -> serde_json::Value;

    /// Gives up what it holds, even if somebody still has a reference. Later uses are errors.
    fn close(&self);
}

/// What a slot holds.
#[derive(Clone, Debug)]
pub enum Value {
    /// Lives in the host: object and code.
    Host(Arc<dyn Resource>),
    /// Shared in place by plugins.
    Data(Arc<Tenure>),
    /// Runs the code that made it.
    Service(Arc<Service>),
}

impl Value {
    /// How the value survives, in the words of DESIGN.md section 6.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Host(_) => "host handle",
            Value::Data(_) => "data",
            Value::Service(_) => "service",
        }
    }

    /// The name of the value's type.
    pub fn type_name(&self) -> Cow<'static, str> {
        match self {
            Value::Host(resource) => resource.type_name().into(),
            Value::Data(data) => data.type_name().into(),
            Value::Service(service) => service.interface().type_name().into(),
        }
    }

    pub(super) fn close(&self) {
        match self {
            Value::Host(resource) => resource.close(),
            // Dropped by its last user.
            Value::Data(_) => {}
            Value::Service(service) => service.close(),
        }
    }

    pub(super) fn describe(&self) -> serde_json::Value {
        match self {
            Value::Host(resource) => resource.describe(),
            Value::Data(data) => data.describe(),
            Value::Service(service) => service.describe(),
        }
    }
}
