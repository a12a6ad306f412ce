//! How a host is started.
//!
//! Owns: directories, flags, environment, the wait for the ready file; the warm target directory that
//! hosts with source plugins start from. Does not own: the running host ([`TestHost`]).

use std::env;
use std::ffi::{OsStr, OsString};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::plugins::PluginsDir;
use super::program::{Finished, Program};
use super::{TestHost, binary, read_ready};
use crate::guard::Guard;
use crate::wait::{BUILD, eventually, patience};

/// Cargo's output within the state directory.
const STATE_TARGET: &str = "target";

/// How long a command that ends by itself may take, a build by `host check` included.
const COMMAND: Duration = BUILD;

/// What the host itself waits for, in milliseconds: its defaults.
const OWN_DEADLINES: [(&str, u32); 3] =
    [("handler_timeout_ms", 30_000), ("load_timeout_ms", 30_000), ("drain_timeout_ms", 30_000)];

/// Passes standard input on as systemd passes a socket, to the same process.
const ACTIVATE: &str = r#"LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" "$@" 3<&0 </dev/null"#;

/// A host that is about to start: its directories exist, its plugins may be put there.
#[derive(Clone, Debug)]
pub struct Launch {
    guard: Arc<Guard>,
    plugins: PluginsDir,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    is_supervised: bool,
}

impl Launch {
    /// Directories for a host, with no plugins yet.
    ///
    /// # Panics
    ///
    /// When `/tmp` is not writable.
    #[expect(clippy::new_without_default, reason = "it makes directories and a process")]
    pub fn new() -> Launch {
        let guard = Arc::new(Guard::new("host").expect("/tmp is writable"));
        let plugins = PluginsDir::create(guard.dir().join("plugins"));
        Launch { guard, plugins, args: Vec::new(), env: Vec::new(), is_supervised: false }
    }

    /// Where the plugins go.
    pub fn plugins(&self) -> &PluginsDir {
        &self.plugins
    }

    /// The state directory; the host makes it.
    pub fn state_dir(&self) -> std::path::PathBuf {
        self.guard.dir().join("state")
    }

    /// A directory for files of the test's own, gone with the host.
    pub fn scratch(&self) -> &std::path::Path {
        self.guard.dir()
    }

    /// Adds a flag after `host run`'s usual ones.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Launch {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// With a supervisor, as users run it. Without this the host is one process, which most tests look into.
    #[must_use]
    pub fn supervised(mut self) -> Launch {
        self.is_supervised = true;
        self
    }

    /// Sets a variable of its environment, which plugins see too.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Launch {
        self.env.push((name.into(), value.as_ref().to_owned()));
        self
    }

    /// Starts the host from a state directory in which the dependencies of plugins are compiled.
    ///
    /// The first test to ask for it pays for the compilation; the others copy it.
    #[must_use]
    pub fn warm(self) -> Launch {
        static WARM: OnceLock<TestHost> = OnceLock::new();
        let warm = WARM.get_or_init(|| {
            let launch = Launch::new();
            launch.plugins().copy_source("hello");
            launch.start()
        });
        let target = warm.state_dir().join(STATE_TARGET);
        assert!(target.is_dir(), "the host keeps cargo's output elsewhere than in {}", target.display());
        std::fs::create_dir(self.state_dir()).expect("the test's directory is writable");
        // With times and links: cargo judges by them what is fresh.
        let copied = Command::new("cp").arg("-a").arg(target).arg(self.state_dir()).status();
        assert!(copied.expect("there is a `cp`").success(), "copying the warm target directory");
        self
    }

    /// Starts the host and waits until every plugin has its first outcome.
    ///
    /// # Panics
    ///
    /// When the host ends instead: with its exit code and words.
    #[track_caller]
    pub fn start(self) -> TestHost {
        self.start_with(None)
    }

    /// As [`Launch::start`], with a listening socket passed as systemd does: as descriptor 3.
    #[track_caller]
    pub fn start_on(self, socket: TcpListener) -> TestHost {
        self.start_with(Some(socket))
    }

    #[track_caller]
    fn start_with(self, socket: Option<TcpListener>) -> TestHost {
        let ready = self.guard.dir().join("ready.json");
        // One that an earlier host in these directories left; most have none.
        let _ = std::fs::remove_file(&ready);
        self.be_patient(patience());
        let mut command = match socket {
            None => self.command(),
            Some(_) => self.command_from(Command::new("sh")),
        };
        if socket.is_some() {
            command.args(["-c", ACTIVATE]).arg(binary());
        }
        command.args(["run", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        command.arg("--plugins").arg(self.plugins.path());
        command.arg("--state").arg(self.state_dir());
        command.arg("--ready-file").arg(&ready);
        if !self.is_supervised {
            command.arg("--no-supervisor");
        }
        command.args(&self.args);
        let stdin = socket.map_or_else(Stdio::null, |socket| Stdio::from(OwnedFd::from(socket)));
        let mut program = Program::spawn_reading(command, stdin, "host", &self.guard);
        let (listen, admin) = eventually(BUILD, "the host's ready file", || {
            if let Some(finished) = program.finished() {
                panic!("the host ended at its start: {finished}");
            }
            read_ready(&ready).ok_or_else(|| format!("none; it said\n{}", program.stderr()))
        });
        TestHost { plugins: self.plugins.clone(), program, launch: self, listen, admin }
    }

    /// Makes the host's own deadlines as long as the test's. A test with settings of its own keeps them.
    fn be_patient(&self, times: u32) {
        let settings = self.guard.dir().join("host.toml");
        if times > 1 && !settings.exists() {
            let lines: String =
                OWN_DEADLINES.iter().map(|(name, ms)| format!("{name} = {}\n", ms * times)).collect();
            std::fs::write(settings, format!("[limits]\n{lines}")).expect("the test's directory is writable");
        }
    }

    /// Runs `host ARGS` to its end, in these directories.
    ///
    /// # Panics
    ///
    /// When it does not end by itself.
    #[track_caller]
    pub fn run(&self, args: &[&str]) -> Finished {
        self.spawn(args).wait(COMMAND)
    }

    /// Starts `host ARGS` in these directories; one such command at a time.
    #[track_caller]
    pub fn spawn(&self, args: &[&str]) -> Program {
        let mut command = self.command();
        command.args(args);
        Program::spawn(command, "command", &self.guard)
    }

    /// The binary in a shell's environment, free of what cargo told the test.
    fn command(&self) -> Command {
        self.command_from(under_tool(&env::var("TESTS_UNDER").unwrap_or_default()))
    }

    fn command_from(&self, mut command: Command) -> Command {
        for (name, _) in env::vars_os() {
            if is_of_the_test_run(&name.to_string_lossy()) {
                command.env_remove(name);
            }
        }
        command.current_dir(self.guard.dir()).env("NO_COLOR", "1").envs(self.env.iter().cloned());
        command
    }
}

/// The binary, run by the tool whose command line is `tool`, if it is one: `./tests/memcheck` sets it.
fn under_tool(tool: &str) -> Command {
    let mut words = tool.split_ascii_whitespace();
    match words.next() {
        None => Command::new(binary()),
        Some(program) => {
            let mut command = Command::new(program);
            command.args(words).arg(binary());
            command
        }
    }
}

/// Whether a variable speaks to this test run and not to whoever works on this machine.
fn is_of_the_test_run(name: &str) -> bool {
    let from_cargo = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "HOST_"];
    let whole = ["CARGO", "CARGO_CRATE_NAME", "CARGO_TARGET_TMPDIR", "CARGO_TARGET_DIR"];
    let more = ["LD_LIBRARY_PATH", "DATABASE_URL", "RUST_LOG", "RUST_BACKTRACE"];
    from_cargo.iter().any(|prefix| name.starts_with(prefix)) || whole.contains(&name) || more.contains(&name)
}
