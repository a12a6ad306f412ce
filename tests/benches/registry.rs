//! What warm look-ups in the registry cost a plugin, as ratios to peers in the same run.
//!
//! ```sh
//! cargo build --release -p host -p tests --bins --example registry_bench && cargo bench -p tests --bench registry
//! ```
//!
//! An argument such as `data` chooses a look-up. The loops are in the fixture `registry_bench`, a plugin loaded by the
//! real host; its threads are spread over the processors. Rounds are short and in pairs (`tests::pairs`). Prints
//! figures and judges nothing: machines differ. Aimed at: `lazy` at most 1.5, the others at most 1.

use std::time::Duration;

use tests::host::Launch;
use tests::http::Client;
use tests::pairs::Pairs;

/// Pairs of rounds of each case.
const PAIRS: usize = 60;
/// How many threads look up at once.
const THREADS: [usize; 3] = [1, 2, 8];
/// What is measured, as the fixture calls it, and beside which peer.
const LOOK_UPS: [(&str, &str); 4] = [
    ("lazy", "`Lazy::get` of a handle / `once_cell::sync::OnceCell::get`"),
    ("lazy_data", "`Lazy::get` of data, counted / `dashmap` get and clone of an `Arc`"),
    ("handle", "`get_or_init` of a handle / `dashmap` get and clone of an `Arc`"),
    ("data", "`get_or_init` of data / `dashmap` get and clone of an `Arc`"),
];

fn main() {
    let launch = Launch::new();
    launch.plugins().install("bench", "registry_bench");
    let config = launch.scratch().join("host.toml");
    std::fs::write(&config, "[limits]\nhandler_timeout_ms = 600000\n").expect("the directory is writable");
    let host = launch.arg("--config").arg(&config).start();
    let mut client = Client::new(host.listen()).deadline(Duration::from_secs(600));
    let chosen: Vec<String> = std::env::args().skip(1).filter(|name| !name.starts_with('-')).collect();
    println!("warm look-ups: ours, the peer's, and the ratio with its quartiles, of {PAIRS} pairs of rounds");
    for (what, words) in LOOK_UPS {
        if !chosen.is_empty() && !chosen.iter().any(|name| name == what) {
            continue;
        }
        println!("{what}: {words}");
        for threads in THREADS {
            let pairs = measure(&mut client, what, threads);
            for (clock, figures) in [("CPU ", pairs.cpu()), ("wall", pairs.wall())] {
                let (ours, theirs) = (figures.ours, figures.theirs);
                println!("  {threads} threads, {clock}: {ours:>6.2} ns, {theirs:>6.2} ns, {}", figures.ratio);
            }
        }
    }
}

fn measure(client: &mut Client, what: &str, threads: usize) -> Pairs {
    let response = client.get(&format!("/bench/{what}/{threads}/{PAIRS}")).expect("an answer");
    assert_eq!(response.status, 200, "{}", response.text());
    let mut pairs = Pairs::default();
    pairs.read(&response.text());
    pairs
}
