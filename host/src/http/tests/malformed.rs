//! Bytes that never become a request: each gets the right status and a sentence.

use std::time::Duration;

use super::*;

fn server() -> Server {
    Fake::default()
        .inline("/page", |_| ok("page"))
        .inline("/trap", |_| ok("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n"))
        .start(Limits { max_head: 8192, ..one_thread() })
}

/// Sends `bytes` on a fresh connection; the answer must be the last thing that comes.
fn rejected(server: &Server, bytes: &str) -> Answer {
    let mut client = Client::connect(server.address());
    client.send(bytes);
    let answer = client.answer(false);
    assert_eq!(answer.header("connection"), Some("close"));
    assert!(answer.header("x-request-id").is_some() && answer.header("date").is_some(), "{answer:?}");
    assert_eq!(client.rest(), "");
    answer
}

#[test]
fn garbage_is_400_with_a_sentence() {
    let server = server();
    let cases = [
        "garbage\r\n\r\n",
        "\u{16}\u{3}\u{1} hello\r\n\r\n",
        "GET /page HTTP/1.1\r\nbad header\r\n\r\n",
        "GET /page HTTP/9.9\r\nhost: t\r\n\r\n",
        "GET /page\r\n",
        "GET /page HTTP/1.1\r\nhost: t\r\ncontent-length: x\r\n\r\n",
    ];
    for case in cases {
        let answer = rejected(&server, case);
        assert_eq!(answer.status, 400, "{case:?}");
        assert!(
            answer.body.starts_with("400: this is not a well-formed HTTP/1.1 request; check"),
            "{answer:?}"
        );
    }
    let numbers = server.numbers();
    assert_eq!((numbers.malformed, numbers.status_4xx), (cases.len() as u64, cases.len() as u64));
}

#[test]
fn heads_over_the_limits_are_431_and_414() {
    let server = server();
    let many: String = (0..200).map(|n| format!("x-{n}: y\r\n")).collect();
    let answer = rejected(&server, &format!("GET /page HTTP/1.1\r\n{many}\r\n"));
    assert_eq!(answer.status, 431);
    assert!(answer.body.contains("more than 100 headers or 8 KiB"), "{answer:?}");

    // More than the server reads: the answer must survive what it leaves unread.
    let large = format!("GET /page HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(200_000));
    assert_eq!(rejected(&server, &large).status, 431);

    let roomy = Fake::default().start(Limits { max_head: 512 * 1024, ..one_thread() });
    let long = format!("GET /{} HTTP/1.1\r\nhost: t\r\n\r\n", "y".repeat(100_000));
    assert_eq!(rejected(&roomy, &long).status, 414);
}

#[test]
fn a_body_longer_than_can_be_counted_is_400() {
    let server = server();
    for length in [u64::MAX.to_string(), format!("{}", u128::from(u64::MAX) + 1), "9".repeat(60)] {
        let answer =
            rejected(&server, &format!("POST /page HTTP/1.1\r\nhost: t\r\ncontent-length: {length}\r\n\r\n"));
        assert_eq!(answer.status, 400, "{length}: {answer:?}");
        assert!(!answer.body.contains("100 headers"), "{answer:?}");
    }
}

/// Which host a request is for is clear, or it is refused; HTTP/1.0 has no Host.
#[test]
fn requests_without_one_clear_host_are_400() {
    let server = server();
    for heads in ["", "host: a\r\nhost: a\r\n", "host: a b\r\n", "host: a/b\r\n"] {
        let mut client = Client::connect(server.address());
        client.send(&format!("GET /page HTTP/1.1\r\n{heads}\r\n"));
        let answer = client.answer(false);
        assert_eq!(
            (answer.status, answer.header("connection")),
            (400, Some("close")),
            "{heads:?}: {answer:?}"
        );
        assert!(answer.header("date").is_some());
    }
    let mut client = Client::connect(server.address());
    client.send("GET /page HTTP/1.0\r\n\r\n");
    assert_eq!(client.answer(false).body, "page");
}

#[test]
fn bodies_in_unknown_codings_are_501() {
    let server = server();
    for (codings, status) in [("gzip, chunked", 501), ("chunked, chunked", 400)] {
        let mut client = Client::connect(server.address());
        let head = format!("POST /page HTTP/1.1\r\nhost: t\r\ntransfer-encoding: {codings}\r\n\r\n0\r\n\r\n");
        client.send(&head);
        assert_eq!(client.answer(false).status, status, "{codings}");
    }
}

#[test]
fn garbage_after_a_good_request_is_answered_too() {
    let server = server();
    let mut client = Client::connect(server.address());
    assert_eq!(client.get("/page").body, "page");
    client.send("garbage\r\n\r\n");
    let answer = client.answer(false);
    assert_eq!(answer.status, 400);
    assert!(answer.body.contains("well-formed"), "{answer:?}");
}

#[test]
fn body_that_looks_like_an_error_passes_unchanged() {
    let server = server();
    let mut client = Client::connect(server.address());
    assert!(client.get("/trap").body.ends_with("content-length: 0\r\n\r\n"));
    assert_eq!(client.get("/page").body, "page");
}

#[test]
fn head_cut_short_is_400() {
    let server = server();
    let mut client = Client::connect(server.address());
    client.send("GET /page HTTP/1.1\r\nhos");
    client.stream.get_ref().shutdown(std::net::Shutdown::Write).unwrap();
    let answer = client.answer(false);
    assert_eq!(answer.status, 400);
    assert!(answer.body.contains("ended in the middle of its head"), "{answer:?}");
}

#[test]
fn head_that_does_not_come_is_408() {
    let limits = Limits { header_timeout: Duration::from_millis(30), ..one_thread() };
    let server = Fake::default().inline("/page", |_| ok("page")).start(limits);
    let mut client = Client::connect(server.address());
    assert_eq!(client.get("/page").body, "page");
    client.send("GET /page HTTP/1.1\r\nhos");
    let answer = client.answer(false);
    assert_eq!(answer.status, 408);
    assert!(answer.body.contains("did not arrive in time"), "{answer:?}");
    assert_eq!(client.rest(), "");

    // Whoever says nothing at all is not told anything.
    assert_eq!(Client::connect(server.address()).rest(), "");
}

#[test]
fn idle_connection_is_closed_without_a_word() {
    let limits = Limits { idle_timeout: Duration::from_millis(30), ..one_thread() };
    let server = Fake::default().inline("/page", |_| ok("page")).start(limits);
    let mut client = Client::connect(server.address());
    assert_eq!(client.get("/page").body, "page");
    assert_eq!(client.rest(), "");
}

#[test]
fn client_that_does_not_read_is_given_up() {
    let limits = Limits { write_timeout: Duration::from_millis(30), ..one_thread() };
    let server = Fake::default().inline("/big", |_| ok(vec![b'x'; 64 << 20])).start(limits);
    let mut client = Client::connect(server.address());
    client.send("GET /big HTTP/1.1\r\nhost: t\r\n\r\n");
    // Asleep as far as the server can tell: it must end before anything is read.
    while server.numbers().requests == 0 || server.numbers().connections > 0 {
        std::thread::yield_now();
    }
    let mut bytes = Vec::new();
    let _ = client.stream.read_to_end(&mut bytes);
    assert!(bytes.len() < 64 << 20);
}
