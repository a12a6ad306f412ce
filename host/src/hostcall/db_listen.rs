//! Plugin -> host: subscriptions to a database's notifications.
#![expect(unsafe_code, reason = "reads the boundary's views and writes through its out-pointers")]

use std::sync::Arc;
use std::time::Duration;

use plugin_api::abi::{
    ErrorSink, HandleId, HostCtx, ListenTable, ListenView, NOTICE_GAP, NOTICE_NOTIFICATION, NoticeSink,
    NoticeView, Status, StrView,
};

use super::db::may_block;
use super::view::{slice, text};
use super::{Caller, Failure, Held, give, guard};
use crate::db::{Listener, Notice};
use crate::registry::Resource;

/// Notifications that are kept when the plugin does not say.
const DEFAULT_CAPACITY: usize = 1024;

/// The functions of the host's table.
pub(super) static LISTEN_TABLE: ListenTable = ListenTable { size: size_of::<ListenTable>(), open, next };

/// A subscription as the registry keeps it.
#[derive(Debug)]
struct ListenerResource(Listener);

impl Resource for ListenerResource {
    fn type_name(&self) -> &'static str {
        "db::Listener"
    }

    fn describe(&self) -> serde_json::Value {
        serde_json::to_value(self.0.status()).unwrap_or_default()
    }

    fn close(&self) {
        self.0.close();
    }
}

unsafe extern "C" fn open(
    ctx: HostCtx,
    config: *const ListenView,
    out: *mut HandleId,
    error: *const ErrorSink,
) -> Status {
    let body = |caller: &Caller| {
        may_block()?;
        // SAFETY: by the table's contract `config` is null or valid for this call.
        let Some(config) = (unsafe { config.as_ref() }) else {
            return Err(Failure::invalid("nothing says where to listen"));
        };
        // SAFETY: the views in the configuration are valid for this call.
        let url = unsafe { text(config.url, "the URL of the database") }?;
        // SAFETY: as above.
        let views: &[StrView] = unsafe { slice(config.channels, config.channel_count) };
        let mut channels = Vec::with_capacity(views.len());
        for view in views {
            // SAFETY: as above.
            channels.push(unsafe { text(*view, "a channel") }?);
        }
        let capacity = if config.capacity == 0 { DEFAULT_CAPACITY } else { config.capacity };
        let listener = Listener::open(url, &channels, capacity)?;
        // SAFETY: by the table's contract `out` is null or writable during this call.
        unsafe { give(caller, Held::Resource(Arc::new(ListenerResource(listener))), out) }
    };
    // SAFETY: `ctx` and `error` by the table's contract.
    unsafe { guard(ctx, error, body) }
}

unsafe extern "C" fn next(
    ctx: HostCtx,
    listener: HandleId,
    timeout_ns: u64,
    notice: *const NoticeSink,
    error: *const ErrorSink,
) -> Status {
    let body = |caller: &Caller| {
        if timeout_ns > 0 {
            may_block()?;
        }
        let Some(listener) = caller.handles.resource::<ListenerResource>(listener) else {
            return Err(Failure::new(Status::NOT_FOUND, "this handle names no subscription"));
        };
        // SAFETY: by the table's contract `notice` is null or valid for this call.
        let Some(sink) = (unsafe { notice.as_ref() }) else {
            return Err(Failure::invalid("nobody takes the notice"));
        };
        let Some(heard) = listener.0.next(Duration::from_nanos(timeout_ns)) else {
            return Err(Failure::new(Status::TIMED_OUT, "nothing was heard"));
        };
        let (kind, backend, channel, payload) = match &heard {
            Notice::Notification { channel, payload, backend } => {
                (NOTICE_NOTIFICATION, *backend, channel.as_str(), payload.as_str())
            }
            Notice::Gap => (NOTICE_GAP, 0, "", ""),
        };
        let view = NoticeView {
            size: size_of::<NoticeView>(),
            kind,
            backend,
            channel: StrView::new(channel),
            payload: StrView::new(payload),
        };
        // SAFETY: `take` and `data` belong together; the view and its texts live until the call returns.
        unsafe { (sink.take)(sink.data, &view) };
        Ok(())
    };
    // SAFETY: `ctx` and `error` by the table's contract.
    unsafe { guard(ctx, error, body) }
}
