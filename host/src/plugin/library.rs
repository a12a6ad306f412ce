//! A mapped library: `dlopen`, the entry symbol, the plugin's table.
//!
//! # Invariants
//!
//! - A library is never unmapped. Threads, thread-local destructors and pthread keys of its copy of
//!   `std` may still lead into it, and this host does not track them; a retired generation is parked.
//! - The table is read once, at open, and copied: later calls use what was vetted.
//! - The host table outlives the mapping: it is leaked together with it.
#![expect(unsafe_code, reason = "opens libraries and reads their tables")]

use std::mem::{ManuallyDrop, offset_of};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use http::Method;
use libloading::os::unix::{Library as Mapping, RTLD_LOCAL, RTLD_NOW};
use plugin_api::abi::{
    ABI_VERSION, ENTRY_SYMBOL, EntryFn, HandlerFn, PluginTable, ROUTE_BLOCKING, ROUTE_INLINE, RouteView,
};

use crate::hostcall::{Caller, HostApi, view};

/// Why a staged library could not be opened. It may be mapped, but nothing of it is used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The dynamic loader refused it.
    #[error("the dynamic loader refused it")]
    Open {
        /// The loader's words.
        source: libloading::Error,
    },
    /// The loader answered with a library that is already mapped.
    #[error("the dynamic loader answered with an earlier copy of it; is `{}` a link?", path.display())]
    NotFresh {
        /// The staged copy.
        path: PathBuf,
    },
    /// No entry symbol.
    #[error("it exports no `{ENTRY_SYMBOL}`; declare the plugin with `plugin_api::plugin! {{ ... }}`")]
    NoEntry,
    /// The entry symbol returned null.
    #[error("its entry symbol refused this host (ABI {ABI_VERSION})")]
    Refused,
    /// The table breaks the contract.
    #[error("its table is malformed: {reason}")]
    Table {
        /// What is wrong.
        reason: String,
    },
}

/// A route, vetted.
#[derive(Clone, Debug)]
pub struct Route {
    /// Method.
    pub method: Method,
    /// Pattern below the mount.
    pub pattern: String,
    /// `GET /{id}`, for logs.
    pub name: Arc<str>,
    /// Whether the handler runs on the I/O thread.
    pub is_inline: bool,
    /// The handler. Callable as long as the library is mapped, that is for ever.
    pub(super) handler: HandlerFn,
}

/// An opened library.
#[derive(Debug)]
pub struct Library {
    /// Never dropped: see the invariants.
    _mapping: ManuallyDrop<Mapping>,
    /// Never dropped: the library keeps a pointer to the table in it.
    api: ManuallyDrop<HostApi>,
    /// Where the plugin wants to be mounted.
    pub mount: Option<String>,
    /// What it serves.
    pub routes: Vec<Route>,
    /// Where its entry symbol is: differs for every mapping.
    pub entry_address: usize,
    pub(super) on_load:
        Option<unsafe extern "C" fn(*const plugin_api::abi::ErrorSink) -> plugin_api::abi::Status>,
    pub(super) on_unload: Option<unsafe extern "C" fn(u32) -> plugin_api::abi::Status>,
}

impl Library {
    /// Maps the library at `path`, runs its constructors and its entry symbol.
    ///
    /// `path` is a staged copy that was vetted (see [`super::descriptor`]) and survived the probe. What
    /// a constructor does to this process cannot be undone: that is what the probe is for.
    /// `is_known` tells whether an entry address belongs to an earlier generation.
    ///
    /// # Errors
    ///
    /// [`OpenError`].
    pub fn open(
        path: &Path,
        caller: Arc<Caller>,
        is_known: impl FnOnce(usize) -> bool,
    ) -> Result<Library, OpenError> {
        // SAFETY: opening runs the library's constructors. They belong to a plugin, which is trusted
        // code, and these very bytes have just run theirs in the probe without harm.
        let mapping = unsafe { Mapping::open(Some(path), RTLD_NOW | RTLD_LOCAL) };
        let mapping = ManuallyDrop::new(mapping.map_err(|source| OpenError::Open { source })?);
        // SAFETY: the symbol's type is fixed by its name, which carries the ABI's version.
        let entry = unsafe { mapping.get::<EntryFn>(ENTRY_SYMBOL.as_bytes()) };
        let entry: EntryFn = *entry.map_err(|_| OpenError::NoEntry)?;
        let entry_address = entry as usize;
        if is_known(entry_address) {
            return Err(OpenError::NotFresh { path: path.to_owned() });
        }

        let api = ManuallyDrop::new(HostApi::new(caller));
        // SAFETY: the contract of `EntryFn`: the table stays valid as long as the library is mapped, since
        // neither is ever dropped.
        let table = unsafe { entry(api.as_ptr()) };
        // SAFETY: the entry symbol returns null or static data of the library, which is mapped for ever.
        let table: &'static PluginTable = unsafe { table.as_ref() }.ok_or(OpenError::Refused)?;
        // SAFETY: the plugin promises a valid table of `table.size` bytes.
        let (mount, routes) = unsafe { vet(table)? };
        Ok(Library {
            _mapping: mapping,
            api,
            mount,
            routes,
            entry_address,
            on_load: table.on_load,
            on_unload: table.on_unload,
        })
    }

    /// The caller behind the library's host table.
    pub fn caller(&self) -> &Arc<Caller> {
        self.api.caller()
    }
}

/// Where version 1 of the table ends: what every plugin has.
const TABLE_V1: usize = offset_of!(PluginTable, on_unload)
    + size_of::<Option<unsafe extern "C" fn(u32) -> plugin_api::abi::Status>>();
/// Where version 1 of a route ends.
const ROUTE_V1: usize = offset_of!(RouteView, handler) + size_of::<HandlerFn>();

/// Checks a table and copies what it says.
///
/// # Safety
///
/// `table` is valid for `table.size` bytes, and so is everything it points to.
unsafe fn vet(table: &PluginTable) -> Result<(Option<String>, Vec<Route>), OpenError> {
    let malformed = |reason: String| OpenError::Table { reason };
    if table.size < TABLE_V1 {
        return Err(malformed(format!("it has {} bytes, version 1 has {TABLE_V1}", table.size)));
    }
    if table.abi_version != ABI_VERSION {
        return Err(malformed(format!("it says ABI {}, its descriptor said otherwise", table.abi_version)));
    }
    // SAFETY: this function's contract.
    let mount = unsafe { view::text(table.mount, "the mount") }.map_err(|e| malformed(e.message))?;
    let mount = (!mount.is_empty()).then(|| mount.to_owned());
    if table.route_count > 0 && (table.routes.is_null() || table.route_size < ROUTE_V1) {
        return Err(malformed(format!(
            "its routes have {} bytes, version 1 has {ROUTE_V1}",
            table.route_size
        )));
    }
    let mut routes = Vec::with_capacity(table.route_count.min(1024));
    for i in 0..table.route_count {
        // SAFETY: this function's contract: `route_count` routes, `route_size` bytes apart, of which the
        // first `ROUTE_V1` are those of `RouteView`.
        let route = unsafe { &*table.routes.byte_add(i * table.route_size) };
        // SAFETY: this function's contract.
        routes.push(unsafe { vet_route(route) }.map_err(|reason| malformed(format!("route {i}: {reason}")))?);
    }
    Ok((mount, routes))
}

/// # Safety
///
/// `route` and what it points to are valid.
unsafe fn vet_route(route: &RouteView) -> Result<Route, String> {
    // SAFETY: this function's contract.
    let method = unsafe { view::text(route.method, "its method") }.map_err(|e| e.message)?;
    // SAFETY: this function's contract.
    let pattern = unsafe { view::text(route.path, "its path") }.map_err(|e| e.message)?;
    if method.is_empty() || method.bytes().any(|byte| byte.is_ascii_lowercase()) {
        return Err(format!("`{method}` is no method: write it in capitals, such as GET"));
    }
    if !pattern.starts_with('/') {
        return Err(format!("`{pattern}` does not begin with a slash"));
    }
    let is_inline = match route.kind {
        ROUTE_BLOCKING => false,
        ROUTE_INLINE => true,
        other => return Err(format!("kind {other} is neither blocking nor inline")),
    };
    Ok(Route {
        method: Method::from_bytes(method.as_bytes()).map_err(|_| format!("`{method}` is no method"))?,
        pattern: pattern.to_owned(),
        name: format!("{method} {pattern}").into(),
        is_inline,
        handler: route.handler,
    })
}
