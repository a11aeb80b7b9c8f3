//! `legwork migrate`.

use std::process::ExitCode;

use serde_json::json;

use super::Done;
use super::globals::Globals;
use super::output::{self, Output};
use crate::error::Error;
use crate::jobs::Jobs;
use crate::upkeep::Schema;

#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    /// Only say what would be done.
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn run(globals: &Globals, arguments: &Arguments) -> Done {
    let path = globals.existing()?;
    let schema = Jobs::schema(path)?;
    if schema.is_newer() {
        return Err(Error::Newer { found: schema.found, known: schema.known }.into());
    }
    if !arguments.dry_run && schema.found < schema.known {
        // Opening it is all that there is to do.
        drop(globals.create()?);
    }
    answer(globals, arguments.dry_run, &schema)?;
    Ok(ExitCode::SUCCESS)
}

fn answer(globals: &Globals, dry_run: bool, schema: &Schema) -> std::io::Result<()> {
    let Schema { found, known, steps, .. } = schema;
    match globals.output() {
        Output::Json => {
            output::json(json!({ "dry_run": dry_run, "from": found, "to": known, "steps": steps }))
        }
        Output::Tsv => output::tsv([vec![found.to_string(), known.to_string(), steps.join("; ")]]),
        Output::Table { .. } if steps.is_empty() => {
            globals.say(format_args!("nothing to do: the schema is version {found}"));
            Ok(())
        }
        Output::Table { .. } => {
            let verb = if dry_run { "would bring" } else { "brought" };
            let mut text = format!("{verb} the schema from version {found} to {known}\n");
            for (step, says) in (found + 1..).zip(steps) {
                text += &format!("  {step}: {says}\n");
            }
            output::print(text)
        }
    }
}
