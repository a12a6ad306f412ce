//! The block: how the rows of one result cross the boundary.
//!
//! Owns the format, its encoder [`BlockWriter`] (the host's drivers use it) and its decoder
//! [`Block`]. Does not convert values; that is `value.rs`.
//!
//! # Format, version 1
//!
//! All numbers are little-endian, nothing is padded, the parts follow each other in this order:
//!
//! | part | bytes | what |
//! |---|---|---|
//! | header | 24 | `u32` version = 1, `u32` columns, `u64` rows, `u64` length of the heap |
//! | columns | 16 each | `u32` length of the name, `u32` length of the type's name, `u64` offset of the name; the type's name follows the name |
//! | cells | 16 each | `u32` tag, `u32` length, `u64` bits; row by row, each from the first column to the last |
//! | heap | as the header says | texts and bytes |
//!
//! A cell's tag is one of the `VALUE_*` constants of `abi.rs`. `VALUE_BOOL`: bits 0 or 1.
//! `VALUE_INT`: bits hold the two's complement. `VALUE_FLOAT`: bits hold the IEEE 754 double.
//! `VALUE_TEXT` (UTF-8), `VALUE_BYTES` and `VALUE_ARRAY` (see `array.rs`): length, and in bits the offset.
//! Otherwise both are 0.
//! Offsets count from the start of the heap. Cell (r, c) is at `24 + 16 * (columns + r * columns + c)`,
//! so any cell is found without reading those before it.
//!
//! # Invariants
//!
//! - The decoder never reads outside of the block, whatever the bytes say: wrong bytes are an error.

use std::fmt;

use crate::abi::{VALUE_ARRAY, VALUE_BOOL, VALUE_BYTES, VALUE_FLOAT, VALUE_INT, VALUE_NULL, VALUE_TEXT};
use crate::db::array::DEEPEST;
use crate::db::{Array, Value};

/// Version of the format.
const VERSION: u32 = 1;
/// Bytes of the header.
const HEADER: usize = 24;
/// Bytes of a column's entry, and of a cell.
pub(super) const ENTRY: usize = 16;

/// Writes a block. Columns first, then rows.
#[derive(Debug)]
pub struct BlockWriter {
    columns: u32,
    rows: u64,
    /// Room for the header, column entries, then cells.
    block: Vec<u8>,
    heap: Vec<u8>,
}

impl BlockWriter {
    /// A block without columns.
    pub fn new() -> BlockWriter {
        BlockWriter { columns: 0, rows: 0, block: vec![0; HEADER], heap: Vec::new() }
    }

    /// A copy of what was written so far, such as the columns of a statement that runs often, with room for more:
    /// so many rows, and so many bytes of texts in them.
    pub fn with_room(&self, rows: usize, bytes: usize) -> BlockWriter {
        let heap = self.heap.len().saturating_add(bytes);
        let cells = rows.saturating_mul(self.columns as usize).saturating_mul(ENTRY);
        // The heap follows the cells in the end.
        let len = self.block.len().saturating_add(cells).saturating_add(heap);
        let copy = |from: &[u8], room: usize| {
            let mut copy = Vec::with_capacity(room);
            copy.extend_from_slice(from);
            copy
        };
        BlockWriter { block: copy(&self.block, len), heap: copy(&self.heap, heap), ..*self }
    }

    /// Adds a column. `type_name` is the database's name of the type, or empty.
    ///
    /// # Panics
    ///
    /// After the first row.
    pub fn column(&mut self, name: &str, type_name: &str) {
        assert_eq!(self.rows, 0, "columns come before rows");
        let offset = self.heap.len();
        self.heap.extend_from_slice(name.as_bytes());
        self.heap.extend_from_slice(type_name.as_bytes());
        entry(&mut self.block, length(name.len()), length(type_name.len()), offset as u64);
        self.columns += 1;
    }

    /// Starts a row. One [`cell`](BlockWriter::cell) for each column follows.
    pub fn row(&mut self) {
        self.rows += 1;
    }

    /// Adds the next cell.
    pub fn cell(&mut self, value: Value<'_>) {
        encode(value, &mut self.block, &mut self.heap);
    }

    /// Takes back the row that was started last, with the cells that it has so far.
    pub fn abandon_row(&mut self) {
        self.rows = self.rows.saturating_sub(1);
        let columns = self.columns as usize;
        let kept = usize::try_from(self.rows).unwrap_or(usize::MAX).saturating_add(1).saturating_mul(columns);
        self.block.truncate(kept.saturating_mul(ENTRY).saturating_add(HEADER));
    }

    /// How many rows have been started.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// How many bytes the block has so far.
    pub fn size(&self) -> usize {
        self.block.len() + self.heap.len()
    }

    /// The finished block.
    ///
    /// # Panics
    ///
    /// When the number of cells is not that of rows times columns.
    pub fn finish(self) -> Vec<u8> {
        let BlockWriter { columns, rows, mut block, heap } = self;
        let cells = (block.len() - HEADER) / ENTRY - columns as usize;
        assert_eq!(cells as u64, rows * u64::from(columns), "a row has a cell for each column");
        block[..4].copy_from_slice(&VERSION.to_le_bytes());
        block[4..8].copy_from_slice(&columns.to_le_bytes());
        block[8..16].copy_from_slice(&rows.to_le_bytes());
        block[16..HEADER].copy_from_slice(&(heap.len() as u64).to_le_bytes());
        block.extend_from_slice(&heap);
        block
    }
}

impl Default for BlockWriter {
    fn default() -> BlockWriter {
        BlockWriter::new()
    }
}

/// Writes a cell, or an element of an array.
pub(super) fn encode(value: Value<'_>, entries: &mut Vec<u8>, heap: &mut Vec<u8>) {
    let (tag, bits, bytes): (u32, u64, &[u8]) = match value {
        Value::Null => (VALUE_NULL, 0, &[]),
        Value::Bool(value) => (VALUE_BOOL, u64::from(value), &[]),
        Value::Int(value) => (VALUE_INT, value.cast_unsigned(), &[]),
        Value::Float(value) => (VALUE_FLOAT, value.to_bits(), &[]),
        Value::Text(text) => (VALUE_TEXT, heap.len() as u64, text.as_bytes()),
        Value::Bytes(bytes) => (VALUE_BYTES, heap.len() as u64, bytes),
        Value::Array(array) => (VALUE_ARRAY, heap.len() as u64, array.as_bytes()),
    };
    heap.extend_from_slice(bytes);
    entry(entries, tag, length(bytes.len()), bits);
}

/// Reads the cell or element whose entry begins at `at`; `levels` arrays may lie in each other there.
pub(super) fn decode<'a>(bytes: &'a [u8], at: usize, heap: &'a [u8], levels: usize) -> Option<Value<'a>> {
    let (tag, len) = (u32_at(bytes, at)?, u32_at(bytes, at + 4)?);
    let bits = u64_at(bytes, at + 8)?;
    let own = || {
        let start = usize::try_from(bits).ok()?;
        heap.get(start..start.checked_add(len as usize)?)
    };
    Some(match tag {
        VALUE_NULL => Value::Null,
        VALUE_BOOL => Value::Bool(bits != 0),
        VALUE_INT => Value::Int(bits.cast_signed()),
        VALUE_FLOAT => Value::Float(f64::from_bits(bits)),
        VALUE_TEXT => Value::Text(std::str::from_utf8(own()?).ok()?),
        VALUE_BYTES => Value::Bytes(own()?),
        VALUE_ARRAY => Value::Array(Array::parse_at(own()?, levels)?),
        _ => return None,
    })
}

fn entry(entries: &mut Vec<u8>, first: u32, second: u32, third: u64) {
    // At once, so that the room is looked at once.
    let mut entry = [0; ENTRY];
    entry[..4].copy_from_slice(&first.to_le_bytes());
    entry[4..8].copy_from_slice(&second.to_le_bytes());
    entry[8..].copy_from_slice(&third.to_le_bytes());
    entries.extend_from_slice(&entry);
}

fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("no database has cells of 4 GiB")
}

/// Bytes that are no block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MalformedBlock {
    what: &'static str,
}

impl MalformedBlock {
    pub(super) fn new(what: &'static str) -> MalformedBlock {
        MalformedBlock { what }
    }
}

impl fmt::Display for MalformedBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "malformed block of rows: {}", self.what)
    }
}

impl std::error::Error for MalformedBlock {}

/// Reads a block.
#[derive(Clone, PartialEq, Eq)]
pub struct Block {
    bytes: Vec<u8>,
    columns: usize,
    rows: usize,
    heap_at: usize,
}

impl Block {
    /// Checks the header, the lengths and the columns. Cells are checked when they are read.
    ///
    /// # Errors
    ///
    /// When the bytes do not follow the format.
    pub fn parse(bytes: Vec<u8>) -> Result<Block, MalformedBlock> {
        let malformed = |what| MalformedBlock { what };
        let header = (u32_at(&bytes, 0), u32_at(&bytes, 4), u64_at(&bytes, 8), u64_at(&bytes, 16));
        let (Some(version), Some(columns), Some(rows), Some(heap)) = header else {
            return Err(malformed("shorter than its header"));
        };
        if version != VERSION {
            return Err(malformed("another version of the format"));
        }
        let columns = columns as usize;
        let sizes = usize::try_from(rows).ok().zip(usize::try_from(heap).ok()).and_then(|(rows, heap)| {
            let entries = rows.checked_add(1)?.checked_mul(columns)?;
            let heap_at = entries.checked_mul(ENTRY)?.checked_add(HEADER)?;
            Some((rows, heap_at, heap_at.checked_add(heap)?))
        });
        let Some((rows, heap_at, total)) = sizes else {
            return Err(malformed("larger than memory"));
        };
        if total != bytes.len() {
            return Err(malformed("its parts do not add up to its length"));
        }
        let block = Block { bytes, columns, rows, heap_at };
        if (0..columns).any(|index| block.column(index).is_none()) {
            return Err(malformed("a column's name"));
        }
        Ok(block)
    }

    /// How many columns.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// How many rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Name and type name of a column; `None` beyond the last.
    pub fn column(&self, index: usize) -> Option<(&str, &str)> {
        if index >= self.columns {
            return None;
        }
        let at = HEADER + ENTRY * index;
        let (name_len, type_len) = (u32_at(&self.bytes, at)?, u32_at(&self.bytes, at + 4)?);
        let offset = u64_at(&self.bytes, at + 8)?;
        let name = self.heap(offset, name_len)?;
        let type_name = self.heap(offset.checked_add(u64::from(name_len))?, type_len)?;
        Some((std::str::from_utf8(name).ok()?, std::str::from_utf8(type_name).ok()?))
    }

    /// A cell; `None` beyond the last row or column.
    ///
    /// # Errors
    ///
    /// When the cell does not follow the format.
    pub fn cell(&self, row: usize, column: usize) -> Option<Result<Value<'_>, MalformedBlock>> {
        if row >= self.rows || column >= self.columns {
            return None;
        }
        // `parse` has checked that this product and sum stay within the block.
        let at = HEADER + ENTRY * (self.columns + row * self.columns + column);
        Some(self.value_at(at).ok_or(MalformedBlock { what: "a cell" }))
    }

    fn value_at(&self, at: usize) -> Option<Value<'_>> {
        decode(&self.bytes, at, self.bytes.get(self.heap_at..)?, DEEPEST)
    }

    fn heap(&self, offset: u64, len: u32) -> Option<&[u8]> {
        let start = usize::try_from(offset).ok()?;
        self.bytes.get(self.heap_at..)?.get(start..start.checked_add(len as usize)?)
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Block").field("columns", &self.columns).field("rows", &self.rows).finish()
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests;
