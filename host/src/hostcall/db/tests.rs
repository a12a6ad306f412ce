//! Tests of the table, called as a plugin calls it.
#![expect(unsafe_code, reason = "calls the table's functions as a plugin does")]

use std::ffi::c_void;
use std::path::Path;
use std::ptr;
use std::sync::Arc;

use plugin_api::abi::{
    BytesSink, BytesView, DEFAULT_NS, ErrorSink, ErrorView, HandleId, HostCtx, PoolConfigView, StatementView,
    Status, StrView, TX_DEFERRABLE, TX_READ_ONLY, TX_SERIALIZABLE, TxOptionsView, VALUE_INT, VALUE_TEXT,
    ValueView,
};
use plugin_api::db::ErrorDetails;

use super::DB_TABLE;
use crate::db::{Block, Value};
use crate::hostcall::{Caller, OwnSafe};
use crate::safe::Safes;

/// A generation that calls, and the last error it was told.
struct Plugin {
    caller: Caller,
    error: (Status, String, String),
}

unsafe extern "C" fn report(data: *mut c_void, error: *const ErrorView) {
    // SAFETY: `data` is the tuple that `call` borrows for the whole call.
    let told = unsafe { &mut *data.cast::<(Status, String, String)>() };
    // SAFETY: the host's error is valid during this call.
    let error = unsafe { *error };
    let text = |view: StrView| {
        // SAFETY: the host's texts are valid during this call.
        String::from_utf8(unsafe { view.as_bytes() }.to_vec()).unwrap()
    };
    *told = (error.status, text(error.message), text(error.sqlstate));
}

unsafe extern "C" fn append(data: *mut c_void, bytes: BytesView) {
    // SAFETY: `data` is the vector that `query` borrows for the whole call; the bytes are the host's.
    unsafe { (*data.cast::<Vec<u8>>()).extend_from_slice(bytes.as_slice()) };
}

impl Plugin {
    fn new(data_dir: &Path) -> Plugin {
        let caller = Caller {
            plugin: "tester".into(),
            generation: 1,
            registry: Arc::default(),
            overlay: Arc::new(crate::registry::Overlay::committed()),
            handles: Arc::default(),
            data_dir: data_dir.to_owned(),
            safe: OwnSafe::new(Arc::new(Safes::new(data_dir.to_owned()))),
            code: crate::pins::Code::new(data_dir, || ()),
        };
        Plugin { caller, error: (Status::OK, String::new(), String::new()) }
    }

    fn call(&mut self, body: impl FnOnce(HostCtx, *const ErrorSink) -> Status) -> Status {
        let sink = ErrorSink { data: (&raw mut self.error).cast(), report: Some(report) };
        body((&raw const self.caller).cast(), &sink)
    }

    fn open(&mut self, url: &str) -> (Status, HandleId) {
        let mut pool = HandleId::NONE;
        let config = PoolConfigView {
            size: size_of::<PoolConfigView>(),
            url: StrView::new(url),
            max_size: 1,
            checkout_timeout_ns: 0,
        };
        // SAFETY: all pointers are to locals that outlive the call.
        let status = self.call(|ctx, error| unsafe { (DB_TABLE.pool_open)(ctx, &config, &mut pool, error) });
        (status, pool)
    }

    fn checkout(&mut self, pool: HandleId) -> (Status, HandleId) {
        let mut conn = HandleId::NONE;
        // SAFETY: as in `open`.
        let status =
            self.call(|ctx, error| unsafe { (DB_TABLE.checkout)(ctx, pool, DEFAULT_NS, &mut conn, error) });
        (status, conn)
    }

    fn query(&mut self, conn: HandleId, sql: &str, params: &[ValueView]) -> (Status, Vec<u8>) {
        let mut block = Vec::new();
        let statement = statement(sql, params);
        let rows = BytesSink { data: (&raw mut block).cast(), write: Some(append) };
        // SAFETY: as in `open`.
        let status = self.call(|ctx, error| unsafe { (DB_TABLE.query)(ctx, conn, &statement, &rows, error) });
        (status, block)
    }

    fn execute(&mut self, conn: HandleId, sql: &str) -> (Status, u64) {
        let mut affected = 99;
        let statement = statement(sql, &[]);
        // SAFETY: as in `open`.
        let status = self
            .call(|ctx, error| unsafe { (DB_TABLE.execute)(ctx, conn, &statement, &mut affected, error) });
        (status, affected)
    }

    fn details(&mut self) -> Result<Vec<u8>, Status> {
        let mut block = Vec::new();
        let out = BytesSink { data: (&raw mut block).cast(), write: Some(append) };
        // SAFETY: as in `open`.
        match self.call(|ctx, error| unsafe { (DB_TABLE.error_details)(ctx, &out, error) }) {
            Status::OK => Ok(block),
            status => Err(status),
        }
    }

    fn begin_with(&mut self, conn: HandleId, isolation: u32, access: u32, flags: u32) -> Status {
        let options = TxOptionsView { size: size_of::<TxOptionsView>(), isolation, access, flags };
        // SAFETY: as in `open`.
        self.call(|ctx, error| unsafe { (DB_TABLE.begin_with)(ctx, conn, &options, error) })
    }
}

#[test]
fn a_plugin_says_how_a_transaction_begins() {
    let mut plugin = Plugin::new(Path::new("/nowhere"));
    let pool = plugin.open("sqlite::memory:").1;
    let conn = plugin.checkout(pool).1;
    plugin.execute(conn, "CREATE TABLE t (id integer PRIMARY KEY)");
    for (isolation, access, flags) in [(9, 0, 0), (0, 9, 0), (0, 0, 2)] {
        assert_eq!(plugin.begin_with(conn, isolation, access, flags), Status::INVALID);
    }
    assert_eq!(plugin.begin_with(conn, TX_SERIALIZABLE, TX_READ_ONLY, TX_DEFERRABLE), Status::OK);
    assert_eq!(plugin.execute(conn, "INSERT INTO t VALUES (1)").0, Status::DATABASE);
    assert_eq!(plugin.error.2, "25006");
    assert_eq!(plugin.begin_with(conn, 0, TX_READ_ONLY, 0), Status::INVALID, "a savepoint");
    assert_eq!(plugin.begin_with(conn, 0, 0, 0), Status::OK, "a savepoint");
}

fn statement(sql: &str, params: &[ValueView]) -> StatementView {
    StatementView {
        size: size_of::<StatementView>(),
        sql: StrView::new(sql),
        params: params.as_ptr(),
        param_count: params.len(),
        flags: 0,
    }
}

fn text(text: &str) -> ValueView {
    ValueView { tag: VALUE_TEXT, bits: 0, bytes: BytesView::new(text.as_bytes()) }
}

#[test]
fn a_plugin_opens_checks_out_and_asks() {
    let data = tempfile::tempdir().unwrap();
    let mut plugin = Plugin::new(data.path());
    let (status, pool) = plugin.open("sqlite:it.db");
    assert_eq!((status, data.path().join("it.db").exists()), (Status::OK, true));
    let (_, conn) = plugin.checkout(pool);
    assert_eq!(plugin.execute(conn, "CREATE TABLE t (id integer PRIMARY KEY, a text)"), (Status::OK, 0));
    assert_eq!(plugin.execute(conn, "INSERT INTO t VALUES (7, 'x'), (8, 'y')"), (Status::OK, 2));
    let params = [text("y"), ValueView { tag: VALUE_INT, bits: 1, bytes: BytesView::EMPTY }];
    let (status, block) = plugin.query(conn, "SELECT id + $2 FROM t WHERE a = $1", &params);
    let block = Block::parse(block).unwrap();
    assert_eq!((status, block.cell(0, 0)), (Status::OK, Some(Ok(Value::Int(9)))));
    // A second checkout finds nothing left, until the handle is released.
    assert_eq!(plugin.checkout(pool).0, Status::EXHAUSTED);
    drop(plugin.caller.handles.remove(conn));
    assert_eq!(plugin.checkout(pool).0, Status::OK);
}

#[test]
fn failures_arrive_with_status_text_and_sqlstate() {
    let mut plugin = Plugin::new(Path::new("/nowhere"));
    assert_eq!(plugin.open("mysql://db/x").0, Status::INVALID);
    assert!(plugin.error.1.contains("names no database"), "{}", plugin.error.1);
    let pool = plugin.open("sqlite::memory:").1;
    let conn = plugin.checkout(pool).1;
    plugin.execute(conn, "CREATE TABLE t (id integer PRIMARY KEY)");
    plugin.execute(conn, "INSERT INTO t VALUES (1)");
    assert_eq!(plugin.execute(conn, "INSERT INTO t VALUES (1)"), (Status::DATABASE, 99));
    assert_eq!((plugin.error.0, plugin.error.2.as_str()), (Status::DATABASE, "23505"));
    // Asked by the thread that was told; then they are forgotten.
    let details = plugin.details().map(ErrorDetails::from_block).unwrap();
    assert_eq!((details.table.as_deref(), details.column.as_deref()), (Some("t"), Some("id")));
    assert_eq!(plugin.details(), Err(Status::NOT_FOUND));
    plugin.execute(conn, "INSERT INTO t VALUES (1)");
    assert_eq!(plugin.execute(HandleId(4711), "SELECT 1").0, Status::NOT_FOUND);
    assert_eq!(plugin.details(), Err(Status::NOT_FOUND), "of an earlier failure");
    let broken = ValueView { bytes: BytesView::new(&[0xff]), ..text("") };
    assert_eq!(plugin.query(conn, "SELECT $1", &[broken]).0, Status::INVALID);
    assert_eq!(plugin.error.1, "parameter $1 is not UTF-8");
    assert_eq!(plugin.query(conn, "SELECT $1", &[ValueView { tag: 77, ..text("") }]).0, Status::INVALID);
    assert_eq!(plugin.query(conn, "SELECT $1", &[]).0, Status::INVALID);
    // SAFETY: no pointer is read: the context is this plugin's, the statement null.
    let status =
        plugin.call(|ctx, error| unsafe { (DB_TABLE.query)(ctx, conn, ptr::null(), ptr::null(), error) });
    assert_eq!(status, Status::INVALID);
}

#[test]
fn a_handle_of_the_wrong_kind_is_not_found() {
    let mut plugin = Plugin::new(Path::new("/nowhere"));
    let pool = plugin.open("sqlite::memory:").1;
    assert_eq!(plugin.query(pool, "SELECT 1", &[]).0, Status::NOT_FOUND);
    assert_eq!(plugin.checkout(HandleId(4711)).0, Status::NOT_FOUND);
    let conn = plugin.checkout(pool).1;
    assert_eq!(plugin.checkout(conn).0, Status::NOT_FOUND);
}

#[test]
fn without_a_place_for_the_handle_nothing_is_kept() {
    let mut plugin = Plugin::new(Path::new("/nowhere"));
    let pool = plugin.open("sqlite::memory:").1;
    // SAFETY: the context is this plugin's; `out` is null, which the contract allows.
    let status =
        plugin.call(|ctx, error| unsafe { (DB_TABLE.checkout)(ctx, pool, 0, ptr::null_mut(), error) });
    assert_eq!((status, plugin.caller.handles.len()), (Status::INVALID, 1));
    assert_eq!(plugin.checkout(pool).0, Status::OK);
}

#[test]
fn a_thread_that_must_not_block_is_told_so() {
    let mut plugin = Plugin::new(Path::new("/nowhere"));
    let pool = plugin.open("sqlite::memory:").1;
    let conn = plugin.checkout(pool).1;
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        assert_eq!(plugin.open("sqlite::memory:").0, Status::INVALID);
        assert_eq!(plugin.checkout(pool).0, Status::INVALID);
        assert_eq!(plugin.execute(conn, "SELECT 1").0, Status::INVALID);
        // SAFETY: the context is this plugin's.
        assert_eq!(plugin.call(|ctx, error| unsafe { (DB_TABLE.begin)(ctx, conn, error) }), Status::INVALID);
        assert_eq!(plugin.error.1, "database calls block; declare the route without `inline`");
    });
    assert_eq!(plugin.execute(conn, "SELECT 1").0, Status::OK);
}
