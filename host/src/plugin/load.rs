//! From the private copy of a library to a published generation: vet, probe, open, init, publish.
//!
//! # Invariants
//!
//! - Until the router is swapped nothing that serves has changed. After the swap nothing can fail.
//! - A generation that fails after `open` is left to the reaper, and leaves nothing in the registry.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Instant, SystemTime};

use parking_lot::Mutex;
use plugin_api::abi::UNLOAD_RELOADED;

use super::event::{Event, EventKind, Steps};
use super::generation::{Generation, Lease};
use super::invoke::{self, HookError};
use super::library::{self, Library, Mapped};
use super::reaper::Task;
use super::record::Plugin;
use super::router::{self, Entry, Router};
use super::stage::Image;
use super::vetting::Vetted;
use super::{Shared, descriptor, parting, vetting};
use crate::hostcall::Caller;
use crate::pins::{self, Code, DrainOnDrop, Label};
use crate::registry::{Author, Overlay, Together};
use crate::report::chain;
use crate::share::Account;

/// How many generations may stay mapped when they are not, or cannot be, unmapped. Each costs one of the
/// process's 1,024 pthread keys; a process that runs out of them aborts.
const MOST_PARKED: usize = 900;

/// Why new code did not become current.
#[derive(Debug)]
pub(super) struct Refused {
    /// The step that failed.
    pub(super) step: &'static str,
    /// One sentence.
    pub(super) reason: String,
    /// The compiler's words, without colours.
    pub(super) details: Option<String>,
    /// The same, as they want to be shown.
    pub(super) rendered: Option<String>,
}

impl Refused {
    pub(super) fn new(step: &'static str, reason: impl Into<String>) -> Refused {
        Refused { step, reason: reason.into(), details: None, rendered: None }
    }
}

/// A hook that may refuse its generation.
enum Hook {
    OnLoad,
    /// The number and version of the generation that serves.
    Upgrade(u64, String),
    Check,
}

impl Hook {
    fn run(&self, library: &Library) -> Result<(), HookError> {
        match self {
            Hook::OnLoad => invoke::on_load(library),
            Hook::Upgrade(number, version) => invoke::upgrade(library, *number, version),
            Hook::Check => invoke::check(library),
        }
    }
}

/// What [`Shared::prepare`] came to.
pub(super) enum Prepared {
    /// A generation that needs nothing but to be published. Who does not publish it abandons it.
    Ready(Arc<Generation>),
    /// The library is the one that serves already.
    Unchanged { number: u64 },
}

/// What [`Shared::load`] did.
pub(super) enum Loaded {
    /// A new generation serves.
    Published { number: u64, previous: Option<u64> },
    /// The library is the one that serves already.
    Unchanged { number: u64 },
}

impl Shared {
    /// Takes a library through the pipeline. `restores`: it is earlier code, which takes up the values of then.
    pub(super) fn load(
        self: &Arc<Self>,
        plugin: &Arc<Plugin>,
        image: Image,
        restores: bool,
        steps: &mut Steps,
    ) -> Result<Loaded, Refused> {
        let generation = match self.prepare(plugin, image, (None, restores), steps)? {
            Prepared::Ready(generation) => generation,
            Prepared::Unchanged { number } => return Ok(Loaded::Unchanged { number }),
        };
        let number = generation.number;
        match steps.run("publish", || self.publish(&[(Arc::clone(plugin), Arc::clone(&generation))])) {
            Ok(previous) => Ok(Loaded::Published { number, previous: previous.into_iter().next().flatten() }),
            Err(refused) => {
                self.abandon(generation);
                Err(refused)
            }
        }
    }

    /// The pipeline up to `init`: what it stages is seen by nobody else yet but those it goes live `together` with.
    pub(super) fn prepare(
        self: &Arc<Self>,
        plugin: &Arc<Plugin>,
        image: Image,
        (together, restores): (Option<&Arc<Together>>, bool),
        steps: &mut Steps,
    ) -> Result<Prepared, Refused> {
        let Image { staged, bytes, build_id, origin } = image;
        let serving = plugin.state.lock().current.clone();
        if let Some(lease) = serving.as_ref().filter(|lease| lease.generation().build_id == build_id) {
            return Ok(Prepared::Unchanged { number: lease.generation().number });
        }
        if let Some(reason) = self.quarantine.reason(&plugin.name, build_id) {
            return Err(Refused::new("quarantine", reason));
        }
        let (descriptor, vetted) = steps.run("vet", || {
            let descriptor =
                descriptor::read(&bytes).map_err(|error| Refused::new("vet", error.to_string()))?;
            let vetted = vetting::vet(&bytes, &origin, vetting::is_available)
                .map_err(|error| Refused::new("vet", error.to_string()))?;
            Ok::<_, Refused>((descriptor, vetted))
        })?;
        drop(bytes);
        for oddity in &vetted.oddities {
            tracing::warn!(plugin = %plugin.name, "odd library: {oddity}");
        }
        if !self.proven.lock().contains(&build_id) {
            steps
                .run("probe", || self.probe.run(&staged.path, &origin))
                .map_err(|error| Refused::new("probe", chain(&error)))?;
        }
        if self.parked.len() >= MOST_PARKED {
            let words = format!(
                "{MOST_PARKED} earlier generations are still mapped, and the process cannot take more; restart the host"
            );
            return Err(Refused::new("open", words));
        }

        let number = {
            let mut state = plugin.state.lock();
            let number = state.next_generation;
            state.next_generation += 1;
            number
        };
        if let Some(together) = together {
            together.join(&Author { plugin: Arc::clone(&plugin.name), generation: number });
        }
        let caller = Arc::new(Caller {
            plugin: Arc::clone(&plugin.name),
            generation: number,
            registry: Arc::clone(&self.registry),
            overlay: Arc::new(Overlay::open_with(together.cloned(), restores)),
            handles: Arc::default(),
            data_dir: self.settings.state_dir.join("data"),
            safe: self.safe.for_another(),
            code: self.code_at(
                &staged.path,
                Label {
                    plugin: Arc::clone(&plugin.name),
                    generation: number,
                    build: build_id.to_string().into(),
                },
            ),
        });
        let (library, staged) = match steps.run("open", || self.open(&staged.path, &caller, &vetted)) {
            Ok(library) => (library, staged),
            Err((refused, mapped)) => {
                if let Some(mapped) = mapped {
                    let plugin = Arc::clone(&plugin.name);
                    self.parked.add_code(&plugin, number, mapped.code());
                    self.tell_reaper(Task::Mapped { plugin, generation: number, mapped, staged });
                }
                return Err(refused);
            }
        };
        let configured = self.settings.mounts.get(&*plugin.name).or(library.mount.as_ref());
        let mount = configured.cloned().unwrap_or_else(|| format!("/{}", plugin.name));
        let mount = router::normal_mount(&mount);
        let generation = Arc::new(Generation {
            plugin: Arc::clone(&plugin.name),
            number,
            mount: mount.as_ref().ok().cloned().unwrap_or_default(),
            library,
            descriptor,
            oddities: vetted.oddities,
            build_id,
            origin,
            loaded_at: SystemTime::now(),
            staged,
            in_flight: Default::default(),
            requests: Default::default(),
            panics: Default::default(),
            account: Account::of(Arc::clone(&plugin.share)),
            unload_reason: Mutex::new(None),
            dropped: Mutex::default(),
        });
        let outcome = mount
            .and_then(|_| router::index(&generation.library.routes))
            .map_err(|error| Refused::new("open", error.to_string()))
            .and_then(|_| self.init(&generation, serving.as_deref(), steps));
        match outcome {
            Ok(()) => Ok(Prepared::Ready(generation)),
            Err(refused) => {
                self.abandon(generation);
                Err(refused)
            }
        }
    }

    /// Lets go of a generation that was opened and is not published: what it staged is undone.
    pub(super) fn abandon(&self, generation: Arc<Generation>) {
        let caller = generation.library.caller();
        caller.safe.cancel_watches();
        self.parked.add(&generation);
        let author = Author { plugin: Arc::clone(&caller.plugin), generation: caller.generation };
        caller.registry.give_up_upgrades(&author);
        let of_thread = Arc::clone(&generation);
        let pin = generation.pin("the drop of what it had made while loading");
        parting::part(parting::PATIENCE, move || {
            let caller = of_thread.library.caller();
            caller.registry.abandon(&caller.overlay);
            caller.handles.retire();
            drop(of_thread);
            drop(pin);
        });
        self.tell_reaper(Task::Refused(generation));
    }

    /// The code of a library that is about to be opened: the reaper gets word when it is free to go.
    fn code_at(self: &Arc<Self>, path: &Path, label: Label) -> Arc<Code> {
        let shared = Arc::downgrade(self);
        let code = Code::new(path, move || {
            if let Some(shared) = shared.upgrade() {
                shared.tell_reaper(Task::Freed);
            }
        });
        code.set_label(label);
        code
    }

    /// Opens a library on a thread that ends with it, and so keeps nothing of what constructors leave behind.
    fn open(
        &self,
        path: &Path,
        caller: &Arc<Caller>,
        vetted: &Vetted,
    ) -> Result<Library, (Refused, Option<Mapped>)> {
        let refused = |reason: String| Refused::new("open", reason);
        let is_known = |address| self.entries.lock().contains(&address);
        let opened = std::thread::scope(|scope| {
            let name = format!("open {} g{}", caller.plugin, caller.generation);
            let opener = std::thread::Builder::new().name(name);
            let thread = opener
                .spawn_scoped(scope, || {
                    let _drain = DrainOnDrop;
                    for library in &vetted.beside {
                        library::keep_beside(library)?;
                    }
                    let opened = Library::open(path, Arc::clone(caller), is_known);
                    let mut kept = self.kept.lock();
                    for library in &vetted.needs {
                        if !kept.contains(library) && library::keep(library) {
                            kept.insert(library.clone());
                        }
                    }
                    Ok(opened)
                })
                .map_err(|error| refused(format!("cannot start a thread: {error}")))?;
            thread.join().map_err(|_| refused("the host panicked while opening it".to_owned()))
        });
        match opened {
            Ok(Ok(Ok(library))) => {
                // Not earlier: the address of what is refused is free for others once that is unmapped.
                self.entries.lock().insert(library.entry_address);
                Ok(library)
            }
            Ok(Ok(Err(failure))) => Err((refused(chain(&failure.error)), failure.mapped)),
            Ok(Err(reason)) => Err((refused(reason), None)),
            Err(refused) => Err((refused, None)),
        }
    }

    /// Runs `on_load`, `upgrade` if another generation serves, and `check`, on one thread of their own and within
    /// one deadline.
    fn init(
        &self,
        generation: &Arc<Generation>,
        serving: Option<&Lease>,
        steps: &mut Steps,
    ) -> Result<(), Refused> {
        let hooks = generation.library.hooks;
        let previous = serving.map(|lease| {
            let previous = lease.generation();
            (previous.number, previous.descriptor.version.clone())
        });
        let mut named = vec![("init", "on_load", Hook::OnLoad)];
        if let Some((number, version)) = previous
            && hooks.upgrade.is_some()
        {
            named.push(("upgrade", "upgrade", Hook::Upgrade(number, version)));
        }
        if hooks.check.is_some() {
            named.push(("check", "check", Hook::Check));
        }
        let words: Vec<_> = named.iter().map(|(step, name, _)| (*step, *name)).collect();

        let (done, outcome) = mpsc::channel();
        let of_thread = Arc::clone(generation);
        let thread = format!("load {} g{}", generation.plugin, generation.number);
        let spawned = std::thread::Builder::new().name(thread).spawn(move || {
            let _drain = DrainOnDrop;
            for (_, name, hook) in named {
                let pin = of_thread.pin(format!("`{name}`, which is still running"));
                // Nobody listens any more when the deadline has passed.
                let on_lost = |what: &str| drop(done.send(Err(HookError::Lost(what.to_owned()))));
                let outcome = pins::losable(&on_lost, || hook.run(&of_thread.library));
                drop(pin);
                // Nobody listens any more when the deadline has passed: then the rest is not run either.
                if outcome.is_err() | done.send(outcome).is_err() {
                    return;
                }
            }
        });
        spawned.map_err(|error| Refused::new("init", format!("cannot start a thread: {error}")))?;
        let allowed = self.settings.load_deadline;
        let deadline = Instant::now() + allowed;
        for (step, name) in words {
            let left = deadline.saturating_duration_since(Instant::now());
            steps.run(step, || match outcome.recv_timeout(left) {
                Ok(Ok(())) => Ok(()),
                Ok(Err(HookError::Err(reason))) => {
                    Err(Refused::new(step, format!("`{name}` failed: {reason}{}", advice(&reason))))
                }
                Ok(Err(HookError::Panicked(reason))) => {
                    Err(Refused::new(step, format!("`{name}` panicked: {reason}{}", advice(&reason))))
                }
                Ok(Err(error @ HookError::Lost(_))) => Err(Refused::new(step, format!("`{name}` {error}"))),
                Err(_) => Err(Refused::new(step, format!("`{name}` is still running after {allowed:?}"))),
            })?;
        }
        Ok(())
    }

    /// Makes generations current, each of another plugin: one pointer swap for all. Returns the numbers of
    /// those that served before.
    pub(super) fn publish(
        &self,
        members: &[(Arc<Plugin>, Arc<Generation>)],
    ) -> Result<Vec<Option<u64>>, Refused> {
        let refused = |reason: String| Refused::new("publish", reason);
        let Some(reaper) = self.reaper.lock().clone() else {
            return Err(refused("the host is shutting down".to_owned()));
        };
        let ordered = self.publish.lock();
        let mut entries =
            self.entries_without(|name| members.iter().any(|(plugin, _)| *plugin.name == *name));
        let lease = |generation: &Arc<Generation>| Lease::first(Arc::clone(generation), reaper.clone());
        let leases: Vec<Arc<Lease>> = members.iter().map(|(_, generation)| lease(generation)).collect();
        entries.extend(members.iter().zip(&leases).map(|((plugin, generation), lease)| Entry {
            plugin: Arc::clone(&plugin.name),
            mount: generation.mount.clone(),
            lease: Some(Arc::clone(lease)),
            refusal: Arc::clone(&plugin.refusal),
        }));
        let router = Router::new(entries).map_err(|error| refused(error.to_string()))?;
        // Held together, so that either all become current or none does. Nobody else holds two of them.
        let mut states: Vec<_> = members.iter().map(|(plugin, _)| plugin.state.lock()).collect();
        if let Some(at) = states.iter().position(|state| state.is_removed) {
            return Err(refused(format!("the plugin `{}` was deleted meanwhile", members[at].0.name)));
        }
        let previous: Vec<Option<Arc<Lease>>> = (members.iter().zip(&leases).zip(&mut states))
            .map(|(((plugin, generation), lease), state)| {
                lease.publish();
                plugin.refusal.store(None);
                state.mount.clone_from(&generation.mount);
                state.current.replace(Arc::clone(lease))
            })
            .collect();
        drop(states);
        for ((plugin, generation), previous) in members.iter().zip(&previous) {
            if let Some(previous) = previous {
                self.end(previous, UNLOAD_RELOADED);
                self.registry.note_reload(&plugin.name, generation.number);
            }
        }
        for (_, generation) in members {
            generation.library.caller().overlay.announce();
            self.registry.note_here(&generation.plugin);
        }
        self.router.store(Arc::new(router));
        drop(ordered);
        // After the swap: who asks for upgraded data waits for this, in old code and in new. It ends with what plugins have
        // made and is over, and the lock is not held for that.
        for (_, generation) in members {
            let caller = generation.library.caller();
            *generation.dropped.lock() = caller.overlay.lost();
            let rest = caller.registry.commit(&caller.overlay);
            if !rest.is_empty() && !parting::part(parting::PATIENCE, move || drop(rest)) {
                tracing::warn!(plugin = %generation.plugin, generation = generation.number, "what it took the place of is still being dropped");
            }
        }
        Ok(previous.iter().map(|lease| lease.as_ref().map(|lease| lease.generation().number)).collect())
    }

    /// Says that a generation is current no more. It is retired when its last request has left.
    pub(super) fn end(&self, lease: &Lease, reason: u32) {
        let generation = lease.generation();
        *generation.unload_reason.lock() = Some(reason);
        // Who waits for a change of the safe would keep it in use.
        generation.library.caller().safe.cancel_watches();
        self.parked.add(generation);
    }

    /// Swaps in a router in which `plugin` has no newer code: for its place in the list, or for none.
    pub(super) fn publish_without_code(&self, plugin: &Arc<Plugin>) {
        let _ordered = self.publish.lock();
        let mut entries = self.entries_without(|name| *plugin.name == *name);
        {
            let state = plugin.state.lock();
            if !state.is_removed {
                entries.push(Entry {
                    plugin: Arc::clone(&plugin.name),
                    mount: state.mount.clone(),
                    lease: state.current.clone(),
                    refusal: Arc::clone(&plugin.refusal),
                });
            }
        }
        match Router::new(entries) {
            Ok(router) => self.router.store(Arc::new(router)),
            // Cannot be: every generation in the list has been published beside the others.
            Err(error) => tracing::error!("{error}"),
        }
    }

    /// All plugins but those named, as they are now.
    fn entries_without(&self, is_named: impl Fn(&str) -> bool) -> Vec<Entry> {
        let plugins = self.plugins.lock();
        let others = plugins.values().map(|worker| &worker.plugin).filter(|plugin| !is_named(&plugin.name));
        let mut entries: Vec<Entry> = Vec::new();
        for plugin in others {
            let state = plugin.state.lock();
            entries.push(Entry {
                plugin: Arc::clone(&plugin.name),
                mount: state.mount.clone(),
                lease: state.current.clone(),
                refusal: Arc::clone(&plugin.refusal),
            });
        }
        entries
    }

    /// Records that a generation serves, or that nothing is new.
    pub(super) fn report_loaded(&self, plugin: &Arc<Plugin>, loaded: Loaded, steps: Steps) {
        let (event, generation, previous) = match loaded {
            Loaded::Published { number, previous: None } => (EventKind::Loaded, number, None),
            Loaded::Published { number, previous } => (EventKind::Reloaded, number, previous),
            Loaded::Unchanged { number } => (EventKind::Unchanged, number, None),
        };
        let was_refused = plugin.refusal.swap(None).is_some();
        let is_undone = was_refused && event == EventKind::Unchanged;
        let event = Event {
            id: 0,
            at_ms: 0,
            event,
            plugin: Arc::clone(&plugin.name),
            generation: Some(generation),
            previous_generation: previous,
            failed_step: None,
            reason: is_undone.then(|| "what was refused is undone: the source is what serves".to_owned()),
            details: None,
            dropped: Vec::new(),
            ms: steps.total(),
            steps: steps.into_list(),
        };
        self.record_outcome(plugin, event, None);
    }
}

/// What to do about the errors that every plugin gets that installs a logger, as programs do.
fn advice(reason: &str) -> &'static str {
    let of_loggers = [
        "SetLoggerError",
        "SetGlobalDefaultError",
        "attempted to set a logger after the logging system was already initialized",
        "a global default trace dispatcher has already been set",
    ];
    if of_loggers.iter().any(|words| reason.contains(words)) {
        "; the host has set a logger and a `tracing` subscriber already, which write to its log: remove that call"
    } else {
        ""
    }
}
