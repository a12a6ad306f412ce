//! Facts about children that a handler forks off: they end with the plugin's code, and are not the host.

use std::fs;
use std::net::TcpStream;

use tests::guard;
use tests::host::{Launch, TestHost};
use tests::http::Client;
use tests::wait::{SOON, eventually};

/// The child of an answer `parent of CHILD`.
#[track_caller]
fn child_of(answer: &str) -> u32 {
    let number = answer.strip_prefix("parent of ").unwrap_or_else(|| panic!("the child answered: {answer}"));
    number.parse().unwrap()
}

/// Forks on a thread of each kind; the child ends as `ends`, and the client hears of the parent alone.
#[track_caller]
fn assert_child_ends(host: &TestHost, how: &str, ends: &str) {
    for place in ["/shop/fork", "/shop/io/fork", "/shop/thread/fork"] {
        let mut client = Client::new(host.listen());
        let child = child_of(&client.get(&format!("{place}/{how}")).unwrap().text());
        // Over the same connection: an answer of the child's own would come next.
        assert_eq!(client.get("/shop/ping").unwrap().text(), "f", "{place}/{how}");
        assert_eq!(host.get(&format!("/shop/wait/{child}")).text(), ends, "{place}/{how}");
    }
}

/// However the plugin's code comes back in the child: it ends there.
#[test]
fn child_that_comes_back_ends() {
    let host = TestHost::start([("shop", "forks")]);
    for how in ["returns", "errs", "panics", "_Fork", "bare", "logs"] {
        assert_child_ends(&host, how, "exit 1");
    }
    let log = host.log();
    assert!(
        log.contains("a process that plugin `shop` has forked off came back from the plugin's code"),
        "{log}"
    );
    assert!(!log.contains("the child logs"), "{log}");
    assert_eq!(host.terminate().code(), 0);
}

/// A child that ends or becomes another program does so with its own exit code, and takes nothing along.
#[test]
fn child_that_ends_itself_ends_alone() {
    let host = TestHost::start([("shop", "forks")]);
    let socket = host.state_dir().join("control.sock");
    let is_there = socket.exists();
    for (how, ends) in
        [("exits", "exit 7"), ("_exits", "exit 8"), ("execs", "exit 9"), ("aborts", "signal 6")]
    {
        assert_child_ends(&host, how, ends);
    }
    assert_eq!(socket.exists(), is_there);
    assert_eq!(host.terminate().code(), 0);
}

/// `daemon` ends the process that calls it, which is the host.
#[test]
fn daemon_is_refused() {
    let host = TestHost::start([("shop", "forks")]);
    assert_eq!(host.get("/shop/fork/daemon").text(), "daemon said -1");
    eventually(SOON, "advice", || match host.log() {
        log if log.contains("the plugin called `daemon`, which would end the host: refused") => Ok(()),
        log => Err(log),
    });
}

/// A child has no host to call.
#[test]
fn child_cannot_write_into_the_safe() {
    let launch = Launch::new();
    let said = launch.scratch().join("said");
    launch.plugins().install("shop", "forks");
    let host = launch.env("FIXTURE_SAID", &said).start();
    let child = child_of(&host.get("/shop/fork/writes").text());
    assert_eq!(host.get(&format!("/shop/wait/{child}")).text(), "exit 1");
    let said = fs::read_to_string(said).unwrap();
    assert!(said.contains("forked off the host"), "{said}");
}

/// `on_load` may fork as well: the parent serves.
#[test]
fn child_of_on_load_ends() {
    let launch = Launch::new();
    launch.plugins().install("shop", "forks");
    let host = launch.env("FIXTURE_FORKS_ON_LOAD", "returns").start();
    assert_eq!(host.get("/shop/ping").text(), "f");
    eventually(SOON, "the child to end", || {
        let children =
            fs::read_to_string(format!("/proc/{0}/task/{0}/children", host.pid())).unwrap_or_default();
        let log = host.log();
        if log.contains("came back from the plugin's code") {
            Ok(())
        } else {
            Err(format!("{children}: {log}"))
        }
    });
    assert_eq!(host.plugin_list().len(), 1);
}

/// A child that lives on holds neither the port, nor the lock, nor a client's connection: another host starts.
#[test]
fn child_that_lives_on_is_not_a_host_that_runs() {
    for is_supervised in [false, true] {
        let launch = Launch::new();
        let launch = if is_supervised { launch.supervised() } else { launch };
        let gate = launch.scratch().join("gate");
        launch.plugins().install("shop", "forks");
        let host = launch.env("FIXTURE_GATE", &gate).start();
        let address = host.listen();
        let mut client = Client::new(address);
        let child = child_of(&client.get("/shop/fork/stays").unwrap().text());
        let waiting = gate.with_extension("waiting");
        eventually(SOON, "the child to run", || waiting.exists().then_some(()).ok_or("it does not run"));
        // With all that the host had: the lock of the state directory, those of the safes, the port.
        let host = host.restart();
        assert_eq!(host.get("/shop/ping").text(), "f");
        assert!(guard::is_running(child), "the child has ended");
        assert!(TcpStream::connect(address).is_err(), "somebody listens where the host did");
        // The connection that the child was forked in ends with the host, too.
        assert!(client.get("/shop/ping").is_err());
        fs::write(&gate, "").unwrap();
        drop(host);
    }
}
