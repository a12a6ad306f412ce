//! Facts about the safe beyond a call: gated and relaxed writes, watches, queues, shared safes.
//!
//! The last one is the guestbook's, which tells of its entries by a queue.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;

use serde_json::Value;
use tests::eventually;
use tests::host::{Launch, TestHost};
use tests::http::Client;
use tests::wait::SOON;

#[track_caller]
fn ask(host: &TestHost, path: &str) -> String {
    let response = host.get(path);
    assert_eq!(response.status, 200, "{path}: {}", response.text());
    response.text()
}

/// What the client has read is on disk, also when nobody asks again before the crash.
#[test]
fn gated_write_is_on_disk_when_the_response_is_sent() {
    let host = TestHost::start([("probe", "safe_later")]);
    for count in 1..=20 {
        assert_eq!(ask(&host, "/probe/gated/n"), "counted");
        let entry = ask(&host, "/probe/get/n");
        assert_eq!(entry, format!("9 bytes, version {count}"), "the answer came before the commit");
    }
    assert_eq!(ask(&host, "/probe/inline/i"), "put");
    let host = host.kill9().start();
    assert_eq!(ask(&host, "/probe/get/n"), "9 bytes, version 20");
    assert_eq!(ask(&host, "/probe/get/i"), "7 bytes, version 21");
}

/// The handler has answered 200; the client must not see it.
#[test]
fn gated_write_that_is_not_made_makes_the_response_a_failure() {
    let host = TestHost::start([("probe", "safe_later")]);
    assert_eq!(ask(&host, "/probe/once/k"), "put");
    let refused = host.get("/probe/once/k");
    assert_eq!(refused.status, 500, "{}", refused.text());
    eventually(SOON, "the reason in the log", || {
        let log = host.log();
        let is_there = log.contains("what the response waited for was not done: check 0 of the write");
        if is_there { Ok(()) } else { Err(log) }
    });
    assert_eq!(ask(&host, "/probe/get/k"), "5 bytes, version 1");
}

#[test]
fn relaxed_writes_are_made_in_order_and_flush_tells_of_a_failure_once() {
    let host = TestHost::start([("probe", "safe_later")]);
    assert_eq!(ask(&host, "/probe/relaxed/300"), "Some(300)");
    let stat = host.api("/api/safes");
    let (batches, writes) = (&stat["safes"][0]["batches"], &stat["safes"][0]["writes"]);
    assert!(batches.as_u64() < writes.as_u64(), "no two writes shared a commit: {stat}");
    let told = ask(&host, "/probe/lost");
    assert_eq!(told, "Err(\"the value under `text` is no integer, so nothing can be added to it\") Ok(())");
    // What was queued before a clean stop is on disk after it.
    let host = host.restart();
    assert_eq!(ask(&host, "/probe/relaxed/0"), "Some(300)");
}

/// Starts a request that waits for a change, and returns when it waits.
fn waiting<'s>(
    scope: &'s thread::Scope<'s, '_>,
    host: &'s TestHost,
    path: &'s str,
) -> thread::ScopedJoinHandle<'s, String> {
    let before = ask(host, "/probe/get/waiting");
    let address = host.listen();
    let answer = scope.spawn(move || Client::new(address).get(path).unwrap().text());
    eventually(SOON, "the handler to wait", || match ask(host, "/probe/get/waiting") {
        now if now != before => Ok(()),
        now => Err(now),
    });
    answer
}

#[test]
fn watch_wakes_for_its_keys_and_many_changes_are_one() {
    let host = TestHost::start([("probe", "safe_later")]);
    thread::scope(|scope| {
        let answer = waiting(scope, &host, "/probe/wait/board:/20000");
        ask(&host, "/probe/put/other");
        ask(&host, "/probe/put/board:1");
        assert_eq!(answer.join().unwrap(), "Changed TimedOut");
    });
    assert_eq!(ask(&host, "/probe/wait/board:/1"), "TimedOut TimedOut");
    // Its own write is a change like any other, and wakes once.
    assert_eq!(ask(&host, "/probe/wait/wait/20000"), "Changed TimedOut");
}

/// A long poll in old code ends when new code is there, so the old generation can go.
#[test]
fn watch_ends_with_its_generation() {
    let host = TestHost::start([("probe", "safe_later")]);
    thread::scope(|scope| {
        let answer = waiting(scope, &host, "/probe/wait/never/25000");
        host.reload("probe", |plugins| plugins.rebuild("probe", "safe_later", 1));
        assert_eq!(answer.join().unwrap(), "Ended Ended");
    });
    host.wait_for("probe", "the old generation to be unmapped", |plugin| plugin.unloaded() == 1);
}

#[test]
fn queue_does_what_it_says() {
    let host = TestHost::start([("probe", "safe_later")]);
    let expected = "2 false a b true 2 true dead a [(\"a\", 1)] 2 true 0";
    assert_eq!(ask(&host, "/probe/tour"), expected);
}

/// A thread of the plugin's works jobs off, the new generation's after a reload; nothing is lost to a crash.
#[test]
fn jobs_are_worked_off_across_reload_and_crash() {
    let launch = Launch::new().env("SAFE_LATER_WORK", "true");
    launch.plugins().install("probe", "safe_later");
    let host = launch.start();
    let done = |host: &TestHost, job: &str| {
        let key = format!(r"\x00\x02done\x00\x02{job}\x00");
        let state = host.state_dir();
        eventually(SOON, "the job to be done", || {
            let shown = host.cli(&["safe", "get", "probe", &key, "--state", state.to_str().unwrap()]);
            if shown.code() == 0 { Ok(()) } else { Err(shown.complaint().to_owned()) }
        });
    };
    ask(&host, "/probe/push/first");
    done(&host, "first");
    host.reload("probe", |plugins| plugins.rebuild("probe", "safe_later", 1));
    ask(&host, "/probe/push/second");
    done(&host, "second");
    host.wait_for("probe", "the old thread to end and its code to go", |plugin| plugin.unloaded() == 1);
    ask(&host, "/probe/push/third");
    let host = host.kill9().start();
    done(&host, "third");
}

#[test]
fn shared_safe_is_open_to_those_it_is_granted_to_and_no_others() {
    let launch = Launch::new();
    let config = launch.scratch().join("host.toml");
    std::fs::write(&config, "[safe.shared]\nrates = [\"one\", \"two\"]\n").unwrap();
    for name in ["one", "two", "three"] {
        launch.plugins().install(name, "safe_later");
    }
    let host = launch.arg("--config").arg(&config).start();
    assert_eq!(ask(&host, "/one/shared/rates/n"), "1 0");
    assert_eq!(ask(&host, "/two/shared/rates/n"), "2 0");
    assert_eq!(ask(&host, "/one/shared/rates/n"), "3 0");
    let told = ask(&host, "/three/shared/rates/n");
    assert!(told.starts_with("Denied") && told.contains("`rates = [\\\"three\\\"]`"), "{told}");
    let told = ask(&host, "/one/shared/@rates/n");
    assert!(told.starts_with("Denied"), "{told}");
    // It is no plugin's own, whatever the plugin is called.
    let listed: Value = host.api("/api/safes");
    let names: Vec<&str> =
        listed["safes"].as_array().unwrap().iter().map(|safe| safe["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["@rates", "one", "three", "two"]);
}

/// The shipped example: whoever is to be notified is down at first, and the code is replaced meanwhile.
#[test]
fn guestbook_notifies_at_last_whoever_was_down() {
    let receiver = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/signed", receiver.local_addr().unwrap());
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        for answer in ["503 Service Unavailable", "204 No Content", "204 No Content"] {
            let (stream, _) = receiver.accept().unwrap();
            tell.send(notified(stream, answer)).unwrap();
        }
    });
    let launch = Launch::new().env("GUESTBOOK_NOTIFY", url);
    let database = format!("sqlite:{}", launch.scratch().join("guestbook.db").display());
    let launch = launch.env("DATABASE_URL", database);
    launch.plugins().install("guestbook", "guestbook_plugin");
    let host = launch.start();
    let sign = |host: &TestHost, who: &str| {
        let headers = [("content-type", "application/x-www-form-urlencoded")];
        let body = format!("who={who}&said=hi");
        let signed = Client::new(host.listen()).request("POST", "/guestbook/", &headers, body.as_bytes());
        assert_eq!(signed.unwrap().status, 303);
    };
    sign(&host, "ann");
    assert_eq!(told.recv_timeout(SOON).unwrap(), "ann has signed, entry 1");
    host.reload("guestbook", |plugins| plugins.rebuild("guestbook", "guestbook_plugin", 1));
    assert_eq!(told.recv_timeout(SOON).unwrap(), "ann has signed, entry 1");
    let host = host.restart();
    sign(&host, "bob");
    assert_eq!(told.recv_timeout(SOON).unwrap(), "bob has signed, entry 2");
    eventually(SOON, "the queue to be empty", || match &host.api("/api/safes")["safes"][0]["entries"] {
        entries if entries.as_u64() == Some(0) => Ok(()),
        entries => Err(format!("{entries} entries")),
    });
}

/// What a request to the receiver says; it is given this answer.
fn notified(mut stream: TcpStream, answer: &str) -> String {
    stream.set_read_timeout(Some(SOON)).unwrap();
    let mut request = BufReader::new(stream.try_clone().unwrap());
    let mut length = 0;
    loop {
        let mut line = String::new();
        request.read_line(&mut line).unwrap();
        if let Some(number) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = number.trim().parse().unwrap();
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    request.read_exact(&mut body).unwrap();
    write!(stream, "HTTP/1.1 {answer}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").unwrap();
    String::from_utf8(body).unwrap().trim_end().to_owned()
}
