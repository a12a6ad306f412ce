//! The host of paper: the log, data in the registry, and words for what it does not have.
#![expect(unsafe_code, reason = "plays the host's side of the C ABI")]

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};

use super::{safe, with_words};
use crate::abi::{
    ABI_VERSION, BytesSink, BytesView, DATA_GONE, DataCell, DataTable, DataTypeView, DbTable, ErrorSink,
    HandleId, HostCtx, HostTable, InitView, KeyView, LogView, OpenView, PanicView, PoolConfigView, PoolTable,
    RegistryTable, ServiceTable, ServiceTypeView, ServiceView, StatementView, Status, StrView, TxOptionsView,
    TxTable, TypeView,
};
use crate::entry::report;

/// A table behind a static.
struct Paper(HostTable);

// SAFETY: the table leads to statics, and is never written. Two threads that test at once read it.
unsafe impl Send for Paper {}
// SAFETY: as for `Send`.
unsafe impl Sync for Paper {}

/// The host's table, for as long as the process lives.
pub(super) fn table() -> *const HostTable {
    static EPOCH: AtomicU64 = AtomicU64::new(0);
    static TABLE: LazyLock<Paper> = LazyLock::new(|| {
        Paper(HostTable {
            size: size_of::<HostTable>(),
            abi_version: ABI_VERSION,
            generation: 1,
            ctx: ptr::null(),
            log,
            panicked,
            handle_clone,
            handle_drop,
            registry: &REGISTRY,
            db: &DB,
            data: &DATA,
            safe: &safe::TABLE,
            services: &SERVICES,
            tx: &TX,
            pool: &POOL,
            stream: ptr::null(),
            listen: ptr::null(),
            registry_epoch: &EPOCH,
            instance: 1,
        })
    });
    &TABLE.0
}

thread_local! {
    static LOG: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// What this thread has logged since it last asked.
pub(super) fn logged() -> Vec<String> {
    LOG.with_borrow_mut(std::mem::take)
}

fn text(view: StrView) -> String {
    // SAFETY: called with texts of views that are valid for the call that passed them.
    String::from_utf8_lossy(unsafe { view.as_bytes() }).into_owned()
}

unsafe extern "C" fn log(_: HostCtx, event: *const LogView) {
    // SAFETY: the plugin passes an event that is valid for this call.
    let event = unsafe { &*event };
    let level = ["OFF", "ERROR", "WARN", "INFO", "DEBUG", "TRACE"].get(event.level as usize).unwrap_or(&"?");
    let mut line = format!("{level} {}", text(event.message));
    for i in 0..event.field_count {
        // SAFETY: the event has so many fields, valid for this call.
        let (name, value) = unsafe {
            let field = &*event.fields.add(i);
            (text(field.name), String::from_utf8_lossy(field.value.as_slice()).into_owned())
        };
        line.push_str(&format!(" {name}={value}"));
    }
    // While a thread ends there may be no log any more.
    let _ = LOG.try_with(|log| log.borrow_mut().push(line));
}

/// As the hook of `std`, which the plugin's has replaced, so that a failed assertion is seen.
unsafe extern "C" fn panicked(_: HostCtx, panic: *const PanicView) {
    // SAFETY: the plugin passes a panic that is valid for this call.
    let panic = unsafe { &*panic };
    let (thread, file, message) = (text(panic.thread), text(panic.file), text(panic.message));
    eprintln!("thread '{thread}' panicked at {file}:{}:{}:\n{message}", panic.line, panic.column);
}

/// Refuses, with words.
fn refuse(error: *const ErrorSink, status: Status, words: &str) -> Status {
    // SAFETY: the plugin passes a sink that is null or valid for the call, which has not ended.
    unsafe { report(error, status, words) }
}

/// Functions of what the host of paper does not have.
macro_rules! without {
    ($what:literal: $($name:ident($($argument:ty),*);)*) => {$(
        unsafe extern "C" fn $name(_: HostCtx, $(_: $argument,)* error: *const ErrorSink) -> Status {
            let words = concat!("`plugin_api::testing` has no ", $what, "; test this with `host run`");
            refuse(error, Status::UNREACHABLE, words)
        }
    )*};
}

without! { "databases":
    pool_open(*const PoolConfigView, *mut HandleId);
    checkout(HandleId, u64, *mut HandleId);
    query(HandleId, *const StatementView, *const BytesSink);
    execute(HandleId, *const StatementView, *mut u64);
    batch_execute(HandleId, StrView);
    end(HandleId);
    error_details(*const BytesSink);
    begin_with(HandleId, *const TxOptionsView);
    open(*const OpenView, *mut HandleId);
}
without! { "transactions":
    join(HandleId, u32, *mut HandleId);
    join_with(HandleId, u32, *const TxOptionsView, *mut HandleId);
    doom();
}
without! { "services":
    service_create(*const ServiceTypeView, *const ServiceView, *mut HandleId);
    service_find(*const KeyView, *const ServiceTypeView, *const InitView, *mut HandleId);
    service_replace(*const KeyView, HandleId);
    service_call(HandleId, u32, BytesView, *const BytesSink);
}

static DB: DbTable = DbTable {
    size: size_of::<DbTable>(),
    pool_open,
    checkout,
    query,
    execute,
    batch_execute,
    begin: end,
    commit: end,
    rollback: end,
    error_details,
    begin_with,
};
static POOL: PoolTable =
    PoolTable { size: size_of::<PoolTable>(), open, checkout_shared: checkout, close: end };
static TX: TxTable = TxTable { size: size_of::<TxTable>(), join, doom, join_with };
static SERVICES: ServiceTable = ServiceTable {
    size: size_of::<ServiceTable>(),
    create: service_create,
    find: service_find,
    replace: service_replace,
    call: service_call,
};

unsafe extern "C" fn handle_clone(_: HostCtx, _: HandleId, _: *mut HandleId) -> Status {
    Status::NOT_FOUND
}

unsafe extern "C" fn handle_drop(_: HostCtx, handle: HandleId) {
    // A value that an init has made and given up.
    state().made.remove(&handle.0);
}

static REGISTRY: RegistryTable = RegistryTable { size: size_of::<RegistryTable>(), get_or_init, get, remove };
static DATA: DataTable = DataTable { size: size_of::<DataTable>(), create, find, prepare, release };

/// Data that is kept. Its cell and itself live as long as the process, for a `Lazy` may lead to them.
struct Kept {
    cell: *const DataCell,
    layout: String,
    name: String,
}

// SAFETY: the cell is a block of its own that is never freed, of which only the atomic word is written; the value is
// `Send + Sync` by the contract of `create`.
unsafe impl Send for Kept {}

type Name = (String, String);

#[derive(Default)]
struct State {
    slots: HashMap<Name, Kept>,
    /// Who makes what.
    opening: HashMap<Name, ThreadId>,
    /// Made, and not in a slot yet.
    made: HashMap<u64, Kept>,
    last: u64,
}

static STATE: LazyLock<Mutex<State>> = LazyLock::new(Mutex::default);
static CHANGED: Condvar = Condvar::new();

fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The names in a key that is valid for the call that passed it.
fn name(key: *const KeyView) -> Name {
    // SAFETY: the plugin passes a key that is valid for its call.
    let key = unsafe { &*key };
    (text(key.module), text(key.key))
}

unsafe extern "C" fn get_or_init(
    _: HostCtx,
    _: *const KeyView,
    _: *const TypeView,
    init: *const InitView,
    _: *mut HandleId,
    error: *const ErrorSink,
) -> Status {
    // SAFETY: the plugin passes an init that is valid for this call.
    match unsafe { run(init) } {
        Ok(_) => refuse(error, Status::INVALID, "`plugin_api::testing` keeps data only"),
        Err((status, words)) => refuse(error, status, &words),
    }
}

unsafe extern "C" fn get(
    _: HostCtx,
    _: *const KeyView,
    _: *const TypeView,
    _: *mut HandleId,
    error: *const ErrorSink,
) -> Status {
    refuse(error, Status::NOT_FOUND, "the key is empty")
}

unsafe extern "C" fn remove(_: HostCtx, key: *const KeyView, error: *const ErrorSink) -> Status {
    let Some(kept) = state().slots.remove(&name(key)) else {
        return refuse(error, Status::NOT_FOUND, "the key is empty");
    };
    // SAFETY: a cell is never freed here.
    unsafe { &(*kept.cell).users }.fetch_or(DATA_GONE, Ordering::AcqRel);
    Status::OK
}

/// Runs an init; the handle that it returned, or why there is none.
///
/// # Safety
///
/// `init` is valid for this call.
unsafe fn run(init: *const InitView) -> Result<HandleId, (Status, String)> {
    // SAFETY: this function's contract.
    let init = unsafe { &*init };
    let mut made = HandleId::NONE;
    let mut status = Status::OK;
    let outcome = with_words(|sink| {
        // SAFETY: this function's contract; `made` and `sink` live until the call returns.
        status = unsafe { (init.call)(init.data, &mut made, sink) };
        status
    });
    let status = if status == Status::PANICKED { Status::INIT_PANICKED } else { Status::INIT_FAILED };
    outcome.map(|()| made).map_err(|words| (status, words))
}

unsafe extern "C" fn create(
    _: HostCtx,
    of: *const DataTypeView,
    value: *mut c_void,
    out: *mut HandleId,
    _: *const ErrorSink,
) -> Status {
    // SAFETY: the plugin passes a type that is valid for this call.
    let (layout, name) = unsafe { (text((*of).layout), text((*of).name)) };
    let cell = DataCell { size: size_of::<DataCell>(), users: AtomicU64::new(0), value };
    let kept = Kept { cell: Box::leak(Box::new(cell)), layout, name };
    let mut state = state();
    state.last += 1;
    let id = state.last;
    state.made.insert(id, kept);
    // SAFETY: `out` is writable during this call.
    unsafe { out.write(HandleId(id)) };
    Status::OK
}

unsafe extern "C" fn find(
    _: HostCtx,
    key: *const KeyView,
    expected: *const DataTypeView,
    init: *const InitView,
    _: u32,
    out: *mut *const DataCell,
    error: *const ErrorSink,
) -> Status {
    // SAFETY: the plugin passes views that are valid for this call.
    match unsafe { look_up(key, expected, init) } {
        Ok(cell) => {
            // SAFETY: a cell is never freed here; `out` is writable during this call.
            unsafe {
                (*cell).users.fetch_add(1, Ordering::AcqRel);
                out.write(cell);
            }
            Status::OK
        }
        Err((status, words)) => refuse(error, status, &words),
    }
}

unsafe extern "C" fn prepare(
    _: HostCtx,
    key: *const KeyView,
    expected: *const DataTypeView,
    init: *const InitView,
    error: *const ErrorSink,
) -> Status {
    // SAFETY: the plugin passes views that are valid for this call.
    match unsafe { look_up(key, expected, init) } {
        Ok(_) => Status::OK,
        Err((status, words)) => refuse(error, status, &words),
    }
}

/// Values are never dropped here.
unsafe extern "C" fn release(_: HostCtx, _: *const DataCell) {}

/// The cell of a key, made by `init` if there is none and `init` is not null. One init a key at a time.
///
/// # Safety
///
/// The views are valid for this call.
unsafe fn look_up(
    key: *const KeyView,
    expected: *const DataTypeView,
    init: *const InitView,
) -> Result<*const DataCell, (Status, String)> {
    let name = name(key);
    // SAFETY: this function's contract.
    let (layout, type_name) = unsafe { (text((*expected).layout), text((*expected).name)) };
    let me = thread::current().id();
    let mut state = state();
    loop {
        if let Some(kept) = state.slots.get(&name) {
            if kept.layout == layout {
                return Ok(kept.cell);
            }
            let words = format!("`{}` holds a `{}` and not a `{type_name}`", name.1, kept.name);
            return Err((Status::WRONG_TYPE, words));
        }
        match state.opening.get(&name) {
            Some(maker) if *maker == me => {
                return Err((Status::RECURSIVE, format!("making `{}` needs `{0}` itself", name.1)));
            }
            Some(_) => state = CHANGED.wait(state).unwrap_or_else(PoisonError::into_inner),
            None if init.is_null() => return Err((Status::NOT_FOUND, format!("`{}` is empty", name.1))),
            None => break,
        }
    }
    state.opening.insert(name.clone(), me);
    drop(state);
    // SAFETY: this function's contract.
    let made = unsafe { run(init) };
    let mut state = self::state();
    state.opening.remove(&name);
    CHANGED.notify_all();
    let kept = state.made.remove(&made?.0).ok_or((Status::INVALID, "the init made nothing".to_owned()))?;
    let cell = kept.cell;
    state.slots.insert(name, kept);
    Ok(cell)
}
