//! Pools in the registry, and lending their connections out.
#![expect(unsafe_code, reason = "reads the boundary's views and writes through its out-pointers")]

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use plugin_api::abi::{DEFAULT_NS, ErrorSink, HandleId, HostCtx, PoolConfigView, Status};

use super::super::call::{self, Call};
use super::super::view::text;
use super::super::{Caller, Failure, Held, give, guard};
use super::may_block;
use crate::db::{Borrower, Persistent, Pool, PoolConfig};
use crate::registry::Resource;

/// A pool as the registry keeps it.
#[derive(Debug)]
pub(in crate::hostcall) struct PoolResource(pub(in crate::hostcall) Pool);

impl Resource for PoolResource {
    fn type_name(&self) -> &'static str {
        "db::Pool"
    }

    fn describe(&self) -> serde_json::Value {
        let mut status = serde_json::to_value(self.0.status()).unwrap_or_default();
        // Long, and shown where one asks for the pools.
        if let Some(status) = status.as_object_mut() {
            status.retain(|name, _| name != "slowest" && name != "events");
        }
        status
    }

    fn close(&self) {
        self.0.close();
    }
}

/// Connections for each thread as the registry keeps them.
#[derive(Debug)]
pub(super) struct PersistentResource(pub(super) Persistent);

impl Resource for PersistentResource {
    fn type_name(&self) -> &'static str {
        "db::Persistent"
    }

    fn describe(&self) -> serde_json::Value {
        serde_json::json!({ "address": self.0.address(), "threads": self.0.len() })
    }

    fn close(&self) {
        self.0.close();
    }
}

/// The pool that a handle of the caller's names.
pub(in crate::hostcall) fn pool_of(caller: &Caller, handle: HandleId) -> Result<Arc<PoolResource>, Failure> {
    caller.handles.resource(handle).ok_or_else(no_pool)
}

fn no_pool() -> Failure {
    Failure::new(Status::NOT_FOUND, "this handle names no pool")
}

/// Who borrows, for the report of a connection that does not come back.
pub(in crate::hostcall) struct Debtor {
    plugin: Arc<str>,
    generation: u64,
    call: Option<Call>,
}

impl Debtor {
    pub(in crate::hostcall) fn of(caller: &Caller) -> Option<Arc<dyn Borrower>> {
        Some(Arc::new(Debtor {
            plugin: caller.plugin.clone(),
            generation: caller.generation,
            call: call::current(),
        }))
    }
}

impl fmt::Display for Debtor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "plugin `{}` generation {}", self.plugin, self.generation)?;
        match &self.call {
            Some(call) if call.request_id.is_empty() => write!(f, ", {}", call.route),
            Some(call) => write!(f, ", {}, request {}", call.route, call.request_id),
            None => write!(f, ", a thread of its own"),
        }
    }
}

pub(super) unsafe extern "C" fn pool_open(
    ctx: HostCtx,
    config: *const PoolConfigView,
    out: *mut HandleId,
    error: *const ErrorSink,
) -> Status {
    let body = |caller: &Caller| {
        may_block()?;
        // SAFETY: by the table's contract `config` is null or valid for this call.
        let Some(config) = (unsafe { config.as_ref() }) else {
            return Err(Failure::invalid("no configuration of the pool"));
        };
        // SAFETY: the view in the configuration is valid for this call.
        let url = unsafe { text(config.url, "the URL of the database") }?;
        let pool = open(url, config.max_size, config.checkout_timeout_ns, &caller.data_dir)?;
        // SAFETY: by the table's contract `out` is null or writable during this call.
        unsafe { give(caller, Held::Resource(Arc::new(PoolResource(pool))), out) }
    };
    // SAFETY: `ctx` and `error` by the table's contract.
    unsafe { guard(ctx, error, body) }
}

pub(super) unsafe extern "C" fn checkout(
    ctx: HostCtx,
    pool: HandleId,
    timeout_ns: u64,
    out: *mut HandleId,
    error: *const ErrorSink,
) -> Status {
    let body = |caller: &Caller| {
        may_block()?;
        let lease = match caller.handles.resource::<PersistentResource>(pool) {
            Some(set) => set.0.get()?,
            None => pool_of(caller, pool)?.0.checkout_for(Debtor::of(caller), patience(timeout_ns))?,
        };
        // SAFETY: by the table's contract `out` is null or writable during this call.
        unsafe { give(caller, Held::Connection(Arc::new(lease)), out) }
    };
    // SAFETY: `ctx` and `error` by the table's contract.
    unsafe { guard(ctx, error, body) }
}

pub(super) unsafe extern "C" fn checkout_shared(
    ctx: HostCtx,
    pool: HandleId,
    timeout_ns: u64,
    out: *mut HandleId,
    error: *const ErrorSink,
) -> Status {
    let body = |caller: &Caller| {
        may_block()?;
        let lease = pool_of(caller, pool)?.0.checkout_shared(Debtor::of(caller), patience(timeout_ns))?;
        // SAFETY: by the table's contract `out` is null or writable during this call.
        unsafe { give(caller, Held::Connection(Arc::new(lease)), out) }
    };
    // SAFETY: `ctx` and `error` by the table's contract.
    unsafe { guard(ctx, error, body) }
}

pub(super) unsafe extern "C" fn close(ctx: HostCtx, conn: HandleId, error: *const ErrorSink) -> Status {
    let body = |caller: &Caller| {
        may_block()?;
        // A request's transaction is not among them: it is the host's to end.
        let Some(Held::Connection(lease)) = caller.handles.get(conn) else {
            return Err(Failure::new(Status::NOT_FOUND, "this handle names no connection"));
        };
        Ok(lease.close()?)
    };
    // SAFETY: `ctx` and `error` by the table's contract.
    unsafe { guard(ctx, error, body) }
}

/// How long a checkout waits; nothing: as the pool says.
fn patience(timeout_ns: u64) -> Option<Duration> {
    (timeout_ns != DEFAULT_NS).then(|| Duration::from_nanos(timeout_ns))
}

fn open(url: &str, max_size: u32, timeout_ns: u64, data_dir: &Path) -> Result<Pool, Failure> {
    let mut config = PoolConfig::default();
    if max_size != 0 {
        config.max_size = max_size;
    }
    if timeout_ns != DEFAULT_NS {
        config.checkout_timeout = Duration::from_nanos(timeout_ns);
    }
    Ok(Pool::open(url, data_dir, config)?)
}
