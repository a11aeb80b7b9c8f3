//! `legwork check`.

use std::process::ExitCode;

use serde_json::json;

use super::Done;
use super::globals::Globals;
use super::output::{self, Output, cell};
use super::trouble::REFUSED;
use crate::jobs::{CheckReport, CronTrouble, KindTrouble};

pub(super) fn run(globals: &Globals) -> Done {
    let report = globals.app.check(&globals.open()?)?;
    match globals.output() {
        Output::Json => {
            let CheckReport { unknown, undecodable, crons } = &report;
            output::json(
                json!({ "ok": report.is_ok(), "unknown": unknown, "undecodable": undecodable, "crons": crons }),
            )?;
        }
        Output::Tsv => output::tsv(rows(&report))?,
        Output::Table { color } if !report.is_ok() => {
            let cells = rows(&report).into_iter().map(|row| row.iter().map(cell).collect());
            output::table(&["trouble", "of", "jobs", "ids"], cells.collect(), color)?;
        }
        Output::Table { .. } => {}
    }
    if report.is_ok() {
        globals.say("every waiting job is of a kind that is known, and every cron entry can fire");
        return Ok(ExitCode::SUCCESS);
    }
    advice(&report).for_each(|line| globals.say(line));
    Ok(ExitCode::from(REFUSED))
}

/// What to do about each sort of trouble.
fn advice(report: &CheckReport) -> impl Iterator<Item = &'static str> {
    [
        (
            report.unknown.is_empty(),
            "unknown kind: start the program that knows it, or `legwork cancel --filter kind:KIND`",
        ),
        (
            report.undecodable.is_empty(),
            "arguments: keep the build that reads them until these jobs are done, let the new one read \
             them too, or `legwork edit ID --args JSON`",
        ),
        (report.crons.is_empty(), "cron entry: `legwork cron add` mends it, `legwork cron remove` removes it"),
    ]
    .into_iter()
    .filter_map(|(is_fine, line)| (!is_fine).then_some(line))
}

fn rows(report: &CheckReport) -> Vec<Vec<String>> {
    let row = |trouble: &str, found: &KindTrouble| {
        let ids: Vec<String> = found.ids.iter().map(ToString::to_string).collect();
        vec![trouble.to_owned(), found.kind.clone(), found.count.to_string(), ids.join(" ")]
    };
    let unknown = report.unknown.iter().map(|found| row("unknown kind", found));
    let undecodable = report.undecodable.iter().map(|found| row("arguments do not decode", found));
    let cron = |found: &CronTrouble| {
        let trouble = format!("cron entry: {}", found.error);
        vec![trouble, found.name.clone(), String::new(), String::new()]
    };
    unknown.chain(undecodable).chain(report.crons.iter().map(cron)).collect()
}
