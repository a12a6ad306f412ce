//! The end of start-up: the calm screen for people, the ready file for programs.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::text::{Table, harmless, url};
use crate::plugin::{PluginState, PluginStatus, RouteStatus};

/// What start-up came to.
pub(super) struct Outcome<'a> {
    pub(super) listen: SocketAddr,
    pub(super) admin: Option<SocketAddr>,
    pub(super) plugins_dir: &'a Path,
    /// The state directory, if it is not where the other commands look anyway.
    pub(super) state_dir: Option<&'a Path>,
    pub(super) is_watching: bool,
    /// How this program is called.
    pub(super) program: &'a str,
    pub(super) plugins: &'a [PluginStatus],
}

/// How many routes of a plugin are shown.
const ROUTES: usize = 4;

impl Outcome<'_> {
    /// The start-up screen.
    pub(super) fn screen(&self) -> String {
        let mut text = format!("\n  serving on {}", url(self.listen));
        // Writing to a `String` cannot fail.
        let _ = match self.admin {
            Some(admin) => writeln!(text, "\n  admin   on {}\n", url(admin)),
            None => writeln!(text, "\n"),
        };
        if self.plugins.is_empty() {
            text.push_str(&self.nothing());
            return text;
        }
        text.push_str(&self.table());
        for plugin in self.plugins {
            if let Some(reason) = &plugin.refused {
                let _ = writeln!(text, "\n  {} is refused{}", plugin.name, refusal(plugin, reason));
            }
        }
        text.push('\n');
        text.push_str(&self.next());
        text
    }

    fn table(&self) -> String {
        let mut table = Table::new(&["plugin", "state", "gen", "mount", "routes"]);
        for plugin in self.plugins {
            let generation = plugin.generation.map(|number| number.to_string()).unwrap_or_default();
            let state = state(plugin).to_owned();
            table.row([
                plugin.name.clone(),
                state,
                generation,
                plugin.mount.clone(),
                routes(&plugin.routes, &plugin.mount),
            ]);
        }
        table.render("  ")
    }

    fn nothing(&self) -> String {
        let directory = self.plugins_dir.display();
        format!(
            "  no plugins in {directory} yet; make one and it is served at once:\n\n      {} new hello --plugins {directory}\n\n",
            self.program
        )
    }

    /// What to try next.
    fn next(&self) -> String {
        let mut text = String::new();
        let serving = self.plugins.iter().find(|plugin| !plugin.routes.is_empty());
        if let Some((plugin, route)) = serving.and_then(|plugin| Some((plugin, first_route(&plugin.routes)?)))
        {
            let path = route.path.trim_start_matches('/');
            let base = url(self.listen);
            let base = base.split(' ').next().unwrap_or_default();
            let _ = writeln!(text, "  try   curl {base}{path}");
            if self.is_watching {
                let _ = writeln!(text, "  edit  {} and save: it is served without a restart", source(plugin));
            }
        } else if let Some(plugin) = self.plugins.iter().find(|plugin| plugin.refused.is_some()) {
            let verb = if self.is_watching { "repair" } else { "repair and restart" };
            let _ = writeln!(text, "  next  {verb} {}", source(plugin));
        }
        let state = self.state_dir.map(|dir| format!(" --state {}", dir.display())).unwrap_or_default();
        let _ = writeln!(text, "  see   {} status{state}\n", self.program);
        text
    }
}

/// One word for what a plugin is at.
fn state(plugin: &PluginStatus) -> &'static str {
    match plugin.state {
        PluginState::Building => "building",
        PluginState::Serving => "serving",
        PluginState::Refused => "refused",
        PluginState::Removed => "removed",
    }
}

/// Step and reason of a refusal, with the compiler's first error where there is one.
fn refusal(plugin: &PluginStatus, reason: &str) -> String {
    let step = plugin.last_outcome.as_ref().and_then(|outcome| outcome.failed_step);
    let at = step.map(|step| format!(" at {step}")).unwrap_or_default();
    format!("{at}: {}", harmless(reason))
}

/// The routes, without their mount, as many as fit.
fn routes(routes: &[RouteStatus], mount: &str) -> String {
    let short = |route: &RouteStatus| {
        let path = route.path.strip_prefix(mount.trim_end_matches('/')).unwrap_or(&route.path);
        format!("{} {}", route.method, if path.is_empty() { "/" } else { path })
    };
    let mut shown: Vec<String> = routes.iter().take(ROUTES).map(short).collect();
    if routes.len() > ROUTES {
        shown.push(format!("and {} more", routes.len() - ROUTES));
    }
    shown.join(", ")
}

/// A route that can be tried as it is, if there is one: a GET without parameters.
fn first_route(routes: &[RouteStatus]) -> Option<&RouteStatus> {
    let gets = || routes.iter().filter(|route| route.method == "GET");
    gets().find(|route| !route.path.contains('{')).or_else(|| gets().next())
}

/// The file to edit.
fn source(plugin: &PluginStatus) -> String {
    let path = match plugin.source.kind {
        "directory" => Path::new(&plugin.source.path).join("src/lib.rs"),
        _ => PathBuf::from(&plugin.source.path),
    };
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(&here).unwrap_or(&path).display().to_string()
}

/// The file that tells other programs that start-up is over. Gone when this is dropped.
#[derive(Debug)]
pub(super) struct ReadyFile {
    path: PathBuf,
}

impl ReadyFile {
    /// Writes the file, whole from the first moment it can be seen.
    ///
    /// # Errors
    ///
    /// What the system said; there is no file then.
    pub(super) fn write(
        path: &Path,
        listen: SocketAddr,
        admin: Option<SocketAddr>,
        pid: u32,
    ) -> io::Result<ReadyFile> {
        let body = json!({
            "listen": listen.to_string(),
            "admin": admin.map(|address| address.to_string()),
            "pid": pid,
        });
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}", std::process::id()));
        let new = path.with_file_name(name);
        let written = fs::write(&new, format!("{body}\n")).and_then(|()| fs::rename(&new, path));
        if written.is_err() {
            // It may not be there at all.
            let _ = fs::remove_file(&new);
        }
        written.map(|()| ReadyFile { path: path.to_owned() })
    }
}

impl Drop for ReadyFile {
    fn drop(&mut self) {
        // Somebody else may have removed it.
        let _ = fs::remove_file(&self.path);
    }
}
