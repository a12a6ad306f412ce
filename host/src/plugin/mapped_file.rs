//! A file as memory, to be looked into here and there.
//!
//! # Invariants
//!
//! - Only files to which nobody writes are mapped: one that were cut short would end this process.
#![expect(unsafe_code, reason = "maps files")]

use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::fd::AsRawFd as _;
use std::path::Path;

/// A file, mapped to be read. A copy would cost this process a page fault for each of its pages, which is
/// most of what a look takes.
#[derive(Debug)]
pub(super) struct MappedFile {
    start: *mut c_void,
    len: usize,
}

impl MappedFile {
    /// Maps the file at `path`, which nobody writes to: a private copy, or one that lies still.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub(super) fn open(path: &Path) -> io::Result<MappedFile> {
        let file = File::open(path)?;
        let len = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
        if len == 0 {
            return Ok(MappedFile { start: std::ptr::null_mut(), len });
        }
        let fd = file.as_raw_fd();
        // SAFETY: a fresh private mapping of an open file, which replaces nothing.
        let start =
            unsafe { libc::mmap(std::ptr::null_mut(), len, libc::PROT_READ, libc::MAP_PRIVATE, fd, 0) };
        if start == libc::MAP_FAILED {
            Err(io::Error::last_os_error())
        } else {
            Ok(MappedFile { start, len })
        }
    }
}

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        if self.len == 0 {
            return &[];
        }
        // SAFETY: `len` mapped bytes, readable until the drop, and unchanged, for nobody writes to the file.
        unsafe { std::slice::from_raw_parts(self.start.cast(), self.len) }
    }
}

impl Drop for MappedFile {
    fn drop(&mut self) {
        if self.len > 0 {
            // SAFETY: the mapping made in `open`, removed once; no slice of it can be left.
            unsafe { libc::munmap(self.start, self.len) };
        }
    }
}
