//! The errors of the room `db`, as the boundary says them.

use plugin_api::abi::Status;

use super::super::Failure;
use crate::db::{CheckoutError, ConfigError, ConnectError, OpenError, QueryError};

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Failure {
        Failure::invalid(error.to_string())
    }
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Failure {
        let sqlstate = match &error {
            ConnectError::Unreachable { sqlstate, .. } => sqlstate.clone().unwrap_or_default(),
            ConnectError::Session { sqlstate, .. } => sqlstate.clone(),
            ConnectError::Down { .. } | ConnectError::Directory { .. } => String::new(),
        };
        Failure { sqlstate, ..Failure::new(Status::UNREACHABLE, error.to_string()) }
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Failure {
        match error {
            OpenError::Config(error) => error.into(),
            OpenError::Connect(error) => error.into(),
            error => Failure::invalid(error.to_string()),
        }
    }
}

impl From<CheckoutError> for Failure {
    fn from(error: CheckoutError) -> Failure {
        let status = match error {
            CheckoutError::Unreachable(error) => return error.into(),
            CheckoutError::Exhausted { .. } | CheckoutError::OwnWork { .. } | CheckoutError::Full { .. } => {
                Status::EXHAUSTED
            }
            CheckoutError::Closed { .. } => Status::CLOSED,
        };
        Failure::new(status, error.to_string())
    }
}

impl From<QueryError> for Failure {
    fn from(error: QueryError) -> Failure {
        let message = error.to_string();
        let mut told = None;
        let (status, sqlstate) = match error {
            QueryError::Database { sqlstate, details, .. } => {
                told = details;
                (Status::DATABASE, sqlstate)
            }
            QueryError::Stale { sqlstate, .. } => (Status::DATABASE, sqlstate),
            QueryError::Lost { sqlstate, .. } => (Status::UNREACHABLE, sqlstate),
            QueryError::OutcomeUnknown { .. } => (Status::OUTCOME_UNKNOWN, String::new()),
            QueryError::NotCommitted { .. }
            | QueryError::TransactionLost
            | QueryError::SessionLost
            | QueryError::Reconnect(_) => (Status::UNREACHABLE, String::new()),
            QueryError::Interrupted { .. } => (Status::DATABASE, "57014".to_owned()),
            // The standard's name for a transaction that can only be rolled back.
            QueryError::RolledBack | QueryError::TransactionEnded { .. } => {
                (Status::DATABASE, "25P02".to_owned())
            }
            QueryError::OutOfRange { .. } => (Status::OUT_OF_RANGE, String::new()),
            QueryError::NoTransaction
            | QueryError::SavepointOptions
            | QueryError::TransactionText
            | QueryError::Blank
            | QueryError::ParameterCount { .. }
            | QueryError::Placeholder { .. }
            | QueryError::ParameterType { .. }
            | QueryError::ColumnType { .. }
            | QueryError::Cell { .. }
            | QueryError::NotOffered { .. }
            | QueryError::Pooled
            | QueryError::CopyText
            | QueryError::Unsendable { .. }
            | QueryError::Busy
            | QueryError::WrongThread => (Status::INVALID, String::new()),
        };
        Failure { status, message, sqlstate, details: told }
    }
}
