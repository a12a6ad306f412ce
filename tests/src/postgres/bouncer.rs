//! A throw-away pgbouncer in transaction mode, in front of a throw-away cluster.

use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

use ::postgres::{Client, NoTls};

use super::{Cluster, free_port};
use crate::guard::{self, Guard};
use crate::wait::{SOON, eventually};

/// A pooler that goes when this value goes, or with the test process.
#[derive(Debug)]
pub struct Bouncer {
    port: u16,
    server: Child,
    guard: Guard,
}

impl Bouncer {
    /// Starts one with two server sessions for each database, so that clients do share them. It asks for a
    /// server that went away five times a second; its own default is every 15 s.
    ///
    /// # Panics
    ///
    /// When there is no `pgbouncer`, or it does not answer: with its words.
    pub fn start(cluster: &Cluster) -> Bouncer {
        let guard = Guard::new("bouncer").expect("/tmp is writable");
        let port = free_port().expect("a free port on 127.0.0.1");
        let log = guard.dir().join("log");
        let config = format!(
            "[databases]\n* = host=127.0.0.1 port={} user=postgres\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
             auth_type = any\npool_mode = transaction\ndefault_pool_size = 2\nserver_login_retry = 0.2\n\
             logfile = {}\n",
            cluster.port(),
            log.display()
        );
        let file = guard.dir().join("pgbouncer.ini");
        fs::write(&file, config).expect("the directory was just made");
        let binary = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer", "/usr/local/bin/pgbouncer"]
            .into_iter()
            .find(|path| std::path::Path::new(path).exists())
            .expect("pgbouncer: run the tests with `./tests/run`, which installs it");
        let mut command = Command::new(binary);
        command.arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        if let Some((uid, gid)) = cluster.owner() {
            chown(guard.dir(), Some(uid), Some(gid)).expect("root may give files away");
            command.uid(uid).gid(gid);
        }
        let mut server = command.spawn().expect("the binary was found");
        guard.watch_process("INT", server.id());
        eventually(SOON, "pgbouncer to answer", || {
            if let Ok(Some(status)) = server.try_wait() {
                panic!("pgbouncer ended ({status}):\n{}", fs::read_to_string(&log).unwrap_or_default());
            }
            Client::connect(&url(port, "postgres"), NoTls).map(drop)
        });
        Bouncer { port, server, guard }
    }

    /// Address of a database, through the pooler.
    pub fn url(&self, database: &str) -> String {
        url(self.port, database)
    }
}

fn url(port: u16, database: &str) -> String {
    format!("postgres://postgres@127.0.0.1:{port}/{database}")
}

impl Drop for Bouncer {
    fn drop(&mut self) {
        // It has nothing to lose; and whoever runs the tests in the background has it ignore milder signals.
        guard::signal("KILL", &[self.server.id()]);
        eventually(SOON, "pgbouncer to end", || match self.server.try_wait() {
            Ok(Some(_)) => Ok(()),
            other => Err(format!("{other:?}")),
        });
        self.guard.forget(self.server.id());
    }
}
