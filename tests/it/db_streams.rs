//! Facts about results larger than memory should hold, COPY, notifications, and the way to the server.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use host::db::{OpenError, Pool, PoolConfig};
use tests::eventually;
use tests::host::{Launch, TestHost};
use tests::postgres::{Cluster, Shutdown};
use tests::wait::SOON;

fn start(url: impl AsRef<std::ffi::OsStr>) -> TestHost {
    let launch = Launch::new();
    launch.plugins().install("stream", "stream_probe");
    launch.env("DATABASE_URL", url).start()
}

fn get(host: &TestHost, path: &str) -> String {
    let response = host.get(path);
    assert_eq!(response.status, 200, "{path}: {}\n{}", response.text(), host.log());
    response.text()
}

/// Most memory the host has had, in KiB.
fn peak(host: &TestHost) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", host.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Runs `check` in a host on SQLite and in one on PostgreSQL.
fn on_both(check: impl Fn(&TestHost)) {
    check(&start("sqlite:stream.db"));
    let cluster = Cluster::shared();
    check(&start(cluster.url(&cluster.create_database())));
}

#[test]
fn every_row_of_a_stream_arrives_once_and_in_order() {
    on_both(|host| {
        for rows in [0_u64, 1, 255, 256, 257, 10_000] {
            // Without rows the recursion still has its first one.
            let rows = rows.max(1);
            let words: usize = (1..=rows).map(|x| "row number ".len() + x.to_string().len()).sum();
            let expected = format!("{rows} {} {words}", rows * (rows + 1) / 2);
            assert_eq!(get(host, &format!("/stream/sum/{rows}")), expected);
            assert_eq!(get(host, &format!("/stream/each/{rows}")), expected);
        }
    });
}

/// As one block 100,000 rows take several times as much, which the second half makes sure of.
#[test]
fn a_stream_takes_no_memory_for_its_length() {
    on_both(|host| {
        get(host, "/stream/sum/1000");
        let before = peak(host);
        get(host, "/stream/sum/100000");
        get(host, "/stream/each/100000");
        let streamed = peak(host) - before;
        get(host, "/stream/all/100000");
        let whole = peak(host) - before;
        assert!(
            streamed < 5_000 && whole > 2 * streamed + 2_000,
            "{streamed} KiB streamed, {whole} KiB whole"
        );
    });
}

#[test]
fn a_stream_ends_where_its_reader_ends_it() {
    on_both(|host| {
        assert_eq!(get(host, "/stream/stop/5000"), "3 enough 42");
        assert_eq!(get(host, "/stream/take/5000"), "3 42");
        assert_eq!(get(host, "/stream/refused"), "true true");
    });
}

#[test]
fn a_panic_among_the_rows_is_the_requests_alone() {
    on_both(|host| {
        assert_eq!(host.get("/stream/panic").status, 500);
        assert!(host.log().contains("in the middle of the rows"), "{}", host.log());
        assert_eq!(get(host, "/stream/stop/5"), "3 enough 42");
    });
}

#[test]
fn a_connection_that_streams_takes_no_other_statement() {
    on_both(|host| {
        assert_eq!(get(host, "/stream/inside"), "[true, true, true, true]");
        assert_eq!(get(host, "/stream/tx"), "[(1, true), (2, true)]");
        assert_eq!(get(host, "/stream/interleaved"), "[(true, true, true), (true, true, true)]");
    });
}

#[test]
fn copy_brings_rows_in_and_out() {
    let cluster = Cluster::shared();
    let host = start(cluster.url(&cluster.create_database()));
    let lines: String = (1..=20_000).map(|id| format!("{id}\tname {id}\n")).collect();
    assert_eq!(
        host.post("/stream/copy_fails", b"").text(),
        "0 the other end of the copy failed: the reader broke"
    );
    let stored = host.post("/stream/copy", lines.as_bytes());
    assert_eq!(stored.text(), "20000", "{}", host.log());
    assert!(get(&host, "/stream/copy") == lines, "what came out is not what went in");
    let refused = host.post("/stream/copy", b"one\ttwo\n");
    assert_eq!(refused.status, 500);
    assert!(host.log().contains("invalid input syntax for type bigint"), "{}", host.log());
    assert_eq!(get(&host, "/stream/stop/5"), "3 enough 42");
}

#[test]
fn a_database_without_copy_says_so() {
    let host = start("sqlite:stream.db");
    assert_eq!(host.post("/stream/copy", b"1\ta\n").status, 500);
    assert!(host.log().contains("this database has no COPY"), "{}", host.log());
}

/// What is said while nobody asks waits; new code asks the same subscription.
#[test]
fn a_subscription_survives_reloads() {
    let cluster = Cluster::shared();
    let database = cluster.create_database();
    let host = start(cluster.url(&database));
    assert_eq!(get(&host, "/stream/hear/0"), "None");
    let mut client = cluster.connect(&database);
    client.batch_execute("NOTIFY orders, 'first'; NOTIFY \"Odd \"\"name\"\"\", 'second'").unwrap();
    assert_eq!(get(&host, "/stream/hear/20000"), "orders: first");
    host.reload("stream", |plugins| plugins.rebuild("stream", "stream_probe", 1));
    client.batch_execute("NOTIFY orders, 'third'").unwrap();
    assert_eq!(get(&host, "/stream/hear/20000"), "Odd \"name\": second");
    assert_eq!(get(&host, "/stream/hear/20000"), "orders: third");
    assert_eq!(host.slot("events").reloads_survived(), 1);
}

/// A subscription reconnects by itself, and says where something may be missing.
#[test]
fn a_subscription_survives_the_servers_restart() {
    let cluster = Cluster::private();
    let database = cluster.create_database();
    let host = start(cluster.url(&database));
    assert_eq!(get(&host, "/stream/hear/0"), "None");
    cluster.stop(Shutdown::Fast);
    cluster.start();
    assert_eq!(get(&host, "/stream/hear/20000"), "gap");
    cluster.connect(&database).batch_execute("NOTIFY orders, 'after'").unwrap();
    assert_eq!(get(&host, "/stream/hear/20000"), "orders: after");
}

/// `pg_stat_activity` shows whose statements a session runs, and which code's.
#[test]
fn sessions_are_named_after_plugin_and_generation() {
    let cluster = Cluster::shared();
    let database = cluster.create_database();
    let host = start(cluster.url(&database));
    assert_eq!(get(&host, "/stream/name"), "host stream g1");
    host.reload("stream", |plugins| plugins.rebuild("stream", "stream_probe", 1));
    assert_eq!(get(&host, "/stream/name"), "host stream g2");
    // Unless the address names them.
    let host = start(format!("{}?application_name=mine", cluster.url(&database)));
    assert_eq!(get(&host, "/stream/name"), "mine");
}

#[test]
fn a_unix_socket_leads_to_the_server() {
    let cluster = Cluster::shared();
    let host = start(cluster.socket_url(&cluster.create_database()));
    assert_eq!(get(&host, "/stream/stop/5"), "3 enough 42");
}

fn openssl(dir: &Path, args: &[&str]) {
    let output = Command::new("openssl").current_dir(dir).args(args).output().unwrap();
    assert!(output.status.success(), "openssl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Copies a file to where the server reads it, as its own.
fn give(cluster: &Cluster, file: &Path) {
    use std::os::unix::fs::MetadataExt as _;
    let copy = cluster.dir().join(file.file_name().unwrap());
    fs::copy(file, &copy).unwrap();
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o600)).unwrap();
    let owner = fs::metadata(cluster.dir()).unwrap();
    std::os::unix::fs::chown(&copy, Some(owner.uid()), Some(owner.gid())).unwrap();
}

/// A server of its own that speaks TLS with a certificate for `127.0.0.1`; and a root that signed another.
fn with_tls() -> (Cluster, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    for name in ["server", "stranger"] {
        let (key, cert) = (format!("{name}.key"), format!("{name}.pem"));
        #[rustfmt::skip]
        openssl(dir.path(), &[
            "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
            "-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE", "-keyout", &key, "-out", &cert,
        ]);
    }
    let cluster = Cluster::private();
    let own = |name: &str| cluster.dir().join(name);
    ["server.key", "server.pem"].into_iter().for_each(|name| give(&cluster, &dir.path().join(name)));
    let mut client = cluster.connect("postgres");
    for (setting, value) in [
        ("ssl_cert_file", own("server.pem").display().to_string()),
        ("ssl_key_file", own("server.key").display().to_string()),
        ("ssl", "on".to_owned()),
    ] {
        client.batch_execute(&format!("ALTER SYSTEM SET {setting} = '{value}'")).unwrap();
    }
    client.batch_execute("SELECT pg_reload_conf()").unwrap();
    drop(client);
    eventually(SOON, "the server to take its certificate", || {
        let row = cluster.connect("postgres").query_one("SHOW ssl", &[]).unwrap();
        if row.get::<_, &str>(0) == "on" { Ok(()) } else { Err("ssl is off") }
    });
    (cluster, dir)
}

#[test]
fn tls_encrypts_and_verifies_as_the_url_asks() {
    let (cluster, dir) = with_tls();
    let open = |host: &str, settings: &str| {
        let url = cluster.url("postgres").replace("127.0.0.1", host);
        Pool::open(&format!("{url}?{settings}"), Path::new("/nowhere"), PoolConfig::default())
    };
    let is_encrypted = |settings: &str| {
        let pool = open("127.0.0.1", settings).unwrap_or_else(|error| panic!("{settings}: {error}"));
        let sql = "SELECT ssl::text FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
        let block = host::db::Block::parse(pool.checkout().unwrap().query(sql, &[]).unwrap()).unwrap();
        block.cell(0, 0).unwrap().unwrap() == host::db::Value::Text("true")
    };
    let root = |name: &str| format!("sslrootcert={}", dir.path().join(name).display());
    assert!(!is_encrypted("sslmode=disable"));
    for settings in ["sslmode=prefer", "sslmode=require", "application_name=x"] {
        assert!(is_encrypted(settings), "{settings}");
    }
    for mode in ["verify-ca", "verify-full", "require"] {
        assert!(is_encrypted(&format!("sslmode={mode}&{}", root("server.pem"))), "{mode}");
        let refused = open("127.0.0.1", &format!("sslmode={mode}&{}", root("stranger.pem"))).unwrap_err();
        assert!(matches!(refused, OpenError::Connect(_)), "{mode}: {refused}");
    }
    // The certificate is for the address, not for this name of the same machine.
    assert!(open("localhost", &format!("sslmode=verify-ca&{}", root("server.pem"))).is_ok());
    let wrong_name = open("localhost", &format!("sslmode=verify-full&{}", root("server.pem"))).unwrap_err();
    assert!(wrong_name.to_string().contains("not valid for name"), "{wrong_name}");
}

/// The server asks who is there, and `sslcert` says so.
#[test]
fn a_certificate_of_the_host_opens_what_is_closed_to_others() {
    let (cluster, dir) = with_tls();
    let at = |name: &str| dir.path().join(name).display().to_string();
    #[rustfmt::skip]
    openssl(dir.path(), &[
        "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
        "-subj", "/CN=authority", "-keyout", "ca.key", "-out", "ca.pem",
    ]);
    #[rustfmt::skip]
    openssl(dir.path(), &[
        "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
        "-CA", "ca.pem", "-CAkey", "ca.key", "-subj", "/CN=postgres", "-addext", "basicConstraints=critical,CA:FALSE",
        "-keyout", "client.key", "-out", "client.pem",
    ]);
    give(&cluster, &dir.path().join("ca.pem"));
    let mut client = cluster.connect("postgres");
    let authority = cluster.dir().join("ca.pem").display().to_string();
    client.batch_execute(&format!("ALTER SYSTEM SET ssl_ca_file = '{authority}'")).unwrap();
    let rules: String = client.query_one("SHOW hba_file", &[]).unwrap().get(0);
    fs::write(rules, "hostssl all all 127.0.0.1/32 cert\nlocal all all trust\n").unwrap();
    client.batch_execute("SELECT pg_reload_conf()").unwrap();
    let open = |settings: &str| {
        let url = format!("{}?sslmode=require{settings}", cluster.url("postgres"));
        Pool::open(&url, Path::new("/nowhere"), PoolConfig::default())
    };
    eventually(SOON, "the server to ask for a certificate", || match open("") {
        Err(OpenError::Connect(refused)) if refused.to_string().contains("certificate") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let pool = open(&format!("&sslcert={}&sslkey={}", at("client.pem"), at("client.key"))).unwrap();
    let sql = "SELECT client_dn FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    let block = host::db::Block::parse(pool.checkout().unwrap().query(sql, &[]).unwrap()).unwrap();
    assert_eq!(block.cell(0, 0).unwrap().unwrap(), host::db::Value::Text("/CN=postgres"));
    // One that nobody vouches for, and what is wrong with the files.
    let stranger = open(&format!("&sslcert={}&sslkey={}", at("stranger.pem"), at("stranger.key")));
    assert!(matches!(stranger, Err(OpenError::Connect(_))), "{stranger:?}");
    for (settings, words) in [
        (format!("&sslcert={}", at("client.pem")), "`sslcert` is there and `sslkey` is not"),
        (
            format!("&sslcert={}&sslkey={}", at("nowhere.pem"), at("client.key")),
            "nowhere.pem` cannot be read",
        ),
        (format!("&sslcert={}&sslkey={}", at("client.pem"), at("ca.pem")), "ca.pem` cannot be read"),
        (format!("&sslcert={}&sslkey={}", at("client.pem"), at("ca.key")), "do not belong together"),
    ] {
        let refused = open(&settings).unwrap_err();
        assert!(matches!(refused, OpenError::Config(_)) && refused.to_string().contains(words), "{refused}");
    }
}

#[test]
fn a_server_without_tls_is_refused_where_it_is_required() {
    let url = format!("{}?sslmode=require", super::url());
    let refused = Pool::open(&url, Path::new("/nowhere"), PoolConfig::default()).unwrap_err();
    assert!(refused.to_string().contains("TLS"), "{refused}");
}
