//! Facts about the process that holds the sockets and the one that serves.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::thread;

use tests::eventually;
use tests::guard;
use tests::host::{Launch, TestHost, run_cli};
use tests::http::{Client, Response};
use tests::load::Load;
use tests::wait::SOON;

/// A host with a supervisor and one plugin, `shop`, from a fixture.
#[track_caller]
fn supervised(fixture: &str) -> TestHost {
    let launch = Launch::new().supervised();
    launch.plugins().install("shop", fixture);
    launch.start()
}

/// Any answer of the plugin is right.
fn answered(response: &Response) -> Result<String, String> {
    match response.status {
        200 => Ok(response.text()),
        status => Err(format!("status {status}")),
    }
}

/// What went wrong, without the numbers that differ: each with how often.
fn kinds(failures: &[String]) -> BTreeMap<String, usize> {
    let mut kinds = BTreeMap::new();
    for failure in failures {
        *kinds.entry(failure.clone()).or_default() += 1;
    }
    kinds
}

/// Starts a request that waits for a gate; returns the gate once the handler runs.
fn slow_request(host: &TestHost, name: &str) -> (String, thread::JoinHandle<std::io::Result<Response>>) {
    let gate = host.state_dir().join(name).display().to_string();
    let (address, path) = (host.listen(), format!("/shop/slow?gate={gate}"));
    let request = thread::spawn(move || Client::new(address).get(&path));
    eventually(SOON, "the handler to wait", || match Path::new(&format!("{gate}.waiting")).exists() {
        true => Ok(()),
        false => Err("it does not run"),
    });
    (gate, request)
}

/// Waits until a process is gone.
#[track_caller]
fn wait_gone(pid: u32) {
    eventually(SOON, "a process to end", || if guard::is_running(pid) { Err("it runs") } else { Ok(()) });
}

/// The serving process is killed under load: who was being answered loses the answer, nobody is refused, and
/// the next process answers.
#[test]
fn killed_process_is_replaced_and_nobody_is_refused() {
    const CLIENTS: usize = 8;
    let host = supervised("version_a");
    let before = host.serving_pid();
    assert_ne!(before, host.pid());
    let load = Load::start(host.listen(), CLIENTS, "/shop/ping", answered);
    load.wait_answers(50);
    guard::signal("KILL", &[before]);
    let after = host.wait_restarted(before);
    load.wait_answers(50);
    let tally = load.finish();
    assert!(tally.failures.len() <= CLIENTS, "{:#?}", kinds(&tally.failures));
    let refused = tally.failures.iter().filter(|failure| failure.contains("refused")).count();
    assert_eq!(refused, 0, "{:#?}", kinds(&tally.failures));
    assert_eq!(host.serving_pid(), after);
    assert!(host.log().contains("the serving process ended: SIGKILL; starting it again"), "{}", host.log());
    let finished = host.terminate();
    assert_eq!(finished.code(), 0, "{finished}");
    wait_gone(after);
}

/// Ctrl-C reaches both processes; that is one wish, and what was asked is answered.
#[test]
fn interrupt_of_the_whole_group_stops_in_order() {
    let host = supervised("handler_faults");
    let (gate, request) = slow_request(&host, "gate");
    guard::signal_group("INT", host.pid());
    eventually(SOON, "the host to stop", || {
        if host.log().contains("stopping: answering what was asked") { Ok(()) } else { Err(host.log()) }
    });
    fs::write(&gate, "").unwrap();
    assert_eq!(request.join().unwrap().unwrap().text(), "the gate opened");
    let finished = host.wait_end();
    assert_eq!(finished.code(), 0, "{finished}");
    assert!(!finished.stderr.contains("stopped at once"), "{finished}");
    assert!(finished.stdout.contains("serving on http://"), "{finished}");
}

/// A service manager signals the supervisor alone, and may lose its patience.
#[test]
fn second_signal_to_the_supervisor_stops_at_once() {
    let host = supervised("handler_faults");
    let (_gate, request) = slow_request(&host, "gate");
    host.signal("TERM");
    eventually(SOON, "the host to stop", || {
        if host.log().contains("stopping: answering what was asked") { Ok(()) } else { Err(host.log()) }
    });
    host.signal("TERM");
    let finished = host.wait_end();
    assert_eq!(finished.code(), 1, "{finished}");
    assert!(request.join().unwrap().is_err());
}

/// SIGHUP is passed on, and the serving process stays.
#[test]
fn hangup_looks_at_every_source_again() {
    let launch = Launch::new().supervised().arg("--no-watch");
    launch.plugins().install("shop", "version_a");
    let host = launch.start();
    let pid = host.serving_pid();
    host.plugins.replace("shop", "version_b");
    host.reload("shop", |_| host.signal("HUP"));
    assert_eq!((host.get("/shop/ping").text(), host.serving_pid()), ("b".to_owned(), pid));
}

/// Nothing serves on when the supervisor is gone; what was asked is answered.
#[test]
fn serving_process_stops_in_order_when_the_supervisor_is_killed() {
    let host = supervised("handler_faults");
    let pid = host.serving_pid();
    let (gate, request) = slow_request(&host, "gate");
    let launch = host.kill9_keeping(|log| log.contains("the supervisor is gone"));
    fs::write(&gate, "").unwrap();
    assert_eq!(request.join().unwrap().unwrap().text(), "the gate opened");
    wait_gone(pid);
    // Its lock and its sockets went with it.
    assert_eq!(launch.start().get("/shop/").text(), "fine");
}

/// One process, as before, for whoever wants that.
#[test]
fn without_a_supervisor_there_is_one_process() {
    let host = TestHost::start([("shop", "version_a")]);
    assert_eq!(host.serving_pid(), host.pid());
}

/// An error at the start is the same error, with the same exit code, as without a supervisor.
#[test]
fn errors_at_the_start_are_said_once_and_keep_their_exit_code() {
    let missing = run_cli(&["run", "--plugins", "nowhere"]);
    assert_eq!(missing.code(), 2, "{missing}");
    assert_eq!(missing.stderr.lines().count(), 1, "{missing}");

    let busy = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = busy.local_addr().unwrap().to_string();
    let launch = Launch::new();
    let plugins = launch.plugins().path().to_str().unwrap().to_owned();
    let taken = launch.run(&["run", "--plugins", &plugins, "--listen", &address]);
    assert_eq!(taken.code(), 1, "{taken}");
    assert!(taken.complaint().contains("already in use"), "{taken}");

    let host = supervised("version_a");
    let state = host.state_dir().display().to_string();
    let second = launch.run(&["run", "--plugins", &plugins, "--state", &state, "--listen", "127.0.0.1:0"]);
    assert_eq!(second.code(), 1, "{second}");
    assert!(second.complaint().contains("another host is running"), "{second}");
}

/// What only the supervisor may say is refused from anybody else.
#[test]
fn handover_typed_by_hand_is_refused() {
    let finished = run_cli(&["run", "--plugins", ".", "--supervised=line:77"]);
    assert_eq!(finished.code(), 1, "{finished}");
    assert!(finished.complaint().contains("is for the supervisor alone"), "{finished}");
}

/// systemd's socket is used instead of a bound one, by each serving process, and systemd is told.
#[test]
fn socket_passed_by_systemd_is_served_and_readiness_is_told() {
    for is_supervised in [true, false] {
        let launch = Launch::new();
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let path = launch.scratch().join("notify");
        let told = UnixDatagram::bind(&path).unwrap();
        told.set_read_timeout(Some(SOON)).unwrap();
        let launch = if is_supervised { launch.supervised() } else { launch }.env("NOTIFY_SOCKET", &path);
        launch.plugins().install("shop", "version_a");
        let host = launch.start_on(socket);
        assert_eq!(host.listen(), address);
        assert_eq!(host.get("/shop/ping").text(), "a");
        let hear = || {
            let mut bytes = [0; 500];
            let length = told.recv(&mut bytes).expect("systemd is told");
            String::from_utf8_lossy(&bytes[..length]).into_owned()
        };
        let ready = hear();
        assert_eq!(ready.lines().next(), Some("READY=1"), "{ready}");
        if is_supervised {
            assert!(ready.contains(&format!("MAINPID={}", host.pid())), "{ready}");
            let before = host.serving_pid();
            guard::signal("KILL", &[before]);
            host.wait_restarted(before);
            assert_eq!(host.get("/shop/ping").text(), "a");
            assert_eq!(hear(), "STATUS=restarted 1 times, last SIGKILL");
        }
        assert_eq!(host.terminate().code(), 0);
        // The process after a crash may or may not have become ready meanwhile.
        let last = hear();
        let last = if last.starts_with("READY=1") { hear() } else { last };
        assert_eq!(last, "STOPPING=1");
    }
}

/// A process that dies again and again is started ever more slowly, and that is said.
#[test]
fn crash_loop_backs_off_and_says_so() {
    let host = supervised("version_a");
    for _ in 0..6 {
        let before = host.serving_pid();
        guard::signal("KILL", &[before]);
        host.wait_restarted(before);
    }
    let said = "the serving process ended for the 6th time within 10s: SIGKILL; starting it again in 100ms";
    assert!(host.log().contains(said), "{}", host.log());
    let before = host.serving_pid();
    guard::signal("KILL", &[before]);
    eventually(SOON, "the supervisor to wait", || {
        if host.log().contains("for the 7th time") { Ok(()) } else { Err(host.log()) }
    });
    // A signal is answered while waiting, too.
    let finished = host.terminate();
    assert_eq!(finished.code(), 0, "{finished}");
    wait_gone(before);
}
