//! As many connections as may be, and more.

use super::*;

fn limits() -> Limits {
    Limits { max_connections: NonZeroUsize::new(2), ..one_thread() }
}

fn server(limits: Limits) -> Server {
    Fake::default()
        .inline("/page", |_| ok("page"))
        .with("/post", Method::POST, true, |_| ok("post"))
        .start(limits)
}

/// A client that is in the middle of a request.
fn busy(server: &Server) -> Client {
    let mut client = Client::connect(server.address());
    client.send("POST /post HTTP/1.1\r\nhost: t\r\ncontent-length: 2\r\n\r\n1");
    client
}

fn until_busy(server: &Server, requests: u64) {
    let until = Instant::now() + PATIENCE;
    while server.numbers().in_flight != requests {
        assert!(Instant::now() < until, "{:?}", server.numbers());
        std::thread::yield_now();
    }
}

/// Whoever comes beyond the limit is told so and let go; the others are served on, and there is room again.
#[test]
fn connections_beyond_the_limit_get_a_503_that_says_so() {
    let server = server(Limits { development: true, ..limits() });
    let [first, mut second] = [busy(&server), busy(&server)];
    until_busy(&server, 2);
    let mut third = Client::connect(server.address());
    let refused = third.get("/page");
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")), "{refused:?}");
    assert_eq!(refused.header("connection"), Some("close"));
    assert!(refused.body.contains("as many connections as it may have"), "{refused:?}");
    assert!(refused.body.contains("max_connections is 2"), "{refused:?}");
    assert_eq!(third.rest(), "");
    second.send("2");
    assert_eq!(second.answer(false).body, "post");
    drop((first, third));
    until_open(&server, 1);
    assert_eq!(Client::connect(server.address()).get("/page").status, 200);
}

/// Clients that connect and say nothing, or rest between requests, lock nobody out.
#[test]
fn connections_without_a_request_make_room_for_others() {
    let server = server(limits());
    let mut working = busy(&server);
    until_busy(&server, 1);
    let mut silent: Vec<Client> = Vec::new();
    for _ in 0..20 {
        let mut client = Client::connect(server.address());
        assert_eq!(client.get("/page").body, "page", "{:?}", server.numbers());
        silent.push(client);
        silent.push(Client::connect(server.address()));
    }
    let mut last = Client::connect(server.address());
    assert_eq!(last.get("/page").body, "page");
    assert_eq!(silent[0].rest(), "", "the one that has rested for longest was closed");
    working.send("2");
    assert_eq!(working.answer(false).body, "post");
}

/// Beyond those that are told, clients are not let in before others have left.
#[test]
fn clients_beyond_those_that_are_told_wait_for_room() {
    let server = server(limits());
    let mut inside = vec![busy(&server), busy(&server)];
    until_busy(&server, 2);
    for _ in 0..8 {
        let mut told = Client::connect(server.address());
        assert_eq!(told.get("/page").status, 503);
        inside.push(told);
    }
    let mut waiting = Client::connect(server.address());
    waiting.send("GET /page HTTP/1.1\r\nhost: test\r\n\r\n");
    drop(inside);
    // Told or served, as others have left by then.
    let status = waiting.answer(false).status;
    assert!(matches!(status, 200 | 503), "{status}");
}

/// One address cannot take what is meant for all.
#[test]
fn an_address_has_as_many_connections_as_it_may() {
    let server = server(Limits { max_connections_per_address: NonZeroUsize::new(1), ..limits() });
    let mut first = Client::connect(server.address());
    assert_eq!(first.get("/page").body, "page");
    let mut second = Client::connect(server.address());
    let refused = second.get("/page");
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")), "{refused:?}");
    assert!(refused.body.contains("your address has as many connections as it may have"), "{refused:?}");
    assert_eq!(first.get("/page").body, "page", "it keeps its own");
    drop((first, second));
    until_open(&server, 0);
    assert_eq!(Client::connect(server.address()).get("/page").body, "page");
}
