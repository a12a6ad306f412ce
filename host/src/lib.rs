//! Host.
pub mod build;
pub mod watch;
