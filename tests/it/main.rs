//! The end-to-end tests: one binary, one module per area.

// The harness keeps its promises.
mod harness;
