//! The log on standard error, the one live line below it, and how a line of it looks.
//!
//! ```text
//! 12:01:02 INFO  reloaded hello: generation 2 -> 3 in 312 ms (build 280, probe 4, init 1)
//! 12:01:04 WARN  hello g3 GET /{name} [5f2c-1] no such guest name=bob
//! ```
//!
//! # Invariants
//!
//! - A log line never runs into the live line: one lock covers both.
//! - Nobody waits for the log to be written.
//! - What a plugin or a client says cannot steer the terminal nor pass for a line of its own.

use std::fmt::{Debug, Write as _};
use std::io::{self, IsTerminal as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::{Context, SubscriberExt as _};

use super::ask::now_ms;
use super::log_limit::EventLimit;
use super::log_writer::LogWriter;
use super::text::{harmless, harmless_colours, utc};
use crate::admin::{LogLine, RecentLog};
use crate::build::plain;

/// Standard error: lines that stay, and below them one that changes.
#[derive(Debug)]
pub(super) struct Terminal {
    /// Whether there is a screen on which a line can change.
    pub(super) is_terminal: bool,
    /// Whether colours are welcome.
    pub(super) has_colours: bool,
    /// The live line as it stands on the screen; empty when there is none.
    live: Mutex<String>,
    writer: LogWriter,
}

/// How long a process that ends waits for its last lines to be written.
const LAST_LINES: Duration = Duration::from_millis(500);

/// To the start of the line, and clears it.
const CLEAR: &str = "\r\x1b[K";
/// Lets a line that is too long be cut instead of wrapped, which could not be cleared.
const NO_WRAP: &str = "\x1b[?7l";
const WRAP: &str = "\x1b[?7h";

impl Terminal {
    /// Standard error as it is.
    pub(super) fn stderr() -> Arc<Terminal> {
        let is_terminal = io::stderr().is_terminal();
        Arc::new(Terminal {
            is_terminal,
            has_colours: has_colours(is_terminal),
            live: Mutex::default(),
            writer: LogWriter::stderr(),
        })
    }

    /// Replaces the live line; an empty one takes it away.
    pub(super) fn show(&self, line: &str) {
        let mut live = self.live.lock();
        if *live != line {
            line.clone_into(&mut live);
            let text =
                if line.is_empty() { CLEAR.to_owned() } else { format!("{CLEAR}{NO_WRAP}{line}{WRAP}") };
            self.writer.put(text);
        }
    }

    /// Waits a moment for what was said to be written.
    pub(super) fn flush(&self) {
        self.writer.flush(LAST_LINES);
    }

    fn lines(&self, text: &str) {
        let live = self.live.lock();
        if live.is_empty() {
            self.writer.put(text.to_owned());
        } else {
            self.writer.put(format!("{CLEAR}{text}{NO_WRAP}{live}{WRAP}"));
        }
    }
}

/// Whether colours are welcome where there is a screen, or none.
pub(super) fn has_colours(is_terminal: bool) -> bool {
    is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Sets the log of this process up: each line goes to the terminal, and is kept in `recent`, if there is anybody
/// to ask for it. A second call changes nothing.
pub(super) fn install(terminal: &Arc<Terminal>, level: LevelFilter, recent: Option<Arc<RecentLog>>) {
    let format = Format { has_colours: terminal.has_colours, has_date: !terminal.is_terminal };
    let log = Log { terminal: Arc::clone(terminal), format, recent, limit: EventLimit::default() };
    let log = log.with_filter(filter_fn(move |of| is_wanted(of, level)).with_max_level_hint(level));
    // Fails only if there is one already, as in a test.
    let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry().with(log));
}

/// Whether an event comes from the host or a plugin, and not from a library.
fn is_ours(of: &Metadata<'_>) -> bool {
    matches!(of.target().split(':').next(), Some("host" | "plugin" | "access"))
}

/// Whether an event is logged: everything at the level is, but of libraries only what is wrong.
fn is_wanted(of: &Metadata<'_>, level: LevelFilter) -> bool {
    let is_ours = is_ours(of);
    // Not `is_event`: `tracing::enabled!` asks with a kind of its own.
    *of.level() <= level && !of.is_span() && (is_ours || *of.level() <= Level::WARN)
}

/// Where events go.
struct Log {
    terminal: Arc<Terminal>,
    format: Format,
    recent: Option<Arc<RecentLog>>,
    /// Of the events of libraries.
    limit: EventLimit,
}

impl<S: Subscriber> Layer<S> for Log {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let left_out = match is_ours(metadata) {
            true => Some(0),
            false => self.limit.admit(metadata.callsite(), Instant::now()),
        };
        let Some(left_out) = left_out else { return };
        let mut line = LogLine {
            at_ms: now_ms(),
            level: event.metadata().level().as_str().to_ascii_lowercase(),
            target: event.metadata().target().to_owned(),
            ..LogLine::default()
        };
        event.record(&mut Parts(&mut line));
        if left_out > 0 {
            // Writing to a `String` cannot fail.
            let _ = write!(line.fields, " left_out={left_out}");
        }
        self.terminal.lines(&self.format.line(&line));
        if let Some(recent) = &self.recent {
            recent.push(line);
        }
    }
}

/// Puts the fields of an event into their places.
struct Parts<'a>(&'a mut LogLine);

impl Parts<'_> {
    fn put(&mut self, field: &Field, value: String) {
        let line = &mut *self.0;
        let known = match field.name() {
            "message" => &mut line.message,
            "plugin" => &mut line.plugin,
            "about" => {
                line.is_plugin_in_message = true;
                &mut line.plugin
            }
            "generation" => &mut line.generation,
            "route" => &mut line.route,
            "request_id" => &mut line.request_id,
            "origin" => &mut line.origin,
            name => {
                let is_bare = !value.is_empty() && !value.contains([' ', '"', '=']);
                // Writing to a `String` cannot fail.
                let _ = match is_bare {
                    true => write!(line.fields, " {name}={}", harmless(&value)),
                    false => write!(line.fields, " {name}={value:?}"),
                };
                return;
            }
        };
        *known = value;
    }
}

impl Visit for Parts<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.to_owned());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, format!("{value:.3}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.put(field, format!("{value:?}"));
    }
}

/// How a line of the log looks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Format {
    pub(super) has_colours: bool,
    /// A file needs the date too.
    pub(super) has_date: bool,
}

impl Format {
    /// The line as text, its end included.
    pub(super) fn line(&self, line: &LogLine) -> String {
        let (date, time) = utc(line.at_ms / 1000);
        let time = if self.has_date { format!("{date}T{time}Z") } else { time };
        let colour = match line.level.as_str() {
            "error" => "31",
            "warn" => "33",
            "info" => "32",
            "debug" => "34",
            _ => "2",
        };
        let who = self.who(line);
        let message = self.message(line);
        let fields = self.paint("2", &line.fields);
        let level = self.paint(colour, &format!("{:<5}", line.level.to_ascii_uppercase()));
        format!("{} {level} {who}{message}{fields}\n", self.paint("2", &time))
    }

    /// The plugin, generation, route and request that a line is about.
    fn who(&self, line: &LogLine) -> String {
        let mut parts = Vec::new();
        if !line.plugin.is_empty() && !line.is_plugin_in_message {
            parts.push(self.paint("1", &harmless(&line.plugin)));
        }
        if !line.generation.is_empty() {
            parts.push(format!("g{}", line.generation));
        }
        if !line.route.is_empty() {
            parts.push(harmless(&line.route));
        }
        if !line.request_id.is_empty() {
            parts.push(self.paint("2", &format!("[{}]", harmless(&line.request_id))));
        }
        if parts.is_empty() { String::new() } else { format!("{} ", parts.join(" ")) }
    }

    fn message(&self, line: &LogLine) -> String {
        if line.target != "plugin" {
            // The compiler's words are shown as they are, or without their colours.
            return match self.has_colours {
                true => harmless_colours(&line.message),
                false => harmless_colours(&plain(&line.message)),
            };
        }
        let of = line.origin.split(':').next().unwrap_or_default();
        let is_own = of.is_empty() || of == "panic" || of == line.plugin.replace('-', "_");
        let origin = if is_own { String::new() } else { format!("{}: ", line.origin) };
        harmless(&format!("{origin}{}", line.message))
    }

    fn paint(&self, colour: &str, text: &str) -> String {
        if self.has_colours && !text.is_empty() {
            format!("\x1b[{colour}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}
