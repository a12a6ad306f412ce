//! Processes that a plugin has forked off.
//!
//! A child has the code and the memory of the host and one of its threads, which is in the middle of a call into
//! the plugin. What it does there is the plugin's; when the call returns, the child has no business in the host:
//! it would answer the client that its parent answers, and live on in the host's loop.
//!
//! # Invariants
//!
//! - A child never gets from a plugin's code back into the host's: it ends there, or its host call is refused.
//! - It ends without running what is registered for the host's end.
//! - It is found out without a system call, however it was forked: a page that the system wipes in it says so.
//! - What is done here in a child allocates nothing and takes no lock, but for [`let_go`], which libc calls when
//!   both are sound.
#![expect(unsafe_code, reason = "maps a page that a fork wipes, and is called by libc in the child")]

use std::ffi::{c_int, c_void};
use std::net::TcpListener;
use std::os::fd::{FromRawFd as _, RawFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU8, Ordering};

use super::code::Code;
use super::real;

/// The byte that is 1 in this process and 0 in every child; null before [`watch_forks`].
static MARK: AtomicPtr<AtomicU8> = AtomicPtr::new(ptr::null_mut());
/// The number of this process; 0 before [`watch_forks`].
static HOME: AtomicI32 = AtomicI32::new(0);
/// What a child lets go of.
static HELD: OnceLock<Held> = OnceLock::new();

/// The exit code of a child that came back from a plugin's code.
const CAME_BACK: c_int = 1;

/// Has children noticed from now on. Before that there is nothing that could fork.
pub(super) fn watch_forks() {
    if !MARK.load(Ordering::SeqCst).is_null() {
        return;
    }
    // SAFETY: it has no preconditions.
    HOME.store(unsafe { libc::getpid() }, Ordering::SeqCst);
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping, wherever there is room; the system rounds it up to a page.
    let page = unsafe { libc::mmap(ptr::null_mut(), 1, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
    if page == libc::MAP_FAILED {
        return;
    }
    // SAFETY: the mapping made above. Where the system does not know how to wipe, the handler below does it.
    unsafe { libc::madvise(page, 1, libc::MADV_WIPEONFORK) };
    let mark = page.cast::<AtomicU8>();
    // SAFETY: the mapping is zeroed, writable and never unmapped.
    unsafe { &*mark }.store(1, Ordering::SeqCst);
    if MARK.compare_exchange(ptr::null_mut(), mark, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
        // SAFETY: the handler stays where it is, for it is the executable's.
        unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    }
}

/// Whether this is a child that somebody in this process has forked off.
#[inline]
pub fn is_forked() -> bool {
    let mark = MARK.load(Ordering::Relaxed);
    // SAFETY: not null, so it is the mapping of `watch_forks`, which is never unmapped.
    !mark.is_null() && unsafe { &*mark }.load(Ordering::Relaxed) == 0
}

/// Whether this is the process of [`watch_forks`] itself, and not a child that shares its memory until it
/// executes something (`vfork`).
pub(super) fn is_home() -> bool {
    // SAFETY: it has no preconditions.
    !is_forked() && HOME.load(Ordering::Relaxed) == unsafe { libc::getpid() }
}

/// Ends this process if it is a child: the code of the plugin that forked it has returned.
#[inline]
pub(super) fn end_if_forked(code: &Code) {
    if is_forked() {
        end(code)
    }
}

#[cold]
fn end(code: &Code) -> ! {
    let plugin = code.label().map_or("?", |label| &*label.plugin);
    let parts = [
        "host: a process that plugin `",
        plugin,
        "` has forked off came back from the plugin's code, and ends here; ",
        "end it with `_exit`, or start a program with `std::process::Command`\n",
    ];
    for part in parts {
        // SAFETY: the bytes of a string. Not std's standard error: its lock may be another thread's for ever.
        unsafe { libc::write(libc::STDERR_FILENO, part.as_ptr().cast::<c_void>(), part.len()) };
    }
    real::exit_at_once(CAME_BACK)
}

/// What only the host itself may hold: as long as a child does, the host seems to run.
#[derive(Debug)]
struct Held {
    /// All files below it are the host's.
    state_dir: PathBuf,
    /// The inodes of its sockets: further descriptors of the same sockets count as well.
    inodes: Vec<u64>,
    /// Where its sockets are bound: connections that came by them are as well.
    names: Vec<SocketName>,
}

/// Has children let go of the host's state directory and of `sockets`, which stay open in this process.
///
/// With the sockets go the connections that came by them: a client whose connection is closed here would wait for
/// ever on the child's. Children that are forked by a bare system call are not told, and keep what they have inherited.
pub fn keep_from_children(state_dir: &Path, sockets: &[RawFd]) {
    let inodes = sockets.iter().filter_map(|&socket| inode(socket)).collect();
    let names = sockets.iter().filter_map(|&socket| name(socket)).collect();
    // A process is one host.
    let _ = HELD.set(Held { state_dir: state_dir.to_owned(), inodes, names });
}

unsafe extern "C" fn in_child() {
    let mark = MARK.load(Ordering::SeqCst);
    if !mark.is_null() {
        // SAFETY: as in `is_forked`.
        unsafe { &*mark }.store(0, Ordering::SeqCst);
    }
    // A panic could only be a failed allocation, which aborts anyway; the guard keeps the rule.
    let _ = crate::panic::catch(let_go);
}

/// Closes what belongs to the host: files of its state directory (locks), and its sockets with the connections
/// that came by them.
fn let_go() {
    let Some(held) = HELD.get() else { return };
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return };
    let numbers: Vec<RawFd> =
        entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    for number in numbers {
        let is_file = || {
            let path = std::fs::read_link(format!("/proc/self/fd/{number}"));
            path.is_ok_and(|path| path.starts_with(&held.state_dir))
        };
        let is_socket = |inode| {
            held.inodes.contains(&inode) || name(number).is_some_and(|name| held.names.contains(&name))
        };
        if number > libc::STDERR_FILENO && inode(number).map_or_else(is_file, is_socket) {
            // SAFETY: the child has one thread, which is in code of a plugin and not in the host's, whose
            // descriptor this is: nothing in the child uses it again.
            unsafe { libc::close(number) };
        }
    }
}

/// What tells connections that came by one socket from others: the port, or the path.
#[derive(Debug, PartialEq, Eq)]
enum SocketName {
    Port(u16),
    Path(PathBuf),
}

/// Where a socket is bound.
fn name(number: RawFd) -> Option<SocketName> {
    // SAFETY: open during this call; it is not closed here, for it is not dropped.
    let socket = std::mem::ManuallyDrop::new(unsafe { TcpListener::from_raw_fd(number) });
    // Whatever it is of, the number is asked for its address only, and an address of another kind is an error.
    if let Ok(address) = socket.local_addr() {
        return Some(SocketName::Port(address.port()));
    }
    // SAFETY: as above.
    let socket = std::mem::ManuallyDrop::new(unsafe { UnixListener::from_raw_fd(number) });
    let address = socket.local_addr().ok()?;
    address.as_pathname().map(|path| SocketName::Path(path.to_owned()))
}

/// The inode of an open descriptor that is a socket.
fn inode(number: RawFd) -> Option<u64> {
    let mut found = std::mem::MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: the call writes a description, or fails.
    if unsafe { libc::fstat(number, found.as_mut_ptr()) } != 0 {
        return None;
    }
    // SAFETY: zeroed, and overwritten by the call.
    let found = unsafe { found.assume_init() };
    (found.st_mode & libc::S_IFMT == libc::S_IFSOCK).then_some(found.st_ino)
}
