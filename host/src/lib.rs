//! Host.
pub mod db;
