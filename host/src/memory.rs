//! How the C library keeps memory in the process that serves.
//!
//! glibc keeps what is freed, in the hope that it is wanted again: large blocks in its heaps, up to eight heaps
//! for each core, pieces of every size up to 1 KiB for each thread, the stacks of threads that have ended up to
//! 40 MiB. A process in which every reload brings and ends threads and frees on one thread what another one has
//! made fills all of these before it stops growing. With the bounds set here they are full after the first
//! hundreds of reloads, and hold less.
//!
//! # Invariants
//!
//! - Nothing here changes what a program does, only what it keeps; what cannot be set stays as it is.
//! - Who has set `GLIBC_TUNABLES` knows what they want: then the second half is not done.
//! - No other program, and no plugin, finds the setting in its environment.
#![expect(unsafe_code, reason = "mallopt is a function of libc, and the environment is the process's")]

use std::env;
#[cfg(target_env = "gnu")]
use std::ffi::c_int;

/// Blocks of this size or more are mapped one by one, and unmapped when they are freed; in bytes.
#[cfg(target_env = "gnu")]
const LARGE: c_int = 1 << 20;

/// What glibc reads before `main`, and nowhere else.
const VARIABLE: &str = "GLIBC_TUNABLES";

/// Threads keep freed pieces of at most 256 bytes to themselves, which is most of all pieces; of the stacks of
/// threads that have ended four are kept.
const BOUNDS: &str = "glibc.malloc.tcache_max=256:glibc.pthread.stack_cache_size=8388608";

/// Has large blocks go back to the system when they are freed, and all threads share as many heaps as there
/// are cores. To be called before there are other threads.
pub(crate) fn bound_heaps() {
    #[cfg(target_env = "gnu")]
    {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
        let heaps = c_int::try_from(cores.max(2)).unwrap_or(c_int::MAX);
        // SAFETY: it has no preconditions but that no other thread allocates at the same time, by this
        // function's contract. Where it fails, memory stays as the allocator sees fit.
        unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE) };
        // SAFETY: as above.
        unsafe { libc::mallopt(libc::M_ARENA_MAX, heaps) };
    }
}

/// Has the system get back what was freed after a burst, on a thread of its own: it can take long.
pub(crate) fn give_back() {
    #[cfg(target_env = "gnu")]
    {
        let trim = || {
            // SAFETY: it has no preconditions; it locks the heaps as any allocation does.
            unsafe { libc::malloc_trim(0) };
        };
        // Without a thread the memory stays with the process, which is no harm.
        let _ = std::thread::Builder::new().name("give-back".to_owned()).spawn(trim);
    }
}

/// What a process has to find in its environment for its threads to keep little; `None` if it is not to be set.
pub(crate) fn bounds_for_serving() -> Option<(&'static str, &'static str)> {
    (cfg!(target_env = "gnu") && env::var_os(VARIABLE).is_none()).then_some((VARIABLE, BOUNDS))
}

/// Takes out of the environment what [`bounds_for_serving`] has put there: it has done its work before `main`.
/// To be called before there are other threads.
pub(crate) fn forget_bounds() {
    if env::var_os(VARIABLE).is_some_and(|value| value == BOUNDS) {
        // SAFETY: no other thread reads or writes the environment, for there is none, by this function's contract.
        unsafe { env::remove_var(VARIABLE) };
    }
}
