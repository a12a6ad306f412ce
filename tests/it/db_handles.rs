//! Facts about database handles across reloads: the connection is the host's, and it stays.

use std::collections::BTreeSet;

use tests::host::{Launch, TestHost};
use tests::load::Load;
use tests::postgres::Cluster;

/// Reloads the plugin's code so many times, each time with other bytes.
fn reload_times(host: &TestHost, times: usize) {
    for reload in 1..=times {
        host.reload("probe", |plugins| plugins.rebuild("probe", "db_probe", reload));
    }
    assert_eq!(host.plugin("probe").generation(), Some(times as u64 + 1));
}

/// Twenty generations speak through one connection: the server saw it come, and saw none go.
#[test]
fn postgres_connection_survives_twenty_reloads() {
    let cluster = Cluster::shared();
    let database = cluster.create_database();
    let launch = Launch::new();
    launch.plugins().install("probe", "db_probe");
    let host = launch.env("DATABASE_URL", cluster.url(&database)).start();

    let before = host.get("/probe/pid").text();
    assert!(before.parse::<u32>().is_ok(), "no process number: {before}");
    for reload in 1..=20 {
        host.reload("probe", |plugins| plugins.rebuild("probe", "db_probe", reload));
        assert_eq!(host.get("/probe/pid").text(), before, "after reload {reload}");
    }
    assert_eq!(cluster.connections_opened(&database), 1);
    assert_eq!(cluster.connections_closed(&database), 0);
    let slot = host.slot("db");
    assert_eq!((slot.created_by(), slot.reloads_survived()), (("probe".to_owned(), 1), 20), "{slot}");
    assert!(slot.hits() >= 20, "{slot}");
}

/// Under load from many clients the pool fills its slots once; reloads open and close none.
#[test]
fn reloads_under_load_open_one_connection_per_pool_slot() {
    let cluster = Cluster::shared();
    let database = cluster.create_database();
    let launch = Launch::new();
    launch.plugins().install("probe", "db_probe");
    let host = launch.env("DATABASE_URL", cluster.url(&database)).start();

    let load = Load::start(host.listen(), 16, "/probe/pid", |response| match response.status {
        200 => Ok(response.text()),
        status => Err(format!("{status}: {}", response.text())),
    });
    load.wait_answers(200);
    reload_times(&host, 20);
    load.wait_answers(200);
    let tally = load.finish();
    tally.assert_flawless();

    let pids: BTreeSet<&String> = tally.labels.keys().collect();
    let opened = cluster.connections_opened(&database);
    assert!(opened >= pids.len() && opened <= 16, "{opened} connections, of which {} answered", pids.len());
    assert_eq!(cluster.connections_closed(&database), 0);
}

/// SQLite has no server to ask; the connection itself counts the rows it changed since it was opened.
#[test]
fn sqlite_connection_survives_twenty_reloads() {
    let launch = Launch::new();
    let url = format!("sqlite:{}", launch.scratch().join("probe.db").display());
    launch.plugins().install("probe", "db_probe");
    let host = launch.env("DATABASE_URL", url).start();
    for reload in 1..=20 {
        assert_eq!(host.get("/probe/changes").text(), reload.to_string(), "before reload {reload}");
        host.reload("probe", |plugins| plugins.rebuild("probe", "db_probe", reload));
    }
    assert_eq!(host.get("/probe/changes").text(), "21");
    assert_eq!(host.slot("db").reloads_survived(), 20);
}

/// A refused generation opens and closes nothing that others use.
#[test]
fn refused_generation_touches_no_connection() {
    let cluster = Cluster::shared();
    let database = cluster.create_database();
    let launch = Launch::new();
    launch.plugins().install("probe", "db_probe");
    let host = launch.env("DATABASE_URL", cluster.url(&database)).start();
    let before = host.get("/probe/pid").text();
    for fixture in ["on_load_panics", "on_load_errs", "connect_errs", "wrong_abi"] {
        host.refuse("probe", |plugins| plugins.replace("probe", fixture));
        assert_eq!(host.get("/probe/pid").text(), before, "after {fixture}");
    }
    assert_eq!(cluster.connections_opened(&database), 1);
    assert_eq!(cluster.connections_closed(&database), 0);
}

/// When the host ends, it takes leave of the database: no connection is left to time out.
#[test]
fn terminated_host_closes_its_connections() {
    let cluster = Cluster::shared();
    let database = cluster.create_database();
    let launch = Launch::new();
    launch.plugins().install("probe", "db_probe");
    let host = launch.env("DATABASE_URL", cluster.url(&database)).start();
    host.get("/probe/pid");
    let finished = host.terminate();
    assert_eq!(finished.code(), 0, "{finished}");
    tests::eventually(tests::wait::SOON, "the connection to close", || {
        match cluster.connections_closed(&database) {
            1 => Ok(()),
            closed => Err(format!("{closed} closed")),
        }
    });
}

/// The database is down when the plugin starts asking: the request fails, nothing else; then it recovers.
#[test]
fn database_that_was_down_is_found_again() {
    let cluster = Cluster::private();
    let database = cluster.create_database();
    let launch = Launch::new();
    launch.plugins().install("probe", "db_probe");
    let host = launch.env("DATABASE_URL", cluster.url(&database)).start();
    cluster.kill9();
    let refused = host.get("/probe/pid");
    assert!([500, 503].contains(&refused.status), "{}: {}", refused.status, refused.text());
    cluster.start();
    tests::eventually(tests::wait::SOON, "the plugin to reach its database", || {
        let response = host.get("/probe/pid");
        if response.status == 200 { Ok(()) } else { Err(format!("{}: {}", response.status, response.text())) }
    });
    assert!(host.slot("db").failures() >= 1, "{}", host.slot("db"));
}
