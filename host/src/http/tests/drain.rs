//! Shutdown: nothing that was accepted fails.

use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use super::*;

#[test]
fn drain_under_load_fails_no_request() {
    const CLIENTS: usize = 8;
    let server = Fake::default()
        .inline("/inline", |_| ok("fine"))
        .blocking("/blocking", |_| ok("fine"))
        .start(Limits { io_threads: NonZeroUsize::new(2), drain_grace: PATIENCE, ..Limits::default() });
    let answered = AtomicUsize::new(0);
    let warm = Barrier::new(CLIENTS + 1);
    std::thread::scope(|scope| {
        for number in 0..CLIENTS {
            let (server, answered, warm) = (&server, &answered, &warm);
            scope.spawn(move || {
                let mut client = Client::connect(server.address());
                for turn in 0.. {
                    let answer = client.get(["/inline", "/blocking"][(number + turn) % 2]);
                    assert_eq!((answer.status, &*answer.body), (200, "fine"));
                    answered.fetch_add(1, Ordering::Relaxed);
                    if turn == 50 {
                        warm.wait();
                    }
                    if answer.header("connection") == Some("close") {
                        assert_eq!(client.rest(), "");
                        return;
                    }
                }
            });
        }
        warm.wait();
        assert_eq!(server.shutdown(PATIENCE), 0);
    });

    let numbers = server.numbers();
    assert_eq!(numbers.status_2xx, answered.load(Ordering::Relaxed) as u64);
    assert_eq!((numbers.in_flight, numbers.connections, numbers.workers.busy), (0, 0, 0));
    assert!(TcpStream::connect(server.address()).is_err());
    assert_eq!(server.shutdown(PATIENCE), 0);
}

#[test]
fn connections_in_the_backlog_are_served() {
    let (hold, entered, release) = held("held");
    let server = Fake::default().inline("/hold", hold).inline("/page", |_| ok("page")).start(one_thread());
    let mut holder = Client::connect(server.address());
    holder.send("GET /hold HTTP/1.1\r\nhost: t\r\n\r\n");
    entered.recv_timeout(PATIENCE).unwrap();
    // The only I/O thread is held: these wait in the kernel.
    let mut waiting: Vec<Client> = (0..20).map(|_| Client::connect(server.address())).collect();
    waiting.iter_mut().for_each(|client| client.send("GET /page HTTP/1.1\r\nhost: t\r\n\r\n"));

    std::thread::scope(|scope| {
        let stopping = scope.spawn(|| server.shutdown(PATIENCE));
        release.send(()).unwrap();
        assert_eq!(holder.answer(false).body, "held");
        for client in &mut waiting {
            assert_eq!(client.answer(false).body, "page");
        }
        assert_eq!(stopping.join().unwrap(), 0);
    });
}

#[test]
fn idle_connection_gets_one_more_answer_and_a_close() {
    let server = Fake::default()
        .inline("/page", |_| ok("page"))
        .start(Limits { drain_grace: PATIENCE, ..one_thread() });
    let mut client = Client::connect(server.address());
    assert_eq!(client.get("/page").header("connection"), None);

    std::thread::scope(|scope| {
        let stopping = scope.spawn(|| server.shutdown(PATIENCE));
        while TcpStream::connect(server.address()).is_ok() {
            std::thread::yield_now();
        }
        let last = client.get("/page");
        assert_eq!((&*last.body, last.header("connection")), ("page", Some("close")));
        // The grace for other idle connections is long; there are none, so this ends at once.
        drop(client);
        assert_eq!(stopping.join().unwrap(), 0);
    });
}

#[test]
fn silent_connections_do_not_delay_the_drain() {
    let server = Fake::default().inline("/page", |_| ok("page")).start(one_thread());
    let mut idle = Client::connect(server.address());
    let mut fresh = Client::connect(server.address());
    idle.get("/page");
    let started = Instant::now();
    assert_eq!(server.shutdown(PATIENCE), 0);
    assert!(started.elapsed() < PATIENCE / 2);
    assert_eq!((idle.rest(), fresh.rest()), (String::new(), String::new()));
}

#[test]
fn http2_client_is_told_to_go_away() {
    let server = Fake::default()
        .inline("/fake", |_| ok("over two"))
        .start(Limits { drain_grace: PATIENCE, ..one_thread() });
    let mut stream = Client::connect(server.address()).stream.into_inner();
    stream.write_all(&http2_get()).unwrap();
    while read_frame(&mut stream).0 != DATA {}

    std::thread::scope(|scope| {
        let stopping = scope.spawn(|| server.shutdown(PATIENCE));
        while read_frame(&mut stream).0 != GOAWAY {}
        drop(stream);
        assert_eq!(stopping.join().unwrap(), 0);
    });
}

#[test]
fn handlers_past_the_drain_deadline_are_counted() {
    let (hold, entered, release) = held("late");
    let server = Fake::default().blocking("/hang", hold).start(one_thread());
    let mut client = Client::connect(server.address());
    client.send("GET /hang HTTP/1.1\r\nhost: t\r\n\r\n");
    entered.recv_timeout(PATIENCE).unwrap();

    assert_eq!(server.shutdown(Duration::from_millis(50)), 1);
    release.send(()).unwrap();
}
