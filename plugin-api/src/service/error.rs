//! Why a call of a service brought no answer.

use std::fmt;

use super::wire::Malformed;
use crate::abi::Status;
use crate::host::CallError;

/// Why a call of a service brought no answer. The service is as its own code left it; the next call may succeed.
///
/// Each variant carries words that name the service and who made it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum ServiceError {
    /// The method returned an error; the text is its chain of sources.
    Failed(ServiceFailure),
    /// The method panicked. The panic ended inside the service.
    Panicked(String),
    /// The service is closed: the host is shutting down, or refused the generation that made it.
    Closed(String),
    /// Arguments or answer could not be written, or read on the other side.
    Malformed(String),
    /// The host did not make the call for another reason.
    Refused(String),
}

/// An error that a method returned, after it has crossed.
#[derive(Debug, Clone)]
pub struct ServiceFailure {
    status: Status,
    words: String,
}

impl ServiceError {
    /// What kind of failure, in the boundary's terms: for an error that the method returned, what it was there.
    pub(crate) fn status(&self) -> Status {
        match self {
            ServiceError::Failed(failure) => failure.status,
            ServiceError::Panicked(_) => Status::PANICKED,
            ServiceError::Closed(_) => Status::CLOSED,
            ServiceError::Malformed(_) => Status::INVALID,
            ServiceError::Refused(_) => Status::FAILED,
        }
    }
}

impl From<CallError> for ServiceError {
    fn from(error: CallError) -> ServiceError {
        let words = error.message;
        match error.status {
            Status::PANICKED => ServiceError::Panicked(words),
            Status::CLOSED => ServiceError::Closed(words),
            Status::INVALID => ServiceError::Malformed(words),
            Status::NOT_FOUND => ServiceError::Refused(words),
            status => ServiceError::Failed(ServiceFailure { status, words }),
        }
    }
}

impl From<Malformed> for ServiceError {
    fn from(error: Malformed) -> ServiceError {
        ServiceError::Malformed(error.to_string())
    }
}

impl fmt::Display for ServiceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServiceError::Failed(ServiceFailure { words, .. })
            | ServiceError::Panicked(words)
            | ServiceError::Closed(words)
            | ServiceError::Malformed(words)
            | ServiceError::Refused(words) => f.write_str(words),
        }
    }
}

impl std::error::Error for ServiceError {}
