//! Opening a pool, and lending its connections out.
#![expect(unsafe_code, reason = "reads the boundary's views and writes through its out-pointers")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use plugin_api::abi::{DEFAULT_NS, ErrorSink, HandleId, HostCtx, PoolConfigView, Status};

use super::super::view::text;
use super::super::{Caller, Failure, Held, guard};
use super::{give, may_block};
use crate::db::{Pool, PoolConfig};
use crate::registry::Resource;

/// A pool as the registry keeps it.
#[derive(Debug)]
pub(in crate::hostcall) struct PoolResource(pub(in crate::hostcall) Pool);

impl Resource for PoolResource {
    fn type_name(&self) -> &'static str {
        "db::Pool"
    }

    fn describe(&self) -> serde_json::Value {
        serde_json::to_value(self.0.status()).unwrap_or_default()
    }

    fn close(&self) {
        self.0.close();
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
        let handle = caller.handles.insert(Held::Resource(Arc::new(PoolResource(pool))));
        // SAFETY: by the table's contract `out` is null or writable during this call.
        unsafe { give(caller, handle, out) }
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
        let Some(pool) = caller.handles.resource::<PoolResource>(pool) else {
            return Err(Failure::new(Status::NOT_FOUND, "this handle names no pool"));
        };
        let lease = match timeout_ns {
            DEFAULT_NS => pool.0.checkout(),
            timeout_ns => pool.0.checkout_timeout(Duration::from_nanos(timeout_ns)),
        }?;
        let handle = caller.handles.insert(Held::Connection(Arc::new(lease)));
        // SAFETY: by the table's contract `out` is null or writable during this call.
        unsafe { give(caller, handle, out) }
    };
    // SAFETY: `ctx` and `error` by the table's contract.
    unsafe { guard(ctx, error, body) }
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
