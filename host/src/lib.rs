//! Host.
pub mod build;
pub mod db;
pub mod hostcall;
mod panic;
pub mod plugin;
pub mod registry;
pub mod report;
pub mod watch;
