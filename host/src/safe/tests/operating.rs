//! What an operator's orders do.

use serde_json::{Value, json};

use super::{changes, contents, delete, put, put_for, soon, version};
use crate::safe::{Change, Expiry, Order, Safes};

fn order(safes: &Safes, order: Value) -> Result<Value, String> {
    let order: Order = serde_json::from_value(order).unwrap();
    safes.operate(&order).map_err(|error| error.to_string())
}

#[test]
fn orders_look_and_change() {
    let directory = tempfile::tempdir().unwrap();
    let safes = Safes::new(directory.path().to_owned());
    let safe = safes.open("shop").unwrap();
    let key = b"\x00\x02a b\x00".to_vec();
    let map = Change::Put { key, encoding: 1, value: vec![0x81, 0xa1, b'n', 7], expiry: Expiry::Never };
    version(safe.write(changes([map, put("raw", b"\xff!"), put_for("rax", b"", 1 << 40)]), soon()));

    let all = order(&safes, json!({ "order": "list", "safe": "shop", "prefix": "", "limit": 9 })).unwrap();
    let keys: Vec<&str> =
        all["entries"].as_array().unwrap().iter().map(|e| e["key"].as_str().unwrap()).collect();
    assert_eq!((keys, &all["has_more"]), (vec![r"\x00\x02a b\x00", "raw", "rax"], &json!(false)));
    let some = order(&safes, json!({ "order": "list", "safe": "shop", "prefix": "ra", "limit": 1 })).unwrap();
    assert_eq!((&some["entries"][0]["key"], &some["has_more"]), (&json!("raw"), &json!(true)));
    let none =
        order(&safes, json!({ "order": "list", "safe": "shop", "prefix": "r\\x00", "limit": 1 })).unwrap();
    assert_eq!(none, json!({ "entries": [], "has_more": false }));

    let get = |key: &str| order(&safes, json!({ "order": "get", "safe": "shop", "key": key }));
    assert_eq!(get(r"\x00\x02a b\x00").unwrap()["value"], json!({ "n": 7 }));
    let raw = get("raw").unwrap();
    assert_eq!((&raw["value"], &raw["bytes"], &raw["version"]), (&Value::Null, &json!(r"\xff!"), &json!(1)));

    let value = json!({ "a": [1, "x", null] });
    let put = json!({ "order": "put", "safe": "shop", "key": "new", "value": value });
    assert_eq!(order(&safes, put).unwrap(), json!({ "version": 2 }));
    assert_eq!(get("new").unwrap()["value"], value);
    let remove = || order(&safes, json!({ "order": "remove", "safe": "shop", "key": "new" }));
    assert!(remove().is_ok());
    assert!(remove().unwrap_err().starts_with("there is no entry `new`"));
    assert!(get(r"a\").unwrap_err().contains("is no key"));
    let stranger = order(&safes, json!({ "order": "get", "safe": "shup", "key": "k" })).unwrap_err();
    assert!(stranger.starts_with("there is no safe `shup`"), "{stranger}");
    assert_eq!(safes.names().unwrap(), ["shop"], "looking made a safe");
}

/// A place that cannot be written is no fault of the safe, which goes on as it is.
#[test]
fn backup_to_a_bad_place_says_which_and_leaves_the_safe_alone() {
    let directory = tempfile::tempdir().unwrap();
    let safes = Safes::new(directory.path().join("safe"));
    let safe = safes.open("shop").unwrap();
    version(safe.write(changes([put("k", b"v")]), soon()));
    std::fs::write(directory.path().join("file"), "").unwrap();
    for place in ["none/copy.redb", "file/copy.redb", "."] {
        let file = directory.path().join(place);
        let said = order(&safes, json!({ "order": "backup", "safe": "shop", "file": file })).unwrap_err();
        assert!(said.starts_with("cannot back up to "), "{said}");
        assert!(!said.contains("cannot be read") && !said.contains("safe `shop`"), "{said}");
    }
    // A place without room: the engine's words, and not the safe's.
    let full = json!({ "order": "backup", "safe": "shop", "file": "/proc/copy.redb" });
    assert!(order(&safes, full).unwrap_err().starts_with("cannot back up to /proc/copy.redb: "));
    assert_eq!(safe.status().recoveries, 0, "the live safe was opened anew");
    assert_eq!(contents(&safe).len(), 1);
}

#[test]
fn backup_is_a_safe_with_the_same_contents() {
    let directory = tempfile::tempdir().unwrap();
    let safes = Safes::new(directory.path().join("safe"));
    let safe = safes.open("shop").unwrap();
    version(safe.write(changes([put("k", b"v"), put_for("short", b"", 1 << 40)]), soon()));
    let file = directory.path().join("copy.redb");
    let backup = || order(&safes, json!({ "order": "backup", "safe": "shop", "file": file }));
    assert_eq!(backup().unwrap()["entries"], 2);
    assert!(backup().unwrap_err().contains("there is such a file already"));

    let restored = Safes::new(directory.path().to_owned());
    let copy = restored.open("copy").unwrap();
    assert_eq!(contents(&copy), contents(&safe));
    assert_eq!(version(copy.write(changes([put("next", b"")]), soon())), 2);
    // Put back in place of what has gone on, or of a safe that is gone.
    version(safe.write(changes([put("k", b"newer")]), soon()));
    let restore =
        |safes: &Safes, name: &str| order(safes, json!({ "order": "restore", "safe": name, "file": file }));
    assert!(restore(&safes, "shop").unwrap_err().contains("is in use"));
    assert!(restore(&Safes::new(directory.path().join("safe")), "shop").unwrap_err().contains("is in use"));
    safes.close();
    let later = Safes::new(directory.path().join("safe"));
    copy.close();
    for name in ["shop", "gone"] {
        assert_eq!(restore(&later, name).unwrap()["entries"], 3);
        assert_eq!(contents(&later.open(name).unwrap()).len(), 3);
    }
    let check = order(&restored, json!({ "order": "check", "safe": "copy" }));
    assert!(check.is_err(), "a closed safe answers: {check:?}");
    let check = order(&later, json!({ "order": "check", "safe": "shop" })).unwrap();
    assert_eq!(check["safes"][0]["is_sound"], true, "{check}");
}

#[test]
fn check_finds_a_flipped_bit() {
    let directory = tempfile::tempdir().unwrap();
    let safes = Safes::new(directory.path().to_owned());
    let secret = b"thirty-two bytes of great value!";
    version(safes.open("a").unwrap().write(changes([put("k", secret), put("fine", b"")]), soon()));
    safes.close();
    let file = directory.path().join("a.redb");
    let mut bytes = std::fs::read(&file).unwrap();
    let places: Vec<usize> = (0..bytes.len() - 32).filter(|at| &bytes[*at..at + 32] == secret).collect();
    for at in places {
        bytes[at + 3] ^= 4;
    }
    std::fs::write(&file, bytes).unwrap();
    let safes = Safes::new(directory.path().to_owned());
    let check = order(&safes, json!({ "order": "check" })).unwrap();
    let expected = json!({ "name": "a", "entries": 2, "damaged": ["`k`"], "is_sound": false });
    assert_eq!(check["safes"], json!([expected]));
    let copy = json!({ "order": "backup", "safe": "a", "file": directory.path().join("b.redb") });
    assert!(order(&safes, copy).unwrap_err().contains("the value under `k` is damaged"));
    assert_eq!(safes.names().unwrap(), ["a"]);
}

/// A file without its journal is older than what was acknowledged; so it is taken with it.
#[test]
fn file_of_a_killed_host_is_restored_with_its_journal() {
    let directory = tempfile::tempdir().unwrap();
    let killed = Safes::new(directory.path().join("killed"));
    let safe = killed.open("a").unwrap();
    for number in 0..5 {
        version(safe.write(changes([put(&format!("{number}"), b"acknowledged")]), soon()));
    }
    let copy = directory.path().join("copy.redb");
    for end in ["", "-journal"] {
        let from = directory.path().join(format!("killed/a.redb{end}"));
        std::fs::copy(from, directory.path().join(format!("copy.redb{end}"))).unwrap();
    }
    let safes = Safes::new(directory.path().join("safe"));
    let restore = || order(&safes, json!({ "order": "restore", "safe": "b", "file": copy }));
    assert_eq!(restore().unwrap()["entries"], 5);
    // What is left of its journal is void for the file that comes after it.
    std::fs::remove_file(directory.path().join("copy.redb-journal")).unwrap();
    assert_eq!(restore().unwrap()["entries"], 1);
    let restored = safes.open("b").unwrap();
    version(restored.write(changes([put("next", b"")]), soon()));
    assert_eq!(restored.len().unwrap(), 2);
    let files: Vec<_> = std::fs::read_dir(directory.path().join("safe")).unwrap().flatten().collect();
    assert_eq!(files.len(), 2, "{files:?}");
    assert_eq!(contents(&safe).len(), 5);
}

#[test]
fn compacting_is_recommended_where_it_is_worth_a_pause() {
    let directory = tempfile::tempdir().unwrap();
    let safes = Safes::new(directory.path().to_owned());
    let safe = safes.open("a").unwrap();
    let large = |key: u32| put(&format!("{key}"), &[7; 1 << 20]);
    for first in [0, 10, 20] {
        let puts: Vec<_> = (first..first + 10).map(large).collect();
        version(safe.write(changes(puts), soon()));
    }
    let told = || {
        let shown = order(&safes, json!({ "order": "stat", "safe": "a" })).unwrap();
        let safe = &shown["safes"][0];
        let (free, file) = (safe["free_bytes"].as_u64().unwrap(), safe["file_bytes"].as_u64().unwrap());
        (free, file, safe["is_worth_compacting"] == true)
    };
    let (free, file, is_worth_it) = told();
    assert!(file >= 30 << 20 && file - free >= 30 << 20 && !is_worth_it, "{free} of {file}");
    let deletes: Vec<_> = (0..29).map(|key| delete(&format!("{key}"))).collect();
    version(safe.write(changes(deletes), soon()));
    let (free, file, is_worth_it) = told();
    assert!(is_worth_it && free >= file - (4 << 20), "{free} of {file}");
    safe.compact().unwrap();
    let (free, file, is_worth_it) = told();
    assert!(!is_worth_it && file < 8 << 20, "{free} of {file}");
}
