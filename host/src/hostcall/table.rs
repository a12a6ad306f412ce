//! The host table of one generation, and the caller behind it.
//!
//! # Invariants
//!
//! - Table and caller live in one allocation each that does not move, and both live as long as the
//!   [`HostApi`]. Whoever maps the library owns the `HostApi` and drops it after the mapping.
#![expect(unsafe_code, reason = "hands out the pointers that the boundary reads")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use plugin_api::abi::{ABI_VERSION, HandleId, HostCtx, HostTable, Status};

use super::{
    Caller, Failure, Held, data, db, db_listen, db_stream, give, guard, log, registry, safe, service, tx,
};

/// What the host offers one generation.
#[derive(Debug)]
pub struct HostApi {
    table: Box<HostTable>,
    caller: Arc<Caller>,
}

// SAFETY: the table holds function pointers, `'static` tables, numbers and `ctx`. `ctx` points to the
// `Caller`, which is `Send + Sync` and kept alive by the field beside it. Two threads: one loads and
// passes the table to the plugin, another retires the generation; neither writes to the table after
// `new`.
unsafe impl Send for HostApi {}
// SAFETY: as for `Send`: nothing in it is written after `new`.
unsafe impl Sync for HostApi {}

impl HostApi {
    /// Makes the table of `caller`.
    pub fn new(caller: Arc<Caller>) -> HostApi {
        let table = Box::new(HostTable {
            size: size_of::<HostTable>(),
            abi_version: ABI_VERSION,
            generation: caller.generation,
            ctx: Arc::as_ptr(&caller).cast(),
            log: log::log,
            panicked: log::panicked,
            handle_clone,
            handle_drop,
            registry: &registry::TABLE,
            db: &db::DB_TABLE,
            data: &data::TABLE,
            safe: &safe::SAFE_TABLE,
            services: &service::TABLE,
            tx: &tx::TX_TABLE,
            pool: &db::POOL_TABLE,
            stream: &db_stream::STREAM_TABLE,
            listen: &db_listen::LISTEN_TABLE,
            // Of the registry that the caller holds.
            registry_epoch: caller.registry.epoch(),
            instance: next_instance(),
        });
        HostApi { table, caller }
    }

    /// The table, for the entry symbol. Valid as long as `self`.
    pub fn as_ptr(&self) -> *const HostTable {
        &*self.table
    }

    /// The caller behind the table.
    pub fn caller(&self) -> &Arc<Caller> {
        &self.caller
    }
}

/// A number that no library has had. See [`HostTable::instance`].
fn next_instance() -> u32 {
    static LAST: AtomicU32 = AtomicU32::new(0);
    // The greatest number is no library's, so that plugins may give it a meaning.
    let next = |last: u32| last.checked_add(1).filter(|next| *next < u32::MAX);
    LAST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next)
        .expect("a process that loads a library each millisecond has numbers for 49 days")
        + 1
}

unsafe extern "C" fn handle_clone(ctx: HostCtx, handle: HandleId, out: *mut HandleId) -> Status {
    let body = |caller: &Caller| match caller.handles.get(handle) {
        Some(held @ (Held::Resource(_) | Held::Service(_))) => {
            // SAFETY: `out` is null or writable during this call, by the table's contract.
            unsafe { give(caller, held, out) }
        }
        Some(
            Held::Connection(_)
            | Held::Transaction(_)
            | Held::Data(_)
            | Held::Rows(_)
            | Held::Safe(_)
            | Held::Watch(_),
        ) => Err(Failure::invalid("a connection, its rows, a fresh value, a safe or a watch has one holder")),
        None => Err(Failure::new(Status::NOT_FOUND, "no such handle")),
    };
    // SAFETY: `ctx` comes from the plugin under the table's contract; there is no sink.
    unsafe { guard(ctx, std::ptr::null(), body) }
}

unsafe extern "C" fn handle_drop(ctx: HostCtx, handle: HandleId) {
    let body = |caller: &Caller| {
        // Dropped here, outside of the table's lock.
        drop(caller.handles.remove(handle));
        Ok(())
    };
    // SAFETY: `ctx` comes from the plugin under the table's contract; there is no sink.
    unsafe { guard(ctx, std::ptr::null(), body) };
}
