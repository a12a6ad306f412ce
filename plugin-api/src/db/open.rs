//! Plugin -> host: the calls of the pool table, and nothing else.
//!
//! # Invariants
//!
//! - Every view passed here borrows from an argument, so it outlives the call.
#![expect(unsafe_code, reason = "calls the host's pool functions through the C ABI")]

use std::time::Duration;

use crate::abi::{DEFAULT_COUNT, HandleId, HostTable, NEVER_NS, OpenView, PoolTable, Status, StrView};
use crate::db::builder::Settings;
use crate::db::call::nanoseconds;
use crate::host::{CallError, Owned, call, table};

/// The host's table and its functions of pools.
fn pool() -> Result<(&'static HostTable, &'static PoolTable), CallError> {
    let host = table()?;
    // SAFETY: the host's table holds a pointer that is null or valid for as long as the table itself.
    let pool = unsafe { host.pool.as_ref() };
    pool.map(|pool| (host, pool))
        .ok_or_else(|| CallError::new(Status::CLOSED, "this host offers no databases"))
}

/// `None`: the host's default; `Some(None)`: no limit.
fn limit(duration: Option<Option<Duration>>) -> u64 {
    match duration {
        Some(None) => NEVER_NS,
        Some(Some(duration)) => nanoseconds(Some(duration)).min(NEVER_NS - 1),
        None => nanoseconds(None),
    }
}

pub(super) fn open(kind: u32, settings: &Settings<'_>) -> Result<Owned, CallError> {
    let (host, pool) = pool()?;
    let views = |texts: &[&str]| texts.iter().map(|text| StrView::new(text)).collect::<Vec<_>>();
    let (session, is_fatal) = (views(settings.session), views(settings.is_fatal));
    let view = OpenView {
        size: size_of::<OpenView>(),
        url: StrView::new(settings.url),
        kind,
        flags: settings.flags,
        max_size: settings.max_size.unwrap_or(0),
        min_idle: settings.min_idle,
        max_idle: settings.max_idle.unwrap_or(DEFAULT_COUNT),
        max_shared: settings.max_shared,
        ping: settings.ping_bits(),
        checkout_timeout_ns: nanoseconds(settings.checkout_timeout),
        idle_timeout_ns: limit(settings.idle_timeout),
        max_lifetime_ns: limit(settings.max_lifetime),
        ping_idle_ns: limit(settings.ping_idle),
        leak_after_ns: limit(settings.leak_after),
        ping_after_ns: nanoseconds(settings.ping_after),
        ping_timeout_ns: nanoseconds(settings.ping_timeout),
        max_uses: settings.max_uses,
        ping_sql: StrView::new(settings.ping_sql),
        session: session.as_ptr(),
        session_count: session.len(),
        is_fatal: is_fatal.as_ptr(),
        fatal_count: is_fatal.len(),
    };
    let mut id = HandleId::NONE;
    call(|error| {
        // SAFETY: the table's own `ctx`; the view borrows from `settings` and from the two vectors, which
        // outlive the call, as do `id` and `error`.
        unsafe { (pool.open)(host.ctx, &view, &mut id, error) }
    })?;
    Ok(Owned::new(id))
}

pub(super) fn checkout_shared(of: &Owned, timeout: Option<Duration>) -> Result<Owned, CallError> {
    let (host, pool) = pool()?;
    let mut id = HandleId::NONE;
    call(|error| {
        // SAFETY: the table's own `ctx`; `id` and `error` are valid during the call.
        unsafe { (pool.checkout_shared)(host.ctx, of.id(), nanoseconds(timeout), &mut id, error) }
    })?;
    Ok(Owned::new(id))
}

pub(super) fn close(conn: &Owned) -> Result<(), CallError> {
    let (host, pool) = pool()?;
    call(|error| {
        // SAFETY: the table's own `ctx`; `error` is valid during the call.
        unsafe { (pool.close)(host.ctx, conn.id(), error) }
    })
}
