//! The page at `/` where no plugin is mounted: what runs here and where it answers.

use std::fmt::Write as _;

use crate::plugin::{PluginState, PluginStatus};

const HEAD: &str = "<!doctype html><html lang=en><meta charset=utf-8>\
<meta name=viewport content=\"width=device-width, initial-scale=1\"><title>Plugins</title><style>\
:root{color-scheme:light dark}\
body{font:16px/1.5 system-ui,sans-serif;max-width:44rem;margin:3rem auto;padding:0 1rem}\
h1{font-size:1.4rem}article{border-top:1px solid #8885;padding:.6rem 0 .9rem}\
h2{font-size:1.1rem;margin:.2rem 0}small{opacity:.7}pre{overflow:auto;background:#8882;padding:.7rem}\
ul{margin:.3rem 0;padding-left:1.2rem}code{font:13px ui-monospace,monospace}.bad{color:#c33}\
</style><h1>Plugins</h1>";

/// The page. It is for development: it shows why code was refused.
pub(super) fn page(plugins: &[PluginStatus]) -> String {
    let mut page = HEAD.to_owned();
    if plugins.is_empty() {
        page.push_str(
            "<p>There is no plugin yet. Make one with <code>host new hello</code>; it is built and \
             served as soon as it is there.",
        );
    }
    for plugin in plugins {
        article(&mut page, plugin);
    }
    page
}

fn article(page: &mut String, plugin: &PluginStatus) {
    let state = match (plugin.state, plugin.generation) {
        (PluginState::Building, _) => "being built".to_owned(),
        (PluginState::Refused, _) => "refused".to_owned(),
        (PluginState::Removed, _) => "deleted".to_owned(),
        (PluginState::Serving, generation) => format!("generation {}", generation.unwrap_or_default()),
    };
    let mount = escape(&plugin.mount);
    // Writing to a `String` cannot fail.
    let _ = write!(
        page,
        "<article><h2><a href=\"{mount}\">{}</a> <small>{state}</small></h2>",
        escape(&plugin.name)
    );
    if let Some(reason) = &plugin.refused {
        let _ = write!(page, "<p class=bad>{}", escape(reason));
    }
    page.push_str("<ul>");
    for route in &plugin.routes {
        let _ = write!(page, "<li><code>{} {}</code>", escape(&route.method), escape(&route.path));
    }
    page.push_str("</ul></article>");
}

fn escape(text: &str) -> String {
    plugin_api::escape_html(text).into_owned()
}
