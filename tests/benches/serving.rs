//! Requests of a plugin against bare hyper: what a request costs the server, in CPU time and as a ratio.
//!
//! Needs `wrk`, and the release build of the host and of the fixture: `cargo build --release -p host --bins &&
//! cargo build --release -p tests --example version_a && cargo bench -p tests --bench serving`. Host and peer have
//! one I/O thread each and are asked in turns, by `wrk -t1 -c64`. Prints figures and judges nothing.

use std::convert::Infallible;
use std::env;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tests::host::Launch;
use tests::pairs::Quartiles;

const ROUNDS: usize = 7;
/// How long each is asked in a round, in seconds.
const SECONDS: u64 = 3;
/// What makes this program the peer.
const PEER: &str = "--peer";

fn main() {
    if env::args().any(|arg| arg == PEER) {
        return peer();
    }
    let launch = Launch::new();
    launch.plugins().install("shop", "version_a");
    let file = launch.scratch().join("host.toml");
    fs::write(&file, "[host]\nproduction = true\n[limits]\nio_threads = 1\n")
        .expect("the directory is writable");
    let host = launch.arg("--config").arg(&file).start();
    let (mut child, address) = start_peer();
    let asked = [
        ("hyper", child.id(), format!("http://{address}/")),
        ("inline", host.pid(), format!("http://{}/shop/ping", host.listen())),
        ("blocking", host.pid(), format!("http://{}/shop/only-a", host.listen())),
    ];
    // Caches, and threads that start on demand.
    for (_, pid, url) in &asked {
        ask(*pid, url);
    }
    let mut rounds: Vec<Vec<Cost>> = Vec::new();
    for _ in 0..ROUNDS {
        rounds.push(asked.iter().map(|(_, pid, url)| ask(*pid, url)).collect());
    }
    // Its end is the end of this program's interest in it.
    let _ = child.kill();
    let _ = child.wait();
    println!("median of {ROUNDS} rounds:   requests/s   CPU us/request   CPU to hyper");
    for (at, (name, ..)) in asked.iter().enumerate() {
        let median = |of: fn(&[Cost], usize) -> f64| {
            Quartiles::of(rounds.iter().map(|round| of(round, at)).collect()).median
        };
        let rate = median(|round, at| round[at].rate);
        let cpu = median(|round, at| round[at].cpu_us);
        let ratio = median(|round, at| round[at].cpu_us / round[0].cpu_us);
        println!("  {name:<18} {rate:>12.0} {cpu:>16.2} {ratio:>14.2}");
    }
}

/// What one round came to.
struct Cost {
    /// Requests answered per second.
    rate: f64,
    /// CPU time of the server for each, in microseconds.
    cpu_us: f64,
}

/// Asks for `url`, which process `pid` serves.
fn ask(pid: u32, url: &str) -> Cost {
    let before = cpu_seconds(pid);
    let run = Command::new("wrk").args(["-t1", "-c64", &format!("-d{SECONDS}s"), url]).output();
    let said = run.expect("wrk is installed (`apt-get install wrk`)").stdout;
    let used = cpu_seconds(pid) - before;
    let said = String::from_utf8_lossy(&said);
    assert!(!said.contains("Non-2xx"), "{url}: {said}");
    let number = |line: &str, word: usize| line.split_whitespace().nth(word)?.parse::<f64>().ok();
    let requests = said.lines().find(|line| line.contains("requests in")).and_then(|line| number(line, 0));
    let rate = said.lines().find_map(|line| line.strip_prefix("Requests/sec:")?.trim().parse().ok());
    let (Some(requests), Some(rate)) = (requests, rate) else { panic!("wrk said\n{said}") };
    Cost { rate, cpu_us: used * 1e6 / requests }
}

/// CPU time of a process, all its threads, in user mode and in the system.
fn cpu_seconds(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the server runs");
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let ticks = fields.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok());
    // The unit in which Linux shows it to programs, on all machines.
    ticks.sum::<f64>() / 100.0
}

fn start_peer() -> (Child, SocketAddr) {
    let program = env::current_exe().expect("a running program knows its file");
    let mut child = Command::new(program).arg(PEER).stdout(Stdio::piped()).spawn().expect("it starts again");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("it is piped"))
        .read_line(&mut line)
        .expect("it says its address");
    (child, line.trim().parse().expect("an address"))
}

/// hyper with nothing around it, on one thread.
fn peer() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        println!("{}", listener.local_addr().expect("it is bound"));
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            // Without it the last part of a response may wait for the client.
            let _ = stream.set_nodelay(true);
            tokio::spawn(async move {
                let service = service_fn(|_| async {
                    Ok::<_, Infallible>(hyper::Response::new(Full::new(Bytes::from_static(b"a"))))
                });
                // A client that leaves is no news.
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
}
