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

use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

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
        // Where memory runs out, the build has to go and not the host. Its children inherit the number; where there is
        // no such file, nothing is lost.
        let _ = std::fs::write(format!("/proc/{}/oom_score_adj", leader.id()), "800");
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

/// Runs `command` to its end, for at most as long as `allowed`; returns its status and both outputs.
///
/// # Errors
///
/// When it cannot be started, and [`io::ErrorKind::TimedOut`] when it did not end; then it was ended, with all it started.
pub(super) fn output(command: &mut Command, allowed: Duration) -> io::Result<Output> {
    let mut group = Group::spawn(command)?;
    let (out, err) = group.outputs().ok_or(io::ErrorKind::BrokenPipe)?;
    let (done, ended) = mpsc::channel();
    let of_err = done.clone();
    let reader = |name: &str| thread::Builder::new().name(name.to_owned());
    reader("cargo-stdout").spawn(move || done.send((true, whole(out))))?;
    reader("cargo-stderr").spawn(move || of_err.send((false, whole(err))))?;
    let deadline = Instant::now() + allowed;
    let (mut stdout, mut stderr) = (None, None);
    while stdout.is_none() || stderr.is_none() {
        let left = deadline.saturating_duration_since(Instant::now());
        // A group that is dropped is killed.
        let (is_out, text) = ended.recv_timeout(left).map_err(|_| io::ErrorKind::TimedOut)?;
        *(if is_out { &mut stdout } else { &mut stderr }) = Some(text);
    }
    let status = group.wait()?;
    Ok(Output { status, stdout: stdout.unwrap_or_default(), stderr: stderr.unwrap_or_default() })
}

/// All that `pipe` says.
fn whole(mut pipe: impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    // What came before an error is better than nothing.
    let _ = pipe.read_to_end(&mut bytes);
    bytes
}

impl GroupId {
    /// What the compilers and build scripts of the group are at: `rustc on serde`, `the build script of shop`.
    pub(super) fn busy_with(self) -> Option<String> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").ok()?.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<libc::pid_t>().ok())
            else {
                continue;
            };
            if pid != self.0 && group_of(pid) == Some(self.0) {
                found
                    .extend(std::fs::read(entry.path().join("cmdline")).ok().and_then(|line| purpose(&line)));
            }
        }
        found.sort();
        found.dedup();
        (!found.is_empty()).then(|| found.join(", "))
    }

    /// Bytes of memory that the leader itself has in use.
    pub(super) fn memory_of_leader(self) -> Option<u64> {
        let pages = std::fs::read_to_string(format!("/proc/{}/statm", self.0)).ok()?;
        let resident: u64 = pages.split(' ').nth(1)?.parse().ok()?;
        Some(resident.saturating_mul(u64::try_from(rustix::param::page_size()).unwrap_or(4096)))
    }

    /// Kills every process of the group, at once and without appeal.
    ///
    /// SIGKILL and not SIGTERM: both cargo and rustc are written to survive it (what is unfinished is
    /// not recorded as done), and only it ends the compilers in the same instant as cargo.
    pub(super) fn kill(self) {
        // SAFETY: kill(2) takes two numbers and touches no memory of this process.
        let _ = unsafe { libc::kill(-self.0, libc::SIGKILL) };
    }
}

/// The process group of a process.
fn group_of(pid: libc::pid_t) -> Option<libc::pid_t> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The state, the parent and the group follow the name, which is in parentheses.
    stat.rsplit(") ").next()?.split(' ').nth(2)?.parse().ok()
}

/// What a process of a build is there for, by its command line.
fn purpose(line: &[u8]) -> Option<String> {
    let words: Vec<_> = line.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
    let program = Path::new(words.first()?.as_ref());
    if program.file_name()?.to_str()?.starts_with("build-script-") {
        // `target/debug/build/shop-0123456789abcdef/build-script-build`
        let unit = program.parent()?.file_name()?.to_str()?;
        let package = unit.rsplit_once('-').map_or(unit, |(package, _)| package);
        return Some(format!("the build script of {package}"));
    }
    let crate_name = words.iter().position(|word| word == "--crate-name").and_then(|at| words.get(at + 1))?;
    Some(match crate_name.as_ref() {
        "build_script_build" => "rustc on a build script".to_owned(),
        name => format!("rustc on {name}"),
    })
}
