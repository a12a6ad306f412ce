//! A prepared SELECT of one row: through a plugin, against the `postgres` crate called directly.
//!
//! Both run in one handler of one host, on one thread, in pairs of short rounds (`tests::pairs`), each on a
//! connection that is as old as the other's. Whether the thread and the server's process share a processor changes
//! a statement's time by factors, and the system changes its mind about that from round to round. So they are put
//! on one processor, and on two; then where the system puts them, for comparison.
//!
//! With the release build of the host and of the fixture: `cargo build --release -p host -p tests --bins --example
//! select_probe && cargo bench -p tests --bench select`. Prints figures and judges nothing.

use tests::TestHost;
use tests::host::Launch;
use tests::pairs::Pairs;
use tests::postgres::Cluster;

/// Requests, each with connections of its own; pairs of rounds in each; statements in a round.
const REQUESTS: usize = 20;
const PAIRS: usize = 40;
const STATEMENTS: usize = 100;
/// As the fixture calls them.
const PLACES: [(&str, &str); 3] =
    [("one", "client and server on one processor"), ("two", "on two"), ("any", "anywhere")];

fn main() {
    let cluster = Cluster::shared();
    let database = cluster.create_database();
    let fill = "CREATE TABLE t (id int PRIMARY KEY, name text); \
                INSERT INTO t SELECT x, 'name ' || x FROM generate_series(0, 99) AS x; ANALYZE t";
    cluster.connect(&database).batch_execute(fill).expect("a fresh database takes a table");
    let launch = Launch::new();
    launch.plugins().install("select", "select_probe");
    let host = launch.env("DATABASE_URL", cluster.socket_url(&database)).start();
    println!(
        "prepared SELECT of one row: through a plugin, by the `postgres` crate, and the ratio with its quartiles, of {} \
         pairs of rounds of {STATEMENTS} statements",
        REQUESTS * PAIRS
    );
    for (place, name) in PLACES {
        let pairs = measure(&host, place);
        for (clock, figures) in [("wall clock", pairs.wall()), ("client's processor time", pairs.cpu())] {
            let (ours, theirs) = (figures.ours / 1000.0, figures.theirs / 1000.0);
            println!("  {name}, {clock}: {ours:.2} us, {theirs:.2} us, {}", figures.ratio);
        }
    }
}

fn measure(host: &TestHost, place: &str) -> Pairs {
    let mut pairs = Pairs::default();
    for _ in 0..REQUESTS {
        let response = host.get(&format!("/select/{place}/{PAIRS}/{STATEMENTS}"));
        assert_eq!(response.status, 200, "{}", response.text());
        pairs.read(&response.text());
    }
    pairs
}
