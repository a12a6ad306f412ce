//! Facts about handlers that do not return in time: 504 to their clients, and no harm to anybody else.

use std::fs;
use std::io::Write as _;
use std::net::TcpStream;
use std::path::PathBuf;
use std::thread;

use tests::host::{Launch, TestHost};
use tests::http::{Client, Response};
use tests::load::Load;
use tests::wait::{SOON, eventually};

/// A host whose handlers have half a second and whose workers are few, and the path of a gate.
fn launch(arguments: &[&str]) -> (Launch, PathBuf) {
    let launch = Launch::new();
    let config = launch.scratch().join("host.toml");
    let text =
        "[limits]\nhandler_timeout_ms = 500\nmax_workers = 6\nmax_late = 3\nqueue = 16\nio_threads = 2\n";
    fs::write(&config, text).expect("the test's directory is writable");
    let gate = launch.scratch().join("gate");
    let launch = arguments.iter().fold(launch.arg("--config").arg(config), Launch::arg);
    (launch, gate)
}

/// How a hung plugin may answer: 504 for what it holds, 503 with a time for what it does not take.
fn is_turned_down(response: &Response) -> Result<String, String> {
    match (response.status, response.header("retry-after")) {
        (504, _) | (503, Some(_)) => Ok(response.status.to_string()),
        (status, _) => Err(format!("{status}: {}", response.text())),
    }
}

fn is_fine(response: &Response) -> Result<String, String> {
    match response.status {
        200 => Ok("200".to_owned()),
        status => Err(format!("{status}: {}", response.text())),
    }
}

fn degradations(host: &TestHost, plugin: &str) -> Vec<String> {
    let events = host.events(plugin);
    events.iter().filter(|event| event.kind() == "degraded").map(tests::host::Event::reason).collect()
}

/// 64 clients on a handler that hangs: another plugin answers all of its own, on the same workers. The hung
/// plugin loses only so many threads, says so, and recovers when its handlers return.
#[test]
fn hung_handlers_starve_no_other_plugin() {
    let (launch, gate) = launch(&[]);
    launch.plugins().install("hung", "handler_faults");
    launch.plugins().install("well", "version_a");
    let host = launch.start();
    let path = format!("/hung/slow?gate={}", gate.display());
    let hung = Load::start(host.listen(), 64, &path, is_turned_down);
    let well = Load::start(host.listen(), 4, "/well/", is_fine);
    let status = host.wait_for("hung", "to be closed", |status| status.degraded().contains("turned away"));
    // Three are too many, and up to three ran beside them.
    assert_eq!(status.state(), "serving", "{status}");
    assert!((3..=6).contains(&status.missed_deadlines()), "{status}");
    assert!(status.degraded().contains("handlers still run after their deadline"), "{status}");
    let told = degradations(&host, "hung");
    assert_eq!(told.len(), 2, "once at the first miss, once when the requests are turned away: {told:?}");
    let state = host.state_dir();
    let shown = host.cli(&["status", "--state", state.to_str().unwrap()]);
    let flat = shown.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(flat.contains("handlers still run after their deadline; requests are turned away"), "{shown}");

    well.wait_answers(300);
    well.finish().assert_flawless();
    let tally = hung.finish();
    tally.assert_flawless();
    assert!(tally.labels.contains_key("503") && tally.labels.contains_key("504"), "{:?}", tally.labels);
    let closed = host.get("/hung/");
    assert_eq!((closed.status, closed.header("retry-after")), (503, Some("5")), "{}", closed.text());

    fs::write(&gate, "").unwrap();
    host.wait_for("hung", "to be well again", |status| status.degraded().is_empty());
    assert_eq!(host.get("/hung/").text(), "fine");
}

/// Newer code is not made to pay: it serves while the threads of the old generation still hang.
#[test]
fn newer_code_serves_while_the_old_one_hangs() {
    let (launch, gate) = launch(&[]);
    launch.plugins().install("shop", "handler_faults");
    let host = launch.start();
    let path = format!("/shop/slow?gate={}", gate.display());
    let hung = Load::start(host.listen(), 4, &path, is_turned_down);
    host.wait_for("shop", "to be closed", |status| status.degraded().contains("turned away"));
    hung.finish().assert_flawless();

    host.reload("shop", |plugins| plugins.replace("shop", "version_b"));
    assert_eq!(host.get("/shop/").status, 200);
    let status = host.plugin("shop");
    assert!(
        matches!(&*status.parked(), [(1, held_by)] if held_by[0].ends_with("requests in it")),
        "{status}"
    );
    fs::write(&gate, "").unwrap();
    eventually(SOON, "the old code to be unmapped", || match host.plugin("shop").unloaded() {
        1 => Ok(()),
        _ => Err(host.plugin("shop")),
    });
}

/// A missed deadline is a failure like a panic: too many within the probation, and the old code serves again.
#[test]
fn missed_deadlines_roll_new_code_back() {
    let (launch, gate) = launch(&["--probation", "120s", "--budget", "2"]);
    launch.plugins().install("shop", "version_a");
    let host = launch.start();
    host.reload("shop", |plugins| plugins.replace("shop", "handler_faults"));
    let path = format!("/shop/slow?gate={}", gate.display());
    assert_eq!(host.get(&path).status, 504);
    assert_eq!(host.get("/shop/").text(), "fine", "one is within the budget");
    assert_eq!(host.get(&path).status, 504);
    // The code is live a moment before it is noted why.
    let status = host.wait_for("shop", "to be rolled back", |status| status.last_outcome() == "rolled_back");
    assert!(status.reason().starts_with("2 missed deadlines within 120 s of going live"), "{status}");
    assert_eq!(status.generation(), Some(3), "{status}");
    assert_eq!(host.get("/shop/ping").text(), "a");
    fs::write(&gate, "").unwrap();
}

/// A handler that waits though it was declared inline holds its I/O thread, and says so in the log. Connections
/// that come later are answered, also those that were given to this thread before it was known to hang.
#[test]
fn hung_inline_handler_keeps_no_new_connection_waiting() {
    let (launch, gate) = launch(&[]);
    launch.plugins().install("hung", "handler_faults");
    launch.plugins().install("well", "version_a");
    let host = launch.start();
    let address = host.listen();
    let path = format!("/hung/inline-slow?gate={}", gate.display());
    let hung = thread::spawn(move || Client::new(address).get(&path));
    let waiting = gate.with_extension("waiting");
    eventually(SOON, "the handler to wait at its gate", || waiting.exists().then_some(()).ok_or("no file"));

    // More than one for each thread: some are given to the one that hangs.
    let ask = move || {
        let mut client = Client::new(address);
        let answer = client.get("/well/");
        (client, answer)
    };
    let asked: Vec<_> = (0..6).map(|_| thread::spawn(ask)).collect();
    let answered: Vec<_> = asked.into_iter().map(|client| client.join().unwrap()).collect();
    assert!(answered.iter().all(|(_, answer)| answer.as_ref().is_ok_and(|answer| answer.status == 200)));
    let state = host.state_dir();
    eventually(SOON, "the log to say so", || {
        let log = host.cli(&["logs", "--state", state.to_str().unwrap()]);
        log.stdout.contains("does not come back from an inline handler").then_some(()).ok_or(log)
    });

    fs::write(&gate, "").unwrap();
    assert_eq!(hung.join().unwrap().unwrap().text(), "the gate opened");
    assert_eq!(host.get("/hung/").text(), "fine");
}

/// A handler that works for long can ask whether anybody waits for it: not after its client has gone, nor after its
/// deadline.
#[test]
fn handler_is_told_that_nobody_waits_for_it() {
    let (launch, gate) = launch(&[]);
    launch.plugins().install("slow", "handler_faults");
    let host = launch.start();
    let path = format!("/slow/until-cancelled?gate={}", gate.display());
    let made = |what: &str| match gate.with_extension(what).exists() {
        true => Ok(()),
        false => Err(format!("it has not made {what}")),
    };
    let is_told = |how: &str| {
        eventually(SOON, how, || made("cancelled"));
        for what in ["waiting", "cancelled"] {
            fs::remove_file(gate.with_extension(what)).expect("the handler has made it");
        }
    };

    let mut leaving = TcpStream::connect(host.listen()).expect("the host listens");
    write!(leaving, "GET {path} HTTP/1.1\r\nhost: test\r\n\r\n").expect("the host reads");
    eventually(SOON, "the handler to run", || made("waiting"));
    drop(leaving);
    is_told("the handler to be told that its client has gone");

    assert_eq!(host.get(&path).status, 504);
    is_told("the handler to be told that its deadline has passed");
}
