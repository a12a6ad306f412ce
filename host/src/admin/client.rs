//! The command line's side of the control socket.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::{CONTROL_SOCKET, short_path};
use crate::safe::Order;

/// Asks a running host.
#[derive(Debug, Clone)]
pub struct Client {
    state_dir: PathBuf,
}

/// Why a running host could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No host uses the state directory.
    #[error("no host is running with the state directory {}; start one with `host run`, or name its directory with --state", state_dir.display())]
    NotRunning {
        /// The directory.
        state_dir: PathBuf,
    },
    /// The conversation failed.
    #[error("cannot speak to the host through {}", socket.display())]
    Io {
        /// The control socket.
        socket: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The host did not do what it was told; the text is its own.
    #[error("{0}")]
    Refused(String),
    /// The answer makes no sense.
    #[error(
        "the host answered `{path}` with something else than expected: {reason}; is it of another version?"
    )]
    Answer {
        /// What was asked.
        path: String,
        /// What is wrong.
        reason: String,
    },
}

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

impl Client {
    /// A client of the host that uses `state_dir`.
    pub fn new(state_dir: &Path) -> Client {
        Client { state_dir: state_dir.to_owned() }
    }

    /// Fetches a JSON document, such as `/api/plugins`.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn get(&self, path: &str) -> Result<Value, ClientError> {
        self.ask("GET", path, &[])
    }

    /// Has something done to a plugin, such as `rollback`; returns the event that came of it.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn tell(&self, plugin: &str, what: &str, details: &Value) -> Result<Value, ClientError> {
        let plugin = utf8_percent_encode(plugin, NON_ALPHANUMERIC);
        let body = serde_json::to_vec(details).expect("a `Value` always serialises");
        self.ask("POST", &format!("/api/plugins/{plugin}/{what}"), &body)
    }

    /// Has an order about safes carried out.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn order(&self, order: &Order) -> Result<Value, ClientError> {
        let body = serde_json::to_vec(order).expect("an order has only text and JSON in it");
        self.ask("POST", "/api/safes", &body)
    }

    /// Has an order about the registry carried out.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn registry(&self, order: &Value) -> Result<Value, ClientError> {
        let body = serde_json::to_vec(order).expect("a `Value` always serialises");
        self.ask("POST", "/api/registry", &body)
    }

    fn ask(&self, method: &str, path: &str, body: &[u8]) -> Result<Value, ClientError> {
        let socket = self.state_dir.join(CONTROL_SOCKET);
        let answer = self.exchange(&socket, method, path, body).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                ClientError::NotRunning { state_dir: self.state_dir.clone() }
            }
            _ => ClientError::Io { socket, source },
        })?;
        let unexpected = |reason: String| ClientError::Answer { path: path.to_owned(), reason };
        let text = String::from_utf8_lossy(&answer);
        let (head, body) =
            text.split_once("\r\n\r\n").ok_or_else(|| unexpected("no end of the head".to_owned()))?;
        let status = head.lines().next().unwrap_or_default();
        if status.split(' ').nth(1) == Some("422") {
            return Err(ClientError::Refused(body.trim_end().to_owned()));
        }
        if status.split(' ').nth(1) != Some("200") {
            return Err(unexpected(format!("`{status}`")));
        }
        serde_json::from_str(body).map_err(|error| unexpected(error.to_string()))
    }

    fn exchange(&self, socket: &Path, method: &str, path: &str, body: &[u8]) -> io::Result<Vec<u8>> {
        let mut stream = short_path(socket, |path| UnixStream::connect(path))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        // HTTP/1.0: the answer ends with the connection.
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.0\r\nHost: control\r\nAccept: application/json\r\nContent-Length: {length}\r\n\r\n"
        )?;
        stream.write_all(body)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(answer)
    }
}
