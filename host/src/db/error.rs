//! Why a database operation failed, one enum per operation.

use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

use super::ErrorDetails;
use super::interrupt::Reason;

/// Why a URL or a setting was refused. Nothing was opened.
#[derive(Clone, Debug, Error)]
pub enum ConfigError {
    /// No driver has this scheme.
    #[error("`{scheme}:` names no database: write `postgres://user@host/database` or `sqlite:PATH`")]
    Scheme {
        /// What stands before the colon.
        scheme: String,
    },
    /// The rest of the URL.
    #[error("bad address of a {driver} database: {reason}")]
    Address {
        /// The driver.
        driver: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

/// Why no connection was made. Cloned for everybody who waits for one.
#[derive(Clone, Debug, Error)]
pub enum ConnectError {
    /// The database did not answer, or refused.
    #[error("cannot connect to {address}: {reason}")]
    Unreachable {
        /// The address without its password.
        address: String,
        /// The driver's words.
        reason: String,
        /// SQLSTATE, if it was the database that refused.
        sqlstate: Option<String>,
    },
    /// The database did not answer some moments ago; nobody asked it again for this caller.
    #[error(
        "{address} has been down for {}, next try in {}: {reason}", seconds(.since), seconds(.retry_in)
    )]
    Down {
        /// The address without its password.
        address: String,
        /// What the last try said.
        reason: String,
        /// Since when.
        since: Duration,
        /// Until somebody tries again.
        retry_in: Duration,
    },
    /// A statement of the session failed on the new connection, which was closed.
    #[error("connected to {address}, but `{statement}` of its session failed: {reason}")]
    Session {
        /// The address without its password.
        address: String,
        /// The statement.
        statement: String,
        /// The database's words.
        reason: String,
        /// SQLSTATE, if the database knows.
        sqlstate: String,
    },
    /// The directory of a database file could not be made.
    #[error("cannot create directory {}: {reason}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The operating system's words.
        reason: String,
    },
}

impl ConnectError {
    /// Whether the database is there and refuses, other than because it is starting or stopping.
    pub(super) fn is_refusal(&self) -> bool {
        match self {
            ConnectError::Unreachable { sqlstate, .. } => {
                sqlstate.as_ref().is_some_and(|code| !code.starts_with("57P"))
            }
            ConnectError::Down { .. } => false,
            ConnectError::Session { .. } | ConnectError::Directory { .. } => true,
        }
    }

    /// Whether the database is there and has no room for one more connection: of all, of this role, of a pooler; or it
    /// is starting or stopping.
    pub(super) fn is_full(&self) -> bool {
        match self {
            ConnectError::Unreachable { sqlstate: Some(code), reason, .. } => {
                matches!(code.as_str(), "53300" | "57P03") || reason.contains("no more connections allowed")
            }
            _ => false,
        }
    }

    /// What went wrong, without the address.
    pub(super) fn reason(&self) -> String {
        match self {
            ConnectError::Unreachable { reason, .. } | ConnectError::Down { reason, .. } => reason.clone(),
            ConnectError::Session { .. } | ConnectError::Directory { .. } => self.to_string(),
        }
    }
}

/// Why a pool was not opened. Nothing is left behind.
#[derive(Clone, Debug, Error)]
pub enum OpenError {
    /// The URL.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The first connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// A pool of no connections.
    #[error("`max_size` is 0: a pool needs at least one connection")]
    NoSize,
    /// A limit that contradicts another one.
    #[error("`{name}` is {value}, more than `{limit_name}`, which is {limit}")]
    TooMany {
        /// The setting.
        name: &'static str,
        /// What it says.
        value: u32,
        /// The setting that it exceeds.
        limit_name: &'static str,
        /// What that one says.
        limit: u32,
    },
    /// A duration of nothing where that makes no sense.
    #[error("`{name}` is zero: leave it out to have none")]
    ZeroDuration {
        /// The setting.
        name: &'static str,
    },
    /// A class of failures that is none.
    #[error("`is_fatal` has `{code}`: write five characters, an SQLSTATE, or two, a class of them")]
    Sqlstate {
        /// What stands there.
        code: String,
    },
    /// A statement that is empty.
    #[error("`{name}` has an empty statement")]
    EmptyStatement {
        /// The setting.
        name: &'static str,
    },
    /// Bits that mean nothing.
    #[error("`ping` is {bits}: add up 1 (checkout), 2 (statement) and 4 (query)")]
    PingBits {
        /// What was given.
        bits: u32,
    },
    /// A connection for each thread would be a database for each thread.
    #[error("{address} is one connection: a connection for each thread would be a database for each")]
    OneConnection {
        /// The address.
        address: String,
    },
    /// Connections of this driver cannot be shared.
    #[error("`max_shared` is {max_shared}, but a connection of {driver} has one user at a time")]
    NotShareable {
        /// The driver.
        driver: &'static str,
        /// What was asked for.
        max_shared: u32,
    },
}

/// Why no connection was lent out. The pool is as it was.
#[derive(Clone, Debug, Error)]
pub enum CheckoutError {
    /// All connections stayed lent out.
    #[error(
        "all {max_size} connections to {address} are lent out, waited {}: return them sooner or raise `max_size`",
        seconds(.waited)
    )]
    Exhausted {
        /// The address without its password.
        address: String,
        /// How many connections the pool may have.
        max_size: u32,
        /// How long the caller waited.
        waited: Duration,
    },
    /// The caller has all connections itself.
    #[error(
        "the {max_size} connections of the pool to {address} are all this request's own, so it would wait for itself \
         (waited {}): use the request's transaction for all it does, return connections before asking for another one, \
         or raise `max_size`",
        seconds(.waited)
    )]
    OwnWork {
        /// The address without its password.
        address: String,
        /// How many connections the pool may have.
        max_size: u32,
        /// How long the caller waited.
        waited: Duration,
    },
    /// The database takes no more connections, and those that there are stayed lent out.
    #[error(
        "{address} takes no more connections ({reason}), and the {open} of this pool are lent out, waited {}: \
         lower `max_size`, or raise the limit of the server",
        seconds(.waited)
    )]
    Full {
        /// The address without its password.
        address: String,
        /// How many connections the pool has.
        open: u32,
        /// How long the caller waited.
        waited: Duration,
        /// The database's words.
        reason: String,
    },
    /// The database is down.
    #[error(transparent)]
    Unreachable(#[from] ConnectError),
    /// The pool has been closed.
    #[error("the pool of {address} has been closed")]
    Closed {
        /// The address without its password.
        address: String,
    },
}

fn seconds(duration: &Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

/// Why a statement or a step of a transaction failed.
#[derive(Clone, Debug, Error)]
pub enum QueryError {
    /// The database refused.
    #[error("{message}")]
    Database {
        /// The database's words.
        message: String,
        /// SQLSTATE, or empty where the database has none.
        sqlstate: String,
        /// What else the database says.
        details: Option<Box<ErrorDetails>>,
    },
    /// The connection broke. Whether the statement took effect is unknown.
    #[error("the connection to the database broke: {reason}")]
    Lost {
        /// The driver's words.
        reason: String,
        /// SQLSTATE of the database's last word, or empty.
        sqlstate: String,
    },
    /// The connection broke after the commit had been sent and before it was answered.
    #[error("the connection broke during the commit, whether it is lasting is unknown: {reason}")]
    OutcomeUnknown {
        /// The driver's words.
        reason: String,
        /// The database's name of the transaction, or empty.
        transaction: String,
    },
    /// The connection broke during the commit, and the database says that nothing was stored.
    #[error("the connection broke during the commit, and nothing was committed: {reason}")]
    NotCommitted {
        /// The driver's words.
        reason: String,
    },
    /// The connection of the transaction broke earlier. The database has rolled the transaction back.
    #[error("the transaction is over: its connection broke earlier, and nothing of it was stored")]
    TransactionLost,
    /// The database ended the transaction while its connection works on. Nothing runs in its place until it is
    /// rolled back, which is all that is left to do.
    #[error("the transaction is over: {reason}")]
    TransactionEnded {
        /// How it ended, and what became of what it did.
        reason: String,
    },
    /// A connection broke while nobody used it, and settings or temporary tables went with it.
    #[error("the connection broke, and with it settings, locks or temporary tables of its session")]
    SessionLost,
    /// The connection could not be made again.
    #[error(transparent)]
    Reconnect(Box<ConnectError>),
    /// The connection belongs to another thread.
    #[error("this connection belongs to the thread that got it: ask for one on each thread")]
    WrongThread,
    /// A commit ended as a rollback: nothing was stored.
    #[error("nothing was committed, the transaction was rolled back: a statement in it had failed")]
    RolledBack,
    /// A say in how a transaction begins, where one is open already.
    #[error("a transaction is open already: a savepoint inside it has no options of its own")]
    SavepointOptions,
    /// There is nothing to commit or roll back.
    #[error("there is no transaction to end")]
    NoTransaction,
    /// The text begins or ends a transaction behind the back of the one that is open.
    #[error(
        "the text begins or ends a transaction while one is open: use the transaction's own commit and rollback"
    )]
    TransactionText,
    /// A text without a statement.
    #[error("the text has no statement in it")]
    Blank,
    /// Another number of parameters than the statement has.
    #[error("the statement has {expected} parameters, {given} were given")]
    ParameterCount {
        /// What the statement has.
        expected: usize,
        /// What the caller gave.
        given: usize,
    },
    /// A placeholder that is not `$1`, `$2`, ...
    #[error("placeholder `{found}`: write `$1`, `$2`, ...")]
    Placeholder {
        /// The placeholder.
        found: String,
    },
    /// A number that does not fit the parameter's type.
    #[error("parameter ${number}: {value} does not fit {type_name}")]
    OutOfRange {
        /// Which parameter, from 1.
        number: usize,
        /// Its value.
        value: String,
        /// The type the database wants.
        type_name: String,
    },
    /// A value of a kind that the parameter's type cannot be made from.
    #[error("parameter ${number}: {found} cannot be sent as {type_name}")]
    ParameterType {
        /// Which parameter, from 1.
        number: usize,
        /// The kind of its value.
        found: &'static str,
        /// The type the database wants.
        type_name: String,
    },
    /// A column of a type that has no form here.
    #[error("column `{column}` is of type {type_name}, which has no form here: cast it, `{column}::text`")]
    ColumnType {
        /// The column.
        column: String,
        /// Its type.
        type_name: String,
    },
    /// A cell that cannot be read.
    #[error("column `{column}`: {reason}")]
    Cell {
        /// The column.
        column: String,
        /// Why not.
        reason: String,
    },
    /// Nobody waits for the outcome any more, so the statement was cancelled or not begun.
    #[error("{reason}, so the statement was not run to its end")]
    Interrupted {
        /// Why nobody waits.
        reason: Reason,
    },
    /// It would stay in a session that is somebody else's next.
    #[error(
        "behind a pooler this would reach somebody else: use `SET LOCAL` in a transaction; temporary tables, \
         session locks, PREPARE and LISTEN need a connection to the server itself"
    )]
    Pooled,
    /// The statement is not one that can be sent to the database. The connection is as it was.
    #[error("{reason}")]
    Unsendable {
        /// What is too much of what.
        reason: String,
    },
    /// A statement that was prepared earlier fits the tables no more, and the transaction that it is in has failed.
    /// Run again, it is prepared again.
    #[error("{message}")]
    Stale {
        /// The database's words.
        message: String,
        /// SQLSTATE.
        sqlstate: String,
    },
    /// A COPY from or to the client, in a text that is run like any other.
    #[error(
        "`COPY ... FROM STDIN` and `TO STDOUT` carry rows beside the statement: use `copy_in` and `copy_out`"
    )]
    CopyText,
    /// The database has no such thing.
    #[error("this database has no {what}")]
    NotOffered {
        /// What was asked for.
        what: &'static str,
    },
    /// Another thread uses the connection at this moment.
    #[error(
        "this connection is in use, by another thread or by a stream of rows: check out another one for this"
    )]
    Busy,
}

impl QueryError {
    /// What a database says, of which nothing more is known.
    pub fn database(message: impl Into<String>, sqlstate: &str) -> QueryError {
        QueryError::Database { message: message.into(), sqlstate: sqlstate.to_owned(), details: None }
    }

    /// SQLSTATE, if it was the database that refused and it has one.
    pub fn sqlstate(&self) -> &str {
        match self {
            QueryError::Database { sqlstate, .. } => sqlstate,
            _ => "",
        }
    }
}

impl From<ConnectError> for QueryError {
    fn from(error: ConnectError) -> QueryError {
        QueryError::Reconnect(Box::new(error))
    }
}
