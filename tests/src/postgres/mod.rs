//! A throw-away PostgreSQL server.
//!
//! Owns: one cluster in a directory of its own, listening on a free port of 127.0.0.1 and on a Unix
//! socket, everybody trusted; stopping, killing, pausing and starting it again; what its log says
//! about connections. Does not own: the server's binaries (`binaries`), the end of everything
//! ([`crate::guard`]).
//!
//! # Invariants
//!
//! - Every test works in a database of its own, so tests may share a server and run in parallel. A test
//!   that stops or kills its server starts a private one.
//! - The server never runs as root: started by root, it becomes another user.

mod binaries;
mod bouncer;

use std::fs::{self, File};
use std::io;
use std::net::TcpListener;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};

use ::postgres::{Client, NoTls};

use self::binaries::Binaries;
pub use self::bouncer::Bouncer;
use crate::guard::{self, Guard};
use crate::wait::{SOON, eventually};

/// How a server is asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// Sessions are ended in an orderly way.
    Fast,
    /// The server drops everything and recovers at its next start.
    Immediate,
}

/// How much a cluster cares for its files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Commits wait for the disk, as in production.
    Fsync,
    /// They do not; a crash of the server loses nothing all the same, only one of the machine would.
    NoFsync,
}

/// A PostgreSQL server that goes when this value goes, or with the test process.
#[derive(Debug)]
pub struct Cluster {
    binaries: Binaries,
    durability: Durability,
    port: u16,
    /// The postmaster while it runs. Written by `start`, `stop` and `kill9`.
    server: Mutex<Option<Child>>,
    databases: AtomicU32,
    guard: Guard,
}

impl Cluster {
    /// The server that all tests of this process share. Do not stop it.
    pub fn shared() -> &'static Cluster {
        static SHARED: OnceLock<Cluster> = OnceLock::new();
        SHARED.get_or_init(Cluster::private)
    }

    /// A server for one test, to be stopped and killed as it likes.
    ///
    /// # Panics
    ///
    /// When the binaries are missing or the server does not start: with its words.
    pub fn private() -> Cluster {
        Cluster::with(Durability::NoFsync)
    }

    /// A private server of the given durability.
    ///
    /// # Panics
    ///
    /// As [`Cluster::private`].
    pub fn with(durability: Durability) -> Cluster {
        let binaries = Binaries::find();
        let guard = Guard::new("pg").expect("/tmp is writable");
        if let Some((uid, gid)) = binaries.owner {
            chown(guard.dir(), Some(uid), Some(gid)).expect("root may give files away");
        }
        let port = free_port().expect("a free port on 127.0.0.1");
        let cluster = Cluster {
            binaries,
            durability,
            port,
            server: Mutex::new(None),
            databases: AtomicU32::new(0),
            guard,
        };
        cluster.init();
        cluster.start();
        cluster
    }

    /// Address of a database, over TCP.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// Address of a database, over the Unix socket.
    pub fn socket_url(&self, database: &str) -> String {
        let directory = self.guard.dir().display();
        format!("postgres:///{database}?user=postgres&host={directory}&port={}", self.port)
    }

    /// As which user and group its processes run, if not as this one.
    pub(crate) fn owner(&self) -> Option<(u32, u32)> {
        self.binaries.owner
    }

    /// The port, for addresses of the test's own.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Makes an empty database and returns its name, unique in this cluster.
    pub fn create_database(&self) -> String {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.connect("postgres")
            .batch_execute(&format!("CREATE DATABASE {name}"))
            .expect("creating a database");
        name
    }

    /// A connection of the test's own. It counts in [`Cluster::connections_opened`] of its database.
    ///
    /// # Panics
    ///
    /// When the server does not take it.
    #[track_caller]
    pub fn connect(&self, database: &str) -> Client {
        match Client::connect(&self.url(database), NoTls) {
            Ok(client) => client,
            Err(error) => panic!("connecting to {}: {error}\n{}", self.url(database), self.log()),
        }
    }

    /// How many connections to `database` the server has admitted since it was made.
    pub fn connections_opened(&self, database: &str) -> usize {
        self.count("connection authorized: ", database)
    }

    /// How many connections to `database` have ended, in whatever way the server could still log.
    pub fn connections_closed(&self, database: &str) -> usize {
        self.count("disconnection: ", database)
    }

    /// Counts lines of the log; the server writes one for each connection that comes or goes.
    fn count(&self, event: &str, database: &str) -> usize {
        let database = format!("database={database}");
        self.log()
            .lines()
            .filter(|line| line.contains(event) && line.split(' ').any(|word| word == database))
            .count()
    }

    /// Everything the server has said.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// The directory of data, socket and log.
    pub fn dir(&self) -> &std::path::Path {
        self.guard.dir()
    }

    /// The postmaster's process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.lock().as_ref().map(Child::id)
    }

    /// Starts the server after `stop` or `kill9`, on the same port, and waits until it answers.
    ///
    /// # Panics
    ///
    /// When it runs already, or does not come up: with its words.
    pub fn start(&self) {
        let mut server = self.lock();
        assert!(server.is_none(), "the server runs already");
        let mut child = self.spawn().expect("the server's binary was found");
        self.guard.watch_process("QUIT", child.id());
        eventually(SOON, "PostgreSQL to answer", || {
            if let Ok(Some(status)) = child.try_wait() {
                panic!("PostgreSQL ended at its start ({status}):\n{}", self.log());
            }
            Client::connect(&self.url("postgres"), NoTls).map(drop)
        });
        *server = Some(child);
    }

    /// Stops the server and waits until it is gone.
    ///
    /// # Panics
    ///
    /// When it does not run.
    pub fn stop(&self, how: Shutdown) {
        let mut child = self.lock().take().expect("the server runs");
        guard::signal(if how == Shutdown::Fast { "INT" } else { "QUIT" }, &[child.id()]);
        self.wait_for(&mut child);
    }

    /// Kills the server and all its sessions without a word, as an out-of-memory killer would.
    ///
    /// # Panics
    ///
    /// When it does not run.
    pub fn kill9(&self) {
        let mut child = self.lock().take().expect("the server runs");
        let family = guard::family(child.id());
        guard::signal("KILL", &family);
        self.wait_for(&mut child);
        // The sessions are not our children, and their memory must be free before the next start.
        eventually(SOON, "PostgreSQL's sessions to end", || {
            match family.iter().find(|pid| guard::is_running(**pid)) {
                Some(pid) => Err(format!("process {pid} runs")),
                None => Ok(()),
            }
        });
    }

    /// Freezes the server: connections stay open and nobody answers.
    ///
    /// # Panics
    ///
    /// When it does not run.
    pub fn pause(&self) {
        guard::signal("STOP", &guard::family(self.pid().expect("the server runs")));
    }

    /// Lets a paused server go on.
    ///
    /// # Panics
    ///
    /// When it does not run.
    pub fn resume(&self) {
        guard::signal("CONT", &guard::family(self.pid().expect("the server runs")));
    }

    fn init(&self) {
        let output = self
            .command("initdb")
            .args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "-D"])
            .arg(self.data_dir())
            .output()
            .expect("the server's binaries were found");
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "initdb failed ({}):\n{words}", output.status);
    }

    fn spawn(&self) -> io::Result<Child> {
        let log = File::options().create(true).append(true).open(self.log_file())?;
        let fsync = if self.durability == Durability::Fsync { "on" } else { "off" };
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.data_dir());
        for setting in [
            "listen_addresses=127.0.0.1",
            &format!("port={}", self.port),
            &format!("unix_socket_directories={}", self.guard.dir().display()),
            &format!("fsync={fsync}"),
            "max_connections=200",
            "shared_buffers=16MB",
            "log_connections=on",
            "log_disconnections=on",
        ] {
            command.args(["-c", setting]);
        }
        // In a group of its own: an interrupt from the keyboard is the guard's business.
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn()
    }

    /// A program of the server's, run as the user that owns the cluster.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.binaries.dir.join(program));
        command.current_dir(self.guard.dir()).env("LC_ALL", "C");
        if let Some((uid, gid)) = self.binaries.owner {
            command.uid(uid).gid(gid);
        }
        command
    }

    fn wait_for(&self, child: &mut Child) {
        eventually(SOON, "PostgreSQL to end", || match child.try_wait() {
            Ok(Some(_)) => Ok(()),
            other => Err(format!("{other:?}")),
        });
        self.guard.forget(child.id());
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Child>> {
        // A panic in `start` leaves `None` or a running server behind; both are true.
        self.server.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn data_dir(&self) -> PathBuf {
        self.guard.dir().join("data")
    }

    fn log_file(&self) -> PathBuf {
        self.guard.dir().join("log")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(mut child) = self.lock().take() {
            // Paused, it would never hear of its end.
            let family = guard::family(child.id());
            guard::signal("QUIT", &[child.id()]);
            guard::signal("CONT", &family);
            self.wait_for(&mut child);
        }
    }
}

/// A port that was free a moment ago. The system does not hand it out again soon.
pub(crate) fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
