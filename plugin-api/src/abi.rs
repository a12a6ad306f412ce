//! The contract between the host and a library: ABI version 1.
//!
//! Host and plugin are linked apart, each with its own copy of `std`, maybe by different compilers.
//! What crosses is therefore C: `repr(C)` structs that begin with their size, function tables,
//! views, numbers. This file holds types, constants and layout assertions, and no logic. The same
//! contract for C is `plugin-api/include/plugin_abi.h`.
//!
//! # Invariants
//!
//! - A released item never changes. A table grows at its end; its reader looks at `size` before it
//!   reads a field that version 1 did not have.
//! - A view is valid for the call it is passed to, and no longer. Who wants to keep it copies it.
//! - Who allocates frees. Results of unknown length go through a sink: a function of the receiver
//!   that copies.
//! - No function in any table unwinds. Each side catches its own panics.
//! - The plugin names objects of the host by [`HandleId`], never by address: a stale or invented
//!   one is an error, not a dereference.

use core::ffi::c_void;
use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64};

/// The version of this contract.
pub const ABI_VERSION: u32 = 1;

/// Name of the entry symbol, of type [`EntryFn`].
pub const ENTRY_SYMBOL: &str = "plugin_entry_v1";

/// Name of the ELF section that holds the descriptor.
///
/// The section is text: `name=value` records, each ended by a NUL byte, the first being
/// `magic=host-plugin`. The host reads it from the file, before any code of the library runs.
/// Required: `abi`, `name`. Known: `version`, `api`, `rustc`, `target`, `panic`, `package`. Others are ignored.
pub const DESCRIPTOR_SECTION: &str = ".plugin_descriptor";

/// First record of a descriptor.
pub const DESCRIPTOR_MAGIC: &str = "magic=host-plugin";

/// Borrowed UTF-8 text. A null `ptr` means the empty text.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct StrView {
    /// First byte.
    pub ptr: *const u8,
    /// Length in bytes.
    pub len: usize,
}

/// Borrowed bytes. A null `ptr` means no bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct BytesView {
    /// First byte.
    pub ptr: *const u8,
    /// Length in bytes.
    pub len: usize,
}

/// A name with a value: a header, a path parameter, a log field.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct PairView {
    /// The name.
    pub name: StrView,
    /// The value. UTF-8 for everything but header values.
    pub value: BytesView,
}

/// The outcome of a call across the boundary. Zero is success.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Status(pub i32);

impl Status {
    /// Done.
    pub const OK: Status = Status(0);
    /// Failed; the error's text says why.
    pub const FAILED: Status = Status(1);
    /// The callee panicked and caught it on its own side.
    pub const PANICKED: Status = Status(2);
    /// There is no such key, handle or row.
    pub const NOT_FOUND: Status = Status(3);
    /// The key holds a value of another type.
    pub const WRONG_TYPE: Status = Status(4);
    /// The init of a key asked, directly or through others, for the same key.
    pub const RECURSIVE: Status = Status(5);
    /// A deadline passed.
    pub const TIMED_OUT: Status = Status(6);
    /// The last inits failed and the next try is not due yet.
    pub const BACKING_OFF: Status = Status(7);
    /// An argument breaks this contract.
    pub const INVALID: Status = Status(8);
    /// A handler ended with a typed HTTP error and has responded with it.
    pub const HTTP_ERROR: Status = Status(9);
    /// Every connection of the pool is lent out.
    pub const EXHAUSTED: Status = Status(10);
    /// The database cannot be reached.
    pub const UNREACHABLE: Status = Status(11);
    /// The database refused the statement; `sqlstate` says why where the driver knows.
    pub const DATABASE: Status = Status(12);
    /// The object has been closed.
    pub const CLOSED: Status = Status(13);
    /// A value does not fit the column or parameter it is meant for.
    pub const OUT_OF_RANGE: Status = Status(14);
    /// The init of a key failed; the text is the init's own.
    pub const INIT_FAILED: Status = Status(15);
    /// The init of a key panicked.
    pub const INIT_PANICKED: Status = Status(16);
    /// The layouts of a value and of the caller's type differ, and the value was not upgraded.
    pub const OUTDATED: Status = Status(17);
    /// The key holds a service of the expected name with other methods.
    pub const INTERFACE: Status = Status(27);
    /// Another plugin has made the value of the key from another configuration.
    pub const MISCONFIGURED: Status = Status(30);
    /// A check of a write did not hold; nothing is changed.
    pub const CONFLICT: Status = Status(24);
    /// The disk failed during a write, which may or may not have been made.
    pub const INDETERMINATE: Status = Status(25);
    /// Stored bytes are not those that were written.
    pub const CORRUPT: Status = Status(26);
    /// The connection broke during a commit; whether the transaction is lasting is unknown.
    pub const OUTCOME_UNKNOWN: Status = Status(37);
    /// The caller's own function ended a stream.
    pub const STOPPED: Status = Status(43);
    /// The operator has not granted it.
    pub const DENIED: Status = Status(49);
}

/// Why a call failed.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ErrorView {
    /// Size of this struct as its writer knows it, in bytes.
    pub size: usize,
    /// What kind of failure.
    pub status: Status,
    /// A sentence fragment for a human: lower case, no full stop.
    pub message: StrView,
    /// The five characters of a database error, or empty.
    pub sqlstate: StrView,
}

/// Receives the error of a call.
///
/// OWNERSHIP: the caller's. LIFETIME: the call.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ErrorSink {
    /// Passed back to `report`.
    pub data: *mut c_void,
    /// Copies the error. Called at most once a call, on the calling thread. Null: not interested.
    pub report: Option<unsafe extern "C" fn(data: *mut c_void, error: *const ErrorView)>,
}

/// Receives bytes of a length that only the callee knows.
///
/// OWNERSHIP: the caller's. LIFETIME: the call.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct BytesSink {
    /// Passed back to `write`.
    pub data: *mut c_void,
    /// Appends a copy of the bytes. May be called several times, on the calling thread.
    pub write: Option<unsafe extern "C" fn(data: *mut c_void, bytes: BytesView)>,
}

/// An object of the host that a plugin holds: a pool, a connection. Zero names none.
///
/// OWNERSHIP: whoever got it releases it with `handle_drop`, once. Valid in the generation that got
/// it; the host releases what a generation leaked when that generation is retired.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HandleId(pub u64);

impl HandleId {
    /// Names nothing.
    pub const NONE: HandleId = HandleId(0);
}

/// The generation's context in the host; opaque to the plugin. Valid as long as the library is mapped.
pub type HostCtx = *const c_void;

/// What the host offers a generation. Valid as long as the library is mapped.
#[repr(C)]
#[derive(Debug)]
pub struct HostTable {
    /// Size of this struct as the host knows it, in bytes.
    pub size: usize,
    /// [`ABI_VERSION`] of the host.
    pub abi_version: u32,
    /// The number of this generation.
    pub generation: u64,
    /// First argument of every function below.
    pub ctx: HostCtx,
    /// Writes an event to the host's log.
    ///
    /// THREAD: any. BLOCKS: no longer than the log's output. UNWINDS: never.
    pub log: unsafe extern "C" fn(ctx: HostCtx, event: *const LogView),
    /// Reports a panic while it is being raised: the host's log gets it with plugin, generation and request.
    ///
    /// THREAD: the one that panics. BLOCKS: as `log`. UNWINDS: never.
    pub panicked: unsafe extern "C" fn(ctx: HostCtx, panic: *const PanicView),
    /// Makes a second handle to the same object.
    ///
    /// THREAD: any. BLOCKS: no. UNWINDS: never. RETURNS: `OK` and `*out`, or `NOT_FOUND` or `INVALID` (a
    /// connection has one holder).
    pub handle_clone: unsafe extern "C" fn(ctx: HostCtx, handle: HandleId, out: *mut HandleId) -> Status,
    /// Releases a handle. A connection goes back to its pool.
    ///
    /// THREAD: any. BLOCKS: while a connection that was left in a transaction is rolled back. UNWINDS: never.
    /// An unknown handle is ignored.
    pub handle_drop: unsafe extern "C" fn(ctx: HostCtx, handle: HandleId),
    /// The registry. LIFETIME: as this table.
    pub registry: *const RegistryTable,
    /// The database handles. LIFETIME: as this table.
    pub db: *const DbTable,
    /// Values shared in place. LIFETIME: as this table.
    pub data: *const DataTable,
    /// The safe. LIFETIME: as this table.
    pub safe: *const SafeTable,
    /// Services. LIFETIME: as this table.
    pub services: *const ServiceTable,
    /// The transactions of a request. LIFETIME: as this table.
    pub tx: *const TxTable,
    /// Steady connections, and pools with all their settings. LIFETIME: as this table.
    pub pool: *const PoolTable,
    /// Streams of rows. LIFETIME: as this table.
    pub stream: *const StreamTable,
    /// Subscriptions. LIFETIME: as this table.
    pub listen: *const ListenTable,
    /// How often a value has left its key in the registry, for whatever reason. Who remembers a handle with the
    /// number from before it was found may use it, without asking, as long as the number is the same.
    ///
    /// Written by the host, atomically. LIFETIME: as this table.
    pub registry_epoch: *const AtomicU64,
    /// The number of this loaded library, from 1, which no other library of this process has or will have. (The
    /// number of a generation is its plugin's alone, and addresses are used again.)
    pub instance: u32,
}

/// What a library offers the host. Static data of the library.
#[repr(C)]
#[derive(Debug)]
pub struct PluginTable {
    /// Size of this struct as the plugin knows it, in bytes.
    pub size: usize,
    /// [`ABI_VERSION`] the plugin was written for.
    pub abi_version: u32,
    /// The descriptor, so that no linker drops its section as unused.
    pub descriptor: BytesView,
    /// Where the plugin wants to answer, such as `/shop`; empty: under its name.
    pub mount: StrView,
    /// The routes.
    pub routes: *const RouteView,
    /// How many.
    pub route_count: usize,
    /// Distance between two routes in bytes: `size_of::<RouteView>()` as the plugin knows it.
    pub route_size: usize,
    /// Runs once, before the generation is published. Null: nothing to do.
    ///
    /// THREAD: one of the host's, made for it. BLOCKS: as it likes, up to the load deadline. UNWINDS: never.
    /// RETURNS: `OK`, or an error that refuses the generation.
    pub on_load: Option<unsafe extern "C" fn(error: *const ErrorSink) -> Status>,
    /// Runs once, after the last request has left a retired generation. Null: nothing to do.
    ///
    /// `reason` is one of the `UNLOAD_*` constants. THREAD: one of the host's. UNWINDS: never.
    pub on_unload: Option<unsafe extern "C" fn(reason: u32) -> Status>,
    /// Runs once, between `on_load` and `check`, where another generation of the plugin serves. Null: nothing to do.
    ///
    /// THREAD: that of `on_load`. BLOCKS: within its deadline. UNWINDS: never. RETURNS: as `on_load`.
    pub upgrade: Option<unsafe extern "C" fn(from: *const PreviousView, error: *const ErrorSink) -> Status>,
    /// Runs once, the last thing before the generation is published. Null: nothing to do.
    ///
    /// THREAD: that of `on_load`. BLOCKS: within its deadline. UNWINDS: never. RETURNS: as `on_load`.
    pub check: Option<unsafe extern "C" fn(error: *const ErrorSink) -> Status>,
    /// What the library counts of its memory; null: nothing. LIFETIME: the library's mapping.
    pub memory: *const MemoryStripe,
    /// How many stripes.
    pub memory_stripes: usize,
}

/// The generation that a new one takes over from. OWNERSHIP: the host's. LIFETIME: the call.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct PreviousView {
    /// Size of this struct as the host knows it, in bytes.
    pub size: usize,
    /// Its number.
    pub generation: u64,
    /// The plugin's version as that generation states it, or empty.
    pub version: StrView,
}

/// A part of the count of heap bytes: allocated less freed, modulo 2^64. Only the sum over all stripes means
/// anything, and it may be negative: a generation frees what an earlier one has allocated.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct MemoryStripe {
    /// Written by the library, read by the host. Atomic on both sides.
    pub bytes: AtomicU64,
}

/// A newer generation took over.
pub const UNLOAD_RELOADED: u32 = 1;
/// The plugin's source or library was deleted.
pub const UNLOAD_REMOVED: u32 = 2;
/// The host is shutting down.
pub const UNLOAD_SHUTDOWN: u32 = 3;

/// The one function a library exports under [`ENTRY_SYMBOL`].
///
/// THREAD: the one that loads. BLOCKS: no. UNWINDS: never. RETURNS: the plugin's table, or null when
/// it cannot work with this host. Called once a generation, before anything else; also by the
/// probe, in a process of its own: it must have no effect but to remember `host`.
pub type EntryFn = unsafe extern "C" fn(host: *const HostTable) -> *const PluginTable;

/// A route and its handler.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct RouteView {
    /// Size of this struct as the plugin knows it, in bytes.
    pub size: usize,
    /// Request method, upper case.
    pub method: StrView,
    /// Path pattern below the mount, such as `/{id}` or `/files/{*path}`.
    pub path: StrView,
    /// [`ROUTE_BLOCKING`] or [`ROUTE_INLINE`].
    pub kind: u32,
    /// Answers a request.
    pub handler: HandlerFn,
    /// 0, or [`ROUTE_IDEMPOTENT`].
    pub flags: u32,
}

/// The handler may block: it runs on a worker thread.
pub const ROUTE_BLOCKING: u32 = 0;
/// The handler never blocks: it runs on the I/O thread, and everything on that thread waits for it.
pub const ROUTE_INLINE: u32 = 1;

/// The handler may be run again when its transaction collided with another one and was rolled back.
pub const ROUTE_IDEMPOTENT: u32 = 1;

/// Answers a request by calling `respond` or `fail` of the reply, once.
///
/// THREAD: a worker or an I/O thread of the host, by the route's kind. UNWINDS: never. RETURNS: `OK` or
/// `HTTP_ERROR` after `respond`; `FAILED` or `PANICKED` after `fail`.
pub type HandlerFn = unsafe extern "C" fn(request: *const RequestView, reply: *const ReplyView) -> Status;

/// A request. OWNERSHIP: the host's. LIFETIME: the handler's call.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct RequestView {
    /// Size of this struct as the host knows it, in bytes.
    pub size: usize,
    /// The request's id, as in the log and in `x-request-id`.
    pub id: StrView,
    /// Method, upper case.
    pub method: StrView,
    /// The whole path as received, percent-encoded.
    pub path: StrView,
    /// The part of `path` under which the plugin is mounted; empty for the root.
    pub mount: StrView,
    /// The query without its question mark, percent-encoded.
    pub query: StrView,
    /// Path parameters, percent-decoded.
    pub params: *const PairView,
    /// How many path parameters.
    pub param_count: usize,
    /// Headers in the order received, names in lower case.
    pub headers: *const PairView,
    /// How many headers.
    pub header_count: usize,
    /// The whole body.
    pub body: BytesView,
    /// Address of the client, `ip:port`.
    pub remote: StrView,
    /// Nanoseconds until the client is answered without us; 0: no deadline.
    pub deadline_ns: u64,
    /// 1 once nobody waits for the answer any more, because the client has gone or the deadline has passed; 0
    /// before. Null: the host does not say, as for inline handlers.
    ///
    /// Written by the host at any time, atomically. LIFETIME: the call.
    pub cancelled: *const AtomicU8,
}

/// Where a handler puts its answer. OWNERSHIP: the host's. LIFETIME: the handler's call.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ReplyView {
    /// Size of this struct as the host knows it, in bytes.
    pub size: usize,
    /// First argument of the functions below.
    pub data: *mut c_void,
    /// Copies the response. RETURNS: `INVALID` with nothing copied for a status or header that HTTP forbids.
    pub respond: unsafe extern "C" fn(data: *mut c_void, response: *const ResponseView) -> Status,
    /// Copies the reason why there is no response.
    pub fail: unsafe extern "C" fn(data: *mut c_void, error: *const ErrorView),
}

/// A response. OWNERSHIP: the plugin's. LIFETIME: the call of `respond`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ResponseView {
    /// Size of this struct as the plugin knows it, in bytes.
    pub size: usize,
    /// Status code, 200 to 599.
    pub status: u16,
    /// Headers.
    pub headers: *const PairView,
    /// How many headers.
    pub header_count: usize,
    /// The body.
    pub body: BytesView,
}

/// A log event.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct LogView {
    /// Size of this struct as the plugin knows it, in bytes.
    pub size: usize,
    /// 1 error, 2 warn, 3 info, 4 debug, 5 trace.
    pub level: u32,
    /// Module path or another origin.
    pub target: StrView,
    /// The message.
    pub message: StrView,
    /// Structured fields.
    pub fields: *const PairView,
    /// How many fields.
    pub field_count: usize,
    /// Source file, or empty.
    pub file: StrView,
    /// Line in `file`, or 0.
    pub line: u32,
}

/// A panic.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct PanicView {
    /// Size of this struct as the plugin knows it, in bytes.
    pub size: usize,
    /// The panic's message.
    pub message: StrView,
    /// Source file, or empty.
    pub file: StrView,
    /// Line in `file`, or 0.
    pub line: u32,
    /// Column, or 0.
    pub column: u32,
    /// Name of the thread, or empty.
    pub thread: StrView,
}

/// Names a slot of the registry.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct KeyView {
    /// Size of this struct as the plugin knows it, in bytes.
    pub size: usize,
    /// Namespace; empty: the common one.
    pub module: StrView,
    /// The key. The host copies it.
    pub key: StrView,
}

/// Says what type of value a caller expects under a key.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct TypeView {
    /// Size of this struct as the plugin knows it, in bytes.
    pub size: usize,
    /// How the value survives: one of the `KIND_*` constants.
    pub kind: u32,
    /// The type's name for humans, such as `db::Pool`.
    pub name: StrView,
}

/// A value that lives in the host, such as a pool.
pub const KIND_HOST_HANDLE: u32 = 1;
/// A value shared in place, by layout.
pub const KIND_DATA: u32 = 2;
/// A value that keeps running the code which made it.
pub const KIND_SERVICE: u32 = 3;

/// Makes the value of an empty slot.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct InitView {
    /// Size of this struct as the plugin knows it, in bytes.
    pub size: usize,
    /// Passed back to `call`.
    pub data: *mut c_void,
    /// Makes the value. OWNERSHIP: the handle written to `*out` becomes the host's.
    ///
    /// THREAD: the caller's, within the call of `get_or_init`. UNWINDS: never. RETURNS: `OK` and `*out`, or
    /// `FAILED` or `PANICKED` and an error.
    pub call: unsafe extern "C" fn(data: *mut c_void, out: *mut HandleId, error: *const ErrorSink) -> Status,
    /// Nanoseconds a caller waits for the init, its own or another's; 0: the host's default.
    pub timeout_ns: u64,
    /// The `INIT_*` flags, added up.
    pub flags: u32,
    /// With `INIT_CONFIGURED`: what the value is made from, as JSON in one form for equal configurations. Shown
    /// to operators, less what looks like a secret.
    pub config: StrView,
}

/// A generation does not use a value that an earlier generation of its plugin has made, but makes a new one.
pub const INIT_RESTARTS: u32 = 1;
/// A value that was made from another configuration, or from none, is not used; a new one is made.
pub const INIT_CONFIGURED: u32 = 2;

/// The registry's functions.
#[repr(C)]
#[derive(Debug)]
pub struct RegistryTable {
    /// Size of this struct as the host knows it, in bytes.
    pub size: usize,
    /// Finds the value of a key, making it if the slot is empty.
    ///
    /// THREAD: any. BLOCKS: while the value is made, by this caller or another. UNWINDS: never.
    /// RETURNS: `OK` and `*out`, or an error and `*out` untouched.
    pub get_or_init: unsafe extern "C" fn(
        ctx: HostCtx,
        key: *const KeyView,
        expected: *const TypeView,
        init: *const InitView,
        out: *mut HandleId,
        error: *const ErrorSink,
    ) -> Status,
    /// Finds the value of a key. RETURNS: `NOT_FOUND` when the slot is empty or being filled.
    ///
    /// THREAD: any. BLOCKS: no. UNWINDS: never.
    pub get: unsafe extern "C" fn(
        ctx: HostCtx,
        key: *const KeyView,
        expected: *const TypeView,
        out: *mut HandleId,
        error: *const ErrorSink,
    ) -> Status,
    /// Empties a slot. Holders of the value keep it; the next `get_or_init` makes a new one.
    ///
    /// THREAD: any. BLOCKS: while the value closes, if nobody else holds it. UNWINDS: never.
    /// RETURNS: `NOT_FOUND` when there was no value.
    pub remove: unsafe extern "C" fn(ctx: HostCtx, key: *const KeyView, error: *const ErrorSink) -> Status,
}

/// How to open a pool.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct PoolConfigView {
    /// Size of this struct as the plugin knows it, in bytes.
    pub size: usize,
    /// `postgres://...` or `sqlite:PATH`.
    pub url: StrView,
    /// Most connections at a time; 0: the host's default.
    pub max_size: u32,
    /// Nanoseconds a checkout waits; 0: fail at once; [`DEFAULT_NS`]: the host's default.
    pub checkout_timeout_ns: u64,
}

/// Means "the default" where nanoseconds are expected and zero has a meaning of its own.
pub const DEFAULT_NS: u64 = u64::MAX;

/// A statement with its parameters.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct StatementView {
    /// Size of this struct as the plugin knows it, in bytes.
    pub size: usize,
    /// One statement, with `$1`, `$2`, ... for its parameters, whatever the database.
    pub sql: StrView,
    /// The parameters.
    pub params: *const ValueView,
    /// How many parameters.
    pub param_count: usize,
    /// The `STATEMENT_*` flags, added up.
    pub flags: u64,
}

/// Running the statement twice does what running it once does: it may be sent again on a new connection.
pub const STATEMENT_IDEMPOTENT: u64 = 1;
/// Nothing is replaced or sent again for this statement.
pub const STATEMENT_NO_FAILOVER: u64 = 2;

/// A value on its way to or from a database.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ValueView {
    /// One of the `VALUE_*` constants.
    pub tag: u32,
    /// `VALUE_BOOL`: 0 or 1. `VALUE_INT`: the two's complement. `VALUE_FLOAT`: the IEEE 754 bits. Else 0.
    pub bits: u64,
    /// `VALUE_TEXT`: UTF-8. `VALUE_BYTES`, `VALUE_ARRAY`: bytes. Else empty.
    pub bytes: BytesView,
}

/// SQL NULL.
pub const VALUE_NULL: u32 = 0;
/// A truth value.
pub const VALUE_BOOL: u32 = 1;
/// A 64-bit signed integer.
pub const VALUE_INT: u32 = 2;
/// A 64-bit float.
pub const VALUE_FLOAT: u32 = 3;
/// Text, and every database type that has no tag of its own, in its text form.
pub const VALUE_TEXT: u32 = 4;
/// Bytes.
pub const VALUE_BYTES: u32 = 5;
/// An array, in the format of `plugin-api/src/db/array.rs`. Who knows no arrays takes it for a malformed cell.
pub const VALUE_ARRAY: u32 = 6;

/// The functions of database handles. All of them block; none unwinds; a connection is used by one thread at a time.
#[repr(C)]
#[derive(Debug)]
pub struct DbTable {
    /// Size of this struct as the host knows it, in bytes.
    pub size: usize,
    /// Opens a pool and its first connection, so that a wrong address shows at once.
    ///
    /// RETURNS: `OK` and `*out`; `INVALID` for a bad configuration; `UNREACHABLE`.
    pub pool_open: unsafe extern "C" fn(
        ctx: HostCtx,
        config: *const PoolConfigView,
        out: *mut HandleId,
        error: *const ErrorSink,
    ) -> Status,
    /// Lends a connection out. It returns to the pool with `handle_drop`.
    ///
    /// `timeout_ns` as in [`PoolConfigView::checkout_timeout_ns`]. RETURNS: `OK` and `*out`; `EXHAUSTED`;
    /// `UNREACHABLE`; `CLOSED`.
    pub checkout: unsafe extern "C" fn(
        ctx: HostCtx,
        pool: HandleId,
        timeout_ns: u64,
        out: *mut HandleId,
        error: *const ErrorSink,
    ) -> Status,
    /// Runs a statement and writes its rows to `rows` as one block (format: `plugin-api/src/db/rows.rs`).
    pub query: unsafe extern "C" fn(
        ctx: HostCtx,
        conn: HandleId,
        statement: *const StatementView,
        rows: *const BytesSink,
        error: *const ErrorSink,
    ) -> Status,
    /// Runs a statement and writes the number of rows it changed to `*affected`.
    pub execute: unsafe extern "C" fn(
        ctx: HostCtx,
        conn: HandleId,
        statement: *const StatementView,
        affected: *mut u64,
        error: *const ErrorSink,
    ) -> Status,
    /// Runs several statements, separated by semicolons, without parameters.
    pub batch_execute:
        unsafe extern "C" fn(ctx: HostCtx, conn: HandleId, sql: StrView, error: *const ErrorSink) -> Status,
    /// Begins a transaction, or a savepoint inside one.
    pub begin: unsafe extern "C" fn(ctx: HostCtx, conn: HandleId, error: *const ErrorSink) -> Status,
    /// Commits the innermost transaction or savepoint. A commit that became a rollback is an error.
    pub commit: unsafe extern "C" fn(ctx: HostCtx, conn: HandleId, error: *const ErrorSink) -> Status,
    /// Rolls the innermost transaction or savepoint back.
    pub rollback: unsafe extern "C" fn(ctx: HostCtx, conn: HandleId, error: *const ErrorSink) -> Status,
    /// What the database said beside its words of the last `DATABASE` failure that the calling thread was told: a
    /// block of one row (format: `plugin-api/src/db/rows.rs`) whose columns are named `schema`, `table`, `column`,
    /// `constraint`, `detail`, `hint` and `position`, those that are known.
    ///
    /// THREAD: the one that was told. BLOCKS: no. UNWINDS: never. RETURNS: `OK`; `NOT_FOUND`: it said no more.
    pub error_details:
        unsafe extern "C" fn(ctx: HostCtx, out: *const BytesSink, error: *const ErrorSink) -> Status,
    /// As `begin`, with a say in how. Inside a transaction, `INVALID` unless nothing is said.
    ///
    /// THREAD: any. BLOCKS: yes. UNWINDS: never. RETURNS: as `begin`; `INVALID` for unknown numbers.
    pub begin_with: unsafe extern "C" fn(
        ctx: HostCtx,
        conn: HandleId,
        options: *const TxOptionsView,
        error: *const ErrorSink,
    ) -> Status,
}

/// Where a value that is shared in place lives. OWNERSHIP: the host's.
///
/// Who adds 1 to `users` and finds neither flag in what was there before may use the value until it
/// subtracts 1 again. Who finds a flag subtracts at once. A subtraction that finds exactly
/// `DATA_GONE` + 1 was the last one, and calls `release`.
#[repr(C)]
#[derive(Debug)]
pub struct DataCell {
    /// Size of this struct as the host knows it, in bytes.
    pub size: usize,
    /// Users in the low bits, `DATA_FROZEN`, `DATA_GONE` and `DATA_CLAIMED` above them. Atomic on both sides.
    pub users: AtomicU64,
    /// The value. Changes never: an upgraded value gets another cell.
    pub value: *mut c_void,
}

/// The value is being upgraded: nobody may begin to use it, until the flag goes or `DATA_GONE` comes.
pub const DATA_FROZEN: u64 = 4611686018427387904;
/// The key has no value or another one: who used this value before goes on, nobody begins.
pub const DATA_GONE: u64 = 9223372036854775808;
/// With `DATA_FROZEN`: the last user has left and the upgrade has begun. Before that, a user may begin a
/// further use of a frozen value by a compare-and-swap that finds users and not this flag.
pub const DATA_CLAIMED: u64 = 2305843009213693952;

/// For `find`: the cell (not the value) stays readable as long as the caller's library is mapped.
pub const FIND_KEEP: u32 = 1;
/// For `find`: the calling thread believes that it uses the value already, and will not wait for itself.
pub const FIND_JOIN: u32 = 2;

/// What only the code that was compiled with a type can do to a value of it.
///
/// OWNERSHIP: the plugin's; the host copies it. LIFETIME of the functions: the library's mapping.
/// None of them unwinds.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct GlueView {
    /// Size of this struct as the plugin knows it, in bytes.
    pub size: usize,
    /// Drops the value in place.
    pub drop_value: unsafe extern "C" fn(value: *mut c_void),
    /// Which variant an enum is at, counted from 0 in the order of its definition.
    pub variant: unsafe extern "C" fn(value: *const c_void) -> u32,
    /// Visits the parts of a container, or the fields of an enum's variant, in order.
    pub children: unsafe extern "C" fn(
        value: *mut c_void,
        data: *mut c_void,
        visit: unsafe extern "C" fn(data: *mut c_void, child: *mut c_void),
    ),
    /// Frees what a container holds beside its parts, all of which have been moved out.
    pub dissolve: unsafe extern "C" fn(value: *mut c_void),
}

/// Says what type of data a caller expects under a key, completely.
///
/// OWNERSHIP: the plugin's; the host copies what it keeps. LIFETIME: the call.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct DataTypeView {
    /// Size of this struct as the plugin knows it, in bytes.
    pub size: usize,
    /// The type's name for humans.
    pub name: StrView,
    /// The layout (format: `plugin-api/src/resident/layout.rs`). Equal texts mean: the same in memory.
    pub layout: StrView,
    /// One per type in `layout`, in its order.
    pub glue: *const GlueView,
    /// How many.
    pub glue_count: usize,
    /// What becomes of a value that cannot be upgraded: `ON_CHANGE_KEEP` or `ON_CHANGE_RESTART`.
    pub on_change: u32,
    /// Builds a value of this type from one of an older layout, which it leaves as it is.
    ///
    /// THREAD: the caller's. UNWINDS: never. RETURNS: `OK` and `*out`, or an error with nothing changed.
    pub upgrade: unsafe extern "C" fn(
        old: *const OldDataView,
        out: *mut UpgradeView,
        error: *const ErrorSink,
    ) -> Status,
    /// Builds a copy of a value of this very type beside it, that shares nothing with it which can change; `finish` of what
    /// it writes is null. Fails where no such copy can be made.
    ///
    /// Null functions are not allowed; plugins from before this have a shorter struct. THREAD: any. BLOCKS: as long as code
    /// of the author does that compares keys. UNWINDS: never. RETURNS: `OK` and fills `out` in, or an error status.
    pub copy: unsafe extern "C" fn(
        old: *const OldDataView,
        out: *mut UpgradeView,
        error: *const ErrorSink,
    ) -> Status,
}

/// Keep the value and refuse the new code.
pub const ON_CHANGE_KEEP: u32 = 0;
/// Drop the value and make a new one.
pub const ON_CHANGE_RESTART: u32 = 1;

/// A value of an older layout, which nobody uses. OWNERSHIP: the host's. LIFETIME: the call.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct OldDataView {
    /// Size of this struct as the host knows it, in bytes.
    pub size: usize,
    /// Its layout.
    pub layout: StrView,
    /// One per type in `layout`.
    pub glue: *const GlueView,
    /// How many.
    pub glue_count: usize,
    /// The value.
    pub value: *mut c_void,
    /// What the upgrade is at: one of the numbers below, changed atomically by both sides. The plugin goes from
    /// `UPGRADE_READS` to one of the next two before it runs code of an author, and back after it; the host goes from these
    /// to one of the last two when it gives the upgrade up. Where the plugin finds it given up it fails, and does not look at
    /// the value again. Null: the host never gives up. LIFETIME: the call.
    pub progress: *const AtomicU32,
}

/// The upgrade looks at the older value: nobody else may use it.
pub const UPGRADE_READS: u32 = 0;
/// It runs code of an author that is shown nothing of the older value.
pub const UPGRADE_IN_CODE: u32 = 1;
/// It runs code of an author that has references to parts of the older value which cannot be changed through them.
pub const UPGRADE_IN_HOOK: u32 = 2;
/// The host gave it up in `UPGRADE_IN_CODE`: the older value may be in use, and be gone.
pub const UPGRADE_GIVEN_UP: u32 = 3;
/// The host gave it up in `UPGRADE_IN_HOOK`: the older value may be in use, and stays until the call returns.
pub const UPGRADE_GIVEN_UP_IN_HOOK: u32 = 4;

/// An upgraded value that is not valid yet. OWNERSHIP: the host's, which calls `finish` once.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct UpgradeView {
    /// Size of this struct in bytes: as the host knows it when it is asked to be filled in, which is what there is room for.
    pub size: usize,
    /// The new value.
    pub value: *mut c_void,
    /// Passed back to `finish`.
    pub data: *mut c_void,
    /// With `commit` 1: frees of the old value what was not moved; the new value is valid, and may be in use while this
    /// runs. With 0: frees the new value; the old one is as it was.
    ///
    /// THREAD: any. UNWINDS: never. LIFETIME: the library's mapping.
    pub finish: Option<unsafe extern "C" fn(data: *mut c_void, commit: u32)>,
    /// What of the old value has no place in the new one and is dropped, one a line: `OWNER.FIELD: TYPE`, and
    /// ` (in N values)` if there are several. LIFETIME: until `finish`.
    pub lost: StrView,
    /// 1: a hook of the author has built the value or a part of it, so there may be no way back.
    pub hooked: u32,
}

/// The functions of values that are shared in place.
#[repr(C)]
#[derive(Debug)]
pub struct DataTable {
    /// Size of this struct as the host knows it, in bytes.
    pub size: usize,
    /// Hands a value to the host, for an init to return. OWNERSHIP: after `OK` the value is the host's.
    ///
    /// `value` was allocated by the C library. THREAD: any. BLOCKS: no. UNWINDS: never.
    pub create: unsafe extern "C" fn(
        ctx: HostCtx,
        of: *const DataTypeView,
        value: *mut c_void,
        out: *mut HandleId,
        error: *const ErrorSink,
    ) -> Status,
    /// Finds the value of a key, upgrades it if its layout is older, makes it if the slot is empty and
    /// `init` is not null. The caller has become a user of the cell.
    ///
    /// `flags` are of the `FIND_*` constants.
    /// THREAD: any. BLOCKS: while the value is made or upgraded. UNWINDS: never.
    /// RETURNS: `OK` and `*out`, or an error and `*out` untouched.
    pub find: unsafe extern "C" fn(
        ctx: HostCtx,
        key: *const KeyView,
        expected: *const DataTypeView,
        init: *const InitView,
        flags: u32,
        out: *mut *const DataCell,
        error: *const ErrorSink,
    ) -> Status,
    /// Readies a key before its generation is published: makes a missing value, stages the upgrade of
    /// one of an older layout. To be called at the end of `on_load`: nobody can begin to use the older
    /// value from then until the generation is published or refused.
    ///
    /// THREAD: any. BLOCKS: while others use the older value, bounded. UNWINDS: never.
    pub prepare: unsafe extern "C" fn(
        ctx: HostCtx,
        key: *const KeyView,
        expected: *const DataTypeView,
        init: *const InitView,
        error: *const ErrorSink,
    ) -> Status,
    /// Says that the last user of a gone value has left.
    ///
    /// THREAD: any. BLOCKS: while the value is dropped. UNWINDS: never.
    pub release: unsafe extern "C" fn(ctx: HostCtx, cell: *const DataCell),
}

/// A range of keys, in the order of their bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct SafeRangeView {
    /// Size of this struct as the plugin knows it, in bytes.
    pub size: usize,
    /// The first key, or what all keys are greater than; empty: from the first on.
    pub start: BytesView,
    /// What all keys are less than; empty: to the last.
    pub end: BytesView,
    /// The `SAFE_*` flags, added up.
    pub flags: u32,
    /// Most entries; 0: the host's default.
    pub limit: u64,
}

/// The last key comes first.
pub const SAFE_REVERSE: u32 = 1;
/// `start` itself is not in the range.
pub const SAFE_AFTER_START: u32 = 2;
/// Values are left out.
pub const SAFE_NO_VALUES: u32 = 4;

/// Holds if the entry of a key has a version.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct SafeCheckView {
    /// The key.
    pub key: BytesView,
    /// The version; 0: there is no entry.
    pub version: u64,
}

/// A change of one key.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct SafeChangeView {
    /// One of the `CHANGE_*` constants.
    pub kind: u32,
    /// Of the value: one of the `ENCODING_*` constants.
    pub encoding: u32,
    /// The key, 1 to 1024 bytes.
    pub key: BytesView,
    /// `CHANGE_PUT`: the value. Else empty.
    pub value: BytesView,
    /// `CHANGE_ADD`: how much. Else 0.
    pub delta: i64,
    /// `CHANGE_ADD`: what is added to where there is no entry. Else 0.
    pub initial: i64,
    /// Milliseconds until an entry that this makes ceases to be; [`SAFE_FOR_EVER`]: never.
    pub expires_in_ms: u64,
}

/// Puts a value, whatever was there. Its result is 0.
pub const CHANGE_PUT: u32 = 1;
/// Removes the entry. Its result is 1 if there was one, else 0.
pub const CHANGE_DELETE: u32 = 2;
/// Adds to an integer in MessagePack, and keeps its expiry. Its result is the sum.
pub const CHANGE_ADD: u32 = 3;

/// Bytes of the plugin's own.
pub const ENCODING_BYTES: u32 = 0;
/// One value in MessagePack, structs as maps with the names of their fields.
pub const ENCODING_MESSAGEPACK: u32 = 1;

/// The entry does not expire.
pub const SAFE_FOR_EVER: u64 = u64::MAX;

/// Changes that are made together, if all checks hold. A key is changed at most once.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct SafeWriteView {
    /// Size of this struct as the plugin knows it, in bytes.
    pub size: usize,
    /// What must hold.
    pub checks: *const SafeCheckView,
    /// How many checks.
    pub check_count: usize,
    /// What is changed then.
    pub changes: *const SafeChangeView,
    /// How many changes.
    pub change_count: usize,
    /// Nanoseconds until a write whose turn has not come is taken back; 0: the host's default.
    pub timeout_ns: u64,
}

/// The response of the request that this thread works for waits until the write is on disk, and is a failure
/// if it is not; outside of a request the call itself waits.
pub const SAFE_GATED: u32 = 1;
/// Nobody waits for the write; a crash may lose it, and `settle` tells whether it was made.
pub const SAFE_RELAXED: u32 = 2;

/// The functions of the safe: the calling plugin's own durable store. All but `submit` block; none unwinds.
///
/// `safe` is [`HandleId::NONE`] for the plugin's own, which no argument can make another's, or a handle of
/// `open_shared`. Keys are bytes.
/// Entries are written to a sink in the format of `plugin-api/src/safe/block.rs`.
#[repr(C)]
#[derive(Debug)]
pub struct SafeTable {
    /// Size of this struct as the host knows it, in bytes.
    pub size: usize,
    /// Writes the entries of keys, all as one commit left them, in the order of `keys`.
    ///
    /// `flags`: 0 or [`SAFE_NO_VALUES`]. RETURNS: `OK`, also for keys without an entry; `CORRUPT`;
    /// `UNREACHABLE` while the disk fails.
    pub get: unsafe extern "C" fn(
        ctx: HostCtx,
        safe: HandleId,
        keys: *const BytesView,
        key_count: usize,
        flags: u32,
        entries: *const BytesSink,
        error: *const ErrorSink,
    ) -> Status,
    /// Writes the entries of a range and whether there are more of them. RETURNS: as `get`.
    pub list: unsafe extern "C" fn(
        ctx: HostCtx,
        safe: HandleId,
        range: *const SafeRangeView,
        entries: *const BytesSink,
        error: *const ErrorSink,
    ) -> Status,
    /// Counts the entries. RETURNS: `OK` and `*count`; else as `get`.
    pub len: unsafe extern "C" fn(
        ctx: HostCtx,
        safe: HandleId,
        count: *mut u64,
        error: *const ErrorSink,
    ) -> Status,
    /// Makes a write, and returns when it is on disk.
    ///
    /// `results` has room for one number per change. RETURNS: `OK`, `*version` and `results`; `CONFLICT` and
    /// in `*version` which check it was, from 0; `INDETERMINATE`; or, with nothing changed, `INVALID`,
    /// `WRONG_TYPE` (no integer to add to), `OUT_OF_RANGE` (the sum), `CORRUPT`, `EXHAUSTED` (the queue),
    /// `TIMED_OUT`, `UNREACHABLE` (the disk).
    pub commit: unsafe extern "C" fn(
        ctx: HostCtx,
        safe: HandleId,
        write: *const SafeWriteView,
        version: *mut u64,
        results: *mut i64,
        error: *const ErrorSink,
    ) -> Status,
    /// Queues a write and returns. `mode` is [`SAFE_GATED`] or [`SAFE_RELAXED`].
    ///
    /// BLOCKS: no, but at the first use of the safe, and for `SAFE_GATED` outside of a request. RETURNS: `OK` once
    /// it is queued; `INVALID`, `EXHAUSTED`, `CLOSED`, with nothing queued.
    pub submit: unsafe extern "C" fn(
        ctx: HostCtx,
        safe: HandleId,
        write: *const SafeWriteView,
        mode: u32,
        error: *const ErrorSink,
    ) -> Status,
    /// Returns when every write that was queued before is decided. RETURNS: `OK` if all relaxed writes of this
    /// generation since the last `settle` are on disk; else the first failure, as `commit`.
    pub settle: unsafe extern "C" fn(
        ctx: HostCtx,
        safe: HandleId,
        timeout_ns: u64,
        error: *const ErrorSink,
    ) -> Status,
    /// Watches a range of keys; of `range` the bounds count, and no flag but [`SAFE_AFTER_START`].
    ///
    /// RETURNS: `OK` and `*out`, to be released with `handle_drop`.
    pub watch: unsafe extern "C" fn(
        ctx: HostCtx,
        safe: HandleId,
        range: *const SafeRangeView,
        out: *mut HandleId,
        error: *const ErrorSink,
    ) -> Status,
    /// Waits until something in the watched range has changed since the last call, or since `watch`.
    ///
    /// `timeout_ns` 0 only asks. BLOCKS: up to `timeout_ns`, and never beyond the request's deadline.
    /// RETURNS: `OK`; `TIMED_OUT`; `CLOSED` once another generation is current, then and for ever.
    pub watch_next: unsafe extern "C" fn(
        ctx: HostCtx,
        watch: HandleId,
        timeout_ns: u64,
        error: *const ErrorSink,
    ) -> Status,
    /// Opens a safe that plugins share. RETURNS: `OK` and `*out`, the same for the same name in one generation;
    /// `DENIED` unless the host's configuration grants it to this plugin.
    pub open_shared: unsafe extern "C" fn(
        ctx: HostCtx,
        name: StrView,
        out: *mut HandleId,
        error: *const ErrorSink,
    ) -> Status,
}

/// What a service can be asked, as far as a caller has to agree with it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ServiceTypeView {
    /// Size of this struct as the plugin knows it, in bytes.
    pub size: usize,
    /// The trait's name.
    pub name: StrView,
    /// Its methods, one a line, in the order of their numbers. Equal texts mean: the same on the wire.
    pub methods: StrView,
    /// What becomes of a service of the same name with other methods: `ON_CHANGE_KEEP` or `ON_CHANGE_RESTART`.
    pub on_change: u32,
}

/// A service, on its way to the host. Its library stays mapped until `drop_value` has returned.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ServiceView {
    /// Size of this struct as the plugin knows it, in bytes.
    pub size: usize,
    /// First argument of the functions below.
    pub value: *mut c_void,
    /// Runs the method of that number and writes its answer at most once.
    ///
    /// THREAD: any, several at a time. UNWINDS: never. RETURNS: `OK`; `PANICKED`; `INVALID` for arguments that
    /// are not the method's; any other status for an error that the method returned.
    pub call: unsafe extern "C" fn(
        value: *mut c_void,
        method: u32,
        arguments: BytesView,
        answer: *const BytesSink,
        error: *const ErrorSink,
    ) -> Status,
    /// Drops the service. Called once, when nobody holds it and no call runs. THREAD: any. UNWINDS: never.
    pub drop_value: unsafe extern "C" fn(value: *mut c_void),
}

/// The functions of services: values that keep running the code which made them. None of them unwinds.
///
/// Arguments and answers are bytes in the format of `plugin-api/src/service/wire.rs`.
#[repr(C)]
#[derive(Debug)]
pub struct ServiceTable {
    /// Size of this struct as the host knows it, in bytes.
    pub size: usize,
    /// Hands a service to the host, for an init to return or for `replace`. OWNERSHIP: after `OK` the value is the
    /// host's.
    ///
    /// THREAD: any. BLOCKS: no.
    pub create: unsafe extern "C" fn(
        ctx: HostCtx,
        of: *const ServiceTypeView,
        service: *const ServiceView,
        out: *mut HandleId,
        error: *const ErrorSink,
    ) -> Status,
    /// Finds the service of a key, makes it if the slot is empty and `init` is not null.
    ///
    /// THREAD: any. BLOCKS: while it is made. RETURNS: `OK` and `*out`; `INTERFACE`; else as `get_or_init`.
    pub find: unsafe extern "C" fn(
        ctx: HostCtx,
        key: *const KeyView,
        expected: *const ServiceTypeView,
        init: *const InitView,
        out: *mut HandleId,
        error: *const ErrorSink,
    ) -> Status,
    /// Puts a service in the place of the one under a key, or where there is none. Who holds the old one keeps it.
    /// OWNERSHIP: after `OK` the handle is the host's.
    ///
    /// While the generation is loading it happens when it is published. THREAD: any. BLOCKS: while the old one is
    /// dropped, if nobody else holds it. RETURNS: `OK`; `WRONG_TYPE` where there is anything but a service of that
    /// name.
    pub replace: unsafe extern "C" fn(
        ctx: HostCtx,
        key: *const KeyView,
        service: HandleId,
        error: *const ErrorSink,
    ) -> Status,
    /// Calls a method, in the code that made the service.
    ///
    /// THREAD: any. BLOCKS: as the method does. RETURNS: what the method does; `CLOSED` when the host is shutting down.
    pub call: unsafe extern "C" fn(
        ctx: HostCtx,
        service: HandleId,
        method: u32,
        arguments: BytesView,
        answer: *const BytesSink,
        error: *const ErrorSink,
    ) -> Status,
}

/// Keep what a request did if its handler answers, be it with an error of HTTP's.
pub const TX_KEEP_ANSWERS: u32 = 0;
/// Keep what a request did if its handler answers with a status below 400.
pub const TX_KEEP_SUCCESSES: u32 = 1;

/// Isolation as the database has it by default.
pub const TX_ISOLATION_DEFAULT: u32 = 0;
/// Each statement sees what was committed before it.
pub const TX_READ_COMMITTED: u32 = 1;
/// All statements see what was committed before the first one.
pub const TX_REPEATABLE_READ: u32 = 2;
/// As if transactions ran one after the other.
pub const TX_SERIALIZABLE: u32 = 3;

/// What the transaction may do, as the database has it by default.
pub const TX_ACCESS_DEFAULT: u32 = 0;
/// It reads; a statement that writes is refused.
pub const TX_READ_ONLY: u32 = 1;
/// It takes the right to write when it begins, where the database has but one.
pub const TX_IMMEDIATE: u32 = 2;
/// It takes the right to write with its first statement that writes.
pub const TX_DEFERRED: u32 = 3;

/// A serializable transaction that only reads waits until it cannot fail.
pub const TX_DEFERRABLE: u32 = 1;

/// How a transaction begins. OWNERSHIP: the plugin's. LIFETIME: the call.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct TxOptionsView {
    /// Size of this struct as the plugin knows it, in bytes.
    pub size: usize,
    /// One of the isolations.
    pub isolation: u32,
    /// One of the kinds of access.
    pub access: u32,
    /// The flags, added up: `TX_DEFERRABLE`.
    pub flags: u32,
}

/// The functions of request transactions. None of them unwinds.
///
/// A transaction's handle stands for a connection in the functions of [`DbTable`], where `begin`,
/// `commit` and `rollback` are those of savepoints. The host ends the transaction when the handler has
/// returned and before the client is answered; the plugin only releases the handle.
#[repr(C)]
#[derive(Debug)]
pub struct TxTable {
    /// Size of this struct as the host knows it, in bytes.
    pub size: usize,
    /// The calling request's transaction on a pool, which begins with its first statement.
    ///
    /// `rule` is one of the `TX_KEEP_*` constants; of several for one pool the strictest holds.
    /// THREAD: the handler's. BLOCKS: no. RETURNS: `OK` and `*out`; `NOT_FOUND`: no pool; `INVALID`:
    /// no request.
    pub join: unsafe extern "C" fn(
        ctx: HostCtx,
        pool: HandleId,
        rule: u32,
        out: *mut HandleId,
        error: *const ErrorSink,
    ) -> Status,
    /// Has all transactions of the calling request rolled back at its end, whatever its answer.
    ///
    /// THREAD: the handler's. BLOCKS: no. RETURNS: `OK`; `INVALID`: no request.
    pub doom: unsafe extern "C" fn(ctx: HostCtx, error: *const ErrorSink) -> Status,
    /// As `join`, with a say in how the transaction begins.
    ///
    /// THREAD: the handler's. BLOCKS: no. RETURNS: as `join`; `INVALID` for unknown numbers, and when it has
    /// begun, or will begin, in another way.
    pub join_with: unsafe extern "C" fn(
        ctx: HostCtx,
        pool: HandleId,
        rule: u32,
        options: *const TxOptionsView,
        out: *mut HandleId,
        error: *const ErrorSink,
    ) -> Status,
}

/// Receives the parts of a stream, one call for each.
///
/// OWNERSHIP: the caller's. LIFETIME: the call.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct PartSink {
    /// Passed back to `take`.
    pub data: *mut c_void,
    /// Takes a part, which is valid for its call. Anything but `OK` ends the stream. Must not unwind.
    pub take: unsafe extern "C" fn(data: *mut c_void, part: BytesView) -> Status,
}

/// Gives the parts of a stream, one call for each.
///
/// OWNERSHIP: the caller's. LIFETIME: the call.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct PartSource {
    /// Passed back to `give`.
    pub data: *mut c_void,
    /// Writes the next part, or nothing at the end. Anything but `OK` undoes the stream. Must not unwind.
    pub give: unsafe extern "C" fn(data: *mut c_void, part: *const BytesSink) -> Status,
}

/// The functions of streams over a connection or a transaction. All of them block; none unwinds.
///
/// While a stream runs, its connection takes no other statement.
#[repr(C)]
#[derive(Debug)]
pub struct StreamTable {
    /// Size of this struct as the host knows it, in bytes.
    pub size: usize,
    /// Runs a statement and gives its rows to `blocks`, a block (format: `plugin-api/src/db/rows.rs`) for
    /// each part, at least one.
    ///
    /// RETURNS: `OK`; `STOPPED` when `blocks` did; or an error, maybe after some blocks.
    pub query_each: unsafe extern "C" fn(
        ctx: HostCtx,
        conn: HandleId,
        statement: *const StatementView,
        blocks: *const PartSink,
        error: *const ErrorSink,
    ) -> Status,
    /// Runs a `COPY ... FROM STDIN` and writes the number of rows it stored to `*stored`.
    ///
    /// RETURNS: `OK`; `STOPPED` when `source` did, with nothing stored; or an error.
    pub copy_in: unsafe extern "C" fn(
        ctx: HostCtx,
        conn: HandleId,
        sql: StrView,
        source: *const PartSource,
        stored: *mut u64,
        error: *const ErrorSink,
    ) -> Status,
    /// Runs a `COPY ... TO STDOUT` and gives what it sends to `sink`.
    ///
    /// RETURNS: `OK`; `STOPPED` when `sink` did; or an error.
    pub copy_out: unsafe extern "C" fn(
        ctx: HostCtx,
        conn: HandleId,
        sql: StrView,
        sink: *const PartSink,
        error: *const ErrorSink,
    ) -> Status,
    /// Begins a statement whose rows are asked for, and writes their handle to `*out`. Dropping the handle ends
    /// the statement; until then its connection takes no other one.
    ///
    /// RETURNS: `OK`, or an error. What the database says of the statement is said by `rows_next`.
    pub rows_open: unsafe extern "C" fn(
        ctx: HostCtx,
        conn: HandleId,
        statement: *const StatementView,
        out: *mut HandleId,
        error: *const ErrorSink,
    ) -> Status,
    /// Writes the next block of rows to `block`, and nothing after the last one. One call at a time.
    ///
    /// RETURNS: `OK`; or an error, maybe after some blocks.
    pub rows_next: unsafe extern "C" fn(
        ctx: HostCtx,
        rows: HandleId,
        block: *const BytesSink,
        error: *const ErrorSink,
    ) -> Status,
}

/// To what and where to listen.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ListenView {
    /// Size of this struct as the plugin knows it, in bytes.
    pub size: usize,
    /// `postgres://...`.
    pub url: StrView,
    /// The channels.
    pub channels: *const StrView,
    /// How many.
    pub channel_count: usize,
    /// How many notifications are kept until somebody asks for them; 0: the host's default.
    pub capacity: usize,
}

/// What was heard. OWNERSHIP: the host's. LIFETIME: the call.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct NoticeView {
    /// Size of this struct as the host knows it, in bytes.
    pub size: usize,
    /// One of the `NOTICE_*` constants.
    pub kind: u32,
    /// The server's process that said it.
    pub backend: i32,
    /// The channel.
    pub channel: StrView,
    /// What was said.
    pub payload: StrView,
}

/// Somebody notified a channel.
pub const NOTICE_NOTIFICATION: u32 = 1;
/// Notifications may be missing here: the connection was lost and made again, or the queue was full.
pub const NOTICE_GAP: u32 = 2;

/// Receives a notice. OWNERSHIP: the caller's. LIFETIME: the call.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct NoticeSink {
    /// Passed back to `take`.
    pub data: *mut c_void,
    /// Copies the notice. Called at most once a call, on the calling thread. Must not unwind.
    pub take: unsafe extern "C" fn(data: *mut c_void, notice: *const NoticeView),
}

/// The functions of subscriptions, which the registry can keep. None of them unwinds.
#[repr(C)]
#[derive(Debug)]
pub struct ListenTable {
    /// Size of this struct as the host knows it, in bytes.
    pub size: usize,
    /// Connects, and listens from then on.
    ///
    /// THREAD: any. BLOCKS: while it connects. RETURNS: `OK` and `*out`; `INVALID`; `UNREACHABLE`.
    pub open: unsafe extern "C" fn(
        ctx: HostCtx,
        config: *const ListenView,
        out: *mut HandleId,
        error: *const ErrorSink,
    ) -> Status,
    /// Gives what was heard first to `notice`; nothing, if nothing comes within `timeout_ns`.
    ///
    /// THREAD: any. BLOCKS: up to `timeout_ns`. RETURNS: `OK`; `TIMED_OUT`; `NOT_FOUND`: no subscription.
    pub next: unsafe extern "C" fn(
        ctx: HostCtx,
        listener: HandleId,
        timeout_ns: u64,
        notice: *const NoticeSink,
        error: *const ErrorSink,
    ) -> Status,
}

/// Opens a pool.
pub const OPEN_POOL: u32 = 0;
/// Opens a connection that is nobody else's.
pub const OPEN_STEADY: u32 = 1;
/// Opens a set of connections, one for each thread that asks.
pub const OPEN_PERSISTENT: u32 = 2;

/// The pool opens though the database cannot be reached.
pub const OPEN_LAZY: u32 = 1;
/// The connection that has been idle longest is lent first.
pub const OPEN_FIFO: u32 = 2;
/// A backtrace is taken at each checkout, for the report of a forgotten connection.
pub const OPEN_LEAK_BACKTRACE: u32 = 4;
/// No connection is replaced unseen.
pub const OPEN_NO_FAILOVER: u32 = 8;
/// Closing a connection ends its transaction only.
pub const OPEN_NOT_CLOSEABLE: u32 = 16;
/// All that can be undone is undone between two borrowers.
pub const OPEN_RESET_ALWAYS: u32 = 32;
/// Each borrower gets a new connection.
pub const OPEN_RESET_REOPEN: u32 = 64;

/// Means "the default" where a number is expected and zero has a meaning of its own.
pub const DEFAULT_COUNT: u32 = 4294967295;
/// Means "never" where nanoseconds are expected.
pub const NEVER_NS: u64 = 18446744073709551614;

/// Ask whether a connection works when it is lent out.
pub const PING_CHECKOUT: u32 = 1;
/// Ask before a statement that is not a query.
pub const PING_STATEMENT: u32 = 2;
/// Ask before a query.
pub const PING_QUERY: u32 = 4;

/// How to open a pool, a steady connection or one for each thread. OWNERSHIP: the plugin's. LIFETIME: the call.
///
/// Durations are in nanoseconds; [`DEFAULT_NS`]: the host's default, [`NEVER_NS`]: none.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct OpenView {
    /// Size of this struct as the plugin knows it, in bytes.
    pub size: usize,
    /// `postgres://...` or `sqlite:PATH`.
    pub url: StrView,
    /// What to open: one of `OPEN_POOL`, `OPEN_STEADY`, `OPEN_PERSISTENT`.
    pub kind: u32,
    /// The other `OPEN_*` constants, added up.
    pub flags: u32,
    /// Most connections at a time; 0: the host's default.
    pub max_size: u32,
    /// Connections that are kept open and idle.
    pub min_idle: u32,
    /// Most idle connections; [`DEFAULT_COUNT`]: `max_size`.
    pub max_idle: u32,
    /// Most connections that are shared.
    pub max_shared: u32,
    /// The `PING_*` constants, added up; [`DEFAULT_COUNT`]: the host's default.
    pub ping: u32,
    /// How long a checkout waits; 0: fail at once.
    pub checkout_timeout_ns: u64,
    /// How long a connection beyond `min_idle` may be idle.
    pub idle_timeout_ns: u64,
    /// How old a connection may get.
    pub max_lifetime_ns: u64,
    /// How often idle connections are asked whether they work.
    pub ping_idle_ns: u64,
    /// After what time a connection that is lent out is reported as forgotten.
    pub leak_after_ns: u64,
    /// A connection that worked that recently is not asked.
    pub ping_after_ns: u64,
    /// How long the answer to a ping may take.
    pub ping_timeout_ns: u64,
    /// Statements after which a connection is replaced; 0: any number.
    pub max_uses: u64,
    /// The statement to ask with; empty: the driver's way.
    pub ping_sql: StrView,
    /// Statements that prepare a new connection.
    pub session: *const StrView,
    /// How many.
    pub session_count: usize,
    /// SQLSTATEs and classes of them after which a connection is of no more use.
    pub is_fatal: *const StrView,
    /// How many.
    pub fatal_count: usize,
}

/// The functions of pools and steady connections beyond [`DbTable`]'s. All of them block; none unwinds.
#[repr(C)]
#[derive(Debug)]
pub struct PoolTable {
    /// Size of this struct as the host knows it, in bytes.
    pub size: usize,
    /// Opens a pool, a steady connection or a set of them. The handle of a set is for `checkout`, as a pool's.
    ///
    /// RETURNS: `OK` and `*out`; `INVALID` for a bad setting, which the text names; `UNREACHABLE`.
    pub open: unsafe extern "C" fn(
        ctx: HostCtx,
        view: *const OpenView,
        out: *mut HandleId,
        error: *const ErrorSink,
    ) -> Status,
    /// Lends a share in a connection of a pool. RETURNS: as `checkout` of [`DbTable`].
    pub checkout_shared: unsafe extern "C" fn(
        ctx: HostCtx,
        pool: HandleId,
        timeout_ns: u64,
        out: *mut HandleId,
        error: *const ErrorSink,
    ) -> Status,
    /// Closes a steady connection, or ends its transaction only if it is not closeable; the same on a pool's.
    pub close: unsafe extern "C" fn(ctx: HostCtx, conn: HandleId, error: *const ErrorSink) -> Status,
}

/// The layout of version 1, on the platforms that plugins exist for. What stands here is released: a
/// line may be added, none may be changed but those of tables, which grow.
#[cfg(target_pointer_width = "64")]
const _: () = {
    assert!(size_of::<StrView>() == 16);
    assert!(size_of::<BytesView>() == 16);
    assert!(size_of::<PairView>() == 32);
    assert!(size_of::<ErrorView>() == 48);
    assert!(size_of::<ErrorSink>() == 16);
    assert!(size_of::<BytesSink>() == 16);
    assert!(size_of::<RouteView>() == 64);
    assert!(size_of::<RequestView>() == 168);
    assert!(size_of::<ReplyView>() == 32);
    assert!(size_of::<ResponseView>() == 48);
    assert!(size_of::<LogView>() == 88);
    assert!(size_of::<PanicView>() == 64);
    assert!(size_of::<KeyView>() == 40);
    assert!(size_of::<TypeView>() == 32);
    assert!(size_of::<InitView>() == 56);
    assert!(size_of::<PoolConfigView>() == 40);
    assert!(size_of::<StatementView>() == 48);
    assert!(size_of::<ValueView>() == 32);
    assert!(size_of::<DataCell>() == 24);
    assert!(size_of::<GlueView>() == 40);
    assert!(size_of::<DataTypeView>() == 80);
    assert!(size_of::<OldDataView>() == 56);
    assert!(size_of::<UpgradeView>() == 56);
    assert!(size_of::<SafeRangeView>() == 56);
    assert!(size_of::<SafeCheckView>() == 24);
    assert!(size_of::<SafeChangeView>() == 64);
    assert!(size_of::<SafeWriteView>() == 48);
    assert!(size_of::<PartSink>() == 16);
    assert!(size_of::<PartSource>() == 16);
    assert!(size_of::<ListenView>() == 48);
    assert!(size_of::<NoticeView>() == 48);
    assert!(size_of::<NoticeSink>() == 16);
    assert!(size_of::<PreviousView>() == 32);
    assert!(size_of::<MemoryStripe>() == 64);
    assert!(size_of::<ServiceTypeView>() == 48);
    assert!(size_of::<ServiceView>() == 32);
    assert!(size_of::<OpenView>() == 168);
    assert!(size_of::<TxOptionsView>() == 24);
};
