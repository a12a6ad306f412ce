//! The side server, over both kinds of socket.

use std::net::TcpListener;
use std::os::unix::net::{UnixListener, UnixStream};

use super::*;
use crate::http::side::{Handler, serve};

fn echo() -> Handler {
    Arc::new(|request| {
        assert_ne!(request.uri().path(), "/panic", "asked to");
        let name = std::thread::current().name().unwrap().to_owned();
        Response::new(Bytes::from(format!("{} {} on {name}", request.method(), request.uri())))
    })
}

#[test]
fn tcp_clients_are_answered_on_named_threads_until_stopped() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = serve("admin", listener, echo()).unwrap();
    let mut client = Client::connect(address);

    assert_eq!(client.get("/a?b").body, "GET /a?b on admin request");
    let panicked = client.get("/panic");
    assert_eq!((panicked.status, panicked.body.contains("panicked")), (500, true));
    assert_eq!(client.get("/again").body, "GET /again on admin request");

    client.send("POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 2000000\r\n\r\n");
    assert_eq!(client.answer(false).status, 413);
    server.stop();
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn unix_clients_are_answered() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control");
    let _server = serve("control", UnixListener::bind(&path).unwrap(), echo()).unwrap();
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET /x HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("GET /x on control request"), "{answer}");
}

/// An order that takes its time keeps nobody from looking.
#[test]
fn slow_request_delays_no_other() {
    let (release, released) = std::sync::mpsc::channel::<()>();
    let released = Mutex::new(released);
    let handler: Handler = Arc::new(move |request| {
        if request.uri().path() == "/order" {
            released.lock().recv_timeout(PATIENCE).expect("released by the test");
        }
        Response::new(Bytes::from(request.uri().path().to_owned()))
    });
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let _server = serve("control", listener, handler).unwrap();
    let mut slow = Client::connect(address);
    slow.send("POST /order HTTP/1.1\r\nhost: t\r\ncontent-length: 0\r\n\r\n");

    for _ in 0..3 {
        assert_eq!(Client::connect(address).get("/status").body, "/status");
    }
    release.send(()).unwrap();
    assert_eq!(slow.answer(false).body, "/order");
}

/// Clients that do not read their answers, nor go, keep nobody from asking whether the host is well.
#[test]
fn clients_that_do_not_read_lock_nobody_out() {
    let handler: Handler = Arc::new(|request| {
        let is_large = request.uri().path() == "/large";
        Response::new(Bytes::from(vec![b'x'; if is_large { 8 << 20 } else { 2 }]))
    });
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let _server = serve("admin", listener, handler).unwrap();
    let mut idle: Vec<Client> = Vec::new();
    for _ in 0..200 {
        let mut client = Client::connect(address);
        client.send("GET /large HTTP/1.1\r\nhost: t\r\n\r\n");
        idle.push(client);
        assert_eq!(Client::connect(address).get("/healthz").body, "xx");
    }
}
