//! Facts about data with hash maps: whichever code emptied one last, its library goes, and nobody looks there again.
//!
//! An empty map points into the library that made or emptied it. What was mapped there is out of reach once a
//! generation is gone, so a look through such a pointer ends the process.

use std::thread;

use tests::host::{Launch, TestHost};
use tests::http::Client;
use tests::wait::{SOON, eventually};
use tests::workshop::Workshop;

/// A plugin that empties its maps in all ways there are, and reads them in all.
const MAPS: &str = r#"
#![forbid(unsafe_code)]
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use plugin_api::prelude::*;
use plugin_api::sync::{Condvar, Mutex, OnceCell, RwLock};

plugin! {
    routes: {
        GET "/fill/{n}" => fill, GET "/empty/{how}" => empty, GET "/show" => show,
        GET "/wait" => wait, GET "/waiting" => waiting, GET "/open" => open,
    },
    state: [STATE],
}

type Map = HashMap<String, u64>;

#[derive(Resident, Debug, Default)]
struct State {
    map: Mutex<Map>,
    nested: Mutex<HashMap<u64, Map>>,
    read: RwLock<Vec<Option<Map>>>,
    shared: Arc<Mutex<HashSet<u64>>>,
    bare: Map,
    cell: OnceCell<HashSet<String>>,
    last: Mutex<Option<Parting>>,
    gate: Mutex<Gate>,
    changed: Condvar,
}

#[derive(Resident, Debug, Default)]
struct Gate {
    waiting: u64,
    is_open: bool,
    map: Map,
}

/// Looks at its maps when it is dropped, by whatever code.
#[derive(Resident, Debug, Default)]
struct Parting(Map, Mutex<Map>);

impl Drop for Parting {
    fn drop(&mut self) {
        assert_eq!(self.0.iter().count() + self.1.get_mut().iter().count(), 0);
    }
}

static STATE: registry::Lazy<State> = registry::Lazy::new("state", || Ok(State::default()));

fn fill(req: &Request) -> Result<String> {
    let n: u64 = req.param("n")?;
    let state = STATE.get()?;
    *state.map.lock().entry("sum".to_owned()).or_default() += n;
    state.nested.lock().entry(n % 2).or_default().insert("in".to_owned(), n);
    state.read.write().push(Some(Map::from([("read".to_owned(), n)])));
    state.shared.lock().insert(n);
    Ok(n.to_string())
}

fn empty(req: &Request) -> Result<&'static str> {
    let how: u64 = req.param("how")?;
    let state = STATE.get()?;
    fn emptied(map: &mut Map, how: u64) {
        match how % 3 {
            0 => drop(std::mem::take(map)),
            1 => {
                map.clear();
                map.shrink_to_fit();
            }
            _ => *map = Map::new(),
        }
    }
    emptied(&mut state.map.lock(), how);
    {
        let mut nested = state.nested.lock();
        if how % 2 == 0 {
            nested.values_mut().for_each(|map| emptied(map, how));
        } else {
            *nested = HashMap::new();
        }
    }
    *state.read.write() = vec![Some(Map::new()), None, Some(Map::new())];
    *state.shared.lock() = HashSet::new();
    *state.last.lock() = Some(Parting::default());
    emptied(&mut state.gate.lock().map, how);
    if how == 7 {
        state.cell.get_or_init(HashSet::new);
    }
    Ok("emptied")
}

fn show(_: &Request) -> Result<String> {
    let state = STATE.get()?;
    let mut nested: Vec<_> = state.nested.lock().iter().map(|(n, map)| (*n, map.get("in").copied())).collect();
    nested.sort_unstable();
    let read: usize = state.read.read().iter().flatten().flat_map(Map::iter).count();
    Ok(format!(
        "{:?} {nested:?} {read} {} {:?} {:?} {}",
        state.map.lock(), state.shared.lock().len(), state.bare, state.cell.get().map(HashSet::len),
        state.bare.iter().count() + state.cell.get().into_iter().flatten().count() + state.gate.lock().map.iter().count(),
    ))
}

/// Ends in the code it began in, when newer code has opened the gate and emptied the map behind it.
fn wait(_: &Request) -> Result<String> {
    let state = STATE.get()?;
    let mut gate = state.gate.lock();
    gate.waiting += 1;
    while !gate.is_open {
        gate = state.changed.wait(gate);
    }
    gate.waiting -= 1;
    let seen = gate.map.iter().count();
    gate.map = Map::new();
    Ok(format!("waited {seen}"))
}

fn waiting(_: &Request) -> Result<String> {
    Ok(STATE.get()?.gate.lock().waiting.to_string())
}

fn open(_: &Request) -> Result<&'static str> {
    let state = STATE.get()?;
    let mut gate = state.gate.lock();
    gate.is_open = true;
    gate.map = Map::new();
    state.changed.notify_all();
    Ok("opened")
}
"#;

#[track_caller]
fn ask(host: &TestHost, path: &str) -> String {
    let response = host.get(path);
    assert_eq!(response.status, 200, "{path}: {}\n{}", response.text(), host.log());
    response.text()
}

/// The same library with another content, which is a library of its own once it is loaded.
fn rebuilt(library: &[u8], build: u64) -> Vec<u8> {
    [library, format!("build {build}").as_bytes()].concat()
}

/// 50 generations fill and empty the same maps by turns. Each goes before the next looks, and none is kept.
#[test]
fn generations_that_emptied_maps_are_unmapped_and_nothing_is_lost() {
    let library = Workshop::open("maps").build(MAPS, &[]);
    let launch = Launch::new();
    launch.plugins().put_library("probe", &library);
    let host = launch.start();
    let mut sum = 0;
    for build in 0..50 {
        sum += build + 1;
        ask(&host, &format!("/probe/fill/{}", build + 1));
        let shown = ask(&host, "/probe/show");
        assert!(shown.starts_with(&format!("{{\"sum\": {sum}}} ")), "{build}: {shown}");
        if build % 3 != 0 {
            ask(&host, &format!("/probe/empty/{build}"));
            sum = 0;
        }
        host.reload("probe", |plugins| plugins.put_library("probe", &rebuilt(&library, build)));
        // With what came before out of reach, whatever is left of it would be fallen over.
        host.wait_unloaded("probe", build + 1);
        let shown = ask(&host, "/probe/show");
        let map = if sum > 0 { format!("{{\"sum\": {sum}}}") } else { "{}".to_owned() };
        assert!(shown.starts_with(&format!("{map} ")), "{build}: {shown}");
    }
    let shown = ask(&host, "/probe/show");
    assert_eq!(shown, "{} [] 0 0 {} Some(0) 0");
    assert_eq!(host.mapped_libraries(), 1);
}

/// A call of the first generation waits while 10 newer ones come and go; a second plugin uses the same maps.
#[test]
fn a_draining_call_and_a_second_plugin_meet_only_maps_of_their_own() {
    let library = Workshop::open("maps").build(MAPS, &[]);
    let launch = Launch::new();
    launch.plugins().put_library("probe", &library);
    launch.plugins().put_library("other", &rebuilt(&library, 100));
    let host = launch.start();
    thread::scope(|scope| {
        let listen = host.listen();
        let waiting = scope.spawn(move || Client::new(listen).get("/probe/wait").unwrap().text());
        eventually(SOON, "the call to wait", || match ask(&host, "/other/waiting").as_str() {
            "1" => Ok(()),
            other => Err(other.to_owned()),
        });
        for build in 0..10 {
            let (one, two) = if build % 2 == 0 { ("probe", "other") } else { ("other", "probe") };
            ask(&host, &format!("/{one}/empty/{build}"));
            ask(&host, &format!("/{two}/fill/5"));
            assert_eq!(ask(&host, &format!("/{one}/show")).split(' ').nth(1), Some("5}"));
            ask(&host, &format!("/{two}/empty/{build}"));
            host.reload(two, |plugins| plugins.put_library(two, &rebuilt(&library, 200 + build)));
            assert!(ask(&host, &format!("/{one}/show")).starts_with("{} "));
        }
        assert_eq!(ask(&host, "/other/open"), "opened");
        assert_eq!(waiting.join().unwrap(), "waited 0");
    });
    host.wait_unloaded("probe", 5);
    host.wait_unloaded("other", 5);
    assert_eq!(host.mapped_libraries(), 2);
    assert!(ask(&host, "/probe/show").starts_with("{} "));
}

/// A plugin with a map that no lock knows of: its type says in unchecked code that there is nothing to settle.
const UNSETTLED: &str = concat!(
    r#"
use std::collections::HashMap;

use plugin_api::prelude::*;
use plugin_api::resident::{Kind, Settling, Shapes};
use plugin_api::sync::Mutex;

plugin! { routes: { GET "/empty" => empty, GET "/count" => count }, state: [MAP] }

#[derive(Default)]
struct Map(HashMap<u64, u64>);

"#,
    // Written so that this file does not contain it.
    "un",
    r#"safe impl Resident for Map {
    const MAY_SETTLE: bool = false;

    fn settle(&mut self, _: Settling<'_>) {}

    fn shape(_: &mut Shapes) -> Kind {
        Kind::Leaf
    }
}

static MAP: registry::Lazy<Mutex<Map>> = registry::Lazy::new("map", || Ok(Mutex::default()));

fn empty(_: &Request) -> Result<&'static str> {
    *MAP.get()?.lock() = Map::default();
    Ok("emptied")
}

fn count(_: &Request) -> Result<String> {
    Ok(MAP.get()?.lock().0.iter().count().to_string())
}
"#
);

/// The control of the others here: without settling the first look at a map whose library is gone ends the process.
#[test]
fn a_map_that_nobody_settles_is_a_way_into_code_that_is_gone() {
    let unchecked = &UNSETTLED
        [UNSETTLED.find(concat!("un", "safe impl")).unwrap()..UNSETTLED.find("static MAP").unwrap()];
    let settled = UNSETTLED
        .replacen(unchecked, "", 1)
        .replacen("#[derive(Default)]", "#[derive(Default, Resident)]", 1)
        .replacen("use plugin_api::resident::{Kind, Settling, Shapes};\n", "", 1);
    let workshop = Workshop::open("unsettled");
    for (text, is_settled) in [(settled.as_str(), true), (UNSETTLED, false)] {
        let library = workshop.build(text, &[]);
        let launch = Launch::new();
        launch.plugins().put_library("probe", &library);
        let host = launch.start();
        assert_eq!(ask(&host, "/probe/empty"), "emptied");
        host.reload("probe", |plugins| plugins.put_library("probe", &rebuilt(&library, 1)));
        host.wait_unloaded("probe", 1);
        let counted = Client::new(host.listen()).get("/probe/count");
        if is_settled {
            assert_eq!(counted.unwrap().text(), "0");
        } else {
            assert!(counted.is_err(), "an answer from nowhere");
            let finished = host.wait_end();
            assert_eq!(finished.code(), -1, "{finished}");
        }
    }
}
