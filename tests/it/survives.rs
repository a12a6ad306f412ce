//! Facts about what outlives a reload and what does not: at least one test for each row of README's table.
//!
//! Owns: one end-to-end look at each kind, with the plugin that README names as its example. Does not own: what else
//! each kind promises; that is in the files of the kinds. `tidy.rs` compares the lines `Row:` with README.

use std::fs;
use std::net::UdpSocket;
use std::path::Path;
use std::thread;

use tests::host::{Event, Launch, TestHost};
use tests::http::{Client, Response};
use tests::postgres::Cluster;
use tests::wait::{SOON, eventually};

#[track_caller]
fn ask(host: &TestHost, path: &str) -> String {
    let response = host.get(path);
    assert_eq!(response.status, 200, "{path}: {}\n{}", response.text(), host.log());
    response.text()
}

#[track_caller]
fn post(host: &TestHost, path: &str, kind: &str, body: &str) -> Response {
    Client::new(host.listen()).request("POST", path, &[("content-type", kind)], body.as_bytes()).unwrap()
}

fn wait_for_file(path: &Path) {
    eventually(SOON, "the fixture to wait at its gate", || match path.exists() {
        true => Ok(()),
        false => Err(format!("no {}", path.display())),
    });
}

/// Row: a handle to an object of the host, kept under a key.
///
/// The server sees one connection, and the statement in it was prepared once.
#[test]
fn connections_and_their_prepared_statements_survive() {
    let cluster = Cluster::shared();
    let database = cluster.create_database();
    let launch = Launch::new().env("DATABASE_URL", cluster.url(&database));
    launch.plugins().install("probe", "db_probe");
    let host = launch.start();
    let pid = ask(&host, "/probe/pid");
    assert_eq!(ask(&host, "/probe/pid"), pid);
    let prepared = ask(&host, "/probe/prepared");
    assert_ne!(prepared, "", "the statement is not prepared");
    for build in 1..=5 {
        host.reload("probe", |plugins| plugins.rebuild("probe", "db_probe", build));
        assert_eq!(
            (ask(&host, "/probe/pid"), ask(&host, "/probe/prepared")),
            (pid.clone(), prepared.clone())
        );
    }
    assert_eq!(cluster.connections_opened(&database), 1);
    assert_eq!(cluster.connections_closed(&database), 0);
}

/// Row: a handle to an object of the host, kept under a key.
///
/// The shipped plugins, on a server and in a file: the pools are those that generation 1 made.
#[test]
fn pools_of_guestbook_and_ledger_survive() {
    let cluster = Cluster::shared();
    let database = cluster.create_database();
    let launch = Launch::new().env("DATABASE_URL", cluster.url(&database));
    for plugin in ["guestbook", "ledger"] {
        launch.plugins().install(plugin, &format!("{plugin}_plugin"));
    }
    let host = launch.start();
    for visit in 1..=3 {
        let form = "application/x-www-form-urlencoded";
        assert_eq!(post(&host, "/guestbook/", form, &format!("who=ann&said=visit+{visit}")).status, 303);
        let added = post(&host, "/ledger/apples", "application/json", "{\"by\": 3}");
        assert_eq!(added.json()["value"], 3 * visit, "{}", added.text());
        for plugin in ["guestbook", "ledger"] {
            let fixture = format!("{plugin}_plugin");
            host.reload(plugin, |plugins| plugins.rebuild(plugin, &fixture, visit));
        }
        let page = ask(&host, "/guestbook/");
        assert!((1..=visit).all(|visit| page.contains(&format!("visit {visit}"))), "{page}");
    }
    assert_eq!(cluster.connections_opened(&database), 1);
    let registry = host.api("/api/registry").to_string();
    assert_eq!(registry.matches("\"reloads_survived\":").count(), 2, "one pool for each plugin: {registry}");
    assert_eq!(host.slot("db").created_by().1, 1, "{registry}");
}

/// Row: data kept under a key.
///
/// `plugins/counter` is edited as its first lines say: it counts on, and the new field is there.
#[test]
fn data_survives_also_the_edit_of_its_definition() {
    let launch = Launch::new().warm();
    let plugin = launch.plugins().copy_source("counter");
    let host = launch.start();
    for count in ["1\n", "2\n"] {
        assert_eq!(ask(&host, "/counter/apples"), count);
    }
    host.reload("counter", |_| plugin.edit("{} in all", "{} altogether"));
    assert_eq!(ask(&host, "/counter/"), "2 altogether\napples: 2\n");

    host.reload("counter", |_| {
        let field = "total: AtomicU64,\n    best: Mutex<String>,";
        let text = plugin.text().replacen("total: AtomicU64,", field, 1);
        plugin.save(&text.replacen(
            "let mut by_name = stats.by_name.lock();",
            "*stats.best.lock() += &name;\n    let mut by_name = stats.by_name.lock();",
            1,
        ));
        assert!(plugin.text().contains(field) && plugin.text().contains("stats.best"), "no such edit");
    });
    assert_eq!(ask(&host, "/counter/apples"), "3\n");
    assert_eq!(ask(&host, "/counter/"), "3 altogether\napples: 3\n");
    let slot = host.slot("stats");
    assert_eq!((slot.created_by(), slot.reloads_survived()), (("counter".to_owned(), 1), 2), "{slot}");
}

/// Row: a service: a trait object kept under a key, for what cannot be data.
///
/// A client of another crate, with a socket and a thread, is one and the same over reloads: `plugins/visits`.
#[test]
fn client_with_a_thread_of_its_own_lives_over_reloads() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    server.set_read_timeout(Some(SOON)).unwrap();
    let launch = Launch::new().env("STATSD", server.local_addr().unwrap().to_string());
    launch.plugins().install("visits", "visits_plugin");
    let host = launch.start();
    let visit = |page: &str| {
        let response = host.get(&format!("/visits/{page}"));
        assert_eq!(response.text(), format!("{page}: counted\n"), "{}", host.log());
        let mut datagram = [0; 128];
        let (length, from) = server.recv_from(&mut datagram).expect("a datagram of the client's thread");
        assert_eq!(std::str::from_utf8(&datagram[..length]), Ok(format!("visits.{page}:1|c").as_str()));
        from
    };
    let client = visit("home");
    for build in 1..=5 {
        host.reload("visits", |plugins| plugins.rebuild("visits", "visits_plugin", build));
        assert_eq!(visit("about"), client, "another socket is another client");
    }
    eventually(SOON, "the maker alone to be parked, by its service and its thread", || {
        let status = host.plugin("visits");
        match status.parked().as_slice() {
            [(1, held_by)]
                if held_by[0] == "service `statsd`" && held_by[1].starts_with("1 thread started by it (") =>
            {
                Ok(())
            }
            parked => Err(format!("{parked:?}")),
        }
    });
    assert_eq!(host.plugin("visits").unloaded(), 4);
}

/// Row: a service: a trait object kept under a key, for what cannot be data.
///
/// It runs the code that made it until it is replaced; then that code leaves.
#[test]
fn service_survives_until_it_is_replaced() {
    let host = TestHost::start([("shop", "service_probe")]);
    let first = ask(&host, "/shop/service");
    assert_eq!(ask(&host, "/shop/send/ann"), "1");
    host.reload("shop", |plugins| plugins.rebuild("shop", "service_probe", 1));
    assert_eq!((ask(&host, "/shop/service"), ask(&host, "/shop/count")), (first.clone(), "1".to_owned()));
    ask(&host, "/shop/replace");
    assert_ne!(ask(&host, "/shop/service"), first);
    assert_eq!(ask(&host, "/shop/count"), "0");
    eventually(SOON, "the first generation to be unmapped", || match host.plugin("shop") {
        status if status.unloaded() == 1 => Ok(()),
        status => Err(status),
    });
}

/// Row: the plugin's private durable store, the *safe*.
///
/// `plugins/sessions`: who is logged in stays so, and no counted visit is lost.
#[test]
fn safe_survives_reloads_restarts_and_kills() {
    let launch = Launch::new();
    launch.plugins().install("sessions", "sessions_plugin");
    let host = launch.start();
    let answer = post(&host, "/sessions/login", "application/x-www-form-urlencoded", "name=ann");
    assert_eq!(answer.status, 303, "{}", answer.text());
    let cookie = answer.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    let visit = |host: &TestHost, number: u32| {
        let mut client = Client::new(host.listen());
        let page = client.request("GET", "/sessions/", &[("cookie", &cookie)], b"").unwrap().text();
        assert!(page.contains("Hello, ann") && page.contains(&format!("Visit number {number}.")), "{page}");
    };
    visit(&host, 1);
    host.reload("sessions", |plugins| plugins.rebuild("sessions", "sessions_plugin", 1));
    visit(&host, 2);
    let host = host.restart();
    visit(&host, 3);
    let host = host.kill9().start();
    visit(&host, 4);
}

/// Row: a request in progress.
///
/// What was being answered when the new code went live is answered by the old code, wholly.
#[test]
fn request_ends_in_the_generation_it_began_in() {
    let host = TestHost::start([("shop", "handler_faults")]);
    let gate = host.state_dir().with_file_name("gate");
    let address = host.listen();
    let path = format!("/shop/slow?gate={}", gate.display());
    let slow = thread::spawn(move || Client::new(address).get(&path));
    wait_for_file(&gate.with_extension("waiting"));

    host.reload("shop", |plugins| plugins.replace("shop", "version_b"));
    assert_eq!(host.get("/shop/ping").text(), "b");
    assert!(!host.plugin("shop").parked().is_empty(), "generation 1 is still at work");
    fs::write(&gate, "").unwrap();
    let answer = slow.join().unwrap().unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (200, "the gate opened"));
    eventually(SOON, "generation 1 to retire", || {
        let events = host.events("shop");
        let retired = |event: &&Event| event.kind() == "retired" && event.generation() == Some(1);
        events.iter().find(retired).map(|_| ()).ok_or_else(|| format!("{events:?}"))
    });
}

/// Row: statics, thread-locals and memory of the plugin.
///
/// All requests come over one connection, so that one thread runs them; it has a value for each generation.
#[test]
fn statics_and_thread_locals_begin_anew() {
    let host = TestHost::start([("shop", "threads_and_locals")]);
    let mut client = Client::new(host.listen());
    let mut ask = |path: &str| client.get(path).unwrap().text();
    for build in 1..=3 {
        for count in ["1", "2", "3"] {
            assert_eq!(ask("/shop/static"), count, "the static of generation {build}");
            assert_eq!(ask("/shop/local"), count, "the thread-local of generation {build}");
        }
        host.reload("shop", |plugins| plugins.rebuild("shop", "threads_and_locals", build));
    }
}

/// Row: a thread that the plugin started.
///
/// It outlives its generation by two reloads, and still notices what it waits for: then its code leaves.
#[test]
fn thread_runs_on_in_the_old_code() {
    let launch = Launch::new();
    let gate = launch.scratch().join("gate");
    launch.plugins().install("shop", "keeps_thread");
    let host = launch.env("FIXTURE_GATE", &gate).start();
    host.reload("shop", |plugins| plugins.replace("shop", "version_a"));
    host.reload("shop", |plugins| plugins.replace("shop", "version_b"));
    eventually(SOON, "the maker of the thread alone to be parked", || match host.plugin("shop").parked() {
        parked if parked == [(1, vec!["1 thread started by it (`lingerer`)".to_owned()])] => Ok(()),
        parked => Err(format!("{parked:?}")),
    });
    fs::write(&gate, "").unwrap();
    eventually(SOON, "the thread to end and its code to leave", || match host.plugin("shop") {
        status if status.unloaded() == 2 => Ok(()),
        status => Err(status),
    });
    assert_eq!(ask(&host, "/shop/ping"), "b");
}
