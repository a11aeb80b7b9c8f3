//! `legwork new job NAME`: a file to start from.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::json;

use super::Done;
use super::globals::Globals;
use super::output::{self, Output};
use super::trouble::{REFUSED, Trouble};

#[derive(clap::Subcommand, Debug)]
pub(super) enum Command {
    /// Write a job with a test: DIR/NAME.rs.
    Job(Job),
}

#[derive(clap::Args, Debug)]
pub(super) struct Job {
    /// The job's kind and its file's name: welcome_email.
    name: String,
    /// Where the file is written; the last directory is made if it is not there.
    #[arg(long, value_name = "DIR", default_value = "src/jobs")]
    dir: PathBuf,
    /// The queue of these jobs. Default: `default`.
    #[arg(long, value_name = "NAME")]
    queue: Option<String>,
}

const TEMPLATE: &str = include_str!("job.rs.txt");

/// Words that cannot name a module, of all editions.
const KEYWORDS: [&str; 51] = [
    "abstract", "as", "async", "await", "become", "box", "break", "const", "continue", "crate",
    "do", "dyn", "else", "enum", "extern", "false", "final", "fn", "for", "gen", "if", "impl",
    "in", "let", "loop", "macro", "match", "mod", "move", "mut", "override", "priv", "pub", "ref",
    "return", "self", "static", "struct", "super", "trait", "true", "try", "type", "typeof",
    "unsafe", "unsized", "use", "virtual", "where", "while", "yield",
];

/// Structs that the file imports, or that all files have.
const TAKEN: [&str; 17] = [
    "Box",
    "Context",
    "Deserialize",
    "Duration",
    "Engine",
    "Job",
    "JobOptions",
    "JobResult",
    "Jobs",
    "Ok",
    "Option",
    "Outcome",
    "Result",
    "Retry",
    "Serialize",
    "State",
    "String",
];

pub(super) fn run(globals: &Globals, command: &Command) -> Done {
    let Command::Job(job) = command;
    let kind = job.name.as_str();
    check_name(kind)?;
    let name = camel(kind);
    let queue = job.queue.as_deref();
    let text = file(kind, &name, queue)?;
    let path = job.dir.join(format!("{kind}.rs"));
    make(&job.dir)?;
    write(&path, &text)?;
    let module = format!("pub mod {kind};");
    let register = format!(".register::<{kind}::{name}>()");
    match globals.output() {
        Output::Json => output::json(json!({
            "file": path.to_string_lossy(),
            "kind": kind,
            "struct": name,
            "module": module,
            "register": register,
        }))?,
        _ => {
            output::tsv([vec![path.to_string_lossy().into_owned()]])?;
            globals.say(format_args!("add to the module above it: {module}"));
            globals.say(format_args!("and to the engine's builder: {register}"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn check_name(name: &str) -> Result<(), Trouble> {
    let bad = |why: &str| {
        Err(Trouble::usage(format_args!("job name {name:?}: {why}"))
            .hint("a name such as welcome_email: small letters, digits and single `_` between"))
    };
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    match name {
        _ if name.is_empty() || name.len() > 100 => bad("1 to 100 letters"),
        _ if !name.chars().all(fits) => bad("it is not in snake_case"),
        _ if !name.starts_with(|c: char| c.is_ascii_lowercase()) => {
            bad("it does not begin with a letter")
        }
        _ if name.ends_with('_') || name.contains("__") => bad("a `_` too many"),
        _ if KEYWORDS.contains(&name) => bad("Rust keeps this word for itself"),
        _ if TAKEN.contains(&camel(name).as_str()) => bad("the struct's name would be taken"),
        _ => Ok(()),
    }
}

/// `WelcomeEmail` for `welcome_email`.
fn camel(name: &str) -> String {
    name.split('_')
        .map(|word| {
            let (first, rest) = word.split_at(word.len().min(1));
            first.to_ascii_uppercase() + rest
        })
        .collect()
}

fn file(kind: &str, name: &str, queue: Option<&str>) -> Result<String, Trouble> {
    let queue = match queue {
        None => String::new(),
        Some(queue) if queue.is_empty() || queue.chars().any(char::is_control) => {
            return Err(Trouble::usage(format_args!("--queue {queue:?}: no name of a queue")));
        }
        Some(queue) => format!("            .queue({queue:?})\n"),
    };
    Ok(TEMPLATE.replace("@kind@", kind).replace("@Struct@", name).replace("@queue@\n", &queue))
}

/// The directory, if the one above it is there: otherwise this is not the place that was meant.
fn make(dir: &Path) -> Result<(), Trouble> {
    match fs::create_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(Trouble::new(REFUSED, format_args!("making {}: {error}", dir.display()))
                .hint("run it beside Cargo.toml, or name a directory with --dir"))
        }
        _ => Ok(()),
    }
}

fn write(path: &Path, text: &str) -> Result<(), Trouble> {
    let refused = |error: io::Error| {
        let trouble = Trouble::new(REFUSED, format_args!("writing {}: {error}", path.display()));
        match error.kind() {
            io::ErrorKind::AlreadyExists => trouble.hint("take another name, or remove it first"),
            _ => trouble,
        }
    };
    let mut file = OpenOptions::new().write(true).create_new(true).open(path).map_err(refused)?;
    file.write_all(text.as_bytes()).map_err(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_in_snake_case_makes_a_struct_in_camel_case() {
        assert_eq!(camel("welcome_email"), "WelcomeEmail");
        assert_eq!(camel("s3_sync2"), "S3Sync2");
        for good in ["welcome_email", "a", "s3_sync2", "x_1"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "WelcomeEmail",
            "welcome-email",
            "1st",
            "_a",
            "a_",
            "a__b",
            "type",
            "job",
            "job_options",
            "grüße",
            "../x",
            "a/b",
            "try",
        ] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_queue_stays_inside_its_quotation_marks() {
        let text = file("x", "X", Some(r#"a"b\"#)).unwrap();
        assert!(text.contains(r#".queue("a\"b\\")"#), "{text}");
        assert!(file("x", "X", Some("a\nb")).is_err() && file("x", "X", Some("")).is_err());
        assert!(!file("x", "X", None).unwrap().contains('@'));
    }
}
