//! A mapped library: `dlopen`, the entry symbol, the plugin's table; and `dlclose`, in one place.
//!
//! # Invariants
//!
//! - Nothing here unmaps in a drop. A library that is dropped stays mapped for ever, with all that the
//!   host made for it; `Mapped::unmap` is the one way out, and the reaper its one caller.
//! - The table is read once, at open, and copied: later calls use what was vetted.
//! - The host table outlives the mapping.
#![expect(unsafe_code, reason = "opens libraries and reads their tables")]

use std::mem::{ManuallyDrop, MaybeUninit, offset_of};
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::Method;
use libc::RTLD_NOLOAD;
use libloading::os::unix::{Library as Mapping, RTLD_LAZY, RTLD_LOCAL, RTLD_NOW};
use plugin_api::abi::{
    ABI_VERSION, ENTRY_SYMBOL, EntryFn, ErrorSink, HandlerFn, MemoryStripe, PluginTable, PreviousView,
    ROUTE_BLOCKING, ROUTE_IDEMPOTENT, ROUTE_INLINE, RouteView, Status,
};

use crate::hostcall::{Caller, HostApi, view};
use crate::pins::{self, Code};

/// Why a staged library could not be opened. Nothing of it is used.
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
    /// Whether the handler may be run again when its transaction collided with another one.
    pub is_idempotent: bool,
    /// The handler. Callable as long as the library is mapped, that is while its [`Library`] lives.
    pub(super) handler: HandlerFn,
}

/// A library in the memory of the process, with what the host made for it. Dropped, it stays mapped.
#[derive(Debug)]
pub struct Mapped {
    mapping: ManuallyDrop<Mapping>,
    /// The library keeps a pointer to the table in it.
    api: ManuallyDrop<HostApi>,
}

/// An opened library.
#[derive(Debug)]
pub struct Library {
    mapped: Mapped,
    /// Where the plugin wants to be mounted.
    pub mount: Option<String>,
    /// What it serves.
    pub routes: Vec<Route>,
    /// Where its entry symbol is: differs for every mapping.
    pub entry_address: usize,
    pub(super) hooks: Hooks,
    memory: Memory,
}

/// What runs at the ends of a generation's life.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hooks {
    pub(super) on_load: Option<unsafe extern "C" fn(*const ErrorSink) -> Status>,
    pub(super) upgrade: Option<unsafe extern "C" fn(*const PreviousView, *const ErrorSink) -> Status>,
    pub(super) check: Option<unsafe extern "C" fn(*const ErrorSink) -> Status>,
    pub(super) on_unload: Option<OnUnload>,
}

type OnUnload = unsafe extern "C" fn(u32) -> Status;

/// Where a library counts its memory.
#[derive(Clone, Copy, Debug)]
struct Memory {
    stripes: *const MemoryStripe,
    count: usize,
}

// SAFETY: the stripes are atomic words of a library that is mapped as long as its `Library` lives. Two threads: one
// allocates in the library and adds, the other reads here.
unsafe impl Send for Memory {}
// SAFETY: as for `Send`.
unsafe impl Sync for Memory {}

/// What the entry symbol led to.
struct Entered {
    entry_address: usize,
    mount: Option<String>,
    routes: Vec<Route>,
    hooks: Hooks,
    memory: Memory,
}

/// Why a library was not opened, and what of it is mapped nevertheless.
#[derive(Debug)]
pub struct OpenFailure {
    /// Why.
    pub error: OpenError,
    /// What its constructors ran in.
    pub mapped: Option<Mapped>,
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
    /// [`OpenFailure`].
    pub fn open(
        path: &Path,
        caller: Arc<Caller>,
        is_known: impl FnOnce(usize) -> bool,
    ) -> Result<Library, OpenFailure> {
        let code = Arc::clone(&caller.code);
        let opened = code.while_loading(|| {
            // SAFETY: opening runs the library's constructors. They belong to a plugin, which is trusted
            // code, and these very bytes have just run theirs in the probe without harm.
            unsafe { Mapping::open(Some(path), RTLD_NOW | RTLD_LOCAL) }
        });
        let mapping = match opened {
            Ok(mapping) => ManuallyDrop::new(mapping),
            Err(source) => {
                code.forget();
                return Err(OpenFailure { error: OpenError::Open { source }, mapped: None });
            }
        };
        let mapped = Mapped { mapping, api: ManuallyDrop::new(HostApi::new(caller)) };
        match mapped.enter(path, is_known) {
            Ok(Entered { entry_address, mount, routes, hooks, memory }) => {
                Ok(Library { mapped, mount, routes, entry_address, hooks, memory })
            }
            Err(error) => Err(OpenFailure { error, mapped: Some(mapped) }),
        }
    }

    /// The caller behind the library's host table.
    pub fn caller(&self) -> &Arc<Caller> {
        self.mapped.api.caller()
    }

    /// Its code, and what holds it.
    pub fn code(&self) -> &Arc<Code> {
        self.mapped.code()
    }

    /// Heap bytes that its code has allocated less those that it has freed; `None` if it does not count. Negative
    /// in a generation that freed what an earlier one had left.
    pub fn heap_bytes(&self) -> Option<i64> {
        if self.memory.stripes.is_null() {
            return None;
        }
        // SAFETY: the table promised `count` stripes that live as long as the mapping, hence as `self`; they are
        // written atomically.
        let stripes = unsafe { std::slice::from_raw_parts(self.memory.stripes, self.memory.count) };
        let sum =
            stripes.iter().fold(0_u64, |sum, part| sum.wrapping_add(part.bytes.load(Ordering::Relaxed)));
        Some(sum.cast_signed())
    }

    /// Gives up the right to call it.
    pub(super) fn into_mapped(self) -> Mapped {
        self.mapped
    }
}

impl Mapped {
    /// Its code, and what holds it.
    pub(super) fn code(&self) -> &Arc<Code> {
        &self.api.caller().code
    }

    /// Runs the entry symbol and vets the table.
    fn enter(&self, path: &Path, is_known: impl FnOnce(usize) -> bool) -> Result<Entered, OpenError> {
        // SAFETY: the symbol's type is fixed by its name, which carries the ABI's version.
        let entry = unsafe { self.mapping.get::<EntryFn>(ENTRY_SYMBOL.as_bytes()) };
        let entry: EntryFn = *entry.map_err(|_| OpenError::NoEntry)?;
        let entry_address = entry as usize;
        if is_known(entry_address) {
            return Err(OpenError::NotFresh { path: path.to_owned() });
        }
        // SAFETY: the contract of `EntryFn`: the table stays valid as long as the library is mapped, for
        // it is dropped after the library was unmapped, or never.
        let table = self.code().inside(|| unsafe { entry(self.api.as_ptr()) });
        if table.is_null() {
            return Err(OpenError::Refused);
        }
        // SAFETY: the entry symbol returns null or static data of the library, which is mapped.
        let table = unsafe { read_table(table)? };
        // SAFETY: the plugin promises that what its table points to is valid.
        let (mount, routes) = unsafe { vet(&table)? };
        let PluginTable { on_load, upgrade, check, on_unload, memory, memory_stripes, .. } = table;
        let hooks = Hooks { on_load, upgrade, check, on_unload };
        let memory = Memory { stripes: memory, count: memory_stripes };
        Ok(Entered { entry_address, mount, routes, hooks, memory })
    }

    /// Unmaps the library and frees what the host made for it.
    ///
    /// # Errors
    ///
    /// When the loader keeps it mapped. Then it stays so for ever, and so does what belongs to it.
    ///
    /// # Safety
    ///
    /// Nothing leads into the library: no pin, no thread that runs its code or will, no copy of a pointer
    /// to it that anybody follows.
    pub(super) unsafe fn unmap(mut self) -> Result<(), StillMapped> {
        let code = Arc::clone(self.code());
        let Some(range) = code.range().cloned() else { return Err(StillMapped) };
        code.close();
        // SAFETY: taken once, for `self` is consumed here.
        let mapping = unsafe { ManuallyDrop::take(&mut self.mapping) };
        if mapping.close().is_err() || code.is_mapped() {
            return Err(StillMapped);
        }
        code.forget();
        pins::bury(&range, code.label().cloned());
        // SAFETY: dropped once, as above. The one that had pointers to it is gone.
        unsafe { ManuallyDrop::drop(&mut self.api) };
        Ok(())
    }
}

/// The loader did not unmap a library.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StillMapped;

/// Makes the loader keep a library that a plugin has brought with it, for good; tells whether it is there.
///
/// Only the plugin's own traces are tracked. A library that came with it would leave with it, with its
/// threads, keys and thread-locals still in place.
pub(super) fn keep(library: &str) -> bool {
    // SAFETY: with RTLD_NOLOAD nothing is opened and no code runs: the library is there or it is not.
    let found = unsafe { Mapping::open(Some(library), RTLD_LAZY | RTLD_NOLOAD | libc::RTLD_NODELETE) };
    found.map(std::mem::forget).is_ok()
}

/// Opens a library that another one needs, for the life of the process: the loader takes it then by its name.
///
/// # Errors
///
/// The loader's words.
pub(super) fn keep_beside(path: &Path) -> Result<(), String> {
    // SAFETY: it is code that the plugin asks to be opened, and has been opened by the probe; it stays mapped.
    let opened = unsafe { Mapping::open(Some(path), RTLD_NOW | RTLD_LOCAL | libc::RTLD_NODELETE) };
    opened.map(std::mem::forget).map_err(|error| crate::report::chain(&error))
}

/// Where version 1 of the table ends: what every plugin has.
const TABLE_V1: usize = offset_of!(PluginTable, on_unload) + size_of::<Option<OnUnload>>();
/// Where version 1 of a route ends.
const ROUTE_V1: usize = offset_of!(RouteView, handler) + size_of::<HandlerFn>();

/// Copies as much of a table as its plugin and this host both know; the rest is null.
///
/// # Safety
///
/// `table` points to a table of as many bytes as its first word says.
unsafe fn read_table(table: *const PluginTable) -> Result<PluginTable, OpenError> {
    // SAFETY: this function's contract: every version of the table begins with its size.
    let size = unsafe { (&raw const (*table).size).read() };
    if size < TABLE_V1 {
        let reason = format!("it has {size} bytes, version 1 has {TABLE_V1}");
        return Err(OpenError::Table { reason });
    }
    let mut copy = MaybeUninit::<PluginTable>::zeroed();
    // SAFETY: readable for `size` bytes by this function's contract, writable for as many as the type has.
    unsafe {
        let known = size.min(size_of::<PluginTable>());
        ptr::copy_nonoverlapping(table.cast::<u8>(), copy.as_mut_ptr().cast::<u8>(), known);
    }
    // SAFETY: the part that was copied is a table's, by this function's contract. The rest is zero, which is valid
    // for its fields: numbers, pointers and functions that may be null.
    Ok(unsafe { copy.assume_init() })
}

/// Checks a table and copies what it says.
///
/// # Safety
///
/// What `table` points to is valid.
unsafe fn vet(table: &PluginTable) -> Result<(Option<String>, Vec<Route>), OpenError> {
    let malformed = |reason: String| OpenError::Table { reason };
    if table.abi_version != ABI_VERSION {
        return Err(malformed(format!("it says ABI {}, its descriptor said otherwise", table.abi_version)));
    }
    if !table.memory.is_null() && !table.memory.is_aligned() {
        return Err(malformed("the count of its memory is not aligned".to_owned()));
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
        // SAFETY: this function's contract: `route_count` routes, `route_size` bytes apart.
        let route = unsafe { table.routes.byte_add(i * table.route_size) };
        // SAFETY: this function's contract, and `route_size` is not less than `ROUTE_V1`.
        let read = unsafe { vet_route(&read_route(route, table.route_size)) };
        routes.push(read.map_err(|reason| malformed(format!("route {i}: {reason}")))?);
    }
    Ok((mount, routes))
}

/// Copies a route, with zeros for what its writer did not know.
///
/// # Safety
///
/// `size` bytes from `route` are valid, at least `ROUTE_V1`, and the first of them are a `RouteView`'s.
unsafe fn read_route(route: *const RouteView, size: usize) -> RouteView {
    let mut copy = MaybeUninit::<RouteView>::zeroed();
    let known = size.min(size_of::<RouteView>());
    // SAFETY: `known` bytes are valid in `route` by this function's contract, and in `copy` by its size.
    unsafe { route.cast::<u8>().copy_to_nonoverlapping(copy.as_mut_ptr().cast(), known) };
    // SAFETY: all fields that must not be zero are among the first `ROUTE_V1` bytes, which were copied.
    unsafe { copy.assume_init() }
}

/// # Safety
///
/// What `route` points to is valid.
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
        is_idempotent: route.flags & ROUTE_IDEMPOTENT != 0,
        handler: route.handler,
    })
}
