//! The PostgreSQL driver.
//!
//! Owns the address, the statement cache and the session of each connection. What a value looks like
//! on the wire is `params.rs` and `cells.rs`; which error means a broken connection, `error.rs`.
//!
//! # Invariants
//!
//! - A commit is preceded by a statement that fails in a spoilt transaction, in the same message: the
//!   server itself decides whether there is something to commit.
//! - A statement is run a second time only outside of a transaction and only after an error that the
//!   server raises before it runs anything.

mod array;
mod cancel;
mod cells;
mod client;
mod connection;
mod copy;
mod error;
mod listen;
mod params;
mod pooled;
mod prepared;
mod stream;
mod text;
mod tls;
mod url;

use std::fmt::Write as _;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use tokio_postgres::config::{Config, Host, TargetSessionAttrs};
use tokio_postgres_rustls::MakeRustlsConnect;

use self::client::Client;
use self::connection::Open;
pub use self::listen::{Listener, ListenerStatus, Notice};
use super::{ConfigError, ConnectError, Connection, Driver};

/// How long a connection may take to be ready, for each host of the URL, unless the URL says otherwise.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The first keepalive probe; the driver's own default is two hours.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
/// Between keepalive probes.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// How long sent bytes may stay unacknowledged.
const ACKNOWLEDGE_TIMEOUT: Duration = Duration::from_secs(30);

/// Most tries that may wait for a silent server at a time.
const MOST_HANGING: usize = 64;

/// Connects to one PostgreSQL database.
pub struct Postgres {
    config: Config,
    tls: MakeRustlsConnect,
    address: String,
    /// Whether the sessions are named after whose statements run; not where the URL names them.
    announces: bool,
    /// Whether a pooler gives each transaction another session.
    is_pooled: bool,
    /// Tries to connect that wait for a server which accepted and says nothing. Each has a thread.
    hanging: Arc<AtomicUsize>,
}

impl Postgres {
    /// Reads a `postgres://...` URL.
    ///
    /// # Errors
    ///
    /// When it is malformed, or the roots it trusts cannot be read.
    pub fn parse(url: &str) -> Result<Postgres, ConfigError> {
        let url::Settings { url, is_pooled } = url::settings(url)?;
        let (plain, wanted) = tls::Wanted::take_from(&url)?;
        let mut config = Config::from_str(&plain)
            .map_err(|error| ConfigError::Address { driver: "postgres", reason: error::chain(&error) })?;
        config.ssl_mode(wanted.ssl_mode());
        let tls = wanted.connector()?;
        let address = address(&config);
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_TIMEOUT);
        }
        if !url.contains("keepalives_idle=") {
            config.keepalives_idle(KEEPALIVE_IDLE);
        }
        if config.get_keepalives_interval().is_none() {
            config.keepalives_interval(KEEPALIVE_INTERVAL);
        }
        if config.get_tcp_user_timeout().is_none() {
            config.tcp_user_timeout(ACKNOWLEDGE_TIMEOUT);
        }
        let announces = config.get_application_name().is_none();
        if announces {
            config.application_name("host");
        }
        Ok(Postgres { config, tls, address, announces, is_pooled, hanging: Arc::default() })
    }

    /// How long `connect` waits.
    fn patience(&self) -> Duration {
        let hosts = u32::try_from(self.config.get_hosts().len()).unwrap_or(u32::MAX).max(1);
        let each = self.config.get_connect_timeout().copied().unwrap_or(CONNECT_TIMEOUT);
        each.saturating_mul(hosts)
    }

    /// Connects, and makes the connection ready.
    fn dial<T: Send + 'static>(
        &self,
        ready: impl FnOnce(Client) -> Result<T, tokio_postgres::Error> + Send + 'static,
    ) -> Result<T, ConnectError> {
        let unreachable = |reason: String, sqlstate: Option<String>| ConnectError::Unreachable {
            address: self.address.clone(),
            reason,
            sqlstate,
        };
        let patience = self.patience();
        let hanging = Hanging::begin(&self.hanging)
            .ok_or_else(|| unreachable(format!("no answer to {MOST_HANGING} earlier tries"), None))?;
        // The driver's own time-out ends with the socket; a server that accepts and then says nothing
        // would hold the caller for ever. So it holds a thread, which ends when the server speaks or goes.
        let (sender, receiver) = mpsc::sync_channel(1);
        let (config, tls) = (self.config.clone(), self.tls.clone());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| unreachable(format!("no runtime for it: {error}"), None))?;
        std::thread::Builder::new()
            .name("db-connect".to_owned())
            .spawn(move || {
                let _hanging = hanging;
                // Nobody may be waiting any more; the connection is closed then.
                let _ = sender.send(Client::connect(runtime, &config, tls).and_then(ready));
            })
            .map_err(|error| unreachable(format!("no thread for it: {error}"), None))?;
        match receiver.recv_timeout(patience) {
            Ok(Ok(ready)) => Ok(ready),
            Ok(Err(error)) => {
                let sqlstate = error.code().map(|code| code.code().to_owned());
                Err(unreachable(error::chain(&error), sqlstate))
            }
            Err(RecvTimeoutError::Timeout) => {
                Err(unreachable(format!("no answer within {} s", patience.as_secs()), None))
            }
            Err(RecvTimeoutError::Disconnected) => Err(unreachable("the driver panicked".to_owned(), None)),
        }
    }
}

/// Where the database is, from the parts that are not secret.
fn address(config: &Config) -> String {
    let mut address = "postgres://".to_owned();
    if let Some(user) = config.get_user() {
        address.push_str(user);
        address.push('@');
    }
    for (index, host) in config.get_hosts().iter().enumerate() {
        let separator = if index == 0 { "" } else { "," };
        let port = config.get_ports().get(index).or(config.get_ports().first()).copied().unwrap_or(5432);
        let host = match host {
            Host::Tcp(name) => name.clone(),
            Host::Unix(path) => path.display().to_string(),
        };
        // Writing to a `String` cannot fail.
        let _ = write!(address, "{separator}{host}:{port}");
    }
    if let Some(name) = config.get_dbname() {
        address.push('/');
        address.push_str(name);
    }
    address
}

impl std::fmt::Debug for Postgres {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Postgres").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Driver for Postgres {
    fn name(&self) -> &'static str {
        "postgres"
    }

    fn address(&self) -> &str {
        &self.address
    }

    fn connect(&self) -> Result<Box<dyn Connection>, ConnectError> {
        let (tls, announces, is_pooled) = (self.tls.clone(), self.announces, self.is_pooled);
        let wants_writes = self.config.get_target_session_attrs() == TargetSessionAttrs::ReadWrite;
        let open = self.dial(move |client| Open::new(client, tls, announces, is_pooled, wants_writes))?;
        Ok(Box::new(open))
    }
}

/// A try that is counted until it ends.
struct Hanging(Arc<AtomicUsize>);

impl Hanging {
    /// Nothing, if there are too many.
    fn begin(count: &Arc<AtomicUsize>) -> Option<Hanging> {
        let hanging = Hanging(count.clone());
        (count.fetch_add(1, Ordering::AcqRel) < MOST_HANGING).then_some(hanging)
    }
}

impl Drop for Hanging {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests;
