//! Binding the public address, before anything is built, so that a busy port is an early error.

use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs as _};
use std::os::fd::{AsRawFd as _, RawFd};

use tokio::net::TcpSocket;

/// Connections the kernel queues before they are accepted. The system's `somaxconn` caps it.
const BACKLOG: u32 = 4096;

/// A bound, listening, non-blocking socket. Clients that connect wait until a server is started on it.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
}

/// Why nothing listens at the address. Nothing was left open.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// The text is not an address, or its host name is unknown.
    #[error("`{address}` is not an address to listen on; write HOST:PORT, for example 127.0.0.1:8080")]
    Address {
        /// What was asked for.
        address: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// Another process listens there.
    #[error("{address} is already in use; stop the process that listens there, or choose another port")]
    InUse {
        /// What was asked for.
        address: SocketAddr,
    },
    /// The port is privileged.
    #[error(
        "no permission to listen on {address}; choose a port of 1024 or above, or grant CAP_NET_BIND_SERVICE"
    )]
    Permission {
        /// What was asked for.
        address: SocketAddr,
    },
    /// The address belongs to another machine.
    #[error("{address} is not an address of this machine; use 127.0.0.1 or 0.0.0.0")]
    NotLocal {
        /// What was asked for.
        address: SocketAddr,
    },
    /// Anything else the system said.
    #[error("cannot listen on {address}")]
    System {
        /// What was asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

impl Listener {
    /// Binds `address`, written `HOST:PORT`; port 0 takes a free one.
    ///
    /// # Errors
    ///
    /// A [`ListenError`] whose text says what to do.
    pub fn bind(address: &str) -> Result<Self, ListenError> {
        let resolved = address.to_socket_addrs().and_then(|mut all| {
            all.next().ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the name has no address"))
        });
        let address =
            resolved.map_err(|source| ListenError::Address { address: address.to_owned(), source })?;
        open(address).map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => ListenError::InUse { address },
            io::ErrorKind::PermissionDenied => ListenError::Permission { address },
            io::ErrorKind::AddrNotAvailable => ListenError::NotLocal { address },
            _ => ListenError::System { address, source },
        })
    }

    /// A socket that somebody else has bound, and listens with.
    ///
    /// # Errors
    ///
    /// When it is no TCP socket.
    pub fn adopt(socket: TcpListener) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?;
        Ok(Listener { socket, address })
    }

    /// The bound address, with the port the system chose if 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The socket itself.
    pub fn into_socket(self) -> TcpListener {
        self.socket
    }

    /// The number of the socket's descriptor.
    pub fn number(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// Another descriptor of the same socket.
    pub(super) fn share(&self) -> io::Result<TcpListener> {
        self.socket.try_clone()
    }
}

/// Opens the socket. std would do but for its backlog of 128, which drops bursts; tokio's socket can
/// say more and needs a runtime at hand for the moment of `listen`.
fn open(address: SocketAddr) -> io::Result<Listener> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let socket = runtime.block_on(async {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // A restart must not wait for the connections of the process before it.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)?.into_std()
    })?;
    let address = socket.local_addr()?;
    Ok(Listener { socket, address })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_port_is_an_error_that_says_what_to_do() {
        let first = Listener::bind("127.0.0.1:0").unwrap();
        let address = first.address().to_string();
        let error = Listener::bind(&address).unwrap_err();
        assert!(matches!(error, ListenError::InUse { .. }));
        assert!(error.to_string().starts_with(&format!("{address} is already in use; stop")), "{error}");
    }

    #[test]
    fn text_that_is_no_address_says_how_to_write_one() {
        for text in ["", "8080", "127.0.0.1", "127.0.0.1:99999"] {
            let error = Listener::bind(text).unwrap_err();
            assert!(matches!(error, ListenError::Address { .. }), "{text}: {error:?}");
        }
        assert!(matches!(Listener::bind("203.0.113.1:0").unwrap_err(), ListenError::NotLocal { .. }));
    }
}
