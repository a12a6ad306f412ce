//! The harness of the end-to-end tests.
//!
//! Owns: a running host as a child process ([`TestHost`]), a throw-away PostgreSQL server
//! ([`Cluster`]), a small HTTP client ([`http`]) and many of them in loops ([`Load`]), source plugins
//! that a test may edit ([`SourcePlugin`]) or build itself ([`Workshop`]), waiting with a deadline ([`eventually`]),
//! and what benchmarks make of their rounds ([`pairs`]). Does not own: the facts that are tested; those are in `it/`.
//!
//! # Invariants
//!
//! - Tests wait for what they want to see, with a deadline; nobody sleeps. Polling is in [`wait`] only.
//! - Nothing outlives the tests: a [`guard`] ends every process started here and removes its files,
//!   also when the test process itself is killed.
//! - What is missing on this machine is a failure that says how to get it, never a skipped test.

pub mod fixture;
pub mod guard;
pub mod host;
pub mod http;
pub mod load;
pub mod outage;
pub mod pairs;
pub mod postgres;
pub mod source;
pub mod stress;
pub mod wait;
pub mod workshop;

pub use host::TestHost;
pub use load::Load;
pub use postgres::Cluster;
pub use source::SourcePlugin;
pub use wait::eventually;
pub use workshop::Workshop;
