/* The contract between the host and a library, for C: ABI version 1.
 *
 * The same contract for Rust is `plugin-api/src/abi.rs`; items stand in the same order there, under
 * the same names (constants without the prefix PLUGIN_; in the text, statuses without STATUS_). Kept by
 * hand: a test compares every size, offset and number with Rust's. `HandlerFn` alone stands earlier
 * than there, for C needs it before `RouteView`.
 *
 * - A released item never changes. A table grows at its end; its reader looks at `size` before it
 *   reads a field that version 1 did not have.
 * - A view is valid for the call it is passed to, and no longer. Who wants to keep it copies it.
 * - Who allocates frees. Results of unknown length go through a sink: a function of the receiver
 *   that copies.
 * - No function in any table unwinds: a C++ plugin catches its exceptions.
 * - The plugin names objects of the host by `HandleId`, never by address: a stale or invented one is
 *   an error, not a dereference.
 */
#ifndef PLUGIN_ABI_H
#define PLUGIN_ABI_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Defined further down. */
typedef struct RegistryTable RegistryTable;
typedef struct DbTable DbTable;
typedef struct DataTable DataTable;
typedef struct SafeTable SafeTable;
typedef struct ServiceTable ServiceTable;
typedef struct TxTable TxTable;
typedef struct TxOptionsView TxOptionsView;
typedef struct PoolTable PoolTable;
typedef struct StreamTable StreamTable;
typedef struct ListenTable ListenTable;
typedef struct OldDataView OldDataView;
typedef struct UpgradeView UpgradeView;
typedef struct RouteView RouteView;
typedef struct RequestView RequestView;
typedef struct ReplyView ReplyView;
typedef struct ResponseView ResponseView;
typedef struct LogView LogView;
typedef struct PanicView PanicView;
typedef struct ValueView ValueView;
typedef struct PreviousView PreviousView;
typedef struct MemoryStripe MemoryStripe;

/* The version of this contract. */
#define PLUGIN_ABI_VERSION 1

/* Name of the entry symbol, of type `EntryFn`. */
#define PLUGIN_ENTRY_SYMBOL "plugin_entry_v1"

/* Name of the ELF section that holds the descriptor.
 *
 * The section is text: `name=value` records, each ended by a NUL byte, the first being
 * `magic=host-plugin`. The host reads it from the file, before any code of the library runs.
 * Required: `abi`, `name`. Known: `version`, `api`, `rustc`, `target`, `panic`, `package`. Others are ignored. */
#define PLUGIN_DESCRIPTOR_SECTION ".plugin_descriptor"

/* First record of a descriptor. */
#define PLUGIN_DESCRIPTOR_MAGIC "magic=host-plugin"

/* Puts a plugin's descriptor into its section, as `plugin_descriptor`.
 *
 * Both arguments are string literals. Use it once, at file level, and let `descriptor` of the plugin's
 * table point to it: `{ (const uint8_t *)plugin_descriptor, sizeof plugin_descriptor }`. */
#define PLUGIN_DESCRIPTOR(plugin_name, plugin_version)                                     \
    __attribute__((section(".plugin_descriptor"), used))                                   \
    static const char plugin_descriptor[] = PLUGIN_DESCRIPTOR_MAGIC "\0" "abi=1\0" "name=" \
        plugin_name "\0" "version=" plugin_version

/* Borrowed UTF-8 text. A null `ptr` means the empty text. */
typedef struct StrView {
    /* First byte. */
    const uint8_t *ptr;
    /* Length in bytes. */
    size_t len;
} StrView;

/* Borrowed bytes. A null `ptr` means no bytes. */
typedef struct BytesView {
    /* First byte. */
    const uint8_t *ptr;
    /* Length in bytes. */
    size_t len;
} BytesView;

/* A name with a value: a header, a path parameter, a log field. */
typedef struct PairView {
    /* The name. */
    StrView name;
    /* The value. UTF-8 for everything but header values. */
    BytesView value;
} PairView;

/* The outcome of a call across the boundary. Zero is success. */
typedef int32_t Status;

/* Done. */
#define STATUS_OK ((Status)0)
/* Failed; the error's text says why. */
#define STATUS_FAILED ((Status)1)
/* The callee panicked and caught it on its own side. */
#define STATUS_PANICKED ((Status)2)
/* There is no such key, handle or row. */
#define STATUS_NOT_FOUND ((Status)3)
/* The key holds a value of another type. */
#define STATUS_WRONG_TYPE ((Status)4)
/* The init of a key asked, directly or through others, for the same key. */
#define STATUS_RECURSIVE ((Status)5)
/* A deadline passed. */
#define STATUS_TIMED_OUT ((Status)6)
/* The last inits failed and the next try is not due yet. */
#define STATUS_BACKING_OFF ((Status)7)
/* An argument breaks this contract. */
#define STATUS_INVALID ((Status)8)
/* A handler ended with a typed HTTP error and has responded with it. */
#define STATUS_HTTP_ERROR ((Status)9)
/* Every connection of the pool is lent out. */
#define STATUS_EXHAUSTED ((Status)10)
/* The database cannot be reached. */
#define STATUS_UNREACHABLE ((Status)11)
/* The database refused the statement; `sqlstate` says why where the driver knows. */
#define STATUS_DATABASE ((Status)12)
/* The object has been closed. */
#define STATUS_CLOSED ((Status)13)
/* A value does not fit the column or parameter it is meant for. */
#define STATUS_OUT_OF_RANGE ((Status)14)
/* The init of a key failed; the text is the init's own. */
#define STATUS_INIT_FAILED ((Status)15)
/* The init of a key panicked. */
#define STATUS_INIT_PANICKED ((Status)16)
/* The layouts of a value and of the caller's type differ, and the value was not upgraded. */
#define STATUS_OUTDATED ((Status)17)

/* The key holds a service of the expected name with other methods. */
#define STATUS_INTERFACE ((Status)27)
/* Another plugin has made the value of the key from another configuration. */
#define STATUS_MISCONFIGURED ((Status)30)

/* A check of a write did not hold; nothing is changed. */
#define STATUS_CONFLICT ((Status)24)

/* The disk failed during a write, which may or may not have been made. */
#define STATUS_INDETERMINATE ((Status)25)

/* Stored bytes are not those that were written. */
#define STATUS_CORRUPT ((Status)26)
/* The connection broke during a commit; whether the transaction is lasting is unknown. */
#define STATUS_OUTCOME_UNKNOWN ((Status)37)
/* The operator has not granted it. */
#define STATUS_DENIED ((Status)49)

/* The caller's own function ended a stream. */
#define STATUS_STOPPED ((Status)43)

/* Why a call failed. */
typedef struct ErrorView {
    /* Size of this struct as its writer knows it, in bytes. */
    size_t size;
    /* What kind of failure. */
    Status status;
    /* A sentence fragment for a human: lower case, no full stop. */
    StrView message;
    /* The five characters of a database error, or empty. */
    StrView sqlstate;
} ErrorView;

/* Receives the error of a call.
 *
 * OWNERSHIP: the caller's. LIFETIME: the call. */
typedef struct ErrorSink {
    /* Passed back to `report`. */
    void *data;
    /* Copies the error. Called at most once a call, on the calling thread. Null: not interested. */
    void (*report)(void *data, const ErrorView *error);
} ErrorSink;

/* Receives bytes of a length that only the callee knows.
 *
 * OWNERSHIP: the caller's. LIFETIME: the call. */
typedef struct BytesSink {
    /* Passed back to `write`. */
    void *data;
    /* Appends a copy of the bytes. May be called several times, on the calling thread. */
    void (*write)(void *data, BytesView bytes);
} BytesSink;

/* An object of the host that a plugin holds: a pool, a connection. Zero names none.
 *
 * OWNERSHIP: whoever got it releases it with `handle_drop`, once. Valid in the generation that got
 * it; the host releases what a generation leaked when that generation is retired. */
typedef uint64_t HandleId;

/* Names nothing. */
#define HANDLE_NONE ((HandleId)0)

/* The generation's context in the host; opaque to the plugin. Valid as long as the library is mapped. */
typedef const void *HostCtx;

/* What the host offers a generation. Valid as long as the library is mapped. */
typedef struct HostTable {
    /* Size of this struct as the host knows it, in bytes. */
    size_t size;
    /* `PLUGIN_ABI_VERSION` of the host. */
    uint32_t abi_version;
    /* The number of this generation. */
    uint64_t generation;
    /* First argument of every function below. */
    HostCtx ctx;
    /* Writes an event to the host's log.
     *
     * THREAD: any. BLOCKS: no longer than the log's output. UNWINDS: never. */
    void (*log)(HostCtx ctx, const LogView *event);
    /* Reports a panic while it is being raised: the host's log gets it with plugin, generation and request.
     *
     * THREAD: the one that panics. BLOCKS: as `log`. UNWINDS: never. */
    void (*panicked)(HostCtx ctx, const PanicView *panic);
    /* Makes a second handle to the same object.
     *
     * THREAD: any. BLOCKS: no. UNWINDS: never. RETURNS: `OK` and `*out`, or `NOT_FOUND` or `INVALID` (a
     * connection has one holder). */
    Status (*handle_clone)(HostCtx ctx, HandleId handle, HandleId *out);
    /* Releases a handle. A connection goes back to its pool.
     *
     * THREAD: any. BLOCKS: while a connection that was left in a transaction is rolled back. UNWINDS: never.
     * An unknown handle is ignored. */
    void (*handle_drop)(HostCtx ctx, HandleId handle);
    /* The registry. LIFETIME: as this table. */
    const RegistryTable *registry;
    /* The database handles. LIFETIME: as this table. */
    const DbTable *db;
    /* Values shared in place. LIFETIME: as this table. */
    const DataTable *data;
    /* The safe. LIFETIME: as this table. */
    const SafeTable *safe;
    /* Services. LIFETIME: as this table. */
    const ServiceTable *services;
    /* The transactions of a request. LIFETIME: as this table. */
    const TxTable *tx;
    /* Steady connections, and pools with all their settings. LIFETIME: as this table. */
    const PoolTable *pool;
    /* Streams of rows. LIFETIME: as this table. */
    const StreamTable *stream;
    /* Subscriptions. LIFETIME: as this table. */
    const ListenTable *listen;
    /* How often a value has left its key in the registry, for whatever reason. Who remembers a handle with the
     * number from before it was found may use it, without asking, as long as the number is the same.
     *
     * Written by the host, atomically. LIFETIME: as this table. */
    const uint64_t *registry_epoch;
    /* The number of this loaded library, from 1, which no other library of this process has or will have. (The
     * number of a generation is its plugin's alone, and addresses are used again.) */
    uint32_t instance;
} HostTable;

/* What a library offers the host. Static data of the library. */
typedef struct PluginTable {
    /* Size of this struct as the plugin knows it, in bytes. */
    size_t size;
    /* `PLUGIN_ABI_VERSION` the plugin was written for. */
    uint32_t abi_version;
    /* The descriptor, so that no linker drops its section as unused. */
    BytesView descriptor;
    /* Where the plugin wants to answer, such as `/shop`; empty: under its name. */
    StrView mount;
    /* The routes. */
    const RouteView *routes;
    /* How many. */
    size_t route_count;
    /* Distance between two routes in bytes: `sizeof(RouteView)` as the plugin knows it. */
    size_t route_size;
    /* Runs once, before the generation is published. Null: nothing to do.
     *
     * THREAD: one of the host's, made for it. BLOCKS: as it likes, up to the load deadline. UNWINDS: never.
     * RETURNS: `OK`, or an error that refuses the generation. */
    Status (*on_load)(const ErrorSink *error);
    /* Runs once, after the last request has left a retired generation. Null: nothing to do.
     *
     * `reason` is one of the `PLUGIN_UNLOAD_*` constants. THREAD: one of the host's. UNWINDS: never. */
    Status (*on_unload)(uint32_t reason);
    /* Runs once, between `on_load` and `check`, where another generation of the plugin serves. Null: nothing to do.
     *
     * THREAD: that of `on_load`. BLOCKS: within its deadline. UNWINDS: never. RETURNS: as `on_load`. */
    Status (*upgrade)(const PreviousView *from, const ErrorSink *error);
    /* Runs once, the last thing before the generation is published. Null: nothing to do.
     *
     * THREAD: that of `on_load`. BLOCKS: within its deadline. UNWINDS: never. RETURNS: as `on_load`. */
    Status (*check)(const ErrorSink *error);
    /* What the library counts of its memory; null: nothing. LIFETIME: the library's mapping. */
    const MemoryStripe *memory;
    /* How many stripes. */
    size_t memory_stripes;
} PluginTable;

/* The generation that a new one takes over from. OWNERSHIP: the host's. LIFETIME: the call. */
struct PreviousView {
    /* Size of this struct as the host knows it, in bytes. */
    size_t size;
    /* Its number. */
    uint64_t generation;
    /* The plugin's version as that generation states it, or empty. */
    StrView version;
};

/* A part of the count of heap bytes: allocated less freed, modulo 2^64. Only the sum over all stripes means
 * anything, and it may be negative: a generation frees what an earlier one has allocated. */
struct MemoryStripe {
    /* Written by the library, read by the host. Atomic on both sides. */
    uint64_t bytes;
} __attribute__((aligned(64)));

/* A newer generation took over. */
#define PLUGIN_UNLOAD_RELOADED 1

/* The plugin's source or library was deleted. */
#define PLUGIN_UNLOAD_REMOVED 2

/* The host is shutting down. */
#define PLUGIN_UNLOAD_SHUTDOWN 3

/* The one function a library exports under `PLUGIN_ENTRY_SYMBOL`.
 *
 * THREAD: the one that loads. BLOCKS: no. UNWINDS: never. RETURNS: the plugin's table, or null when
 * it cannot work with this host. Called once a generation, before anything else; also by the
 * probe, in a process of its own: it must have no effect but to remember `host`. */
typedef const PluginTable *(*EntryFn)(const HostTable *host);

/* Answers a request by calling `respond` or `fail` of the reply, once.
 *
 * THREAD: a worker or an I/O thread of the host, by the route's kind. UNWINDS: never. RETURNS: `OK` or
 * `HTTP_ERROR` after `respond`; `FAILED` or `PANICKED` after `fail`. */
typedef Status (*HandlerFn)(const RequestView *request, const ReplyView *reply);

/* A route and its handler. */
typedef struct RouteView {
    /* Size of this struct as the plugin knows it, in bytes. */
    size_t size;
    /* Request method, upper case. */
    StrView method;
    /* Path pattern below the mount, such as `/{id}` or `/files/{*path}`. */
    StrView path;
    /* `PLUGIN_ROUTE_BLOCKING` or `PLUGIN_ROUTE_INLINE`. */
    uint32_t kind;
    /* Answers a request. */
    HandlerFn handler;
    /* 0, or `PLUGIN_ROUTE_IDEMPOTENT`. */
    uint32_t flags;
} RouteView;

/* The handler may block: it runs on a worker thread. */
#define PLUGIN_ROUTE_BLOCKING 0

/* The handler never blocks: it runs on the I/O thread, and everything on that thread waits for it. */
#define PLUGIN_ROUTE_INLINE 1

/* The handler may be run again when its transaction collided with another one and was rolled back. */
#define PLUGIN_ROUTE_IDEMPOTENT 1

/* A request. OWNERSHIP: the host's. LIFETIME: the handler's call. */
typedef struct RequestView {
    /* Size of this struct as the host knows it, in bytes. */
    size_t size;
    /* The request's id, as in the log and in `x-request-id`. */
    StrView id;
    /* Method, upper case. */
    StrView method;
    /* The whole path as received, percent-encoded. */
    StrView path;
    /* The part of `path` under which the plugin is mounted; empty for the root. */
    StrView mount;
    /* The query without its question mark, percent-encoded. */
    StrView query;
    /* Path parameters, percent-decoded. */
    const PairView *params;
    /* How many path parameters. */
    size_t param_count;
    /* Headers in the order received, names in lower case. */
    const PairView *headers;
    /* How many headers. */
    size_t header_count;
    /* The whole body. */
    BytesView body;
    /* Address of the client, `ip:port`. */
    StrView remote;
    /* Nanoseconds until the client is answered without us; 0: no deadline. */
    uint64_t deadline_ns;
    /* 1 once nobody waits for the answer any more, because the client has gone or the deadline has passed; 0
     * before. NULL: the host does not say, as for inline handlers.
     *
     * Written by the host at any time, atomically. LIFETIME: the call. */
    const uint8_t *cancelled;
} RequestView;

/* Where a handler puts its answer. OWNERSHIP: the host's. LIFETIME: the handler's call. */
typedef struct ReplyView {
    /* Size of this struct as the host knows it, in bytes. */
    size_t size;
    /* First argument of the functions below. */
    void *data;
    /* Copies the response. RETURNS: `INVALID` with nothing copied for a status or header that HTTP forbids. */
    Status (*respond)(void *data, const ResponseView *response);
    /* Copies the reason why there is no response. */
    void (*fail)(void *data, const ErrorView *error);
} ReplyView;

/* A response. OWNERSHIP: the plugin's. LIFETIME: the call of `respond`. */
typedef struct ResponseView {
    /* Size of this struct as the plugin knows it, in bytes. */
    size_t size;
    /* Status code, 200 to 599. */
    uint16_t status;
    /* Headers. */
    const PairView *headers;
    /* How many headers. */
    size_t header_count;
    /* The body. */
    BytesView body;
} ResponseView;

/* A log event. */
typedef struct LogView {
    /* Size of this struct as the plugin knows it, in bytes. */
    size_t size;
    /* 1 error, 2 warn, 3 info, 4 debug, 5 trace. */
    uint32_t level;
    /* Module path or another origin. */
    StrView target;
    /* The message. */
    StrView message;
    /* Structured fields. */
    const PairView *fields;
    /* How many fields. */
    size_t field_count;
    /* Source file, or empty. */
    StrView file;
    /* Line in `file`, or 0. */
    uint32_t line;
} LogView;

/* A panic. */
typedef struct PanicView {
    /* Size of this struct as the plugin knows it, in bytes. */
    size_t size;
    /* The panic's message. */
    StrView message;
    /* Source file, or empty. */
    StrView file;
    /* Line in `file`, or 0. */
    uint32_t line;
    /* Column, or 0. */
    uint32_t column;
    /* Name of the thread, or empty. */
    StrView thread;
} PanicView;

/* Names a slot of the registry. */
typedef struct KeyView {
    /* Size of this struct as the plugin knows it, in bytes. */
    size_t size;
    /* Namespace; empty: the common one. */
    StrView module;
    /* The key. The host copies it. */
    StrView key;
} KeyView;

/* Says what type of value a caller expects under a key. */
typedef struct TypeView {
    /* Size of this struct as the plugin knows it, in bytes. */
    size_t size;
    /* How the value survives: one of the `PLUGIN_KIND_*` constants. */
    uint32_t kind;
    /* The type's name for humans, such as `db::Pool`. */
    StrView name;
} TypeView;

/* A value that lives in the host, such as a pool. */
#define PLUGIN_KIND_HOST_HANDLE 1

/* A value shared in place, by layout. */
#define PLUGIN_KIND_DATA 2

/* A value that keeps running the code which made it. */
#define PLUGIN_KIND_SERVICE 3

/* Makes the value of an empty slot. */
typedef struct InitView {
    /* Size of this struct as the plugin knows it, in bytes. */
    size_t size;
    /* Passed back to `call`. */
    void *data;
    /* Makes the value. OWNERSHIP: the handle written to `*out` becomes the host's.
     *
     * THREAD: the caller's, within the call of `get_or_init`. UNWINDS: never. RETURNS: `OK` and `*out`, or
     * `FAILED` or `PANICKED` and an error. */
    Status (*call)(void *data, HandleId *out, const ErrorSink *error);
    /* Nanoseconds a caller waits for the init, its own or another's; 0: the host's default. */
    uint64_t timeout_ns;
    /* The `PLUGIN_INIT_*` flags, added up. */
    uint32_t flags;
    /* With `PLUGIN_INIT_CONFIGURED`: what the value is made from, as JSON in one form for equal configurations. Shown
     * to operators, less what looks like a secret. */
    StrView config;
} InitView;

/* A generation does not use a value that an earlier generation of its plugin has made, but makes a new one. */
#define PLUGIN_INIT_RESTARTS 1

/* A value that was made from another configuration, or from none, is not used; a new one is made. */
#define PLUGIN_INIT_CONFIGURED 2

/* The registry's functions. */
typedef struct RegistryTable {
    /* Size of this struct as the host knows it, in bytes. */
    size_t size;
    /* Finds the value of a key, making it if the slot is empty.
     *
     * THREAD: any. BLOCKS: while the value is made, by this caller or another. UNWINDS: never.
     * RETURNS: `OK` and `*out`, or an error and `*out` untouched. */
    Status (*get_or_init)(
        HostCtx ctx, const KeyView *key, const TypeView *expected, const InitView *init, HandleId *out,
        const ErrorSink *error);
    /* Finds the value of a key. RETURNS: `NOT_FOUND` when the slot is empty or being filled.
     *
     * THREAD: any. BLOCKS: no. UNWINDS: never. */
    Status (*get)(
        HostCtx ctx, const KeyView *key, const TypeView *expected, HandleId *out,
        const ErrorSink *error);
    /* Empties a slot. Holders of the value keep it; the next `get_or_init` makes a new one.
     *
     * THREAD: any. BLOCKS: while the value closes, if nobody else holds it. UNWINDS: never.
     * RETURNS: `NOT_FOUND` when there was no value. */
    Status (*remove)(HostCtx ctx, const KeyView *key, const ErrorSink *error);
} RegistryTable;

/* How to open a pool. */
typedef struct PoolConfigView {
    /* Size of this struct as the plugin knows it, in bytes. */
    size_t size;
    /* `postgres://...` or `sqlite:PATH`. */
    StrView url;
    /* Most connections at a time; 0: the host's default. */
    uint32_t max_size;
    /* Nanoseconds a checkout waits; 0: fail at once; `PLUGIN_DEFAULT_NS`: the host's default. */
    uint64_t checkout_timeout_ns;
} PoolConfigView;

/* Means "the default" where nanoseconds are expected and zero has a meaning of its own. */
#define PLUGIN_DEFAULT_NS UINT64_MAX

/* A statement with its parameters. */
typedef struct StatementView {
    /* Size of this struct as the plugin knows it, in bytes. */
    size_t size;
    /* One statement, with `$1`, `$2`, ... for its parameters, whatever the database. */
    StrView sql;
    /* The parameters. */
    const ValueView *params;
    /* How many parameters. */
    size_t param_count;
    /* The `PLUGIN_STATEMENT_*` flags, added up. */
    uint64_t flags;
} StatementView;

/* Running the statement twice does what running it once does: it may be sent again on a new connection. */
#define PLUGIN_STATEMENT_IDEMPOTENT UINT64_C(1)
/* Nothing is replaced or sent again for this statement. */
#define PLUGIN_STATEMENT_NO_FAILOVER UINT64_C(2)

/* A value on its way to or from a database. */
typedef struct ValueView {
    /* One of the `PLUGIN_VALUE_*` constants. */
    uint32_t tag;
    /* `PLUGIN_VALUE_BOOL`: 0 or 1. `PLUGIN_VALUE_INT`: the two's complement. `PLUGIN_VALUE_FLOAT`: the IEEE 754 bits. Else 0. */
    uint64_t bits;
    /* `PLUGIN_VALUE_TEXT`: UTF-8. `PLUGIN_VALUE_BYTES`, `PLUGIN_VALUE_ARRAY`: bytes. Else empty. */
    BytesView bytes;
} ValueView;

/* SQL NULL. */
#define PLUGIN_VALUE_NULL 0

/* A truth value. */
#define PLUGIN_VALUE_BOOL 1

/* A 64-bit signed integer. */
#define PLUGIN_VALUE_INT 2

/* A 64-bit float. */
#define PLUGIN_VALUE_FLOAT 3

/* Text, and every database type that has no tag of its own, in its text form. */
#define PLUGIN_VALUE_TEXT 4

/* Bytes. */
#define PLUGIN_VALUE_BYTES 5

/* An array, in the format of `plugin-api/src/db/array.rs`. Who knows no arrays takes it for a malformed cell. */
#define PLUGIN_VALUE_ARRAY 6

/* The functions of database handles. All of them block; none unwinds; a connection is used by one thread at a time. */
typedef struct DbTable {
    /* Size of this struct as the host knows it, in bytes. */
    size_t size;
    /* Opens a pool and its first connection, so that a wrong address shows at once.
     *
     * RETURNS: `OK` and `*out`; `INVALID` for a bad configuration; `UNREACHABLE`. */
    Status (*pool_open)(HostCtx ctx, const PoolConfigView *config, HandleId *out, const ErrorSink *error);
    /* Lends a connection out. It returns to the pool with `handle_drop`.
     *
     * `timeout_ns` as in `PoolConfigView.checkout_timeout_ns`. RETURNS: `OK` and `*out`; `EXHAUSTED`;
     * `UNREACHABLE`; `CLOSED`. */
    Status (*checkout)(
        HostCtx ctx, HandleId pool, uint64_t timeout_ns, HandleId *out, const ErrorSink *error);
    /* Runs a statement and writes its rows to `rows` as one block (format: `plugin-api/src/db/rows.rs`). */
    Status (*query)(
        HostCtx ctx, HandleId conn, const StatementView *statement, const BytesSink *rows,
        const ErrorSink *error);
    /* Runs a statement and writes the number of rows it changed to `*affected`. */
    Status (*execute)(
        HostCtx ctx, HandleId conn, const StatementView *statement, uint64_t *affected,
        const ErrorSink *error);
    /* Runs several statements, separated by semicolons, without parameters. */
    Status (*batch_execute)(HostCtx ctx, HandleId conn, StrView sql, const ErrorSink *error);
    /* Begins a transaction, or a savepoint inside one. */
    Status (*begin)(HostCtx ctx, HandleId conn, const ErrorSink *error);
    /* Commits the innermost transaction or savepoint. A commit that became a rollback is an error. */
    Status (*commit)(HostCtx ctx, HandleId conn, const ErrorSink *error);
    /* Rolls the innermost transaction or savepoint back. */
    Status (*rollback)(HostCtx ctx, HandleId conn, const ErrorSink *error);
    /* What the database said beside its words of the last `STATUS_DATABASE` failure that the calling thread was told:
     * a block of one row (format: `plugin-api/src/db/rows.rs`) whose columns are named `schema`, `table`, `column`,
     * `constraint`, `detail`, `hint` and `position`, those that are known.
     *
     * THREAD: the one that was told. BLOCKS: no. UNWINDS: never. RETURNS: `OK`; `NOT_FOUND`: it said no more. */
    Status (*error_details)(HostCtx ctx, const BytesSink *out, const ErrorSink *error);
    /* As `begin`, with a say in how. Inside a transaction, `INVALID` unless nothing is said.
     *
     * THREAD: any. BLOCKS: yes. UNWINDS: never. RETURNS: as `begin`; `INVALID` for unknown numbers. */
    Status (*begin_with)(
        HostCtx ctx, HandleId conn, const TxOptionsView *options, const ErrorSink *error);
} DbTable;

/* Where a value that is shared in place lives. OWNERSHIP: the host's.
 *
 * Who adds 1 to `users` and finds neither flag in what was there before may use the value until it
 * subtracts 1 again. Who finds a flag subtracts at once. A subtraction that finds exactly
 * `PLUGIN_DATA_GONE` + 1 was the last one, and calls `release`. */
typedef struct DataCell {
    /* Size of this struct as the host knows it, in bytes. */
    size_t size;
    /* Users in the low bits, `PLUGIN_DATA_FROZEN`, `PLUGIN_DATA_GONE` and `PLUGIN_DATA_CLAIMED` above them. Atomic on both sides. */
    uint64_t users;
    /* The value. Changes never: an upgraded value gets another cell. */
    void *value;
} DataCell;

/* The value is being upgraded: nobody may begin to use it, until the flag goes or `PLUGIN_DATA_GONE` comes. */
#define PLUGIN_DATA_FROZEN 4611686018427387904ULL
/* The key has no value or another one: who used this value before goes on, nobody begins. */
#define PLUGIN_DATA_GONE 9223372036854775808ULL
/* With `PLUGIN_DATA_FROZEN`: the last user has left and the upgrade has begun. Before that, a user may begin a
 * further use of a frozen value by a compare-and-swap that finds users and not this flag. */
#define PLUGIN_DATA_CLAIMED 2305843009213693952ULL

/* For `find`: the cell (not the value) stays readable as long as the caller's library is mapped. */
#define PLUGIN_FIND_KEEP 1
/* For `find`: the calling thread believes that it uses the value already, and will not wait for itself. */
#define PLUGIN_FIND_JOIN 2

/* What only the code that was compiled with a type can do to a value of it.
 *
 * OWNERSHIP: the plugin's; the host copies it. LIFETIME of the functions: the library's mapping.
 * None of them unwinds. */
typedef struct GlueView {
    /* Size of this struct as the plugin knows it, in bytes. */
    size_t size;
    /* Drops the value in place. */
    void (*drop_value)(void *value);
    /* Which variant an enum is at, counted from 0 in the order of its definition. */
    uint32_t (*variant)(const void *value);
    /* Visits the parts of a container, or the fields of an enum's variant, in order. */
    void (*children)(void *value, void *data, void (*visit)(void *data, void *child));
    /* Frees what a container holds beside its parts, all of which have been moved out. */
    void (*dissolve)(void *value);
} GlueView;

/* Says what type of data a caller expects under a key, completely.
 *
 * OWNERSHIP: the plugin's; the host copies what it keeps. LIFETIME: the call. */
typedef struct DataTypeView {
    /* Size of this struct as the plugin knows it, in bytes. */
    size_t size;
    /* The type's name for humans. */
    StrView name;
    /* The layout (format: `plugin-api/src/resident/layout.rs`). Equal texts mean: the same in memory. */
    StrView layout;
    /* One per type in `layout`, in its order. */
    const GlueView *glue;
    /* How many. */
    size_t glue_count;
    /* What becomes of a value that cannot be upgraded: `PLUGIN_ON_CHANGE_KEEP` or `PLUGIN_ON_CHANGE_RESTART`. */
    uint32_t on_change;
    /* Builds a value of this type from one of an older layout, which it leaves as it is.
     *
     * THREAD: the caller's. UNWINDS: never. RETURNS: `OK` and `*out`, or an error with nothing changed. */
    Status (*upgrade)(const OldDataView *old, UpgradeView *out, const ErrorSink *error);
    /* Builds a copy of a value of this very type beside it, that shares nothing with it which can change; `finish` of what
     * it writes is null. Fails where no such copy can be made.
     *
     * Null functions are not allowed; plugins from before this have a shorter struct. THREAD: any. BLOCKS: as long as code
     * of the author does that compares keys. UNWINDS: never. RETURNS: `OK` and fills `out` in, or an error status. */
    Status (*copy)(const OldDataView *old, UpgradeView *out, const ErrorSink *error);
} DataTypeView;

/* Keep the value and refuse the new code. */
#define PLUGIN_ON_CHANGE_KEEP 0
/* Drop the value and make a new one. */
#define PLUGIN_ON_CHANGE_RESTART 1

/* A value of an older layout, which nobody uses. OWNERSHIP: the host's. LIFETIME: the call. */
struct OldDataView {
    /* Size of this struct as the host knows it, in bytes. */
    size_t size;
    /* Its layout. */
    StrView layout;
    /* One per type in `layout`. */
    const GlueView *glue;
    /* How many. */
    size_t glue_count;
    /* The value. */
    void *value;
    /* What the upgrade is at: one of the numbers below, changed atomically by both sides. The plugin goes from
     * `UPGRADE_READS` to one of the next two before it runs code of an author, and back after it; the host goes from these
     * to one of the last two when it gives the upgrade up. Where the plugin finds it given up it fails, and does not look at
     * the value again. Null: the host never gives up. LIFETIME: the call. */
    const uint32_t *progress;
};

/* The upgrade looks at the older value: nobody else may use it. */
#define PLUGIN_UPGRADE_READS 0
/* It runs code of an author that is shown nothing of the older value. */
#define PLUGIN_UPGRADE_IN_CODE 1
/* It runs code of an author that has references to parts of the older value which cannot be changed through them. */
#define PLUGIN_UPGRADE_IN_HOOK 2
/* The host gave it up in `UPGRADE_IN_CODE`: the older value may be in use, and be gone. */
#define PLUGIN_UPGRADE_GIVEN_UP 3
/* The host gave it up in `UPGRADE_IN_HOOK`: the older value may be in use, and stays until the call returns. */
#define PLUGIN_UPGRADE_GIVEN_UP_IN_HOOK 4

/* An upgraded value that is not valid yet. OWNERSHIP: the host's, which calls `finish` once. */
struct UpgradeView {
    /* Size of this struct in bytes: as the host knows it when it is asked to be filled in, which is what there is room for. */
    size_t size;
    /* The new value. */
    void *value;
    /* Passed back to `finish`. */
    void *data;
    /* With `commit` 1: frees of the old value what was not moved; the new value is valid, and may be in use while this
     * runs. With 0: frees the new value; the old one is as it was.
     *
     * THREAD: any. UNWINDS: never. LIFETIME: the library's mapping. */
    void (*finish)(void *data, uint32_t commit);
    /* What of the old value has no place in the new one and is dropped, one a line: `OWNER.FIELD: TYPE`, and
     * ` (in N values)` if there are several. LIFETIME: until `finish`. */
    StrView lost;
    /* 1: a hook of the author has built the value or a part of it, so there may be no way back. */
    uint32_t hooked;
};

/* The functions of values that are shared in place. */
struct DataTable {
    /* Size of this struct as the host knows it, in bytes. */
    size_t size;
    /* Hands a value to the host, for an init to return. OWNERSHIP: after `OK` the value is the host's.
     *
     * `value` was allocated by the C library. THREAD: any. BLOCKS: no. UNWINDS: never. */
    Status (*create)(
        HostCtx ctx, const DataTypeView *of, void *value, HandleId *out, const ErrorSink *error);
    /* Finds the value of a key, upgrades it if its layout is older, makes it if the slot is empty and
     * `init` is not null. The caller has become a user of the cell.
     *
     * `flags` are of the `PLUGIN_FIND_*` constants.
     * THREAD: any. BLOCKS: while the value is made or upgraded. UNWINDS: never.
     * RETURNS: `OK` and `*out`, or an error and `*out` untouched. */
    Status (*find)(
        HostCtx ctx, const KeyView *key, const DataTypeView *expected, const InitView *init, uint32_t flags,
        const DataCell **out, const ErrorSink *error);
    /* Readies a key before its generation is published: makes a missing value, stages the upgrade of
     * one of an older layout. To be called at the end of `on_load`: nobody can begin to use the older
     * value from then until the generation is published or refused.
     *
     * THREAD: any. BLOCKS: while others use the older value, bounded. UNWINDS: never. */
    Status (*prepare)(
        HostCtx ctx, const KeyView *key, const DataTypeView *expected, const InitView *init,
        const ErrorSink *error);
    /* Says that the last user of a gone value has left.
     *
     * THREAD: any. BLOCKS: while the value is dropped. UNWINDS: never. */
    void (*release)(HostCtx ctx, const DataCell *cell);
};

/* A range of keys, in the order of their bytes. */
typedef struct SafeRangeView {
    /* Size of this struct as the plugin knows it, in bytes. */
    size_t size;
    /* The first key, or what all keys are greater than; empty: from the first on. */
    BytesView start;
    /* What all keys are less than; empty: to the last. */
    BytesView end;
    /* The `PLUGIN_SAFE_*` flags, added up. */
    uint32_t flags;
    /* Most entries; 0: the host's default. */
    uint64_t limit;
} SafeRangeView;

/* The last key comes first. */
#define PLUGIN_SAFE_REVERSE 1

/* `start` itself is not in the range. */
#define PLUGIN_SAFE_AFTER_START 2

/* Values are left out. */
#define PLUGIN_SAFE_NO_VALUES 4

/* Holds if the entry of a key has a version. */
typedef struct SafeCheckView {
    /* The key. */
    BytesView key;
    /* The version; 0: there is no entry. */
    uint64_t version;
} SafeCheckView;

/* A change of one key. */
typedef struct SafeChangeView {
    /* One of the `PLUGIN_CHANGE_*` constants. */
    uint32_t kind;
    /* Of the value: one of the `PLUGIN_ENCODING_*` constants. */
    uint32_t encoding;
    /* The key, 1 to 1024 bytes. */
    BytesView key;
    /* `PLUGIN_CHANGE_PUT`: the value. Else empty. */
    BytesView value;
    /* `PLUGIN_CHANGE_ADD`: how much. Else 0. */
    int64_t delta;
    /* `PLUGIN_CHANGE_ADD`: what is added to where there is no entry. Else 0. */
    int64_t initial;
    /* Milliseconds until an entry that this makes ceases to be; `PLUGIN_SAFE_FOR_EVER`: never. */
    uint64_t expires_in_ms;
} SafeChangeView;

/* Puts a value, whatever was there. Its result is 0. */
#define PLUGIN_CHANGE_PUT 1

/* Removes the entry. Its result is 1 if there was one, else 0. */
#define PLUGIN_CHANGE_DELETE 2

/* Adds to an integer in MessagePack, and keeps its expiry. Its result is the sum. */
#define PLUGIN_CHANGE_ADD 3

/* Bytes of the plugin's own. */
#define PLUGIN_ENCODING_BYTES 0

/* One value in MessagePack, structs as maps with the names of their fields. */
#define PLUGIN_ENCODING_MESSAGEPACK 1

/* The entry does not expire. */
#define PLUGIN_SAFE_FOR_EVER UINT64_MAX

/* Changes that are made together, if all checks hold. A key is changed at most once. */
typedef struct SafeWriteView {
    /* Size of this struct as the plugin knows it, in bytes. */
    size_t size;
    /* What must hold. */
    const SafeCheckView *checks;
    /* How many checks. */
    size_t check_count;
    /* What is changed then. */
    const SafeChangeView *changes;
    /* How many changes. */
    size_t change_count;
    /* Nanoseconds until a write whose turn has not come is taken back; 0: the host's default. */
    uint64_t timeout_ns;
} SafeWriteView;

/* The response of the request that this thread works for waits until the write is on disk, and is a failure
 * if it is not; outside of a request the call itself waits. */
#define PLUGIN_SAFE_GATED 1
/* Nobody waits for the write; a crash may lose it, and `settle` tells whether it was made. */
#define PLUGIN_SAFE_RELAXED 2

/* The functions of the safe: the calling plugin's own durable store. All but `submit` block; none unwinds.
 *
 * `safe` is `HANDLE_NONE` for the plugin's own, which no argument can make another's, or a handle of
 * `open_shared`. Keys are bytes.
 * Entries are written to a sink in the format of `plugin-api/src/safe/block.rs`. */
typedef struct SafeTable {
    /* Size of this struct as the host knows it, in bytes. */
    size_t size;
    /* Writes the entries of keys, all as one commit left them, in the order of `keys`.
     *
     * `flags`: 0 or `PLUGIN_SAFE_NO_VALUES`. RETURNS: `OK`, also for keys without an entry; `CORRUPT`;
     * `UNREACHABLE` while the disk fails. */
    Status (*get)(
        HostCtx ctx, HandleId safe, const BytesView *keys, size_t key_count, uint32_t flags,
        const BytesSink *entries, const ErrorSink *error);
    /* Writes the entries of a range and whether there are more of them. RETURNS: as `get`. */
    Status (*list)(
        HostCtx ctx, HandleId safe, const SafeRangeView *range, const BytesSink *entries,
        const ErrorSink *error);
    /* Counts the entries. RETURNS: `OK` and `*count`; else as `get`. */
    Status (*len)(HostCtx ctx, HandleId safe, uint64_t *count, const ErrorSink *error);
    /* Makes a write, and returns when it is on disk.
     *
     * `results` has room for one number per change. RETURNS: `OK`, `*version` and `results`; `CONFLICT` and
     * in `*version` which check it was, from 0; `INDETERMINATE`; or, with nothing changed, `INVALID`,
     * `WRONG_TYPE` (no integer to add to), `OUT_OF_RANGE` (the sum), `CORRUPT`, `EXHAUSTED` (the queue),
     * `TIMED_OUT`, `UNREACHABLE` (the disk). */
    Status (*commit)(
        HostCtx ctx, HandleId safe, const SafeWriteView *write, uint64_t *version, int64_t *results,
        const ErrorSink *error);
    /* Queues a write and returns. `mode` is `PLUGIN_SAFE_GATED` or `PLUGIN_SAFE_RELAXED`.
     *
     * BLOCKS: no, but at the first use of the safe, and for `PLUGIN_SAFE_GATED` outside of a request.
     * RETURNS: `OK` once it is queued; `INVALID`, `EXHAUSTED`, `CLOSED`, with nothing queued. */
    Status (*submit)(
        HostCtx ctx, HandleId safe, const SafeWriteView *write, uint32_t mode, const ErrorSink *error);
    /* Returns when every write that was queued before is decided. RETURNS: `OK` if all relaxed writes of this
     * generation since the last `settle` are on disk; else the first failure, as `commit`. */
    Status (*settle)(HostCtx ctx, HandleId safe, uint64_t timeout_ns, const ErrorSink *error);
    /* Watches a range of keys; of `range` the bounds count, and no flag but `PLUGIN_SAFE_AFTER_START`.
     *
     * RETURNS: `OK` and `*out`, to be released with `handle_drop`. */
    Status (*watch)(
        HostCtx ctx, HandleId safe, const SafeRangeView *range, HandleId *out, const ErrorSink *error);
    /* Waits until something in the watched range has changed since the last call, or since `watch`.
     *
     * `timeout_ns` 0 only asks. BLOCKS: up to `timeout_ns`, and never beyond the request's deadline.
     * RETURNS: `OK`; `TIMED_OUT`; `CLOSED` once another generation is current, then and for ever. */
    Status (*watch_next)(HostCtx ctx, HandleId watch, uint64_t timeout_ns, const ErrorSink *error);
    /* Opens a safe that plugins share. RETURNS: `OK` and `*out`, the same for the same name in one generation;
     * `DENIED` unless the host's configuration grants it to this plugin. */
    Status (*open_shared)(HostCtx ctx, StrView name, HandleId *out, const ErrorSink *error);
} SafeTable;

/* What a service can be asked, as far as a caller has to agree with it. */
typedef struct ServiceTypeView {
    /* Size of this struct as the plugin knows it, in bytes. */
    size_t size;
    /* The trait's name. */
    StrView name;
    /* Its methods, one a line, in the order of their numbers. Equal texts mean: the same on the wire. */
    StrView methods;
    /* What becomes of a service of the same name with other methods: `PLUGIN_ON_CHANGE_KEEP` or
     * `PLUGIN_ON_CHANGE_RESTART`. */
    uint32_t on_change;
} ServiceTypeView;

/* A service, on its way to the host. Its library stays mapped until `drop_value` has returned. */
typedef struct ServiceView {
    /* Size of this struct as the plugin knows it, in bytes. */
    size_t size;
    /* First argument of the functions below. */
    void *value;
    /* Runs the method of that number and writes its answer at most once.
     *
     * THREAD: any, several at a time. UNWINDS: never. RETURNS: `OK`; `PANICKED`; `INVALID` for arguments that
     * are not the method's; any other status for an error that the method returned. */
    Status (*call)(void *value, uint32_t method, BytesView arguments, const BytesSink *answer,
                   const ErrorSink *error);
    /* Drops the service. Called once, when nobody holds it and no call runs. THREAD: any. UNWINDS: never. */
    void (*drop_value)(void *value);
} ServiceView;

/* The functions of services: values that keep running the code which made them. None of them unwinds.
 *
 * Arguments and answers are bytes in the format of `plugin-api/src/service/wire.rs`. */
typedef struct ServiceTable {
    /* Size of this struct as the host knows it, in bytes. */
    size_t size;
    /* Hands a service to the host, for an init to return or for `replace`. OWNERSHIP: after `OK` the value is
     * the host's.
     *
     * THREAD: any. BLOCKS: no. */
    Status (*create)(HostCtx ctx, const ServiceTypeView *of, const ServiceView *service, HandleId *out,
                     const ErrorSink *error);
    /* Finds the service of a key, makes it if the slot is empty and `init` is not null.
     *
     * THREAD: any. BLOCKS: while it is made. RETURNS: `OK` and `*out`; `INTERFACE`; else as `get_or_init`. */
    Status (*find)(HostCtx ctx, const KeyView *key, const ServiceTypeView *expected, const InitView *init,
                   HandleId *out, const ErrorSink *error);
    /* Puts a service in the place of the one under a key, or where there is none. Who holds the old one keeps
     * it. OWNERSHIP: after `OK` the handle is the host's.
     *
     * While the generation is loading it happens when it is published. THREAD: any. BLOCKS: while the old one
     * is dropped, if nobody else holds it. RETURNS: `OK`; `WRONG_TYPE` where there is anything but a service of
     * that name. */
    Status (*replace)(HostCtx ctx, const KeyView *key, HandleId service, const ErrorSink *error);
    /* Calls a method, in the code that made the service.
     *
     * THREAD: any. BLOCKS: as the method does. RETURNS: what the method does; `CLOSED` when the host is
     * shutting down. */
    Status (*call)(HostCtx ctx, HandleId service, uint32_t method, BytesView arguments,
                   const BytesSink *answer, const ErrorSink *error);
} ServiceTable;

/* Keep what a request did if its handler answers, be it with an error of HTTP's. */
#define PLUGIN_TX_KEEP_ANSWERS 0

/* Keep what a request did if its handler answers with a status below 400. */
#define PLUGIN_TX_KEEP_SUCCESSES 1

/* Isolation as the database has it by default. */
#define PLUGIN_TX_ISOLATION_DEFAULT 0
/* Each statement sees what was committed before it. */
#define PLUGIN_TX_READ_COMMITTED 1
/* All statements see what was committed before the first one. */
#define PLUGIN_TX_REPEATABLE_READ 2
/* As if transactions ran one after the other. */
#define PLUGIN_TX_SERIALIZABLE 3

/* What the transaction may do, as the database has it by default. */
#define PLUGIN_TX_ACCESS_DEFAULT 0
/* It reads; a statement that writes is refused. */
#define PLUGIN_TX_READ_ONLY 1
/* It takes the right to write when it begins, where the database has but one. */
#define PLUGIN_TX_IMMEDIATE 2
/* It takes the right to write with its first statement that writes. */
#define PLUGIN_TX_DEFERRED 3

/* A serializable transaction that only reads waits until it cannot fail. */
#define PLUGIN_TX_DEFERRABLE 1

/* How a transaction begins. OWNERSHIP: the plugin's. LIFETIME: the call. */
struct TxOptionsView {
    /* Size of this struct as the plugin knows it, in bytes. */
    size_t size;
    /* One of the isolations. */
    uint32_t isolation;
    /* One of the kinds of access. */
    uint32_t access;
    /* The flags, added up: `PLUGIN_TX_DEFERRABLE`. */
    uint32_t flags;
};

/* The functions of request transactions. None of them unwinds.
 *
 * A transaction's handle stands for a connection in the functions of `DbTable`, where `begin`,
 * `commit` and `rollback` are those of savepoints. The host ends the transaction when the handler has
 * returned and before the client is answered; the plugin only releases the handle. */
typedef struct TxTable {
    /* Size of this struct as the host knows it, in bytes. */
    size_t size;
    /* The calling request's transaction on a pool, which begins with its first statement.
     *
     * `rule` is one of the `PLUGIN_TX_KEEP_*` constants; of several for one pool the strictest holds.
     * THREAD: the handler's. BLOCKS: no. RETURNS: `OK` and `*out`; `NOT_FOUND`: no pool; `INVALID`:
     * no request. */
    Status (*join)(HostCtx ctx, HandleId pool, uint32_t rule, HandleId *out, const ErrorSink *error);
    /* Has all transactions of the calling request rolled back at its end, whatever its answer.
     *
     * THREAD: the handler's. BLOCKS: no. RETURNS: `OK`; `INVALID`: no request. */
    Status (*doom)(HostCtx ctx, const ErrorSink *error);
    /* As `join`, with a say in how the transaction begins.
     *
     * THREAD: the handler's. BLOCKS: no. RETURNS: as `join`; `INVALID` for unknown numbers, and when it has
     * begun, or will begin, in another way. */
    Status (*join_with)(
        HostCtx ctx,
        HandleId pool,
        uint32_t rule,
        const TxOptionsView *options,
        HandleId *out,
        const ErrorSink *error);
} TxTable;

/* Receives the parts of a stream, one call for each.
 *
 * OWNERSHIP: the caller's. LIFETIME: the call. */
typedef struct PartSink {
    /* Passed back to `take`. */
    void *data;
    /* Takes a part, which is valid for its call. Anything but `OK` ends the stream. Must not unwind. */
    Status (*take)(void *data, BytesView part);
} PartSink;

/* Gives the parts of a stream, one call for each.
 *
 * OWNERSHIP: the caller's. LIFETIME: the call. */
typedef struct PartSource {
    /* Passed back to `give`. */
    void *data;
    /* Writes the next part, or nothing at the end. Anything but `OK` undoes the stream. Must not unwind. */
    Status (*give)(void *data, const BytesSink *part);
} PartSource;

/* The functions of streams over a connection or a transaction. All of them block; none unwinds.
 *
 * While a stream runs, its connection takes no other statement. */
typedef struct StreamTable {
    /* Size of this struct as the host knows it, in bytes. */
    size_t size;
    /* Runs a statement and gives its rows to `blocks`, a block (format: `plugin-api/src/db/rows.rs`) for
     * each part, at least one.
     *
     * RETURNS: `OK`; `STOPPED` when `blocks` did; or an error, maybe after some blocks. */
    Status (*query_each)(
        HostCtx ctx, HandleId conn, const StatementView *statement, const PartSink *blocks,
        const ErrorSink *error);
    /* Runs a `COPY ... FROM STDIN` and writes the number of rows it stored to `*stored`.
     *
     * RETURNS: `OK`; `STOPPED` when `source` did, with nothing stored; or an error. */
    Status (*copy_in)(
        HostCtx ctx, HandleId conn, StrView sql, const PartSource *source, uint64_t *stored,
        const ErrorSink *error);
    /* Runs a `COPY ... TO STDOUT` and gives what it sends to `sink`.
     *
     * RETURNS: `OK`; `STOPPED` when `sink` did; or an error. */
    Status (*copy_out)(
        HostCtx ctx, HandleId conn, StrView sql, const PartSink *sink, const ErrorSink *error);
    /* Begins a statement whose rows are asked for, and writes their handle to `*out`. Dropping the handle ends
     * the statement; until then its connection takes no other one.
     *
     * RETURNS: `OK`, or an error. What the database says of the statement is said by `rows_next`. */
    Status (*rows_open)(
        HostCtx ctx, HandleId conn, const StatementView *statement, HandleId *out, const ErrorSink *error);
    /* Writes the next block of rows to `block`, and nothing after the last one. One call at a time.
     *
     * RETURNS: `OK`; or an error, maybe after some blocks. */
    Status (*rows_next)(HostCtx ctx, HandleId rows, const BytesSink *block, const ErrorSink *error);
} StreamTable;

/* To what and where to listen. */
typedef struct ListenView {
    /* Size of this struct as the plugin knows it, in bytes. */
    size_t size;
    /* `postgres://...`. */
    StrView url;
    /* The channels. */
    const StrView *channels;
    /* How many. */
    size_t channel_count;
    /* How many notifications are kept until somebody asks for them; 0: the host's default. */
    size_t capacity;
} ListenView;

/* What was heard. OWNERSHIP: the host's. LIFETIME: the call. */
typedef struct NoticeView {
    /* Size of this struct as the host knows it, in bytes. */
    size_t size;
    /* One of the `PLUGIN_NOTICE_*` constants. */
    uint32_t kind;
    /* The server's process that said it. */
    int32_t backend;
    /* The channel. */
    StrView channel;
    /* What was said. */
    StrView payload;
} NoticeView;

/* Somebody notified a channel. */
#define PLUGIN_NOTICE_NOTIFICATION 1

/* Notifications may be missing here: the connection was lost and made again, or the queue was full. */
#define PLUGIN_NOTICE_GAP 2

/* Receives a notice. OWNERSHIP: the caller's. LIFETIME: the call. */
typedef struct NoticeSink {
    /* Passed back to `take`. */
    void *data;
    /* Copies the notice. Called at most once a call, on the calling thread. Must not unwind. */
    void (*take)(void *data, const NoticeView *notice);
} NoticeSink;

/* The functions of subscriptions, which the registry can keep. None of them unwinds. */
typedef struct ListenTable {
    /* Size of this struct as the host knows it, in bytes. */
    size_t size;
    /* Connects, and listens from then on.
     *
     * THREAD: any. BLOCKS: while it connects. RETURNS: `OK` and `*out`; `INVALID`; `UNREACHABLE`. */
    Status (*open)(HostCtx ctx, const ListenView *config, HandleId *out, const ErrorSink *error);
    /* Gives what was heard first to `notice`; nothing, if nothing comes within `timeout_ns`.
     *
     * THREAD: any. BLOCKS: up to `timeout_ns`. RETURNS: `OK`; `TIMED_OUT`; `NOT_FOUND`: no subscription. */
    Status (*next)(
        HostCtx ctx, HandleId listener, uint64_t timeout_ns, const NoticeSink *notice,
        const ErrorSink *error);
} ListenTable;

/* Opens a pool. */
#define PLUGIN_OPEN_POOL 0
/* Opens a connection that is nobody else's. */
#define PLUGIN_OPEN_STEADY 1
/* Opens a set of connections, one for each thread that asks. */
#define PLUGIN_OPEN_PERSISTENT 2

/* The pool opens though the database cannot be reached. */
#define PLUGIN_OPEN_LAZY 1
/* The connection that has been idle longest is lent first. */
#define PLUGIN_OPEN_FIFO 2
/* A backtrace is taken at each checkout, for the report of a forgotten connection. */
#define PLUGIN_OPEN_LEAK_BACKTRACE 4
/* No connection is replaced unseen. */
#define PLUGIN_OPEN_NO_FAILOVER 8
/* Closing a connection ends its transaction only. */
#define PLUGIN_OPEN_NOT_CLOSEABLE 16
/* All that can be undone is undone between two borrowers. */
#define PLUGIN_OPEN_RESET_ALWAYS 32
/* Each borrower gets a new connection. */
#define PLUGIN_OPEN_RESET_REOPEN 64

/* Means "the default" where a number is expected and zero has a meaning of its own. */
#define PLUGIN_DEFAULT_COUNT UINT32_MAX
/* Means "never" where nanoseconds are expected. */
#define PLUGIN_NEVER_NS (UINT64_MAX - 1)

/* Ask whether a connection works when it is lent out. */
#define PLUGIN_PING_CHECKOUT 1
/* Ask before a statement that is not a query. */
#define PLUGIN_PING_STATEMENT 2
/* Ask before a query. */
#define PLUGIN_PING_QUERY 4

/* How to open a pool, a steady connection or one for each thread. OWNERSHIP: the plugin's. LIFETIME: the call.
 *
 * Durations are in nanoseconds; `PLUGIN_DEFAULT_NS`: the host's default, `PLUGIN_NEVER_NS`: none. */
typedef struct OpenView {
    /* Size of this struct as the plugin knows it, in bytes. */
    size_t size;
    /* `postgres://...` or `sqlite:PATH`. */
    StrView url;
    /* What to open: one of `PLUGIN_OPEN_POOL`, `PLUGIN_OPEN_STEADY`, `PLUGIN_OPEN_PERSISTENT`. */
    uint32_t kind;
    /* The other `PLUGIN_OPEN_*` constants, added up. */
    uint32_t flags;
    /* Most connections at a time; 0: the host's default. */
    uint32_t max_size;
    /* Connections that are kept open and idle. */
    uint32_t min_idle;
    /* Most idle connections; `PLUGIN_DEFAULT_COUNT`: `max_size`. */
    uint32_t max_idle;
    /* Most connections that are shared. */
    uint32_t max_shared;
    /* The `PLUGIN_PING_*` constants, added up; `PLUGIN_DEFAULT_COUNT`: the host's default. */
    uint32_t ping;
    /* How long a checkout waits; 0: fail at once. */
    uint64_t checkout_timeout_ns;
    /* How long a connection beyond `min_idle` may be idle. */
    uint64_t idle_timeout_ns;
    /* How old a connection may get. */
    uint64_t max_lifetime_ns;
    /* How often idle connections are asked whether they work. */
    uint64_t ping_idle_ns;
    /* After what time a connection that is lent out is reported as forgotten. */
    uint64_t leak_after_ns;
    /* A connection that worked that recently is not asked. */
    uint64_t ping_after_ns;
    /* How long the answer to a ping may take. */
    uint64_t ping_timeout_ns;
    /* Statements after which a connection is replaced; 0: any number. */
    uint64_t max_uses;
    /* The statement to ask with; empty: the driver's way. */
    StrView ping_sql;
    /* Statements that prepare a new connection. */
    const StrView *session;
    /* How many. */
    size_t session_count;
    /* SQLSTATEs and classes of them after which a connection is of no more use. */
    const StrView *is_fatal;
    /* How many. */
    size_t fatal_count;
} OpenView;

/* The functions of pools and steady connections beyond `DbTable`'s. All of them block; none unwinds. */
typedef struct PoolTable {
    /* Size of this struct as the host knows it, in bytes. */
    size_t size;
    /* Opens a pool, a steady connection or a set of them. The handle of a set is for `checkout`, as a pool's.
     *
     * RETURNS: `OK` and `*out`; `INVALID` for a bad setting, which the text names; `UNREACHABLE`. */
    Status (*open)(HostCtx ctx, const OpenView *view, HandleId *out, const ErrorSink *error);
    /* Lends a share in a connection of a pool. RETURNS: as `checkout` of `DbTable`. */
    Status (*checkout_shared)(
        HostCtx ctx, HandleId pool, uint64_t timeout_ns, HandleId *out, const ErrorSink *error);
    /* Closes a steady connection, or ends its transaction only if it is not closeable; the same on a pool's. */
    Status (*close)(HostCtx ctx, HandleId conn, const ErrorSink *error);
} PoolTable;

/* What a library in C exports, under PLUGIN_ENTRY_SYMBOL. */
__attribute__((visibility("default"))) const PluginTable *plugin_entry_v1(const HostTable *host);

#ifdef __cplusplus
}
#endif

#endif
