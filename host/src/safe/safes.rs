//! All safes of a host, found by name.
//!
//! Owns: names, which file is whose, what is open, who may share. Does not own: what is in a safe.
//!
//! # Invariants
//!
//! - A safe is opened once, at its first use, however many ask; a slow one delays no other.
//! - A name never leads out of the directory, and that of a shared safe is no plugin's.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;

use super::error::OpenError;
use super::migrate::aside;
use super::postgres::Server;
use super::{Safe, SafeStatus};

/// What the names of shared safes begin with, and those of plugins do not.
const SHARED: char = '@';
/// Extension of a safe's file.
const EXTENSION: &str = "redb";

/// Where safes are kept, and who shares which.
#[derive(Clone, Debug, Default)]
pub struct SafeSettings {
    /// `postgres://...`, if they are kept there and not in files.
    pub server: Option<String>,
    /// Which plugins may open which shared safe.
    pub shared: BTreeMap<String, BTreeSet<String>>,
}

/// All safes of a host, opened at their first use.
#[derive(Debug)]
pub struct Safes {
    directory: PathBuf,
    settings: SafeSettings,
    /// Held while a slot is found, never while a file is opened.
    pub(super) slots: Mutex<HashMap<String, Arc<Slot>>>,
}

#[derive(Debug, Default)]
pub(super) struct Slot {
    /// Held while the file is opened, so that it is opened once.
    pub(super) state: Mutex<SlotState>,
}

#[derive(Debug, Default)]
pub(super) struct SlotState {
    pub(super) safe: Option<Arc<Safe>>,
    is_closed: bool,
}

impl Safes {
    /// The safes whose files lie in `directory`, which is made when it is needed.
    pub fn new(directory: PathBuf) -> Safes {
        Safes::with(directory, SafeSettings::default())
    }

    /// As [`new`](Safes::new), with settings.
    pub fn with(directory: PathBuf, settings: SafeSettings) -> Safes {
        Safes { directory, settings, slots: Mutex::default() }
    }

    /// Whether a plugin may open the shared safe of a name.
    pub fn is_granted(&self, name: &str, plugin: &str) -> bool {
        self.settings.shared.get(name).is_some_and(|plugins| plugins.contains(plugin))
    }

    /// The shared safe of a name, which is no plugin's own, whatever plugins are called. Whether somebody may
    /// have it is [`is_granted`](Safes::is_granted)'s affair.
    ///
    /// # Errors
    ///
    /// As [`open`](Safes::open).
    pub fn open_shared(&self, name: &str) -> Result<Arc<Safe>, OpenError> {
        self.open(&format!("{SHARED}{name}"))
    }

    /// The safe of a name, opened or made if this is the first use.
    ///
    /// # Errors
    ///
    /// [`OpenError`]; a failure is not remembered.
    pub fn open(&self, name: &str) -> Result<Arc<Safe>, OpenError> {
        let path = self.path(name)?;
        let slot = Arc::clone(self.slots.lock().entry(name.to_owned()).or_default());
        let mut state = slot.state.lock();
        if state.is_closed {
            return Err(OpenError::Closed);
        }
        if let Some(safe) = &state.safe {
            return Ok(Arc::clone(safe));
        }
        let safe = Arc::new(match self.server()? {
            Some(server) => Safe::on_server(name, &server)?,
            None => Safe::open(name, &path)?,
        });
        state.safe = Some(Arc::clone(&safe));
        Ok(safe)
    }

    /// As [`open`](Safes::open), but does not make a safe that is not there.
    ///
    /// # Errors
    ///
    /// As [`open`](Safes::open).
    pub fn open_existing(&self, name: &str) -> Result<Option<Arc<Safe>>, OpenError> {
        let is_there = match self.server()? {
            Some(server) => server.names()?.iter().any(|known| known == name),
            None => self.path(name)?.exists(),
        };
        if is_there { self.open(name).map(Some) } else { Ok(None) }
    }

    /// The names of all safes that there are, sorted.
    ///
    /// # Errors
    ///
    /// [`OpenError`]: what the system or the server said.
    pub fn names(&self) -> Result<Vec<String>, OpenError> {
        if let Some(server) = self.server()? {
            return server.names();
        }
        let failed =
            |error: std::io::Error| OpenError::Io { path: self.directory.clone(), reason: error.to_string() };
        let files = match std::fs::read_dir(&self.directory) {
            Ok(files) => files,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut names = Vec::new();
        for file in files {
            let path = file.map_err(failed)?.path();
            if path.extension().is_some_and(|extension| extension == EXTENSION)
                && let Some(name) = path.file_stem().and_then(|name| name.to_str())
            {
                names.push(name.to_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    /// The status of every safe that has been used, sorted by name. Opens none.
    pub fn status(&self) -> Vec<SafeStatus> {
        let slots: Vec<_> = self.slots.lock().values().cloned().collect();
        // One that is just being opened is not waited for.
        let safe = |slot: &Arc<Slot>| slot.state.try_lock()?.safe.clone();
        let safes: Vec<Arc<Safe>> = slots.iter().filter_map(safe).collect();
        let status = aside(|| safes.iter().map(|safe| safe.status()).collect::<Vec<SafeStatus>>());
        let mut status = status.unwrap_or_else(|error| {
            tracing::warn!("the safes cannot be asked for their status: {error}");
            Vec::new()
        });
        status.sort_by(|a, b| a.name.cmp(&b.name));
        status
    }

    /// Wakes all who watch a safe, for good: the host is stopping.
    pub fn cancel_watches(&self) {
        let slots: Vec<_> = self.slots.lock().values().cloned().collect();
        // One that is just being opened has no watches; those it gets end with the safe.
        let safe = |slot: &Arc<Slot>| slot.state.try_lock()?.safe.clone();
        slots.iter().filter_map(safe).for_each(|safe| safe.core.watches.close());
    }

    /// Closes every safe, cleanly. Later uses are errors.
    pub fn close(&self) {
        let slots: Vec<_> = self.slots.lock().values().cloned().collect();
        for slot in slots {
            let mut state = slot.state.lock();
            state.is_closed = true;
            let Some(safe) = state.safe.take() else { continue };
            if let Err(error) = aside(|| safe.close()) {
                tracing::error!("a safe was not closed in order: {error}");
            }
        }
    }

    /// The server, if safes are kept on one.
    fn server(&self) -> Result<Option<Server>, OpenError> {
        self.settings.server.as_deref().map(Server::parse).transpose()
    }

    /// The same safes, kept somewhere else: `file`, or the URL of a server.
    pub(super) fn elsewhere(&self, place: &str) -> Safes {
        let server = (place != "file").then(|| place.to_owned());
        Safes::with(self.directory.clone(), SafeSettings { server, ..SafeSettings::default() })
    }

    /// Where they are kept: `file`, or the URL of a server.
    pub(super) fn place(&self) -> String {
        self.settings.server.clone().unwrap_or_else(|| "file".to_owned())
    }

    /// Whether they are kept on a server.
    pub(super) fn is_on_server(&self) -> bool {
        self.settings.server.is_some()
    }

    pub(super) fn path(&self, name: &str) -> Result<PathBuf, OpenError> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let plain = name.strip_prefix(SHARED).unwrap_or(name);
        if plain.is_empty() || plain.starts_with('.') || plain.len() > 128 || !plain.bytes().all(is_plain) {
            return Err(OpenError::Name(name.to_owned()));
        }
        Ok(self.directory.join(format!("{name}.{EXTENSION}")))
    }
}
