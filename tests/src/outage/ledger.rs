//! The ledger's tables, and what must hold in them.

use std::collections::BTreeMap;

use super::Answer;
use crate::postgres::Cluster;

/// Accounts, all of which begin with nothing.
pub(super) const ACCOUNTS: u64 = 64;

/// The tables of the ledger, in a database of their own.
pub(super) struct Ledger;

impl Ledger {
    pub(super) fn create(cluster: &Cluster, database: &str) -> Ledger {
        // `transfer` has no key: one that happened twice is to be seen, not prevented.
        let sql = format!(
            "CREATE TABLE transfer (id bigint NOT NULL, from_id bigint NOT NULL, to_id bigint NOT NULL); \
             CREATE TABLE account (id bigint PRIMARY KEY, value bigint NOT NULL) WITH (fillfactor = 20); \
             INSERT INTO account SELECT id, 0 FROM generate_series(0, {ACCOUNTS} - 1) AS id"
        );
        cluster.connect(database).batch_execute(&sql).expect("a fresh database takes tables");
        Ledger
    }

    /// Compares what clients were told with what the database has.
    pub(super) fn compare(&self, cluster: &Cluster, database: &str, answers: &[Answer]) -> Vec<String> {
        let mut client = cluster.connect(database);
        let mut found: BTreeMap<i64, usize> = BTreeMap::new();
        let mut balance: BTreeMap<i64, i64> = BTreeMap::new();
        for row in client.query("SELECT id, from_id, to_id FROM transfer", &[]).expect("the table is there") {
            *found.entry(row.get(0)).or_default() += 1;
            *balance.entry(row.get(1)).or_default() -= 1;
            *balance.entry(row.get(2)).or_default() += 1;
        }
        let mut wrong = Vec::new();
        for answer in answers {
            let times = found.get(&answer.id).copied().unwrap_or_default();
            match (answer.status, times) {
                (200, 1) | (503, 0) | (500, 0 | 1) => {}
                (status, times) => {
                    let words = answer.text.trim_end();
                    wrong.push(format!(
                        "transfer {} answered {status} is there {times} times: {words}",
                        answer.id
                    ));
                }
            }
        }
        for row in client.query("SELECT id, value FROM account", &[]).expect("the table is there") {
            let (id, value): (i64, i64) = (row.get(0), row.get(1));
            let expected = balance.get(&id).copied().unwrap_or_default();
            if value != expected {
                wrong.push(format!(
                    "account {id} has {value}, its transfers make {expected}: one is half done"
                ));
            }
        }
        wrong
    }
}
