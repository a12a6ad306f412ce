//! Facts about serving: what a client gets, from good handlers and bad ones, and from bad clients.

use std::fs;
use std::thread;

use tests::host::{Launch, TestHost};
use tests::http::Client;
use tests::wait::{SOON, eventually};

fn faults() -> TestHost {
    TestHost::start([("shop", "handler_faults")])
}

/// Whatever a handler does, its client gets an answer that tells nothing of the inside, and the next
/// request is served.
#[test]
fn handler_that_fails_fails_its_own_request_only() {
    let launch = Launch::new().arg("--production");
    launch.plugins().install("shop", "handler_faults");
    let host = launch.start();
    let mut client = Client::new(host.listen());
    for path in ["/shop/panic", "/shop/inline-panic", "/shop/panic-in-drop", "/shop/err"] {
        let response = client.get(path).unwrap();
        assert_eq!(response.status, 500, "{path}");
        for secret in ["this fixture", "handler_faults", ".rs:", "secret"] {
            assert!(!response.text().contains(secret), "{path} tells `{secret}`: {}", response.text());
        }
        assert_eq!(client.get("/shop/").unwrap().text(), "fine", "after {path}");
    }
    for words in ["a handler panics, as this fixture must", "a secret of this fixture"] {
        assert!(host.log().contains(words), "the log does not say `{words}`:\n{}", host.log());
    }
    assert_eq!(host.plugin("shop").generation(), Some(1));
}

/// While somebody edits, the answer itself says what went wrong and where.
#[test]
fn failure_is_explained_in_development() {
    let response = faults().get("/shop/panic");
    assert_eq!(response.status, 500);
    for words in ["a handler panics, as this fixture must", "handler_faults/lib.rs:", "GET /panic"] {
        assert!(response.text().contains(words), "`{words}` is missing: {}", response.text());
    }
}

/// The log of a failure can be found from the answer to it.
#[test]
fn failure_has_an_id_that_the_log_has_too() {
    let host = faults();
    let response = host.get("/shop/panic");
    let id = response.header("x-request-id").expect("an id").to_owned();
    let line = host.log().lines().find(|line| line.contains(&id)).map(str::to_owned);
    assert!(line.is_some_and(|line| line.contains("shop")), "no line with {id}:\n{}", host.log());
}

#[test]
fn typed_errors_become_their_status() {
    let host = faults();
    let missing = host.get("/shop/not-found");
    assert_eq!(missing.status, 404);
    assert!(missing.text().contains("no such thing here"));
    let elsewhere = host.get("/shop/redirect");
    assert_eq!((elsewhere.status, elsewhere.header("location")), (303, Some("/elsewhere")));
}

#[test]
fn unknown_paths_and_methods_get_their_status() {
    let host = faults();
    assert_eq!(host.get("/shop/nothing-here").status, 404);
    assert_eq!(host.get("/nobody/").status, 404);
    let wrong = host.post("/shop/", b"");
    assert_eq!(wrong.status, 405);
    assert!(wrong.header("allow").is_some_and(|allow| allow.contains("GET")), "{:?}", wrong.headers);
}

#[test]
fn body_and_parameters_arrive_as_sent() {
    let host = faults();
    let body: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    assert_eq!(host.post("/shop/echo", &body).body, body);
    assert_eq!(host.post("/shop/length", b"").text(), "0");
    assert_eq!(host.get("/shop/greet/a%2Fb%20%C3%BC").text(), "hello, a/b \u{fc}");
    let head = "POST /shop/echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
    let chunked = format!("{head}3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
    assert_eq!(Client::new(host.listen()).raw(chunked.as_bytes()).unwrap().text(), "abcde");
}

/// Announced or not, too much is too much: 413, in words, before it fills the memory.
#[test]
fn body_over_the_limit_is_refused() {
    let host = faults();
    let client = Client::new(host.listen());
    let head = b"POST /shop/length HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999\r\n\r\n";
    let announced = client.raw(head).unwrap();
    assert_eq!(announced.status, 413);
    assert!(announced.text().contains("limit"), "{}", announced.text());
    let mut chunked = b"POST /shop/length HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    let mebibyte = vec![b'x'; 1 << 20];
    for _ in 0..64 {
        chunked.extend_from_slice(b"100000\r\n");
        chunked.extend_from_slice(&mebibyte);
        chunked.extend_from_slice(b"\r\n");
    }
    chunked.extend_from_slice(b"0\r\n\r\n");
    assert_eq!(client.raw(&chunked).unwrap().status, 413);
    assert_eq!(host.get("/shop/").text(), "fine");
}

#[test]
fn malformed_requests_get_400_and_harm_nobody() {
    let host = faults();
    let client = Client::new(host.listen());
    for bytes in [
        b"this is no request\r\n\r\n".as_slice(),
        b"GET /shop/ HTTP/1.1\r\nno colon here\r\n\r\n",
        b"POST /shop/echo HTTP/1.1\r\nhost: x\r\ncontent-length: many\r\n\r\n",
        b"GET /shop/greet/%FF%FE HTTP/1.1\r\nhost: x\r\n\r\n",
    ] {
        let text = String::from_utf8_lossy(bytes);
        assert_eq!(client.raw(bytes).unwrap().status, 400, "{text}");
        assert_eq!(host.get("/shop/").text(), "fine", "after {text}");
    }
}

/// `/` lists the plugins; each answers under its name and says which generation did.
#[test]
fn plugins_answer_under_their_names() {
    let host = TestHost::start([("one", "version_a"), ("two", "version_b")]);
    assert_eq!((host.get("/one/ping").text(), host.get("/two/ping").text()), ("a".into(), "b".into()));
    let list = host.get("/").text();
    assert!(list.contains("one") && list.contains("two"), "{list}");
    assert_eq!(host.plugin("one").mount(), "/one");
    let response = host.get("/one/ping");
    assert_eq!(
        (response.header("x-plugin"), response.header("x-plugin-generation")),
        (Some("one"), Some("1"))
    );
}

/// In development, who looks at the old code while the new is refused is told so.
#[test]
fn answers_say_that_the_newest_code_is_refused() {
    let host = TestHost::start([("shop", "version_a")]);
    assert_eq!(host.get("/shop/ping").header("x-reload-failed"), None);
    host.refuse("shop", |plugins| plugins.replace("shop", "on_load_errs"));
    assert!(host.get("/shop/ping").header("x-reload-failed").is_some());
    host.reload("shop", |plugins| plugins.replace("shop", "version_b"));
    assert_eq!(host.get("/shop/ping").header("x-reload-failed"), None);
}

#[test]
fn health_and_readiness_are_on_the_admin_listener_only() {
    let host = faults();
    for path in ["/healthz", "/readyz"] {
        assert_eq!(Client::new(host.admin()).get(path).unwrap().status, 200, "{path}");
        assert_eq!(host.get(path).status, 404, "{path} is public");
    }
    assert_eq!(host.get("/api/plugins").status, 404);
}

/// SIGTERM: what was being answered is answered, nothing new is taken, the exit is clean.
#[test]
fn terminated_host_answers_what_it_has_begun() {
    let launch = Launch::new();
    launch.plugins().install("shop", "handler_faults");
    let gate = launch.scratch().join("gate");
    let host = launch.start();
    let address = host.listen();
    let path = format!("/shop/slow?gate={}", gate.display());
    let slow = thread::spawn(move || Client::new(address).get(&path));
    eventually(SOON, "the handler to wait", || match gate.with_extension("waiting").exists() {
        true => Ok(()),
        false => Err("it does not"),
    });

    let ending = thread::spawn(move || host.terminate());
    eventually(SOON, "the port to be closed", || match Client::new(address).get("/shop/") {
        Err(_) => Ok(()),
        Ok(response) => Err(format!("{} still", response.status)),
    });
    fs::write(&gate, "").unwrap();
    let answer = slow.join().unwrap().expect("an answer");
    assert_eq!((answer.status, answer.text().as_str()), (200, "the gate opened"));
    let finished = ending.join().unwrap();
    assert_eq!(finished.code(), 0, "{finished}");
}

/// The page draws the JSON by a script of its own origin and nothing else.
#[test]
fn status_page_and_metrics_are_on_the_admin_listener_only() {
    let host = TestHost::start([("version_a", "version_a")]);
    host.get("/version_a");
    let mut admin = Client::new(host.admin());
    let page = admin.get("/").unwrap();
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    assert!(page.header("content-security-policy").unwrap().starts_with("default-src 'none'"));
    for (path, kind) in [("/page.css", "text/css"), ("/page.js", "text/javascript")] {
        assert!(page.text().contains(&path[1..]), "{path} is not used");
        assert!(admin.get(path).unwrap().header("content-type").unwrap().starts_with(kind), "{path}");
    }
    let metrics = admin.get("/metrics").unwrap().text();
    let of_plugin = ["requests", "panics", "missed_deadlines", "is_refused", "parked", "last_outcome_ms"];
    for name in of_plugin {
        assert!(
            metrics.contains(&format!("\nhost_plugin_{name}{{plugin=\"version_a\"}} ")),
            "{name}: {metrics}"
        );
    }
    for line in ["host_is_ready 1", "host_plugin_requests{plugin=\"version_a\"} 1"] {
        assert!(metrics.lines().any(|found| found == line), "no `{line}` in:\n{metrics}");
    }
    assert_eq!(host.get("/metrics").status, 404);
}
