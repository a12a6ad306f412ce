//! Host.
mod panic;
pub mod registry;
