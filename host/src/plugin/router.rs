//! Which generation answers a path: an immutable snapshot, swapped as a whole.
//!
//! # Invariants
//!
//! - A router never changes. Publish builds a new one and swaps the pointer, so a request sees the
//!   plugins of one moment.
//! - It holds a lease on every current generation: a generation is in use as long as a router that
//!   names it is.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use http::Method;
use percent_encoding::percent_decode_str;

use super::generation::{Generation, Lease};
use super::library::Route;

/// A plugin as the router sees it.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Name of the plugin.
    pub plugin: Arc<str>,
    /// Where it is mounted; empty at the root.
    pub mount: String,
    /// Its current generation, if it has one.
    pub lease: Option<Arc<Lease>>,
    /// Why its newest code was refused, while an older one serves or none does. Shared with the plugin.
    pub refusal: Arc<ArcSwapOption<Refusal>>,
}

/// Why the newest code of a plugin does not serve.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// One sentence.
    pub reason: String,
    /// The compiler's words, without colours.
    pub details: Option<String>,
}

/// A snapshot of all plugins.
#[derive(Debug, Default)]
pub struct Router {
    mounts: HashMap<String, Mounted>,
}

#[derive(Debug)]
struct Mounted {
    entry: Entry,
    /// Pattern -> the routes of that pattern, by method.
    patterns: matchit::Router<Vec<usize>>,
}

/// Why a set of plugins cannot be routed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// Two plugins want one mount.
    #[error(
        "`{plugin}` wants to answer under `{mount}`, where `{other}` answers already; set `mount` for one of them in host.toml"
    )]
    MountTaken {
        /// The plugin that comes second.
        plugin: String,
        /// The mount.
        mount: String,
        /// The plugin that is there.
        other: String,
    },
    /// A mount that is no path.
    #[error("`{mount}` is no mount: write `/` or a path such as `/shop`, without a slash at its end")]
    Mount {
        /// The mount.
        mount: String,
    },
    /// A pattern that cannot be matched, or that contradicts another one.
    #[error("route `{route}`: {reason}")]
    Pattern {
        /// Method and pattern.
        route: String,
        /// What is wrong.
        reason: String,
    },
}

/// Who answers.
#[derive(Debug)]
pub enum Found {
    /// This route of this generation.
    Route(Matched),
    /// The path is there, with other methods.
    WrongMethod {
        /// The `Allow` header.
        allow: String,
    },
    /// A path parameter is not UTF-8 when decoded.
    BadPath {
        /// The parameter.
        param: String,
    },
    /// The plugin has no working generation.
    Unavailable(Entry),
    /// No plugin answers there.
    Nothing,
}

/// A route that answers, and what pins it.
#[derive(Debug)]
pub struct Matched {
    /// What keeps the generation.
    hold: Hold,
    /// Index of the route in its generation.
    pub route: usize,
    /// Path parameters, decoded.
    pub params: Vec<(String, String)>,
    /// See [`Entry::refusal`].
    pub refusal: Arc<ArcSwapOption<Refusal>>,
}

/// What a match keeps of its generation.
#[derive(Debug)]
enum Hold {
    /// The right to use it.
    Lease(Arc<Lease>),
    /// No more than its memory: somebody else has the lease.
    Memory(Arc<Generation>),
}

impl Matched {
    /// The generation.
    pub fn generation(&self) -> &Arc<Generation> {
        match &self.hold {
            Hold::Lease(lease) => lease.generation(),
            Hold::Memory(generation) => generation,
        }
    }

    /// The route.
    pub fn route(&self) -> &Route {
        &self.generation().library.routes[self.route]
    }

    /// Hands the lease over to the caller, who keeps it for as long as the handler runs; `None` if that was done.
    pub fn part(&mut self) -> Option<Arc<Lease>> {
        let memory = Hold::Memory(Arc::clone(self.generation()));
        match std::mem::replace(&mut self.hold, memory) {
            Hold::Lease(lease) => Some(lease),
            Hold::Memory(_) => None,
        }
    }
}

/// The mount as it is kept: empty for the root, else `/a/b`.
///
/// # Errors
///
/// [`RouteError::Mount`].
pub fn normal_mount(mount: &str) -> Result<String, RouteError> {
    let error = || RouteError::Mount { mount: mount.to_owned() };
    if mount == "/" {
        return Ok(String::new());
    }
    let rest = mount.strip_prefix('/').ok_or_else(error)?;
    let is_plain = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b))
    };
    if rest.split('/').all(is_plain) { Ok(mount.to_owned()) } else { Err(error()) }
}

/// The error of a plugin that wants the mount of another one.
pub fn mount_taken(plugin: &str, mount: &str, other: &str) -> RouteError {
    let mount = if mount.is_empty() { "/" } else { mount };
    RouteError::MountTaken { plugin: plugin.to_owned(), mount: mount.to_owned(), other: other.to_owned() }
}

/// Checks that the patterns of a plugin do not contradict each other, and indexes them.
///
/// # Errors
///
/// [`RouteError::Pattern`].
pub fn index(routes: &[Route]) -> Result<matchit::Router<Vec<usize>>, RouteError> {
    let mut by_pattern: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (i, route) in routes.iter().enumerate() {
        let of_pattern = by_pattern.entry(&route.pattern).or_default();
        if of_pattern.iter().any(|&other| routes[other].method == route.method) {
            let reason = "declared twice".to_owned();
            return Err(RouteError::Pattern { route: route.name.to_string(), reason });
        }
        of_pattern.push(i);
    }
    let mut patterns = matchit::Router::new();
    for (pattern, of_pattern) in by_pattern {
        let name = routes[of_pattern[0]].name.to_string();
        patterns
            .insert(pattern, of_pattern)
            .map_err(|error| RouteError::Pattern { route: name, reason: error.to_string() })?;
    }
    Ok(patterns)
}

impl Router {
    /// A snapshot of `entries`.
    ///
    /// # Errors
    ///
    /// [`RouteError`]; the first contradiction between plugins that have code.
    pub fn new(entries: impl IntoIterator<Item = Entry>) -> Result<Router, RouteError> {
        let (with_code, without): (Vec<Entry>, Vec<Entry>) =
            entries.into_iter().partition(|entry| entry.lease.is_some());
        let mut mounts: HashMap<String, Mounted> = HashMap::new();
        for entry in with_code {
            let lease = entry.lease.as_ref().expect("these have code");
            let patterns = index(&lease.generation().library.routes)?;
            if let Some(other) = mounts.get(&entry.mount) {
                return Err(mount_taken(&entry.plugin, &entry.mount, &other.entry.plugin));
            }
            mounts.insert(entry.mount.clone(), Mounted { entry, patterns });
        }
        // A plugin without code has a place to say so, unless one with code answers there.
        for entry in without {
            let mount = entry.mount.clone();
            mounts.entry(mount).or_insert(Mounted { entry, patterns: matchit::Router::new() });
        }
        Ok(Router { mounts })
    }

    /// Whether a plugin is mounted at the root.
    pub fn has_root(&self) -> bool {
        self.mounts.contains_key("")
    }

    /// Who answers `method` on `path`: the longest mount that is a prefix of it, by whole segments.
    pub fn find(&self, method: &Method, path: &str) -> Found {
        let mut end = path.len();
        loop {
            if let Some(mounted) = self.mounts.get(&path[..end]) {
                return mounted.find(method, &path[end..]);
            }
            match path[..end].rfind('/') {
                Some(slash) => end = slash,
                None => return Found::Nothing,
            }
        }
    }
}

impl Mounted {
    fn find(&self, method: &Method, below: &str) -> Found {
        let Some(lease) = &self.entry.lease else {
            return Found::Unavailable(self.entry.clone());
        };
        let below = if below.is_empty() { "/" } else { below };
        let Ok(matched) = self.patterns.at(below) else { return Found::Nothing };
        let routes = &lease.generation().library.routes;
        let of = |wanted: &Method| matched.value.iter().copied().find(|&i| routes[i].method == *wanted);
        let route = of(method).or_else(|| if method == Method::HEAD { of(&Method::GET) } else { None });
        let Some(route) = route else {
            return Found::WrongMethod { allow: allow(matched.value.iter().map(|&i| &routes[i].method)) };
        };
        let mut params = Vec::with_capacity(matched.params.len());
        for (name, value) in matched.params.iter() {
            match percent_decode_str(value).decode_utf8() {
                Ok(value) => params.push((name.to_owned(), value.into_owned())),
                Err(_) => return Found::BadPath { param: name.to_owned() },
            }
        }
        Found::Route(Matched {
            hold: Hold::Lease(Arc::clone(lease)),
            route,
            params,
            refusal: Arc::clone(&self.entry.refusal),
        })
    }
}

/// The `Allow` header for `methods`; HEAD comes with GET, OPTIONS always.
fn allow<'m>(methods: impl Iterator<Item = &'m Method>) -> String {
    let mut names: Vec<&str> = methods.map(Method::as_str).collect();
    if names.contains(&"GET") && !names.contains(&"HEAD") {
        names.push("HEAD");
    }
    if !names.contains(&"OPTIONS") {
        names.push("OPTIONS");
    }
    names.sort_unstable();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_whole_paths() {
        assert_eq!(normal_mount("/"), Ok(String::new()));
        assert_eq!(normal_mount("/shop/v2"), Ok("/shop/v2".to_owned()));
        for bad in ["", "shop", "/shop/", "//", "/a b", "/{id}", "/a?b"] {
            assert!(normal_mount(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn allow_names_what_comes_with_get() {
        assert_eq!(allow([Method::POST, Method::GET].iter()), "GET, HEAD, OPTIONS, POST");
        assert_eq!(allow([Method::PUT].iter()), "OPTIONS, PUT");
    }

    #[test]
    fn without_plugins_nothing_is_found() {
        let router = Router::new([]).unwrap();
        for path in ["/", "", "*", "/a/b/", "//"] {
            assert!(matches!(router.find(&Method::GET, path), Found::Nothing), "{path}");
        }
    }
}
