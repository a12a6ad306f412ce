//! A further target directory, made from one that is in use.
//!
//! Compiled dependencies are taken along, so that a build in the new directory compiles little more than its
//! own package. cargo may be at work in the model meanwhile, and what it is about to replace must not be taken
//! for what its record says.
//!
//! # Invariants
//!
//! - A record of cargo's (`.fingerprint`) is taken only if it was the same before and after its outputs were copied.
//!   cargo empties the record of a unit before it compiles the unit, and writes it when it is done: so a record
//!   that has not changed vouches for the copied outputs, and one that has is left out and its unit compiled anew.
//! - Times are kept, by which cargo judges.

use std::collections::BTreeMap;
use std::fs::{self, File, FileTimes};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// What is not taken: state of the compiler that only its own directory can use, and cargo's locks.
const LEFT_OUT: &[&str] = &["incremental", "tmp"];

/// One of cargo's records: its content and its time.
type Record = (Vec<u8>, SystemTime);

/// Fills `new`, which does not exist, from `model`. What cannot be copied is compiled anew, so no failure
/// counts.
pub(super) fn seed(model: &Path, new: &Path) {
    let mut records = BTreeMap::new();
    walk(model, &mut |file| {
        if is_record(file)
            && let Ok(record) = read(file)
        {
            records.insert(file.to_owned(), record);
        }
    });
    walk(model, &mut |file| {
        if !is_record(file)
            && let Some(copy) = below(model, file, new)
        {
            let _ = copy_with_time(file, &copy);
        }
    });
    // By unit: a unit with one changed record has none.
    let mut units: BTreeMap<PathBuf, Vec<(PathBuf, Record)>> = BTreeMap::new();
    for (file, record) in records {
        units.entry(file.parent().map(Path::to_owned).unwrap_or_default()).or_default().push((file, record));
    }
    for files in units.into_values() {
        if !files.iter().all(|(file, record)| read(file).is_ok_and(|now| now == *record)) {
            continue;
        }
        for (file, (content, time)) in files {
            if let Some(copy) = below(model, &file, new) {
                let _ = write_with_time(&copy, &content, time);
            }
        }
    }
}

fn is_record(file: &Path) -> bool {
    file.components().any(|part| part.as_os_str() == ".fingerprint")
}

fn below(model: &Path, file: &Path, new: &Path) -> Option<PathBuf> {
    file.strip_prefix(model).ok().map(|rest| new.join(rest))
}

fn walk(directory: &Path, each: &mut dyn FnMut(&Path)) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && !LEFT_OUT.iter().any(|name| entry.file_name() == *name) => {
                walk(&path, each);
            }
            Ok(kind) if kind.is_file() && entry.file_name() != ".cargo-lock" => each(&path),
            _ => {}
        }
    }
}

fn read(file: &Path) -> io::Result<Record> {
    let time = fs::metadata(file)?.modified()?;
    Ok((fs::read(file)?, time))
}

fn copy_with_time(file: &Path, copy: &Path) -> io::Result<()> {
    let time = fs::metadata(file)?.modified()?;
    make_parent(copy)?;
    fs::copy(file, copy)?;
    File::options().write(true).open(copy)?.set_times(FileTimes::new().set_modified(time))
}

fn write_with_time(copy: &Path, content: &[u8], time: SystemTime) -> io::Result<()> {
    make_parent(copy)?;
    fs::write(copy, content)?;
    File::options().write(true).open(copy)?.set_times(FileTimes::new().set_modified(time))
}

fn make_parent(file: &Path) -> io::Result<()> {
    file.parent().map_or(Ok(()), fs::create_dir_all)
}
