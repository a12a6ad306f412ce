//! Connections to the server, and the tables there.

use std::str::FromStr as _;
use std::time::{Duration, Instant, SystemTime};

use postgres::config::Host;
use postgres::{Client, Config, NoTls};

use super::super::error::OpenError;
use super::super::store::FORMAT;
use super::ahead;

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long sent bytes may stay unacknowledged, and how often an idle connection is probed.
const PATIENCE: Duration = Duration::from_secs(15);
/// Every session: a commit waits for the disk, and nothing waits for ever.
const SESSION: &str = "SET statement_timeout = '30s'; SET lock_timeout = '10s'; \
    SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') \
    IN ('off', 'local')";
/// The tables. Whoever makes them first keeps others out with a lock of the server's.
const SCHEMA: &str = "SELECT pg_advisory_xact_lock(8317987319222330741);
    CREATE TABLE IF NOT EXISTS safe_meta (safe text PRIMARY KEY, format bigint NOT NULL, \
        sequence bigint NOT NULL, batch bigint NOT NULL);
    CREATE TABLE IF NOT EXISTS safe_entries (safe text NOT NULL, key bytea NOT NULL, version bigint NOT NULL, \
        expires_at bigint NOT NULL, sealed bytea NOT NULL, PRIMARY KEY (safe, key));
    CREATE INDEX IF NOT EXISTS safe_expiries ON safe_entries (safe, expires_at) WHERE expires_at <> 0";

/// A server and a database on it.
#[derive(Clone)]
pub(in crate::safe) struct Server {
    config: Config,
    place: String,
}

/// A connection.
pub(super) struct Session {
    pub(super) client: Client,
    /// How far the server's clock is ahead.
    pub(super) skew_ms: i64,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without the password.
        f.debug_tuple("Server").field(&self.place).finish()
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

impl Server {
    /// Reads a `postgres://...` URL.
    pub(in crate::safe) fn parse(url: &str) -> Result<Server, OpenError> {
        let wrong = |reason: String| OpenError::Server { place: "the URL".to_owned(), reason };
        let mut config = Config::from_str(url).map_err(|error| wrong(words(&error)))?;
        let host = match config.get_hosts().first() {
            Some(Host::Tcp(name)) => name.clone(),
            Some(Host::Unix(path)) => path.display().to_string(),
            None => "localhost".to_owned(),
        };
        let port = config.get_ports().first().copied().unwrap_or(5432);
        let database = config.get_dbname().or(config.get_user()).unwrap_or_default();
        let place = format!("postgres://{host}:{port}/{database}");
        config.connect_timeout(CONNECT_TIMEOUT).keepalives_idle(PATIENCE).tcp_user_timeout(PATIENCE);
        config.application_name("host safe");
        Ok(Server { config, place })
    }

    /// Where it is, without secrets.
    pub(in crate::safe) fn place(&self) -> &str {
        &self.place
    }

    pub(super) fn refused(&self, reason: String) -> OpenError {
        OpenError::Server { place: self.place.clone(), reason }
    }

    /// A new session, ready for use.
    pub(super) fn connect(&self) -> Result<Session, String> {
        let ready = |config: &Config| -> Result<Session, postgres::Error> {
            let mut client = config.connect(NoTls)?;
            client.batch_execute(SESSION)?;
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            let (asked, ours) = (Instant::now(), i64::try_from(now.as_millis()).unwrap_or(i64::MAX));
            let row =
                client.query_one("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint", &[])?;
            Ok(Session { skew_ms: ahead(row.get(0), asked, ours), client })
        };
        ready(&self.config).map_err(|error| format!("{}: {}", self.place, words(&error)))
    }

    /// The names of all safes there, sorted.
    pub(in crate::safe) fn names(&self) -> Result<Vec<String>, OpenError> {
        let mut session = self.connect().map_err(|reason| self.refused(reason))?;
        let failed = |error: postgres::Error| self.refused(words(&error));
        let has_table =
            session.client.query_one("SELECT to_regclass('safe_meta') IS NOT NULL", &[]).map_err(failed)?;
        if !has_table.get::<_, bool>(0) {
            return Ok(Vec::new());
        }
        let rows = session.client.query("SELECT safe FROM safe_meta", &[]).map_err(failed)?;
        let mut names: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        names.sort();
        Ok(names)
    }
}

impl Session {
    /// Makes the tables and the row of a safe where they are missing.
    pub(super) fn make_safe(&mut self, name: &str) -> Result<(), postgres::Error> {
        let mut transaction = self.client.transaction()?;
        transaction.batch_execute(SCHEMA)?;
        transaction.execute(
            "INSERT INTO safe_meta VALUES ($1, $2, 0, 0) ON CONFLICT DO NOTHING",
            &[&name, &super::signed(FORMAT)],
        )?;
        transaction.commit()
    }
}

/// An error in the server's words, or in those of the driver and its causes.
pub(super) fn words(error: &postgres::Error) -> String {
    if let Some(error) = error.as_db_error() {
        return format!("{} ({})", error.message(), error.code().code());
    }
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
