//! `legwork doctor`.

use std::process::ExitCode;

use comfy_table::{Cell, Color};
use serde_json::json;

use super::Done;
use super::globals::Globals;
use super::output::{self, Output};
use super::shell::ShellJob;
use super::trouble::{DATABASE, REFUSED};
use crate::finding::{Finding, Report, Severity};
use crate::job::Job;
use crate::jobs::Jobs;

#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    /// Check every page and index of the file, however long it takes.
    #[arg(long)]
    full: bool,
}

pub(super) fn run(globals: &Globals, arguments: &Arguments) -> Done {
    let path = globals.path()?;
    let mut report = if arguments.full { Jobs::examine_fully(path) } else { Jobs::examine(path) };
    // `legwork work` knows them, whether it has run on this file or not.
    report.findings.retain(|found| {
        !(found.code.ends_with("unknown_kind") && found.of.as_deref() == Some(ShellJob::KIND))
    });
    for found in &mut report.findings {
        found.advice = globals.app.named(&found.advice);
    }
    match globals.output() {
        Output::Json => output::json(json!({
            "usable": report.usable,
            "worst": report.worst(),
            "findings": report.findings,
        }))?,
        Output::Tsv => output::tsv(report.findings.iter().map(fields))?,
        Output::Table { color } => print(&report, color)?,
    }
    Ok(match report.worst() {
        _ if !report.usable => ExitCode::from(DATABASE),
        Severity::Ok | Severity::Note => ExitCode::SUCCESS,
        Severity::Warning | Severity::Problem => ExitCode::from(REFUSED),
    })
}

fn fields(finding: &Finding) -> Vec<String> {
    let of = finding.of.clone().unwrap_or_default();
    let severity = finding.severity.to_string();
    vec![severity, finding.code.to_owned(), of, finding.says.clone(), finding.advice.clone()]
}

/// A row for each finding: how bad, what it is, and below that what to do.
fn print(report: &Report, color: bool) -> std::io::Result<()> {
    let row = |finding: &Finding| {
        let severity = Cell::new(finding.severity);
        let severity = match finding.severity {
            _ if !color => severity,
            Severity::Problem => severity.fg(Color::Red),
            Severity::Warning => severity.fg(Color::Yellow),
            Severity::Ok => severity.fg(Color::Green),
            Severity::Note => severity,
        };
        let mut says = output::escape(&sentence(finding), false);
        if !finding.advice.is_empty() {
            says += &format!("\n→ {}", output::escape(&finding.advice, false));
        }
        vec![severity, output::cell(finding.code), Cell::new(says)]
    };
    output::table(&["", "code", "finding"], report.findings.iter().map(row).collect(), color)
}

/// What was found, with what it is about unless it says so itself.
fn sentence(finding: &Finding) -> String {
    match &finding.of {
        Some(of) if !finding.says.contains(of.as_str()) => format!("{of}: {}", finding.says),
        _ => finding.says.clone(),
    }
}
