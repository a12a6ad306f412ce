//! A slot as the faces show it.
//!
//! Owns what is told and under which names. Does not own how it is shown.
//!
//! # Invariants
//!
//! - The value is described, and secrets are taken out of its configuration, without the slot's lock.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::{Content, Slot};
use crate::registry::{Author, KeptInfo, redact, unix_ms};

/// A slot as the faces show it.
#[derive(Clone, Debug, serde::Serialize)]
pub struct SlotInfo {
    /// Namespace; empty for the common one.
    pub module: String,
    /// Name within the module.
    pub key: String,
    /// What the slot is at.
    pub state: SlotState,
    /// Name of the value's type.
    #[serde(rename = "type")]
    pub type_name: Option<String>,
    /// How the value survives.
    pub kind: Option<&'static str>,
    /// Who made the value.
    pub created_by: Option<AuthorInfo>,
    /// When, in milliseconds since the Unix epoch.
    pub created_at_ms: Option<u64>,
    /// Look-ups that found the value.
    pub hits: u64,
    /// Failed attempts since the slot exists.
    pub failures: u64,
    /// Values made under the key: 1 says that it was connected once.
    pub made: u64,
    /// Reloads, of plugins that use it, since the value was made.
    pub reloads_survived: u64,
    /// Plugins that have used the value.
    pub used_by: Vec<String>,
    /// Whether nobody has asked for the value since those plugins were reloaded, or they are gone.
    pub is_orphan: bool,
    /// When it makes room for a new one: `keep`, `restart` with each reload, `configuration`.
    pub policy: Option<&'static str>,
    /// The configuration it was made from, without secrets.
    pub config: Option<serde_json::Value>,
    /// Milliseconds since the init that is running began.
    pub opening_ms: Option<u64>,
    /// The last failure, if there ever was one.
    pub last_error: Option<FailureInfo>,
    /// What the value says of itself.
    pub value: Option<serde_json::Value>,
    /// The value from before an upgrade that dropped something, which a roll-back brings back.
    pub kept: Option<KeptInfo>,
}

/// What a slot is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SlotState {
    /// Nobody has made a value, or it was removed.
    Empty,
    /// An init is running.
    Opening,
    /// It holds a value.
    Ready,
    /// The last attempts failed; the next try is not due yet.
    BackingOff,
}

/// An [`Author`] as the faces show it.
#[derive(Clone, Debug, serde::Serialize)]
pub struct AuthorInfo {
    /// Name of the plugin.
    pub plugin: String,
    /// Number of the generation.
    pub generation: u64,
}

/// A failed attempt as the faces show it.
#[derive(Clone, Debug, serde::Serialize)]
pub struct FailureInfo {
    /// What happened.
    pub message: String,
    /// Whose init it was.
    pub by: AuthorInfo,
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Failures in a row so far; 0 once a value was made.
    pub attempts: u32,
    /// Milliseconds until the next attempt may begin; 0: now.
    pub next_try_in_ms: u64,
}

impl From<&Author> for AuthorInfo {
    fn from(author: &Author) -> AuthorInfo {
        AuthorInfo { plugin: author.plugin.to_string(), generation: author.generation }
    }
}

impl Slot {
    /// The slot as the faces show it. Describes the value without the lock.
    pub(in crate::registry) fn info(&self) -> SlotInfo {
        let now = Instant::now();
        let state = self.state.lock();
        let next_try =
            state.failed.as_ref().map_or(Duration::ZERO, |f| f.next_try.saturating_duration_since(now));
        let attempts = state.failed.as_ref().map_or(0, |f| f.in_a_row);
        let mut info = SlotInfo {
            module: self.key.module.to_string(),
            key: self.key.name.to_string(),
            state: match &state.content {
                Content::Ready(_) => SlotState::Ready,
                Content::Opening { .. } => SlotState::Opening,
                Content::Empty if next_try.is_zero() => SlotState::Empty,
                Content::Empty => SlotState::BackingOff,
            },
            type_name: None,
            kind: None,
            created_by: None,
            created_at_ms: None,
            hits: self.hits.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
            made: state.made,
            reloads_survived: 0,
            used_by: Vec::new(),
            is_orphan: false,
            policy: None,
            config: None,
            opening_ms: None,
            last_error: state.last_failure.as_ref().map(|(at, by, failure)| FailureInfo {
                message: failure.to_string(),
                by: by.into(),
                at_ms: unix_ms(*at),
                attempts,
                next_try_in_ms: u64::try_from(next_try.as_millis()).unwrap_or(u64::MAX),
            }),
            value: None,
            kept: None,
        };
        let mut value = None;
        let mut config = None;
        if let Content::Ready(ready) = &state.content {
            info.type_name = Some(ready.value.type_name().into_owned());
            info.kind = Some(ready.value.kind());
            info.created_by = Some((&ready.author).into());
            info.created_at_ms = Some(unix_ms(ready.at));
            info.reloads_survived = ready.reloads_survived;
            info.used_by = ready.users.keys().map(ToString::to_string).collect();
            info.is_orphan = ready.is_orphan();
            info.policy = Some(ready.made_with.name());
            config = ready.made_with.config.clone();
            value = Some(ready.value.clone());
        } else if let Content::Opening { author, since, .. } = &state.content {
            info.created_by = Some(author.into());
            info.opening_ms = Some(u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX));
        }
        drop(state);
        info.config = config.map(|config| redact::shown(&config));
        info.value = value.map(|value| value.describe());
        info
    }
}
