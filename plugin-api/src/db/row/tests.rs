//! Tests of reading rows.

use super::{ColumnError, OwnedRow, Rows};
use crate::db::Value;
use crate::db::rows::{Block, BlockWriter};

fn rows() -> Rows {
    let mut writer = BlockWriter::new();
    for (name, type_name) in
        [("id", "int8"), ("who", "text"), ("gone", "text"), ("ok", ""), ("x", "float8"), ("raw", "bytea")]
    {
        writer.column(name, type_name);
    }
    writer.row();
    let cells = [Value::Int(300), Value::Text("ada"), Value::Null, Value::Int(1), Value::Float(1e300)];
    cells.into_iter().for_each(|cell| writer.cell(cell));
    writer.cell(Value::Bytes(b"\x00"));
    Rows::from(Block::parse(writer.finish()).unwrap())
}

#[test]
fn cells_are_read_by_name_and_by_place() {
    let rows = rows();
    let row = rows.first().unwrap();
    assert_eq!(row.get::<i64>("id"), Ok(300));
    assert_eq!(row.get::<u16>(0), Ok(300));
    assert_eq!(row.get::<&str>("who"), Ok("ada"));
    assert_eq!(row.get::<Option<String>>("who"), Ok(Some("ada".to_owned())));
    assert_eq!(row.get::<Option<&str>>("gone"), Ok(None));
    assert_eq!(row.get::<bool>("ok"), Ok(true));
    assert_eq!(row.get::<f64>("id"), Ok(300.0));
    assert_eq!(row.get::<Vec<u8>>("raw"), Ok(vec![0]));
    assert_eq!(rows.iter().len(), 1);
    assert_eq!(OwnedRow::first_of(rows).get::<&str>("who"), Ok("ada"));
}

#[test]
fn an_error_says_column_found_and_wanted() {
    let rows = rows();
    let row = rows.first().unwrap();
    let said = |error: ColumnError| error.to_string();
    assert_eq!(said(row.get::<u8>("id").unwrap_err()), "column `id` holds 300, which does not fit `u8`");
    assert_eq!(said(row.get::<f32>("x").unwrap_err()).split(" holds 1000").next(), Some("column `x`"));
    assert_eq!(said(row.get::<i32>("who").unwrap_err()), "column `who` holds text (text), not `i32`");
    assert_eq!(said(row.get::<&str>("gone").unwrap_err()), "column `gone` is NULL: ask for `Option<&str>`");
    assert_eq!(said(row.get::<&str>("ok").unwrap_err()), "column `ok` holds integer, not `&str`");
    assert_eq!(said(row.get::<bool>("id").unwrap_err()), "column `id` holds 300, which does not fit `bool`");
    assert_eq!(
        said(row.get::<i64>("nope").unwrap_err()),
        "no column `nope`; there are: id, who, gone, ok, x, raw"
    );
    assert!(matches!(row.get::<i64>(6), Err(ColumnError::NotFound { .. })));
}
