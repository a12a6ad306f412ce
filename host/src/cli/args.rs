//! What can be typed: commands, options, the words of `--help`.
//!
//! Does nothing itself. Every option of `run` has an environment variable of its name, so
//! `HOST_LISTEN` is `--listen`; the option wins, and both win over the configuration file.

use std::num::NonZeroU64;
use std::path::PathBuf;

use clap::builder::FalseyValueParser;
use clap::{Args, Parser, Subcommand};

use crate::config::values::{LogLevel, OffOr};

const AFTER_HELP: &str = "\
Settings come from host.toml, the environment (HOST_LISTEN for --listen) and options;
the later wins.

Exit codes:
  0  it went well
  1  it failed: a plugin is refused, no host is running, a port is in use, ...
  2  the command line, the configuration or the plugins directory cannot be used";

/// The command line.
#[derive(Debug, Parser)]
#[command(
    name = "host",
    version,
    about = "Serves Rust plugins and swaps their code while running; state stays",
    after_help = AFTER_HELP,
    disable_help_subcommand = true
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Builds, loads and serves plugins, and follows their edits
    Run(RunArgs),
    /// Makes a new plugin
    New(NewArgs),
    /// Tells whether a library, a source plugin or a whole plugins directory can be loaded
    Check(CheckArgs),
    /// Tries a library in this process, for the host
    #[command(hide = true)]
    Probe(ProbeArgs),
    /// Shows a running host and its plugins
    Status(AskArgs),
    /// Shows what outlives the plugins' code
    Registry(RegistryArgs),
    /// Shows the pools of database connections
    Db(AskArgs),
    /// Shows what happened to plugins, the newest first
    Events(AskArgs),
    /// Shows the newest lines of the log, and with --follow those that come
    Logs(LogsArgs),
    /// Shows all routes
    Routes(AskArgs),
    /// Takes a plugin back to the code of an earlier generation
    Rollback(RollbackArgs),
    /// Tries a plugin's source again, also when it has not changed
    Reload(ReloadArgs),
    /// Shows and changes what plugins keep in their safes, whether a host is running or not
    Safe(SafeArgs),
    /// Prints a completion script
    Completions {
        /// For which shell.
        shell: clap_complete::Shell,
    },
}

/// `host run`.
#[derive(Debug, Default, Args)]
#[command(after_help = "\
SIGTERM and SIGINT (Ctrl-C) answer what was asked and stop; a second one stops at once.
SIGHUP looks at every source again. A process that crashes is started again, with the last
code that served well; clients wait meanwhile. Sockets passed by systemd are used, and it
is told when the host is ready.")]
pub struct RunArgs {
    /// Directory of the plugins: cargo packages and .so files. Required, here or in host.toml
    #[arg(long, value_name = "DIR", env = "HOST_PLUGINS")]
    pub plugins: Option<PathBuf>,
    /// Where to answer requests; port 0 takes a free one [default: 127.0.0.1:8080]
    #[arg(long, value_name = "HOST:PORT", env = "HOST_LISTEN")]
    pub listen: Option<String>,
    /// Where to answer /healthz, /readyz and /api, or `off` [default: 127.0.0.1:8081]
    #[arg(long, value_name = "HOST:PORT|off", env = "HOST_ADMIN")]
    pub admin: Option<String>,
    /// Directory for builds, data and the control socket [default: .host]
    #[arg(long, value_name = "DIR", env = "HOST_STATE")]
    pub state: Option<PathBuf>,
    /// File that gets {"listen","admin","pid"} once every plugin has loaded or was refused
    #[arg(long, value_name = "FILE", env = "HOST_READY_FILE")]
    pub ready_file: Option<PathBuf>,
    /// Follow edits, in development mode: clients are shown why code fails (the default)
    #[arg(long, overrides_with = "no_watch")]
    pub watch: bool,
    /// Do not follow edits, and switch development mode off
    #[arg(long, env = "HOST_NO_WATCH", value_parser = FalseyValueParser::new())]
    pub no_watch: bool,
    /// Look for edits every N milliseconds instead of being told: for network file systems, which tell nobody
    #[arg(long, value_name = "N", env = "HOST_POLL_MS", conflicts_with = "no_watch")]
    pub poll_ms: Option<NonZeroU64>,
    /// Serve the code there is at the start for good: no edit, no SIGHUP and no `host reload` brings other code
    #[arg(long, env = "HOST_FREEZE", value_parser = FalseyValueParser::new(), conflicts_with = "watch")]
    pub freeze: bool,
    /// Switch development mode off, also when following edits: clients learn only that it failed
    #[arg(long, env = "HOST_PRODUCTION", value_parser = FalseyValueParser::new())]
    pub production: bool,
    /// Configuration file [default: host.toml, if there is one]
    #[arg(long, value_name = "FILE", env = "HOST_CONFIG")]
    pub config: Option<PathBuf>,
    /// cargo profile for source plugins [default: dev, less debug information]
    #[arg(long, value_name = "NAME", env = "HOST_PROFILE")]
    pub profile: Option<String>,
    /// How much to log: off, error, warn, info, debug (with requests), trace; times are UTC [default: info]
    #[arg(long, value_name = "LEVEL", env = "HOST_LOG")]
    pub log: Option<LogLevel>,
    /// How long panics and missed deadlines of new code count, or `off` [default: off when following edits, else 10s]
    #[arg(long, value_name = "TIME|off", env = "HOST_PROBATION")]
    pub probation: Option<OffOr>,
    /// Panics and missed deadlines within the probation that take the plugin back to earlier code [default: 3]
    #[arg(long, value_name = "N", env = "HOST_BUDGET")]
    pub budget: Option<NonZeroU64>,
    /// No progress and no start-up screen; the log stays
    #[arg(long, env = "HOST_QUIET", value_parser = FalseyValueParser::new())]
    pub quiet: bool,
    /// One process only: code that crashes ends the host, and nobody starts it again
    #[arg(long, env = "HOST_NO_SUPERVISOR", value_parser = FalseyValueParser::new())]
    pub no_supervisor: bool,
    /// What the supervisor hands over to the process that serves
    #[arg(long, hide = true, value_name = "DESCRIPTORS")]
    pub supervised: Option<String>,
}

/// `host new`.
#[derive(Debug, Args)]
pub struct NewArgs {
    /// Name of the plugin, and of its cargo package
    pub name: String,
    /// Directory of the plugins [default: plugins]
    #[arg(long, value_name = "DIR", env = "HOST_PLUGINS")]
    pub plugins: Option<PathBuf>,
    /// Configuration file [default: host.toml, if there is one]
    #[arg(long, value_name = "FILE", env = "HOST_CONFIG")]
    pub config: Option<PathBuf>,
}

/// `host check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// A library, the directory of a source plugin, or a plugins directory
    #[arg(value_name = "FILE|DIR")]
    pub path: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// cargo profile for source plugins [default: dev, less debug information]
    #[arg(long, value_name = "NAME", env = "HOST_PROFILE")]
    pub profile: Option<String>,
    /// Where the host runs or would run.
    #[command(flatten)]
    pub place: PlaceArgs,
}

/// `host probe`.
#[derive(Debug, Args)]
pub struct ProbeArgs {
    /// Makes the report tell from what the library prints
    #[arg(long)]
    pub token: String,
    /// The directory that the library was made for
    #[arg(long, value_name = "DIR")]
    pub origin: PathBuf,
    /// The library
    pub file: PathBuf,
}

/// What is asked of a running host.
#[derive(Debug, Args)]
pub struct AskArgs {
    /// Print JSON, as the admin listener does
    #[arg(long)]
    pub json: bool,
    /// Which host.
    #[command(flatten)]
    pub place: PlaceArgs,
}

/// `host logs`.
#[derive(Debug, Args)]
#[command(after_help = "\
The host keeps about two thousand lines, of the level that `host run --log` says. With --json
each line is a JSON object of its own. Times are UTC.")]
pub struct LogsArgs {
    /// Only what this plugin says, and what is said of it
    pub name: Option<String>,
    /// Go on with the lines that come, until interrupted
    #[arg(long, short)]
    pub follow: bool,
    /// Most lines to begin with
    #[arg(long, short = 'n', value_name = "N", default_value_t = 50)]
    pub lines: usize,
    /// Only lines as bad as this: error, warn, info, debug, trace
    #[arg(long, value_name = "LEVEL")]
    pub level: Option<LogLevel>,
    /// How to answer, and of which host.
    #[command(flatten)]
    pub ask: AskArgs,
}

/// `host registry`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct RegistryArgs {
    /// What to do; without it, `ls`.
    #[command(subcommand)]
    pub command: Option<RegistryCommand>,
    /// How to answer, and of which host.
    #[command(flatten)]
    pub ask: AskArgs,
}

/// What can be done with the registry. Keys are written as `ls` prints them.
#[derive(Debug, Subcommand)]
pub enum RegistryCommand {
    /// Lists every key
    Ls {
        /// How to answer, and of which host.
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Shows all that is known of one key
    Show {
        /// The key: `KEY`, or `MODULE/KEY`
        key: String,
        /// How to answer, and of which host.
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Lets go of a value: who holds it keeps it, who asks next makes a new one
    Rm {
        /// The key: `KEY`, or `MODULE/KEY`
        key: String,
        /// How to answer, and of which host.
        #[command(flatten)]
        ask: AskArgs,
    },
}

/// `host rollback`.
#[derive(Debug, Args)]
pub struct RollbackArgs {
    /// Name of the plugin
    pub name: String,
    /// Generation whose code is wanted [default: the one before the current one]
    pub generation: Option<u64>,
    /// How to answer, and of which host.
    #[command(flatten)]
    pub ask: AskArgs,
}

/// `host reload`.
#[derive(Debug, Args)]
pub struct ReloadArgs {
    /// Name of the plugin
    pub name: String,
    /// How to answer, and of which host.
    #[command(flatten)]
    pub ask: AskArgs,
}

/// How a host's state directory is found.
#[derive(Debug, Args)]
pub struct PlaceArgs {
    /// State directory of the host [default: .host]
    #[arg(long, value_name = "DIR", env = "HOST_STATE")]
    pub state: Option<PathBuf>,
    /// Configuration file [default: host.toml, if there is one]
    #[arg(long, value_name = "FILE", env = "HOST_CONFIG")]
    pub config: Option<PathBuf>,
}

/// `host safe`.
#[derive(Debug, Args)]
pub struct SafeArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: SafeCommand,
}

/// What can be done with a safe. Its name is that of its plugin; keys are written as `ls` prints them.
#[derive(Debug, Subcommand)]
pub enum SafeCommand {
    /// Shows sizes and numbers of one safe or of all
    Stat {
        /// Name of the safe: that of its plugin
        name: Option<String>,
        /// How to answer, and of which host.
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Lists keys, in order
    Ls {
        /// Name of the safe: that of its plugin
        name: String,
        /// What the keys begin with
        #[arg(default_value = "")]
        prefix: String,
        /// Most keys
        #[arg(long, default_value_t = 1000)]
        limit: usize,
        /// How to answer, and of which host.
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Shows a value
    Get {
        /// Name of the safe: that of its plugin
        name: String,
        /// The key
        key: String,
        /// How to answer, and of which host.
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Puts a value
    Put {
        /// Name of the safe: that of its plugin
        name: String,
        /// The key
        key: String,
        /// The value, as JSON
        value: String,
        /// How to answer, and of which host.
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Removes an entry
    Rm {
        /// Name of the safe: that of its plugin
        name: String,
        /// The key
        key: String,
        /// How to answer, and of which host.
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Verifies every checksum of one safe or of all
    Check {
        /// Name of the safe: that of its plugin
        name: Option<String>,
        /// How to answer, and of which host.
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Copies a safe to a new file, while it is used
    Backup {
        /// Name of the safe: that of its plugin
        name: String,
        /// The file, which must not be there
        file: PathBuf,
        /// How to answer, and of which host.
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Gives the free room of a safe's file back to the file system; who uses the safe waits meanwhile
    Compact {
        /// Name of the safe: that of its plugin
        name: Option<String>,
        /// How to answer, and of which host.
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Copies a safe that is not in use between files and a database server
    Migrate {
        /// Name of the safe: that of its plugin
        name: String,
        /// Where it is: `file` or `postgres://...`; where this host keeps safes, if left out
        #[arg(long, value_name = "PLACE")]
        from: Option<String>,
        /// Where it goes, likewise
        #[arg(long, value_name = "PLACE", required_unless_present = "from")]
        to: Option<String>,
        /// How to answer, and of which host.
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Puts a backup in the place of a safe that is not in use
    Restore {
        /// Name of the safe: that of its plugin
        name: String,
        /// The backup
        file: PathBuf,
        /// How to answer, and of which host.
        #[command(flatten)]
        ask: AskArgs,
    },
}
