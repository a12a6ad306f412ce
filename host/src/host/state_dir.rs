//! Looks after the state directory while the host runs: somebody may delete it, or what is in it.
//!
//! What the host can make again is made again within a second: the directory itself, its lock, the control socket. What
//! was in it is gone: builds start anew, and earlier code to go back to is no more. A safe whose file is gone refuses
//! writes by itself. Owns the check and the words; does not own what any file means.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use super::sockets::{bind_control, lock, open_state};
use crate::admin::{self, short_path};
use crate::http::side::{self, Handler, SideServer};

/// How often it is looked at: two questions to the system.
const INTERVAL: Duration = Duration::from_secs(1);

/// The look-out, and the control socket's server, which it replaces where its socket is gone.
pub(super) struct StateKeeper {
    stop: Sender<()>,
    thread: JoinHandle<SideServer>,
}

struct Kept {
    dir: PathBuf,
    /// The lock of the directory as it is now.
    lock: File,
    /// The file of the control socket, as device and inode; `None`: not known, or of another host.
    socket: Option<(u64, u64)>,
    server: SideServer,
    handler: Handler,
    /// Whether another host was found in the directory, which is said once.
    is_lost: bool,
}

impl StateKeeper {
    /// Serves the control socket with `handler`, and looks after `dir` from now on.
    ///
    /// # Errors
    ///
    /// When the system has no thread or descriptor left.
    pub(super) fn start(
        dir: &Path,
        lock: &File,
        control: UnixListener,
        handler: Handler,
    ) -> Result<StateKeeper, side::SideError> {
        let failed = |source| side::SideError::new("state", source);
        let lock = lock.try_clone().map_err(failed)?;
        let server = side::serve("control", control, handler.clone())?;
        // One that was inherited may lead to a process that is gone.
        let path = dir.join(admin::CONTROL_SOCKET);
        let is_ours = short_path(&path, |path| UnixStream::connect(path)).is_ok();
        let socket = if is_ours { identity(&path) } else { None };
        let mut kept = Kept { dir: dir.to_owned(), lock, socket, server, handler, is_lost: false };
        let (stop, stopped) = mpsc::channel();
        let body = move || {
            while stopped.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
                kept.look();
            }
            kept.server
        };
        let thread = std::thread::Builder::new().name("state".to_owned()).spawn(body).map_err(failed)?;
        Ok(StateKeeper { stop, thread })
    }

    /// Ends the look-out and the control socket's server.
    pub(super) fn stop(self) {
        drop(self.stop);
        if let Ok(server) = self.thread.join() {
            server.stop();
        }
    }
}

impl Kept {
    fn look(&mut self) {
        if self.is_lost {
            return;
        }
        let is_locked = identity(&self.dir.join("lock")) == identity_of(&self.lock);
        if !is_locked {
            match self.make_again() {
                Ok(()) => tracing::warn!(
                    "the state directory {} was deleted while the host runs, and was made again: plugins are built \
                     anew, earlier code to roll back to is gone, and safes refuse writes until the host is restarted",
                    self.dir.display()
                ),
                Err(error) => {
                    self.is_lost = true;
                    tracing::error!(
                        "the state directory {} was deleted while the host runs, and cannot be used again: {}; \
                         restart this host",
                        self.dir.display(),
                        crate::report::chain(&error)
                    );
                    return;
                }
            }
        }
        let path = self.dir.join(admin::CONTROL_SOCKET);
        if self.socket.is_none() || identity(&path) != self.socket {
            match self.bind_again() {
                Ok(()) => {
                    tracing::warn!("the control socket {} was gone, and was made again", path.display())
                }
                Err(error) => tracing::debug!("the control socket cannot be made again: {error}"),
            }
        }
    }

    fn make_again(&mut self) -> Result<(), super::HostError> {
        self.lock = lock(&open_state(&self.dir)?)?;
        Ok(())
    }

    fn bind_again(&mut self) -> io::Result<()> {
        let listener = bind_control(&self.dir)?;
        let server = side::serve("control", listener, self.handler.clone()).map_err(io::Error::other)?;
        std::mem::replace(&mut self.server, server).stop();
        self.socket = identity(&self.dir.join(admin::CONTROL_SOCKET));
        Ok(())
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

fn identity_of(file: &File) -> Option<(u64, u64)> {
    file.metadata().ok().map(|metadata| (metadata.dev(), metadata.ino()))
}
