//! Notifications of PostgreSQL: a subscription that outlives code and connections.

use std::sync::Arc;
use std::time::Duration;

use crate::abi::Status;
use crate::db::{OpenError, QueryError, stream_call};
use crate::host::Owned;
use crate::registry;

/// What was heard.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// Somebody ran `NOTIFY`.
    Notification {
        /// On which channel.
        channel: String,
        /// With which words; maybe none.
        payload: String,
        /// Through which process of the server.
        backend: i32,
    },
    /// Notifications may be missing here: the connection was lost and made again, or nobody asked for so long
    /// that the queue was full. Look at the tables themselves once.
    Gap,
}

/// A subscription to channels of a PostgreSQL database.
///
/// The host listens, on a connection of its own, and reconnects by itself. Kept in the registry, the
/// subscription survives reloads: what is said while the code is replaced waits for the new code. A
/// clone is another handle to the same subscription, and each notification goes to one asker.
///
/// ```no_run
/// use plugin_api::prelude::*;
/// use std::time::Duration;
///
/// static ORDERS: registry::Lazy<db::Listener> = registry::Lazy::new("orders", || {
///     Ok(db::Listener::open("postgres://localhost/shop", &["orders"])?)
/// });
///
/// fn wait(_: &Request) -> Result<String> {
///     Ok(match ORDERS.get()?.next(Duration::from_secs(20))? {
///         Some(db::Notice::Notification { payload, .. }) => payload,
///         Some(_) => "something may have been missed\n".to_owned(),
///         None => "nothing yet\n".to_owned(),
///     })
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Listener {
    handle: Arc<Owned>,
}

impl Listener {
    /// Connects, and listens to `channels` from then on. The newest 1024 notifications are kept until
    /// somebody asks.
    ///
    /// # Errors
    ///
    /// When the URL is wrong or not PostgreSQL's, or the database cannot be reached.
    pub fn open(url: &str, channels: &[&str]) -> Result<Listener, OpenError> {
        Ok(Listener { handle: Arc::new(stream_call::listener_open(url, channels, 0)?) })
    }

    /// What was heard first and nobody has asked for, waiting up to `timeout` for it. `None`: nothing.
    ///
    /// # Errors
    ///
    /// On a route that must not block, unless `timeout` is zero; and when the subscription has ended.
    pub fn next(&self, timeout: Duration) -> Result<Option<Notice>, QueryError> {
        match stream_call::listener_next(&self.handle, timeout) {
            Ok(notice) => Ok(Some(notice)),
            Err(error) if error.status == Status::TIMED_OUT => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

registry::host_handle!(Listener);

impl registry::sealed::HostHandle for Listener {
    const TYPE_NAME: &'static str = "db::Listener";

    fn from_owned(handle: Owned) -> Listener {
        Listener { handle: Arc::new(handle) }
    }

    fn into_owned(self) -> Result<Owned, String> {
        // With clones about, the registry gets a second handle to the same subscription.
        Arc::try_unwrap(self.handle).or_else(|shared| shared.try_clone()).map_err(|error| error.to_string())
    }
}
