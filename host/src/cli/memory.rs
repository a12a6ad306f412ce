//! How the C library's allocator treats large blocks in this process.
//!
//! Every reload reads a library of some megabytes into one block. Left to itself, glibc takes the first such
//! block that is freed as a reason to keep all later ones in its heaps, where they stay resident: measured, that
//! doubles the memory of a small host.
#![expect(unsafe_code, reason = "mallopt is a function of libc")]

/// Blocks of this size or more are mapped one by one, and unmapped when they are freed; in bytes.
#[cfg(target_env = "gnu")]
const LARGE: std::ffi::c_int = 1 << 20;

/// Has large blocks go back to the system when they are freed. To be called before there are other threads.
pub(super) fn give_large_blocks_back() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: it has no preconditions but that no other thread allocates at the same time, by this
        // function's contract. Where it fails, memory stays as the allocator sees fit.
        unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE) };
    }
}
