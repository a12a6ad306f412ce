//! Clients that leave before their answer: what has not begun is dropped, what has begun is told.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

/// How a client leaves.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Leave {
    /// Closes the connection, which it wanted to keep.
    Close,
    /// Closes a connection that it had announced to close.
    CloseAsAnnounced,
    /// The same in HTTP/1.0.
    CloseOld,
    /// Closes the connection behind a further request that nobody has read.
    CloseBehindInput,
    /// Resets the connection.
    Reset,
    /// Resets the connection that it had announced to close.
    ResetAsAnnounced,
    /// Resets the stream of HTTP/2.
    ResetStream,
    /// Closes the connection of HTTP/2.
    CloseHttp2,
}

const ALL: [Leave; 8] = [
    Leave::Close,
    Leave::CloseAsAnnounced,
    Leave::CloseOld,
    Leave::CloseBehindInput,
    Leave::Reset,
    Leave::ResetAsAnnounced,
    Leave::ResetStream,
    Leave::CloseHttp2,
];

/// A client that has asked for `/fake` and is about to leave.
struct Leaver {
    stream: TcpStream,
    leave: Leave,
}

impl Leaver {
    fn ask(address: SocketAddr, leave: Leave) -> Leaver {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let request = match leave {
            Leave::Close | Leave::Reset => "GET /fake HTTP/1.1\r\nhost: t\r\n\r\n".as_bytes().to_vec(),
            Leave::CloseAsAnnounced | Leave::ResetAsAnnounced => {
                b"GET /fake HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n".to_vec()
            }
            Leave::CloseOld => b"GET /fake HTTP/1.0\r\nhost: t\r\n\r\n".to_vec(),
            Leave::CloseBehindInput => "GET /fake HTTP/1.1\r\nhost: t\r\n\r\n".repeat(2).into_bytes(),
            Leave::ResetStream | Leave::CloseHttp2 => http2_get(),
        };
        if matches!(leave, Leave::Reset | Leave::ResetAsAnnounced) {
            // A socket that is closed with something unread in it resets its connection.
            stream.write_all(b"GET /fast HTTP/1.1\r\nhost: t\r\n\r\n").unwrap();
            stream.peek(&mut [0]).unwrap();
        }
        stream.write_all(&request).unwrap();
        Leaver { stream, leave }
    }

    fn leave(mut self) {
        if self.leave == Leave::ResetStream {
            self.stream.write_all(&reset(1)).unwrap();
            // The connection stays: its end would be another way to leave.
            std::mem::forget(self.stream);
        }
    }
}

/// The frame that cancels a stream.
fn reset(stream: u32) -> Vec<u8> {
    let mut bytes = vec![0, 0, 4, 3, 0];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(8_u32.to_be_bytes());
    bytes
}

/// Spins until `is_so`.
fn until(server: &Server, what: &str, is_so: impl Fn(&crate::http::Numbers) -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is_so(&server.numbers()) {
        assert!(Instant::now() < until, "{what}: {:?}", server.numbers());
        std::thread::yield_now();
    }
}

fn one_worker() -> Limits {
    Limits { max_workers: NonZeroUsize::new(1), write_timeout: Duration::from_millis(500), ..one_thread() }
}

#[test]
fn a_request_that_has_not_begun_is_dropped_when_its_client_leaves() {
    for leave in ALL {
        let (hold, entered, release) = held("held");
        let calls = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&calls);
        let server = Fake::default()
            .blocking("/hold", hold)
            .inline("/fast", |_| ok("fast"))
            .blocking("/fake", move |_| {
                count.fetch_add(1, Ordering::Relaxed);
                ok("never")
            })
            .start(one_worker());
        let mut first = Client::connect(server.address());
        first.send("GET /hold HTTP/1.1\r\nhost: t\r\n\r\n");
        entered.recv_timeout(PATIENCE).unwrap();

        let leaver = Leaver::ask(server.address(), leave);
        until(&server, "it waits", |numbers| numbers.workers.queued == 1);
        let before = server.numbers();
        leaver.leave();
        until(&server, &format!("{leave:?}: it is dropped"), |numbers| numbers.workers.queued == 0);
        until(&server, &format!("{leave:?}: it is counted"), |numbers| numbers.cancelled >= 1);
        assert_eq!(server.numbers().status_2xx, before.status_2xx, "{leave:?}");

        release.send(()).unwrap();
        assert_eq!(first.answer(false).body, "held");
        let mut next = Client::connect(server.address());
        assert_eq!(next.get("/fast").body, "fast");
        until(&server, "all is done", |numbers| numbers.in_flight == 0);
        assert_eq!(calls.load(Ordering::Relaxed), 0, "{leave:?}: it was run for nobody");
        assert_eq!(server.numbers().status_5xx, 0, "{leave:?}");
    }
}

#[test]
fn a_request_that_has_begun_is_told_that_its_client_has_left_and_is_no_success() {
    // A client that had announced to close, and closes its side, may still be waiting.
    let clear = ALL.into_iter().filter(|leave| !matches!(leave, Leave::CloseAsAnnounced | Leave::CloseOld));
    for leave in clear {
        let (enter, entered) = mpsc::channel();
        let enter = Mutex::new(enter);
        let server = Fake::default()
            .inline("/fast", |_| ok("fast"))
            .blocking("/fake", move |request| {
                enter.lock().send(()).unwrap();
                let until = Instant::now() + PATIENCE;
                let scope = request.scope.as_ref().unwrap();
                while scope.cancelled().load(Ordering::Relaxed) == 0 {
                    assert!(Instant::now() < until, "nobody told that the client has left");
                    std::thread::yield_now();
                }
                ok("for nobody")
            })
            .start(one_worker());
        let leaver = Leaver::ask(server.address(), leave);
        entered.recv_timeout(PATIENCE).unwrap();
        let before = server.numbers().status_2xx;
        leaver.leave();
        until(&server, &format!("{leave:?}: it is counted"), |numbers| numbers.cancelled >= 1);
        until(&server, &format!("{leave:?}: its worker is free"), |numbers| numbers.workers.busy == 0);
        assert_eq!(server.numbers().status_2xx, before, "{leave:?}");
        assert_eq!(server.numbers().workers.late, 0, "{leave:?}");
    }
}

/// `printf ... | nc -N`: the only way to find out whether it is still there is to answer.
#[test]
fn a_client_that_closes_its_side_as_announced_gets_the_answer_of_a_request_that_has_begun() {
    let (hold, entered, release) = held("held");
    let server = Fake::default().blocking("/hold", hold).start(one_worker());
    let mut client = Client::connect(server.address());
    client.send("GET /hold HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n");
    entered.recv_timeout(PATIENCE).unwrap();
    client.stream.get_ref().shutdown(std::net::Shutdown::Write).unwrap();
    release.send(()).unwrap();
    assert_eq!(client.answer(false).body, "held");
    until(&server, "it is a success", |numbers| numbers.status_2xx == 1 && numbers.cancelled == 0);
}

/// A client that asks and cancels all the time keeps neither a worker nor a place in the queue.
#[test]
fn a_client_that_resets_most_of_its_streams_is_cut_off() {
    let (hold, entered, release) = held("held");
    let server = Fake::default()
        .blocking("/hold", hold)
        .blocking("/fake", |_| ok("never"))
        .inline("/fast", |_| ok("fast"))
        .start(one_worker());
    let mut first = Client::connect(server.address());
    first.send("GET /hold HTTP/1.1\r\nhost: t\r\n\r\n");
    entered.recv_timeout(PATIENCE).unwrap();

    let mut attacker = TcpStream::connect(server.address()).unwrap();
    attacker.set_read_timeout(Some(PATIENCE)).unwrap();
    let begin = http2_get();
    let headers_at = begin.len() - 9 - 13;
    attacker.write_all(&begin[..headers_at]).unwrap();
    let mut is_cut = false;
    for number in 0..1_000_u32 {
        let stream = 2 * number + 1;
        let mut frames = begin[headers_at..].to_vec();
        frames[5..9].copy_from_slice(&stream.to_be_bytes());
        if attacker.write_all(&frames).is_err() {
            is_cut = true;
            break;
        }
        let asked = server.numbers();
        until(&server, "it is seen or cut off", |numbers| {
            numbers.in_flight > 1 || numbers.cancelled > asked.cancelled || numbers.connections < 2
        });
        if attacker.write_all(&reset(stream)).is_err() || server.numbers().connections < 2 {
            is_cut = true;
            break;
        }
        until(&server, "it is dropped", |numbers| numbers.in_flight == 1 || numbers.connections < 2);
    }
    assert!(is_cut, "a thousand cancelled requests on one connection: {:?}", server.numbers());
    until(&server, "nothing is left of it", |numbers| {
        numbers.workers.queued == 0 && numbers.connections == 1
    });
    release.send(()).unwrap();
    assert_eq!(first.answer(false).body, "held");
}
