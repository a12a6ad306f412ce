//! Generations that no longer serve and are still mapped, each with what holds it.
//!
//! A generation is entered here when it is replaced, deleted or refused, and leaves when it has been
//! unmapped: for the blink of an eye, or for as long as something holds it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::generation::Generation;
use super::status::ParkedStatus;
use crate::pins::Code;

/// The list.
#[derive(Debug, Default)]
pub(super) struct ParkedList {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    parked: Vec<Parked>,
    /// What was unmapped, by plugin.
    unloaded: BTreeMap<Arc<str>, Unloaded>,
}

/// Generations of one plugin that were unmapped.
#[derive(Debug, Default)]
struct Unloaded {
    count: u64,
    /// Heap bytes that they have allocated less those they have freed: others have freed them, or will.
    bytes: i64,
}

#[derive(Debug)]
struct Parked {
    plugin: Arc<str>,
    generation: u64,
    code: Arc<Code>,
    /// The generation, if the code became one, until it is taken apart.
    whole: Weak<Generation>,
    /// Requests that still run in it.
    in_flight: Arc<AtomicU32>,
    /// Why it will never be unmapped, or not before something changes that is not counted.
    notes: Vec<String>,
}

impl Parked {
    fn held_by(&self) -> Vec<String> {
        let mut holders = self.holders();
        if holders.is_empty() {
            holders.push("nothing; it is about to be unmapped".to_owned());
        }
        holders
    }

    fn holders(&self) -> Vec<String> {
        let mut holders = self.notes.clone();
        match self.in_flight.load(Ordering::Relaxed) {
            0 => {}
            1 => holders.push("1 request in it".to_owned()),
            running => holders.push(format!("{running} requests in it")),
        }
        holders.extend(self.code.held_by());
        holders
    }
}

impl ParkedList {
    /// Enters a generation that no longer serves.
    pub(super) fn add(&self, generation: &Arc<Generation>) {
        self.state.lock().parked.push(Parked {
            plugin: Arc::clone(&generation.plugin),
            generation: generation.number,
            code: Arc::clone(generation.library.code()),
            whole: Arc::downgrade(generation),
            in_flight: Arc::clone(&generation.in_flight),
            notes: Vec::new(),
        });
    }

    /// Enters code that never became a generation.
    pub(super) fn add_code(&self, plugin: &Arc<str>, generation: u64, code: &Arc<Code>) {
        self.state.lock().parked.push(Parked {
            plugin: Arc::clone(plugin),
            generation,
            code: Arc::clone(code),
            whole: Weak::new(),
            in_flight: Arc::default(),
            notes: Vec::new(),
        });
    }

    /// Says what holds code beside its pins.
    pub(super) fn note(&self, code: &Arc<Code>, notes: Vec<String>) {
        let mut state = self.state.lock();
        if let Some(parked) = state.parked.iter_mut().find(|parked| Arc::ptr_eq(&parked.code, code)) {
            parked.notes = notes;
        }
    }

    /// Takes out what has been unmapped.
    pub(super) fn remove(&self, plugin: &Arc<str>, code: &Arc<Code>) {
        let mut state = self.state.lock();
        state.parked.retain(|parked| !Arc::ptr_eq(&parked.code, code));
        state.unloaded.entry(Arc::clone(plugin)).or_default().count += 1;
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.state.lock().parked.len()
    }

    /// Those of a plugin.
    pub(super) fn status_of(&self, plugin: &str) -> Vec<ParkedStatus> {
        let state = self.state.lock();
        let of_plugin = state.parked.iter().filter(|parked| *parked.plugin == *plugin);
        of_plugin
            .map(|parked| ParkedStatus { generation: parked.generation, held_by: parked.held_by() })
            .collect()
    }

    /// Whether something holds code of a plugin that no longer serves.
    pub(super) fn is_held(&self, plugin: &str) -> bool {
        let state = self.state.lock();
        state.parked.iter().any(|parked| *parked.plugin == *plugin && !parked.holders().is_empty())
    }

    /// How many generations of a plugin have been unmapped.
    pub(super) fn unloaded(&self, plugin: &str) -> u64 {
        self.state.lock().unloaded.get(plugin).map_or(0, |unloaded| unloaded.count)
    }

    /// Keeps the heap bytes of a generation that is about to be unmapped.
    pub(super) fn note_bytes(&self, plugin: &Arc<str>, bytes: i64) {
        let mut state = self.state.lock();
        let unloaded = state.unloaded.entry(Arc::clone(plugin)).or_default();
        unloaded.bytes = unloaded.bytes.wrapping_add(bytes);
    }

    /// Heap bytes of all generations of a plugin that no longer serve, mapped and unmapped.
    pub(super) fn bytes(&self, plugin: &str) -> i64 {
        let (whole, unloaded) = {
            let state = self.state.lock();
            let of_plugin = state.parked.iter().filter(|parked| *parked.plugin == *plugin);
            let whole: Vec<_> = of_plugin.filter_map(|parked| parked.whole.upgrade()).collect();
            (whole, state.unloaded.get(plugin).map_or(0, |unloaded| unloaded.bytes))
        };
        let bytes = whole.iter().filter_map(|generation| generation.library.heap_bytes());
        bytes.fold(unloaded, i64::wrapping_add)
    }
}
