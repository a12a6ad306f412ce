//! Host.

pub mod http;
