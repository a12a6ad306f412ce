//! What warm look-ups in the registry cost a plugin, as ratios to peers in the same run.
//!
//! `cargo build --release --workspace --bins --examples && cargo bench -p tests --bench registry`. The loops are in
//! the fixture `registry_bench`, a plugin loaded by the real host. Prints figures and judges nothing: machines
//! differ. Aimed at: `lazy` at most 1.5, the others at most 1.

use std::collections::BTreeMap;
use std::time::Duration;

use tests::host::Launch;
use tests::http::Client;

/// What is measured, and against which peer.
const PAIRS: [(&str, &str, &str); 4] = [
    ("lazy", "once_cell", "`Lazy::get` of a handle / `once_cell::sync::OnceCell::get`"),
    ("lazy_data", "dashmap", "`Lazy::get` of data, counted / `dashmap` get and clone of an `Arc`"),
    ("handle", "dashmap", "`get_or_init` of a handle / `dashmap` get and clone of an `Arc`"),
    ("data", "dashmap", "`get_or_init` of data / `dashmap` get and clone of an `Arc`"),
];

fn main() {
    let launch = Launch::new();
    launch.plugins().install("bench", "registry_bench");
    let config = launch.scratch().join("host.toml");
    std::fs::write(&config, "[limits]\nhandler_timeout_ms = 600000\n").expect("the directory is writable");
    let host = launch.arg("--config").arg(&config).start();
    let mut client = Client::new(host.listen()).deadline(Duration::from_secs(600));
    let response = client.get("/bench/measure").expect("an answer");
    assert_eq!(response.status, 200, "{}", response.text());
    let mut figures: BTreeMap<(String, String), f64> = BTreeMap::new();
    for line in response.text().lines() {
        let mut words = line.split(' ').map(str::to_owned);
        if let (Some(what), Some(threads), Some(ns)) = (words.next(), words.next(), words.next()) {
            figures.insert((what, threads), ns.parse().expect("a number"));
        }
    }
    for (ours, peer, words) in PAIRS {
        println!("{words}");
        for threads in ["1", "2", "8"] {
            let figure = |what: &str| figures[&(what.to_owned(), threads.to_owned())];
            let (ours, peer) = (figure(ours), figure(peer));
            println!("  {threads} threads: {:.2} ({ours:.1} ns / {peer:.1} ns)", ours / peer);
        }
    }
}
