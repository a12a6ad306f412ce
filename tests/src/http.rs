//! A small blocking HTTP/1.1 client.
//!
//! Owns: one connection at a time, kept alive between requests; raw bytes for what no proper client
//! would send. Does not own: redirects, TLS, retries. A request that fails has failed: the tests
//! count failures.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::wait::patience;

/// Where a server listens.
#[derive(Clone, Debug)]
pub enum Address {
    /// On a port.
    Tcp(SocketAddr),
    /// On a Unix socket.
    Unix(PathBuf),
}

/// An answer, read to its end.
#[derive(Clone, Debug)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Headers in the order received, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, without its chunks' frames.
    pub body: Vec<u8>,
}

impl Response {
    /// The first header of that name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(of, _)| of == name).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Panics
    ///
    /// When it is none.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in a {} answer: {}", self.status, self.text()))
    }
}

/// A client of one server.
#[derive(Debug)]
pub struct Client {
    address: Address,
    /// How long one read or write may take.
    deadline: Duration,
    /// The connection, between requests.
    stream: Option<BufReader<Stream>>,
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Client {
    /// A client that connects at its first request.
    pub fn new(address: impl Into<Address>) -> Client {
        Client { address: address.into(), deadline: Duration::from_secs(30) * patience(), stream: None }
    }

    /// Gives up on a read or write after `deadline`; without this, after 30 s.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Client {
        self.deadline = deadline;
        self
    }

    /// `GET path`.
    ///
    /// # Errors
    ///
    /// As [`Client::request`].
    pub fn get(&mut self, path: &str) -> io::Result<Response> {
        self.request("GET", path, &[], b"")
    }

    /// `POST path` with a body.
    ///
    /// # Errors
    ///
    /// As [`Client::request`].
    pub fn post(&mut self, path: &str, body: &[u8]) -> io::Result<Response> {
        self.request("POST", path, &[], body)
    }

    /// One request and its answer, over the connection of the last request if it was kept.
    ///
    /// # Errors
    ///
    /// Those of the connection; `InvalidData` for an answer that is no HTTP. The connection is closed then.
    pub fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Response> {
        let mut head = format!("{method} {path} HTTP/1.1\r\n");
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            head.push_str("host: localhost\r\n");
        }
        if !body.is_empty() || method == "POST" || method == "PUT" {
            head.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(body);

        let mut stream = self.take_stream()?;
        stream.get_mut().write_all(&bytes)?;
        let response = read_response(&mut stream, method == "HEAD")?;
        if response.header("connection") != Some("close") {
            self.stream = Some(stream);
        }
        Ok(response)
    }

    /// Sends bytes as they are over a new connection and reads one answer.
    ///
    /// # Errors
    ///
    /// As [`Client::request`].
    pub fn raw(&self, bytes: &[u8]) -> io::Result<Response> {
        let mut stream = self.connect()?;
        let mut writer = stream.get_ref().try_clone()?;
        // Both at once: a server may answer and close before it has read everything, and what it
        // said is lost to a client that is still writing.
        thread::scope(|scope| {
            scope.spawn(move || writer.write_all(bytes));
            read_response(&mut stream, false)
        })
    }

    fn take_stream(&mut self) -> io::Result<BufReader<Stream>> {
        match self.stream.take() {
            Some(stream) => Ok(stream),
            None => self.connect(),
        }
    }

    fn connect(&self) -> io::Result<BufReader<Stream>> {
        let deadline = Some(self.deadline);
        let stream = match &self.address {
            Address::Tcp(address) => {
                let stream = TcpStream::connect_timeout(address, self.deadline)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(deadline)?;
                stream.set_write_timeout(deadline)?;
                Stream::Tcp(stream)
            }
            Address::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(deadline)?;
                stream.set_write_timeout(deadline)?;
                Stream::Unix(stream)
            }
        };
        Ok(BufReader::new(stream))
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Address {
        Address::Tcp(address)
    }
}

impl From<PathBuf> for Address {
    fn from(path: PathBuf) -> Address {
        Address::Unix(path)
    }
}

impl Stream {
    fn try_clone(&self) -> io::Result<Stream> {
        match self {
            Stream::Tcp(stream) => stream.try_clone().map(Stream::Tcp),
            Stream::Unix(stream) => stream.try_clone().map(Stream::Unix),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.read(buffer),
            Stream::Unix(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.write(bytes),
            Stream::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn read_response(stream: &mut impl BufRead, head_only: bool) -> io::Result<Response> {
    loop {
        let line = read_line(stream)?;
        let status = line
            .strip_prefix("HTTP/1.")
            .and_then(|rest| rest.get(2..5)?.parse().ok())
            .ok_or_else(|| invalid(format!("no status line: {line:?}")))?;
        let mut headers = Vec::new();
        loop {
            let line = read_line(stream)?;
            if line.is_empty() {
                break;
            }
            let (name, value) =
                line.split_once(':').ok_or_else(|| invalid(format!("no header: {line:?}")))?;
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let mut response = Response { status, headers, body: Vec::new() };
        if (100..200).contains(&status) {
            continue;
        }
        if !head_only && status != 204 && status != 304 {
            response.body = read_body(stream, &response)?;
        }
        return Ok(response);
    }
}

fn read_body(stream: &mut impl BufRead, head: &Response) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    if head.header("transfer-encoding") == Some("chunked") {
        loop {
            let size = read_line(stream)?;
            let digits = size.split(';').next().unwrap_or_default().trim();
            let size =
                usize::from_str_radix(digits, 16).map_err(|_| invalid(format!("no chunk size: {size:?}")))?;
            let start = body.len();
            body.resize(start + size, 0);
            stream.read_exact(&mut body[start..])?;
            // The chunk's line end; after the last chunk, the end of trailers that nobody here sends.
            read_line(stream)?;
            if size == 0 {
                return Ok(body);
            }
        }
    }
    match head.header("content-length") {
        Some(length) => {
            let length = length.parse().map_err(|_| invalid(format!("no length: {length:?}")))?;
            body.resize(length, 0);
            stream.read_exact(&mut body)?;
        }
        None => {
            stream.read_to_end(&mut body)?;
        }
    }
    Ok(body)
}

fn read_line(stream: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection"));
    }
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
