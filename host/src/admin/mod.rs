//! The admin face: the host as a page, as JSON and as metrics, on the admin listener and on the control socket.
//!
//! | path | answers |
//! |---|---|
//! | `GET /` | the status page, which draws the JSON |
//! | `GET /metrics` | the numbers of the JSON for Prometheus |
//! | `GET /healthz` | 200 as long as the process answers |
//! | `GET /readyz` | 200 once every plugin has had its first outcome, 503 before and while stopping |
//! | `GET /api/host` | addresses, process, counts |
//! | `GET /api/plugins` | every plugin: state, generation, routes, last outcome, parked generations |
//! | `GET /api/registry` | every slot |
//! | `POST /api/registry` | lets go of a value: `{"remove": {"module": "", "key": "db"}}`; control socket only |
//! | `GET /api/db` | every pool of database connections; the texts of statements on the control socket only |
//! | `GET /api/events` | what happened, the newest first |
//! | `GET /api/logs` | the newest lines of the log, the oldest first; `?after=N`: those after number N; control socket only |
//! | `POST /api/plugins/NAME/rollback` | takes the plugin back, to `{"generation": N}` if it says so; control socket only |
//! | `POST /api/plugins/NAME/reload` | tries the plugin's source again; control socket only |
//! | `GET /api/safes` | every safe in use: numbers, never contents |
//! | `POST /api/safes` | carries an operator's order out; on the control socket only |
//!
//! # Invariants
//!
//! - On the network nothing changes the host, and nothing shows what plugins keep.
//! - On the network a request must name the listener in `Host`, so that a web page under another name
//!   cannot read the answers through its visitor's browser.

mod client;
mod metrics;
mod page;
mod recent;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

pub use self::client::{Client, ClientError};
use self::metrics::Metrics;
pub use self::recent::{LogLine, RecentLog};
use crate::host::Shared;
use crate::http::Server;
use crate::http::side::Handler;
use crate::plugin::{Plugins, parting};
use crate::registry::{Key, Overlay, Registry, unix_ms};
use crate::safe::{Order, Safes};

/// Name of the control socket in the state directory.
pub const CONTROL_SOCKET: &str = "control.sock";

/// Where a request came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trust {
    /// The control socket: file permissions say who may.
    ControlSocket,
    /// The admin listener.
    Network,
}

/// What the face shows.
pub(crate) struct Admin {
    pub(crate) shared: Arc<Shared>,
    pub(crate) plugins: Arc<Plugins>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) safes: Arc<Safes>,
    pub(crate) server: Arc<Server>,
    pub(crate) admin: Option<SocketAddr>,
    /// Names under which the admin listener is reached, beside its address.
    pub(crate) admin_hosts: BTreeSet<String>,
    pub(crate) log: Arc<RecentLog>,
}

impl Admin {
    /// The handler for a side listener.
    pub(crate) fn handler(self: &Arc<Self>, trust: Trust) -> Handler {
        let face = Arc::clone(self);
        Arc::new(move |request| face.answer(&request, trust))
    }

    fn answer(&self, request: &Request<Bytes>, trust: Trust) -> Response<Bytes> {
        if trust == Trust::Network && !self.is_ours(request) {
            let words = "the Host header does not name this listener; use its address, such as 127.0.0.1, or list \
                         the name in `admin_hosts` of the [host] table of host.toml";
            return text(StatusCode::MISDIRECTED_REQUEST, words);
        }
        if trust == Trust::ControlSocket
            && *request.method() == Method::POST
            && let Some((plugin, what)) = named_order(request.uri().path())
        {
            return self.plugin_order(&plugin, what, request.body());
        }
        let is_order = *request.method() == Method::POST && request.uri().path() == "/api/safes";
        if is_order && trust == Trust::ControlSocket {
            return self.order(request.body());
        }
        let is_order = *request.method() == Method::POST && request.uri().path() == "/api/registry";
        if is_order && trust == Trust::ControlSocket {
            return self.registry_order(request.body());
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered here");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match request.uri().path() {
            "/healthz" => text(StatusCode::OK, "ok"),
            "/readyz" if self.shared.is_ready.load(Ordering::Acquire) => text(StatusCode::OK, "ready"),
            "/readyz" => text(
                StatusCode::SERVICE_UNAVAILABLE,
                "not ready: plugins are being built, or the host is stopping",
            ),
            "/api/host" => json(&self.host()),
            "/api/plugins" => json(&json!({ "plugins": self.plugins.status() })),
            "/api/registry" => json(&json!({ "slots": self.registry.slots() })),
            "/api/db" => json(&pools(trust)),
            "/api/safes" => json(&json!({ "safes": self.safes.status() })),
            "/api/events" => json(&json!({ "events": self.plugins.events() })),
            "/api/logs" if trust == Trust::ControlSocket => {
                self.log(request.uri().query().unwrap_or_default())
            }
            "/metrics" => respond(StatusCode::OK, metrics::CONTENT_TYPE, self.metrics().into()),
            path => page::file(path).unwrap_or_else(|| {
                text(
                    StatusCode::NOT_FOUND,
                    "there is /, /healthz, /readyz, /metrics, /api/host, /api/plugins, /api/registry, \
                     /api/db, /api/safes and /api/events",
                )
            }),
        }
    }

    /// Has something done to a plugin, and answers with the event that came of it.
    fn plugin_order(&self, plugin: &str, what: PluginOrder, body: &Bytes) -> Response<Bytes> {
        let outcome = match what {
            PluginOrder::Reload => self.plugins.reload(plugin),
            PluginOrder::Rollback => {
                let details: RollbackDetails = match body.is_empty() {
                    true => RollbackDetails::default(),
                    false => match serde_json::from_slice(body) {
                        Ok(details) => details,
                        Err(error) => {
                            let words =
                                format!("the body must be as {{\"generation\": 2}}, or empty: {error}");
                            return text(StatusCode::BAD_REQUEST, &words);
                        }
                    },
                };
                self.plugins.roll_back(plugin, details.generation)
            }
        };
        match outcome {
            Ok(event) => json(&serde_json::to_value(&event).expect("an event is text and numbers")),
            Err(error) => text(StatusCode::UNPROCESSABLE_ENTITY, &crate::report::chain(&error)),
        }
    }

    /// Lets go of a value of the registry.
    fn registry_order(&self, body: &Bytes) -> Response<Bytes> {
        match serde_json::from_slice::<RegistryOrder>(body) {
            Err(error) => {
                let words = format!(
                    "the body must be as {{\"remove\": {{\"module\": \"\", \"key\": \"db\"}}}}: {error}"
                );
                text(StatusCode::BAD_REQUEST, &words)
            }
            Ok(RegistryOrder { remove: SlotName { module, key } }) => {
                let key = Key::new(&module, &key);
                match self.registry.remove(&Overlay::committed(), &key) {
                    Ok(rest) => {
                        parting::part(parting::PATIENCE, move || drop(rest));
                        json(&json!({ "removed": key.to_string() }))
                    }
                    Err(error) => text(StatusCode::UNPROCESSABLE_ENTITY, &crate::report::chain(&error)),
                }
            }
        }
    }

    /// Carries an operator's order out.
    fn order(&self, body: &Bytes) -> Response<Bytes> {
        match serde_json::from_slice::<Order>(body) {
            Err(error) => text(StatusCode::BAD_REQUEST, &format!("no order: {error}")),
            Ok(order) => match self.safes.operate(&order) {
                Ok(answer) => json(&answer),
                Err(error) => text(StatusCode::UNPROCESSABLE_ENTITY, &crate::report::chain(&error)),
            },
        }
    }

    /// The lines after the number in the query; the process is named because numbers are its own.
    fn log(&self, query: &str) -> Response<Bytes> {
        let after = match query.strip_prefix("after=") {
            None if query.is_empty() => Ok(0),
            None => return text(StatusCode::BAD_REQUEST, "the query must be as after=12, or empty"),
            Some(number) => number.parse(),
        };
        match after {
            Ok(after) => json(&json!({ "pid": std::process::id(), "lines": self.log.after(after) })),
            Err(error) => text(StatusCode::BAD_REQUEST, &format!("the query must be as after=12: {error}")),
        }
    }

    fn host(&self) -> Value {
        let uptime = u64::try_from(self.shared.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "pid": std::process::id(),
            "listen": self.server.address().to_string(),
            "admin": self.admin.map(|address| address.to_string()),
            "started_at_ms": unix_ms(self.shared.started_at),
            "uptime_ms": uptime,
            "is_ready": self.shared.is_ready.load(Ordering::Acquire),
            "numbers": self.server.numbers(),
        })
    }

    fn metrics(&self) -> String {
        let mut metrics = Metrics::default();
        metrics.add("host", &[], &self.host());
        for plugin in self.plugins.status() {
            let mut numbers = serde_json::to_value(&plugin).expect("a plugin's status is text and numbers");
            // Text and a list, of which a number is worth an alert.
            numbers["is_refused"] = plugin.refused.is_some().into();
            numbers["parked"] = plugin.parked.len().into();
            metrics.add("host_plugin", &[("plugin", &plugin.name)], &numbers);
        }
        for slot in self.registry.slots() {
            let slot = serde_json::to_value(&slot).expect("a slot is text and numbers");
            let named = |field: &str| slot[field].as_str().unwrap_or_default().to_owned();
            let (module, key) = (named("module"), named("key"));
            metrics.add("host_slot", &[("module", &module), ("key", &key)], &slot);
        }
        for safe in self.safes.status() {
            let name = safe.name.clone();
            let numbers = serde_json::to_value(&safe).expect("a safe's status is text and numbers");
            metrics.add("host_safe", &[("safe", &name)], &numbers);
        }
        metrics.text()
    }

    /// Whether a request from the network names this listener: by address, or as `localhost` where the
    /// listener is on a loopback address.
    fn is_ours(&self, request: &Request<Bytes>) -> bool {
        let Some(listener) = self.admin else { return false };
        let authority = request.uri().authority().map(|authority| authority.as_str().to_owned());
        let header = request.headers().get(HOST).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let Some(named) = authority.or(header) else { return false };
        let name = match named.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => named.as_str(),
        };
        let name = name.trim_start_matches('[').trim_end_matches(']');
        match name.parse::<IpAddr>() {
            Ok(ip) => {
                ip == listener.ip()
                    || listener.ip().is_unspecified()
                    || (ip.is_loopback() && listener.ip().is_loopback())
            }
            Err(_) => {
                let is_named = |host: &String| host.eq_ignore_ascii_case(name);
                (name.eq_ignore_ascii_case("localhost") && listener.ip().is_loopback())
                    || self.admin_hosts.iter().any(is_named)
            }
        }
    }
}

/// The pools; on the network without what plugins ask their databases.
fn pools(trust: Trust) -> Value {
    let mut pools = crate::db::pools();
    if trust == Trust::Network {
        pools.iter_mut().for_each(|pool| pool.slowest.clear());
    }
    json!({ "pools": pools })
}

/// What can be done to a plugin.
#[derive(Debug, Clone, Copy)]
enum PluginOrder {
    Rollback,
    Reload,
}

/// The body of a roll-back.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct RollbackDetails {
    /// Whose code is wanted; without it, that of the one before.
    #[serde(default)]
    generation: Option<u64>,
}

/// What can be done to the registry.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct RegistryOrder {
    remove: SlotName,
}

/// Names a slot.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct SlotName {
    #[serde(default)]
    module: String,
    key: String,
}

/// The plugin and the order in a path such as `/api/plugins/hello/rollback`.
fn named_order(path: &str) -> Option<(String, PluginOrder)> {
    let (plugin, what) = path.strip_prefix("/api/plugins/")?.split_once('/')?;
    let what = match what {
        "rollback" => PluginOrder::Rollback,
        "reload" => PluginOrder::Reload,
        _ => return None,
    };
    Some((percent_decode_str(plugin).decode_utf8().ok()?.into_owned(), what))
}

fn json(value: &Value) -> Response<Bytes> {
    let mut body = serde_json::to_vec_pretty(value).expect("a `Value` always serialises");
    body.push(b'\n');
    respond(StatusCode::OK, "application/json", body.into())
}

fn text(status: StatusCode, words: &str) -> Response<Bytes> {
    respond(status, "text/plain; charset=utf-8", format!("{words}\n").into())
}

fn respond(status: StatusCode, content_type: &'static str, body: Bytes) -> Response<Bytes> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Uses a socket path of any length: the system takes about a hundred bytes, so a longer one is reached
/// through a descriptor of its directory.
pub(crate) fn short_path<R>(
    path: &Path,
    body: impl FnOnce(&Path) -> std::io::Result<R>,
) -> std::io::Result<R> {
    use std::os::fd::AsRawFd as _;
    const LONGEST: usize = 100;
    if path.as_os_str().len() <= LONGEST {
        return body(path);
    }
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else { return body(path) };
    let directory = std::fs::File::open(directory)?;
    body(&Path::new(&format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name))
}
