//! One request, from its head to its response.
//!
//! # Invariants
//!
//! - Every request gets a response with its id, whatever the handler does.
//! - A route is dropped, and its generation unpinned, before the response is sent.
//! - An inline handler costs no timer and no hand-off.

use std::cell::Cell;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::header::{ACCEPT, ALLOW, CONNECTION, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode, Version};
use tokio::sync::oneshot;
use tracing::Level;

use super::access::AccessLine;
use super::body::{self, BodyError, Outgoing};
use super::budget::{BodyReservation, BufferBudget, book_response};
use super::connection::{Departure, Flight};
use super::crowd::Crowd;
use super::head;
use super::headers::{complete, own_the_connection, sign};
use super::limits::{Limits, size};
use super::pending::{PendingJob, WakeUp};
use super::request_id::{RequestId, X_REQUEST_ID};
use super::service::{Found, Incoming, Reply, Route, Service};
use super::trouble::{Format, Trouble};
use super::waiting::{Waited, Waiting};
use super::workers::{GivenUp, Refused, Workers, afterwards};
use crate::pins;
use crate::share::Account;

/// What nginx calls a request whose client did not wait for the answer.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// Seconds after which a client may try again where handlers hang.
const WHILE_HUNG: u16 = 5;

/// What all connections of a server share.
pub(super) struct Front<S> {
    pub(super) service: Arc<S>,
    pub(super) limits: Limits,
    pub(super) workers: Workers,
    pub(super) crowd: Arc<Crowd>,
    pub(super) budget: Arc<BufferBudget>,
}

/// Who was to answer; outlives the route.
#[derive(Debug)]
pub(super) struct Origin {
    pub(super) plugin: Box<str>,
    pub(super) generation: u64,
    pub(super) pattern: Box<str>,
    pub(super) reload_failed: Option<String>,
}

impl Origin {
    fn of(route: &impl Route) -> Self {
        Self {
            plugin: route.plugin().into(),
            generation: route.generation(),
            pattern: route.pattern().into(),
            reload_failed: route.reload_failed(),
        }
    }
}

/// What a request came to, before the headers that every response gets.
struct Outcome {
    response: Result<Response<Bytes>, Trouble>,
    origin: Option<Origin>,
    /// Whether the handler was not run, since the client had gone.
    is_cancelled: bool,
}

impl Outcome {
    fn new(response: Result<Response<Bytes>, Trouble>, origin: Option<Origin>) -> Outcome {
        Outcome { response, origin, is_cancelled: false }
    }
}

/// Answers one request.
pub(super) async fn answer<S: Service>(
    front: Arc<Front<S>>,
    flight: Flight,
    request: Request<hyper::body::Incoming>,
) -> Result<Response<Outgoing>, Infallible> {
    let version = request.version();
    if version == Version::HTTP_2 {
        flight.connection.set_http2();
    }
    let id = RequestId::of(request.headers());
    let log = tracing::enabled!(target: "access", Level::DEBUG).then(|| AccessLine::begin(&request, &id));
    let (parts, body) = request.into_parts();
    let accept = parts.headers.get(ACCEPT).cloned();

    let outcome = front.dispatch(&flight, &id, parts, body, log.is_some()).await;
    let origin = outcome.origin;
    let mut response = match outcome.response {
        Ok(response) => response,
        Err(trouble) => {
            let format = Format::preferred(accept.as_ref());
            trouble.respond(format, &id.text, origin.as_ref(), front.limits.development)
        }
    };
    let headers = response.headers_mut();
    headers.insert(X_REQUEST_ID, id.header);
    if let Some(origin) = origin.as_ref().filter(|_| front.limits.development) {
        sign(headers, origin);
    }
    let has_left = outcome.is_cancelled || flight.connection.departure() == Departure::Gone;
    let is_last = has_left || flight.connection.thread.is_draining() || flight.connection.must_linger();
    if version != Version::HTTP_2 && is_last {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    if has_left {
        flight.connection.thread.counters.cancelled();
    } else {
        flight.connection.thread.counters.responded(response.status());
        if let Some(log) = log {
            log.answered(response.status(), origin.as_ref());
        }
    }
    Ok(response.map(|bytes| Outgoing::new(bytes, flight)))
}

impl<S: Service> Front<S> {
    /// Finds who answers and has them answer. `is_traced`: whether anybody wants to know who it was.
    async fn dispatch(
        &self,
        flight: &Flight,
        id: &RequestId,
        mut parts: Parts,
        body: hyper::body::Incoming,
        is_traced: bool,
    ) -> Outcome {
        if let Some(surplus) = flight.connection.surplus {
            flight.connection.linger();
            return Outcome::new(Err(self.crowd.trouble(surplus)), None);
        }
        if let Err(trouble) = head::settle(&mut parts) {
            flight.connection.linger();
            return Outcome::new(Err(trouble), None);
        }
        let found = match parts.uri.path() {
            "*" if parts.method == Method::OPTIONS => {
                Found::WrongMethod { allow: "GET, HEAD, POST, PUT, PATCH, DELETE".to_owned() }
            }
            path => match contain(|| self.service.find(&parts.method, path)) {
                Ok(found) => found,
                Err(message) => return conclude(Reply::Panicked { message }, &parts.method, &id.text, None),
            },
        };
        let route = match found {
            Found::Route(route) => route,
            nobody => {
                if !hyper::body::Body::is_end_stream(&body) {
                    flight.connection.linger();
                }
                return Outcome::new(without_route(nobody, &parts), None);
            }
        };
        if self.budget.is_exhausted() {
            flight.connection.linger();
            return Outcome::new(Err(self.no_memory()), Some(Origin::of(&route)));
        }
        let mut reservation = BodyReservation::new(&self.budget, &flight.connection);
        let reserve = |bytes| reservation.grow_to(bytes);
        let body = match body::collect(body, self.limits.max_body, self.limits.body_timeout, reserve).await {
            Ok(body) => body,
            Err(error) => {
                flight.connection.linger();
                return Outcome::new(Err(self.unread(&error)), Some(Origin::of(&route)));
            }
        };
        let Parts { method, uri, headers, version, .. } = parts;
        let id = Arc::clone(&id.text);
        let remote = Arc::clone(&flight.connection.remote);
        let mut incoming = Incoming { id, method, uri, headers, body, remote, scope: None, deadline: None };
        if route.is_inline() {
            let book = |bytes| book_response(bytes, &self.budget, &flight.connection);
            let reply = run(&route, &incoming).map_body(&book);
            let must_tell = is_traced
                || self.limits.development
                || !matches!(reply, Reply::Response(_) | Reply::HttpError(_));
            let origin = must_tell.then(|| Origin::of(&route));
            drop(route);
            if !matches!(reply, Reply::Gated { .. }) {
                return conclude(reply, &incoming.method, &incoming.id, origin);
            }
            let deadline = Instant::now().checked_add(self.limits.handler_timeout);
            return match (settled(reply, deadline).await, origin) {
                (Some(reply), origin) => conclude(reply, &incoming.method, &incoming.id, origin),
                (None, Some(origin)) => self.undecided(&incoming.id, origin),
                (None, None) => unreachable!("a reply that waits has an origin"),
            };
        }
        let began = Instant::now();
        incoming.deadline = began.checked_add(self.limits.handler_timeout);
        let waiting = Waiting::begin(&flight.connection, version, &incoming.method, &incoming.headers);
        self.hand_off(route, incoming, reservation, waiting, began).await
    }

    /// Runs a blocking handler on a worker.
    async fn hand_off(
        &self,
        mut route: S::Route,
        mut incoming: Incoming,
        reservation: BodyReservation,
        mut waiting: Waiting<'_>,
        began: Instant,
    ) -> Outcome {
        let origin = Origin::of(&route);
        let account = Arc::clone(route.account());
        let (id, method, deadline) = (Arc::clone(&incoming.id), incoming.method.clone(), incoming.deadline);
        incoming.scope = Some(waiting.scope());
        let (answers, mut answer) = oneshot::channel();
        let lease = route.part();
        let reservation = Cell::new(Some(reservation));
        let (budget, connection) = (Arc::clone(&self.budget), Arc::clone(waiting.connection()));
        let job = Box::new(move || {
            let lease = Cell::new(Some(lease));
            let answers = Cell::new(Some(answers));
            let on_lost = |what: &str| {
                route.lost();
                drop((lease.take(), reservation.take()));
                let message = format!("{what}; its thread is lost");
                send(answers.take(), Some(Reply::Lost { message }));
            };
            // Those that were in line when memory ran out would bring more of it.
            let reply = (!budget.is_exhausted()).then(|| {
                let reply = pins::losable(&on_lost, || run(&route, &incoming));
                reply.map_body(&|bytes| book_response(bytes, &budget, &connection))
            });
            drop((route, incoming));
            drop((lease.take(), reservation.take()));
            afterwards(Box::new(move || send(answers.take(), reply)));
        });
        let ticket = match self.workers.enqueue(&account, job) {
            Ok(ticket) => ticket,
            Err(refused) => return self.not_taken(refused, &account, origin),
        };
        let mut job = PendingJob { workers: &self.workers, ticket, is_over: false };
        WakeUp::soon(&self.workers, waiting.thread());
        let reply = loop {
            match waiting.answer(&mut answer, deadline).await {
                Waited::Over(reply) => break reply,
                Waited::Left if job.withdraw() => return client_left(origin),
                Waited::Left => {}
                Waited::Late => match job.give_up() {
                    GivenUp::Ended => break answer.await,
                    GivenUp::Waiting => return self.never_begun(&id, origin),
                    GivenUp::Running => return self.too_late(&id, origin, began),
                },
            }
        };
        job.is_over = true;
        let reply = reply.unwrap_or_else(|_| {
            let message = "the host panicked while it ran the handler; see the log".to_owned();
            Some(Reply::Panicked { message })
        });
        let Some(reply) = reply else { return Outcome::new(Err(self.no_memory()), Some(origin)) };
        if matches!(reply, Reply::Lost { .. }) {
            // Another thread takes the place of the one that is lost, and nobody else would roll back.
            job.give_up();
            waiting.give_up();
        }
        match settled(reply, deadline).await {
            Some(reply) => conclude(reply, &method, &id, Some(origin)),
            None => self.undecided(&id, origin),
        }
    }

    /// The answer where too much waits or hangs already.
    fn not_taken(&self, refused: Refused, account: &Account, origin: Origin) -> Outcome {
        let mut trouble = busy();
        if refused == Refused::Late {
            if account.close(self.limits.workers().late) {
                self.service.turned_away(&origin.plugin, origin.generation);
            }
            trouble.retry_after = Some(WHILE_HUNG);
            trouble.reason = Some(format!(
                "{} of its handlers still run after their deadline, {} of them in this generation; it gets no \
                 further threads until some return, or newer code serves",
                account.share().late(),
                account.late(),
            ));
        } else {
            trouble.reason = Some("all workers it may have are busy and the queue is full".to_owned());
        }
        Outcome::new(Err(trouble), Some(origin))
    }

    /// The answer to a request that was not begun before its deadline.
    fn never_begun(&self, id: &str, origin: Origin) -> Outcome {
        let reason = format!("no worker was free within {:?}", self.limits.handler_timeout);
        tracing::warn!(
            plugin = &*origin.plugin,
            generation = origin.generation,
            route = &*origin.pattern,
            request_id = id,
            reason,
            "request waited too long"
        );
        let mut trouble = busy();
        trouble.reason = Some(reason);
        Outcome::new(Err(trouble), Some(origin))
    }

    /// The answer to a request whose handler goes on after its deadline.
    fn too_late(&self, id: &str, origin: Origin, began: Instant) -> Outcome {
        self.service.missed_deadline(&origin.plugin, origin.generation, began);
        let reason = format!("no answer within {:?}; the handler still runs", self.limits.handler_timeout);
        let summary = "the handler took too long; the log has the reason";
        timed_out("handler passed its deadline", summary, reason, id, origin)
    }

    /// The answer where a handler has answered, and what its answer waits for is not decided in time.
    fn undecided(&self, id: &str, origin: Origin) -> Outcome {
        let reason =
            format!("what the answer waited for is not on disk after {:?}", self.limits.handler_timeout);
        let summary = "saving took too long; whether it was done is not known; the log has the reason";
        timed_out("answer passed its deadline", summary, reason, id, origin)
    }

    /// The answer where bodies take as much memory as they may.
    fn no_memory(&self) -> Trouble {
        let words = "the server has no memory for further requests; try again in a second";
        let reason =
            format!("{} of bodies are kept, of {}", size(self.budget.used()), size(self.limits.max_buffered));
        let trouble = Trouble::new(StatusCode::SERVICE_UNAVAILABLE, words);
        Trouble { retry_after: Some(1), reason: Some(reason), ..trouble }
    }

    fn unread(&self, error: &BodyError) -> Trouble {
        match error {
            BodyError::TooLarge => Trouble::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!(
                    "the body is larger than the limit of {}; send less or raise max_body",
                    size(self.limits.max_body)
                ),
            ),
            BodyError::Late => Trouble::new(
                StatusCode::REQUEST_TIMEOUT,
                format!(
                    "the body did not arrive within {:?}; send it faster or raise body_timeout_ms",
                    self.limits.body_timeout
                ),
            ),
            BodyError::NoRoom => self.no_memory(),
            BodyError::Broken(source) => {
                let mut trouble = Trouble::new(StatusCode::BAD_REQUEST, "the body could not be read");
                trouble.reason = Some(source.to_string());
                trouble
            }
        }
    }
}

/// Says that the client got no answer in time, to the log and to the client.
fn timed_out(what: &str, summary: &str, reason: String, id: &str, origin: Origin) -> Outcome {
    tracing::error!(
        plugin = &*origin.plugin,
        generation = origin.generation,
        route = &*origin.pattern,
        request_id = id,
        reason,
        "{what}"
    );
    let mut trouble = Trouble::new(StatusCode::GATEWAY_TIMEOUT, summary);
    trouble.reason = Some(reason);
    Outcome::new(Err(trouble), Some(origin))
}

/// The answer to a request that was dropped since its client had closed its side of the connection. A client that
/// still reads learns why.
fn client_left(origin: Origin) -> Outcome {
    let words = "the client closed its side of the connection before a worker was free, so the request was dropped; \
                 keep the connection open until the answer has come";
    let status = StatusCode::from_u16(CLIENT_CLOSED_REQUEST).expect("499 is between 100 and 999");
    Outcome { is_cancelled: true, ..Outcome::new(Err(Trouble::new(status, words)), Some(origin)) }
}

/// Tells the request what came of its handler; `None`: it was not run, for want of memory. After the deadline nobody does.
fn send(answers: Option<oneshot::Sender<Option<Reply>>>, reply: Option<Reply>) {
    if let Some(answers) = answers {
        let _ = answers.send(reply);
    }
}

/// What is said where nothing is free.
fn busy() -> Trouble {
    let words = "the server is busy; try again in a second";
    Trouble { retry_after: Some(1), ..Trouble::new(StatusCode::SERVICE_UNAVAILABLE, words) }
}

/// Runs the handler; a panic of the host's own code is contained here.
fn run(route: &impl Route, incoming: &Incoming) -> Reply {
    contain(|| route.invoke(incoming)).unwrap_or_else(|message| Reply::Panicked { message })
}

/// Runs code of the host that must not take the connection along when it panics.
fn contain<T>(body: impl FnOnce() -> T) -> Result<T, String> {
    crate::panic::catch(body)
        .map_err(|message| format!("the host panicked on the way to the handler: {message}"))
}

/// A reply whose waiting is over; `None` when the deadline comes first.
async fn settled(reply: Reply, deadline: Option<Instant>) -> Option<Reply> {
    match (reply, deadline) {
        (reply @ Reply::Gated { .. }, Some(deadline)) => {
            tokio::time::timeout_at(deadline.into(), reply.settled()).await.ok()
        }
        (reply, _) => Some(reply.settled().await),
    }
}

/// Whether a handler may answer with it. (`http` takes any number of three digits.)
fn is_answer(status: StatusCode) -> bool {
    (200..600).contains(&status.as_u16())
}

/// Turns a reply into a response, and writes the reason of a failure to the log.
fn conclude(reply: Reply, method: &Method, id: &str, origin: Option<Origin>) -> Outcome {
    let (what, message) = match reply {
        Reply::Response(response) | Reply::HttpError(response) if !is_answer(response.status()) => (
            "handler failed",
            format!("it answered with status {}, which is not an answer", response.status()),
        ),
        Reply::Response(mut response) | Reply::HttpError(mut response) => {
            own_the_connection(response.headers_mut(), method);
            if response.status() == StatusCode::RESET_CONTENT {
                // It says that there is no body (RFC 9110, section 15.3.6).
                response.body_mut().clear();
            }
            return Outcome::new(Ok(response), origin);
        }
        Reply::Failed { message } => ("handler failed", message),
        Reply::Unavailable { message } => ("handler lacks what it needs", message),
        Reply::Lost { message } => ("handler ended its thread", message),
        Reply::Panicked { message } => ("handler panicked", message),
        Reply::Gated { .. } => ("handler failed", "its answer was not waited for".to_owned()),
    };
    tracing::error!(
        plugin = origin.as_ref().map(|origin| &*origin.plugin),
        generation = origin.as_ref().map(|origin| origin.generation),
        route = origin.as_ref().map(|origin| &*origin.pattern),
        request_id = id,
        reason = message,
        "{what}"
    );
    let mut trouble = match what {
        "handler panicked" => {
            Trouble::new(StatusCode::INTERNAL_SERVER_ERROR, "the handler panicked; the log has the reason")
        }
        "handler lacks what it needs" => {
            let words = "something the handler needs is out of reach; try again in a second";
            Trouble { retry_after: Some(1), ..Trouble::new(StatusCode::SERVICE_UNAVAILABLE, words) }
        }
        _ => Trouble::new(StatusCode::INTERNAL_SERVER_ERROR, "the handler failed; the log has the reason"),
    };
    trouble.reason = Some(message);
    Outcome::new(Err(trouble), origin)
}

/// The answer where no handler runs.
fn without_route<R>(found: Found<R>, parts: &Parts) -> Result<Response<Bytes>, Trouble> {
    match found {
        Found::Route(_) => unreachable!("routes are run"),
        Found::BadPath { reason } => Err(Trouble::new(StatusCode::BAD_REQUEST, reason)),
        Found::WrongMethod { allow } => {
            let allow = complete(&allow);
            if parts.method == Method::OPTIONS {
                let mut response = Response::new(Bytes::new());
                *response.status_mut() = StatusCode::NO_CONTENT;
                response.headers_mut().extend(HeaderValue::from_str(&allow).ok().map(|allow| (ALLOW, allow)));
                return Ok(response);
            }
            let summary =
                format!("{} does not answer {}; it answers {allow}", parts.uri.path(), parts.method);
            let mut trouble = Trouble::new(StatusCode::METHOD_NOT_ALLOWED, summary);
            trouble.allow = HeaderValue::from_str(&allow).ok();
            Err(trouble)
        }
        Found::NotFound => Err(Trouble::new(
            StatusCode::NOT_FOUND,
            format!("nothing answers {} {}", parts.method, parts.uri.path()),
        )),
        Found::Index { .. } if parts.method != Method::GET && parts.method != Method::HEAD => {
            without_route::<R>(Found::WrongMethod { allow: "GET".to_owned() }, parts)
        }
        Found::Index { html } => {
            let mut response = Response::new(Bytes::from(html));
            let kind = HeaderValue::from_static("text/html; charset=utf-8");
            response.headers_mut().insert(CONTENT_TYPE, kind);
            Ok(response)
        }
        Found::Unavailable { plugin, reason, building } => {
            let state =
                if building { "is being built; try again in a moment" } else { "has no working code yet" };
            let mut trouble =
                Trouble::new(StatusCode::SERVICE_UNAVAILABLE, format!("plugin `{plugin}` {state}"));
            trouble.reason = Some(reason).filter(|reason| !reason.is_empty());
            trouble.retry_after = Some(1);
            trouble.reloads = true;
            Err(trouble)
        }
    }
}
