//! A key with its init, in a static.

use std::fmt;

use super::{Config, Init, Keep, Key, RegistryError, Wishes};
use crate::abi::{ON_CHANGE_KEEP, ON_CHANGE_RESTART};
use crate::error::Error;

/// A key with its init, looked up once a generation.
///
/// ```no_run
/// use plugin_api::prelude::*;
///
/// static DB: registry::Lazy<db::Pool> = registry::Lazy::new("db", connect);
///
/// fn connect() -> Result<db::Pool> {
///     Ok(db::Pool::open("sqlite:guestbook.db")?)
/// }
///
/// fn count(_: &Request) -> Result<String> {
///     let row = DB.get()?.get()?.query_one("SELECT count(*) FROM entry", &[])?;
///     Ok(format!("{} entries", row.get::<i64>(0)?))
/// }
/// ```
///
/// For a host handle the cost of a use is that of a load, and the `Lazy` keeps its handle to the end of its
/// generation, also when [`remove`](super::remove) empties the slot. For data a use is counted, so that it
/// can be upgraded between two uses; after a `remove` the next use makes a new value. A service is looked up at every
/// use (less than a microsecond), so that one that was replaced is let go of.
pub struct Lazy<T: ?Sized + Keep> {
    module: &'static str,
    key: &'static str,
    init: fn() -> Result<T::Made, Error>,
    on_change: u32,
    restarts: bool,
    config: Option<fn() -> Result<Config, Error>>,
    cache: T::Cache,
}

impl<T: ?Sized + Keep> Lazy<T> {
    /// A key of the common module.
    pub const fn new(key: &'static str, init: fn() -> Result<T::Made, Error>) -> Lazy<T> {
        Lazy::in_module("", key, init)
    }

    /// A key of the module named `module`.
    pub const fn in_module(
        module: &'static str,
        key: &'static str,
        init: fn() -> Result<T::Made, Error>,
    ) -> Lazy<T> {
        Lazy { module, key, init, on_change: ON_CHANGE_KEEP, restarts: false, config: None, cache: T::EMPTY }
    }

    /// Data of a layout that cannot be upgraded to today's is dropped and made anew, and so is a service that this
    /// plugin made with another list of methods. Without this it is kept, and the new code refused.
    pub const fn or_restart(mut self) -> Lazy<T> {
        self.on_change = ON_CHANGE_RESTART;
        self
    }

    /// Each generation makes a new value: as [`Entry::restart_on_reload`](super::Entry::restart_on_reload).
    pub const fn restart_on_reload(mut self) -> Lazy<T> {
        self.restarts = true;
        self
    }

    /// The value follows a configuration: as [`Entry::config`](super::Entry::config). Asked for once in a
    /// generation, before its first use of the value.
    ///
    /// ```no_run
    /// use plugin_api::prelude::*;
    ///
    /// static DB: registry::Lazy<db::Pool> = registry::Lazy::new("db", || Ok(db::Pool::open(&url()?)?))
    ///     .config(|| registry::Config::of(&url()?));
    ///
    /// fn url() -> Result<String> {
    ///     Ok(env_or("SHOP_DATABASE", "sqlite:shop.db")?)
    /// }
    /// # fn main() {}
    /// ```
    pub const fn config(mut self, config: fn() -> Result<Config, Error>) -> Lazy<T> {
        self.config = Some(config);
        self
    }

    /// The value, found or made at the first use: `&T` for host handles, a counted `Handle<T>` for data and
    /// services.
    ///
    /// # Errors
    ///
    /// As [`get_or_init`](fn@super::get_or_init). A failure is not remembered here: the next call tries again.
    #[inline]
    pub fn get(&self) -> Result<T::Lent<'_>, RegistryError> {
        match T::remembered(&self.cache) {
            Some(value) => Ok(value),
            None => self.find(),
        }
    }

    #[cold]
    fn find(&self) -> Result<T::Lent<'_>, RegistryError> {
        let mut init = Some(self.init);
        let wishes = self.wishes()?;
        T::lend(&self.cache, self.place(), &Init::new::<T, Error, _>(&mut init, &wishes))
    }

    fn wishes(&self) -> Result<Wishes, RegistryError> {
        let config = self.config.map(|config| config()).transpose().map_err(|error| {
            RegistryError::Refused(format!("there is no configuration for `{}`: {}", self.key, error.chain()))
        })?;
        Ok(Wishes { restarts: self.restarts, config, timeout: None })
    }

    fn place(&self) -> Key<'static> {
        Key { module: self.module, name: self.key, on_change: self.on_change }
    }
}

/// Readies a key before its generation is published. For `plugin!`, at the end of `on_load`.
///
/// # Errors
///
/// As [`Lazy::get`]; the generation is refused.
#[doc(hidden)]
pub fn prepare<T: ?Sized + Keep>(lazy: &Lazy<T>) -> Result<(), Error> {
    let mut init = Some(lazy.init);
    let wishes = lazy.wishes()?;
    Ok(T::prepare(&lazy.cache, lazy.place(), &Init::new::<T, Error, _>(&mut init, &wishes))?)
}

impl<T: ?Sized + Keep> fmt::Debug for Lazy<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lazy").field("module", &self.module).field("key", &self.key).finish_non_exhaustive()
    }
}
