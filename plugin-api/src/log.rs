//! The bridges for `tracing` and for the `log` crate: this library's events, into the host's log.
//!
//! The library has its own copies of tracing's dispatcher and of log's logger, so an event would go nowhere. The
//! subscriber hands each event to the host, with its fields and the names of the spans it happened in; the logger does
//! the same for records.
//!
//! # Invariants
//!
//! - Filtering is the host's: everything up to `debug` crosses, `trace` does not.
#![expect(unsafe_code, reason = "calls the host through the C ABI")]

use std::cell::RefCell;
use std::fmt::{self, Write as _};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};

use tracing_core::field::{Field, Visit};
use tracing_core::span::{Attributes, Current, Id, Record};
use tracing_core::{Dispatch, Event, Level, LevelFilter, Metadata, Subscriber, dispatcher};

use crate::abi::{BytesView, LogView, PairView, StrView};
use crate::{alloc, host};

/// Makes the bridges this library's subscriber and logger. Where the library has set another before its load hook ran, the
/// host's log says what it will not get.
pub(crate) fn install() {
    let is_taken = alloc::for_life(|| dispatcher::set_global_default(Dispatch::new(Bridge))).is_err();
    if is_taken {
        say_taken("`tracing` subscriber", "events");
    }
    match ::log::set_logger(&RecordBridge) {
        Ok(()) => ::log::set_max_level(::log::LevelFilter::Debug),
        Err(_) => say_taken("`log` logger", "records"),
    }
}

fn say_taken(what: &str, lost: &str) {
    let message = format!(
        "the plugin has set a {what} of its own before it was loaded, so its {lost} do not come to this log: remove it, \
         the host's is there without a line of yours"
    );
    send(2, module_path!(), &message, &[], None, 0);
}

/// Hands an event to the host.
fn send(level: u32, target: &str, message: &str, fields: &[PairView], file: Option<&str>, line: u32) {
    let Ok(host) = host::table() else { return };
    let view = LogView {
        size: size_of::<LogView>(),
        level,
        target: StrView::new(target),
        message: StrView::new(message),
        fields: fields.as_ptr(),
        field_count: fields.len(),
        file: file.map_or(StrView::EMPTY, StrView::new),
        line,
    };
    // SAFETY: the table's own `ctx`; the view and what it points to live until the call returns.
    unsafe { (host.log)(host.ctx, &view) };
}

/// The logger of the `log` crate.
struct RecordBridge;

impl ::log::Log for RecordBridge {
    fn enabled(&self, metadata: &::log::Metadata<'_>) -> bool {
        metadata.level() <= ::log::Level::Debug
    }

    fn log(&self, record: &::log::Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let level = match record.level() {
            ::log::Level::Error => 1,
            ::log::Level::Warn => 2,
            ::log::Level::Info => 3,
            ::log::Level::Debug => 4,
            ::log::Level::Trace => 5,
        };
        // A record happens in a span as an event does.
        let message = Bridge.prefix() + &record.args().to_string();
        send(level, record.target(), &message, &[], record.file(), record.line().unwrap_or(0));
    }

    fn flush(&self) {}
}

thread_local! {
    /// The spans this thread is in, outermost first.
    static ENTERED: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

/// What a generation sets as its default it can never take back: its dispatcher is allocated for life.
struct Bridge;

/// A span that is open.
struct Span {
    id: u64,
    /// How often it is held.
    held: usize,
    /// Its name and fields.
    text: String,
}

/// Open spans, few at a time. Written and read by [`Bridge`].
static SPANS: Mutex<Vec<Span>> = Mutex::new(Vec::new());
/// The id of the newest span.
static LAST: AtomicU64 = AtomicU64::new(0);

/// Gives `body` the span with this id, if it is open.
fn with_span<R>(id: &Id, body: impl FnOnce(&mut Vec<Span>, usize) -> R) -> Option<R> {
    // Poisoning says nothing here: the list is whole after each operation.
    let mut spans = SPANS.lock().unwrap_or_else(PoisonError::into_inner);
    let at = spans.iter().position(|span| span.id == id.into_u64())?;
    Some(body(&mut spans, at))
}

impl Bridge {
    /// `outer{id=1}:inner: ` for the spans this thread is in; empty outside of spans.
    fn prefix(&self) -> String {
        // At the end of a thread, where destructors may log, there are no spans any more.
        let prefix = ENTERED.try_with(|entered| {
            let entered = entered.borrow();
            if entered.is_empty() {
                return String::new();
            }
            let text = |id: &u64| with_span(&Id::from_u64(*id), |spans, at| spans[at].text.clone());
            let names: Vec<String> = entered.iter().filter_map(text).collect();
            format!("{}: ", names.join(":"))
        });
        prefix.unwrap_or_default()
    }
}

impl Subscriber for Bridge {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::DEBUG
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::DEBUG)
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        let id = LAST.fetch_add(1, Ordering::Relaxed) + 1;
        let text = fields.after(attributes.metadata().name());
        SPANS.lock().unwrap_or_else(PoisonError::into_inner).push(Span { id, held: 1, text });
        Id::from_u64(id)
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        let mut fields = Fields::default();
        values.record(&mut fields);
        with_span(span, |spans, at| spans[at].text = fields.after(&spans[at].text));
    }

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let message = self.prefix() + &fields.message;
        let pairs: Vec<PairView> = fields
            .others
            .iter()
            .map(|(name, value)| PairView {
                name: StrView::new(name),
                value: BytesView::new(value.as_bytes()),
            })
            .collect();
        let metadata = event.metadata();
        let level = match *metadata.level() {
            Level::ERROR => 1,
            Level::WARN => 2,
            Level::INFO => 3,
            Level::DEBUG => 4,
            Level::TRACE => 5,
        };
        let line = metadata.line().unwrap_or(0);
        send(level, metadata.target(), &message, &pairs, metadata.file(), line);
    }

    fn enter(&self, span: &Id) {
        let _ = ENTERED.try_with(|entered| entered.borrow_mut().push(span.into_u64()));
    }

    fn exit(&self, span: &Id) {
        let _ = ENTERED.try_with(|entered| {
            let mut entered = entered.borrow_mut();
            if let Some(at) = entered.iter().rposition(|id| *id == span.into_u64()) {
                entered.remove(at);
            }
        });
    }

    fn clone_span(&self, span: &Id) -> Id {
        with_span(span, |spans, at| spans[at].held += 1);
        span.clone()
    }

    fn try_close(&self, span: Id) -> bool {
        let closed = with_span(&span, |spans, at| {
            spans[at].held -= 1;
            let is_last = spans[at].held == 0;
            if is_last {
                spans.remove(at);
            }
            if spans.is_empty() {
                // Nothing of it may outlive the generation.
                *spans = Vec::new();
            }
            is_last
        });
        closed.unwrap_or(false)
    }

    fn current_span(&self) -> Current {
        // Events carry their spans as text; nobody on the other side asks for the current one.
        Current::none()
    }
}

/// The fields of an event or span, as text.
#[derive(Default)]
struct Fields {
    message: String,
    others: Vec<(&'static str, String)>,
}

impl Fields {
    /// `name{a=1 b=2}`, or `name` alone.
    fn after(&self, name: &str) -> String {
        let mut text = name.to_owned();
        for (i, (name, value)) in self.others.iter().enumerate() {
            // Writing to a `String` cannot fail.
            let _ = write!(text, "{}{name}={value}", if i == 0 { "{" } else { " " });
        }
        if !self.others.is_empty() {
            text.push('}');
        }
        text
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        if field.name() == "message" {
            self.message = text;
        } else {
            self.others.push((field.name(), text));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.message);
        } else {
            self.others.push((field.name(), value.to_owned()));
        }
    }
}
