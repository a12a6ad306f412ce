//! The host: owns every part, starts them in order and stops them in reverse.
//!
//! ```text
//! start: state lock -> listeners -> registry -> safes -> plugins -> admin, control socket -> serving
//! stop:  serving (drain) -> plugins (on_unload) -> registry (newest value first) -> safes -> admin
//!        -> state lock
//! ```
//!
//! # Invariants
//!
//! - Addresses are bound before anything is built: a busy port is known at once, not after a minute.
//! - One host per state directory.
//! - Requests are answered from the start; a plugin that is still being built says so.

mod index;
mod service;
mod sockets;
mod state_dir;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use self::service::PluginService;
pub use self::sockets::Sockets;
use self::state_dir::StateKeeper;
use crate::admin::{self, Admin, RecentLog};
use crate::hostcall::OwnSafe;
use crate::http::side::{self, SideError, SideServer};
use crate::http::{Limits, ListenError, Listener, Server};
use crate::pins;
use crate::plugin::{self, Observer, Plugins, Settings, parting};
use crate::registry::Registry;
use crate::report::quoted;
use crate::safe::{SafeSettings, Safes};

/// How long clients are kept waiting after a crash, at most, until plugins serve again.
const RESUME_PATIENCE: Duration = Duration::from_secs(10);

/// What a host is started with.
#[derive(Debug, Clone)]
pub struct HostConfig {
    /// Address of the public listener.
    pub listen: String,
    /// Address of the admin listener; `None`: no admin listener.
    pub admin: Option<String>,
    /// Names under which the admin listener is reached, beside its address.
    pub admin_hosts: BTreeSet<String>,
    /// Limits of the public listener.
    pub limits: Limits,
    /// What the plugins room has to know.
    pub plugins: Settings,
    /// How long stopping may take, in-flight requests and `on_unload` hooks each.
    pub drain_timeout: Duration,
    /// Where safes are kept, and who shares which.
    pub safe: SafeSettings,
    /// What `host logs` shows. Whoever sets the log up fills it.
    pub log: Arc<RecentLog>,
}

/// Why a host did not start. Nothing of it runs.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// An address cannot be listened on.
    #[error("{flag}: {source}")]
    Listen {
        /// The flag that names the address.
        flag: &'static str,
        /// What is wrong with it.
        source: ListenError,
    },
    /// The state directory cannot be used.
    #[error("cannot use the state directory {}; name another with --state", path.display())]
    State {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Every user of the machine can put files into the state directory, code among them.
    #[error(
        "the state directory {} is writable by everyone, who could run code here: say chmod o-w {}, or name another \
         with --state", path.display(), quoted(path)
    )]
    StateWritable {
        /// The directory.
        path: PathBuf,
    },
    /// A socket that was passed to this process cannot be used.
    #[error("the socket passed for {what} cannot be used")]
    Passed {
        /// What it is for.
        what: &'static str,
        /// What is wrong with it.
        source: io::Error,
    },
    /// Another host uses the state directory.
    #[error("another host is running with the state directory {}; stop it, or name another with --state", path.display())]
    StateInUse {
        /// The directory.
        path: PathBuf,
    },
    /// The plugins could not be started.
    #[error(transparent)]
    Plugins(#[from] plugin::StartError),
    /// Serving could not be started.
    #[error(transparent)]
    Serve(#[from] crate::http::StartError),
    /// The admin listener or the control socket could not be started.
    #[error(transparent)]
    Side(#[from] SideError),
}

/// A running host.
pub struct Host {
    shared: Arc<Shared>,
    server: Arc<Server>,
    plugins: Arc<Plugins>,
    registry: Arc<Registry>,
    safes: Arc<Safes>,
    /// The admin listener's server, if there is one.
    side: Vec<SideServer>,
    state: StateKeeper,
    admin_address: Option<SocketAddr>,
    control_socket: PathBuf,
    drain_timeout: Duration,
    /// Held for as long as the host runs.
    _lock: File,
}

/// What the faces read.
pub(crate) struct Shared {
    /// When the host was started.
    pub(crate) started: Instant,
    /// The same, by the calendar.
    pub(crate) started_at: SystemTime,
    /// Whether every plugin has had its first outcome and nobody has asked to stop.
    pub(crate) is_ready: AtomicBool,
}

impl Host {
    /// Starts a host. Returns as soon as it serves, which is before its plugins are built.
    ///
    /// # Errors
    ///
    /// [`HostError`].
    pub fn start(config: HostConfig, observer: Arc<dyn Observer>) -> Result<Host, HostError> {
        let sockets = Sockets::bind(&config)?;
        Host::start_on(config, sockets, observer)
    }

    /// As [`Host::start`], on sockets that are bound already.
    ///
    /// # Errors
    ///
    /// [`HostError`].
    pub fn start_on(
        mut config: HostConfig,
        sockets: Sockets,
        observer: Arc<dyn Observer>,
    ) -> Result<Host, HostError> {
        let Sockets { state_dir, lock, listener, admin: admin_listener, control } = sockets;
        let control_socket = state_dir.join(admin::CONTROL_SOCKET);
        config.plugins.state_dir.clone_from(&state_dir);
        let listening = [Some(&listener), admin_listener.as_ref()].into_iter().flatten();
        let listening = listening.map(Listener::number).chain([control.as_raw_fd()]);
        pins::keep_from_children(&state_dir, &listening.collect::<Vec<_>>());

        let is_development = config.limits.development;
        let registry = Arc::new(Registry::new());
        let safes = Arc::new(Safes::with(state_dir.join("safe"), config.safe));
        let safe = OwnSafe::new(Arc::clone(&safes));
        let is_after_crash = config.plugins.is_after_crash;
        let plugins = Arc::new(Plugins::start(config.plugins, Arc::clone(&registry), safe, observer)?);
        if is_after_crash {
            // Who connected meanwhile waits a little longer, and gets an answer of the plugin.
            plugins.wait_resumed_for(RESUME_PATIENCE);
        }
        let shared = Arc::new(Shared {
            started: Instant::now(),
            started_at: SystemTime::now(),
            is_ready: AtomicBool::new(false),
        });
        let service = Arc::new(PluginService::new(Arc::clone(&plugins), is_development));
        let server = Arc::new(Server::start(listener, service, config.limits)?);

        let admin_address = admin_listener.as_ref().map(Listener::address);
        let face = Arc::new(Admin {
            shared: Arc::clone(&shared),
            plugins: Arc::clone(&plugins),
            registry: Arc::clone(&registry),
            safes: Arc::clone(&safes),
            server: Arc::clone(&server),
            admin: admin_address,
            admin_hosts: config.admin_hosts,
            log: config.log,
        });
        let state =
            StateKeeper::start(&state_dir, &lock, control, face.handler(admin::Trust::ControlSocket))?;
        let mut side = Vec::new();
        if let Some(listener) = admin_listener {
            side.push(side::serve("admin", listener, face.handler(admin::Trust::Network))?);
        }
        Ok(Host {
            shared,
            server,
            plugins,
            registry,
            safes,
            side,
            state,
            admin_address,
            control_socket,
            drain_timeout: config.drain_timeout,
            _lock: lock,
        })
    }

    /// Where requests are answered.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Where the admin listener is.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin_address
    }

    /// Waits until every plugin has loaded or was refused, at most `patience`; tells whether they have.
    pub fn wait_ready(&self, patience: Duration) -> bool {
        let is_ready = self.plugins.wait_first_outcomes_for(patience);
        if is_ready {
            self.shared.is_ready.store(true, Ordering::Release);
        }
        is_ready
    }

    /// Looks at every source as if it had changed.
    pub fn rescan(&self) {
        self.plugins.rescan();
    }

    /// Every plugin, sorted by name.
    pub fn plugins(&self) -> Vec<plugin::PluginStatus> {
        self.plugins.status()
    }

    /// Stops: answers what has been asked, retires every generation, closes every value.
    ///
    /// Returns how many requests were cut off at the end of the drain time-out.
    pub fn shutdown(self) -> u64 {
        self.shared.is_ready.store(false, Ordering::Release);
        // A handler that waits for a change must not use the drain time-out up.
        self.safes.cancel_watches();
        let cut_off = self.server.shutdown(self.drain_timeout);
        self.plugins.shutdown(self.drain_timeout);
        let registry = Arc::clone(&self.registry);
        if !parting::part(self.drain_timeout, move || registry.shutdown()) {
            tracing::warn!(
                "gave up waiting for the values of the registry to be dropped after {:?}",
                self.drain_timeout
            );
        }
        self.safes.close();
        for server in self.side {
            server.stop();
        }
        self.state.stop();
        // One that is already gone is as good.
        let _ = fs::remove_file(&self.control_socket);
        cut_off
    }
}
