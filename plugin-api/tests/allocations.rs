//! What rows cost in memory: counted by an allocator of this test's own, so it is a program of its own.
#![expect(unsafe_code, reason = "an allocator is unsafe to write")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use plugin_api::db::rows::{Block, BlockWriter};
use plugin_api::db::{ColumnError, Rows, Value};

/// Counts the allocations of each thread.
struct Counting;

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call is passed on to the system's allocator as it is; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // At the end of a thread there is nobody left who counts.
        let _ = COUNT.try_with(|count| count.set(count.get() + 1));
        // SAFETY: this function's contract is the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: this function's contract is the system's.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let _ = COUNT.try_with(|count| count.set(count.get() + 1));
        // SAFETY: this function's contract is the system's.
        unsafe { System.realloc(ptr, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How often `body` allocates.
fn allocations<T>(body: impl FnOnce() -> T) -> (usize, T) {
    let before = COUNT.get();
    let value = body();
    (COUNT.get() - before, value)
}

fn block(rows: i64) -> Vec<u8> {
    let mut writer = BlockWriter::new();
    for name in ["id", "name", "share", "is_new", "raw"] {
        writer.column(name, "a type");
    }
    for row in 0..rows {
        writer.row();
        for cell in [
            Value::Int(row),
            Value::Text("gr\u{fc}n"),
            Value::Float(0.5),
            Value::Bool(row % 2 == 0),
            Value::Bytes(&[1, 2, 3]),
        ] {
            writer.cell(cell);
        }
    }
    writer.finish()
}

/// Of the 50,000 cells none is allocated for: what grows, grows by doubling.
#[test]
fn writing_a_cell_allocates_nothing_of_its_own() {
    let (few, _) = allocations(|| block(10));
    let (many, _) = allocations(|| block(10_000));
    assert!(few > 0, "the allocator counts");
    assert!(many < few + 40, "{few} allocations for 10 rows, {many} for 10,000");
}

#[test]
fn reading_numbers_and_borrowed_text_allocates_nothing() {
    let bytes = block(10_000);
    let (count, sum) = allocations(|| -> Result<i64, ColumnError> {
        let rows = Rows::from(Block::parse(bytes).unwrap());
        let mut sum = 0;
        for row in &rows {
            sum += row.get::<i64>("id")? + row.get::<Option<i64>>(0)?.unwrap_or_default();
            sum += i64::from(row.get::<bool>("is_new")?) + i64::from(row.get::<f64>("share")? > 0.0);
            sum += i64::from(row.get::<&str>("name")? == "gr\u{fc}n");
            sum += i64::from(row.get::<Option<&[u8]>>(4)?.is_some());
        }
        Ok(sum)
    });
    assert!(sum.unwrap() > 0);
    assert_eq!(count, 0);
}
