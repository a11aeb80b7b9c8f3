//! The shop of `examples/order_flow`, killed again and again: what was acknowledged is done, and
//! what is done in the database is done once.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{ChildStderr, Command, Stdio};

use legwork::{Filter, Jobs, State};
use rusqlite::Connection;

use crate::common::place;

/// Orders that are acknowledged over all runs, at the least.
const ORDERS: usize = 500;
const KILLS: usize = 50;
/// Orders that a run to be killed takes. It writes three lines about each before it can end.
const A_RUN: usize = 10;
const LINES: usize = 3 * A_RUN;

#[test]
fn an_order_is_charged_and_paid_once_although_the_shop_is_killed_fifty_times() {
    let place = place();
    let mut random = fastrand::Rng::with_seed(20_260_101);
    let mut runs = Vec::new();
    // A run that came to its end before the kill reached it does not count as killed.
    while runs.iter().filter(|run: &&Run| run.killed).count() < KILLS {
        runs.push(run_and_kill(&place.path, A_RUN, random.usize(1..LINES)));
    }
    let rest = ORDERS.saturating_sub(acknowledged(&runs));
    runs.push(run_to_the_end(&place.path, rest));
    // And once more, which finds nothing to do.
    let again = run_to_the_end(&place.path, 0);
    assert!(again.lines.is_empty(), "done again: {:?}", again.lines);

    let outside = Outside::read(&runs);
    assert!(outside.acknowledged.len() >= ORDERS);
    for order in &outside.acknowledged {
        assert!(
            outside.charges.contains_key(order),
            "order {order} was acknowledged, never charged"
        );
    }
    assert_eq!(outside.unexplained, Vec::<String>::new());
    let again = outside.charges.values().filter(|charges| **charges > 1).count();
    println!("{again} orders were charged again, each after a kill in the middle of its payment");
    let orders = check_the_shops_own_books(&place.path, &outside);
    check_the_jobs(&place.path, orders);
}

/// One run of the shop: what it wrote to the ledger, which no kill takes back.
struct Run {
    lines: Vec<String>,
    killed: bool,
}

fn shop(db: &Path, orders: usize) -> Command {
    let test = std::env::current_exe().unwrap();
    let shop: PathBuf = test.ancestors().nth(2).unwrap().join("examples/order_flow");
    assert!(shop.exists(), "{} is missing: `cargo test` builds it", shop.display());
    let mut command = Command::new(shop);
    // The ledger is a pipe into this process: lines are read the moment they are written, and
    // those written before a kill are still in it afterwards.
    command.arg("--db").arg(db).args(["--orders", &orders.to_string(), "--ledger", "/dev/stderr"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// Kills the shop with -9 once it has written `after` lines.
fn run_and_kill(db: &Path, orders: usize, after: usize) -> Run {
    let mut child = shop(db, orders).spawn().unwrap();
    let mut ledger = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut lines: Vec<String> = ledger.by_ref().take(after).map(Result::unwrap).collect();
    child.kill().unwrap();
    lines.extend(rest_of(ledger));
    let ended = child.wait().unwrap();
    assert!(ended.code().is_none_or(|code| code == 0), "{ended}: {lines:?}");
    Run { lines, killed: ended.code().is_none() }
}

fn run_to_the_end(db: &Path, orders: usize) -> Run {
    let mut child = shop(db, orders).spawn().unwrap();
    let lines = rest_of(BufReader::new(child.stderr.take().unwrap()).lines());
    let ended = child.wait().unwrap();
    assert!(ended.success(), "{ended}: {lines:?}");
    Run { lines, killed: false }
}

fn rest_of(ledger: std::io::Lines<BufReader<ChildStderr>>) -> Vec<String> {
    ledger.map(Result::unwrap).collect()
}

fn acknowledged(runs: &[Run]) -> usize {
    runs.iter().flat_map(|run| &run.lines).filter(|line| line.starts_with("ack ")).count()
}

/// What the ledgers of all runs say.
#[derive(Default)]
struct Outside {
    acknowledged: Vec<i64>,
    charges: BTreeMap<i64, u32>,
    unexplained: Vec<String>,
}

impl Outside {
    fn read(runs: &[Run]) -> Outside {
        let mut outside = Outside::default();
        // Of each order that was charged: whether a kill explains that it is charged once more.
        let mut may_repeat = HashMap::new();
        for run in runs {
            outside.read_run(run, &mut may_repeat);
        }
        outside
    }

    fn read_run(&mut self, run: &Run, may_repeat: &mut HashMap<i64, bool>) {
        let mut worker_of = HashMap::new();
        let mut last_of = HashMap::new();
        let mut charged = Vec::new();
        for line in &run.lines {
            let words: Vec<&str> = line.split(' ').collect();
            let order: i64 = words[1].parse().unwrap_or_else(|_| panic!("no ledger line: {line}"));
            match words[..] {
                ["ack", _] => self.acknowledged.push(order),
                ["start", _, _, worker] => {
                    worker_of.insert(order, worker);
                    last_of.insert(worker, order);
                }
                ["charge", _] => {
                    if may_repeat.insert(order, false) == Some(false) {
                        self.unexplained.push(format!("order {order} was charged again"));
                    }
                    *self.charges.entry(order).or_default() += 1;
                    charged.push(order);
                }
                _ => panic!("no ledger line: {line}"),
            }
        }
        // The kill fell inside a job if its worker had started no other since.
        for order in charged {
            may_repeat.insert(order, run.killed && last_of[worker_of[&order]] == order);
        }
    }
}

/// Orders whose acknowledgement a kill cut off are in the books too; the number of all is returned.
fn check_the_shops_own_books(db: &Path, outside: &Outside) -> u64 {
    let conn = Connection::open(db).unwrap();
    let all = |sql: &str| -> Vec<i64> {
        let mut ask = conn.prepare(sql).unwrap();
        ask.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
    };
    let orders = all("SELECT id FROM orders ORDER BY id");
    assert_eq!(all("SELECT order_id FROM payments ORDER BY order_id"), orders, "paid exactly once");
    assert_eq!(all("SELECT order_id FROM messages ORDER BY order_id"), orders, "told exactly once");
    let count = i64::try_from(orders.len()).unwrap();
    assert_eq!(all("SELECT sum(sold) FROM stock"), [count], "taken off the shelf exactly once");
    assert_eq!(all("SELECT sum(cents) FROM revenue"), all("SELECT sum(cents) FROM orders"));

    let charged: Vec<i64> = outside.charges.keys().copied().collect();
    assert_eq!(charged, orders, "what is charged is in the books, and the other way round");
    for order in &outside.acknowledged {
        assert!(orders.binary_search(order).is_ok(), "order {order} was acknowledged and is gone");
    }
    orders.len() as u64
}

/// Nothing failed or hangs about; the reminders wait.
fn check_the_jobs(db: &Path, orders: u64) {
    let jobs = Jobs::open(db).unwrap();
    let states = jobs.stats().unwrap().states;
    let expected = BTreeMap::from([(State::Completed, 5 * orders), (State::Scheduled, orders)]);
    let found: BTreeMap<State, u64> = states.into_iter().filter(|(_, jobs)| *jobs > 0).collect();
    assert_eq!(found, expected);
    let reminders = Filter::new().kind("review_reminder").state(State::Scheduled);
    assert_eq!(jobs.count(&reminders).unwrap(), orders);
}

#[test]
fn the_shop_writes_its_ledger_to_a_file_and_names_a_wrong_flag() {
    let place = place();
    let ledger = place.dir.path().join("ledger");
    let mut command = Command::new(shop(&place.path, 0).get_program());
    command.arg("--db").arg(&place.path).arg("--ledger").arg(&ledger).args(["--orders", "3"]);
    assert!(command.output().unwrap().status.success());
    let lines = fs::read_to_string(&ledger).unwrap();
    assert_eq!(lines.lines().filter(|line| line.starts_with("charge ")).count(), 3);

    let refused = command.args(["--orders", "many"]).output().unwrap();
    assert!(!refused.status.success());
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("--orders") && said.contains("many"), "{said}");
}
