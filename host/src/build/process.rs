//! A child process together with all it starts: one process group, ended as one.
//!
//! Owns the only signal the build room sends. cargo does not forward signals and its compilers outlive
//! it, so killing cargo alone would leave them burning the machine and writing to the target directory.
//!
//! # Invariants
//!
//! - A group is signalled only while its leader has not been waited for: until then the system cannot
//!   give the number to another process.
//! - A `Group` that is dropped without [`Group::wait`] is killed and reaped.

#![expect(unsafe_code, reason = "std cannot signal a process group")]

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};

/// A running process group, named by its leader.
pub(super) struct Group {
    leader: Child,
    is_reaped: bool,
}

/// The number of a process group; worth something only while its [`Group`] has not been waited for.
#[derive(Clone, Copy)]
pub(super) struct GroupId(libc::pid_t);

impl Group {
    /// Starts `command` as the leader of a new group, without input, its two outputs piped.
    pub(super) fn spawn(command: &mut Command) -> io::Result<Group> {
        let leader = command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        Ok(Group { leader, is_reaped: false })
    }

    /// The group's number, for [`GroupId::kill`].
    pub(super) fn id(&self) -> GroupId {
        // A pid always fits: the kernel's own type for it is a signed 32-bit number.
        GroupId(self.leader.id() as libc::pid_t)
    }

    /// Takes both outputs; `None` the second time.
    pub(super) fn outputs(&mut self) -> Option<(ChildStdout, ChildStderr)> {
        self.leader.stdout.take().zip(self.leader.stderr.take())
    }

    /// Waits for the leader's end. Nobody may hold its [`GroupId`] any more.
    pub(super) fn wait(mut self) -> io::Result<ExitStatus> {
        self.is_reaped = true;
        self.leader.wait()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if !self.is_reaped {
            self.id().kill();
            // The status of a killed process tells nothing; the call is for the reaping.
            let _ = self.leader.wait();
        }
    }
}

impl GroupId {
    /// Kills every process of the group, at once and without appeal.
    ///
    /// SIGKILL and not SIGTERM: both cargo and rustc are written to survive it (what is unfinished is
    /// not recorded as done), and only it ends the compilers in the same instant as cargo.
    pub(super) fn kill(self) {
        // SAFETY: kill(2) takes two numbers and touches no memory of this process.
        let _ = unsafe { libc::kill(-self.0, libc::SIGKILL) };
    }
}
