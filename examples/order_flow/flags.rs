//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

pub const HELP: &str = "\
A shop whose orders are worked by background jobs.

Usage: order_flow [--orders N] [--db FILE] [--seed S] [--ledger FILE]

  --orders N     orders to take in this run (200); 0 only finishes what earlier runs left
  --db FILE      the shop's database, jobs included (order_flow.db in the current directory);
                 it stays, so that the next run can finish what this one could not
  --seed S       decides which payments fail at first (1)
  --ledger FILE  append what the outside world sees: `ack ORDER` once an order is taken,
                 `start ORDER ATTEMPT WORKER` and `charge ORDER` by the payment itself
  --help         this text

Kill it whenever you like and run it again.
";

pub struct Flags {
    pub orders: u64,
    pub db: PathBuf,
    pub seed: u64,
    pub ledger: Option<PathBuf>,
}

pub enum Asked {
    Help,
    Run(Flags),
}

impl Flags {
    pub fn parse(mut args: impl Iterator<Item = OsString>) -> Result<Asked, String> {
        let mut flags =
            Flags { orders: 200, db: PathBuf::from("order_flow.db"), seed: 1, ledger: None };
        while let Some(flag) = args.next() {
            let flag = flag.to_string_lossy().into_owned();
            if matches!(flag.as_str(), "--help" | "-h") {
                return Ok(Asked::Help);
            }
            let mut value = || args.next().ok_or(format!("{flag} needs a value"));
            match flag.as_str() {
                "--orders" => flags.orders = number(&flag, &value()?)?,
                "--db" => flags.db = value()?.into(),
                "--seed" => flags.seed = number(&flag, &value()?)?,
                "--ledger" => flags.ledger = Some(value()?.into()),
                _ => return Err(format!("unknown argument {flag:?}")),
            }
        }
        Ok(Asked::Run(flags))
    }
}

fn number(flag: &str, value: &OsString) -> Result<u64, String> {
    let text = value.to_string_lossy();
    text.parse().map_err(|_| format!("{flag} needs a number from 0 up, not {text:?}"))
}
