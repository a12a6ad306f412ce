//! Tests of keys, ranges, values and the block.

use std::collections::BTreeSet;

use super::block::{self, Item, Reader};
use super::{Key, Range, ReadError, ToKey, entry};

fn key(key: impl ToKey) -> Key {
    key.to_key().into_owned()
}

#[test]
fn keys_sort_as_their_parts_do() {
    let ordered = [
        key((&b"bytes"[..],)),
        key(("",)),
        key(("", 1)),
        key(("a",)),
        key(("a", i64::MIN)),
        key(("a", -1)),
        key(("a", 0_u8)),
        key(("a", 256)),
        key(("a", i64::MAX)),
        key(("a", u64::MAX)),
        key(("a", false)),
        key(("a", true, "z")),
        key(("a\0",)),
        key(("a\0b", 1)),
        key(("ab", 1)),
        key(("b",)),
        key(" "),
        key("a"),
        key("a\0"),
        key("b"),
    ];
    for pair in ordered.windows(2) {
        assert!(pair[0] < pair[1], "{:?} and {:?}", pair[0], pair[1]);
    }
    assert_eq!(ordered.iter().collect::<BTreeSet<_>>().len(), ordered.len());
}

#[test]
fn keys_are_read_back() {
    assert_eq!(key(("a\0b", -5, true)).parts(), Some(("a\0b".to_owned(), -5_i64, true)));
    assert_eq!(key((&b"\0\xff\0"[..], u64::MAX)).parts(), Some((b"\0\xff\0".to_vec(), u64::MAX)));
    assert_eq!(key(("a", 300)).parts::<(String, u8)>(), None, "out of range");
    assert_eq!(key(("a", 3)).parts::<(String,)>(), None, "one part too many");
    assert_eq!(key("a").parts::<(String,)>(), None, "text is no tuple");
    assert_eq!((key("a").as_str(), key(("a",)).as_str()), (Some("a"), None));
    assert_eq!(key("\0odd"), key(("\0odd",)), "text that looks like a tuple is one");
}

#[test]
fn prefixes_hold_what_begins_so() {
    let within = |range: &Range, key: &Key| {
        let bytes = key.as_bytes();
        bytes >= &range.start[..] && (range.end.is_empty() || bytes < &range.end[..])
    };
    let users = Range::prefix("user:");
    assert!(["user:", "user:1", "user:\u{7f}"].iter().all(|text| within(&users, &key(text))));
    assert!(!["user", "user;", "v"].iter().any(|text| within(&users, &key(text))));
    let seven = Range::prefix(("user", 7));
    assert!(within(&seven, &key(("user", 7))) && within(&seven, &key(("user", 7, "x"))));
    assert!(!within(&seven, &key(("user", 8))) && !within(&seven, &key(("user", 70))));
    assert_eq!(Range::prefix("").end, Vec::<u8>::new());
}

#[test]
fn blocks_are_read_back_and_wrong_ones_refused() {
    let mut bytes = vec![block::ABSENT];
    bytes.extend(block::head(1, 7, 9, 3, 2).unwrap());
    bytes.extend(b"keyva");
    bytes.push(block::END);
    let mut reader = Reader::new(&bytes);
    assert_eq!(reader.item(), Some(Item::Absent));
    let entry = Item::Entry { encoding: 1, version: 7, expires_at: 9, key: b"key", value: b"va" };
    assert_eq!(reader.item(), Some(entry));
    assert_eq!((reader.item(), reader.item()), (Some(Item::End { has_more: false }), None));
    for cut in 2..bytes.len() - 1 {
        let mut reader = Reader::new(&bytes[1..cut]);
        assert_eq!(reader.item(), None, "cut to {cut}");
    }
    assert_eq!(Reader::new(&[9]).item(), None);
    assert!(matches!(entry::read_page(&Range::all(), &bytes[..1]), Err(ReadError::Host { .. })));
}

#[test]
fn page_says_where_the_next_begins() {
    let mut bytes = block::head(0, 1, 0, 1, 0).unwrap().to_vec();
    bytes.extend(b"k");
    bytes.push(block::MORE);
    let page = entry::read_page(&Range::prefix("").limit(1), &bytes).unwrap();
    assert_eq!(page.next, Some(Range::all().limit(1).after(&key("k"))));
    let back = entry::read_page(&Range::all().reverse(), &bytes).unwrap();
    assert_eq!(back.next, Some(Range::all().reverse().until("k")));
}

#[cfg(feature = "serde")]
mod values {
    use serde::{Deserialize, Serialize};

    use super::super::{ReadError, value};
    use super::key;

    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    struct Old {
        name: String,
    }

    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    struct New {
        #[serde(default)]
        visits: u32,
        name: String,
    }

    #[test]
    fn type_may_gain_and_lose_fields() {
        let key = key("k");
        let old = value::encode(&key, &Old { name: "x".to_owned() }).unwrap();
        let new = New { visits: 0, name: "x".to_owned() };
        assert_eq!(value::decode::<New>(&key, 1, &old).unwrap(), new);
        let new = value::encode(&key, &new).unwrap();
        assert_eq!(value::decode::<Old>(&key, 1, &new).unwrap(), Old { name: "x".to_owned() });
    }

    #[test]
    fn value_of_another_type_is_an_error_that_names_key_and_type() {
        let key = key("k");
        let bytes = value::encode(&key, &7).unwrap();
        let error = value::decode::<Old>(&key, 1, &bytes).unwrap_err();
        assert!(matches!(error, ReadError::Decode { .. }));
        let words = error.to_string();
        assert!(words.starts_with("the value under `k` is no `") && words.contains("Old`: "), "{words}");
        let raw = value::decode::<u32>(&key, 0, &bytes).unwrap_err().to_string();
        assert!(raw.ends_with("it was put as bytes"), "{raw}");
    }
}
