//! What others make of the same disk: SQLite behind the same kind of group commit, BerkeleyDB from Python.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::{SPAN, VALUE};

/// A put that waits for its commit.
struct Put {
    key: Vec<u8>,
    done: SyncSender<()>,
}

/// Acknowledged puts per second: WAL, FULL, one committer that gathers as the safe does.
pub(super) fn sqlite(directory: &Path, writers: usize) -> f64 {
    let mut database = Connection::open(directory.join(format!("sqlite{writers}"))).expect("a new database");
    database
        .execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; CREATE TABLE t (k BLOB PRIMARY KEY, v BLOB) WITHOUT ROWID")
        .expect("SQLite works");
    let (queue, queued) = mpsc::sync_channel::<Put>(1024);
    let (stop, done) = (AtomicBool::new(false), AtomicU64::new(0));
    let begun = Instant::now();
    thread::scope(|scope| {
        scope.spawn(move || commit(&mut database, &queued));
        for writer in 0..writers {
            let (queue, stop, done) = (queue.clone(), &stop, &done);
            scope.spawn(move || {
                let (tell, told) = mpsc::sync_channel(1);
                let mut number = 0_u64;
                while !stop.load(Ordering::Relaxed) {
                    let key = format!("{writer}:{}", number % 1000).into_bytes();
                    queue.send(Put { key, done: tell.clone() }).expect("the committer runs");
                    told.recv().expect("the committer answers");
                    done.fetch_add(1, Ordering::Relaxed);
                    number += 1;
                }
            });
        }
        drop(queue);
        thread::sleep(SPAN);
        stop.store(true, Ordering::Relaxed);
    });
    done.into_inner() as f64 / begun.elapsed().as_secs_f64()
}

/// Commits what is queued, waiting for as many as came last time or half a commit, at most 0.5 ms.
fn commit(database: &mut Connection, queued: &Receiver<Put>) {
    let (mut expected, mut took) = (1, Duration::ZERO);
    while let Ok(first) = queued.recv() {
        let mut batch = vec![first];
        let until = Instant::now() + (took / 2).min(Duration::from_micros(500));
        loop {
            batch.extend(queued.try_iter());
            if batch.len() >= expected {
                break;
            }
            match queued.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(put) => batch.push(put),
                Err(_) => break,
            }
        }
        let begun = Instant::now();
        let transaction = database.transaction().expect("SQLite works");
        {
            let sql = "INSERT INTO t VALUES (?1, ?2) ON CONFLICT (k) DO UPDATE SET v = excluded.v";
            let mut statement = transaction.prepare_cached(sql).expect("SQLite works");
            for put in &batch {
                statement.execute((&put.key, &VALUE[..])).expect("SQLite works");
            }
        }
        transaction.commit().expect("the disk works");
        took = begun.elapsed();
        expected = batch.len();
        for put in batch {
            // A writer waits for each.
            let _ = put.done.send(());
        }
    }
}

/// The ancestor's store, as it used it. Prints why where it is not installed.
pub(super) fn berkeley_db(directory: &Path) {
    const SCRIPT: &str = "
import os, sys, threading, time
from berkeleydb import db
home = sys.argv[1]; os.makedirs(home)
env = db.DBEnv()
env.open(home, db.DB_CREATE | db.DB_INIT_MPOOL | db.DB_INIT_TXN | db.DB_INIT_LOG | db.DB_INIT_LOCK | db.DB_THREAD)
store = db.DB(env)
store.open('bench.db', dbtype=db.DB_BTREE, flags=db.DB_CREATE | db.DB_AUTO_COMMIT | db.DB_THREAD)
value = b'v' * 100
def rate(writers, span=2.0):
    counts = [0] * writers
    end = time.monotonic() + span
    def put(index):
        while time.monotonic() < end:
            key = b'%d:%d' % (index, counts[index] % 1000)
            while True:
                try:
                    store.put(key, value); break
                except db.DBLockDeadlockError:
                    pass
            counts[index] += 1
    threads = [threading.Thread(target=put, args=(index,)) for index in range(writers)]
    [thread.start() for thread in threads]; [thread.join() for thread in threads]
    return sum(counts) / span
print('BerkeleyDB from Python: put, 1 writer: %.0f per second' % rate(1))
print('BerkeleyDB from Python: put, 8 writers: %.0f per second' % rate(8))
begun = time.perf_counter()
for number in range(100000):
    store.get(b'0:%d' % (number % 1000))
print('BerkeleyDB from Python: get: %.0f ns' % ((time.perf_counter() - begun) * 1e4))
store.close(); env.close()
";
    let output = Command::new("python3").args(["-c", SCRIPT]).arg(directory.join("berkeley")).output();
    match output {
        Ok(output) if output.status.success() => print!("{}", String::from_utf8_lossy(&output.stdout)),
        _ => println!("BerkeleyDB from Python: none; `apt-get install libdb-dev`, `pip install berkeleydb`"),
    }
}
