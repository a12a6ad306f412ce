//! Tests of parameters, and of the types' promises.

use super::{Connection, Mismatch, OpenError, Parameter, Pool, QueryError, ToValue, Value};
use crate::db::FromValue;

#[test]
fn parameters_of_all_usual_types_are_values() {
    let text = String::from("t");
    let params: &[&dyn ToValue] =
        &[&20, &1_i8, &true, &2.5_f32, &"s", &text, &Some(3_u32), &None::<i64>, &b"b", &vec![1_u8], &7_u64];
    let values: Vec<Parameter<'_>> = params.iter().map(|param| param.to_value().unwrap()).collect();
    let values: Vec<Value<'_>> = values.iter().map(Parameter::as_value).collect();
    assert_eq!(
        values,
        [
            Value::Int(20),
            Value::Int(1),
            Value::Bool(true),
            Value::Float(2.5),
            Value::Text("s"),
            Value::Text("t"),
            Value::Int(3),
            Value::Null,
            Value::Bytes(b"b"),
            Value::Bytes(&[1]),
            Value::Int(7),
        ]
    );
}

#[test]
fn a_parameter_beyond_64_bits_signed_is_named() {
    let too_large = u64::MAX.to_value().unwrap_err();
    assert_eq!(
        QueryError::parameter(1, &too_large).to_string(),
        "parameter $2: 18446744073709551615 does not fit a 64-bit signed integer; \
         a column of `numeric` takes `db::Number`"
    );
}

#[test]
fn numbers_are_never_truncated() {
    assert_eq!(u8::from_value(Value::Int(256)), Err(Mismatch::Range));
    assert_eq!(u64::from_value(Value::Int(-1)), Err(Mismatch::Range));
    assert_eq!(i64::from_value(Value::Float(1.0)), Err(Mismatch::Kind));
    assert_eq!(f64::from_value(Value::Int((1 << 53) + 1)), Err(Mismatch::Range));
    assert_eq!(f32::from_value(Value::Float(1e39)), Err(Mismatch::Range));
    assert_eq!(f32::from_value(Value::Float(f64::INFINITY)), Ok(f32::INFINITY));
    assert_eq!(bool::from_value(Value::Int(2)), Err(Mismatch::Range));
}

#[test]
fn a_connection_moves_between_threads_and_a_pool_is_shared() {
    fn is_send<T: Send>() {}
    fn is_shared<T: Send + Sync + Clone>() {}
    is_send::<Connection>();
    is_shared::<Pool>();
}

#[test]
fn without_a_host_the_error_says_so() {
    let error = Pool::open("sqlite::memory:").unwrap_err();
    assert!(error.to_string().contains("outside of `host run`"), "{error}");
}

#[test]
fn a_pool_of_no_connections_is_refused() {
    let error = Pool::builder("sqlite::memory:").max_size(0).open().unwrap_err();
    assert!(matches!(error, OpenError::Invalid { .. }), "{error}");
}
