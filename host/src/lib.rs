//! Host.
pub mod admin;
pub mod build;
pub mod cli;
pub mod config;
pub mod db;
pub mod host;
pub mod hostcall;
pub mod http;
mod panic;
pub mod plugin;
pub mod registry;
pub mod report;
pub mod watch;
