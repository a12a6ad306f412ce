//! A prepared SELECT of one row: through a plugin, against the `postgres` crate called directly.
//!
//! Both run in one plugin of one host, on the same kind of thread, in turns. With the release build of the
//! host and of the fixture: `cargo build --release -p host --bins && cargo build --release -p tests
//! --example select_probe && cargo bench -p tests --bench select`. Prints figures and judges nothing.

use tests::host::Launch;
use tests::postgres::Cluster;

const STATEMENTS: u32 = 2_000;
const ROUNDS: usize = 25;

fn main() {
    let cluster = Cluster::shared();
    let database = cluster.create_database();
    let fill = "CREATE TABLE t (id int PRIMARY KEY, name text); \
                INSERT INTO t SELECT x, 'name ' || x FROM generate_series(0, 99) AS x; ANALYZE t";
    cluster.connect(&database).batch_execute(fill).expect("a fresh database takes a table");
    let launch = Launch::new();
    launch.plugins().install("select", "select_probe");
    let host = launch.env("DATABASE_URL", cluster.socket_url(&database)).start();
    let ask = |path: &str| -> f64 {
        let response = host.get(&format!("/select/{path}/{STATEMENTS}"));
        response.text().parse().unwrap_or_else(|_| panic!("{path}: {}", response.text()))
    };
    ask("direct");
    ask("through");
    let (mut direct, mut through): (Vec<f64>, Vec<f64>) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        direct.push(ask("direct"));
        through.push(ask("through"));
    }
    let mut ratios: Vec<f64> =
        through.iter().zip(&direct).map(|(through, direct)| through / direct).collect();
    let [direct, through, ratio] = [&mut direct, &mut through, &mut ratios].map(|values| median(values));
    println!("prepared SELECT of one row, median of {ROUNDS} rounds of {STATEMENTS}:");
    println!("  the `postgres` crate  {:.2} us", direct / 1000.0);
    println!("  through a plugin      {:.2} us", through / 1000.0);
    println!("  ratio                 {ratio:.3}");
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
