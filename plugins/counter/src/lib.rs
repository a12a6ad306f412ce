//! Named counters as a JSON API: extractors, a transaction, a module of the registry of its own.
//!
//! ```sh
//! curl -X POST localhost:8080/counter/apples -H 'content-type: application/json' -d '{"by": 3}'
//! curl localhost:8080/counter?min=2
//! ```
#![forbid(unsafe_code)]

use plugin_api::prelude::*;
use serde::{Deserialize, Serialize};

plugin! {
    routes: {
        GET "/" => list,
        GET "/{name}" => show,
        POST "/{name}" => add,
        POST "/{from}/to/{to}" => transfer,
    },
    on_load: migrate,
    on_unload: goodbye,
}

/// In a module, so that another plugin's `"db"` is another one.
static DB: registry::Lazy<db::Pool> = registry::Lazy::in_module("counter", "db", || {
    Ok(db::Pool::builder("sqlite:counter.db").max_size(4).open()?)
});

fn migrate() -> Result<()> {
    let sql = "CREATE TABLE IF NOT EXISTS counter (name TEXT PRIMARY KEY, value BIGINT NOT NULL)";
    DB.get()?.execute(sql, &[])?;
    Ok(())
}

fn goodbye(reason: UnloadReason) {
    tracing::info!(?reason, "the last request has left this generation");
}

#[derive(Serialize)]
struct Counter {
    name: String,
    value: i64,
}

#[derive(Deserialize)]
struct Filter {
    min: Option<i64>,
}

fn list(req: &Request) -> Result<Json<Vec<Counter>>> {
    let filter: Filter = req.query()?;
    let sql = "SELECT name, value FROM counter WHERE value >= $1 ORDER BY name";
    let rows = DB.get()?.query(sql, &[&filter.min.unwrap_or(i64::MIN)])?;
    let counters = rows.iter().map(|row| Ok(Counter { name: row.get("name")?, value: row.get("value")? }));
    Ok(Json(counters.collect::<Result<_>>()?))
}

fn show(req: &Request) -> Result<Json<Counter>> {
    let name: String = req.param("name")?;
    let row = DB.get()?.query_opt("SELECT value FROM counter WHERE name = $1", &[&name])?;
    match row {
        Some(row) => Ok(Json(Counter { value: row.get("value")?, name })),
        None => Err(HttpError::not_found(format!("there is no counter `{name}`")).into()),
    }
}

#[derive(Deserialize)]
struct Amount {
    by: i64,
}

fn add(req: &Request) -> Result<Json<Counter>> {
    let name: String = req.param("name")?;
    let Amount { by } = req.json()?;
    let row = DB.get()?.query_one(ADD, &[&name, &by])?;
    Ok(Json(Counter { value: row.get("value")?, name }))
}

const ADD: &str = "INSERT INTO counter (name, value) VALUES ($1, $2) \
                   ON CONFLICT (name) DO UPDATE SET value = counter.value + $2 RETURNING value";

/// Moves an amount from one counter to another, or does nothing: a transaction that is dropped without
/// `commit`, here by the early return, is rolled back.
fn transfer(req: &Request) -> Result<Json<[Counter; 2]>> {
    let (from, to): (String, String) = (req.param("from")?, req.param("to")?);
    let Amount { by } = req.json()?;
    let mut conn = DB.get()?.get()?;
    let tx = conn.transaction()?;
    let left: i64 = tx.query_one(ADD, &[&from, &-by])?.get("value")?;
    if left < 0 {
        return Err(HttpError::conflict(format!("`{from}` has only {}", left + by)).into());
    }
    let right = tx.query_one(ADD, &[&to, &by])?.get("value")?;
    tx.commit()?;
    Ok(Json([Counter { name: from, value: left }, Counter { name: to, value: right }]))
}
