//! systemd: sockets that it passes, and what it is told. Without systemd nothing here does anything.

use std::env;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;

use super::handover::take_range;

/// What speaks to this process alone. A serving process must not take it for its own.
pub(super) const VARIABLES: [&str; 4] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "NOTIFY_SOCKET"];

/// A socket that systemd has passed.
#[derive(Debug)]
pub struct Given {
    /// Its `FileDescriptorName=`; `unknown` where there is none.
    pub name: String,
    /// The socket.
    pub socket: OwnedFd,
}

/// The sockets that systemd has passed to this process, in order. To be called once, at the start.
///
/// # Errors
///
/// When one of them is not open.
pub fn given() -> io::Result<Vec<Given>> {
    let number = |name: &str| env::var(name).ok().and_then(|value| value.parse::<i32>().ok());
    let is_ours = env::var("LISTEN_PID").is_ok_and(|pid| pid == std::process::id().to_string());
    let Some(count) = number("LISTEN_FDS").filter(|&count| is_ours && count > 0) else {
        return Ok(Vec::new());
    };
    let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':').filter(|name| !name.is_empty());
    let name = |socket| Given { name: names.next().unwrap_or("unknown").to_owned(), socket };
    Ok(take_range(count)?.into_iter().map(name).collect())
}

/// Tells systemd something, such as `READY=1`, if it wants to be told.
pub fn notify(words: &str) {
    let Ok(path) = env::var("NOTIFY_SOCKET") else { return };
    if let Err(error) = send(&path, words) {
        tracing::warn!(%error, "cannot tell systemd at {path}");
    }
}

fn send(path: &str, words: &str) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    match path.strip_prefix('@') {
        #[cfg(target_os = "linux")]
        Some(name) => {
            use std::os::linux::net::SocketAddrExt as _;
            let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
            socket.send_to_addr(words.as_bytes(), &address).map(drop)
        }
        _ => socket.send_to(words.as_bytes(), path).map(drop),
    }
}
