//! Opening pools and steady connections with all their settings.
#![expect(unsafe_code, reason = "reads the boundary's views and writes through its out-pointers")]

use std::sync::Arc;
use std::time::Duration;

use plugin_api::abi::{
    DEFAULT_COUNT, DEFAULT_NS, ErrorSink, HandleId, HostCtx, NEVER_NS, OPEN_FIFO, OPEN_LAZY,
    OPEN_LEAK_BACKTRACE, OPEN_NO_FAILOVER, OPEN_NOT_CLOSEABLE, OPEN_PERSISTENT, OPEN_POOL, OPEN_RESET_ALWAYS,
    OPEN_RESET_REOPEN, OPEN_STEADY, OpenView, Status, StrView,
};

use super::super::view::{sized, slice, text};
use super::super::{Caller, Failure, Held, give, guard};
use super::may_block;
use super::pool::{PersistentResource, PoolResource};
use crate::db::{Lease, Order, Persistent, Ping, Pool, PoolConfig, ResetPolicy, Steady, SteadyConfig};

/// What a plugin of an older version leaves out.
const DEFAULTS: OpenView = OpenView {
    size: size_of::<OpenView>(),
    url: StrView::EMPTY,
    kind: OPEN_POOL,
    flags: 0,
    max_size: 0,
    min_idle: 0,
    max_idle: DEFAULT_COUNT,
    max_shared: 0,
    ping: DEFAULT_COUNT,
    checkout_timeout_ns: DEFAULT_NS,
    idle_timeout_ns: DEFAULT_NS,
    max_lifetime_ns: DEFAULT_NS,
    ping_idle_ns: DEFAULT_NS,
    leak_after_ns: DEFAULT_NS,
    ping_after_ns: DEFAULT_NS,
    ping_timeout_ns: DEFAULT_NS,
    max_uses: 0,
    ping_sql: StrView::EMPTY,
    session: std::ptr::null(),
    session_count: 0,
    is_fatal: std::ptr::null(),
    fatal_count: 0,
};

pub(super) unsafe extern "C" fn open(
    ctx: HostCtx,
    view: *const OpenView,
    out: *mut HandleId,
    error: *const ErrorSink,
) -> Status {
    let body = |caller: &Caller| {
        may_block()?;
        // SAFETY: by the table's contract `view` is null or as long as it says, during this call.
        let Some(view) = (unsafe { sized(view, DEFAULTS) }) else {
            return Err(Failure::invalid("no settings"));
        };
        // SAFETY: the view's texts are valid for this call.
        let (url, steady) = unsafe { (text(view.url, "the URL of the database")?, steady_config(&view)?) };
        let data_dir = &caller.data_dir;
        let held = match view.kind {
            OPEN_POOL => {
                let pool = Pool::open(url, data_dir, pool_config(&view, steady)?)?;
                Held::Resource(Arc::new(PoolResource(pool)))
            }
            OPEN_STEADY => Held::Connection(Arc::new(Lease::steady(Steady::open(url, data_dir, steady)?))),
            OPEN_PERSISTENT => {
                let persistent = Persistent::open(url, data_dir, steady)?;
                Held::Resource(Arc::new(PersistentResource(persistent)))
            }
            kind => return Err(Failure::invalid(format!("nothing opens as kind {kind}"))),
        };
        // SAFETY: by the table's contract `out` is null or writable during this call.
        unsafe { give(caller, held, out) }
    };
    // SAFETY: `ctx` and `error` by the table's contract.
    unsafe { guard(ctx, error, body) }
}

/// The settings of a pool.
fn pool_config(view: &OpenView, steady: SteadyConfig) -> Result<PoolConfig, Failure> {
    let has = |flag| view.flags & flag != 0;
    let base = PoolConfig::default();
    let reset = match (has(OPEN_RESET_ALWAYS), has(OPEN_RESET_REOPEN)) {
        (false, false) => ResetPolicy::IfDirty,
        (true, false) => ResetPolicy::Always,
        (false, true) => ResetPolicy::Reopen,
        (true, true) => return Err(Failure::invalid("`reset` is both `Always` and `Reopen`")),
    };
    Ok(PoolConfig {
        max_size: if view.max_size == 0 { base.max_size } else { view.max_size },
        min_idle: view.min_idle,
        max_idle: (view.max_idle != DEFAULT_COUNT).then_some(view.max_idle),
        max_shared: view.max_shared,
        checkout_timeout: limit(view.checkout_timeout_ns, Some(base.checkout_timeout))
            .unwrap_or(Duration::MAX),
        order: if has(OPEN_FIFO) { Order::Fifo } else { Order::Lifo },
        reset,
        idle_timeout: limit(view.idle_timeout_ns, base.idle_timeout),
        max_lifetime: limit(view.max_lifetime_ns, base.max_lifetime),
        ping_idle: limit(view.ping_idle_ns, base.ping_idle),
        leak_after: limit(view.leak_after_ns, base.leak_after),
        leak_backtrace: has(OPEN_LEAK_BACKTRACE),
        lazy: has(OPEN_LAZY),
        steady,
    })
}

/// The settings of each connection.
///
/// # Safety
///
/// The view's texts are valid for this call.
unsafe fn steady_config(view: &OpenView) -> Result<SteadyConfig, Failure> {
    let base = SteadyConfig::default();
    // SAFETY: valid by this function's contract.
    let ping_sql = unsafe { text(view.ping_sql, "`ping_sql`") }?;
    // SAFETY: pointer and number describe an array of texts that are valid, likewise.
    let session = unsafe { texts(view.session, view.session_count, "a statement of `session`") }?;
    // SAFETY: as above.
    let is_fatal = unsafe { texts(view.is_fatal, view.fatal_count, "a code of `is_fatal`") }?;
    Ok(SteadyConfig {
        max_uses: view.max_uses,
        session,
        is_fatal,
        ping: if view.ping == DEFAULT_COUNT { base.ping } else { Ping::from_bits(view.ping)? },
        ping_sql: (!ping_sql.is_empty()).then(|| ping_sql.to_owned()),
        ping_after: limit(view.ping_after_ns, Some(base.ping_after)).unwrap_or(Duration::MAX),
        ping_timeout: limit(view.ping_timeout_ns, Some(base.ping_timeout)).unwrap_or(Duration::MAX),
        failover: view.flags & OPEN_NO_FAILOVER == 0,
        closeable: view.flags & OPEN_NOT_CLOSEABLE == 0,
    })
}

/// A duration of the boundary.
fn limit(nanoseconds: u64, default: Option<Duration>) -> Option<Duration> {
    match nanoseconds {
        DEFAULT_NS => default,
        NEVER_NS => None,
        nanoseconds => Some(Duration::from_nanos(nanoseconds)),
    }
}

/// Copies an array of texts.
///
/// # Safety
///
/// If `ptr` is non-null, `count` texts from it are valid for this call.
unsafe fn texts(ptr: *const StrView, count: usize, what: &str) -> Result<Vec<String>, Failure> {
    // SAFETY: an array by this function's contract.
    let views = unsafe { slice(ptr, count) };
    // SAFETY: each text is valid by this function's contract.
    views.iter().map(|view| unsafe { text(*view, what) }.map(str::to_owned)).collect()
}
