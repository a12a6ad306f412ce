//! An I/O thread that does not come back from an inline handler.

use super::*;

/// What was given to the thread that hangs is taken over by the one that gave it, also when that one has no
/// connection left and nothing else to look after.
#[test]
fn idle_thread_takes_over_what_it_gave_to_one_that_hangs() {
    let (hold, entered, release) = held("late");
    let server = Fake::default()
        .inline("/hang", hold)
        .inline("/well", |_| ok("in time"))
        .start(Limits { io_threads: NonZeroUsize::new(2), ..Limits::default() });
    let mut hung = Client::connect(server.address());
    hung.send("GET /hang HTTP/1.1\r\nhost: t\r\n\r\n");
    entered.recv_timeout(PATIENCE).unwrap();

    // The other thread takes two itself, and so gives the third to the one that hangs.
    let others: Vec<Client> = (0..2)
        .map(|_| {
            let mut client = Client::connect(server.address());
            assert_eq!(client.get("/well").body, "in time");
            client
        })
        .collect();
    let mut given = Client::connect(server.address());
    until_open(&server, 4);
    drop(others);
    until_open(&server, 2);
    assert_eq!(given.get("/well").body, "in time");

    release.send(()).unwrap();
    assert_eq!(hung.answer(false).body, "late");
}
