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
fn tcp_clients_are_answered_on_the_named_thread_until_stopped() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = serve("admin", listener, echo()).unwrap();
    let mut client = Client::connect(address);

    assert_eq!(client.get("/a?b").body, "GET /a?b on admin");
    let panicked = client.get("/panic");
    assert_eq!((panicked.status, panicked.body.contains("panicked")), (500, true));
    assert_eq!(client.get("/again").body, "GET /again on admin");

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
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("GET /x on control"), "{answer}");
}
