//! A child process whose words are kept.
//!
//! Owns: the process, its output in files, its end. Does not own: what is run.

use std::fmt::{self, Display, Formatter};
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use crate::guard::{self, Guard};
use crate::wait::eventually;

/// A running program. It is killed, with all it started, when this value goes.
#[derive(Debug)]
pub struct Program {
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
    guard: Arc<Guard>,
}

/// A program that has ended.
#[derive(Clone, Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
}

impl Finished {
    /// The exit code; -1 for a program that a signal ended.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or(-1)
    }

    /// The words for the user, when a command failed: the first line of standard error.
    pub fn complaint(&self) -> &str {
        self.stderr.lines().next().unwrap_or_default()
    }
}

impl Display for Finished {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n--- stdout\n{}\n--- stderr\n{}", self.status, self.stdout, self.stderr)
    }
}

impl Program {
    /// Starts `command`; its words go to files `NAME.stdout` and `NAME.stderr` in the guarded directory.
    ///
    /// # Panics
    ///
    /// When it cannot be started.
    #[track_caller]
    pub fn spawn(command: Command, name: &str, guard: &Arc<Guard>) -> Program {
        Program::spawn_reading(command, Stdio::null(), name, guard)
    }

    /// As [`Program::spawn`], with something to read, or to take as a socket.
    ///
    /// # Panics
    ///
    /// When it cannot be started.
    #[track_caller]
    pub fn spawn_reading(mut command: Command, stdin: Stdio, name: &str, guard: &Arc<Guard>) -> Program {
        let file = |kind: &str| guard.dir().join(format!("{name}.{kind}"));
        let (stdout, stderr) = (file("stdout"), file("stderr"));
        let create = |path: &Path| File::create(path).expect("the guarded directory is writable");
        let child = command
            .stdin(stdin)
            .stdout(create(&stdout))
            .stderr(create(&stderr))
            // A group of its own, so that all of it can be ended at once.
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("starting {command:?}: {error}"));
        guard.watch_group("KILL", child.id());
        Program { child, stdout, stderr, guard: Arc::clone(guard) }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to standard output so far.
    pub fn stdout(&self) -> String {
        read(&self.stdout)
    }

    /// What it has written to standard error so far.
    pub fn stderr(&self) -> String {
        read(&self.stderr)
    }

    /// Sends it a signal, such as `TERM`.
    pub fn signal(&self, name: &str) {
        guard::signal(name, &[self.child.id()]);
    }

    /// Its end, if it has come.
    pub fn finished(&mut self) -> Option<Finished> {
        let status = self.child.try_wait().expect("a child can be waited for")?;
        Some(Finished { status, stdout: self.stdout(), stderr: self.stderr() })
    }

    /// Waits for its end.
    ///
    /// # Panics
    ///
    /// When it does not come.
    #[track_caller]
    pub fn wait(&mut self, deadline: Duration) -> Finished {
        eventually(deadline, "the program to end", || {
            self.finished().ok_or_else(|| format!("it runs, and said\n{}{}", self.stdout(), self.stderr()))
        })
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // The whole group, which may have outlived its leader.
        let pid = self.child.id();
        guard::signal_group("KILL", pid);
        // An error here would mean that it was waited for already.
        let _ = self.child.wait();
        self.guard.forget(pid);
    }
}

/// Lossy, for the last character may be half written.
fn read(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}
