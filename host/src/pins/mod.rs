//! Who can still reach the code of a library: the room that makes unmapping sound.
//!
//! A Rust library brings its own `std`, which plants pointers to itself all over the process: a
//! destructor for every thread-local of every thread that touched one, a destructor behind a pthread
//! key, threads. Unmapping the library under any of them is a crash later, elsewhere. So the host's
//! executable defines the functions through which such pointers are planted; the dynamic linker
//! prefers an executable's definition to libc's, and thus a library's call arrives in `interpose`,
//! which books it on the library's [`Code`] before it passes it on.
//!
//! ```text
//! library -> pthread_create, pthread_key_create, __cxa_thread_atexit_impl, sigaction, exit, ...
//!              |
//!           interpose --- whose address is it? (code) --- book it (thread) ---> real (libc's own)
//! ```
//!
//! What a library does that concerns the whole process arrives there as well: the signals that it wants
//! (`handlers`), the end of the process (`lost`). And a process that a library forks off comes to its end here
//! (`forked`).
//!
//! This room counts and runs destructors. When code is unmapped, and by whom, is the `plugin` room's.
//!
//! # Invariants
//!
//! - libc never gets to know a destructor that lies in a library: it is kept here, and run here, on the
//!   thread that it belongs to, when that thread ends or when the code is retired.
//! - Whatever can make a new pin holds one. So once retired code has none it stays without.
//! - A thread that goes on is left as it was found: what code of a library has changed of it is put back.
//! - Nothing of the host's own pays for this: an address in the executable is passed on at once.

mod code;
mod crash;
mod fault_handlers;
mod forked;
mod handlers;
mod holders;
mod interpose;
mod leads;
mod lost;
mod real;
mod record;
mod signals;
mod stack;
mod thread;
mod thread_state;
mod tombstone;

#[cfg(test)]
mod tests;

pub use self::code::{Code, Label, Pin};
pub use self::crash::{Recorder, Running, record_crashes};
pub use self::forked::{is_forked, keep_from_children};
pub use self::handlers::{outlive_limits, settle_handlers};
pub use self::interpose::{Unsupported, self_test};
pub use self::leads::leads_into;
pub use self::lost::{losable, survive_ends};
pub use self::record::{Crash, signal_name};
pub use self::signals::handlers_in;
pub use self::thread::{DrainOnDrop, attend, drain_if_due, is_due};
pub use self::thread_state::ProcessState;
pub use self::tombstone::bury;
