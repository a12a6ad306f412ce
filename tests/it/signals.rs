//! Facts about signals: what plugins do with them takes neither code from under a handler nor the host's end.

use std::fs;
use std::process::Command;

use tests::guard;
use tests::host::{Launch, TestHost};
use tests::http::Client;
use tests::wait::{SOON, eventually};

/// Numbers as on every Linux that the host runs on.
const HUP: i32 = 1;
const INT: i32 = 2;
const QUIT: i32 = 3;
const USR1: i32 = 10;
const SEGV: i32 = 11;
const USR2: i32 = 12;
const PIPE: i32 = 13;
const ALRM: i32 = 14;
const TERM: i32 = 15;
const CHLD: i32 = 17;
const XCPU: i32 = 24;
const XFSZ: i32 = 25;
const WINCH: i32 = 28;

/// A host with the plugin `shop` that sets handlers.
#[track_caller]
fn host() -> TestHost {
    TestHost::start([("shop", "signals")])
}

/// Has the plugin do something to a signal.
#[track_caller]
fn set(host: &TestHost, how: &str, signal: i32) {
    let answer = host.get(&format!("/shop/set/{how}/{signal}"));
    assert_eq!((answer.status, answer.text().as_str()), (200, "set"), "{how} of {signal}");
}

#[track_caller]
fn wait_said(host: &TestHost, words: &str) {
    eventually(SOON, words, || if host.log().contains(words) { Ok(()) } else { Err(host.log()) });
}

/// The host still answers, and is the process that it was.
#[track_caller]
fn assert_well(host: &TestHost, pid: u32) {
    assert_eq!(host.get("/shop/ping").text(), "s");
    assert_eq!(host.serving_pid(), pid);
}

/// Stops it by a signal; it ends in order.
#[track_caller]
fn assert_ends(host: TestHost, signal: &str) {
    assert_eq!(host.get("/shop/ping").status, 200);
    host.signal(signal);
    let finished = host.wait_end();
    assert_eq!(finished.code(), 0, "SIG{signal}: {finished}");
}

/// Handlers of three generations in a row, each of which calls the one before: none of them is unmapped.
#[test]
fn handlers_that_call_the_one_before_stay_mapped_and_are_named() {
    for how in ["signal-hook", "tokio"] {
        let host = host();
        let pid = host.serving_pid();
        for build in 1..=3 {
            for signal in [USR1, CHLD, WINCH] {
                set(&host, how, signal);
            }
            host.reload("shop", |plugins| plugins.rebuild("shop", "signals", build));
        }
        for signal in [USR1, CHLD, WINCH] {
            set(&host, how, signal);
        }
        for (name, signal) in [("USR1", USR1), ("CHLD", CHLD), ("WINCH", WINCH)] {
            host.signal(name);
            eventually(SOON, "the newest generation to be called", || {
                match host.get(&format!("/shop/count/{signal}")).text().as_str() {
                    "0" => Err(format!("{how} of {name} was not called")),
                    _ => Ok(()),
                }
            });
        }
        assert_well(&host, pid);
        let parked = host.plugin("shop").parked();
        assert_eq!(parked.len(), 3, "{parked:?}");
        for (_, holders) in parked {
            let holders = holders.join(", ");
            for name in ["SIGUSR1", "SIGCHLD", "SIGWINCH"] {
                assert!(holders.contains(&format!("signal handler for {name}")), "{how}: {holders}");
            }
        }
        assert_ends(host, "TERM");
    }
}

/// However a handler is set, its code stays; and what is set without libc is found where it stands on top.
#[test]
fn every_way_to_set_a_handler_keeps_its_code() {
    let ways = [
        "sigaction",
        "__sigaction",
        "signal",
        "bsd_signal",
        "ssignal",
        "sysv_signal",
        "__sysv_signal",
        "sigset",
    ];
    for how in ways {
        let host = host();
        let pid = host.serving_pid();
        set(&host, how, USR1);
        host.reload("shop", |plugins| plugins.rebuild("shop", "signals", 1));
        eventually(SOON, "the handler to be named", || {
            let parked = host.plugin("shop").parked();
            let is_named =
                parked.iter().any(|(_, held)| held.contains(&"signal handler for SIGUSR1".to_owned()));
            if is_named { Ok(()) } else { Err(format!("{how}: {parked:?}")) }
        });
        host.signal("USR1");
        assert_well(&host, pid);
    }
}

/// A handler that its library has taken back, and over which nobody has set one, holds nothing.
#[test]
fn handler_that_is_taken_back_holds_nothing() {
    let host = host();
    set(&host, "taken-back", USR2);
    host.reload("shop", |plugins| plugins.replace("shop", "version_a"));
    host.wait_unloaded("shop", 1);
}

/// A plugin asks for the signals by which the host is stopped, in every way: it is told, and the host stops in order.
#[test]
fn signals_that_stop_the_host_stay_the_hosts() {
    let ways = [
        "signal-hook",
        "tokio",
        "sigaction",
        "exit",
        "signal",
        "sysv_signal",
        "sigset",
        "ignore",
        "default",
        "sigignore",
        "block",
        "block-all",
        "wait",
        "signalfd",
    ];
    for (name, signal) in [("TERM", TERM), ("INT", INT)] {
        for how in ways {
            let host = host();
            set(&host, how, signal);
            let answer = host.get(&format!("/shop/io/set/{how}/{signal}"));
            assert_eq!(answer.status, 200, "{how}: {}", answer.text());
            if !how.starts_with("block") {
                wait_said(&host, &format!("SIG{name} does: it belongs to the host"));
            }
            assert_ends(host, name);
        }
    }
    for name in ["TERM", "INT"] {
        let host = host();
        set(&host, "ctrlc", INT);
        wait_said(&host, "SIGINT does: it belongs to the host");
        host.reload("shop", |plugins| plugins.rebuild("shop", "signals", 1));
        set(&host, "ctrlc", INT);
        assert_ends(host, name);
    }
}

/// The same under a supervisor, whose line carries the wish to stop; and the impatient second signal still counts.
#[test]
fn stop_is_in_order_while_a_plugin_wants_the_signals() {
    let launch = Launch::new().supervised();
    let gate = launch.scratch().join("gate");
    launch.plugins().install("shop", "signals");
    let host = launch.env("FIXTURE_GATE", &gate).start();
    for signal in [TERM, INT, QUIT, HUP] {
        set(&host, "signal-hook", signal);
        set(&host, "tokio", signal);
    }
    let address = host.listen();
    let slow = std::thread::spawn(move || Client::new(address).get("/shop/slow"));
    let waiting = gate.with_extension("waiting");
    eventually(SOON, "the handler to wait", || waiting.exists().then_some(()).ok_or("it does not run"));
    guard::signal_group("INT", host.pid());
    wait_said(&host, "stopping: answering what was asked");
    fs::write(&gate, "").unwrap();
    assert_eq!(slow.join().unwrap().unwrap().text(), "slow");
    let finished = host.wait_end();
    assert_eq!(finished.code(), 0, "{finished}");
}

/// SIGHUP is how an operator has every source looked at.
#[test]
fn hangup_still_has_sources_looked_at() {
    let host = host();
    for how in ["signal-hook", "ignore", "default", "signalfd"] {
        set(&host, how, HUP);
    }
    host.signal("HUP");
    wait_said(&host, "looking at every source again");
    assert_ends(host, "TERM");
}

/// A handler for a crash is called, and does not take the place of the record: the plugin is named.
#[test]
fn handler_for_crashes_does_not_blind_the_host() {
    for how in ["sigaction", "signal", "exit", "ignore", "default", "block", "block-all"] {
        let launch = Launch::new().supervised();
        launch.plugins().install("shop", "signals");
        let host = launch.start();
        let before = host.serving_pid();
        // On every thread that may run the next request.
        set(&host, how, SEGV);
        let _ = Client::new(host.listen()).get("/shop/fault");
        // A handler that ends its process costs its thread: the process lives.
        if how == "exit" {
            wait_said(&host, "`_exit(0)`");
            assert_well(&host, before);
            continue;
        }
        host.wait_restarted(before);
        wait_said(&host, "SIGSEGV at address 0x10 in shop generation 1");
    }
}

/// To ignore SIGCHLD would take away the exit codes that the host waits for.
#[test]
fn children_are_still_waited_for() {
    for how in ["ignore", "nowait", "sigignore"] {
        let launch = Launch::new().warm();
        launch.plugins().install("shop", "signals");
        let plugin = launch.plugins().copy_source("hello");
        let host = launch.start();
        set(&host, how, CHLD);
        wait_said(&host, "the plugin wants to change what SIGCHLD does: it is not to be ignored");
        host.reload("hello", |_| plugin.edit("hello, world", "hello, mars"));
        assert_eq!(host.get("/hello").text(), "hello, mars\n");
    }
}

/// A limit that is reached fails what was tried, and nothing else; also where a plugin wants the default back.
#[test]
fn used_up_resources_end_nobody() {
    let launch = Launch::new().supervised();
    launch.plugins().install("shop", "signals");
    let host = launch.start();
    let serving = host.serving_pid();
    for signal in [PIPE, XFSZ, XCPU] {
        set(&host, "default", signal);
        set(&host, "sigset", ALRM);
        set(&host, "ignore", signal);
    }
    for pid in [serving, host.pid()] {
        let mut prlimit = Command::new("prlimit");
        prlimit.args(["--pid", &pid.to_string(), "--fsize=65536:unlimited"]);
        assert!(prlimit.status().unwrap().success(), "prlimit is part of util-linux");
    }
    assert_eq!(host.get("/shop/write/1000").text(), "written");
    assert_eq!(host.get("/shop/write/100000").text(), "27", "EFBIG");
    for name in ["XFSZ", "XCPU", "PIPE"] {
        guard::signal(name, &[serving, host.pid()]);
    }
    assert_well(&host, serving);
    wait_said(&host, "SIGPIPE does: it would end the host by default");
    assert_ends(host, "TERM");
}

/// What the host starts has the system's own dispositions again: a limit ends it as it would from a shell.
#[test]
fn children_have_the_default_of_what_the_host_outlives() {
    let launch = Launch::new().warm();
    let build_script = r#"
        fn main() {
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            for line in status.lines().filter(|line| line.starts_with("Sig")) {
                println!("cargo:warning={line}");
            }
            let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap().trim();
            let ignored = u64::from_str_radix(ignored, 16).unwrap();
            for signal in [24, 25] {
                assert!(ignored >> (signal - 1) & 1 == 0, "signal {signal} is ignored");
            }
        }
    "#;
    let plugin = launch.plugins().copy_source("hello");
    fs::write(plugin.dir().join("build.rs"), build_script).unwrap();
    let host = launch.start();
    assert_eq!(host.get("/hello").status, 200, "{}", host.log());
    let status = fs::read_to_string(format!("/proc/{}/status", host.pid())).unwrap();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap().trim();
    let caught = u64::from_str_radix(caught, 16).unwrap();
    assert!([PIPE, XFSZ, XCPU].iter().all(|signal| caught >> (signal - 1) & 1 == 1), "{status}");
}
