//! A plugin whose data an author is about to change. What is served is what is there.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use plugin_api::prelude::*;
use plugin_api::sync::{Mutex, RwLock};

plugin! {
    routes: { GET "/show" => show, GET "/hit" => hit, GET "/use" => use_it, GET "/remove" => remove },
    state: [STATE],
}

const VERSION: &str = "v1";

#[derive(Resident, Debug)]
pub struct Item {
    pub label: String,
    pub count: u32,
}

impl Item {
    fn new(label: &str, count: u32) -> Item {
        Item { label: label.into(), count: count.into() }
    }
}

#[derive(Resident, Debug)]
pub enum Mode {
    Idle,
    Busy { since: u64, who: String },
}

#[derive(Resident, Debug)]
pub struct Pair<T> {
    left: T,
    right: String,
}

#[derive(Resident, Debug)]
pub struct State {
    hits: AtomicU64,
    name: Mutex<String>,
    item: Item,
    one: Mutex<Option<Item>>,
    list: Mutex<Vec<Item>>,
    map: Mutex<HashMap<String, Item>>,
    tree: RwLock<BTreeMap<u32, Item>>,
    boxed: Box<Item>,
    shared: Arc<Item>,
    mode: Mutex<Mode>,
    pair: Pair<u32>,
}

static STATE: registry::Lazy<State> = registry::Lazy::new("state", || Ok(fresh()));

fn fresh() -> State {
    State {
        hits: 7.into(),
        name: Mutex::new("ann".into()),
        item: Item::new("plain", 1),
        one: Mutex::new(Some(Item::new("optional", 2))),
        list: Mutex::new(vec![Item::new("first", 3), Item::new("second", 4)]),
        map: Mutex::new(HashMap::from([("key".into(), Item::new("mapped", 5))])),
        tree: RwLock::new(BTreeMap::from([(1, Item::new("low", 6)), (2, Item::new("high", 7))])),
        boxed: Box::new(Item::new("boxed", 8)),
        shared: Arc::new(Item::new("shared", 9)),
        mode: Mutex::new(Mode::Busy { since: 9, who: "bob".into() }),
        pair: Pair { left: 5, right: "pear".into() },
    }
}

fn show(_: &Request) -> Result<String> {
    let state = STATE.get()?;
    let idle = matches!(*state.mode.lock(), Mode::Idle);
    Ok(format!("{VERSION} {idle} {:?} {}", *state, state.pair.right))
}

fn hit(_: &Request) -> Result<String> {
    Ok(STATE.get()?.hits.fetch_add(1, Ordering::Relaxed).to_string())
}

/// Changes everything that can be changed, so that what the blocks belong to is put to the test.
fn use_it(_: &Request) -> Result<String> {
    let state = STATE.get()?;
    state.hits.fetch_add(1, Ordering::Relaxed);
    *state.one.lock() = Some(Item::new("another optional", 20));
    for i in 0..100 {
        state.list.lock().push(Item::new("pushed", i));
        state.map.lock().insert(format!("key {i}"), Item::new("inserted", i));
        state.tree.write().insert(i, Item::new("grown", i));
    }
    state.map.lock().get_mut("key").expect("kept").label.push_str(" and found");
    state.list.lock().retain(|item| item.label != "pushed");
    Ok(state.map.lock()["key"].label.clone())
}

fn remove(_: &Request) -> Result<&'static str> {
    registry::remove("state")?;
    Ok("removed")
}
