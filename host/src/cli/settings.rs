//! What a host is started with: configuration file, environment and options put together.
//!
//! The parser of the command line has put the environment behind the options already; here both go
//! before the file, and the file before the defaults.

use std::net::ToSocketAddrs as _;
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tracing::level_filters::LevelFilter;

use super::CliError;
use super::args::{PlaceArgs, RunArgs};
use super::itself::program;
use crate::build::BUILD_TIMEOUT;
use crate::config::FileConfig;
use crate::config::values::{LogLevel, OffOr};
use crate::host::HostConfig;
use crate::plugin::{Probation, Settings};

const LISTEN: &str = "127.0.0.1:8080";
const ADMIN: &str = "127.0.0.1:8081";
const STATE: &str = ".host";
/// How long stopping may take, without a word in the configuration.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
/// How long `on_load` may take, without a word in the configuration.
const LOAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a new generation is on probation, without a word anywhere.
const PROBATION: Duration = Duration::from_secs(10);
/// How many failures in its probation are too many, without a word anywhere.
const BUDGET: u64 = 3;

/// The settings of `host run`.
#[derive(Debug)]
pub(super) struct RunSettings {
    pub(super) host: HostConfig,
    pub(super) log: LogLevel,
}

impl RunSettings {
    /// Puts options and environment before the file.
    pub(super) fn of(args: &RunArgs, file: FileConfig) -> Result<RunSettings, CliError> {
        let plugins_dir = args.plugins.clone().or(file.plugins).ok_or_else(|| {
            CliError::Usage(
                "no plugins directory is named; say `host run --plugins DIR`, or set `plugins` in the [host] table of host.toml"
                    .to_owned(),
            )
        })?;
        let freeze = args.freeze || (!args.watch && file.freeze.unwrap_or(false));
        let watch = args.watch || !(args.no_watch || freeze || file.watch == Some(false));
        let production = args.production || file.production.unwrap_or(false);
        let admin = args.admin.clone().or(file.admin).unwrap_or_else(|| ADMIN.to_owned());
        let mut limits = file.limits;
        limits.development = watch && !production;
        let host = HostConfig {
            listen: args.listen.clone().or(file.listen).unwrap_or_else(|| LISTEN.to_owned()),
            admin: (!admin.eq_ignore_ascii_case("off")).then_some(admin),
            admin_hosts: file.admin_hosts,
            limits,
            plugins: Settings {
                plugins_dir,
                state_dir: args.state.clone().or(file.state).unwrap_or_else(|| PathBuf::from(STATE)),
                mounts: file.mounts,
                watch,
                poll: args.poll_ms.map(|ms| Duration::from_millis(ms.get())).or(file.poll),
                watch_rules: file.watch_rules,
                plugin_watch_rules: file.plugin_watch_rules,
                freeze,
                profile: args.profile.clone().or(file.profile),
                max_builds: file.max_builds.unwrap_or_else(cores),
                build_timeout: file.build_timeout.unwrap_or(BUILD_TIMEOUT),
                load_deadline: file.load_timeout.unwrap_or(LOAD_TIMEOUT),
                probation: probation(args, watch, file.probation, file.budget),
                program: program()?,
                is_after_crash: false,
            },
            drain_timeout: file.drain_timeout.unwrap_or(DRAIN_TIMEOUT),
            safe: file.safe,
            log: Arc::default(),
        };
        check_addresses(&host)?;
        Ok(RunSettings { host, log: args.log.or(file.log).unwrap_or(LogLevel(LevelFilter::INFO)) })
    }
}

/// How many builds are worth running at a time.
fn cores() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

/// When new code is taken back unasked. Who follows edits wants to see a panic, not to lose the edit, unless
/// the settings say otherwise.
fn probation(
    args: &RunArgs,
    watch: bool,
    of_file: Option<OffOr>,
    budget_of_file: Option<NonZeroU64>,
) -> Option<Probation> {
    let budget = args.budget.or(budget_of_file);
    let by_default = (!watch || budget.is_some()).then_some(PROBATION);
    let lasts = args.probation.or(of_file).unwrap_or(OffOr(by_default)).0?;
    Some(Probation { lasts, budget: budget.map_or(BUDGET, NonZeroU64::get) })
}

/// Names the option for what the system would only call an address in use.
fn check_addresses(host: &HostConfig) -> Result<(), CliError> {
    let addresses = |text: &str| text.to_socket_addrs().map(Vec::from_iter).unwrap_or_default();
    let Some(admin) = &host.admin else { return Ok(()) };
    let both = addresses(&host.listen);
    match addresses(admin).iter().find(|address| address.port() != 0 && both.contains(address)) {
        Some(address) => Err(CliError::Usage(format!(
            "--listen and --admin both name {address}; give --admin another port, or say `--admin off`"
        ))),
        None => Ok(()),
    }
}

/// Where the state of the host in question is.
pub(super) fn state_dir(place: &PlaceArgs) -> Result<PathBuf, CliError> {
    if let Some(state) = &place.state {
        return Ok(state.clone());
    }
    let file = FileConfig::find(place.config.as_deref())?;
    Ok(file.state.unwrap_or_else(|| PathBuf::from(STATE)))
}
