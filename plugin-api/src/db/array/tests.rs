//! Tests of arrays, in memory.

use super::{Array, ArrayBuf, DEEPEST};
use crate::db::value::Mismatch;
use crate::db::{FromValue, Parameter, ToValue, Value};

/// What a list becomes on its way to the database and back.
fn there_and_back<'a, T: FromValue<'a>>(parameter: &'a Parameter<'a>) -> Result<T, Mismatch> {
    T::from_value(parameter.as_value())
}

#[test]
fn lists_come_back_as_they_were() {
    let numbers = vec![1_i64, -2, i64::MAX];
    assert_eq!(there_and_back::<Vec<i64>>(&numbers.to_value().unwrap()), Ok(numbers.clone()));
    let words = ["a", "", "gr\u{fc}n, \"quoted\" \\ {x}"];
    assert_eq!(there_and_back::<Vec<&str>>(&words.to_value().unwrap()), Ok(words.to_vec()));
    let some = [Some(1.5), None];
    assert_eq!(there_and_back::<Vec<Option<f64>>>(&some.to_value().unwrap()), Ok(some.to_vec()));
    let bytes = vec![vec![0_u8, 255], vec![]];
    assert_eq!(there_and_back::<Vec<Vec<u8>>>(&bytes.to_value().unwrap()), Ok(bytes.clone()));
    let matrix = vec![vec![1_i32, 2], vec![3, 4]];
    assert_eq!(there_and_back::<Vec<Vec<i32>>>(&matrix.to_value().unwrap()), Ok(matrix.clone()));
    let none: [bool; 0] = [];
    assert_eq!(there_and_back::<Vec<bool>>(&none.to_value().unwrap()), Ok(vec![]));
}

#[test]
fn bytes_stay_bytes() {
    assert_eq!(vec![1_u8, 2].to_value(), Ok(Parameter::Value(Value::Bytes(&[1, 2]))));
}

#[test]
fn an_element_that_does_not_fit_is_a_mismatch() {
    let parameter = [1_i64, 300].to_value().unwrap();
    assert_eq!(there_and_back::<Vec<i8>>(&parameter), Err(Mismatch::Range));
    assert_eq!(there_and_back::<Vec<&str>>(&parameter), Err(Mismatch::Kind));
    assert_eq!(there_and_back::<i64>(&parameter), Err(Mismatch::Kind));
    let parameter = [Some(1_i64), None].to_value().unwrap();
    let Err(Mismatch::Unreadable { reason }) = there_and_back::<Vec<i64>>(&parameter) else {
        panic!("NULL became a number")
    };
    assert_eq!(reason, "an element is NULL: ask for `Vec<Option<i64>>`");
    assert!([u64::MAX].to_value().is_err());
}

/// Whatever the bytes say, reading stays inside of them.
#[test]
fn wrong_bytes_are_an_error() {
    let mut array = ArrayBuf::new();
    array.push(Value::Text("abc"));
    array.push([1_i64, 2].to_value().unwrap().as_value());
    let array = array.finish();
    let bytes = array.as_array().as_bytes();
    assert_eq!(Array::parse(bytes).unwrap().to_string(), "[\"abc\", [1, 2]]");
    for end in 0..bytes.len() {
        assert!(Array::parse(&bytes[..end]).is_err(), "cut at {end}");
    }
    for place in 0..bytes.len() {
        for value in [0, 1, 6, 0x7f, 0xff] {
            let mut changed = bytes.to_vec();
            changed[place] = value;
            if let Ok(array) = Array::parse(&changed) {
                let _ = array.to_string();
            }
        }
    }
}

#[test]
fn arrays_lie_eight_deep_and_no_deeper() {
    let mut array = ArrayBuf::new();
    array.push(Value::Int(1));
    let mut array = array.finish();
    for _ in 1..DEEPEST {
        let mut outer = ArrayBuf::new();
        outer.push(Value::Array(array.as_array()));
        array = outer.finish();
    }
    assert_eq!(array.as_array().to_string(), "[[[[[[[[1]]]]]]]]");
    let deeper = std::panic::catch_unwind(|| ArrayBuf::new().push(Value::Array(array.as_array())));
    assert!(deeper.is_err());
}
