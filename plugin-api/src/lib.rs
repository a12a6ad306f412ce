//! What a plugin of the host is written against.
pub mod abi;
pub mod db;
mod host;
mod view;
