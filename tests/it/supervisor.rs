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

/// Takes the process down by a request, and waits for the next one.
#[track_caller]
fn crash(host: &TestHost, path: &str) {
    let before = host.serving_pid();
    let answer = Client::new(host.listen()).get(path);
    assert!(answer.is_err(), "{path} was answered: {:?}", answer.map(|answer| answer.text()));
    host.wait_restarted(before);
}

/// A host whose plugin `shop` served `version_a` as generation 1 and crashes in generation 2.
#[track_caller]
fn about_to_crash() -> TestHost {
    let host = supervised("version_a");
    host.reload("shop", |plugins| plugins.replace("shop", "crashes"));
    assert_eq!(host.get("/shop/ping").text(), "c");
    host
}

/// Code that crashes is out, the code before it serves, and everybody is told: which generation, where, why.
#[test]
fn code_that_crashes_is_quarantined_and_the_code_before_it_serves() {
    for (path, what, is_request) in [
        ("/shop/segfault", "SIGSEGV at address 0x10", true),
        ("/shop/inline-segfault", "SIGSEGV at address 0x10", true),
        ("/shop/overflow", "stack overflow", true),
        ("/shop/thread-segfault", "SIGSEGV at address 0x10", false),
        ("/shop/thread-overflow", "stack overflow", false),
    ] {
        let host = about_to_crash();
        crash(&host, path);
        assert_eq!(host.get("/shop/ping").text(), "a", "{path}");
        let route = path.strip_prefix("/shop").unwrap();
        let place = if is_request { format!("in GET {route}") } else { "on thread of shop".to_owned() };
        let status = host.plugin("shop");
        assert_eq!((status.generation(), status.last_outcome().as_str()), (Some(3), "rolled_back"), "{path}");
        assert_eq!(status.reason(), format!("{what} {place}, back to the code of generation 1"));
        let crashed = host.events("shop").into_iter().find(|event| event.kind() == "crashed").unwrap();
        assert_eq!(crashed.generation(), Some(2));
        assert!(crashed.reason().starts_with(&format!("{what} {place}")), "{crashed}");
        let quarantined = format!("quarantined, for it crashed the process as generation 2 ({what} {place})");
        let refusal = host.get("/shop/ping").header("x-reload-failed").unwrap().to_owned();
        assert!(refusal.starts_with(&quarantined), "{refusal}");
        let log = host.log();
        let said = format!("the serving process ended: {what} in shop generation 2, ");
        assert!(log.contains(&said), "{log}");
        // The stack, as far as it is the plugin's own.
        assert!(log.contains("    at shop g2 +0x"), "{log}");
        assert!(crashed.to_string().contains("shop g2 +0x"), "{crashed}");
    }
}

/// What is quarantined stays out, also when the host is started anew, until it is edited or asked for.
#[test]
fn quarantine_ends_with_an_edit_or_when_it_is_asked_for() {
    let host = about_to_crash();
    crash(&host, "/shop/segfault");
    let host = host.restart();
    assert_eq!(host.get("/shop/ping").text(), "a");
    let status = host.plugin("shop");
    assert!(status.to_string().contains("quarantined"), "{status}");

    let state = host.state_dir().display().to_string();
    let told = host.cli(&["reload", "shop", "--state", &state]);
    assert_eq!(told.code(), 0, "{told}");
    assert_eq!(host.get("/shop/ping").text(), "c");
    crash(&host, "/shop/segfault");
    assert_eq!(host.get("/shop/ping").text(), "a");

    host.reload("shop", |plugins| plugins.replace("shop", "version_b"));
    assert_eq!(host.get("/shop/ping").text(), "b");
    assert_eq!(host.get("/shop/ping").header("x-reload-failed"), None);
    // The very content that crashed is still known.
    let reason = host.refuse("shop", |plugins| plugins.replace("shop", "crashes"));
    assert!(reason.starts_with("quarantined, for it crashed the process"), "{reason}");
}

/// Code that crashes the process while it is initialised is not tried again, and what served serves.
#[test]
fn crash_of_on_load_costs_one_restart() {
    let host = supervised("version_a");
    let before = host.serving_pid();
    host.plugins.replace("shop", "crashes_on_load");
    let after = host.wait_restarted(before);
    let status = host.wait_for("shop", "to be refused", |status| status.last_outcome() == "refused");
    assert!(status.reason().contains("SIGSEGV at address 0x10 in on_load"), "{status}");
    assert_eq!((host.get("/shop/ping").text(), host.serving_pid()), ("a".to_owned(), after));
}

/// Where there is no other code, a crash does not take the plugin out of service; crashing without end does,
/// and the other plugins serve on.
#[test]
fn only_code_of_a_plugin_is_out_at_its_third_crash() {
    let launch = Launch::new().supervised();
    launch.plugins().install("shop", "crashes");
    launch.plugins().install("zoo", "version_a");
    let host = launch.start();
    for generation in 1..=2 {
        crash(&host, "/shop/segfault");
        assert_eq!(host.get("/shop/ping").text(), "c");
        let status = host.plugin("shop");
        assert_eq!((status.generation(), status.last_outcome().as_str()), (Some(generation + 1), "resumed"));
    }
    crash(&host, "/shop/segfault");
    assert_eq!(host.get("/zoo/ping").text(), "a");
    let status = host.wait_for("shop", "to be refused", |status| status.state() == "refused");
    assert!(status.reason().starts_with("quarantined, for it crashed the process"), "{status}");
    assert_eq!(host.get("/shop/ping").status, 503);
}

/// A crash that is nobody's puts nobody out: all go on with the code that served, a roll-back included.
#[test]
fn plugins_go_on_with_the_code_that_served() {
    let host = supervised("version_a");
    host.reload("shop", |plugins| plugins.replace("shop", "version_b"));
    let state = host.state_dir().display().to_string();
    assert_eq!(host.cli(&["rollback", "shop", "--state", &state]).code(), 0);
    let before = host.serving_pid();
    guard::signal("KILL", &[before]);
    host.wait_restarted(before);
    let answer = host.get("/shop/ping");
    assert_eq!((answer.text(), answer.header("x-plugin-generation")), ("a".to_owned(), Some("4")));
    let why = "rolled back: asked by the operator, back to the code of generation 1";
    assert_eq!(answer.header("x-reload-failed"), Some(why));
    // A signal from elsewhere is not the fault of whoever was running.
    let before = host.serving_pid();
    guard::signal("SEGV", &[before]);
    host.wait_restarted(before);
    assert_eq!(host.get("/shop/ping").header("x-plugin-generation"), Some("5"));
    assert!(host.log().contains("the serving process ended: SIGSEGV, thread"), "{}", host.log());
}

/// Source plugins serve again at once, and are looked at after that.
#[test]
fn source_plugin_serves_after_a_crash_before_it_is_built() {
    let launch = Launch::new().warm().supervised();
    let plugin = launch.plugins().copy_source("hello");
    let host = launch.start();
    let before = host.serving_pid();
    guard::signal("KILL", &[before]);
    host.wait_restarted(before);
    let resumed = host.events("hello").into_iter().find(|event| event.kind() == "resumed");
    let resumed: serde_json::Value = serde_json::from_str(&resumed.expect("an event").to_string()).unwrap();
    let steps: Vec<&str> =
        resumed["steps"].as_array().unwrap().iter().map(|step| step["step"].as_str().unwrap()).collect();
    assert!(!steps.iter().any(|step| ["build", "probe", "describe"].contains(step)), "{steps:?}");
    assert_eq!(host.reload("hello", |_| plugin.edit("hello, world", "hello, mars")), 3);
    assert_eq!(host.get("/hello").text(), "hello, mars\n");
}

/// `exit` and `abort` in a handler fail that request and cost that thread; the process stays.
#[test]
fn handlers_that_end_their_process_cost_one_thread_each() {
    let launch = Launch::new().supervised();
    launch.plugins().install("shop", "crashes");
    launch.plugins().install("yard", "crashes");
    launch.plugins().install("zoo", "version_a");
    let host = launch.start();
    let pid = host.serving_pid();
    for (path, what) in [("/shop/exit", "it called `exit(0)`"), ("/shop/abort", "it called `abort`")] {
        let answer = host.get(path);
        assert_eq!(answer.status, 500, "{path}: {}", answer.text());
        assert!(host.log().contains(&format!("{what}; its thread is lost")), "{}", host.log());
        assert_eq!((host.get("/shop/ping").text(), host.get("/zoo/ping").text()), ("c".into(), "a".into()));
    }
    // Threads of the plugin's own are stopped, and nobody waits for them.
    for (path, what) in [("/yard/thread-exit", "`exit(0)`"), ("/yard/thread-abort", "`abort`")] {
        assert_eq!(host.get(path).text(), "started");
        let said = format!("yard g1 code of the plugin called {what}: its thread is stopped for ever");
        eventually(SOON, "the host to say so", || {
            if host.log().contains(&said) { Ok(()) } else { Err(host.log()) }
        });
    }
    assert_eq!(host.get("/shop/ping").text(), "c");
    assert_eq!(host.serving_pid(), pid);
}

/// They count as failures of new code.
#[test]
fn handlers_that_end_their_process_use_up_the_budget() {
    let launch = Launch::new().supervised().arg("--probation=60s").arg("--budget=2");
    launch.plugins().install("shop", "version_a");
    let host = launch.start();
    host.reload("shop", |plugins| plugins.replace("shop", "crashes"));
    assert_eq!((host.get("/shop/exit").status, host.get("/shop/abort").status), (500, 500));
    let status = host.wait_for("shop", "to be rolled back", |status| status.last_outcome() == "rolled_back");
    assert_eq!((status.generation(), host.get("/shop/ping").text()), (Some(3), "a".to_owned()));
}

/// An I/O thread cannot be spared: its plugin takes the process along, and is out.
#[test]
fn inline_handlers_that_end_their_process_cost_a_restart() {
    for (path, what) in [
        ("/shop/inline-exit", "call of `exit` in GET /inline-exit"),
        ("/shop/inline-abort", "SIGABRT in GET /inline-abort"),
    ] {
        let host = about_to_crash();
        crash(&host, path);
        assert_eq!(host.get("/shop/ping").text(), "a");
        let reason = host.plugin("shop").reason();
        assert_eq!(reason, format!("{what}, back to the code of generation 1"));
    }
}
