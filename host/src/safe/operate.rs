//! What an operator does with safes, by name: look, change, check, back up.
//!
//! Owns: the orders and their answers as JSON, the same whether a running host or the command line
//! itself carries them out. Does not own: who may give them; the control socket's permissions say so.
//!
//! Keys are written as they are printed: ASCII, anything else as `\xNN`. Values are shown as JSON where
//! they are MessagePack that JSON can show, and as escaped bytes otherwise.

use std::fs::File;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::backend::Report;
use super::copy::CopyFault;
use super::disk::{FileDisk, journal_of};
use super::migrate::aside;
use super::{
    Change, Commit, EntryRef, Expiry, OpenError, ReadError, Safe, SafeStatus, Safes, Write, WriteError, copy,
    store,
};

/// The boundary's number for MessagePack.
const MESSAGEPACK: u8 = 1;
/// From how many free bytes on, and from which part of the file (one in so many), compacting is recommended.
const WORTH_COMPACTING: (u64, u64) = (16 << 20, 2);
/// How long a change waits for the disk.
const PATIENCE: Duration = Duration::from_secs(10);

/// An operator's order.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "snake_case")]
pub enum Order {
    /// Numbers of one safe or of all.
    Stat {
        /// Its name; `None`: all.
        safe: Option<String>,
    },
    /// Keys in order.
    List {
        /// The safe's name.
        safe: String,
        /// What they begin with.
        prefix: String,
        /// At most so many.
        limit: usize,
    },
    /// One entry.
    Get {
        /// The safe's name.
        safe: String,
        /// The key.
        key: String,
    },
    /// Puts a value, as MessagePack.
    Put {
        /// The safe's name.
        safe: String,
        /// The key.
        key: String,
        /// The value.
        value: Value,
    },
    /// Removes an entry.
    Remove {
        /// The safe's name.
        safe: String,
        /// The key.
        key: String,
    },
    /// Verifies every checksum of one safe or of all.
    Check {
        /// Its name; `None`: all.
        safe: Option<String>,
    },
    /// Copies a safe to a new file, as one commit left it.
    Backup {
        /// The safe's name.
        safe: String,
        /// The file, which must not be there.
        file: PathBuf,
    },
    /// Makes the safe's file smaller, where it has much free room.
    ///
    /// An order, and nothing the safe does by itself: the engine moves pages only while nobody reads or writes,
    /// for as long as it takes to write what is in use, so all who use the safe wait meanwhile. A file does not
    /// grow because of its free room, which is used first; and what is free at its end goes back by itself.
    /// [`Stat`](Order::Stat) recommends it where it is worth a pause.
    Compact {
        /// Its name; `None`: all.
        safe: Option<String>,
    },
    /// Copies a safe that nobody uses to another place, entries with their versions and expiries.
    Migrate {
        /// The safe's name.
        safe: String,
        /// `file`, or the URL of a server; `None`: where this host keeps safes.
        from: Option<String>,
        /// Likewise. Without entries of this safe.
        to: Option<String>,
    },
    /// Puts a backup in the place of a safe that nobody uses.
    Restore {
        /// The safe's name.
        safe: String,
        /// The backup; it is only read.
        file: PathBuf,
    },
}

/// Why an order was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum OperateError {
    /// There is no safe of this name.
    #[error("there is no safe `{0}`; `host safe stat` lists those there are")]
    NoSafe(String),
    /// There is no entry of this key.
    #[error("there is no entry `{0}`; `host safe ls` lists keys as they are to be written")]
    NoEntry(String),
    /// A key is not written as one.
    #[error("`{0}` is no key: write other bytes than printable ASCII as \\xNN")]
    Key(String),
    /// The value cannot be encoded.
    #[error("the value cannot be put: {0}")]
    Value(String),
    /// The backup could not be made; no file is left.
    #[error("cannot back up to {}: {reason}", file.display())]
    Backup {
        /// The file.
        file: PathBuf,
        /// The system's or the engine's words.
        reason: String,
    },
    /// The safe is open.
    #[error("the safe `{0}` is in use; stop the host, then restore")]
    InUse(String),
    /// The backup cannot be read, or is damaged; the safe is as it was.
    #[error("cannot restore from {}: {reason}", file.display())]
    Restore {
        /// The backup.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The safe lies on a server.
    #[error(
        "the safe `{0}` lies on a database server; restore it to a file, with `[host] safe` left out, and `host safe migrate` it"
    )]
    NotAFile(String),
    /// The safe could not be copied; where it came from it is as it was.
    #[error("cannot migrate the safe `{safe}`: {reason}")]
    Migrate {
        /// Its name.
        safe: String,
        /// What is wrong.
        reason: String,
    },
    /// There is no thread to do it on.
    #[error("cannot start a thread for it: {0}")]
    Thread(std::io::Error),
    /// The safe could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl Safes {
    /// Carries an order out.
    ///
    /// # Errors
    ///
    /// [`OperateError`].
    pub fn operate(&self, order: &Order) -> Result<Value, OperateError> {
        aside(|| self.carry_out(order)).map_err(OperateError::Thread)?
    }

    fn carry_out(&self, order: &Order) -> Result<Value, OperateError> {
        match order {
            Order::Stat { safe } => {
                let shown: Result<Vec<Value>, OperateError> =
                    self.named(safe.as_deref())?.iter().map(|safe| stat(safe)).collect();
                Ok(json!({ "safes": shown? }))
            }
            Order::List { safe, prefix, limit } => list(&*self.one(safe)?, &parse(prefix)?, *limit),
            Order::Get { safe, key } => get(&*self.one(safe)?, key),
            Order::Put { safe, key, value } => {
                let value =
                    rmp_serde::to_vec_named(value).map_err(|error| OperateError::Value(error.to_string()))?;
                let key = parse(key)?;
                let put = Change::Put { key, encoding: MESSAGEPACK, value, expiry: Expiry::Never };
                let (version, _) = change(&*self.one(safe)?, put)?;
                Ok(json!({ "version": version }))
            }
            Order::Remove { safe, key: text } => {
                let (_, existed) = change(&*self.one(safe)?, Change::Delete { key: parse(text)? })?;
                if existed == 0 { Err(OperateError::NoEntry(text.clone())) } else { Ok(json!({})) }
            }
            Order::Check { safe } => {
                let reports: Result<Vec<Value>, OperateError> =
                    self.named(safe.as_deref())?.iter().map(|safe| check(safe)).collect();
                Ok(json!({ "safes": reports? }))
            }
            Order::Backup { safe, file } => {
                let safe = self.one(safe)?;
                let entries = backup(&safe, file)
                    .map_err(|reason| OperateError::Backup { file: file.clone(), reason })?;
                Ok(json!({ "entries": entries, "file": file }))
            }
            Order::Compact { safe } => {
                let compact = |safe: &Arc<Safe>| -> Result<Value, OperateError> {
                    let freed = safe.compact()?;
                    let status = safe.status();
                    Ok(json!({ "name": status.name, "freed_bytes": freed, "file_bytes": status.file_bytes }))
                };
                let safes: Result<Vec<Value>, _> = self.named(safe.as_deref())?.iter().map(compact).collect();
                Ok(json!({ "safes": safes? }))
            }
            Order::Migrate { safe, from, to } => {
                let entries =
                    self.while_unused(safe, |_| self.migrate(safe, from.as_deref(), to.as_deref()))??;
                Ok(json!({ "entries": entries }))
            }
            Order::Restore { safe, .. } if self.is_on_server() => Err(OperateError::NotAFile(safe.clone())),
            Order::Restore { safe, file } => {
                let entries = self.while_unused(safe, |path| restore(file, path))??;
                Ok(json!({ "entries": entries, "file": file }))
            }
        }
    }

    /// Runs `body` with the file of a safe that is kept from being opened meanwhile.
    fn while_unused<R>(&self, name: &str, body: impl FnOnce(&Path) -> R) -> Result<R, OperateError> {
        let path = self.path(name)?;
        let slot = Arc::clone(self.slots.lock().entry(name.to_owned()).or_default());
        let state = slot.state.lock();
        if state.safe.is_some() {
            return Err(OperateError::InUse(name.to_owned()));
        }
        Ok(body(&path))
    }

    pub(super) fn one(&self, name: &str) -> Result<Arc<Safe>, OperateError> {
        self.open_existing(name)?.ok_or_else(|| OperateError::NoSafe(name.to_owned()))
    }

    fn named(&self, name: Option<&str>) -> Result<Vec<Arc<Safe>>, OperateError> {
        match name {
            Some(name) => Ok(vec![self.one(name)?]),
            None => {
                let names = self.names()?;
                names.iter().map(|name| self.one(name)).collect()
            }
        }
    }
}

/// A key as it is printed, read back.
fn parse(text: &str) -> Result<Vec<u8>, OperateError> {
    let wrong = || OperateError::Key(text.to_owned());
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        let (&kind, tail) = rest.split_first().ok_or_else(wrong)?;
        rest = tail;
        bytes.push(match kind {
            b'x' => {
                let (digits, tail) = rest.split_at_checked(2).ok_or_else(wrong)?;
                rest = tail;
                let digits = std::str::from_utf8(digits).map_err(|_| wrong())?;
                u8::from_str_radix(digits, 16).map_err(|_| wrong())?
            }
            b't' => b'\t',
            b'n' => b'\n',
            b'r' => b'\r',
            b'\\' | b'\'' | b'"' => kind,
            _ => return Err(wrong()),
        });
    }
    Ok(bytes)
}

fn list(safe: &Safe, prefix: &[u8], limit: usize) -> Result<Value, OperateError> {
    let is_within = |key: &[u8]| key.starts_with(prefix);
    let mut is_past = false;
    let (entries, has_more) =
        safe.list((Bound::Included(prefix), Bound::Unbounded), false, limit, |key, entry| {
            is_past = !is_within(key);
            (!is_past).then(|| {
                json!({
                    "key": key.escape_ascii().to_string(),
                    "version": entry.version,
                    "expires_at_ms": expiry(entry),
                    "bytes": entry.value.len(),
                })
            })
        })?;
    Ok(json!({ "entries": entries, "has_more": has_more && !is_past }))
}

fn expiry(entry: EntryRef<'_>) -> Option<u64> {
    (entry.expires_at != 0).then_some(entry.expires_at)
}

fn get(safe: &Safe, text: &str) -> Result<Value, OperateError> {
    let found = safe.get(&parse(text)?, |entry| {
        let shown = match entry.encoding {
            MESSAGEPACK => rmp_serde::from_slice::<Value>(entry.value).ok(),
            _ => None,
        };
        json!({
            "key": text,
            "version": entry.version,
            "expires_at_ms": expiry(entry),
            "value": shown,
            "bytes": entry.value.escape_ascii().to_string(),
        })
    })?;
    found.ok_or_else(|| OperateError::NoEntry(text.to_owned()))
}

fn change(safe: &Safe, change: Change) -> Result<(u64, i64), WriteError> {
    let write = Write { checks: Vec::new(), changes: vec![change] };
    match safe.write(write, Instant::now() + PATIENCE)? {
        Commit::Done { version, results } => Ok((version, results.first().copied().unwrap_or_default())),
        Commit::Conflict { .. } => Err(WriteError::Invalid("a write without checks has none".to_owned())),
    }
}

/// The numbers of a safe. Of one that is damaged, those that can be had.
fn stat(safe: &Safe) -> Result<Value, OperateError> {
    let status: SafeStatus = safe.status();
    let mut used = None;
    if status.trouble.is_none() {
        safe.core.backend.read(&mut |view| {
            used = view.used_bytes()?;
            Ok(())
        })?;
    }
    let free = used.map(|used| status.file_bytes.saturating_sub(used));
    let is_worth_it = free.is_some_and(|free| is_worth_compacting(free, status.file_bytes));
    let mut shown = serde_json::to_value(&status).map_err(|error| OperateError::Value(error.to_string()))?;
    shown["free_bytes"] = json!(free);
    shown["is_worth_compacting"] = json!(is_worth_it);
    Ok(shown)
}

fn is_worth_compacting(free: u64, file: u64) -> bool {
    let (bytes, part) = WORTH_COMPACTING;
    free >= bytes && free >= file / part
}

fn verify(safe: &Safe) -> Result<Report, ReadError> {
    let mut report = None;
    safe.core.backend.read(&mut |view| {
        report = Some(view.verify()?);
        Ok(())
    })?;
    Ok(report.expect("a read that succeeded has shown its view"))
}

pub(super) fn check(safe: &Safe) -> Result<Value, OperateError> {
    let report = verify(safe)?;
    let are_pages_right = safe.core.backend.verify_pages()?;
    Ok(json!({
        "name": safe.name(),
        "entries": report.entries,
        "damaged": report.damaged,
        "is_sound": report.damaged.is_empty() && report.is_structure_right && are_pages_right,
    }))
}

/// Puts a verified copy of `file` in the place of `path`.
fn restore(file: &Path, path: &Path) -> Result<u64, OperateError> {
    let failed = |reason: String| OperateError::Restore { file: file.to_owned(), reason };
    // Held until the copy is in place: no other process has the safe open.
    let old = if path.exists() { Some(FileDisk::open(path)?) } else { None };
    let fresh = path.with_extension("new");
    std::fs::create_dir_all(path.parent().unwrap_or(Path::new("."))).map_err(|e| failed(e.to_string()))?;
    std::fs::copy(file, &fresh).map_err(|error| failed(error.to_string()))?;
    // A file that was taken from a host that was killed goes on in its journal.
    let (journal, fresh_journal) = (journal_of(file), journal_of(&fresh));
    // What an attempt before this one may have left is of another file, and void.
    if journal.exists() {
        std::fs::copy(&journal, &fresh_journal).map_err(|error| failed(error.to_string()))?;
    }
    let verified = Safe::on("restored", Box::new(FileDisk::open(&fresh)?))
        .map_err(|error| failed(error.to_string()))
        .and_then(|copy| {
            let report = verify(&copy)?;
            copy.close();
            match report.damaged.first() {
                None => Ok(report.entries),
                Some(key) => Err(failed(format!("the value under {key} is damaged"))),
            }
        });
    // The copy was closed, and needs it no more.
    let _ = std::fs::remove_file(&fresh_journal);
    if verified.is_ok() {
        std::fs::rename(&fresh, path).map_err(|error| failed(error.to_string()))?;
    } else {
        // A copy that is of no use; the next restore overwrites it anyway.
        let _ = std::fs::remove_file(&fresh);
    }
    drop(old);
    verified
}

/// Copies the safe; the file appears whole or not at all.
fn backup(safe: &Safe, file: &Path) -> Result<u64, String> {
    if file.exists() {
        return Err("there is such a file already".to_owned());
    }
    let fresh = file.with_extension("partial");
    let mut outcome = Ok(0);
    let copied = safe.core.backend.read(&mut |view| {
        // What an attempt before this one may have left.
        let _ = std::fs::remove_file(&fresh);
        // The safe is told of its own faults alone: it looks after itself then.
        outcome = match copy::create(&fresh).map(|database| copy::fill(&database, view)) {
            Ok(Err(CopyFault::Source(fault))) => return Err(fault),
            Ok(Err(CopyFault::Target(reason))) | Err(reason) => Err(reason),
            Ok(Ok(entries)) => Ok(entries),
        };
        Ok(())
    });
    let done = copied.map_err(|error| error.to_string()).and(outcome).and_then(|entries| {
        std::fs::rename(&fresh, file).map_err(store::text)?;
        let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(directory.unwrap_or(Path::new(".")))
            .and_then(|dir| dir.sync_all())
            .map_err(store::text)?;
        Ok(entries)
    });
    if done.is_err() {
        // What there is of it is of no use; most failures leave nothing.
        let _ = std::fs::remove_file(&fresh);
    }
    done
}
