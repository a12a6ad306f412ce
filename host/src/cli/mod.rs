//! The command line: from arguments to an exit code.
//!
//! `args` is what can be typed, `settings` puts it together with environment and file, `run` runs the
//! host and `screen` and `log` show it; `new`, `check`, `ask`, `logs`, `db`, `registry`, `safe` and `order` are the
//! other commands, `text` lays out tables.
//!
//! Exit codes, the same for every command:
//!
//! | code | means |
//! |---|---|
//! | 0 | it went well |
//! | 1 | it failed: a plugin is refused, no host is running, a port is in use, a second signal cut the stop short |
//! | 2 | the command line, the configuration or the plugins directory cannot be used as it is |
//!
//! # Invariants
//!
//! - An error is one sentence on standard error that says what to do; results go to standard output.
//! - `probe` sets nothing up: its process belongs to the library it tries.

mod args;
mod ask;
mod check;
mod db;
mod itself;
mod log;
mod log_limit;
mod log_writer;
mod logs;
mod new;
mod order;
mod ready;
mod registry;
mod run;
mod safe;
mod screen;
mod settings;
#[cfg(test)]
mod tests;
mod text;

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

pub use self::args::{Cli, Command};
use crate::admin::ClientError;
use crate::config::ConfigError;
use crate::host::HostError;
use crate::plugin::StartError;
use crate::safe::OperateError;
use crate::supervisor::{HandoverError, SupervisorError};
use crate::watch::scan::ScanError;

/// What ends a command before its time.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The command line or the files it names cannot be used.
    #[error("{0}")]
    Usage(String),
    /// The configuration file cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The plugins directory cannot be used.
    #[error(transparent)]
    Scan(#[from] ScanError),
    /// The host did not start.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The supervisor could not do its work.
    #[error(transparent)]
    Supervisor(#[from] SupervisorError),
    /// What the supervisor has handed over cannot be used.
    #[error(transparent)]
    Handover(#[from] HandoverError),
    /// A running host could not be asked.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// An order about a safe was not carried out.
    #[error(transparent)]
    Safe(#[from] OperateError),
    /// The registry has no such key.
    #[error("there is no key `{key}`; there {}", if known.is_empty() { "are none".to_owned() } else { format!("is {known}") })]
    NoKey {
        /// What was asked for.
        key: String,
        /// The keys there are.
        known: String,
    },
    /// The system refused something.
    #[error("cannot {doing}")]
    System {
        /// What was tried.
        doing: String,
        /// What the system said.
        source: io::Error,
    },
}

impl CliError {
    fn system(doing: impl Into<String>) -> impl FnOnce(io::Error) -> CliError {
        let doing = doing.into();
        move |source| CliError::System { doing, source }
    }

    /// The exit code it means, by the table above.
    fn code(&self) -> u8 {
        match self {
            CliError::Usage(_)
            | CliError::Config(_)
            | CliError::Scan(_)
            | CliError::Host(
                HostError::Plugins(StartError::Scan(_) | StartError::Duplicate { .. })
                | HostError::Listen { source: crate::http::ListenError::Address { .. }, .. },
            ) => 2,
            CliError::Host(_)
            | CliError::Supervisor(_)
            | CliError::Handover(_)
            | CliError::Client(_)
            | CliError::Safe(_)
            | CliError::NoKey { .. }
            | CliError::System { .. } => 1,
        }
    }
}

/// Does what the command line says.
pub fn main() -> ExitCode {
    // Where it fails, the limits end the process as they end any other.
    let _ = crate::pins::outlive_limits();
    let outcome = match Cli::parse().command {
        Command::Probe(args) => crate::plugin::probe::child(&args.file, &args.origin, &args.token)
            .map(|()| ExitCode::SUCCESS)
            .map_err(CliError::system("report to the host; `probe` is for the host alone, use `host check`")),
        Command::Run(args) => run::run(&args),
        Command::New(args) => new::new(&args),
        Command::Check(args) => check::check(&args),
        Command::Status(args) => ask::status(&args),
        Command::Registry(args) => registry::registry(args),
        Command::Events(args) => ask::events(&args),
        Command::Db(args) => db::db(&args),
        Command::Logs(args) => logs::logs(&args),
        Command::Routes(args) => ask::routes(&args),
        Command::Rollback(args) => order::rollback(&args),
        Command::Reload(args) => order::reload(&args),
        Command::Safe(args) => safe::safe(args.command),
        Command::Completions { shell } => completions(shell),
    };
    outcome.unwrap_or_else(|error| {
        // Nobody is left to be told when this fails.
        let _ = writeln!(io::stderr(), "error: {}", crate::report::chain(&error));
        ExitCode::from(error.code())
    })
}

fn completions(shell: clap_complete::Shell) -> Result<ExitCode, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "host", &mut script);
    print(&String::from_utf8_lossy(&script))
}

/// Prints a result. A reader that has gone away, as `head` does, has read enough.
fn print(text: &str) -> Result<ExitCode, CliError> {
    write_out(text).map(|_| ExitCode::SUCCESS)
}

/// Writes to standard output; tells whether somebody still reads it.
fn write_out(text: &str) -> Result<bool, CliError> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(CliError::System { doing: "write to standard output".to_owned(), source: error }),
        Ok(()) => Ok(true),
    }
}

/// Prints a JSON document.
fn print_json(value: &serde_json::Value) -> Result<ExitCode, CliError> {
    print(&format!("{value:#}\n"))
}
