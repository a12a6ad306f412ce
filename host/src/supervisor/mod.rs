//! The supervisor: a small process that holds the listening sockets and keeps a serving process running.
//!
//! `host run` is two processes of one program. The first one binds every socket, starts the second and
//! waits; the second one gets the sockets by inheritance and does all the rest. When code of a plugin
//! ends the second one, clients wait in the sockets' queues for the milliseconds that the next one
//! takes to start: no connection is refused.
//!
//! ```text
//! supervisor --- sockets, line ---> serving process --- dlopen ---> plugins
//!     |                                  |
//!  signals, exit code,              "ready", "done", last words of a crash
//!  systemd
//! ```
//!
//! Owns: the two processes' agreement ([`Handover`], [`Line`]), signals, back-off, what systemd is told.
//! Does not own: what the sockets are for, nor what is done about a crash: it passes the record on.
//!
//! # Invariants
//!
//! - No code of a plugin runs here, and nothing here depends on what plugins do: what is read from the
//!   line is text of bounded length.
//! - Only a serving process that has said `done` has ended in order; an exit status proves nothing, for
//!   a plugin may end the process with any.
//! - When the supervisor dies the line is closed, and the serving process stops in order.

mod activation;
mod backoff;
mod handover;
mod line;
mod signals;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

pub use self::activation::{Given, given, notify};
use self::backoff::Backoff;
pub use self::handover::{Handover, HandoverError};
pub use self::line::{Line, Order};
use self::line::{Words, listen};
use self::signals::Heard;
use crate::pins::Crash;

/// How long the last words of a process that has ended may take to arrive.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// What is started, and what it is given.
#[derive(Debug)]
pub struct Supervisor {
    /// The program.
    pub program: PathBuf,
    /// What it is called, as its first argument says.
    pub name: OsString,
    /// Its further arguments; the handover is appended.
    pub args: Vec<OsString>,
    /// What they find in their environment besides that of the supervisor.
    pub environment: Vec<(&'static str, &'static str)>,
    /// What every serving process inherits, by name.
    pub sockets: Vec<(&'static str, OwnedFd)>,
    /// Where the record of a crash is left for the next serving process, and for people.
    pub crash_file: PathBuf,
}

/// Why there is no supervision. Nothing runs.
#[derive(Debug, thiserror::Error)]
pub enum SupervisorError {
    /// The supervisor cannot hear signals.
    #[error("cannot set up the supervisor; start with --no-supervisor to do without")]
    Signals(#[source] io::Error),
    /// The serving process cannot be started.
    #[error("cannot start the serving process {}", program.display())]
    Spawn {
        /// The program.
        program: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// What the supervisor's one thread of thought is told by those that listen.
#[derive(Debug)]
enum Told {
    /// A signal to this process.
    Signal(Heard),
    /// A serving process has said something: which one, and what.
    Said(u64, Words),
}

/// A serving process.
struct Serving {
    child: Child,
    /// Where it is told what to do.
    line: UnixStream,
    number: u64,
    /// Whether it has said that it ends in order.
    is_done: bool,
    /// Whether nothing more will be heard from it.
    is_silent: bool,
    /// Its record of what ended it.
    crash: Option<Crash>,
}

impl Supervisor {
    /// Keeps a serving process running until it ends in order or a signal asks for the end. Returns the
    /// exit code.
    ///
    /// # Errors
    ///
    /// [`SupervisorError`].
    pub fn run(self) -> Result<u8, SupervisorError> {
        let (tell, told) = channel();
        let of_signals = tell.clone();
        signals::listen(move |heard| of_signals.send(Told::Signal(heard)).is_ok())
            .map_err(SupervisorError::Signals)?;
        let mut backoff = Backoff::default();
        let mut restarts = 0;
        let mut is_stopping = false;
        // One that an earlier supervisor left behind is about an earlier host.
        let _ = fs::remove_file(&self.crash_file);
        loop {
            let mut serving = self.spawn(restarts, &tell)?;
            let status = watch(&mut serving, &told, &mut is_stopping);
            if serving.is_done || is_stopping {
                return Ok(code_of(status));
            }
            let is_stopped = hear_last_words(&mut serving, &told);
            if serving.is_done {
                return Ok(code_of(status));
            }
            let crash = serving.crash.take().unwrap_or_else(|| Crash::without_record(status));
            restarts += 1;
            self.leave(&crash);
            notify(&format!("STATUS=restarted {restarts} times, last {}", crash.words()));
            let pause = backoff.after_crash(Instant::now());
            report(&crash, &backoff, pause);
            if is_stopped || self.pause(pause, &told) {
                return Ok(0);
            }
        }
    }

    /// Starts a serving process and listens to what it says.
    fn spawn(&self, restarts: u64, tell: &Sender<Told>) -> Result<Serving, SupervisorError> {
        let failed = |source| SupervisorError::Spawn { program: self.program.clone(), source };
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        let theirs = OwnedFd::from(theirs);
        let given = self.sockets.iter().map(|(name, socket)| (*name, socket));
        let handover = handover::give(given.chain([("line", &theirs)]), restarts).map_err(failed)?;
        let mut command = Command::new(&self.program);
        command.arg0(&self.name).args(&self.args).arg(handover);
        command.envs(self.environment.iter().copied());
        for variable in activation::VARIABLES {
            command.env_remove(variable);
        }
        let child = command.spawn().map_err(failed)?;
        drop(theirs);
        let tell = tell.clone();
        let line = ours.try_clone().map_err(failed)?;
        listen(ours, move |words| tell.send(Told::Said(restarts, words)).is_ok()).map_err(failed)?;
        Ok(Serving { child, line, number: restarts, is_done: false, is_silent: false, crash: None })
    }

    /// Leaves the record of a crash where the next serving process looks for it.
    fn leave(&self, crash: &Crash) {
        let text = serde_json::to_vec(crash).expect("a record is text and numbers");
        let new = self.crash_file.with_extension("new");
        if let Err(error) = fs::write(&new, text).and_then(|()| fs::rename(&new, &self.crash_file)) {
            tracing::warn!(%error, "cannot write {}", self.crash_file.display());
        }
    }

    /// Waits before the next start; tells whether somebody asked for the end meanwhile.
    fn pause(&self, pause: Duration, told: &Receiver<Told>) -> bool {
        let until = Instant::now() + pause;
        loop {
            match told.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(Told::Signal(Heard::Stop)) => return true,
                Ok(_) => {}
                Err(_) => return false,
            }
        }
    }
}

/// Waits for the end of a serving process, passing signals on to it.
fn watch(serving: &mut Serving, told: &Receiver<Told>, is_stopping: &mut bool) -> ExitStatus {
    loop {
        match told.recv().expect("the supervisor itself can tell itself") {
            Told::Signal(Heard::Child) => {
                if let Ok(Some(status)) = serving.child.try_wait() {
                    return status;
                }
            }
            Told::Signal(Heard::Rescan) => serving.tell(Order::Rescan),
            Told::Signal(Heard::Stop) => {
                if !std::mem::replace(is_stopping, true) {
                    notify("STOPPING=1");
                }
                serving.tell(Order::Stop);
            }
            Told::Said(number, words) => serving.hear(number, words),
        }
    }
}

/// Takes in what a process has said before it ended; tells whether somebody asked for the end meanwhile.
fn hear_last_words(serving: &mut Serving, told: &Receiver<Told>) -> bool {
    let until = Instant::now() + LAST_WORDS;
    let mut is_stopped = false;
    while !serving.is_silent {
        match told.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(Told::Said(number, words)) => serving.hear(number, words),
            Ok(Told::Signal(heard)) => is_stopped |= heard == Heard::Stop,
            // Something that it started holds the line open.
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
        }
    }
    is_stopped
}

impl Serving {
    /// Passes a signal on, by the line: the terminal and service managers signal both processes, and a
    /// signal that arrived twice would count as the impatient second one.
    fn tell(&mut self, order: Order) {
        // A process that has ended is noticed by its own signal.
        let _ = self.line.write_all(order.words().as_bytes());
    }

    fn hear(&mut self, number: u64, words: Words) {
        if number != self.number {
            return;
        }
        match words {
            Words::Ready => notify(&format!("READY=1\nMAINPID={}", std::process::id())),
            Words::Done => self.is_done = true,
            Words::Crash(crash) => self.crash = Some(crash),
            Words::End => self.is_silent = true,
        }
    }
}

/// The exit code that a status comes down to, as a shell counts.
fn code_of(status: ExitStatus) -> u8 {
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
    u8::try_from(code).unwrap_or(1)
}

/// Says what happened, in one line, and how it goes on.
fn report(crash: &Crash, backoff: &Backoff, pause: Duration) {
    let words = crash.words();
    if pause.is_zero() {
        tracing::error!("the serving process ended: {words}; starting it again");
    } else {
        let often = backoff.recent();
        tracing::error!(
            "the serving process ended for the {often}th time within {:?}: {words}; starting it again in {pause:?}",
            backoff::WINDOW
        );
    }
    for frame in &crash.frames {
        tracing::error!("    at {frame}");
    }
}
