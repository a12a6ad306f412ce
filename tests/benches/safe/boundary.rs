//! A plugin's `get`, through the real host table: what an author's call costs, the boundary included.
#![expect(unsafe_code, reason = "hands this process's plugin half the host's table, as the loader does")]

use std::path::Path;
use std::sync::Arc;

use host::hostcall::{Caller, Handles, HostApi, OwnSafe};
use host::pins::Code;
use host::registry::{Overlay, Registry};
use host::safe::Safes;
use plugin_api::abi::{HostTable, PluginTable};
use plugin_api::plugin;

plugin! {
    routes: {},
}

unsafe extern "C" {
    /// What the macro above exports.
    fn plugin_entry_v1(host: *const HostTable) -> *const PluginTable;
}

/// Makes this process a plugin of its own: `plugin_api::safe` works from here on.
pub(super) fn attach(directory: &Path) {
    let caller = Caller {
        plugin: "bench".into(),
        generation: 1,
        registry: Arc::new(Registry::new()),
        overlay: Arc::new(Overlay::committed()),
        handles: Arc::new(Handles::default()),
        data_dir: directory.to_owned(),
        safe: OwnSafe::new(Arc::new(Safes::new(directory.to_owned()))),
        code: Code::new(Path::new("/nowhere"), || ()),
    };
    let api: &'static HostApi = Box::leak(Box::new(HostApi::new(Arc::new(caller))));
    // SAFETY: `api` lives as long as the process, and so does the table that it points to.
    let entered = unsafe { plugin_entry_v1(api.as_ptr()) };
    assert!(!entered.is_null(), "the plugin's half refuses the host's table");
}
