//! Unit tests of a plugin: its handlers answer in the test's own process, nothing is loaded or listened on.
//!
//! What runs is what the host would run: the table that [`plugin!`](crate::plugin) made, its trampolines, `on_load` and
//! `check`. Around it is a host of paper. It has the log, data in the [`registry`](crate::registry) and a
//! [`safe`](crate::safe) in memory. It has no databases, no services and no transactions: what asks for them gets an
//! error that says so, and is better tested with the host, by `host run`.
//!
//! ```no_run
//! # use plugin_api::prelude::*;
//! # plugin! { routes: { GET "/{name}" => greet } }
//! # fn greet(req: &Request) -> Result<String> { Ok(format!("hello, {}\n", req.param::<String>("name")?)) }
//! #[test]
//! fn greets_by_name() {
//!     let app = plugin_api::testing::app!();
//!     let answer = app.get("/mars");
//!     assert_eq!((answer.status(), answer.text()), (200, "hello, mars\n"));
//! }
//! # fn main() {}
//! ```
//!
//! (So that cargo makes a test program of a plugin, nothing is needed: `cargo test` in its directory does it.)
//!
//! # Invariants
//!
//! - The host of paper is the process's: all tests of a plugin share its data and its safe, as handlers do. Tests
//!   that must not see each other use different keys.
#![expect(unsafe_code, reason = "plays the host's side of the C ABI")]

#[doc(hidden)]
pub mod edit;
mod host;
mod safe;

use std::ffi::c_void;
use std::sync::Once;

use crate::abi::{
    BytesView, ErrorSink, ErrorView, HostTable, PairView, PluginTable, ReplyView, RequestView, ResponseView,
    RouteView, Status, StrView,
};

/// The plugin of the crate that is being tested, loaded once in its process: see [`App`].
///
/// For a crate with a [`plugin!`](crate::plugin) at its root.
#[macro_export]
macro_rules! __testing_app {
    () => {{
        unsafe extern "C" {
            fn plugin_entry_v1(host: *const $crate::abi::HostTable) -> *const $crate::abi::PluginTable;
        }
        // SAFETY: `plugin!` exports this symbol, of this type, in every crate that declares a plugin.
        unsafe { $crate::testing::App::load(plugin_entry_v1) }
    }};
}
pub use crate::__testing_app as app;

/// A plugin that answers in the test's process. Made by [`app!`](crate::testing::app).
#[derive(Clone, Copy, Debug)]
pub struct App {
    table: &'static PluginTable,
}

impl App {
    /// Loads a plugin by its entry symbol. For [`app!`](crate::testing::app).
    ///
    /// # Panics
    ///
    /// When the plugin refuses the host, or its `on_load` or `check` fails: with their words.
    ///
    /// # Safety
    ///
    /// `entry` is the entry symbol of a plugin that stays in this process.
    #[doc(hidden)]
    #[track_caller]
    pub unsafe fn load(entry: unsafe extern "C" fn(*const HostTable) -> *const PluginTable) -> App {
        // SAFETY: this function's contract; the table lives as long as the process.
        let table = unsafe { entry(host::table()) };
        // SAFETY: an entry symbol returns null or static data.
        let table = unsafe { table.as_ref() }.expect("the plugin refused the host of `testing`");
        static LOADED: Once = Once::new();
        LOADED.call_once(|| {
            for (name, hook) in [("on_load", table.on_load), ("check", table.check)] {
                if let Some(hook) = hook {
                    // SAFETY: the sink is valid for this call.
                    let outcome = with_words(|sink| unsafe { hook(sink) });
                    assert!(outcome.is_ok(), "`{name}` failed: {}", outcome.unwrap_err());
                }
            }
        });
        App { table }
    }

    /// Answers `GET path`, the path being the one below the plugin's mount, with its query.
    pub fn get(&self, path: &str) -> Answer {
        self.request("GET", path).send()
    }

    /// Answers `POST path` with a body.
    pub fn post(&self, path: &str, body: impl Into<Vec<u8>>) -> Answer {
        self.request("POST", path).body(body).send()
    }

    /// A request that is to be sent.
    pub fn request(&self, method: &str, path: &str) -> Sending {
        Sending {
            app: *self,
            method: method.to_owned(),
            path: path.to_owned(),
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    fn routes(&self) -> impl Iterator<Item = &'static RouteView> {
        let table = self.table;
        (0..table.route_count).map(move |i| {
            // SAFETY: the table, which is static data, has so many routes, so far apart.
            unsafe { &*table.routes.byte_add(i * table.route_size) }
        })
    }
}

/// What this thread's handlers have logged since it last asked, as `INFO words name=value`.
pub fn logged() -> Vec<String> {
    host::logged()
}

/// A request that is to be sent.
#[derive(Clone, Debug)]
#[must_use = "`send` has it answered"]
pub struct Sending {
    app: App,
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

/// A route that fits, what its parameters are, and how many words of the path it names.
type Match<'a> = (&'a RouteView, Vec<(String, String)>, usize);

impl Sending {
    /// Adds a header.
    pub fn header(mut self, name: &str, value: &str) -> Sending {
        self.headers.push((name.to_ascii_lowercase(), value.to_owned()));
        self
    }

    /// Sets the body.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Sending {
        self.body = body.into();
        self
    }

    /// Has it answered, on this thread.
    pub fn send(&self) -> Answer {
        let (path, query) = self.path.split_once('?').unwrap_or((&self.path, ""));
        let mut is_path = false;
        let mut best: Option<Match<'_>> = None;
        for route in self.app.routes() {
            // SAFETY: texts of a route are static.
            let (method, pattern) = unsafe { (route.method.as_bytes(), route.path.as_bytes()) };
            let pattern = std::str::from_utf8(pattern).unwrap_or_default();
            let Some(params) = matches(pattern, path) else { continue };
            is_path = true;
            // Words beat parameters.
            let words = pattern.split('/').filter(|part| !part.starts_with('{')).count();
            if method == self.method.as_bytes() && best.as_ref().is_none_or(|(.., most)| words > *most) {
                best = Some((route, params, words));
            }
        }
        match best {
            Some((route, params, _)) => self.answered_by(route, path, query, &params),
            None => Answer::of_status(if is_path { 405 } else { 404 }),
        }
    }

    fn answered_by(&self, route: &RouteView, path: &str, query: &str, params: &[(String, String)]) -> Answer {
        let pairs = |pairs: &[(String, String)]| -> Vec<PairView> {
            let view = |(name, value): &(String, String)| PairView {
                name: StrView::new(name),
                value: BytesView::new(value.as_bytes()),
            };
            pairs.iter().map(view).collect()
        };
        let (params, headers) = (pairs(params), pairs(&self.headers));
        let request = RequestView {
            size: size_of::<RequestView>(),
            id: StrView::new("test"),
            method: StrView::new(&self.method),
            path: StrView::new(path),
            mount: StrView::EMPTY,
            query: StrView::new(query),
            params: params.as_ptr(),
            param_count: params.len(),
            headers: headers.as_ptr(),
            header_count: headers.len(),
            body: BytesView::new(&self.body),
            remote: StrView::new("127.0.0.1:1"),
            deadline_ns: 0,
            cancelled: std::ptr::null(),
        };
        let mut answer = Answer::of_status(500);
        let reply = ReplyView { size: size_of::<ReplyView>(), data: (&raw mut answer).cast(), respond, fail };
        // SAFETY: request, reply and what they lead to live until the call returns.
        unsafe { (route.handler)(&request, &reply) };
        answer
    }
}

/// What a handler answered.
#[derive(Clone, Debug)]
pub struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    error: Option<String>,
}

impl Answer {
    fn of_status(status: u16) -> Answer {
        Answer { status, headers: Vec::new(), body: Vec::new(), error: None }
    }

    /// The status code: 500 for a handler that failed or panicked, 404 and 405 where there is no route.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The first header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let is_it = |(known, _): &&(String, String)| known.eq_ignore_ascii_case(name);
        self.headers.iter().find(is_it).map(|(_, value)| value.as_str())
    }

    /// The body.
    pub fn bytes(&self) -> &[u8] {
        &self.body
    }

    /// The body as text.
    ///
    /// # Panics
    ///
    /// When it is none.
    #[track_caller]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is text")
    }

    /// Why the handler failed, which a client is not told; `None` if it has not.
    pub fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }
}

/// The parameters of `path` in `pattern`, if it matches.
fn matches(pattern: &str, path: &str) -> Option<Vec<(String, String)>> {
    let decoded = |part: &str| percent_encoding::percent_decode_str(part).decode_utf8_lossy().into_owned();
    let mut params = Vec::new();
    let mut rest = path.strip_prefix('/')?;
    let mut parts = pattern.strip_prefix('/')?.split('/').peekable();
    while let Some(part) = parts.next() {
        if let Some(name) = part.strip_prefix("{*").and_then(|name| name.strip_suffix('}')) {
            params.push((name.to_owned(), decoded(rest)));
            return (!rest.is_empty()).then_some(params);
        }
        let is_last = parts.peek().is_none();
        let (word, after) = match rest.split_once('/') {
            Some((word, after)) if !is_last => (word, after),
            None if is_last => (rest, ""),
            _ => return None,
        };
        rest = after;
        match part.strip_prefix('{').and_then(|name| name.strip_suffix('}')) {
            Some(name) if !word.is_empty() => params.push((name.to_owned(), decoded(word))),
            None if part == word => {}
            _ => return None,
        }
    }
    Some(params)
}

unsafe extern "C" fn respond(data: *mut c_void, response: *const ResponseView) -> Status {
    // SAFETY: `data` is the `Answer` of the call that is running; the handler passes a valid response.
    let (answer, response) = unsafe { (&mut *data.cast::<Answer>(), &*response) };
    if !(200..600).contains(&response.status) {
        return Status::INVALID;
    }
    answer.status = response.status;
    for i in 0..response.header_count {
        // SAFETY: the response has so many headers, valid for this call.
        let (name, value) = unsafe {
            let header = &*response.headers.add(i);
            (header.name.as_bytes(), header.value.as_slice())
        };
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        answer.headers.push((text(name), text(value)));
    }
    // SAFETY: valid for this call.
    answer.body = unsafe { response.body.as_slice() }.to_vec();
    Status::OK
}

unsafe extern "C" fn fail(data: *mut c_void, error: *const ErrorView) {
    // SAFETY: as in `respond`.
    let (answer, message) = unsafe { (&mut *data.cast::<Answer>(), (*error).message.as_bytes()) };
    *answer = Answer::of_status(500);
    answer.error = Some(String::from_utf8_lossy(message).into_owned());
}

/// Calls something that reports by a sink; its words on failure.
fn with_words(body: impl FnOnce(*const ErrorSink) -> Status) -> Result<(), String> {
    unsafe extern "C" fn report(data: *mut c_void, error: *const ErrorView) {
        // SAFETY: `data` is the text below; the error is valid for this call.
        let (words, message) = unsafe { (&mut *data.cast::<String>(), (*error).message.as_bytes()) };
        *words = String::from_utf8_lossy(message).into_owned();
    }
    let mut words = String::new();
    let sink = ErrorSink { data: (&raw mut words).cast(), report: Some(report) };
    match body(&sink) {
        Status::OK => Ok(()),
        _ => Err(words),
    }
}

#[cfg(test)]
mod tests;
