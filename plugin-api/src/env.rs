//! Settings from the environment of the host's process.

use std::fmt;

/// The environment variable `name`, or `default` if it is not set or empty.
///
/// # Errors
///
/// [`EnvError`] if the variable is not UTF-8.
pub fn env_or(name: &str, default: &str) -> Result<String, EnvError> {
    match std::env::var(name) {
        Ok(value) if !value.is_empty() => Ok(value),
        Ok(_) | Err(std::env::VarError::NotPresent) => Ok(default.to_owned()),
        Err(std::env::VarError::NotUnicode(_)) => Err(EnvError { name: name.to_owned() }),
    }
}

/// An environment variable is not UTF-8.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvError {
    name: String,
}

impl fmt::Display for EnvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the environment variable `{}` is not UTF-8", self.name)
    }
}

impl std::error::Error for EnvError {}
