//! What the serving process inherits: descriptors by name, and the words that tell it which is which.
//!
//! ```text
//! --supervised=lock:4,listen:5,admin:6,control:7,line:9,restarts:2
//! ```
//!
//! # Invariants
//!
//! - A descriptor that is named here is open, and nobody else's, in the process that reads it: the
//!   supervisor has made it inheritable for this one purpose.
//! - In the serving process none of them is inheritable: neither builds nor probes get one.
#![expect(unsafe_code, reason = "takes descriptors over by number")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};

/// What a serving process was given.
#[derive(Debug)]
pub struct Handover {
    sockets: BTreeMap<String, OwnedFd>,
    /// How many serving processes there were before this one.
    pub restarts: u64,
}

/// The words that say what was given cannot be followed.
#[derive(Debug, thiserror::Error)]
#[error("`--supervised` is for the supervisor alone, and its value makes no sense: {reason}")]
pub struct HandoverError {
    reason: String,
}

impl Handover {
    /// Takes over what `text` names. To be called once, before anything else opens a file.
    ///
    /// # Errors
    ///
    /// [`HandoverError`].
    pub fn take_over(text: &str) -> Result<Handover, HandoverError> {
        let wrong = |reason: String| HandoverError { reason };
        let mut handover = Handover { sockets: BTreeMap::new(), restarts: 0 };
        for part in text.split(',') {
            let parsed = part.split_once(':').and_then(|(name, number)| Some((name, number.parse().ok()?)));
            let (name, number): (&str, u64) = parsed.ok_or_else(|| wrong(format!("`{part}`")))?;
            if name == "restarts" {
                handover.restarts = number;
                continue;
            }
            let number = RawFd::try_from(number).ok().filter(|&number| number > 2);
            let number = number.ok_or_else(|| wrong(format!("`{part}` is no descriptor")))?;
            if handover.sockets.values().any(|socket| socket.as_raw_fd() == number) {
                return Err(wrong(format!("descriptor {number} is named twice")));
            }
            inheritable(number, false).map_err(|error| wrong(format!("`{part}`: {error}")))?;
            // SAFETY: it is open, as the call above has shown; it is above 2, was named once, and this
            // process, which has opened nothing yet, got it for this very purpose.
            let socket = unsafe { OwnedFd::from_raw_fd(number) };
            handover.sockets.insert(name.to_owned(), socket);
        }
        #[cfg(target_os = "linux")]
        // SAFETY: the system copies the name. Started by way of a link in /proc, it would be the link's.
        unsafe {
            libc::prctl(libc::PR_SET_NAME, c"host".as_ptr())
        };
        Ok(handover)
    }

    /// Takes the descriptor called `name`; `None` where there is none, or the second time.
    pub fn take(&mut self, name: &str) -> Option<OwnedFd> {
        self.sockets.remove(name)
    }

    /// As [`Handover::take`], for what must be there.
    ///
    /// # Errors
    ///
    /// When it is not.
    pub fn need(&mut self, name: &str) -> Result<OwnedFd, HandoverError> {
        self.take(name).ok_or_else(|| HandoverError { reason: format!("`{name}` is missing") })
    }
}

/// Makes descriptors inheritable and says so in words for [`Handover::take_over`].
pub(super) fn give<'a>(
    sockets: impl Iterator<Item = (&'a str, &'a OwnedFd)>,
    restarts: u64,
) -> io::Result<String> {
    let mut text = "--supervised=".to_owned();
    for (name, socket) in sockets {
        inheritable(socket.as_raw_fd(), true)?;
        // Writing to a `String` cannot fail.
        let _ = write!(text, "{name}:{},", socket.as_raw_fd());
    }
    let _ = write!(text, "restarts:{restarts}");
    Ok(text)
}

/// Says whether a descriptor outlives `exec`.
pub(super) fn inheritable(number: RawFd, is_inheritable: bool) -> io::Result<()> {
    let flags = if is_inheritable { 0 } else { libc::FD_CLOEXEC };
    // SAFETY: it changes a flag of a descriptor, or fails for a number that is none.
    match unsafe { libc::fcntl(number, libc::F_SETFD, flags) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Takes over descriptors `3..3 + count`, as systemd passes them.
pub(super) fn take_range(count: RawFd) -> io::Result<Vec<OwnedFd>> {
    let take = |number: RawFd| {
        inheritable(number, false)?;
        // SAFETY: it is open, as the call above has shown, and systemd's contract gives it to this process.
        Ok(unsafe { OwnedFd::from_raw_fd(number) })
    };
    (3..3 + count).map(take).collect()
}
