//! What a host needs of the outside before it starts: its sockets, and the lock of its state directory.
//!
//! They are bound by the host itself, passed by systemd, or inherited from the supervisor, which keeps them
//! while serving processes come and go.
//!
//! # Invariants
//!
//! - Who has the sockets has the lock: no two hosts serve from one state directory.

use std::fs::{self, File, TryLockError};
use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use super::{HostConfig, HostError};
use crate::admin;
use crate::http::Listener;
use crate::supervisor::{Given, Handover, HandoverError, given};

/// The sockets of a host, and the lock of its state directory.
#[derive(Debug)]
pub struct Sockets {
    /// The state directory, without symlinks.
    pub(super) state_dir: PathBuf,
    /// Held for as long as it is open, by whatever process.
    pub(super) lock: File,
    pub(super) listener: Listener,
    pub(super) admin: Option<Listener>,
    pub(super) control: UnixListener,
}

impl Sockets {
    /// Takes the state directory's lock, and the sockets that systemd has passed; binds those it has not.
    ///
    /// A passed socket named `admin` is for the admin listener, one with another name for the public one;
    /// where there are two without such names, the second is for the admin listener.
    ///
    /// # Errors
    ///
    /// [`HostError`].
    pub fn bind(config: &HostConfig) -> Result<Sockets, HostError> {
        let state_dir = open_state(&config.plugins.state_dir)?;
        let lock = lock(&state_dir)?;
        let passed = |what| move |source| HostError::Passed { what, source };
        let mut given = given().map_err(passed("listening"))?;
        let is_admin = |given: &Given| given.name == "admin";
        let of_admin = given.iter().position(is_admin).or((given.len() > 1).then_some(1));
        let of_admin = of_admin.map(|at| given.remove(at));
        let of_public = given.into_iter().next();

        let bind = |flag, address: &str, given: Option<Given>| match given {
            Some(given) => Listener::adopt(TcpListener::from(given.socket)).map_err(passed(flag)),
            None => Listener::bind(address).map_err(|source| HostError::Listen { flag, source }),
        };
        let listener = bind("--listen", &config.listen, of_public)?;
        let admin = match (&config.admin, of_admin) {
            (None, _) => None,
            (Some(address), given) => Some(bind("--admin", address, given)?),
        };
        let control = bind_control(&state_dir).map_err(|source| state(&state_dir, source))?;
        Ok(Sockets { state_dir, lock, listener, admin, control })
    }

    /// Takes over what the supervisor holds.
    ///
    /// # Errors
    ///
    /// [`HandoverError`] when something is missing or not what it should be.
    pub fn inherit(config: &HostConfig, handover: &mut Handover) -> Result<Sockets, HostError> {
        let passed = |what| move |source| HostError::Passed { what, source };
        let missing =
            |what| move |error: HandoverError| HostError::Passed { what, source: io::Error::other(error) };
        let tcp = |socket| Listener::adopt(TcpListener::from(socket));
        let state_dir = open_state(&config.plugins.state_dir)?;
        let lock = File::from(handover.need("lock").map_err(missing("the state directory's lock"))?);
        let listener = handover.need("listen").map_err(missing("--listen"))?;
        let listener = tcp(listener).map_err(passed("--listen"))?;
        let admin = handover.take("admin").map(tcp).transpose().map_err(passed("--admin"))?;
        let control = UnixListener::from(handover.need("control").map_err(missing("the control socket"))?);
        Ok(Sockets { state_dir, lock, listener, admin, control })
    }

    /// The state directory, without symlinks.
    pub fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    /// What a supervisor keeps and passes on, by the names that [`Sockets::inherit`] looks for.
    pub fn into_descriptors(self) -> Vec<(&'static str, OwnedFd)> {
        let mut descriptors = vec![
            ("lock", OwnedFd::from(self.lock)),
            ("listen", self.listener.into_socket().into()),
            ("control", self.control.into()),
        ];
        descriptors.extend(self.admin.map(|admin| ("admin", admin.into_socket().into())));
        descriptors
    }
}

fn state(path: &Path, source: io::Error) -> HostError {
    HostError::State { path: path.to_owned(), source }
}

/// Makes the state directory, for this user alone, and returns its real path.
pub(super) fn open_state(path: &Path) -> Result<PathBuf, HostError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|source| state(path, source))?;
    let real = path.canonicalize().map_err(|source| state(path, source))?;
    let mode = fs::metadata(&real).map_err(|source| state(path, source))?.mode();
    if mode & EVERYONE_WRITES != 0 {
        return Err(HostError::StateWritable { path: real });
    }
    Ok(real)
}

/// The bit of a directory's mode that lets every user of the machine put files there. Sticky directories, where they
/// cannot replace others' files, are no better: code that is not there yet can be put there.
const EVERYONE_WRITES: u32 = 0o002;

/// Takes the lock of a state directory. It goes with the file, also when the process is killed.
pub(super) fn lock(state_dir: &Path) -> Result<File, HostError> {
    let path = state_dir.join("lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|source| state(state_dir, source))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(HostError::StateInUse { path: state_dir.to_owned() }),
        Err(TryLockError::Error(source)) => Err(state(state_dir, source)),
    }
}

/// Binds the control socket. The state directory is locked, so a socket that is there is a leftover.
pub(super) fn bind_control(state_dir: &Path) -> io::Result<UnixListener> {
    let path = state_dir.join(admin::CONTROL_SOCKET);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = admin::short_path(&path, |path| UnixListener::bind(path))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Who can put a file there can have it run.
    #[test]
    fn a_state_directory_that_everyone_may_write_to_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("state");
        assert!(open_state(&state).is_ok());
        assert_eq!(fs::metadata(&state).unwrap().mode() & 0o777, 0o700, "it is made for one user");
        for mode in [0o777, 0o1777, 0o702] {
            fs::set_permissions(&state, fs::Permissions::from_mode(mode)).unwrap();
            let refused = open_state(&state).unwrap_err().to_string();
            assert!(
                refused.contains("is writable by everyone") && refused.contains("chmod o-w"),
                "{refused}"
            );
        }
    }
}
