//! What others make of the same disk: SQLite behind the same kind of group commit, BerkeleyDB from Python.

use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::value;

/// A put that waits for its commit.
struct Put {
    key: Vec<u8>,
    value: Vec<u8>,
    done: SyncSender<()>,
}

/// SQLite with a log, synced at each commit, and one committer that gathers as the safe does.
pub(super) struct Lite {
    queue: SyncSender<Put>,
    committer: JoinHandle<u64>,
}

impl Lite {
    pub(super) fn open(path: &Path) -> Lite {
        let mut database = Connection::open(path).expect("a new database");
        let tables = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
                      CREATE TABLE t (k BLOB PRIMARY KEY, v BLOB) WITHOUT ROWID";
        database.execute_batch(tables).expect("SQLite works");
        let (queue, queued) = mpsc::sync_channel::<Put>(1024);
        Lite { queue, committer: thread::spawn(move || commit(&mut database, &queued)) }
    }

    /// Puts for one writer, waiting for the commit each time.
    pub(super) fn writer(&self) -> impl FnMut(Vec<u8>, u64) + Send + use<> {
        let queue = self.queue.clone();
        let (tell, told) = mpsc::sync_channel(1);
        move |key, number| {
            let put = Put { key, value: value(number), done: tell.clone() };
            queue.send(put).expect("the committer runs");
            told.recv().expect("the committer answers");
        }
    }

    /// Ends it; tells how many commits there were, each of which is one sync.
    pub(super) fn close(self) -> u64 {
        drop(self.queue);
        self.committer.join().expect("the committer does not panic")
    }
}

/// Commits what is queued, waiting for as many as came last time or half a commit, at most 0.5 ms.
fn commit(database: &mut Connection, queued: &Receiver<Put>) -> u64 {
    let (mut expected, mut took, mut commits) = (1, Duration::ZERO, 0);
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
                statement.execute((&put.key, &put.value)).expect("SQLite works");
            }
        }
        transaction.commit().expect("the disk works");
        took = begun.elapsed();
        expected = batch.len();
        commits += 1;
        for put in batch {
            // A writer waits for each.
            let _ = put.done.send(());
        }
    }
    commits
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
value = b'v' * 92
def rate(writers, span=2.0):
    counts = [0] * writers
    end = time.monotonic() + span
    def put(index):
        while time.monotonic() < end:
            key = b'%d:%d' % (index, counts[index] % 1000)
            while True:
                try:
                    store.put(key, value + b'%08d' % counts[index]); break
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
