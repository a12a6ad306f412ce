//! Tests of the table, called as a plugin calls it.
#![expect(unsafe_code, reason = "calls the table's functions as a plugin does")]

use std::ffi::c_void;
use std::path::Path;
use std::ptr;
use std::sync::Arc;

use plugin_api::abi::{
    BytesSink, BytesView, CHANGE_ADD, CHANGE_PUT, ENCODING_BYTES, ENCODING_MESSAGEPACK, ErrorSink, ErrorView,
    HandleId, SAFE_FOR_EVER, SAFE_NO_VALUES, SafeChangeView, SafeCheckView, SafeRangeView, SafeWriteView,
    Status,
};
use plugin_api::safe::block::{Item, Reader};

use super::{OwnSafe, SAFE_TABLE};
use crate::hostcall::Caller;
use crate::safe::Safes;

/// A generation that calls.
struct Plugin(Caller);

unsafe extern "C" fn report(data: *mut c_void, error: *const ErrorView) {
    // SAFETY: the host's error is valid during this call.
    let text = unsafe { (*error).message.as_bytes() }.to_vec();
    // SAFETY: `data` is the text that the caller borrows for the whole call.
    unsafe { *data.cast::<String>() = String::from_utf8(text).unwrap() };
}

unsafe extern "C" fn append(data: *mut c_void, bytes: BytesView) {
    // SAFETY: `data` is the vector that the caller borrows for the whole call; the bytes are the host's.
    unsafe { (*data.cast::<Vec<u8>>()).extend_from_slice(bytes.as_slice()) };
}

impl Plugin {
    fn new(name: &str, directory: &Path) -> Plugin {
        Plugin::of(name, &OwnSafe::new(Arc::new(Safes::new(directory.to_owned()))))
    }

    fn of(name: &str, safe: &OwnSafe) -> Plugin {
        Plugin(Caller {
            plugin: name.into(),
            generation: 1,
            registry: Arc::default(),
            overlay: Arc::new(crate::registry::Overlay::committed()),
            handles: Arc::default(),
            data_dir: "/nowhere".into(),
            safe: safe.for_another(),
            code: crate::pins::Code::new(Path::new("/nowhere"), || ()),
        })
    }

    fn commit(
        &self,
        checks: &[SafeCheckView],
        changes: &[SafeChangeView],
    ) -> (Status, u64, Vec<i64>, String) {
        let write = SafeWriteView {
            size: size_of::<SafeWriteView>(),
            checks: checks.as_ptr(),
            check_count: checks.len(),
            changes: changes.as_ptr(),
            change_count: changes.len(),
            timeout_ns: 0,
        };
        let (mut version, mut results, mut words) = (99, vec![99; changes.len()], String::new());
        let sink = ErrorSink { data: (&raw mut words).cast(), report: Some(report) };
        let ctx = (&raw const self.0).cast();
        // SAFETY: all pointers are to locals that outlive the call; `results` has room for each change.
        let status = unsafe {
            (SAFE_TABLE.commit)(ctx, HandleId::NONE, &write, &mut version, results.as_mut_ptr(), &sink)
        };
        (status, version, results, words)
    }

    fn get(&self, safe: HandleId, key: &[u8]) -> (Status, Vec<u8>) {
        let (mut block, key) = (Vec::new(), BytesView::new(key));
        let sink = BytesSink { data: (&raw mut block).cast(), write: Some(append) };
        let ctx = (&raw const self.0).cast();
        // SAFETY: as in `commit`.
        let status = unsafe { (SAFE_TABLE.get)(ctx, safe, &key, 1, 0, &sink, ptr::null()) };
        (status, block)
    }

    fn value(&self, key: &[u8]) -> Option<Vec<u8>> {
        let (status, block) = self.get(HandleId::NONE, key);
        assert_eq!(status, Status::OK);
        match Reader::new(&block).item() {
            Some(Item::Entry { value, .. }) => Some(value.to_vec()),
            item => {
                assert_eq!(item, Some(Item::Absent));
                None
            }
        }
    }

    fn keys(&self, limit: u64) -> (Vec<Vec<u8>>, bool) {
        self.listed(limit, 0)
    }

    fn listed(&self, limit: u64, flags: u32) -> (Vec<Vec<u8>>, bool) {
        let range = SafeRangeView {
            size: size_of::<SafeRangeView>(),
            start: BytesView::EMPTY,
            end: BytesView::EMPTY,
            flags,
            limit,
        };
        let mut block = Vec::new();
        let sink = BytesSink { data: (&raw mut block).cast(), write: Some(append) };
        let ctx = (&raw const self.0).cast();
        // SAFETY: as in `commit`.
        let status = unsafe { (SAFE_TABLE.list)(ctx, HandleId::NONE, &range, &sink, ptr::null()) };
        assert_eq!(status, Status::OK);
        let (mut reader, mut keys) = (Reader::new(&block), Vec::new());
        loop {
            match reader.item().unwrap() {
                Item::Entry { key, .. } => keys.push(key.to_vec()),
                Item::End { has_more } => return (keys, has_more),
                Item::Absent => panic!("a list has no gaps"),
            }
        }
    }
}

fn change<'a>(kind: u32, key: &'a str, value: &'a str) -> SafeChangeView {
    SafeChangeView {
        kind,
        encoding: ENCODING_BYTES,
        key: BytesView::new(key.as_bytes()),
        value: BytesView::new(value.as_bytes()),
        delta: 0,
        initial: 0,
        expires_in_ms: SAFE_FOR_EVER,
    }
}

#[test]
fn plugin_puts_gets_adds_and_lists() {
    let directory = tempfile::tempdir().unwrap();
    let plugin = Plugin::new("a", directory.path());
    assert_eq!(plugin.value(b"k"), None);
    let add = SafeChangeView {
        encoding: ENCODING_MESSAGEPACK,
        delta: 5,
        initial: 2,
        ..change(CHANGE_ADD, "n", "")
    };
    let done = plugin.commit(&[], &[change(CHANGE_PUT, "k", "v"), add]);
    assert_eq!(done, (Status::OK, 1, vec![0, 7], String::new()));
    assert_eq!(plugin.value(b"k"), Some(b"v".to_vec()));
    assert_eq!(plugin.keys(0), (vec![b"k".to_vec(), b"n".to_vec()], false));
    assert_eq!(plugin.keys(1), (vec![b"k".to_vec()], true));
    let mut count = 0;
    // SAFETY: as in `commit`.
    let status =
        unsafe { (SAFE_TABLE.len)((&raw const plugin.0).cast(), HandleId::NONE, &mut count, ptr::null()) };
    assert_eq!((status, count), (Status::OK, 2));
}

/// What is left out takes no room, so the keys of large values come together.
#[test]
fn keys_alone_come_on_one_page_however_large_the_values() {
    let directory = tempfile::tempdir().unwrap();
    let plugin = Plugin::new("a", directory.path());
    let large = "x".repeat(3 << 20);
    for key in ["a", "b", "c"] {
        plugin.commit(&[], &[change(CHANGE_PUT, key, &large)]);
    }
    let all = vec![b"a".to_vec(), b"b".to_vec(), b"c".to_vec()];
    assert_eq!(plugin.listed(0, SAFE_NO_VALUES), (all, false));
    assert_eq!(plugin.listed(0, 0), (vec![b"a".to_vec()], true));
}

#[test]
fn conflict_names_the_check() {
    let directory = tempfile::tempdir().unwrap();
    let plugin = Plugin::new("a", directory.path());
    plugin.commit(&[], &[change(CHANGE_PUT, "k", "v")]);
    let check = |key: &'static str, version| SafeCheckView { key: BytesView::new(key.as_bytes()), version };
    let stale = plugin.commit(&[check("k", 1), check("k", 0)], &[change(CHANGE_PUT, "k", "w")]);
    let words = "check 1 of the write does not hold".to_owned();
    assert_eq!(stale, (Status::CONFLICT, 1, vec![99], words));
    assert_eq!(plugin.value(b"k"), Some(b"v".to_vec()));
}

#[test]
fn plugin_has_its_own_safe_and_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let way = OwnSafe::new(Arc::new(Safes::new(directory.path().to_owned())));
    let (a, b) = (Plugin::of("a", &way), Plugin::of("b", &way));
    a.commit(&[], &[change(CHANGE_PUT, "k", "of a")]);
    assert_eq!((a.value(b"k"), b.value(b"k")), (Some(b"of a".to_vec()), None));
    // A later generation of the same plugin finds it; an invented handle finds nothing.
    assert_eq!(Plugin::of("a", &way).value(b"k"), Some(b"of a".to_vec()));
    assert_eq!(a.get(HandleId(1), b"k").0, Status::NOT_FOUND);
}

#[test]
fn wrong_arguments_are_told() {
    let directory = tempfile::tempdir().unwrap();
    let plugin = Plugin::new("a", directory.path());
    for (wrong, words) in [
        (change(77, "k", ""), "a change is of the unknown kind 77"),
        (
            SafeChangeView { encoding: 300, ..change(CHANGE_PUT, "k", "") },
            "a value has the unknown encoding 300",
        ),
        (change(CHANGE_PUT, "", ""), "a key is not empty"),
    ] {
        let (status, _, _, told) = plugin.commit(&[], &[wrong]);
        assert_eq!((status, told.as_str()), (Status::INVALID, words));
    }
    plugin.commit(&[], &[change(CHANGE_PUT, "text", "five")]);
    assert_eq!(plugin.commit(&[], &[change(CHANGE_ADD, "text", "")]).0, Status::WRONG_TYPE);
}

#[test]
fn thread_that_must_not_block_is_told_so() {
    let directory = tempfile::tempdir().unwrap();
    let plugin = Plugin::new("a", directory.path());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        assert_eq!(plugin.get(HandleId::NONE, b"k").0, Status::INVALID);
        let (status, .., words) = plugin.commit(&[], &[change(CHANGE_PUT, "k", "v")]);
        let expected = "the safe's calls block; declare the route without `inline`";
        assert_eq!((status, words.as_str()), (Status::INVALID, expected));
    });
    assert_eq!(plugin.value(b"k"), None);
}
