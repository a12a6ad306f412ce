//! When data of an older layout becomes data of today's.
//!
//! A generation that is loading *stages* its upgrades: the new values are built beside the old ones, which
//! nobody uses from then on, and become valid when the generation is published. One that is published upgrades
//! at the first use. In both cases the older code finds, from then on, a value that it does not understand,
//! and is told so; requests that run in it and have not used the value yet fail for that.
//!
//! # Invariants
//!
//! - Only a newer generation of the one plugin that uses a value upgrades it; of several plugins, generations that go live
//!   together.
//! - An upgrade that does not come about leaves the value as it was, unless the key says `restarts`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::data::{DataType, Remains, Tenure, Upgrade, UpgradeFailure};
use super::kept::KeptValue;
use super::slot::Slot;
use super::together::SharedTurn;
use super::{Author, Expected, InitFailure, Key, Overlay, Policy, Registry, RegistryError, Value};

/// How long an upgrade waits for the users of the older value.
pub(super) const UPGRADE_TIMEOUT: Duration = Duration::from_secs(5);

/// Between the publication of a generation and that of its data.
const A_MOMENT: Duration = Duration::from_millis(1);

/// How often a key may turn out to hold another value than a moment ago.
const TRIES: u32 = 16;

/// What to do, for an upgrade that does not fit.
const ADVICE: &str = "say `#[resident(rename = \"...\")]`, `#[resident(default = ...)]` or `#[resident(upgrade = ...)]`, \
                      make it start afresh with `or_restart()`, or remove the key";

/// The same, for a value of another compiler or version of plugin-api: no word in the source helps.
const FOR_COMPILERS: &str = "values are not taken over from other compilers or versions of plugin-api: build with the same one, \
                             make the value start afresh with `or_restart()`, or remove the key";

/// What becomes of a slot when its generation is published.
#[derive(Debug)]
pub(super) struct Staged {
    slot: Arc<Slot>,
    what: Change,
}

#[derive(Debug)]
enum Change {
    /// A new value for the old one.
    Upgrade(Box<Upgrade>),
    /// None: the next caller makes one.
    Restart(Arc<Tenure>),
    /// The value from before an earlier upgrade, for the older one.
    Restore(Arc<Tenure>, Box<KeptValue>),
}

impl Staged {
    pub(super) fn is_for(&self, slot: &Arc<Slot>) -> bool {
        Arc::ptr_eq(&self.slot, slot)
    }

    /// Lets the older value be used again, before this is undone.
    pub(super) fn reopen(&mut self) {
        if let Change::Upgrade(upgrade) = &mut self.what {
            upgrade.reopen();
        }
    }

    /// What it drops of the old value, each with the key before it.
    pub(super) fn lost(&self) -> Vec<String> {
        let key = self.slot.key();
        match &self.what {
            Change::Upgrade(upgrade) => {
                upgrade.lost().iter().map(|what| format!("`{key}`: {what}")).collect()
            }
            Change::Restart(old) => vec![format!("`{key}`: {}, which starts afresh", old.type_name())],
            Change::Restore(_, kept) => {
                vec![format!(
                    "`{key}`: what it has become since the upgrade of what {} left, which is back",
                    kept.of
                )]
            }
        }
    }

    /// Makes it so. What is left of the old value goes when what is returned is dropped.
    pub(super) fn commit(self) -> (Arc<Tenure>, Option<Remains>) {
        match self.what {
            Change::Upgrade(upgrade) => {
                let old = Arc::clone(upgrade.old());
                if !upgrade.lost().is_empty() {
                    tracing::warn!(key = %self.slot.key(), "the upgrade has dropped {}", upgrade.lost().join(", "));
                }
                // Where the key was removed meanwhile the new value goes as the old one would have.
                let (new, remains) = upgrade.commit();
                self.slot.replace(&old, Some(new));
                // Those who waited for this look again, and find the new one.
                old.end();
                (old, Some(remains))
            }
            Change::Restart(old) => {
                self.slot.replace(&old, None);
                (old, None)
            }
            Change::Restore(old, kept) => {
                tracing::warn!(key = %self.slot.key(), "the value is again what it was before the upgrade that dropped {}", kept.lost.join(", "));
                self.slot.replace(&old, Some(kept.value));
                old.end();
                (old, None)
            }
        }
    }
}

impl Registry {
    /// As [`Registry::get_or_init`] for data: a value of an older layout is upgraded first.
    ///
    /// # Errors
    ///
    /// [`RegistryError`]; whatever the variant, the slot is as it was or empty.
    pub fn data(
        &self,
        author: &Author,
        overlay: &Overlay,
        key: &Key,
        (ty, policy): (&DataType, Policy<'_>),
        timeout: Duration,
        mut init: Option<&mut dyn FnMut() -> Result<Value, InitFailure>>,
    ) -> Result<Arc<Tenure>, RegistryError> {
        let mut last = RegistryError::NotFound { key: key.clone() };
        let expected = Expected::from(ty).with(policy);
        for _ in 0..TRIES {
            let found = match &mut init {
                Some(init) => self.get_or_init(author, overlay, key, expected, timeout, init),
                None => self.get(author, overlay, key, expected),
            };
            match found {
                Ok(Value::Data(tenure)) => return Ok(tenure),
                Ok(Value::Host(_) | Value::Service(_)) => {
                    return Err(RegistryError::NotFound { key: key.clone() });
                }
                Err(error @ RegistryError::Outdated { .. }) => {
                    last = error.clone();
                    if let Some(slot) = self.published(key)
                        && overlay.is_about_to_upgrade(&slot)
                        && let Some(old) = slot.data()
                    {
                        // Published a moment ago, and the upgrade becomes valid in a moment.
                        old.data().begin_and_leave(Instant::now() + UPGRADE_TIMEOUT);
                        // A value that starts afresh, or comes back, is not claimed meanwhile.
                        std::thread::sleep(A_MOMENT);
                        continue;
                    }
                    // What code of a refused generation still does, such as a drop, upgrades nothing.
                    if overlay.is_abandoned() {
                        return Err(RegistryError::Abandoned { key: key.clone() });
                    }
                    if overlay.is_open() {
                        return Err(with_reason(error, |difference| {
                            format!(
                                "{difference}; while loading, the value is still the serving code's: list the key under \
                                 `state:` in `plugin!`, and use it in handlers only"
                            )
                        }));
                    }
                    let Some(staged) = self.upgrade((author, overlay), key, ty, timeout, error)? else {
                        continue;
                    };
                    let mut staged = staged;
                    self.keep(&mut staged);
                    drop(staged.commit());
                }
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    /// Readies a key for a generation that is loading: makes a missing value, stages the upgrade of an older one.
    ///
    /// # Errors
    ///
    /// [`RegistryError`]; whatever the variant, the slot is as it was or empty.
    pub fn prepare(
        &self,
        author: &Author,
        overlay: &Overlay,
        key: &Key,
        (ty, policy): (&DataType, Policy<'_>),
        timeout: Duration,
        init: &mut dyn FnMut() -> Result<Value, InitFailure>,
    ) -> Result<(), RegistryError> {
        let mut last = RegistryError::NotFound { key: key.clone() };
        let expected = Expected::from(ty).with(policy);
        for _ in 0..TRIES {
            match self.get_or_init(author, overlay, key, expected, timeout, &mut *init) {
                Ok(_) => return Ok(()),
                Err(error @ RegistryError::Outdated { .. }) => {
                    last = error.clone();
                    let slot = self.slot(overlay, key, author, expected)?;
                    overlay.uses(&slot, author);
                    if overlay.has_staged(&slot) {
                        return Ok(());
                    }
                    let mine = match overlay.together().map(|of| of.turn(&slot, author, ty, timeout)) {
                        Some(SharedTurn::Done) => return Ok(()),
                        Some(SharedTurn::Differs(by, becomes)) => {
                            return Err(with_reason(error, |_| differs(&by, &becomes, ty)));
                        }
                        Some(SharedTurn::TimedOut(author)) => {
                            return Err(RegistryError::TimedOut {
                                key: key.clone(),
                                author,
                                waited: timeout,
                            });
                        }
                        Some(SharedTurn::Mine(mine)) => Some(mine),
                        None => None,
                    };
                    let Some(staged) = self.upgrade((author, overlay), key, ty, timeout, error)? else {
                        continue;
                    };
                    let refused = overlay.stage(staged);
                    if let Some(mine) = mine.filter(|_| refused.is_none()) {
                        mine.staged(ty);
                    }
                    return match refused {
                        None => Ok(()),
                        // Loading was given up meanwhile: undone by the drop.
                        Some(_) => Err(RegistryError::Abandoned { key: key.clone() }),
                    };
                }
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    /// Builds what is to take the place of an older value. `None`: it is another one by now.
    fn upgrade(
        &self,
        (author, overlay): (&Author, &Overlay),
        key: &Key,
        ty: &DataType,
        timeout: Duration,
        outdated: RegistryError,
    ) -> Result<Option<Staged>, RegistryError> {
        let Some(slot) = self.published(key) else { return Ok(None) };
        let Some(old) = slot.data() else { return Ok(None) };
        let (found, owner) = old.owner();
        if found.is_same(ty) {
            return Ok(None);
        }
        if let Some(other) = stands_in_the_way(&slot, author, overlay) {
            return Err(with_reason(outdated, |difference| {
                format!(
                    "{difference}; plugin `{}` uses the value, too, and does not go live together with this one: put the \
                     type into a package that both depend on by its path, or give each its own key or module",
                    other.plugin
                )
            }));
        }
        if owner.plugin != author.plugin && overlay.together().is_some_and(|together| together.is_of(&owner))
        {
            return Err(with_reason(outdated, |_| differs(&owner, &found, ty)));
        }
        if owner.plugin == author.plugin && owner.generation >= author.generation {
            return Err(with_reason(outdated, |_| {
                format!(
                    "it has been upgraded for newer code; this call runs in generation {}",
                    author.generation
                )
            }));
        }
        let kept = self.kept.of(key, ty);
        if let Some(kept) = kept.clone().filter(|_| overlay.restores()) {
            return Ok(Some(Staged { slot, what: Change::Restore(old, Box::new(kept)) }));
        }
        let deadline = Instant::now() + UPGRADE_TIMEOUT;
        let built = match old.data().has_given_up(author) {
            Some(took) => Err(UpgradeFailure::GivenUp(took)),
            None => Upgrade::build(&old, ty, author, deadline, timeout),
        };
        let reason = match built {
            Ok(upgrade) => {
                tracing::info!(key = %key, from = %owner, to = %author, "data upgraded: {}", found.difference(ty));
                return Ok(Some(Staged { slot, what: Change::Upgrade(Box::new(upgrade)) }));
            }
            Err(UpgradeFailure::Gone) => return Ok(None),
            Err(UpgradeFailure::Taken) => {
                // Another thread is at it: its end is the end of this wait.
                let _ = old.data().begin_and_leave(deadline);
                if Instant::now() < deadline {
                    return Ok(None);
                }
                "another upgrade of it does not end".to_owned()
            }
            Err(UpgradeFailure::Busy(users)) => format!(
                "waited {UPGRADE_TIMEOUT:?} for {users} uses by earlier code to end; keep a handle for a request, and not in a static"
            ),
            // Also where the key says `restarts`: the value is in use by others.
            Err(UpgradeFailure::GivenUp(took)) => {
                return Err(with_reason(outdated, |_| {
                    format!(
                        "code of this edit that the upgrade runs (a `Default`, a `default = ...`, an `upgrade = ...`, or \
                         `Hash`, `Eq` or `Ord` of a key) did not return within {took:?} and was given up; let it return, and save"
                    )
                }));
            }
            Err(UpgradeFailure::Refused(words)) if found.is_of_other_compiler(ty) => {
                format!("{words}; {FOR_COMPILERS}")
            }
            Err(UpgradeFailure::Refused(words)) => format!("{words}; {ADVICE}"),
        };
        let reason = match kept {
            None => reason,
            Some(kept) => format!(
                "{reason}. The value that {} left is kept: `host rollback {}` brings it back",
                kept.of, author.plugin
            ),
        };
        if ty.restarts {
            tracing::warn!(key = %key, from = %owner, to = %author, "data starts afresh: {reason}");
            return Ok(Some(Staged { slot, what: Change::Restart(old) }));
        }
        Err(with_reason(outdated, |_| reason))
    }

    /// Keeps what an upgrade that is about to be valid leaves for those who go back.
    pub(super) fn keep(&self, staged: &mut Staged) {
        let key = staged.slot.key().clone();
        match &mut staged.what {
            Change::Upgrade(upgrade) => {
                let mut lost = upgrade.lost().to_vec();
                if lost.is_empty() {
                    lost.push("what its `upgrade = ...` did not take".to_owned());
                }
                match upgrade.take_kept() {
                    Some(Ok((value, ty, of))) => {
                        ty.keeper()
                            .is_held_by(format!("`{key}` as it was, which `host rollback` brings back"));
                        self.kept.add(&key, (value, ty), of, lost);
                    }
                    Some(Err(words)) => {
                        self.kept.forget(&key);
                        tracing::warn!(key = %key, "`host rollback` will not bring back {}: {words}", lost.join(", "));
                    }
                    None => {}
                }
            }
            Change::Restart(old) => {
                let (ty, of) = old.owner();
                ty.keeper().is_held_by(format!("`{key}` as it was, which `host rollback` brings back"));
                let lost = vec![format!("{}, which starts afresh", old.type_name())];
                self.kept.add(&key, (Arc::clone(old), ty), of, lost);
            }
            Change::Restore(..) => self.kept.forget(&key),
        }
    }

    fn published(&self, key: &Key) -> Option<Arc<Slot>> {
        self.slots.read().get(key).cloned()
    }
}

/// A plugin that uses the value and would not know it after an upgrade for `author`.
fn stands_in_the_way(slot: &Arc<Slot>, author: &Author, overlay: &Overlay) -> Option<Author> {
    let together = overlay.together();
    slot.other_users(&author.plugin).into_iter().find(|other| match together {
        // Its code that serves now makes room for one that loads beside this.
        Some(together) if overlay.is_open() => !together.counts_on(&other.plugin),
        Some(together) => !together.is_of(other),
        None => true,
    })
}

/// Two plugins that go live together expect different things under a key.
fn differs(by: &Author, theirs: &DataType, ours: &DataType) -> String {
    format!(
        "{by}, which goes live together with this code, defines the type otherwise: {}; build both with the same features and \
         versions of what they share",
        theirs.difference(ours)
    )
}

fn with_reason(error: RegistryError, reason: impl FnOnce(&str) -> String) -> RegistryError {
    match error {
        RegistryError::Outdated { key, type_name, author, reason: difference } => {
            RegistryError::Outdated { key, type_name, author, reason: reason(&difference) }
        }
        other => other,
    }
}
