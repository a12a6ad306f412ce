//! What the operator sees happen: progress of builds, one log line for each event, and the start-up screen.
//!
//! Owns the words. Where lines go is [`log`](super::log)'s.
//!
//! # Invariants
//!
//! - Every event is one log line, also under `--quiet`; code that serves already is no news (debug).
//! - The live line is there while something builds, and only on a terminal; elsewhere a build is said
//!   once and then at most every ten seconds.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::log::Terminal;
use super::text::{harmless, took};
use crate::build::Step;
use crate::plugin::{Event, EventKind, Observer};

/// How often the live line is drawn anew.
const FRAME: Duration = Duration::from_millis(100);
/// How often a long build is mentioned where no line can change.
const MENTION: Duration = Duration::from_secs(10);
/// A build that is over sooner shows no live line: a line that flashes is worse than none.
const UNNOTICED: Duration = Duration::from_millis(400);

/// The screen.
pub(super) struct Screen {
    terminal: Arc<Terminal>,
    is_quiet: bool,
    builds: Mutex<Builds>,
    /// Signalled when a build begins, or the screen goes.
    begun: Condvar,
}

impl Screen {
    /// A screen on `terminal`; a quiet one shows no progress.
    pub(super) fn new(terminal: Arc<Terminal>, is_quiet: bool) -> Arc<Screen> {
        let screen = Arc::new(Screen { terminal, is_quiet, builds: Mutex::default(), begun: Condvar::new() });
        if !is_quiet {
            let of_thread = Arc::downgrade(&screen);
            // Without the thread the progress is missing, and nothing else.
            let _ = std::thread::Builder::new().name("screen".to_owned()).spawn(move || draw(&of_thread));
        }
        screen
    }

    /// Shows how builds go; tells whether there are any.
    fn frame(&self) -> bool {
        let mut builds = self.builds.lock();
        let now = Instant::now();
        if self.terminal.is_terminal {
            self.terminal.show(&builds.line(now));
        } else {
            for words in builds.mentions(now) {
                tracing::info!("{words}");
            }
        }
        !builds.of.is_empty()
    }

    fn ended(&self, plugin: &str) {
        let mut builds = self.builds.lock();
        builds.of.remove(plugin);
        if self.terminal.is_terminal && !self.is_quiet {
            self.terminal.show(&builds.line(Instant::now()));
        }
    }
}

/// Draws frames while something builds, until the screen is gone.
fn draw(screen: &Weak<Screen>) {
    while let Some(screen) = screen.upgrade() {
        let mut builds = screen.builds.lock();
        if builds.of.is_empty() {
            screen.begun.wait_for(&mut builds, Duration::from_secs(1));
        } else {
            drop(builds);
            screen.frame();
            let mut builds = screen.builds.lock();
            screen.begun.wait_for(&mut builds, FRAME);
        }
    }
}

impl Observer for Screen {
    fn building(&self, plugin: &str, step: Step<'_>) {
        let mut builds = self.builds.lock();
        let is_new = builds.step(plugin, step, Instant::now());
        drop(builds);
        if is_new {
            self.begun.notify_all();
        }
    }

    fn built(&self, plugin: &str) {
        self.ended(plugin);
    }

    fn happened(&self, event: &Event, rendered: Option<&str>) {
        let mut words = sentence(event);
        match event.event {
            EventKind::Refused => {
                if let Some(rendered) = rendered.filter(|rendered| !rendered.trim().is_empty()) {
                    words.push('\n');
                    words.push_str(rendered.trim_end());
                }
                tracing::error!(about = %event.plugin, "{words}");
            }
            EventKind::RolledBack | EventKind::Degraded => tracing::warn!(about = %event.plugin, "{words}"),
            EventKind::Retired if event.reason.is_some() => tracing::warn!(about = %event.plugin, "{words}"),
            // The end of a refusal is news: without it the error would be the last that is said.
            EventKind::Unchanged if event.reason.is_some() => {
                tracing::info!(about = %event.plugin, "{words}")
            }
            EventKind::Unchanged | EventKind::Unloaded => tracing::debug!(about = %event.plugin, "{words}"),
            _ => tracing::info!(about = %event.plugin, "{words}"),
        }
    }
}

/// What an event comes down to.
pub(super) fn sentence(event: &Event) -> String {
    let plugin = &event.plugin;
    let generation = event.generation.unwrap_or_default();
    let reason = event.reason.as_deref().map(harmless).unwrap_or_default();
    let time = format!("in {}{}", took(event.ms), steps(event));
    match event.event {
        EventKind::Loaded => format!("loaded {plugin}: generation {generation} {time}"),
        EventKind::Reloaded => match event.previous_generation {
            Some(previous) => format!("reloaded {plugin}: generation {previous} -> {generation} {time}"),
            None => format!("reloaded {plugin}: generation {generation} {time}"),
        },
        EventKind::RolledBack => {
            let previous = event.previous_generation.unwrap_or_default();
            format!("rolled back {plugin}: generation {previous} -> {generation} {time}: {reason}")
        }
        EventKind::Resumed => format!("resumed {plugin}: generation {generation} {time}: {reason}"),
        EventKind::Crashed => format!("crashed {plugin}: generation {generation}: {reason}"),
        EventKind::Refused => {
            let step = event.failed_step.filter(|step| *step != "build");
            let at = step.map(|step| format!(" at {step}")).unwrap_or_default();
            let serving = match event.previous_generation {
                Some(number) => format!("generation {number} still serves"),
                None => "it does not serve yet".to_owned(),
            };
            format!("refused {plugin}{at}: {reason}; {serving}")
        }
        EventKind::Unchanged if !reason.is_empty() => {
            format!("unchanged {plugin}: {reason} as generation {generation}")
        }
        EventKind::Unchanged => {
            format!("unchanged {plugin}: generation {generation} serves this code already")
        }
        EventKind::Retired if reason.is_empty() => format!("retired {plugin}: generation {generation}"),
        EventKind::Retired => format!("retired {plugin}: generation {generation}, but {reason}"),
        EventKind::Unloaded => format!("unloaded {plugin}: generation {generation} {time}"),
        EventKind::Degraded => format!("degraded {plugin}: generation {generation}: {reason}"),
        EventKind::Removed => format!("removed {plugin}: {reason}"),
    }
}

/// The steps that took long enough to be counted: ` (build 280, probe 4)`.
fn steps(event: &Event) -> String {
    let counted: Vec<String> = event
        .steps
        .iter()
        .filter(|step| step.ms >= 0.5)
        .map(|step| format!("{} {:.0}", step.step, step.ms))
        .collect();
    if counted.is_empty() { String::new() } else { format!(" ({})", counted.join(", ")) }
}

/// The builds that go on.
#[derive(Debug, Default)]
pub(super) struct Builds {
    of: BTreeMap<String, Build>,
}

#[derive(Debug)]
struct Build {
    since: Instant,
    is_queued: bool,
    /// How many crates are compiled.
    crates: usize,
    /// The newest crate, or what cargo waits for.
    doing: String,
    /// When it was last mentioned, where no line can change.
    mentioned: Option<Instant>,
}

impl Builds {
    /// Takes in a sign of life; tells whether the build is new.
    pub(super) fn step(&mut self, plugin: &str, step: Step<'_>, now: Instant) -> bool {
        let is_new = !self.of.contains_key(plugin);
        let build = self.of.entry(plugin.to_owned()).or_insert_with(|| Build {
            since: now,
            is_queued: false,
            crates: 0,
            doing: String::new(),
            mentioned: None,
        });
        let is_queued = matches!(step, Step::Queued { .. });
        if build.is_queued && !is_queued {
            // What counts is its own time.
            build.since = now;
        }
        build.is_queued = is_queued;
        match step {
            Step::Queued { .. } => {}
            Step::Running { what } => build.doing = harmless(what),
            Step::Blocked { words } => {
                build.doing = format!("waiting for another cargo: {}", harmless(words))
            }
            Step::Fetching { words } => build.doing = harmless(words),
            Step::Compiling { name } => build.doing = name.to_owned(),
            Step::Compiled { name, done } => {
                build.crates = done;
                build.doing = name.to_owned();
            }
        }
        is_new
    }

    /// Takes out a build that is over.
    #[cfg(test)]
    pub(super) fn end(&mut self, plugin: &str) {
        self.of.remove(plugin);
    }

    /// The live line: `building hello: 12 crates (serde_json) 8.1 s, 2 waiting`; empty when none is due.
    pub(super) fn line(&self, now: Instant) -> String {
        let waiting = self.of.values().filter(|build| build.is_queued).count();
        let running = self.of.iter().filter(|(_, build)| !build.is_queued);
        let mut line = running
            .filter(|(_, build)| now.saturating_duration_since(build.since) >= UNNOTICED)
            .map(|(plugin, build)| build.words(plugin, now))
            .collect::<Vec<_>>()
            .join(", ");
        if waiting > 0 && !line.is_empty() {
            // Writing to a `String` cannot fail.
            let _ = write!(line, ", {waiting} waiting");
        }
        line
    }

    /// What is due to be mentioned where no line can change.
    pub(super) fn mentions(&mut self, now: Instant) -> Vec<String> {
        let mut due = Vec::new();
        for (plugin, build) in self.of.iter_mut().filter(|(_, build)| !build.is_queued) {
            match build.mentioned {
                Some(last) if now.saturating_duration_since(last) < MENTION => continue,
                Some(_) => due.push(build.words(plugin, now)),
                None => due.push(format!("building {plugin}")),
            }
            build.mentioned = Some(now);
        }
        due
    }
}

impl Build {
    fn words(&self, plugin: &str, now: Instant) -> String {
        let seconds = now.saturating_duration_since(self.since).as_secs_f64();
        let crates = match self.crates {
            0 => String::new(),
            1 => " 1 crate".to_owned(),
            n => format!(" {n} crates"),
        };
        let doing = if self.doing.is_empty() { String::new() } else { format!(" ({})", self.doing) };
        format!("building {plugin}:{crates}{doing} {seconds:.1} s")
    }
}
