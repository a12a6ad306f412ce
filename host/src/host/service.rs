//! Serving meets plugins: what finds a handler and runs it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use http::Method;
use plugin_api::abi::Status;

use super::index;
use crate::hostcall::{Failure, call};
use crate::http::{Found, Gate, Incoming, Reply, Route, Service};
use crate::plugin::invoke::{self, Invocation, Outcome};
use crate::plugin::router::{self, Matched};
use crate::plugin::{Lease, Plugins};
use crate::report::chain;
use crate::share::Account;
use crate::tx::{Ending, Scope};

/// The plugins' current generations, as the serving room sees them.
pub(super) struct PluginService {
    plugins: Arc<Plugins>,
    /// Whether pages may tell what is wrong with the code.
    is_development: bool,
}

impl PluginService {
    pub(super) fn new(plugins: Arc<Plugins>, is_development: bool) -> PluginService {
        PluginService { plugins, is_development }
    }
}

impl Service for PluginService {
    type Route = PluginRoute;

    fn find(&self, method: &Method, path: &str) -> Found<PluginRoute> {
        match self.plugins.router().find(method, path) {
            router::Found::Route(matched) => {
                Found::Route(PluginRoute { matched, plugins: Arc::clone(&self.plugins) })
            }
            router::Found::WrongMethod { allow } => Found::WrongMethod { allow },
            router::Found::BadPath { param } => Found::BadPath {
                reason: format!("path parameter `{param}` is not UTF-8; percent-encode its UTF-8 bytes"),
            },
            router::Found::Unavailable(entry) => match &*entry.refusal.load() {
                Some(refusal) => Found::Unavailable {
                    plugin: entry.plugin.to_string(),
                    reason: refusal.details.as_ref().unwrap_or(&refusal.reason).clone(),
                    building: false,
                },
                None => Found::Unavailable {
                    plugin: entry.plugin.to_string(),
                    reason: "its first build is running".to_owned(),
                    building: true,
                },
            },
            router::Found::Nothing if path == "/" && self.is_development => {
                Found::Index { html: index::page(&self.plugins.status()) }
            }
            router::Found::Nothing => Found::NotFound,
        }
    }

    fn missed_deadline(&self, plugin: &str, generation: u64, began: Instant) {
        self.plugins.note_missed_deadline(plugin, generation, began);
    }

    fn turned_away(&self, plugin: &str, generation: u64) {
        self.plugins.note_turned_away(plugin, generation);
    }
}

/// What holds the code of a handler that has ended its thread.
const LOST: &str = "a handler that called `exit` or `abort`, whose thread is stopped for ever";

/// How many times a handler that is declared idempotent is run again for one request.
const MAX_RERUNS: u32 = 4;

/// A handler, pinned for one request.
pub(super) struct PluginRoute {
    matched: Matched,
    /// Is told of panics.
    plugins: Arc<Plugins>,
}

impl Route for PluginRoute {
    type Lease = Option<Arc<Lease>>;

    fn part(&mut self) -> Self::Lease {
        self.matched.part()
    }

    fn is_inline(&self) -> bool {
        self.matched.route().is_inline
    }

    fn plugin(&self) -> &str {
        &self.matched.generation().plugin
    }

    fn generation(&self) -> u64 {
        self.matched.generation().number
    }

    fn pattern(&self) -> &str {
        &self.matched.route().name
    }

    fn reload_failed(&self) -> Option<String> {
        self.matched.refusal.load().as_ref().map(|refusal| refusal.reason.clone())
    }

    fn account(&self) -> &Arc<Account> {
        &self.matched.generation().account
    }

    fn lost(&self) {
        let generation = self.matched.generation();
        generation.panics.fetch_add(1, Ordering::Relaxed);
        self.plugins.note_panic(generation);
        // Its stack is in that code, for ever.
        std::mem::forget(generation.pin(LOST));
    }

    fn invoke(&self, request: &Incoming) -> Reply {
        let _entered = self.matched.generation().enter();
        match &request.scope {
            Some(scope) => self.in_transactions(request, scope),
            None => self.call(request),
        }
    }
}

impl PluginRoute {
    /// Runs the handler, keeps or undoes what it did in the request's transactions, and runs it again if
    /// they collided with others' and it bears that.
    fn in_transactions(&self, request: &Incoming, scope: &Arc<Scope>) -> Reply {
        let mut reruns = 0;
        loop {
            let mut reply = scope.run(|| self.call(request));
            if let Err(error) = scope.conclude(ending(&reply)) {
                let message = chain(&error);
                if !error.is_nothing_kept() {
                    return Reply::Failed { message };
                }
                reply = match error.is_passing() {
                    true => Reply::Unavailable { message },
                    false => Reply::Failed { message },
                };
            }
            let (Reply::Failed { message } | Reply::Unavailable { message }) = &mut reply else {
                return reply;
            };
            if !scope.was_serialisation_failure() {
                if scope.was_passing() {
                    return Reply::Unavailable { message: std::mem::take(message) };
                }
                return reply;
            }
            let is_late = request.deadline.is_some_and(|deadline| deadline <= Instant::now());
            let may_run = self.matched.route().is_idempotent && reruns < MAX_RERUNS && !is_late;
            if !may_run || scope.begin_again().is_err() {
                return Reply::Unavailable { message: std::mem::take(message) };
            }
            reruns += 1;
            tracing::debug!(request_id = &*request.id, reruns, reason = message, "running the handler again");
        }
    }

    /// Runs the handler once.
    fn call(&self, request: &Incoming) -> Reply {
        let generation = self.matched.generation();
        let invocation = Invocation {
            id: &request.id,
            method: &request.method,
            path: request.uri.path(),
            query: request.uri.query().unwrap_or_default(),
            mount: &generation.mount,
            params: &self.matched.params,
            headers: &request.headers,
            body: &request.body,
            remote: &request.remote,
            deadline: request.deadline,
            cancelled: request.scope.as_ref().map(|scope| scope.cancelled()),
        };
        let (outcome, gates) = invoke::handle(&generation.library, self.matched.route(), &invocation);
        if matches!(outcome, Outcome::Panicked { .. }) {
            generation.panics.fetch_add(1, Ordering::Relaxed);
            self.plugins.note_panic(generation);
        }
        match reply(outcome) {
            // What failed anyway is told at once.
            answer @ (Reply::Response(_) | Reply::HttpError(_)) if !gates.is_empty() => {
                Reply::Gated { reply: Box::new(answer), gate: Gate::new(all(gates)) }
            }
            answer => answer,
        }
    }
}

/// What the request's transactions are told of an answer.
fn ending(reply: &Reply) -> Ending {
    match reply {
        Reply::Response(response) | Reply::HttpError(response) => {
            Ending::Answered { status: response.status().as_u16() }
        }
        Reply::Gated { reply, .. } => ending(reply),
        Reply::Unavailable { .. } | Reply::Failed { .. } | Reply::Lost { .. } | Reply::Panicked { .. } => {
            Ending::Failed
        }
    }
}

fn reply(outcome: Outcome) -> Reply {
    match outcome {
        Outcome::Response(response) => Reply::Response(response),
        Outcome::HttpError(response) => Reply::HttpError(response),
        Outcome::Unavailable { message } => Reply::Unavailable { message },
        Outcome::Failed { message } => Reply::Failed { message },
        Outcome::Panicked { message } => Reply::Panicked { message },
    }
}

/// Waits for all that a response waits for.
async fn all(gates: Vec<call::Gate>) -> Result<(), Reply> {
    for gate in gates {
        let lost = || Failure::new(Status::INDETERMINATE, "the host has lost sight of it; see the log");
        if let Err(failure) = gate.await.unwrap_or_else(|_| Err(lost())) {
            return Err(reply(invoke::failed_gate(failure)));
        }
    }
    Ok(())
}
