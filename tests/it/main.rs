//! The end-to-end tests: one binary, one module per area.

// What C is told about the contract is what Rust means.
mod abi;
// What an edit has dropped of live data, brought back by going back.
mod brought_back;
// What an operator types, and what is said when it is wrong.
mod cli;
// The table of faults, and those that no other room tests.
mod faults;
// What an importer of code must be immune to.
mod importer;
// What both database drivers promise, below the boundary.
mod db;
// Streams of rows, COPY, notifications, and the way to the server.
mod db_streams;
// What a failing statement costs others, and what is tried again.
mod db_classes;
// What is left when a stream, a COPY, a borrower or a connection ends early.
mod db_endings;
// Connections that outlive the code which opened them.
mod db_handles;
// A database server that is killed under load.
mod db_outage;
// Every way to a connection, from a plugin.
mod db_plugin;
// What a pool promises, on real databases.
mod db_pool;
// What becomes of Rust's types in columns, and back.
mod db_values;
// Every type of a date or time against every column of one.
mod db_moments;
// Numbers, addresses, durations and characters, every digit of them.
mod db_numbers;
// Each test of the pool that ours is measured by has its counterpart.
mod dbutils;
// Handlers that do not return cost their own plugin, and nobody else.
mod deadlines;
// Live values that become what their edited definition says.
mod evolution;
// What a type is called in memory, tried with definitions by chance.
mod fingerprint;
// Code of an edit that does not return gives up the data that it has claimed.
mod hanging;
// Edits that are easy to miss are noticed, and each plugin gets its own code.
mod followed;
// The harness keeps its promises.
mod harness;
// Empty maps in data lead into no code that is gone.
mod homes;
// Hooks at both ends of a generation's life.
mod lifecycle;
// The end of a value takes nothing along but its own code.
mod parting;
// What works behind pgbouncer, and what is refused there.
mod pgbouncer;
// Keys that keep their value, restart it, or follow a configuration.
mod policies;
// What libraries leave behind in libc holds them.
mod audit;
// Children that a handler forks off are not the host.
mod forks;
// What plugins do with signals takes nothing from the host.
mod signals;
// One init per key, whatever happens in it.
mod registry;
// New code goes live, bad code changes nothing.
mod reload;
// Earlier code serves again.
mod rollback;
// The newest lines of the log, for whoever asks.
mod logs;
// Data that outlives the code which made it.
mod resident;
// A plugin's own durable store.
mod safe;
// What files and servers promise alike.
mod safe_backends;
// Code that outlives its generation, because somebody calls it.
mod services;
// Live data of a type that several plugins share.
mod shared_types;
// The safe on a full disk.
mod safe_disk;
// Writes that the response waits for, waiting for changes, queues, shared safes.
mod safe_later;
// What a client gets, from good handlers and bad ones.
mod serving;
// Checked code cannot reach what is gone.
mod soundness;
// Macros make nothing unchecked that an author writes.
mod unchecked;
// Builds that hang or loop, renamed plugins, a deleted state directory.
mod pipeline;
// Plugins that the host builds itself.
mod source;
// What outlives a reload and what does not: each row of README's table.
mod survives;
// A process that crashes is started again, and nobody is refused.
mod supervisor;
// What a request changes is kept before its answer is sent, or not at all.
mod transactions;
// Upgrades whose author's code lies, panics, keeps and takes.
mod upgrades;
// What code leaves on the threads that it runs on.
mod threads;
// Old code leaves the process, and only when nothing leads into it.
mod unload;
// The sources keep to the house's rules.
mod tidy;

/// A database of the cluster that all tests share, for tests that need no database of their own.
fn url() -> String {
    tests::Cluster::shared().url("postgres")
}
