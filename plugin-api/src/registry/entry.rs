//! A key with wishes: when its value makes room for a new one, and how long to wait.

use std::time::Duration;

use super::{Handle, Init, IntoKept, Key, RegistryError, sealed};
use crate::abi::{INIT_CONFIGURED, INIT_RESTARTS, ON_CHANGE_RESTART};
use crate::error::Error;

/// What a value is made from, in one form for equal configurations: for [`Lazy::config`](super::Lazy::config).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config(String);

impl Config {
    /// Takes a configuration down, as JSON with its fields in order. It is shown to operators, less what looks like a
    /// secret: values of fields named like `password` or `token`, and passwords in URLs.
    ///
    /// # Errors
    ///
    /// When it cannot be written as JSON, say because a map has keys that are no text.
    #[cfg(feature = "serde")]
    pub fn of<C: serde::Serialize + ?Sized>(config: &C) -> Result<Config, Error> {
        let value = serde_json::to_value(config)?;
        let mut text = String::new();
        write(&value, &mut text);
        Ok(Config(text))
    }
}

/// Writes JSON with the fields of objects in the order of their names, whatever order this build's maps have.
#[cfg(feature = "serde")]
fn write(value: &serde_json::Value, text: &mut String) {
    use serde_json::Value;
    let separate = |i: usize, text: &mut String| {
        if i > 0 {
            text.push(',');
        }
    };
    match value {
        Value::Array(items) => {
            text.push('[');
            for (i, item) in items.iter().enumerate() {
                separate(i, text);
                write(item, text);
            }
            text.push(']');
        }
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|(name, _)| *name);
            text.push('{');
            for (i, (name, field)) in fields.into_iter().enumerate() {
                separate(i, text);
                text.push_str(&Value::String(name.clone()).to_string());
                text.push(':');
                write(field, text);
            }
            text.push('}');
        }
        other => text.push_str(&other.to_string()),
    }
}

/// What the host is told along with an init.
#[derive(Debug, Default)]
pub(crate) struct Wishes {
    pub(crate) restarts: bool,
    pub(crate) config: Option<Config>,
    pub(crate) timeout: Option<Duration>,
}

impl Wishes {
    pub(crate) fn flags(&self) -> u32 {
        let restarts = if self.restarts { INIT_RESTARTS } else { 0 };
        restarts | if self.config.is_some() { INIT_CONFIGURED } else { 0 }
    }

    pub(crate) fn config(&self) -> &str {
        self.config.as_ref().map_or("", |config| &config.0)
    }

    /// Nanoseconds; 0 for the host's default.
    pub(crate) fn timeout_ns(&self) -> u64 {
        self.timeout.map_or(0, |timeout| u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX).max(1))
    }
}

/// A key with wishes. See [`entry`](super::entry).
#[derive(Debug)]
#[must_use = "`get_or_init` finds or makes the value"]
pub struct Entry<'a> {
    key: Key<'a>,
    wishes: Wishes,
    /// Why there is no configuration.
    failed: Option<String>,
}

impl<'a> Entry<'a> {
    pub(super) fn new(key: Key<'a>) -> Entry<'a> {
        Entry { key, wishes: Wishes::default(), failed: None }
    }

    /// The value is made from this configuration. One that was made from another is let go of as soon as a new one
    /// has been made; if that fails, it stays. Equal configurations, by what they serialise to, share the value.
    ///
    /// The plugin that made the value decides: another one that asks with another configuration gets
    /// [`RegistryError::Misconfigured`], one that asks without gets the value. For what operators are shown of
    /// it see [`Config::of`].
    #[cfg(feature = "serde")]
    pub fn config<C: serde::Serialize + ?Sized>(mut self, config: &C) -> Entry<'a> {
        match Config::of(config) {
            Ok(config) => self.wishes.config = Some(config),
            Err(error) => self.failed = Some(error.chain()),
        }
        self
    }

    /// Each generation makes a new value. That of the generation before stays until the new one has been made, and
    /// until its holders let go of it.
    pub fn restart_on_reload(mut self) -> Entry<'a> {
        self.wishes.restarts = true;
        self
    }

    /// Data of a layout that cannot be upgraded to today's is dropped and made anew, and so is a service that this
    /// plugin made with another list of methods. Without this it is kept, and the new code refused.
    pub fn or_restart(mut self) -> Entry<'a> {
        self.key.on_change = ON_CHANGE_RESTART;
        self
    }

    /// How long to wait for the value, and after which time an init is given up as hung. Without this, 30 seconds.
    pub fn timeout(mut self, timeout: Duration) -> Entry<'a> {
        self.wishes.timeout = Some(timeout);
        self
    }

    /// As [`get_or_init`](fn@super::get_or_init), by these wishes.
    ///
    /// # Errors
    ///
    /// [`RegistryError`].
    pub fn get_or_init<M: IntoKept, E: Into<Error>>(
        self,
        init: impl FnOnce() -> Result<M, E>,
    ) -> Result<Handle<M::Kept>, RegistryError> {
        if let Some(failed) = self.failed {
            let words =
                format!("the configuration of `{}` cannot be written as JSON: {failed}", self.key.name);
            return Err(RegistryError::Refused(words));
        }
        let mut init = Some(init);
        let view = Init::new::<M::Kept, E, _>(&mut init, &self.wishes);
        // `init` lives until `find` returns, and the host runs it within, at most once.
        <M::Kept as sealed::Keep>::find(self.key, Some(&view)).map(Handle)
    }
}

#[cfg(all(test, feature = "serde"))]
mod tests {
    use super::Config;
    use std::collections::HashMap;

    #[test]
    fn equal_configurations_have_one_form() {
        let pairs: Vec<(String, u32)> = (0..50).map(|i| (format!("key {i}"), i)).collect();
        let one: HashMap<_, _> = pairs.iter().cloned().collect();
        let other: HashMap<_, _> = pairs.into_iter().rev().collect();
        let config = Config::of(&(one, "a \"text\"", [None, Some(1.5)])).unwrap();
        assert_eq!(config, Config::of(&(other, "a \"text\"", [None, Some(1.5)])).unwrap());
        assert!(config.0.starts_with(r#"[{"key 0":0,"key 1":1,"key 10":10,"#), "{config:?}");
        assert!(config.0.ends_with(r#","a \"text\"",[null,1.5]]"#), "{config:?}");
    }

    #[test]
    fn configuration_that_is_no_json_is_an_error() {
        let error = Config::of(&HashMap::from([(vec![1], 2)])).unwrap_err();
        assert!(error.to_string().contains("key must be a string"), "{error}");
    }
}
