//! The log on standard error, and the one live line below it.
//!
//! ```text
//! 12:01:02 INFO  reloaded hello: generation 2 -> 3 in 312 ms (build 280, probe 4, init 1)
//! 12:01:04 WARN  hello g3 GET /{name} [5f2c-1] no such guest name=bob
//! ```
//!
//! # Invariants
//!
//! - A log line never runs into the live line: one lock covers both.
//! - What a plugin or a client says cannot steer the terminal nor pass for a line of its own.

use std::fmt::{self, Debug, Write as _};
use std::io::{self, IsTerminal as _, Write as _};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;

use super::text::{harmless, utc};
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
}

/// To the start of the line, and clears it.
const CLEAR: &str = "\r\x1b[K";
/// Lets a line that is too long be cut instead of wrapped, which could not be cleared.
const NO_WRAP: &str = "\x1b[?7l";
const WRAP: &str = "\x1b[?7h";

impl Terminal {
    /// Standard error as it is.
    pub(super) fn stderr() -> Arc<Terminal> {
        let is_terminal = io::stderr().is_terminal();
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Arc::new(Terminal { is_terminal, has_colours: is_terminal && !no_color, live: Mutex::default() })
    }

    /// Replaces the live line; an empty one takes it away.
    pub(super) fn show(&self, line: &str) {
        let mut live = self.live.lock();
        if *live != line {
            line.clone_into(&mut live);
            let text =
                if line.is_empty() { CLEAR.to_owned() } else { format!("{CLEAR}{NO_WRAP}{line}{WRAP}") };
            put(&text);
        }
    }

    fn lines(&self, text: &str) {
        let live = self.live.lock();
        if live.is_empty() {
            put(text);
        } else {
            put(&format!("{CLEAR}{text}{NO_WRAP}{live}{WRAP}"));
        }
    }
}

fn put(text: &str) {
    // A log that cannot be written has nobody to complain to.
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// What the subscriber writes to.
struct Lines(Arc<Terminal>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lines(&String::from_utf8_lossy(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Sets the log of this process up. A second call changes nothing.
pub(super) fn install(terminal: &Arc<Terminal>, level: LevelFilter) {
    let format = Format { has_colours: terminal.has_colours, has_date: !terminal.is_terminal };
    let terminal = Arc::clone(terminal);
    let lines = tracing_subscriber::fmt::layer()
        .event_format(format)
        .with_ansi(format.has_colours)
        .with_writer(move || Lines(Arc::clone(&terminal)))
        .with_filter(filter_fn(move |of| is_wanted(of, level)).with_max_level_hint(level));
    // Fails only if there is one already, as in a test.
    let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry().with(lines));
}

/// Whether an event is logged: everything at the level is, but of libraries only what is wrong.
fn is_wanted(of: &Metadata<'_>, level: LevelFilter) -> bool {
    let is_ours = matches!(of.target().split(':').next(), Some("host" | "plugin" | "access"));
    // Not `is_event`: `tracing::enabled!` asks with a kind of its own.
    *of.level() <= level && !of.is_span() && (is_ours || *of.level() <= Level::WARN)
}

/// How an event becomes a line.
#[derive(Debug, Clone, Copy)]
pub(super) struct Format {
    pub(super) has_colours: bool,
    /// A file needs the date too.
    pub(super) has_date: bool,
}

impl<S, N> FormatEvent<S, N> for Format
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        writer.write_str(&self.line(now, *event.metadata().level(), event.metadata().target(), &fields))
    }
}

/// The fields of an event, those with a place of their own apart.
#[derive(Debug, Default)]
pub(super) struct Fields {
    pub(super) message: String,
    pub(super) plugin: String,
    pub(super) generation: String,
    pub(super) route: String,
    pub(super) request_id: String,
    pub(super) origin: String,
    /// The others, as ` name=value`.
    pub(super) rest: String,
}

impl Fields {
    fn put(&mut self, field: &Field, value: String) {
        let known = match field.name() {
            "message" => &mut self.message,
            "plugin" => &mut self.plugin,
            "generation" => &mut self.generation,
            "route" => &mut self.route,
            "request_id" => &mut self.request_id,
            "origin" => &mut self.origin,
            name => {
                let is_bare = !value.is_empty() && !value.contains([' ', '"', '=']);
                // Writing to a `String` cannot fail.
                let _ = match is_bare {
                    true => write!(self.rest, " {name}={}", harmless(&value)),
                    false => write!(self.rest, " {name}={value:?}"),
                };
                return;
            }
        };
        *known = value;
    }
}

impl Visit for Fields {
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

impl Format {
    /// The line of an event, its end included.
    pub(super) fn line(&self, seconds: u64, level: Level, target: &str, fields: &Fields) -> String {
        let (date, time) = utc(seconds);
        let time = if self.has_date { format!("{date}T{time}Z") } else { time };
        let colour = match level {
            Level::ERROR => "31",
            Level::WARN => "33",
            Level::INFO => "32",
            Level::DEBUG => "34",
            _ => "2",
        };
        let who = self.who(fields);
        let message = self.message(target, fields);
        let rest = self.paint("2", &fields.rest);
        let level = self.paint(colour, &format!("{level:<5}"));
        format!("{} {level} {who}{message}{rest}\n", self.paint("2", &time))
    }

    /// The plugin, generation, route and request that an event is about.
    fn who(&self, fields: &Fields) -> String {
        let mut parts = Vec::new();
        if !fields.plugin.is_empty() {
            parts.push(self.paint("1", &harmless(&fields.plugin)));
        }
        if !fields.generation.is_empty() {
            parts.push(format!("g{}", fields.generation));
        }
        if !fields.route.is_empty() {
            parts.push(harmless(&fields.route));
        }
        if !fields.request_id.is_empty() {
            parts.push(self.paint("2", &format!("[{}]", harmless(&fields.request_id))));
        }
        if parts.is_empty() { String::new() } else { format!("{} ", parts.join(" ")) }
    }

    fn message(&self, target: &str, fields: &Fields) -> String {
        if target != "plugin" {
            // The compiler's words are shown as they are, or without their colours.
            return if self.has_colours { fields.message.clone() } else { plain(&fields.message) };
        }
        let of = fields.origin.split(':').next().unwrap_or_default();
        let is_own = of.is_empty() || of == "panic" || of == fields.plugin.replace('-', "_");
        let origin = if is_own { String::new() } else { format!("{}: ", fields.origin) };
        harmless(&format!("{origin}{}", fields.message))
    }

    fn paint(&self, colour: &str, text: &str) -> String {
        if self.has_colours && !text.is_empty() {
            format!("\x1b[{colour}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}
