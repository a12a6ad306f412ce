//! The end-to-end tests: one binary, one module per area.

// What C is told about the contract is what Rust means.
mod abi;
// The harness keeps its promises.
mod harness;
// The sources keep to the house's rules.
mod tidy;
