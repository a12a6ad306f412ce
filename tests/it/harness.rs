//! Facts about the harness itself, for what it promises is believed by every other test.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use tests::fixture::{compile_c, repository};
use tests::guard;
use tests::postgres::{Cluster, Shutdown};
use tests::stress::{Memory, Outcome, judge_memory};
use tests::wait::{SOON, eventually};

/// What was committed before a crash is there after it, under the same address.
#[test]
fn cluster_survives_kill9_and_start() {
    let cluster = Cluster::private();
    let database = cluster.create_database();
    cluster
        .connect(&database)
        .batch_execute("CREATE TABLE kept (id int); INSERT INTO kept VALUES (7)")
        .unwrap();

    cluster.kill9();
    assert!(::postgres::Client::connect(&cluster.url(&database), ::postgres::NoTls).is_err());

    cluster.start();
    let row = cluster.connect(&database).query_one("SELECT id FROM kept", &[]).unwrap();
    assert_eq!(row.get::<_, i32>(0), 7);
    cluster.stop(Shutdown::Fast);
    cluster.start();
}

/// Both addresses lead to the same database, and each connection counts once, there only.
#[test]
fn cluster_counts_connections_per_database() {
    let cluster = Cluster::shared();
    let (ours, others) = (cluster.create_database(), cluster.create_database());
    let over_tcp = cluster.connect(&ours);
    let over_socket = ::postgres::Client::connect(&cluster.socket_url(&ours), ::postgres::NoTls).unwrap();
    assert_eq!(cluster.connections_opened(&ours), 2);
    assert_eq!(cluster.connections_closed(&ours), 0);
    assert_eq!(cluster.connections_opened(&others), 0);

    drop((over_tcp, over_socket));
    eventually(SOON, "both connections to end", || match cluster.connections_closed(&ours) {
        2 => Ok(()),
        closed => Err(format!("{closed} closed")),
    });
}

/// A paused server keeps its connections and answers nothing until it is resumed.
#[test]
fn paused_cluster_is_silent_until_resumed() {
    let cluster = Cluster::private();
    let mut client = cluster.connect("postgres");
    cluster.pause();
    let postmaster = cluster.pid().unwrap();
    eventually(SOON, "the server to stand still", || {
        match fs::read_to_string(format!("/proc/{postmaster}/stat")).unwrap() {
            stat if stat.contains(") T ") => Ok(()),
            stat => Err(stat),
        }
    });
    cluster.resume();
    assert_eq!(client.query_one("SELECT 1", &[]).unwrap().get::<_, i32>(0), 1);
}

/// When a cluster is dropped, its processes and its files are gone, paused or not.
#[test]
fn dropped_cluster_leaves_nothing_behind() {
    let cluster = Cluster::private();
    let (dir, pid) = (cluster.dir().to_owned(), cluster.pid().unwrap());
    let family = guard::family(pid);
    assert!(family.len() > 1, "the server has processes of its own: {family:?}");
    cluster.pause();
    drop(cluster);

    assert!(!dir.exists());
    eventually(SOON, "all of the server to end", || none_runs(&family));
}

/// Names the file in which the test below, run a second time in a process of its own, leaves a word.
const LEAVE: &str = "TESTS_LEAVE_A_CLUSTER";

/// A test process that is killed takes its cluster with it.
#[test]
fn killed_test_process_leaves_nothing_behind() {
    if let Some(note) = env::var_os(LEAVE) {
        let cluster = Cluster::private();
        let words = format!("{} {}", cluster.pid().unwrap(), cluster.dir().display());
        fs::write(note, words).unwrap();
        guard::signal("KILL", &[std::process::id()]);
        unreachable!("nobody survives this signal");
    }
    let scratch = tempfile::tempdir().unwrap();
    let note = scratch.path().join("note");
    let status = Command::new(env::current_exe().unwrap())
        .args(["--exact", "harness::killed_test_process_leaves_nothing_behind"])
        .env(LEAVE, &note)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(!status.success(), "the other process was to be killed: {status}");

    let note = fs::read_to_string(note).unwrap();
    let (pid, dir) = note.split_once(' ').unwrap();
    let pid: u32 = pid.parse().unwrap();
    eventually(SOON, "the orphan's files and processes to go", || match Path::new(dir).exists() {
        true => Err(format!("{dir} exists")),
        false => none_runs(&[pid]),
    });
}

/// What the stress run says of a process that had so much memory after each of a thousand reloads.
fn judged(rss_kb: impl Fn(u64) -> u64) -> Outcome {
    let mut memory = Memory::default();
    (0..1_000).for_each(|reload| memory.add(rss_kb(reload), 170));
    let mut outcome = Outcome { reloads: 1_000, ..Outcome::default() };
    memory.fill(&mut outcome);
    judge_memory(&mut outcome);
    outcome
}

/// 13 bytes a reload are noise; 300 bytes are growth, and so is what fills up after the first tenth.
#[test]
fn stress_tells_growth_from_what_goes_up_and_down() {
    assert!(judged(|reload| 12_000 + reload % 7 * 100 + reload / 77).wrong.is_empty());
    let grown = judged(|reload| 12_000 + reload % 5 * 100 + reload * 3 / 10);
    assert_eq!(grown.wrong, ["resident memory grew from 12214 to 12484"]);
    assert!(grown.rss_by_tenth_kb.is_sorted() && grown.rss_by_tenth_kb.len() == 10, "{grown:?}");
    assert_eq!(grown.maps_by_tenth, [170; 10]);
    let filled = judged(|reload| if reload < 200 { 12_000 } else { 13_000 });
    assert_eq!(filled.wrong, ["resident memory grew from 12000 to 13000"]);
}

fn none_runs(pids: &[u32]) -> Result<(), String> {
    match pids.iter().find(|pid| guard::is_running(**pid)) {
        Some(pid) => Err(format!("process {pid} runs")),
        None => Ok(()),
    }
}

/// The test command, where programs are missing and a user is who `id` says: its exit code and what it did.
fn run_without_programs(user: &str, programs: &[&str]) -> (Option<i32>, String) {
    let scratch = tempfile::tempdir().unwrap();
    let did = scratch.path().join("did");
    let stub = |name: &str, body: &str| {
        let path = scratch.path().join(name);
        fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    stub("id", &format!("echo {user}"));
    stub("dirname", &format!("echo {}", repository().join("tests").display()));
    stub("cargo", "exit 0");
    for program in programs {
        stub(program, &format!("echo {program} \"$@\" >> {}", did.display()));
    }
    let script = repository().join("tests/run");
    let output =
        Command::new("/bin/bash").arg(script).env_clear().env("PATH", scratch.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), fs::read_to_string(did).unwrap_or_default() + &said)
}

/// What is missing is installed by root, by `sudo` for others, and else named with the command that installs it.
#[test]
fn test_command_installs_what_is_missing_or_says_how() {
    let (code, did) = run_without_programs("0", &["apt-get", "env"]);
    assert_eq!(code, Some(0), "{did}");
    assert!(did.contains("apt-get update -q") && did.contains("apt-get install -q -y"), "{did}");
    let (code, did) = run_without_programs("1000", &["apt-get", "sudo"]);
    assert_eq!(code, Some(0), "{did}");
    assert!(did.contains("sudo apt-get update -q") && did.contains("gcc libc6-dev openssl"), "{did}");
    let (code, did) = run_without_programs("1000", &["apt-get"]);
    assert_eq!(code, Some(1), "{did}");
    assert!(did.contains("run as root: apt-get install gcc libc6-dev openssl"), "{did}");
    let (code, did) = run_without_programs("0", &[]);
    assert_eq!(code, Some(1), "{did}");
    assert!(did.contains("cannot install here (no apt-get)"), "{did}");
}

/// It would be another library for every later test that asks for the one of Rust.
#[test]
#[should_panic(expected = "cargo builds libforks.so already")]
fn c_fixture_does_not_replace_a_rust_fixture() {
    let source = repository().join("tests/fixtures/c_plugin/plugin.c");
    compile_c(&source, "libforks.so", &["-shared", "-fPIC"]);
}
