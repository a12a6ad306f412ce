//! Named accounts as a JSON API: extractors, the request's transaction, a module of the registry of its own.
//!
//! ```sh
//! curl -X POST localhost:8080/ledger/apples -H 'content-type: application/json' -d '{"by": 3}'
//! curl localhost:8080/ledger?min=2
//! ```
#![forbid(unsafe_code)]

use plugin_api::prelude::*;
use serde::{Deserialize, Serialize};

plugin! {
    routes: {
        GET "/" => list,
        GET "/{name}" => show,
        POST "/{name}" => add,
        idempotent POST "/{from}/to/{to}" => transfer,
    },
    on_load: migrate,
    on_unload: goodbye,
}

/// In a module, so that another plugin's `"db"` is another one.
static DB: registry::Lazy<db::Pool> = registry::Lazy::in_module("ledger", "db", || {
    Ok(db::Pool::builder("sqlite:ledger.db").max_size(4).open()?)
});

fn migrate() -> Result<()> {
    let sql = "CREATE TABLE IF NOT EXISTS account (name TEXT PRIMARY KEY, value BIGINT NOT NULL)";
    DB.get()?.execute(sql, &[])?;
    Ok(())
}

fn goodbye(reason: UnloadReason) {
    tracing::info!(?reason, "the last request has left this generation");
}

#[derive(Serialize)]
struct Account {
    name: String,
    value: i64,
}

#[derive(Deserialize)]
struct Filter {
    min: Option<i64>,
}

fn list(req: &Request) -> Result<Json<Vec<Account>>> {
    let filter: Filter = req.query()?;
    let sql = "SELECT name, value FROM account WHERE value >= $1 ORDER BY name";
    let rows = DB.get()?.query(sql, &[&filter.min.unwrap_or(i64::MIN)])?;
    let accounts = rows.iter().map(|row| Ok(Account { name: row.get("name")?, value: row.get("value")? }));
    Ok(Json(accounts.collect::<Result<_>>()?))
}

fn show(req: &Request) -> Result<Json<Account>> {
    let name: String = req.param("name")?;
    let row = DB.get()?.query_opt("SELECT value FROM account WHERE name = $1", &[&name])?;
    match row {
        Some(row) => Ok(Json(Account { value: row.get("value")?, name })),
        None => Err(HttpError::not_found(format!("there is no account `{name}`")).into()),
    }
}

#[derive(Deserialize)]
struct Amount {
    by: i64,
}

fn add(req: &Request) -> Result<Json<Account>> {
    let name: String = req.param("name")?;
    let Amount { by } = req.json()?;
    let row = DB.get()?.query_one(ADD, &[&name, &by])?;
    Ok(Json(Account { value: row.get("value")?, name }))
}

const ADD: &str = "INSERT INTO account (name, value) VALUES ($1, $2) \
                   ON CONFLICT (name) DO UPDATE SET value = account.value + $2 RETURNING value";

/// Moves an amount from one account to another, or does nothing.
///
/// The host commits before the client hears of it, and only answers below 400: the 409 undoes the first
/// statement, and so would a failed commit, a panic or the deadline. All it does is in the transaction, so it may be run
/// again when that collided with another one: the route says `idempotent`.
fn transfer(req: &Request) -> Result<Json<[Account; 2]>> {
    let (from, to): (String, String) = (req.param("from")?, req.param("to")?);
    let Amount { by } = req.json()?;
    let tx = req.transaction_keeping(DB.get()?, db::Keep::Successes)?;
    let left: i64 = tx.query_one(ADD, &[&from, &-by])?.get("value")?;
    if left < 0 {
        return Err(HttpError::conflict(format!("`{from}` has only {}", left + by)).into());
    }
    let right = tx.query_one(ADD, &[&to, &by])?.get("value")?;
    Ok(Json([Account { name: from, value: left }, Account { name: to, value: right }]))
}
