//! Tests of the block: round trips, and bytes that lie.

use super::{Block, BlockWriter, ENTRY, HEADER};
use crate::db::Value;

const CELLS: [Value<'static>; 6] = [
    Value::Null,
    Value::Bool(true),
    Value::Int(i64::MIN),
    Value::Float(-0.5),
    Value::Text("gr\u{fc}\u{df}e"),
    Value::Bytes(&[0, 255]),
];

fn sample() -> Vec<u8> {
    let mut writer = BlockWriter::new();
    for index in 0..CELLS.len() {
        writer.column(&format!("c{index}"), "any");
    }
    for _ in 0..3 {
        writer.row();
        CELLS.into_iter().for_each(|cell| writer.cell(cell));
    }
    writer.finish()
}

#[test]
fn every_kind_of_value_comes_back() {
    let block = Block::parse(sample()).unwrap();
    assert_eq!((block.rows(), block.columns()), (3, 6));
    assert_eq!(block.column(4), Some(("c4", "any")));
    for row in 0..3 {
        for (column, cell) in CELLS.into_iter().enumerate() {
            assert_eq!(block.cell(row, column), Some(Ok(cell)));
        }
    }
    assert_eq!(block.cell(3, 0), None);
    assert_eq!(block.cell(0, 6), None);
    assert_eq!(block.column(6), None);
}

#[test]
fn a_copy_with_room_goes_on_where_the_first_ended_and_does_not_grow() {
    let mut columns = BlockWriter::new();
    columns.column("id", "int4");
    columns.column("name", "text");
    let mut writer = columns.with_room(2, 8);
    let before = (writer.block.capacity(), writer.heap.capacity());
    for name in ["ada", "grace"] {
        writer.row();
        writer.cell(Value::Int(1));
        writer.cell(Value::Text(name));
    }
    assert_eq!((writer.block.capacity(), writer.heap.capacity()), before);
    let bytes = writer.finish();
    assert_eq!(bytes.capacity(), before.0);
    let block = Block::parse(bytes).unwrap();
    assert_eq!((block.rows(), block.column(1)), (2, Some(("name", "text"))));
    assert_eq!(block.cell(1, 1), Some(Ok(Value::Text("grace"))));
    assert_eq!(Block::parse(columns.finish()).unwrap().rows(), 0);
}

#[test]
fn rows_without_columns_are_counted() {
    let mut writer = BlockWriter::new();
    writer.row();
    writer.row();
    let block = Block::parse(writer.finish()).unwrap();
    assert_eq!((block.rows(), block.columns()), (2, 0));
}

#[test]
fn every_truncation_is_refused() {
    let whole = sample();
    for len in 0..whole.len() {
        assert!(Block::parse(whole[..len].to_vec()).is_err(), "accepted {len} of {} bytes", whole.len());
    }
}

#[test]
fn trailing_bytes_are_refused() {
    let mut bytes = sample();
    bytes.push(0);
    assert!(Block::parse(bytes).is_err());
}

#[test]
fn counts_that_overflow_are_refused() {
    for at in [4, 8, 16] {
        let mut bytes = sample();
        bytes[at..at + 4].fill(0xff);
        assert!(Block::parse(bytes).is_err());
    }
    let mut bytes = sample();
    bytes[8..24].fill(0xff);
    assert!(Block::parse(bytes).is_err());
}

/// The reader's promise is about every byte, so every byte is changed once.
#[test]
fn any_changed_byte_is_an_error_or_another_value_and_never_a_panic() {
    let whole = sample();
    for at in 0..whole.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] ^= flip;
            if let Ok(block) = Block::parse(bytes) {
                let read = (0..block.rows()).flat_map(|r| (0..block.columns()).map(move |c| (r, c)));
                let cells = read.filter(|&(r, c)| block.cell(r, c).is_some()).count();
                assert_eq!(cells, block.rows() * block.columns());
            }
        }
    }
}

#[test]
fn a_cell_outside_of_the_heap_is_an_error() {
    let mut bytes = sample();
    let text = HEADER + ENTRY * (6 + 4);
    bytes[text + 8..text + 16].fill(0xff);
    let block = Block::parse(bytes).unwrap();
    assert!(block.cell(0, 4).unwrap().is_err());
    assert_eq!(block.cell(1, 4), Some(Ok(Value::Text("gr\u{fc}\u{df}e"))));
}
