//! What serving asks of whoever answers: find a handler, run it.
//!
//! The plugin room implements these traits; the tests of this room use a fake. Nothing here knows
//! how a handler is loaded.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, Method, Response, Uri};

use crate::share::Account;
use crate::tx::Scope;

/// What serves requests: the plugins' current generations.
pub trait Service: Send + Sync + 'static {
    /// A handler of one generation.
    type Route: Route;

    /// Finds who answers, pinning the generation to the end of the request.
    ///
    /// Called on an I/O thread, so it never blocks. HEAD and OPTIONS arrive as they are: a GET
    /// route should be found for HEAD; [`Found::WrongMethod`] for OPTIONS becomes a 204 with `Allow`.
    fn find(&self, method: &Method, path: &str) -> Found<Self::Route>;

    /// Is told that a handler of this plugin's generation has passed its deadline, of a request that came
    /// at `began`; the answer was 504.
    ///
    /// Called on an I/O thread, so it never blocks.
    fn missed_deadline(&self, plugin: &str, generation: u64, began: Instant);

    /// Is told that requests of this plugin's generation are turned away with 503, as too many of its
    /// handlers go on after their deadline. Called once until none does any more, as above.
    fn turned_away(&self, plugin: &str, generation: u64);
}

/// Who answers a request.
#[derive(Debug)]
pub enum Found<R> {
    /// A handler.
    Route(R),
    /// The path exists with other methods.
    WrongMethod {
        /// Those methods, as the `Allow` header lists them.
        allow: String,
    },
    /// The path cannot be read; 400.
    BadPath {
        /// What is wrong with it.
        reason: String,
    },
    /// No plugin answers there.
    NotFound,
    /// A plugin is mounted there but has no working generation yet.
    Unavailable {
        /// Its name.
        plugin: String,
        /// Why, in words for its author; shown in development only.
        reason: String,
        /// True while the first build runs, false when it failed.
        building: bool,
    },
    /// `/` without a plugin mounted there.
    Index {
        /// The page that lists the plugins.
        html: String,
    },
}

/// A handler, found for one request. Its generation is pinned until it is dropped.
pub trait Route: Send + 'static {
    /// The pin of the generation, apart from the route.
    type Lease: Send + 'static;

    /// Takes the pin out of the route, which can then be run as long as that lives. What a route without it still
    /// keeps is memory, so that a thread that is lost with the route does not keep the generation in use.
    fn part(&mut self) -> Self::Lease;

    /// Whether the handler promised not to block and so runs on the I/O thread.
    fn is_inline(&self) -> bool;

    /// Name of the plugin.
    fn plugin(&self) -> &str;

    /// Number of the generation.
    fn generation(&self) -> u64;

    /// The path pattern that matched.
    fn pattern(&self) -> &str;

    /// Why the newest code of this plugin was refused, if what serves is not the newest.
    fn reload_failed(&self) -> Option<String>;

    /// Where its runs are booked: on its generation, and with it on its plugin.
    fn account(&self) -> &Arc<Account>;

    /// Is told when the handler has ended its thread for good, in the place of the end of `invoke`.
    fn lost(&self);

    /// Runs the handler on this thread. Never unwinds out of plugin code.
    fn invoke(&self, request: &Incoming) -> Reply;
}

/// A request, read whole.
#[derive(Debug)]
pub struct Incoming {
    /// Names the request in every log line and in the `x-request-id` header.
    pub id: Arc<str>,
    /// The method, HEAD and OPTIONS included.
    pub method: Method,
    /// Path and query; for HTTP/2 also scheme and authority.
    pub uri: Uri,
    /// The headers as received.
    pub headers: HeaderMap,
    /// The whole body, within the configured limit.
    pub body: Bytes,
    /// The client's address and port.
    pub remote: Arc<str>,
    /// Where its database transactions are; `None` for inline handlers.
    pub scope: Option<Arc<Scope>>,
    /// When the client gets a 504; `None` for inline handlers and when there is no limit.
    pub deadline: Option<Instant>,
}

/// What became of a handler's run.
#[derive(Debug)]
pub enum Reply {
    /// The handler answered.
    Response(Response<Bytes>),
    /// The handler answered with a typed HTTP error.
    HttpError(Response<Bytes>),
    /// The handler failed because something it needs is out of reach for now, such as a database.
    Unavailable {
        /// The error and its causes, for the log.
        message: String,
    },
    /// The handler returned any other error.
    Failed {
        /// The error and its causes, for the log.
        message: String,
    },
    /// The handler has ended its thread for good.
    Lost {
        /// What it did, for the log.
        message: String,
    },
    /// The handler panicked.
    Panicked {
        /// The panic's message and place, for the log.
        message: String,
    },
    /// The handler has answered, and the answer waits for something it has begun.
    Gated {
        /// The answer.
        reply: Box<Reply>,
        /// What it waits for, on the I/O thread, within the request's deadline.
        gate: Gate,
    },
}

impl Reply {
    /// The same with another body, if it has one.
    pub(super) fn map_body(self, change: &impl Fn(Bytes) -> Bytes) -> Reply {
        match self {
            Reply::Response(response) => Reply::Response(response.map(change)),
            Reply::HttpError(response) => Reply::HttpError(response.map(change)),
            Reply::Gated { reply, gate } => Reply::Gated { reply: Box::new(reply.map_body(change)), gate },
            other => other,
        }
    }

    /// The answer that can be sent.
    pub(super) async fn settled(self) -> Reply {
        match self {
            Reply::Gated { reply, gate } => match gate.0.await {
                Ok(()) => *reply,
                Err(instead) => instead,
            },
            reply => reply,
        }
    }
}

/// What an answer waits for: that it may be sent, or what is to be said instead.
pub struct Gate(Pin<Box<dyn Future<Output = Result<(), Reply>> + Send>>);

impl Gate {
    /// A gate that opens when `done` says so.
    pub fn new(done: impl Future<Output = Result<(), Reply>> + Send + 'static) -> Gate {
        Gate(Box::pin(done))
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").finish_non_exhaustive()
    }
}
