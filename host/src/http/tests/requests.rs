//! Requests that are well-formed, and how each can end.

use std::net::SocketAddr;
use std::sync::mpsc;
use std::time::Duration;

use parking_lot::Mutex;

use super::*;

const JSON: &str = "accept: application/json\r\n";
const HTML: &str = "accept: text/html\r\n";

#[test]
fn inline_and_blocking_run_on_threads_of_their_kind() {
    let name = |_: &Incoming| ok(std::thread::current().name().unwrap().to_owned());
    let server = Fake::default().inline("/inline", name).blocking("/blocking", name).start(Limits::default());
    let mut client = Client::connect(server.address());

    let inline = client.get("/inline");
    assert!(inline.body.starts_with("io-"), "{inline:?}");
    let blocking = client.get("/blocking");
    assert!(blocking.body.starts_with("worker-"), "{blocking:?}");
    // Production tells nobody who answered.
    assert_eq!((blocking.status, blocking.header("x-plugin")), (200, None));
}

#[test]
fn handler_sees_the_request_as_sent() {
    let server = Fake::default()
        .with("/echo", Method::POST, false, |request| {
            assert!(request.deadline.is_some());
            let kind = request.headers["content-type"].to_str().unwrap();
            let body = std::str::from_utf8(&request.body).unwrap();
            let client: SocketAddr = request.remote.parse().unwrap();
            ok(format!("{} {} {kind} {body} {}", request.method, request.uri, client.ip()))
        })
        .start(Limits::default());
    let mut client = Client::connect(server.address());

    client.send(
        "POST /echo?a=1 HTTP/1.1\r\nhost: t\r\ncontent-type: x/y\r\ntransfer-encoding: chunked\r\n\r\n",
    );
    client.send("3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n");
    assert_eq!(client.answer(false).body, "POST /echo?a=1 x/y abcdefg 127.0.0.1");
}

#[test]
fn head_is_get_without_a_body() {
    let server = Fake::default().inline("/page", |_| ok("twelve bytes")).start(Limits::default());
    let mut client = Client::connect(server.address());

    let head = client.request("HEAD", "/page", "");
    assert_eq!((head.status, head.header("content-length")), (200, Some("12")));
    // The next answer starts where the head ended.
    assert_eq!(client.get("/page").body, "twelve bytes");
    assert_eq!(client.request("HEAD", "/nowhere", "").status, 404);
}

#[test]
fn unknown_paths_and_methods_are_told_apart() {
    let server = Fake::default().inline("/page", |_| ok("")).start(Limits::default());
    let mut client = Client::connect(server.address());

    let missing = client.get("/nowhere");
    assert_eq!(missing.status, 404);
    assert!(missing.body.starts_with("404: nothing answers GET /nowhere [request "), "{}", missing.body);
    let wrong = client.request("DELETE", "/page", "");
    assert_eq!((wrong.status, wrong.header("allow")), (405, Some("GET, HEAD, OPTIONS")));
    assert!(wrong.body.starts_with("405: /page does not answer DELETE"), "{}", wrong.body);
    let options = client.request("OPTIONS", "/page", "");
    assert_eq!((options.status, options.header("allow")), (204, Some("GET, HEAD, OPTIONS")));
    assert_eq!(client.request("OPTIONS", "*", "").status, 204);
    let index = client.get("/");
    assert_eq!((index.status, &*index.body), (200, "<ul></ul>"));
}

#[test]
fn failures_are_500_with_the_reason_in_development_only() {
    for limits in [Limits::default(), development()] {
        let is_development = limits.development;
        let server = Fake::default()
            .inline("/fail", |_| Reply::Failed { message: "no <table> entry".to_owned() })
            .blocking("/panic", |_| Reply::Panicked { message: "index 3 of 2".to_owned() })
            .start(limits);
        let mut client = Client::connect(server.address());

        let failed = client.request("GET", "/fail", &format!("{HTML}x-request-id: abc.1\r\n"));
        assert_eq!((failed.status, failed.header("x-request-id")), (500, Some("abc.1")));
        assert!(failed.body.contains("abc.1"));
        assert_eq!(failed.body.contains("no &lt;table&gt; entry"), is_development);
        let panicked = client.request("GET", "/panic", JSON);
        let json: serde_json::Value = serde_json::from_str(&panicked.body).unwrap();
        assert_eq!(panicked.status, 500);
        assert_eq!(json["request_id"], panicked.header("x-request-id").unwrap());
        assert_eq!(json["error"], "the handler panicked; the log has the reason");
        assert_eq!(json["reason"] == "index 3 of 2", is_development);
        assert_eq!(server.numbers().status_5xx, 2);
    }
}

#[test]
fn panic_of_the_host_fails_that_request_alone() {
    let server = Fake::default()
        .inline("/inline", |_| panic!("broken host"))
        .blocking("/blocking", |_| panic!("broken host"))
        .inline("/well", |_| ok("well"))
        .start(Limits { max_workers: NonZeroUsize::new(1), ..Limits::default() });
    let mut client = Client::connect(server.address());

    for path in ["/inline", "/blocking", "/broken", "/inline", "/blocking"] {
        assert_eq!(client.get(path).status, 500);
    }
    assert_eq!(client.get("/well").body, "well");
    assert_eq!(server.numbers().workers.threads, 1);
}

#[test]
fn development_says_who_answered_and_what_was_refused() {
    let fake = Fake { refused: Some("error[E0308]:\n  na\u{ef}ve types"), ..Fake::default() };
    let server = fake.inline("/page", |_| ok("")).start(development());
    let page = Client::connect(server.address()).get("/page");

    assert_eq!(page.header("x-plugin"), Some("fake"));
    assert_eq!(page.header("x-plugin-generation"), Some("7"));
    assert_eq!(page.header("x-reload-failed"), Some("error[E0308]: na?ve types"));
}

#[test]
fn plugin_without_working_code_is_503_with_its_reason() {
    for (building, words) in [(true, "is being built"), (false, "has no working code")] {
        let server = Fake { unavailable: Some(building), ..Fake::default() }.start(development());
        let page = Client::connect(server.address()).request("GET", "/fake", HTML);

        assert_eq!((page.status, page.header("retry-after")), (503, Some("1")));
        assert!(page.body.contains(words) && page.body.contains("E0308"), "{}", page.body);
    }
}

#[test]
fn request_ids_are_kept_when_decent_and_unique_when_made() {
    let server = Fake::default().inline("/id", |request| ok(request.id.to_string())).start(Limits::default());
    let mut client = Client::connect(server.address());
    let mut id = |header: &str| {
        let answer = client.request("GET", "/id", header);
        assert_eq!(answer.header("x-request-id"), Some(&*answer.body));
        answer.body
    };

    assert_eq!(id("x-request-id: A-b_c.9\r\n"), "A-b_c.9");
    let made = [id(""), id("x-request-id: a b\r\n"), id(&format!("x-request-id: {}\r\n", "x".repeat(65)))];
    assert!(made[0] != made[1] && made[1] != made[2] && !made[2].starts_with("xx"), "{made:?}");
}

#[test]
fn body_over_the_limit_is_413_however_it_is_sent() {
    let server = Fake::default()
        .with("/post", Method::POST, true, |request| ok(request.body.len().to_string()))
        .start(Limits { max_body: 1024, ..Limits::default() });

    let mut client = Client::connect(server.address());
    let body = "x".repeat(1024);
    client.send(&format!("POST /post HTTP/1.1\r\nhost: t\r\ncontent-length: 1024\r\n\r\n{body}"));
    assert_eq!(client.answer(false).body, "1024");
    client.send("POST /post HTTP/1.1\r\nhost: t\r\ncontent-length: 1025\r\n\r\n");
    let announced = client.answer(false);
    assert_eq!(announced.status, 413);
    assert!(announced.body.contains("the limit of 1 KiB; send less or raise max_body"), "{}", announced.body);

    // Far more than the socket's buffers hold, sent to the end before the answer is read.
    let mut client = Client::connect(server.address());
    client.send("POST /post HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n");
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    (0..64).for_each(|_| client.send(&chunk));
    client.send("0\r\n\r\n");
    let streamed = client.answer(false);
    assert_eq!((streamed.status, streamed.header("connection")), (413, Some("close")));
}

#[test]
fn body_that_does_not_come_is_408() {
    let server = Fake::default()
        .with("/post", Method::POST, true, |_| ok(""))
        .start(Limits { body_timeout: Duration::from_millis(30), ..Limits::default() });
    let mut client = Client::connect(server.address());

    client.send("POST /post HTTP/1.1\r\nhost: t\r\ncontent-length: 10\r\n\r\nhalf");
    let late = client.answer(false);
    assert_eq!((late.status, late.header("connection")), (408, Some("close")));
    assert!(late.body.contains("the body did not arrive within 30ms"), "{}", late.body);
}

#[test]
fn handler_past_its_deadline_is_504_and_the_connection_goes_on() {
    let (release, released) = mpsc::channel::<()>();
    let (finish, finished) = mpsc::channel();
    let (released, finish) = (Mutex::new(released), Mutex::new(finish));
    let server = Fake::default()
        .blocking("/slow", move |_| {
            released.lock().recv().unwrap();
            finish.lock().send(()).unwrap();
            ok("too late")
        })
        .inline("/well", |_| ok("well"))
        .start(Limits { handler_timeout: Duration::from_millis(30), ..Limits::default() });
    let mut client = Client::connect(server.address());

    assert_eq!(client.request("GET", "/slow", JSON).status, 504);
    assert_eq!(client.get("/well").body, "well");
    assert_eq!(server.numbers().workers.late, 1);
    release.send(()).unwrap();
    finished.recv_timeout(PATIENCE).expect("the worker finishes on its own");
}

#[test]
fn full_queue_is_503_at_once() {
    let (hold, entered, release) = held("done");
    let server = Fake::default().blocking("/slow", hold).start(Limits {
        max_workers: NonZeroUsize::new(1),
        queue: 0,
        ..Limits::default()
    });
    let mut first = Client::connect(server.address());
    first.send("GET /slow HTTP/1.1\r\nhost: t\r\n\r\n");
    entered.recv_timeout(PATIENCE).unwrap();

    let refused = Client::connect(server.address()).get("/slow");
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    assert_eq!((server.numbers().workers.busy, server.numbers().workers.refused), (1, 1));
    release.send(()).unwrap();
    assert_eq!(first.answer(false).body, "done");
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let path = |request: &Incoming| ok(request.uri.to_string());
    let server = Fake::default().inline("/a", path).blocking("/b", path).start(Limits::default());
    let mut client = Client::connect(server.address());

    let burst: String =
        (0..50).map(|n| format!("GET /{}?{n} HTTP/1.1\r\nhost: t\r\n\r\n", ["a", "b"][n % 2])).collect();
    client.send(&burst);
    for n in 0..50 {
        assert_eq!(client.answer(false).body, format!("/{}?{n}", ["a", "b"][n % 2]));
    }
    assert_eq!((server.numbers().requests, server.numbers().connections), (50, 1));
}

#[test]
fn handler_cannot_break_the_framing() {
    let server = Fake::default()
        .inline("/bad", |_| {
            let builder = Response::builder().header("content-length", "99").header("connection", "close");
            Reply::Response(builder.header("transfer-encoding", "chunked").body(Bytes::from("abc")).unwrap())
        })
        .inline("/early", |_| Reply::Response(Response::builder().status(103).body(Bytes::new()).unwrap()))
        .start(Limits::default());
    let mut client = Client::connect(server.address());

    let bad = client.get("/bad");
    assert_eq!((&*bad.body, bad.header("connection"), bad.header("transfer-encoding")), ("abc", None, None));
    assert_eq!(client.get("/early").status, 500);
    assert_eq!(client.get("/bad").body, "abc");
}

#[test]
fn half_closed_client_gets_its_answer() {
    let server = Fake::default().blocking("/page", |_| ok("still there")).start(Limits::default());
    let mut client = Client::connect(server.address());
    client.send("GET /page HTTP/1.1\r\nhost: t\r\n\r\n");
    client.stream.get_ref().shutdown(std::net::Shutdown::Write).unwrap();

    assert!(client.rest().ends_with("still there"));
}

/// HTTP/2 lets a client forbid every byte of a response; the connection has to end nevertheless.
#[test]
fn http2_client_that_takes_nothing_is_given_up() {
    let limits = Limits { write_timeout: std::time::Duration::from_millis(30), ..one_thread() };
    let server = Fake::default().inline("/fake", |_| ok("over two")).start(limits);
    let mut stream = Client::connect(server.address()).stream.into_inner();
    let get = http2_get();
    let (preface, headers) = (&get[..24], &get[33..]);
    // Its settings say: a window of no bytes.
    let settings = b"\0\0\x06\x04\0\0\0\0\0\0\x04\0\0\0\0";
    stream.write_all(&[preface, settings, headers].concat()).unwrap();

    let mut bytes = Vec::new();
    let ended = stream.read_to_end(&mut bytes);
    let has_ended = |error: &std::io::Error| error.kind() == std::io::ErrorKind::ConnectionReset;
    assert!(ended.is_ok() || ended.as_ref().is_err_and(has_ended), "{ended:?}");
    assert!(!bytes.windows(8).any(|part| part == b"over two"));
    assert_eq!(server.numbers().requests, 1);
}

#[test]
fn http2_with_prior_knowledge_is_answered() {
    let server = Fake::default().inline("/fake", |_| ok("over two")).start(Limits::default());
    let mut stream = Client::connect(server.address()).stream.into_inner();
    stream.write_all(&http2_get()).unwrap();

    loop {
        let (kind, payload) = read_frame(&mut stream);
        assert_ne!(kind, GOAWAY, "{payload:?}");
        if kind == DATA {
            assert_eq!(payload, b"over two");
            return;
        }
    }
}

/// A reply that is sent when the sender says so, or is replaced by what it says.
fn gated(body: &'static str) -> (tokio::sync::oneshot::Sender<Result<(), Reply>>, Reply) {
    let (open, gate) = tokio::sync::oneshot::channel();
    let gate = Gate::new(async move {
        match gate.await {
            Ok(outcome) => outcome,
            Err(_) => Err(failed("lost")),
        }
    });
    (open, Reply::Gated { reply: Box::new(ok(body)), gate })
}

fn failed(message: &str) -> Reply {
    Reply::Unavailable { message: message.to_owned() }
}

/// The only worker goes on to the next request while a response waits.
#[test]
fn gated_response_waits_without_a_worker() {
    let (gates, opened) = mpsc::channel();
    let handler = move |_: &Incoming| {
        let (open, reply) = gated("done");
        gates.send(open).unwrap();
        reply
    };
    let limits = Limits { max_workers: NonZeroUsize::new(1), ..one_thread() };
    let server = Fake::default().blocking("/write", handler).blocking("/read", |_| ok("read")).start(limits);
    let mut writers: Vec<Client> = (0..3).map(|_| Client::connect(server.address())).collect();
    for writer in &mut writers {
        writer.send("GET /write HTTP/1.1\r\nhost: test\r\n\r\n");
    }
    let gates: Vec<_> = (0..3).map(|_| opened.recv_timeout(PATIENCE).unwrap()).collect();
    assert_eq!(Client::connect(server.address()).get("/read").body, "read");
    // Told in any order: each response goes to its own client.
    for (index, open) in gates.into_iter().enumerate().rev() {
        open.send(if index == 1 { Err(failed("the disk is full")) } else { Ok(()) }).unwrap();
    }
    let mut statuses: Vec<u16> = writers.iter_mut().map(|writer| writer.answer(false).status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 503]);
}

#[test]
fn gate_that_stays_shut_is_a_504_at_the_deadline() {
    let (gates, opened) = mpsc::channel();
    let handler = move |_: &Incoming| {
        let (open, reply) = gated("never");
        gates.send(open).unwrap();
        reply
    };
    let limits = Limits { handler_timeout: Duration::from_millis(20), ..one_thread() };
    let again = handler.clone();
    let server = Fake::default().blocking("/worker", handler).inline("/inline", again).start(limits);
    for path in ["/worker", "/inline"] {
        let answer = Client::connect(server.address()).get(path);
        assert_eq!(answer.status, 504, "{path}: {answer:?}");
        drop(opened.recv_timeout(PATIENCE).unwrap());
    }
}

/// A client that asks again as soon as it is answered keeps one worker busy and has no second one started.
#[test]
fn closed_loop_uses_one_worker() {
    let server = Fake::default().blocking("/page", |_| ok("page")).start(one_thread());
    let mut client = Client::connect(server.address());
    for _ in 0..2_000 {
        assert_eq!(client.get("/page").status, 200);
    }
    assert_eq!(server.numbers().workers.threads, 1);
}

/// What a handler answers with is an answer, or it is a failure of the handler.
#[test]
fn statuses_that_are_no_answers_are_500() {
    let server = Fake::default()
        .inline("/status", |request| {
            let status: u16 = request.uri.query().unwrap().parse().unwrap();
            Reply::Response(Response::builder().status(status).body(Bytes::from_static(b"body")).unwrap())
        })
        .start(Limits::default());
    let mut client = Client::connect(server.address());
    for (status, answered, body) in [
        (100, 500, None),
        (101, 500, None),
        (600, 500, None),
        (999, 500, None),
        (205, 205, Some("")),
        (599, 599, Some("body")),
    ] {
        let answer = client.get(&format!("/status?{status}"));
        assert_eq!(answer.status, answered, "{status}");
        assert!(body.is_none_or(|body| answer.body == body), "{status}: {answer:?}");
    }
}

/// `/` is a page like any other: it is read, and nothing else.
#[test]
fn the_index_answers_get_and_head_only() {
    let server = Fake::default().start(Limits::default());
    let mut client = Client::connect(server.address());
    assert_eq!(client.get("/").status, 200);
    assert_eq!(client.request("HEAD", "/", "").status, 200);
    let options = client.request("OPTIONS", "/", "");
    assert_eq!((options.status, options.header("allow")), (204, Some("GET, HEAD, OPTIONS")));
    for method in ["POST", "DELETE", "PUT", "BREW"] {
        let refused = client.request(method, "/", "");
        assert_eq!((refused.status, refused.header("allow")), (405, Some("GET, HEAD, OPTIONS")), "{method}");
    }
}

/// Over HTTP/2 a handler finds the host where it always is.
#[test]
fn http2_handlers_get_a_host() {
    let server = Fake::default()
        .inline("/fake", |request| {
            ok(request.headers.get("host").map_or("none", |host| host.to_str().unwrap()).to_owned())
        })
        .start(Limits::default());
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&http2_get()).unwrap();
    loop {
        if let (DATA, body) = read_frame(&mut stream) {
            assert_eq!(body, b"t");
            return;
        }
    }
}
