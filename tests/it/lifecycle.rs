//! Facts about hooks: which run when, what a bad one may do, and that nobody waits for them.

use std::fs;
use std::path::PathBuf;

use tests::host::{Launch, TestHost};
use tests::wait::{SOON, eventually};

const FIXTURE: &str = "lifecycle";

/// A host with the fixture, and where it is told what to do.
struct Stage {
    host: TestHost,
    dir: PathBuf,
}

impl Stage {
    fn start() -> Stage {
        Stage::start_from(Launch::new())
    }

    fn start_from(launch: Launch) -> Stage {
        launch.plugins().install("shop", FIXTURE);
        let dir = launch.scratch().to_owned();
        Stage { host: launch.env("FIXTURE_DIR", &dir).start(), dir }
    }

    fn tell(&self, hook: &str, what: &str) {
        // As a whole or not at all, for the fixture may be looking.
        let partial = self.dir.join(format!("{hook}.partial"));
        fs::write(&partial, what).unwrap();
        fs::rename(partial, self.dir.join(hook)).unwrap();
    }

    fn release(&self, hook: &str) {
        fs::remove_file(self.dir.join(hook)).unwrap();
    }

    /// What the hooks have said so far.
    fn hooks(&self) -> Vec<String> {
        let text = fs::read_to_string(self.dir.join("hooks")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn rebuild(&self, build: usize) -> u64 {
        self.host.reload("shop", |plugins| plugins.rebuild("shop", FIXTURE, build))
    }

    fn refused(&self, build: usize) -> String {
        self.host.refuse("shop", |plugins| plugins.rebuild("shop", FIXTURE, build))
    }

    #[track_caller]
    fn wait_hook(&self, line: &str, times: usize) {
        eventually(SOON, &format!("{times} lines `{line}`"), || {
            let hooks = self.hooks();
            match hooks.iter().filter(|hook| *hook == line).count() {
                count if count == times => Ok(()),
                _ => Err(format!("{hooks:?}")),
            }
        });
    }
}

/// `upgrade` is told of the generation that serves, which the first load does not have.
#[test]
fn hooks_run_in_their_order() {
    let stage = Stage::start();
    assert_eq!(stage.hooks(), ["load", "check"]);
    stage.rebuild(1);
    let version = env!("CARGO_PKG_VERSION");
    let upgrade = format!("upgrade from generation 1 version {version}");
    assert_eq!(stage.hooks()[2..5], ["load", &upgrade, "check"]);
    stage.wait_hook("unload ends Reloaded", 1);
    let steps: Vec<String> = stage.host.plugin("shop").steps().into_iter().map(|(step, _)| step).collect();
    assert_eq!(steps, ["stage", "vet", "probe", "open", "init", "upgrade", "check", "publish"]);

    stage.host.plugins.remove("shop");
    stage.wait_hook("unload ends Removed", 1);
    assert_eq!(stage.host.terminate().code(), 0);
}

#[test]
fn shutdown_is_told_to_on_unload() {
    let launch = Launch::new();
    // Outlives the host's own.
    let _kept = launch.clone();
    let Stage { host, dir } = Stage::start_from(launch);
    assert_eq!(host.terminate().code(), 0);
    let hooks = fs::read_to_string(dir.join("hooks")).unwrap();
    assert_eq!(hooks, "load\ncheck\nunload begins Shutdown\nunload ends Shutdown\n");
}

/// Whatever is wrong with a hook before publish: the old generation serves, nothing staged is left, the next
/// build goes live.
#[test]
fn bad_hook_keeps_the_current_generation() {
    let stage = Stage::start();
    let words = |hook: &str, what: &str| match what {
        "errs" => format!("`{hook}` failed: {hook} errs, as this fixture was told"),
        _ => format!("`{hook}` panicked: {hook} panics, as this fixture was told"),
    };
    let mut build = 0;
    for hook in ["upgrade", "check"] {
        for what in ["errs", "panics"] {
            build += 1;
            stage.tell(hook, what);
            let reason = stage.refused(build);
            assert!(reason.starts_with(&words(hook, what)), "{reason}");
            assert_eq!(stage.host.plugin("shop").steps().last().unwrap().0, hook);
            let answer = stage.host.get("/shop");
            assert_eq!(
                (answer.text().as_str(), answer.header("x-plugin-generation")),
                ("lifecycle", Some("1"))
            );
            stage.release(hook);
        }
    }
    let slot = stage.host.slot("staged");
    assert_eq!(slot.created_by(), ("shop".to_owned(), 1), "{slot}");
    assert_eq!(stage.rebuild(build + 1), 6);
    assert_eq!(stage.host.get("/shop").text(), "lifecycle");
}

/// What `on_load` staged is closed when `check` refuses a first load, and made anew by the next.
#[test]
fn refused_check_undoes_what_was_staged() {
    let launch = Launch::new();
    fs::write(launch.scratch().join("check"), "errs").unwrap();
    let stage = Stage::start_from(launch);
    assert_eq!(stage.host.plugin("shop").state(), "refused");
    assert_eq!(stage.host.get("/shop").status, 503);
    assert!(!stage.host.api("/api/registry").to_string().contains("staged"));
    stage.release("check");
    let generation = stage.rebuild(1);
    let slot = stage.host.slot("staged");
    assert_eq!(slot.created_by(), ("shop".to_owned(), generation), "{slot}");
}

/// A check that hangs is given up at the deadline of the hooks, and delays no request.
#[test]
fn check_that_hangs_is_refused() {
    let launch = Launch::new();
    let config = launch.scratch().join("host.toml");
    fs::write(&config, "[limits]\nload_timeout_ms = 1500\n").unwrap();
    let stage = Stage::start_from(launch.arg("--config").arg(&config));
    stage.tell("check", "waits");
    let reason = stage.refused(1);
    assert_eq!(reason, "`check` is still running after 1.5s");
    let parked = stage.host.plugin("shop").parked();
    assert_eq!(parked.len(), 1, "{parked:?}");
    assert!(parked[0].1.contains(&"`check`, which is still running".to_owned()), "{parked:?}");
    stage.release("check");
    stage.wait_hook("check goes on", 1);
    stage.host.wait_for("shop", "to have unmapped it", |status| status.unloaded() == 1);
    assert_eq!(stage.rebuild(2), 3);
}

/// Hooks of several generations run beside each other, and reloads wait for none of them.
#[test]
fn unload_hooks_wait_for_nobody() {
    let stage = Stage::start();
    stage.tell("unload", "waits");
    for build in 1..=3 {
        stage.rebuild(build);
    }
    stage.wait_hook("unload begins Reloaded", 3);
    assert!(!stage.hooks().iter().any(|hook| hook.starts_with("unload ends")));
    let parked = stage.host.plugin("shop").parked();
    let is_running = |holder: &String| holder == "`on_unload`, which is still running";
    assert!(parked.len() == 3 && parked.iter().all(|(_, by)| by.iter().any(is_running)), "{parked:?}");
    stage.release("unload");
    stage.wait_hook("unload ends Reloaded", 3);
    stage.host.wait_for("shop", "to have unmapped three", |status| status.unloaded() == 3);
}

/// The plugin's bytes are counted over all its generations, and `host status` shows them.
#[test]
fn heap_bytes_are_counted_per_plugin() {
    let stage = Stage::start();
    let heap = || stage.host.plugin("shop").heap_bytes().expect("it counts");
    let before = heap();
    assert_eq!(stage.host.get("/shop/memory/4000000").text(), "4000000");
    let grown = heap() - before;
    assert!((4_000_000..4_100_000).contains(&grown), "{grown} bytes more");
    let state = stage.host.state_dir();
    let shown = stage.host.cli(&["status", "--state", state.to_str().unwrap()]);
    assert!(shown.stdout.contains(" 3.8 MiB "), "{shown}");
    // What a generation leaves behind when it is unmapped stays in the plugin's sum.
    stage.rebuild(1);
    stage.host.wait_for("shop", "to have unmapped generation 1", |status| status.unloaded() == 1);
    let kept = heap() - before;
    assert!((3_900_000..4_200_000).contains(&kept), "{kept} bytes more");
}
