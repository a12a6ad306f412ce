//! What a plugin of the host is written against.
pub mod abi;
mod host;
mod view;
