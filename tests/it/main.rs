//! The end-to-end tests: one binary, one module per area.

// What C is told about the contract is what Rust means.
mod abi;
// What both database drivers promise, below the boundary.
mod db;
// The harness keeps its promises.
mod harness;
// The sources keep to the house's rules.
mod db_handles;
mod registry;
mod reload;
mod serving;
mod source;
mod tidy;

/// A database of the cluster that all tests share, for tests that need no database of their own.
fn url() -> String {
    tests::Cluster::shared().url("postgres")
}
