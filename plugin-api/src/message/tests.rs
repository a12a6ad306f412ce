//! Facts about values that are written: they read back as they were, or are not written.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fmt::Debug;
use std::marker::PhantomData;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{pack, unpack};

fn packed<T: Serialize>(value: &T) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    pack(value, &mut bytes).map(|()| bytes)
}

/// The value comes back.
#[track_caller]
fn returns<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: T) {
    let bytes = packed(&value).unwrap_or_else(|error| panic!("{value:?}: {error}"));
    assert_eq!(unpack::<T>(&bytes), Ok(value));
}

/// The value is not written, for this reason.
#[track_caller]
fn refused<T: Serialize + Debug>(value: &T, reason: &str) {
    match packed(value) {
        Ok(bytes) => panic!("{value:?} is written as {bytes:?}"),
        Err(error) => assert!(error.contains(reason), "{value:?}: {error}"),
    }
}

#[derive(Serialize, Deserialize, Debug, PartialEq, Clone)]
struct Unit;
#[derive(Serialize, Deserialize, Debug, PartialEq, Clone)]
struct Wrapper<T>(T);
#[derive(Serialize, Deserialize, Debug, PartialEq, Clone)]
struct Pair<T>(T, T);
#[derive(Serialize, Deserialize, Debug, PartialEq, Clone)]
struct Empty {}
#[derive(Serialize, Deserialize, Debug, PartialEq, Clone)]
struct NoFields();
#[derive(Serialize, Deserialize, Debug, PartialEq, Clone)]
struct Named<T> {
    first: T,
    second: Option<T>,
}
#[derive(Serialize, Deserialize, Debug, PartialEq, Clone)]
enum Choice<T> {
    Unit,
    One(T),
    Two(T, T),
    Named { of: T },
    Nothing(),
    NoFields {},
}
#[derive(Serialize, Deserialize, Debug, PartialEq, Clone)]
struct Flat<T> {
    own: u8,
    #[serde(flatten)]
    others: BTreeMap<String, T>,
}
#[derive(Serialize, Deserialize, Debug, PartialEq, Clone)]
struct FlatStruct<T> {
    own: u8,
    #[serde(flatten)]
    within: Named<T>,
}
#[derive(Serialize, Deserialize, Debug, PartialEq, Clone)]
struct Chain {
    next: Option<Box<Chain>>,
}

#[test]
fn some_of_nothing_is_refused_wherever_it_is() {
    let nothing = "would be read as `None`";
    refused(&Some(None::<u8>), nothing);
    refused(&Some(()), nothing);
    refused(&Some(Unit), nothing);
    refused(&Some(PhantomData::<u8>), nothing);
    refused(&Some(Some(Some(None::<u8>))), nothing);
    refused(&Some(Wrapper(None::<u8>)), nothing);
    refused(&Some(Wrapper(Wrapper(()))), nothing);
    refused(&Wrapper(Some(Wrapper(Unit))), nothing);
    refused(&Some(Box::new(None::<u8>)), nothing);
    refused(&Some(serde_json::Value::Null), nothing);
    refused(&vec![Some(Some(1)), Some(None), None], nothing);
    refused(&(1, "a", Some(())), nothing);
    refused(&HashMap::from([("a", Some(None::<u8>))]), nothing);
    refused(&HashMap::from([(Some(()), 1)]), nothing);
    refused(&Named { first: Some(None::<u8>), second: None }, nothing);
    refused(&Named { first: None::<u8>, second: Some(None) }, nothing);
    refused(&Choice::One(Some(None::<u8>)), nothing);
    refused(&Choice::Named { of: Some(()) }, nothing);
    refused(&Flat { own: 1, others: BTreeMap::from([("a".to_owned(), Some(()))]) }, nothing);
    refused(&[Pair(Some(Unit), None)], nothing);
}

#[test]
fn options_that_hold_something_come_back() {
    returns(None::<u8>);
    returns(Some(0_u8));
    returns(Some(Some(false)));
    returns(None::<Option<Option<u8>>>);
    returns(Some(Wrapper(Some(Wrapper(1)))));
    returns(Some(Vec::<u8>::new()));
    returns(Some(String::new()));
    returns(Some(Empty {}));
    returns(Some(NoFields()));
    returns(Some([(); 0]));
    returns(Some(vec![None::<u8>]));
    returns(Some((None::<u8>, ())));
    returns(Some(Choice::<()>::Unit));
    returns(Some(Choice::One(None::<u8>)));
    returns(Some(Choice::One(())));
    returns(Some(Named { first: (), second: None }));
    returns(Some(Named { first: None::<u8>, second: None }));
}

#[test]
fn numbers_come_back_to_the_bit() {
    for number in [0, 1, -1, i64::MAX.into(), i64::MIN.into(), u64::MAX.into(), i128::MAX, i128::MIN] {
        returns(number);
        returns(Named { first: number, second: Some(number) });
        returns(vec![Choice::One(number)]);
        returns(HashMap::from([(number, number)]));
    }
    for number in [0, 1, u64::MAX.into(), u128::from(u64::MAX) + 1, u128::MAX] {
        returns(number);
        returns(Some(number));
        returns(BTreeMap::from([(number, Choice::Two(number, number))]));
    }
    for bits in
        [0, 1, 0x8000_0000_0000_0000, f64::NAN.to_bits(), 0x7ff0_0000_0000_0001, f64::INFINITY.to_bits()]
    {
        let value = f64::from_bits(bits);
        let bytes = packed(&(value, Some(value))).unwrap();
        let (one, other): (f64, Option<f64>) = unpack(&bytes).unwrap();
        assert_eq!((one.to_bits(), other.map(f64::to_bits)), (bits, Some(bits)));
    }
    returns((f32::MIN_POSITIVE, f32::MAX, u8::MAX, i8::MIN, u16::MAX, char::MAX, '\0', true));
}

#[test]
fn containers_and_keys_of_every_kind_come_back() {
    returns(());
    returns((Unit, Empty {}, NoFields(), PhantomData::<u8>));
    returns(vec![(); 3]);
    returns([[0_u8; 0]; 4]);
    returns((String::new(), "\u{10ffff}\0".to_owned(), vec![0_u8, 255]));
    returns(BTreeMap::from([(vec![1, 2], "list"), (vec![], "none")].map(|(k, v)| (k, v.to_owned()))));
    returns(BTreeMap::from([(None, 1), (Some(2), 3)]));
    returns(BTreeMap::from([((), 1)]));
    returns(BTreeMap::from([((1, true, 'x'), BTreeMap::from([(false, ())]))]));
    returns(BTreeSet::from([[1, 2], [3, 4]]));
    returns(VecDeque::from([Choice::Unit, Choice::One(1), Choice::Two(1, 2), Choice::Named { of: 3 }]));
    returns(vec![Choice::<u8>::Nothing(), Choice::NoFields {}]);
    returns(vec![Ok::<u8, String>(1), Err("no".to_owned())]);
    returns((Duration::MAX, IpAddr::from([127, 0, 0, 1]), SocketAddr::from((Ipv6Addr::LOCALHOST, 80))));
    returns(serde_json::json!({ "a": [null, 1.5, -3, u64::MAX, { "b": {} }], "": "text" }));
}

#[test]
fn flattened_structs_come_back_or_are_refused() {
    fn with<T>(key: &str, value: T) -> Flat<T> {
        Flat { own: 1, others: BTreeMap::from([(key.to_owned(), value)]) }
    }
    returns(with("other", u64::MAX));
    returns(with("other", Some(f64::MIN)));
    refused(&with("own", 2), "the same key twice");
    refused(&with("other", u128::MAX), "128 bits");
    refused(&with("other", 1_i128), "128 bits");
    refused(&with("a", vec![i128::MIN]), "128 bits");
    returns(with("a", vec![Some(i64::MIN)]));
    returns(FlatStruct { own: 1, within: Named { first: Choice::One(2), second: None } });
    returns(FlatStruct { own: 1, within: Named { first: vec![(1, "x".to_owned())], second: Some(vec![]) } });
    #[derive(Serialize, Debug)]
    struct Twice {
        first: u8,
        #[serde(flatten)]
        within: Named<u8>,
    }
    refused(&Twice { first: 1, within: Named { first: 2, second: None } }, "the same key twice");
}

/// Whatever is accepted is read, however deep: the first refusal comes before the reader's own.
#[test]
fn nested_values_come_back_or_are_refused() {
    let deep = std::thread::Builder::new().stack_size(256 << 20);
    let test = || {
        let mut seen = [0; 2];
        for depth in [1, 100, 500, 509, 510, 511, 512, 513, 1000, 1020, 1021, 1022, 1023, 1024, 1100, 3000] {
            let mut chain = Chain { next: None };
            let mut lists = serde_json::Value::Null;
            let mut choice = Choice::Unit;
            let mut pairs: Choice<Vec<u8>> = Choice::Unit;
            for _ in 0..depth {
                chain = Chain { next: Some(Box::new(chain)) };
                lists = serde_json::Value::Array(vec![lists]);
                choice = Choice::Unit;
                pairs = Choice::Two(vec![], vec![]);
            }
            returns((choice as Choice<u8>, pairs));
            for outcome in [
                packed(&chain).map(|bytes| assert_eq!(unpack::<Chain>(&bytes), Ok(chain))),
                packed(&lists).map(|bytes| assert_eq!(unpack::<serde_json::Value>(&bytes), Ok(lists))),
            ] {
                seen[usize::from(outcome.is_ok())] += 1;
                assert!(outcome.is_ok() || depth > 1000, "{depth}: {outcome:?}");
            }
        }
        assert!(seen[0] > 0 && seen[1] > 0, "{seen:?}");
    };
    deep.spawn(test).unwrap().join().unwrap();
}

/// A value of chance, of everything that can be nested.
#[derive(Serialize, Deserialize, Debug, PartialEq, Clone)]
enum Any {
    Unit,
    Number(i64),
    Wide(i128),
    Float(u64),
    Text(String),
    Option(Option<Box<Any>>),
    Options(Option<Option<Box<Any>>>),
    Wrapped(Option<Wrapper<Option<u8>>>),
    Nothing(Option<()>),
    List(Vec<Any>),
    Pair(Box<(Any, Any)>),
    Map(Vec<(Any, Any)>),
    Named { first: Box<Any>, second: Option<Box<Any>> },
    Flat(Flat<Option<u8>>),
    Bytes(Vec<u8>),
}

struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    fn any(&mut self, depth: u64) -> Any {
        let some = |numbers: &mut Numbers| Box::new(numbers.any(depth.saturating_sub(1)));
        match self.below(if depth == 0 { 6 } else { 15 }) {
            0 => Any::Unit,
            1 => Any::Number(self.0.cast_signed()),
            2 => Any::Wide(i128::from(self.0.cast_signed()) << self.below(64)),
            3 => Any::Float(self.0),
            4 => Any::Text("x".repeat(self.below(40) as usize)),
            5 => Any::Bytes(vec![7; self.below(300) as usize]),
            6 => Any::Option((self.below(2) > 0).then(|| some(self))),
            7 => Any::Options([None, Some(None), Some(Some(some(self)))][self.below(3) as usize].clone()),
            8 => Any::Wrapped(
                [None, Some(Wrapper(None)), Some(Wrapper(Some(3)))][self.below(3) as usize].clone(),
            ),
            9 => Any::Nothing([None, Some(())][self.below(2) as usize]),
            10 => Any::List((0..self.below(4)).map(|_| *some(self)).collect()),
            11 => Any::Pair(Box::new((*some(self), *some(self)))),
            12 => Any::Map((0..self.below(4)).map(|_| (*some(self), *some(self))).collect()),
            13 => Any::Named { first: some(self), second: (self.below(2) > 0).then(|| some(self)) },
            _ => {
                let key = ["own", "other"][self.below(2) as usize].to_owned();
                let value = [None, Some(5)][self.below(2) as usize];
                Any::Flat(Flat { own: 1, others: BTreeMap::from([(key, value)]) })
            }
        }
    }
}

/// Whether a value is one that has to be refused.
fn is_lost(any: &Any) -> bool {
    match any {
        Any::Options(Some(None)) | Any::Wrapped(Some(Wrapper(None))) | Any::Nothing(Some(())) => true,
        Any::Option(Some(of)) | Any::Options(Some(Some(of))) => is_lost(of),
        Any::List(of) => of.iter().any(is_lost),
        Any::Pair(of) => is_lost(&of.0) || is_lost(&of.1),
        Any::Map(of) => of.iter().any(|(key, value)| is_lost(key) || is_lost(value)),
        Any::Named { first, second } => is_lost(first) || second.as_deref().is_some_and(is_lost),
        Any::Flat(of) => of.others.contains_key("own"),
        _ => false,
    }
}

/// Of values by chance each comes back, or is refused; and it is refused only if it has to be.
#[test]
fn values_by_chance_come_back_or_are_refused() {
    let mut numbers = Numbers(0x2545_f491_4f6c_dd1d);
    let mut seen = [0; 2];
    for _ in 0..if cfg!(miri) { 20 } else { 20_000 } {
        let value = numbers.any(4);
        let written = packed(&value);
        assert_eq!(written.is_err(), is_lost(&value), "{value:?}: {written:?}");
        if let Ok(bytes) = &written {
            assert_eq!(unpack::<Any>(bytes).as_ref(), Ok(&value));
        }
        seen[usize::from(written.is_ok())] += 1;
    }
    assert!(cfg!(miri) || seen.iter().all(|count| *count > 500), "{seen:?}");
}
