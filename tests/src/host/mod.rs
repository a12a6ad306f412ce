//! The real host, as a child process.
//!
//! Owns: starting the binary in directories of its own, waiting for its first word, asking its admin
//! listener, ending it. Does not own: what its JSON is called (`api`), the files under `--plugins`
//! ([`PluginsDir`]), the binary ([`crate::fixture`]).
//!
//! # Invariants
//!
//! - A host that ends before a test expected it fails that test with its exit code and its words.
//! - What the host said is printed when its test fails.

mod api;
mod launch;
mod plugins;
mod program;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread;

use serde_json::Value;

pub use self::api::{Event, PluginStatus, Slot};
pub use self::launch::Launch;
pub use self::plugins::{HalfWritten, PluginsDir};
pub use self::program::{Finished, Program};
use crate::fixture;
use crate::http::{Client, Response};
use crate::wait::{BUILD, SOON, eventually};

/// A running host.
#[derive(Debug)]
pub struct TestHost {
    /// Where its plugins come from; tests change the files here.
    pub plugins: PluginsDir,
    /// What it runs as. Before `launch`: it must end before its directory goes.
    program: Program,
    launch: Launch,
    listen: SocketAddr,
    admin: SocketAddr,
}

impl TestHost {
    /// A host with one prebuilt plugin per pair of name and fixture; everything else as it comes.
    #[track_caller]
    pub fn start<'a>(libraries: impl IntoIterator<Item = (&'a str, &'a str)>) -> TestHost {
        let launch = Launch::new();
        for (name, fixture) in libraries {
            launch.plugins().install(name, fixture);
        }
        launch.start()
    }

    /// Where it serves.
    pub fn listen(&self) -> SocketAddr {
        self.listen
    }

    /// Where it can be asked and told.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.program.pid()
    }

    /// The process that serves: under a supervisor another one than [`TestHost::pid`], and a new one after
    /// each crash.
    #[track_caller]
    pub fn serving_pid(&self) -> u32 {
        let pid = self.api("/api/host")["pid"].as_u64();
        pid.and_then(|pid| u32::try_from(pid).ok()).expect("a host knows its process")
    }

    /// Waits until another process serves than `before`.
    #[track_caller]
    pub fn wait_restarted(&self, before: u32) -> u32 {
        eventually(SOON, "another process to serve", || {
            let answer = Client::new(self.admin).get("/api/host").map_err(|error| error.to_string())?;
            match answer.json()["pid"].as_u64() {
                Some(pid) if pid != u64::from(before) => Ok(u32::try_from(pid).expect("a process number")),
                other => Err(format!("{other:?} serves")),
            }
        })
    }

    /// Its state directory.
    pub fn state_dir(&self) -> PathBuf {
        self.launch.state_dir()
    }

    /// What it has written to standard error so far: its log.
    pub fn log(&self) -> String {
        self.program.stderr()
    }

    /// `GET path`, over a connection of its own.
    ///
    /// # Panics
    ///
    /// When there is no answer.
    #[track_caller]
    pub fn get(&self, path: &str) -> Response {
        self.answered(path, Client::new(self.listen).get(path))
    }

    /// `POST path` with a body, over a connection of its own.
    ///
    /// # Panics
    ///
    /// When there is no answer.
    #[track_caller]
    pub fn post(&self, path: &str, body: &[u8]) -> Response {
        self.answered(path, Client::new(self.listen).post(path, body))
    }

    /// `GET path` of the admin listener, as JSON.
    ///
    /// # Panics
    ///
    /// When the answer is not 200 or no JSON.
    #[track_caller]
    pub fn api(&self, path: &str) -> Value {
        let response = self.answered(path, Client::new(self.admin).get(path));
        assert_eq!(response.status, 200, "{path}: {}", response.text());
        response.json()
    }

    #[track_caller]
    fn answered(&self, path: &str, response: std::io::Result<Response>) -> Response {
        response.unwrap_or_else(|error| panic!("no answer to {path}: {error}"))
    }

    /// All plugins.
    #[track_caller]
    pub fn plugin_list(&self) -> Vec<PluginStatus> {
        api::plugins(&self.api(api::PLUGINS))
    }

    /// One plugin.
    ///
    /// # Panics
    ///
    /// When the host does not know it.
    #[track_caller]
    pub fn plugin(&self, name: &str) -> PluginStatus {
        let list = self.plugin_list();
        let names: Vec<String> = list.iter().map(PluginStatus::name).collect();
        let found = list.into_iter().find(|plugin| plugin.name() == name);
        found.unwrap_or_else(|| panic!("no plugin `{name}` among {names:?}"))
    }

    /// The registry's slot of a key in the common namespace.
    ///
    /// # Panics
    ///
    /// When there is none.
    #[track_caller]
    pub fn slot(&self, key: &str) -> Slot {
        let registry = self.api(api::REGISTRY);
        let found = api::slots(&registry).into_iter().find(|slot| slot.key() == key);
        found.unwrap_or_else(|| panic!("no key `{key}` in {registry}"))
    }

    /// The events of a plugin, the newest first.
    #[track_caller]
    pub fn events(&self, plugin: &str) -> Vec<Event> {
        let events = api::events(&self.api(api::EVENTS));
        events.into_iter().filter(|event| event.plugin() == plugin).collect()
    }

    /// Waits until the plugin is as wanted. For what compiles, the deadline is a build's.
    ///
    /// # Panics
    ///
    /// When it does not come to that: with the plugin's last status.
    #[track_caller]
    pub fn wait_for(&self, plugin: &str, what: &str, is_so: impl Fn(&PluginStatus) -> bool) -> PluginStatus {
        let deadline = if self.plugins.is_source(plugin) { BUILD } else { SOON };
        eventually(deadline, &format!("plugin `{plugin}` {what}"), || {
            let list = self.plugin_list();
            match list.iter().find(|status| status.name() == plugin) {
                Some(status) if is_so(status) => Ok(status.clone()),
                Some(status) => Err(status.to_string()),
                None => Err("the host does not know it".to_owned()),
            }
        })
    }

    /// Waits until the plugin serves in that generation.
    #[track_caller]
    pub fn wait_generation(&self, plugin: &str, generation: u64) -> PluginStatus {
        self.wait_for(plugin, &format!("to serve in generation {generation}"), |status| {
            status.generation() == Some(generation)
        })
    }

    /// Waits until so many generations of a plugin are unmapped, and nothing of it is mapped but what serves.
    #[track_caller]
    pub fn wait_unloaded(&self, plugin: &str, generations: u64) {
        eventually(SOON, &format!("{generations} generations of `{plugin}` to be unmapped"), || {
            let status = self.plugin(plugin);
            match (status.unloaded(), status.parked().as_slice()) {
                (unloaded, []) if unloaded == generations => Ok(()),
                (unloaded, parked) => Err(format!("{unloaded} unmapped, parked {parked:?}")),
            }
        });
    }

    /// What its process has mapped, as the system writes it: a line for each mapping.
    pub fn mappings(&self) -> Vec<String> {
        let maps = fs::read_to_string(format!("/proc/{}/maps", self.pid())).expect("the process runs");
        maps.lines().map(str::to_owned).collect()
    }

    /// How many libraries of plugins are in the memory of its process.
    pub fn mapped_libraries(&self) -> usize {
        let stage = self.state_dir().join("stage").display().to_string();
        self.mappings().iter().filter(|line| line.contains(&stage) && line.contains(" r-xp ")).count()
    }

    /// Changes files and waits for the outcome that this has for the plugin.
    #[track_caller]
    fn outcome(&self, plugin: &str, change: impl FnOnce(&PluginsDir), kinds: &[&str]) -> Event {
        let newest = self.events(plugin).iter().map(Event::id).max();
        change(&self.plugins);
        let deadline = if self.plugins.is_source(plugin) { BUILD } else { SOON };
        eventually(deadline, &format!("plugin `{plugin}` to be one of {kinds:?}"), || {
            let events = self.events(plugin);
            let fresh = |event: &&Event| Some(event.id()) > newest;
            match events.iter().filter(fresh).find(|event| kinds.contains(&event.kind().as_str())) {
                Some(event) => Ok(event.clone()),
                None => Err(format!("newest {}", events.first().map_or_else(String::new, Event::to_string))),
            }
        })
    }

    /// Changes files so that the plugin must go live in new code; returns the new generation.
    #[track_caller]
    pub fn reload(&self, plugin: &str, change: impl FnOnce(&PluginsDir)) -> u64 {
        let event = self.outcome(plugin, change, &["loaded", "reloaded"]);
        event.generation().unwrap_or_else(|| panic!("no generation in {event}"))
    }

    /// Changes files so that the host must refuse the new code; returns its reason.
    ///
    /// # Panics
    ///
    /// Also when the generation that serves is no longer the one from before.
    #[track_caller]
    pub fn refuse(&self, plugin: &str, change: impl FnOnce(&PluginsDir)) -> String {
        let before = self.plugin(plugin).generation();
        let event = self.outcome(plugin, change, &["refused"]);
        assert_eq!(self.plugin(plugin).generation(), before, "a refusal changed what serves: {event}");
        event.reason()
    }

    /// Sends its process a signal, by the name that `kill` knows.
    pub fn signal(&self, name: &str) {
        self.program.signal(name);
    }

    /// Asks it to end, as a service manager does, and waits until it has.
    #[track_caller]
    pub fn terminate(mut self) -> Finished {
        self.program.signal("TERM");
        self.program.wait(SOON)
    }

    /// Waits for its end, which somebody else has brought about.
    #[track_caller]
    pub fn wait_end(mut self) -> Finished {
        self.program.wait(SOON)
    }

    /// Asks it to end, and starts it again in the same directories.
    ///
    /// # Panics
    ///
    /// When it does not end well.
    #[track_caller]
    pub fn restart(self) -> TestHost {
        let launch = self.launch.clone();
        let finished = self.terminate();
        assert_eq!(finished.code(), 0, "{finished}");
        launch.start()
    }

    /// Kills it, and returns what starts another in the same directories.
    #[track_caller]
    pub fn kill9(mut self) -> Launch {
        self.program.signal("KILL");
        self.program.wait(SOON);
        self.launch.clone()
    }

    /// As [`TestHost::kill9`] of the supervisor alone, and waits for what the process that serves says then.
    #[track_caller]
    pub fn kill9_keeping(mut self, is_said: impl Fn(&str) -> bool) -> Launch {
        self.program.signal("KILL");
        self.program.wait(SOON);
        eventually(SOON, "the other process to say so", || {
            if is_said(&self.log()) { Ok(()) } else { Err(self.log()) }
        });
        let launch = self.launch.clone();
        // Dropped, it would end the whole process group.
        std::mem::forget(self);
        launch
    }

    /// Runs a command of the same binary to its end, as `host ARGS`, in this host's directory.
    #[track_caller]
    pub fn cli(&self, args: &[&str]) -> Finished {
        self.launch.run(args)
    }

    /// Starts a command of the same binary, for one that does not end by itself.
    #[track_caller]
    pub fn spawn_cli(&self, args: &[&str]) -> Program {
        self.launch.spawn(args)
    }
}

impl Drop for TestHost {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("---- what the host said\n{}{}----", self.program.stdout(), self.program.stderr());
        }
    }
}

/// Runs the host's binary to its end, in an empty directory.
///
/// # Panics
///
/// When it does not end by itself.
#[track_caller]
pub fn run_cli(args: &[&str]) -> Finished {
    Launch::new().run(args)
}

/// What the host writes once every plugin has its first outcome.
fn read_ready(file: &Path) -> Option<(SocketAddr, SocketAddr)> {
    let ready: Value = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
    Some((ready["listen"].as_str()?.parse().ok()?, ready["admin"].as_str()?.parse().ok()?))
}

/// The binary, in a function of its own because it may panic with a sentence for the developer.
fn binary() -> PathBuf {
    fixture::host_binary()
}
