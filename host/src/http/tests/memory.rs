//! What bodies may take: of requests that do not end, of responses that nobody takes.

use super::*;

const MIB: usize = 1024 * 1024;

fn limits() -> Limits {
    Limits { max_buffered: 4 * MIB, max_body: MIB, development: true, ..one_thread() }
}

fn server(limits: Limits) -> Server {
    Fake::default()
        .with("/post", Method::POST, true, |request| ok(request.body.len().to_string()))
        .inline("/page", |_| ok("page"))
        .inline("/big", |_| ok(vec![b'x'; MIB]))
        .start(limits)
}

/// A client that has sent so much of a body, and does not end it.
fn unfinished(server: &Server, bytes: usize) -> Client {
    let mut client = Client::connect(server.address());
    client.send(&format!("POST /post HTTP/1.1\r\nhost: t\r\ncontent-length: {}\r\n\r\n", bytes + 1));
    client.send(&"x".repeat(bytes));
    client
}

/// Asks until the server refuses for want of memory; returns its answer.
fn until_refused(server: &Server) -> Answer {
    let until = Instant::now() + PATIENCE;
    loop {
        let answer = Client::connect(server.address()).get("/page");
        if answer.status == 503 {
            return answer;
        }
        assert!(Instant::now() < until, "{:?}", server.numbers());
    }
}

#[test]
fn bodies_that_do_not_end_take_no_more_than_the_budget_and_give_it_back() {
    let server = server(limits());
    let clients: Vec<Client> = (0..5).map(|_| unfinished(&server, MIB - 1)).collect();
    let until = Instant::now() + PATIENCE;
    while server.numbers().status_5xx == 0 {
        assert!(Instant::now() < until, "one of them is refused: {:?}", server.numbers());
        std::thread::yield_now();
    }
    drop(clients);
    until_open(&server, 0);
    let mut whole = unfinished(&server, MIB - 1);
    whole.send("x");
    assert_eq!(whole.answer(false).body, MIB.to_string());
}

/// What one connection sends leaves room for what others send.
#[test]
fn one_connection_may_have_a_quarter_of_the_budget_for_bodies() {
    let server = server(Limits { max_buffered: 2 * MIB, ..limits() });
    let mut greedy = unfinished(&server, MIB - 1);
    let refused = greedy.answer(false);
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")), "{refused:?}");
    assert!(refused.body.contains("no memory for further requests"), "{refused:?}");
    let mut modest = unfinished(&server, MIB / 4);
    modest.send("x");
    assert_eq!(modest.answer(false).body, (MIB / 4 + 1).to_string());
}

#[test]
fn responses_that_nobody_takes_are_bounded_and_their_clients_cut_off() {
    let server = server(Limits { write_timeout: Duration::from_secs(6), ..limits() });
    let mut readers: Vec<Client> = Vec::new();
    for _ in 0..20 {
        let mut reader = Client::connect(server.address());
        reader.send(&"GET /big HTTP/1.1\r\nhost: t\r\n\r\n".repeat(4));
        readers.push(reader);
    }
    let refused = until_refused(&server);
    assert!(refused.body.contains("of bodies are kept, of 4 MiB"), "{refused:?}");
    let until = Instant::now() + PATIENCE;
    while Client::connect(server.address()).get("/page").status != 200 {
        assert!(Instant::now() < until, "they keep everybody out: {:?}", server.numbers());
    }
}

/// What waits for a worker when memory runs out does not bring more of it.
#[test]
fn requests_in_line_when_memory_runs_out_are_not_begun() {
    let calls = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = Arc::clone(&calls);
    let (hold, entered, release) = held("held");
    let server = Fake::default()
        .blocking("/hold", hold)
        .blocking("/big", move |_| {
            count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            ok(vec![b'x'; 2 * MIB])
        })
        .start(Limits { max_workers: NonZeroUsize::new(1), ..limits() });
    let mut first = Client::connect(server.address());
    first.send("GET /hold HTTP/1.1\r\nhost: t\r\n\r\n");
    entered.recv_timeout(PATIENCE).unwrap();
    let mut readers: Vec<Client> = (0..50).map(|_| Client::connect(server.address())).collect();
    // Receive buffers of the system are bounded so that they do not take the responses.
    for reader in &mut readers {
        socket2::SockRef::from(reader.stream.get_ref()).set_recv_buffer_size(4096).unwrap();
        reader.send("GET /big HTTP/1.1\r\nhost: t\r\n\r\n");
    }
    let until = Instant::now() + PATIENCE;
    while server.numbers().workers.queued < 50 {
        assert!(Instant::now() < until, "{:?}", server.numbers());
        std::thread::yield_now();
    }
    release.send(()).unwrap();
    assert_eq!(first.answer(false).body, "held");
    while server.numbers().workers.queued + server.numbers().workers.busy > 0 {
        assert!(Instant::now() < until, "{:?}", server.numbers());
        std::thread::yield_now();
    }
    let run = calls.load(std::sync::atomic::Ordering::Relaxed);
    assert!((2..10).contains(&run), "{run} responses of 2 MiB were made, where 4 MiB may be kept");
}

/// A byte now and then is no progress, nor is the answer to a ping.
#[test]
fn an_http2_client_that_takes_a_response_byte_by_byte_is_cut_off() {
    let server = Fake::default()
        .inline("/fake", |_| ok(vec![b'x'; 4 * MIB]))
        .start(Limits { write_timeout: Duration::from_millis(400), ..one_thread() });
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&http2_get()).unwrap();
    let until = Instant::now() + PATIENCE;
    let mut answers = vec![0; MIB];
    for round in 0.. {
        // It has taken what fits in the windows that a client begins with, and asks for fewer than 96 bytes more.
        if round < 90 {
            for number in [0_u32, 1] {
                let mut update = vec![0, 0, 4, 8, 0];
                update.extend(number.to_be_bytes());
                update.extend(1_u32.to_be_bytes());
                let _ = stream.write_all(&update);
            }
        }
        let is_open = stream.write_all(b"\0\0\x08\x06\0\0\0\0\0pingping").is_ok();
        if !is_open || !matches!(stream.read(&mut answers), Ok(1..)) {
            break;
        }
        assert!(Instant::now() < until, "{:?}", server.numbers());
    }
    until_open(&server, 0);
}
