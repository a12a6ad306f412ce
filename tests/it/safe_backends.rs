//! Facts about both backends of the safe, file and server: the same scripts, the same answers.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use host::safe::{
    Change, Check, Commit, EntryRef, Expiry, Order, ReadError, Safe, SafeSettings, Safes, Woken, Write,
    WriteError,
};
use serde_json::json;
use tests::Cluster;
use tests::host::{Launch, TestHost};
use tests::postgres::Shutdown;

/// Far enough.
fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

/// Both kinds of safes, each empty.
struct Places {
    directory: tempfile::TempDir,
    url: String,
}

impl Places {
    fn new() -> Places {
        let cluster = Cluster::shared();
        let url = cluster.url(&cluster.create_database());
        Places { directory: tempfile::tempdir().unwrap(), url }
    }

    fn on_file(&self) -> Safes {
        Safes::new(self.directory.path().to_owned())
    }

    fn on_server(&self) -> Safes {
        on_server(&self.url)
    }

    fn both(&self) -> [Safes; 2] {
        [self.on_file(), self.on_server()]
    }
}

fn on_server(url: &str) -> Safes {
    let server = Some(url.to_owned());
    Safes::with("/nowhere".into(), SafeSettings { server, ..SafeSettings::default() })
}

fn put(key: &str, value: &[u8]) -> Change {
    Change::Put { key: key.into(), encoding: 0, value: value.to_vec(), expiry: Expiry::Never }
}

fn add(key: &str, delta: i64) -> Change {
    Change::Add { key: key.into(), delta, initial: 0, encoding: 1, expiry: Expiry::Never }
}

fn changes(changes: impl Into<Vec<Change>>) -> Write {
    Write { checks: Vec::new(), changes: changes.into() }
}

#[track_caller]
fn version(outcome: Result<Commit, WriteError>) -> u64 {
    match outcome.unwrap() {
        Commit::Done { version, .. } => version,
        Commit::Conflict { check } => panic!("check {check} did not hold"),
    }
}

fn value(safe: &Safe, key: &str) -> Option<Vec<u8>> {
    safe.get(key.as_bytes(), |entry| entry.value.to_vec()).unwrap()
}

type Contents = BTreeMap<Vec<u8>, (u64, bool, u8, Vec<u8>)>;

/// Everything; of an expiry, whether there is one.
fn contents(safe: &Safe) -> Contents {
    let item = |key: &[u8], entry: EntryRef<'_>| {
        Some((key.to_vec(), (entry.version, entry.expires_at != 0, entry.encoding, entry.value.to_vec())))
    };
    let (items, _) = safe.list((Bound::Unbounded, Bound::Unbounded), false, usize::MAX, item).unwrap();
    items.into_iter().collect()
}

/// Numbers by chance, the same for the same seed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }

    /// Keys whose order tells bytes from letters.
    fn key(&mut self) -> Vec<u8> {
        let keys: [&[u8]; 10] =
            [b"a", b"B", b"\x00", b"\x00\xff", b"\xff", b"\x7f", b"a\x00", b"ab", b"\xc3\xa9", b"z"];
        keys[usize::try_from(self.below(10)).unwrap()].to_vec()
    }

    fn expiry(&mut self) -> Expiry {
        [Expiry::Never, Expiry::Never, Expiry::In(1 << 40), Expiry::In(0)][self.below(4) as usize]
    }

    fn change(&mut self) -> Change {
        let key = self.key();
        match self.below(5) {
            0 => Change::Delete { key },
            1 | 2 => Change::Add {
                key,
                delta: [1, -7, i64::MAX][self.below(3) as usize],
                initial: 2,
                encoding: 1,
                expiry: self.expiry(),
            },
            _ => Change::Put {
                key,
                encoding: u8::try_from(self.below(2)).unwrap(),
                value: vec![u8::try_from(self.below(256)).unwrap(); [0, 1, 9, 5_000][self.below(4) as usize]],
                expiry: self.expiry(),
            },
        }
    }
}

/// One step of a script, and what was answered, as text.
fn step(chance: &mut Chance, safe: &Safe) -> String {
    match chance.below(6) {
        0 => {
            let (a, b) = (chance.key(), chance.key());
            let range = (Bound::Excluded(a.as_slice()), Bound::Included(b.as_slice()));
            let item = |key: &[u8], entry: EntryRef<'_>| Some((key.to_vec(), entry.version));
            let limit = chance.below(5) as usize;
            format!("{:?}", safe.list(range, chance.below(2) == 0, limit, item))
        }
        1 => {
            let keys = [chance.key(), chance.key(), chance.key()];
            let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
            format!("{:?} {:?}", safe.get_many(&keys, |entry| entry.value.to_vec()), safe.len())
        }
        _ => {
            let mut write = Write::default();
            for _ in 0..chance.below(3) {
                let key = chance.key();
                let found = safe.get(&key, |entry| entry.version).unwrap().unwrap_or_default();
                write.checks.push(Check { key, version: found + u64::from(chance.below(4) == 0) });
            }
            for _ in 0..=chance.below(3) {
                write.changes.push(chance.change());
            }
            format!("{:?}", safe.write(write, soon()))
        }
    }
}

#[test]
fn same_script_has_the_same_answers() {
    for seed in 0..6 {
        let places = Places::new();
        let [file, server] = places.both().map(|safes| safes.open("script").unwrap());
        let (mut of_file, mut of_server) = (Chance(seed), Chance(seed));
        for number in 0..150 {
            let (file, server) = (step(&mut of_file, &file), step(&mut of_server, &server));
            assert_eq!(file, server, "seed {seed}, step {number}");
        }
        let left = contents(&file);
        assert!(left.len() > 3, "the script left nothing: {left:?}");
        assert_eq!(left, contents(&server), "seed {seed}");
    }
}

/// Writes that share a commit see one another in order, on both.
#[test]
fn queued_writes_share_one_commit_on_both() {
    for safes in Places::new().both() {
        let safe = safes.open("a").unwrap();
        let writes = [
            changes([put("text", b"five"), add("n", 5)]),
            changes([add("text", 1)]),
            Write { checks: vec![Check { key: "n".into(), version: 1 }], changes: vec![add("n", 2)] },
            Write { checks: vec![Check { key: "n".into(), version: 1 }], changes: vec![add("n", 9)] },
            changes([Change::Delete { key: "text".into() }, Change::Delete { key: "none".into() }]),
        ];
        let queued: Vec<_> = writes.into_iter().map(|write| safe.queue(write).unwrap()).collect();
        let outcomes: Vec<_> = queued.iter().map(|queued| safe.wait(queued, soon())).collect();
        assert_eq!(outcomes[0], Ok(Commit::Done { version: 1, results: vec![0, 5] }));
        assert_eq!(outcomes[1], Err(WriteError::NotANumber { key: "`text`".to_owned() }));
        assert_eq!(outcomes[2], Ok(Commit::Done { version: 2, results: vec![7] }));
        assert_eq!(outcomes[3], Ok(Commit::Conflict { check: 0 }));
        assert_eq!(outcomes[4], Ok(Commit::Done { version: 3, results: vec![1, 0] }));
        assert_eq!(safe.status().batches, 1);
    }
}

/// How often each of the eight threads adds; the run that counts says 10000.
fn additions() -> i64 {
    std::env::var("SAFE_ADDITIONS").ok().and_then(|number| number.parse().ok()).unwrap_or(100)
}

/// Eight threads over several hosts: sums and compare-and-set are exact.
fn exact_sums(safes: &[Arc<Safe>]) {
    let (times, conflicts) = (additions(), AtomicI64::new(0));
    thread::scope(|scope| {
        for index in 0..8 {
            let safe = &safes[index % safes.len()];
            let conflicts = &conflicts;
            scope.spawn(move || {
                for _ in 0..times {
                    version(safe.write(changes([add("sum", 1)]), soon()));
                    loop {
                        let found = safe.get(b"set", |entry| {
                            (entry.version, i64::from_le_bytes(entry.value.try_into().unwrap()))
                        });
                        let (version, count) = found.unwrap().unwrap_or_default();
                        let write = Write {
                            checks: vec![Check { key: "set".into(), version }],
                            changes: vec![put("set", &(count + 1).to_le_bytes())],
                        };
                        match safe.write(write, soon()).unwrap() {
                            Commit::Done { .. } => break,
                            Commit::Conflict { .. } => conflicts.fetch_add(1, Ordering::Relaxed),
                        };
                    }
                }
            });
        }
    });
    assert!(conflicts.load(Ordering::Relaxed) > 0, "nobody met anybody");
    for safe in safes {
        let Commit::Done { results, .. } = safe.write(changes([add("sum", 0)]), soon()).unwrap() else {
            panic!("a write without checks has none");
        };
        assert_eq!(results, [8 * times]);
        assert_eq!(value(safe, "set"), Some((8 * times).to_le_bytes().to_vec()));
    }
}

#[test]
fn sums_are_exact_on_a_real_disk() {
    let places = Places::new();
    exact_sums(&[places.on_file().open("a").unwrap()]);
}

#[test]
fn two_hosts_on_one_database_see_one_truth() {
    let places = Places::new();
    let (one, two) = (places.on_server().open("a").unwrap(), places.on_server().open("a").unwrap());
    let first = version(one.write(changes([put("k", b"1")]), soon()));
    assert_eq!(value(&two, "k"), Some(b"1".to_vec()));
    let second = version(two.write(changes([put("k", b"2")]), soon()));
    assert!(second > first, "{first} {second}");
    let stale =
        Write { checks: vec![Check { key: "k".into(), version: first }], changes: vec![put("k", b"3")] };
    assert_eq!(one.write(stale, soon()), Ok(Commit::Conflict { check: 0 }));
    exact_sums(&[one, two]);
}

#[test]
fn safes_of_one_server_are_apart() {
    let places = Places::new();
    let safes = places.on_server();
    assert_eq!(safes.names().unwrap(), Vec::<String>::new());
    assert!(safes.open_existing("a").unwrap().is_none());
    version(safes.open("a").unwrap().write(changes([put("k", b"of a")]), soon()));
    version(safes.open_shared("a").unwrap().write(changes([put("k", b"of all")]), soon()));
    assert_eq!(value(&safes.open("b").unwrap(), "k"), None);
    assert_eq!(value(&safes.open("a").unwrap(), "k"), Some(b"of a".to_vec()));
    assert_eq!(safes.names().unwrap(), ["@a", "a", "b"]);
}

#[test]
fn watch_hears_of_both_hosts_changes_once() {
    let places = Places::new();
    let (one, two) = (places.on_server().open("a").unwrap(), places.on_server().open("a").unwrap());
    let other = places.on_server().open("b").unwrap();
    let range = || (Bound::Included(b"j".to_vec()), Bound::Excluded(b"l".to_vec()));
    let watch = one.watch(range()).unwrap();
    version(other.write(changes([put("k", b"")]), soon()));
    version(two.write(changes([put("z", b"")]), soon()));
    version(two.write(changes([put("k", b"")]), soon()));
    assert_eq!(watch.next(soon()), Woken::Changed);
    version(one.write(changes([put("j", b"")]), soon()));
    assert_eq!(watch.next(Instant::now()), Woken::Changed);
    // Too many to be named: whoever watches looks.
    let many: Vec<Change> = (0..100).map(|number| put(&format!("m{number}"), b"")).collect();
    version(two.write(changes(many), soon()));
    assert_eq!(watch.next(soon()), Woken::Changed);
    // The server tells in order: what came before this was heard, and was not told twice.
    version(two.write(changes([put("k", b"")]), soon()));
    assert_eq!((watch.next(soon()), watch.next(Instant::now())), (Woken::Changed, Woken::TimedOut));
}

#[test]
fn server_that_was_restarted_is_used_again_and_nothing_is_lost() {
    let cluster = Cluster::private();
    let safes = on_server(&cluster.url(&cluster.create_database()));
    let safe = safes.open("a").unwrap();
    let watch = safe.watch((Bound::Unbounded, Bound::Unbounded)).unwrap();
    version(safe.write(changes([put("k", b"kept")]), soon()));
    assert_eq!(watch.next(soon()), Woken::Changed);
    cluster.stop(Shutdown::Fast);
    let error = safe.write(changes([put("k", b"lost")]), soon()).unwrap_err();
    assert!(matches!(error, WriteError::Unavailable { .. } | WriteError::Refused { .. }), "{error:?}");
    let error = safe.get(b"k", |_| ()).unwrap_err();
    assert!(
        matches!(&error, ReadError::Unavailable { reason } if reason.contains("postgres://127.0.0.1")),
        "{error}"
    );
    cluster.start();
    assert_eq!(value(&safe, "k"), Some(b"kept".to_vec()));
    // What was missed meanwhile is unknown, so the watch wakes.
    assert_eq!(watch.next(soon()), Woken::Changed);
    version(safe.write(changes([put("k", b"new")]), soon()));
    assert_eq!(watch.next(soon()), Woken::Changed);
}

/// The server dies under eight writers: what was acknowledged is there, and at most what was under way beside.
#[test]
fn killed_server_loses_no_acknowledged_write() {
    let cluster = Cluster::with(tests::postgres::Durability::Fsync);
    let safes = on_server(&cluster.url(&cluster.create_database()));
    let safe = safes.open("a").unwrap();
    for round in 0..3 {
        let acknowledged = AtomicI64::new(0);
        let unsure = AtomicI64::new(0);
        let before = safe.get(b"n", |entry| entry.version).unwrap().unwrap_or(0);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    loop {
                        match safe.write(changes([add("n", 1)]), soon()) {
                            Ok(_) => acknowledged.fetch_add(1, Ordering::SeqCst),
                            Err(WriteError::Indeterminate { .. }) => {
                                break unsure.fetch_add(1, Ordering::SeqCst);
                            }
                            Err(_) => break 0,
                        };
                    }
                });
            }
            while acknowledged.load(Ordering::SeqCst) < 50 {
                thread::yield_now();
            }
            cluster.kill9();
        });
        cluster.start();
        let after = safe.get(b"n", |entry| entry.version).unwrap().unwrap();
        let (told, unsure) = (acknowledged.into_inner(), unsure.into_inner());
        let made = i64::try_from(after - before).unwrap();
        assert!((told..=told + unsure).contains(&made), "round {round}: {told} + {unsure}, found {made}");
    }
}

#[test]
fn flipped_bit_on_the_server_is_an_error() {
    let places = Places::new();
    let safes = places.on_server();
    let safe = safes.open("a").unwrap();
    version(safe.write(changes([put("k", b"value"), put("fine", b"")]), soon()));
    let mut client = postgres::Client::connect(&places.url, postgres::NoTls).unwrap();
    let flip = "UPDATE safe_entries SET sealed = set_bit(sealed, 220, 1 - get_bit(sealed, 220)) \
                WHERE key = 'k'";
    assert_eq!(client.execute(flip, &[]).unwrap(), 1);
    assert_eq!(safe.get(b"k", |_| ()), Err(ReadError::Corrupt { key: "`k`".to_owned() }));
    let refused = safe.write(changes([add("k", 1)]), soon());
    assert_eq!(refused, Err(WriteError::Corrupt { key: "`k`".to_owned() }));
    let check: Order = serde_json::from_value(json!({ "order": "check", "safe": "a" })).unwrap();
    assert_eq!(safes.operate(&check).unwrap()["safes"][0]["damaged"], json!(["`k`"]));
    version(safe.write(changes([put("k", b"new")]), soon()));
    assert_eq!(value(&safe, "k"), Some(b"new".to_vec()));
}

/// There and back: versions, expiries and values are the same, and the next version is the next.
#[test]
fn safe_is_migrated_to_a_server_and_back() {
    let places = Places::new();
    let file = places.on_file();
    let safe = file.open("shop").unwrap();
    for number in 0..1200_u32 {
        let expiry = if number % 3 == 0 { Expiry::In(1 << 40) } else { Expiry::Never };
        let key = number.to_be_bytes().to_vec();
        safe.queue(changes([Change::Put { key, encoding: 1, value: vec![7; 90], expiry }])).unwrap();
    }
    safe.settle(soon()).unwrap();
    let before = contents(&safe);
    let order = |safes: &Safes, order: serde_json::Value| {
        let order: Order = serde_json::from_value(order).unwrap();
        safes.operate(&order).map_err(|error| error.to_string())
    };
    let there = json!({ "order": "migrate", "safe": "shop", "from": null, "to": places.url });
    assert!(order(&file, there.clone()).unwrap_err().contains("is in use"));
    file.close();
    let file = places.on_file();
    assert_eq!(order(&file, there.clone()).unwrap()["entries"], 1200);
    assert!(order(&file, there).unwrap_err().contains("with entries of its own"));

    let server = places.on_server();
    let safe = server.open("shop").unwrap();
    assert_eq!(contents(&safe), before);
    assert_eq!(version(safe.write(changes([put("next", b"")]), soon())), 1201);
    let after = contents(&safe);
    server.close();
    let elsewhere = tempfile::tempdir().unwrap();
    let fresh = Safes::new(elsewhere.path().to_owned());
    let back = json!({ "order": "migrate", "safe": "shop", "from": places.url, "to": null });
    assert_eq!(order(&fresh, back).unwrap()["entries"], 1201);
    let safe = fresh.open("shop").unwrap();
    assert_eq!(contents(&safe), after);
    assert_eq!(version(safe.write(changes([put("next", b"")]), soon())), 1202);
}

/// A whole host on a server: what was put survives restarts, and the command line finds it.
#[test]
fn host_keeps_its_safes_on_a_server() {
    let cluster = Cluster::shared();
    let url = cluster.url(&cluster.create_database());
    let launch = Launch::new();
    let config = launch.scratch().join("host.toml");
    std::fs::write(&config, format!("[host]\nsafe = \"{url}\"\n")).unwrap();
    launch.plugins().install("probe", "safe_later");
    let host = launch.arg("--config").arg(&config).start();
    let ask = |host: &TestHost, path: &str| {
        let response = host.get(path);
        assert_eq!(response.status, 200, "{path}: {}", response.text());
        response.text()
    };
    assert_eq!(ask(&host, "/probe/gated/n"), "counted");
    let expected = "2 false a b true 2 true dead a [(\"a\", 1)] 2 true 0";
    assert_eq!(ask(&host, "/probe/tour"), expected);
    let host = host.kill9().start();
    assert_eq!(ask(&host, "/probe/get/n"), "9 bytes, version 1");
    let arguments = ["--config", config.to_str().unwrap(), "--state", host.state_dir().to_str().unwrap()]
        .map(str::to_owned);
    let shown = |host: &TestHost| {
        let mut all = vec!["safe", "get", "probe", "n"];
        all.extend(arguments.iter().map(String::as_str));
        host.cli(&all).stdout
    };
    assert_eq!(shown(&host), "1\n");
    assert_eq!(host.api("/api/safes")["safes"][0]["trouble"], serde_json::Value::Null);
    assert!(!host.state_dir().join("safe/probe.redb").exists(), "it made a file nevertheless");
}
