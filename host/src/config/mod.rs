//! `host.toml`: what an operator writes down once.
//!
//! Owns the file's keys, their values and the sentences for what is wrong with them. Does not know the
//! command line or the environment, which win over it: [`crate::cli`] puts the three together.
//!
//! # Invariants
//!
//! - Every key is known or refused: a misspelt one is never passed over.
//! - Every error names the file, the line, the key and what would be right.
//! - Paths in the file are relative to the directory of the file.

mod document;
#[cfg(test)]
mod tests;
pub mod values;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::time::Duration;

use self::document::{Document, Section};
use self::values::{LogLevel, OffOr};
use crate::build::WatchRules;
use crate::http::Limits;
use crate::plugin::router::normal_mount;
use crate::safe::SafeSettings;

/// What paths to be watched look like.
const WATCH_EXAMPLE: &str = "\"templates\", \"../schema.sql\"";

/// The file that is read when none is named.
pub const DEFAULT_FILE: &str = "host.toml";

/// What a configuration file says; `None` where it is silent.
#[derive(Debug, Clone, Default)]
pub struct FileConfig {
    /// `[host] listen`.
    pub listen: Option<String>,
    /// `[host] admin`; `off` is kept as it is written.
    pub admin: Option<String>,
    /// `[host] admin_hosts`.
    pub admin_hosts: BTreeSet<String>,
    /// `[host] plugins`.
    pub plugins: Option<PathBuf>,
    /// `[host] state`.
    pub state: Option<PathBuf>,
    /// `[host] watch`; a list of paths says yes.
    pub watch: Option<bool>,
    /// The paths of `[host] watch`, and `[host] ignore`: they count for every source plugin.
    pub watch_rules: WatchRules,
    /// `[host] poll_ms`.
    pub poll: Option<Duration>,
    /// `[host] freeze`.
    pub freeze: Option<bool>,
    /// `[host] profile`.
    pub profile: Option<String>,
    /// `[host] production`.
    pub production: Option<bool>,
    /// `[host] log`.
    pub log: Option<LogLevel>,
    /// `[host] probation_ms`.
    pub probation: Option<OffOr>,
    /// `[host] budget`.
    pub budget: Option<NonZeroU64>,
    /// `[limits]`, the defaults where it is silent.
    pub limits: Limits,
    /// `[limits] drain_timeout_ms`.
    pub drain_timeout: Option<Duration>,
    /// `[limits] max_builds`.
    pub max_builds: Option<NonZeroUsize>,
    /// `[limits] build_timeout_ms`.
    pub build_timeout: Option<Duration>,
    /// `[limits] load_timeout_ms`.
    pub load_timeout: Option<Duration>,
    /// `[plugin.NAME] mount`, by plugin.
    pub mounts: BTreeMap<String, String>,
    /// `[plugin.NAME] watch` and `ignore`, by plugin.
    pub plugin_watch_rules: BTreeMap<String, WatchRules>,
    /// `[host] safe` and `[safe.shared]`.
    pub safe: SafeSettings,
}

/// Why a configuration file is not used. Nothing of it was.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It is not there, or may not be read.
    #[error("cannot read the configuration file {}; name another with --config", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is not TOML.
    #[error("{place}: {words}; the file must be TOML")]
    Syntax {
        /// File and line.
        place: String,
        /// What the parser said.
        words: String,
    },
    /// A key, or a whole table, that means nothing.
    #[error("{place}: unknown {what}; {advice}")]
    Unknown {
        /// File and line.
        place: String,
        /// The key and where it stands.
        what: String,
        /// The nearest one, or all there are.
        advice: String,
    },
    /// A value that cannot be used.
    #[error("{place}: `{key}` {wanted}")]
    Value {
        /// File and line.
        place: String,
        /// The key.
        key: String,
        /// What it has to be.
        wanted: String,
    },
}

impl FileConfig {
    /// Reads the file at `path`.
    ///
    /// # Errors
    ///
    /// [`ConfigError`].
    pub fn read(path: &Path) -> Result<FileConfig, ConfigError> {
        let text =
            fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        FileConfig::parse(path, &text)
    }

    /// Reads the file the operator named, else the default one if it is there, else nothing.
    ///
    /// # Errors
    ///
    /// [`ConfigError`].
    pub fn find(named: Option<&Path>) -> Result<FileConfig, ConfigError> {
        match named {
            Some(path) => FileConfig::read(path),
            None if Path::new(DEFAULT_FILE).exists() => FileConfig::read(Path::new(DEFAULT_FILE)),
            None => Ok(FileConfig::default()),
        }
    }

    /// Understands the text of the file at `path`.
    ///
    /// # Errors
    ///
    /// [`ConfigError`].
    pub fn parse(path: &Path, text: &str) -> Result<FileConfig, ConfigError> {
        let document = Document::parse(path, text)?;
        document.only("", &["host", "limits", "plugin", "safe"])?;
        let mut config = FileConfig::default();
        config.host(&document.section("host")?, path.parent().unwrap_or(Path::new("")))?;
        config.limits(&document.section("limits")?)?;
        for name in document.section("plugin")?.keys() {
            let section = document.section(&format!("plugin.{name}"))?;
            section.only(&["mount", "watch", "ignore"])?;
            let watch = section.texts("watch", WATCH_EXAMPLE)?;
            let rules = WatchRules {
                watch: watch.into_iter().map(PathBuf::from).collect(),
                ignore: ignored(&section)?,
            };
            if rules != WatchRules::default() {
                config.plugin_watch_rules.insert(name.clone(), rules);
            }
            if let Some(mount) = section.text("mount")? {
                normal_mount(mount)
                    .map_err(|error| section.wrong("mount", format!("cannot be used: {error}")))?;
                config.mounts.insert(name.clone(), mount.to_owned());
            }
        }
        document.section("safe")?.only(&["shared"])?;
        let shared = document.section("safe.shared")?;
        for name in shared.keys() {
            config.safe.shared.insert(name.clone(), shared.names(name)?);
        }
        Ok(config)
    }

    fn host(&mut self, section: &Section<'_>, directory: &Path) -> Result<(), ConfigError> {
        section.only(&[
            "listen",
            "admin",
            "admin_hosts",
            "plugins",
            "state",
            "watch",
            "ignore",
            "poll_ms",
            "freeze",
            "profile",
            "production",
            "log",
            "probation_ms",
            "budget",
            "safe",
        ])?;
        self.safe.server = match section.text("safe")? {
            Some(url) if url.starts_with("postgres://") || url.starts_with("postgresql://") => {
                Some(url.to_owned())
            }
            Some(_) => {
                return Err(section.wrong("safe", "must be \"postgres://...\"; leave it out to use files"));
            }
            None => None,
        };
        self.listen = section.text("listen")?.map(str::to_owned);
        self.admin = section.text("admin")?.map(str::to_owned);
        self.admin_hosts = section.names("admin_hosts")?;
        self.plugins = section.text("plugins")?.map(|path| directory.join(path));
        self.state = section.text("state")?.map(|path| directory.join(path));
        if section.is_list("watch") {
            let paths = section.texts("watch", WATCH_EXAMPLE)?;
            self.watch_rules.watch = paths.into_iter().map(|path| directory.join(path)).collect();
            self.watch = Some(true);
        } else {
            self.watch = section.boolean("watch")?;
        }
        self.watch_rules.ignore = ignored(section)?;
        self.poll = section.duration("poll_ms")?;
        self.freeze = section.boolean("freeze")?;
        self.profile = section.text("profile")?.map(str::to_owned);
        self.production = section.boolean("production")?;
        self.probation = section.timeout("probation_ms")?.map(|time| match time {
            Duration::MAX => OffOr(None),
            time => OffOr(Some(time)),
        });
        let budget = section.count("budget", 1)?.and_then(|count| u64::try_from(count).ok());
        self.budget = budget.and_then(NonZeroU64::new);
        self.log = match section.text("log")? {
            Some(text) => Some(text.parse().map_err(|wanted| section.wrong("log", wanted))?),
            None => None,
        };
        Ok(())
    }

    fn limits(&mut self, section: &Section<'_>) -> Result<(), ConfigError> {
        section.only(&[
            "max_body",
            "max_buffered",
            "min_write_rate",
            "max_connections_per_address",
            "max_head",
            "io_threads",
            "max_connections",
            "max_workers",
            "queue",
            "max_late",
            "header_timeout_ms",
            "body_timeout_ms",
            "handler_timeout_ms",
            "write_timeout_ms",
            "idle_timeout_ms",
            "drain_timeout_ms",
            "load_timeout_ms",
            "build_timeout_ms",
            "max_builds",
        ])?;
        let limits = &mut self.limits;
        set(&mut limits.max_body, section.size("max_body", 0)?);
        set(&mut limits.max_buffered, section.size("max_buffered", 1 << 20)?);
        set(&mut limits.min_write_rate, section.size("min_write_rate", 0)?);
        set(&mut limits.max_head, section.size("max_head", 8192)?);
        limits.io_threads = section.count("io_threads", 1)?.and_then(NonZeroUsize::new);
        limits.max_connections_per_address =
            section.count("max_connections_per_address", 1)?.and_then(NonZeroUsize::new);
        limits.max_connections = section.count("max_connections", 1)?.and_then(NonZeroUsize::new);
        limits.max_workers = section.count("max_workers", 1)?.and_then(NonZeroUsize::new);
        set(&mut limits.queue, section.count("queue", 0)?);
        limits.max_late = section.count("max_late", 1)?.and_then(NonZeroUsize::new);
        set(&mut limits.header_timeout, section.timeout("header_timeout_ms")?);
        set(&mut limits.body_timeout, section.timeout("body_timeout_ms")?);
        set(&mut limits.handler_timeout, section.timeout("handler_timeout_ms")?);
        set(&mut limits.write_timeout, section.timeout("write_timeout_ms")?);
        set(&mut limits.idle_timeout, section.timeout("idle_timeout_ms")?);
        self.drain_timeout = section.duration("drain_timeout_ms")?;
        self.build_timeout = section.timeout("build_timeout_ms")?;
        self.max_builds = section.count("max_builds", 1)?.and_then(NonZeroUsize::new);
        self.load_timeout = section.duration("load_timeout_ms")?;
        Ok(())
    }
}

fn set<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}

/// The patterns of `ignore`.
fn ignored(section: &Section<'_>) -> Result<Vec<String>, ConfigError> {
    let patterns = section.texts("ignore", "\"*.db\", \"/cache/\"")?;
    for pattern in &patterns {
        WatchRules::check(pattern).map_err(|words| {
            section.wrong("ignore", format!("has a pattern that cannot be used: {words}"))
        })?;
    }
    Ok(patterns.into_iter().map(str::to_owned).collect())
}
