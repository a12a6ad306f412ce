//! A fake service, a server on a free port, and a client that shows every byte.

mod crowd;
mod drain;
mod hung;
mod leaving;
mod malformed;
mod memory;
mod requests;
mod side;
mod workers;

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Response};
use parking_lot::Mutex;

use super::{Found, Gate, Incoming, Limits, Listener, Reply, Route, Server, Service};
use crate::share::{Account, Shares};

/// Longer than anything here takes; a test that waits for it has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// A handler that says when it is entered, and answers when it is released.
fn held(
    body: &'static str,
) -> (impl Fn(&Incoming) -> Reply + Send + Sync + 'static, Receiver<()>, Sender<()>) {
    let (enter, entered) = mpsc::channel();
    let (release, released) = mpsc::channel();
    let (enter, released) = (Mutex::new(enter), Mutex::new(released));
    let handler = move |_: &Incoming| {
        enter.lock().send(()).unwrap();
        released.lock().recv().unwrap();
        ok(body)
    };
    (handler, entered, release)
}

/// Spins until the server has so many connections.
fn until_open(server: &Server, connections: u64) {
    let until = Instant::now() + PATIENCE;
    while server.numbers().connections != connections {
        assert!(Instant::now() < until, "{:?}", server.numbers());
        std::thread::yield_now();
    }
}

type Handler = Arc<dyn Fn(&Incoming) -> Reply + Send + Sync>;

/// Routes as closures; GET serves HEAD, as the plugin room does it.
#[derive(Default)]
struct Fake {
    routes: HashMap<(&'static str, Method), (bool, Handler)>,
    unavailable: Option<bool>,
    /// One per route, so that each route is a plugin of its own.
    accounts: HashMap<&'static str, Arc<Account>>,
    shares: Shares,
    /// Missed deadlines, and when requests began to be turned away.
    told: Mutex<Vec<&'static str>>,
    refused: Option<&'static str>,
}

struct FakeRoute {
    is_inline: bool,
    handler: Handler,
    account: Arc<Account>,
    refused: Option<&'static str>,
}

impl Fake {
    fn inline(
        self,
        path: &'static str,
        handler: impl Fn(&Incoming) -> Reply + Send + Sync + 'static,
    ) -> Self {
        self.with(path, Method::GET, true, handler)
    }

    fn blocking(
        self,
        path: &'static str,
        handler: impl Fn(&Incoming) -> Reply + Send + Sync + 'static,
    ) -> Self {
        self.with(path, Method::GET, false, handler)
    }

    fn with(
        mut self,
        path: &'static str,
        method: Method,
        is_inline: bool,
        handler: impl Fn(&Incoming) -> Reply + Send + Sync + 'static,
    ) -> Self {
        self.routes.insert((path, method), (is_inline, Arc::new(handler)));
        self.accounts.entry(path).or_insert_with(|| Account::of(self.shares.open()));
        self
    }

    fn start(self, limits: Limits) -> Server {
        Server::start(Listener::bind("127.0.0.1:0").unwrap(), Arc::new(self), limits).unwrap()
    }
}

impl Service for Fake {
    type Route = FakeRoute;

    fn find(&self, method: &Method, path: &str) -> Found<FakeRoute> {
        assert_ne!(path, "/broken", "asked to");
        if path == "/" {
            return Found::Index { html: "<ul></ul>".to_owned() };
        }
        if let Some(building) = self.unavailable {
            return Found::Unavailable { plugin: "fake".to_owned(), reason: "E0308".to_owned(), building };
        }
        let wanted = if method == Method::HEAD { &Method::GET } else { method };
        let mut allow = Vec::new();
        for ((route, method), (is_inline, handler)) in &self.routes {
            if *route == path && method == wanted {
                let handler = Arc::clone(handler);
                let account = Arc::clone(&self.accounts[path]);
                let (is_inline, refused) = (*is_inline, self.refused);
                return Found::Route(FakeRoute { is_inline, handler, account, refused });
            }
            if *route == path {
                allow.push(method.as_str());
            }
        }
        if allow.is_empty() { Found::NotFound } else { Found::WrongMethod { allow: allow.join(", ") } }
    }

    fn missed_deadline(&self, plugin: &str, generation: u64, _began: Instant) {
        assert_eq!((plugin, generation), ("fake", 7));
        self.told.lock().push("missed");
    }

    fn turned_away(&self, plugin: &str, generation: u64) {
        assert_eq!((plugin, generation), ("fake", 7));
        self.told.lock().push("turned away");
    }
}

impl Route for FakeRoute {
    type Lease = ();

    fn part(&mut self) {}

    fn lost(&self) {
        unreachable!("nothing of the fake ends its thread")
    }

    fn is_inline(&self) -> bool {
        self.is_inline
    }

    fn plugin(&self) -> &str {
        "fake"
    }

    fn generation(&self) -> u64 {
        7
    }

    fn pattern(&self) -> &str {
        "/fake"
    }

    fn reload_failed(&self) -> Option<String> {
        self.refused.map(str::to_owned)
    }

    fn account(&self) -> &Arc<Account> {
        &self.account
    }

    fn invoke(&self, request: &Incoming) -> Reply {
        (self.handler)(request)
    }
}

/// A 200 with this body.
fn ok(body: impl Into<Bytes>) -> Reply {
    Reply::Response(Response::new(body.into()))
}

fn development() -> Limits {
    Limits { development: true, ..Limits::default() }
}

/// One I/O thread, so that a test knows who serves.
fn one_thread() -> Limits {
    Limits { io_threads: NonZeroUsize::new(1), ..Limits::default() }
}

/// A client on one connection.
struct Client {
    stream: BufReader<TcpStream>,
}

/// A response as it came.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

impl Client {
    fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self { stream: BufReader::new(stream) }
    }

    fn send(&mut self, bytes: &str) {
        self.stream.get_mut().write_all(bytes.as_bytes()).unwrap();
    }

    /// Sends a request without a body; `headers` are lines that end with CRLF.
    fn request(&mut self, method: &str, path: &str, headers: &str) -> Answer {
        self.send(&format!("{method} {path} HTTP/1.1\r\nhost: test\r\n{headers}\r\n"));
        self.answer(method == "HEAD")
    }

    fn get(&mut self, path: &str) -> Answer {
        self.request("GET", path, "")
    }

    fn answer(&mut self, is_head: bool) -> Answer {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            let read = self.stream.read_line(&mut head).unwrap();
            assert_ne!(read, 0, "the connection ended in the middle of a head: {head:?}");
        }
        let status = head[9..12].parse().unwrap();
        let mut answer = Answer { status, head, body: String::new() };
        let length = answer.header("content-length").map_or(0, |length| length.parse().unwrap());
        if !is_head {
            let mut body = vec![0; length];
            self.stream.read_exact(&mut body).unwrap();
            answer.body = String::from_utf8(body).unwrap();
        }
        answer
    }

    /// What comes until the server closes.
    fn rest(&mut self) -> String {
        let mut rest = String::new();
        self.stream.read_to_string(&mut rest).unwrap();
        rest
    }
}

/// HTTP/2 frame types.
const DATA: u8 = 0;
const GOAWAY: u8 = 7;

/// The bytes of an HTTP/2 client that wants `/fake`.
fn http2_get() -> Vec<u8> {
    // HPACK: `:method` and `:scheme` by index, `:path` and `:authority` as literals.
    let fields = b"\x82\x86\x04\x05/fake\x41\x01t";
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    // HEADERS with END_STREAM and END_HEADERS on stream 1.
    bytes.extend([0, 0, fields.len() as u8, 1, 0b101, 0, 0, 0, 1]);
    bytes.extend(fields);
    bytes
}

/// The type and payload of the next HTTP/2 frame.
fn read_frame(stream: &mut TcpStream) -> (u8, Vec<u8>) {
    let mut head = [0; 9];
    stream.read_exact(&mut head).unwrap();
    let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
    stream.read_exact(&mut payload).unwrap();
    (head[3], payload)
}
