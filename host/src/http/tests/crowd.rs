//! As many connections as may be, and more.

use super::*;

fn server(development: bool) -> Server {
    let limits = Limits { max_connections: NonZeroUsize::new(2), development, ..one_thread() };
    Fake::default().inline("/page", |_| ok("page")).start(limits)
}

/// Whoever comes beyond the limit is told so and let go; the others are served on, and there is room again.
#[test]
fn connections_beyond_the_limit_get_a_503_that_says_so() {
    let server = server(true);
    let mut clients = [Client::connect(server.address()), Client::connect(server.address())];
    clients.iter_mut().for_each(|client| assert_eq!(client.get("/page").body, "page"));
    let mut third = Client::connect(server.address());
    let refused = third.get("/page");
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")), "{refused:?}");
    assert_eq!(refused.header("connection"), Some("close"));
    assert!(refused.body.contains("as many connections as it may have"), "{refused:?}");
    assert!(refused.body.contains("max_connections is 2"), "{refused:?}");
    assert_eq!(third.rest(), "");
    let [first, mut second] = clients;
    assert_eq!(second.get("/page").body, "page");
    drop((first, third));
    until_open(&server, 1);
    assert_eq!(Client::connect(server.address()).get("/page").status, 200);
}

/// Beyond those that are told, clients are not let in before others have left.
#[test]
fn clients_beyond_those_that_are_told_wait_for_room() {
    let server = server(false);
    let mut inside: Vec<Client> = (0..10).map(|_| Client::connect(server.address())).collect();
    until_open(&server, 10);
    let mut waiting = Client::connect(server.address());
    waiting.send("GET /page HTTP/1.1\r\nhost: test\r\n\r\n");
    // The one thread has looked around since.
    assert_eq!(inside[0].get("/page").status, 200);
    assert_eq!(server.numbers().connections, 10);
    drop(inside);
    // Told or served, as others have left by then.
    let status = waiting.answer(false).status;
    assert!(matches!(status, 200 | 503), "{status}");
}
