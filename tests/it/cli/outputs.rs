//! What programs read: the JSON and the TSV of every command are those of the guide.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde_json::Value;

use super::logs::Live;
use super::sessions::shop_at;
use super::until;
use crate::common::{Place, place};

/// A page of the guide, as it is now.
fn page(name: &str) -> String {
    fs::read_to_string(format!("{}/src/guide/{name}.md", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// The pages with the commands.
const COMMANDS: [&str; 2] = ["cli_output", "cli_output_changes"];

/// What is run for a command of the guide, one after the other on the same file.
const LINES: [(&str, &str); 47] = [
    ("list", "list"),
    ("list", "list kind:rated"),
    ("show", "show 1"),
    ("show", "show 3"),
    ("show", "show 12"),
    ("logs", "logs 1"),
    ("logs", "logs 12"),
    ("wait", "wait 1 2"),
    ("status", "status"),
    ("failures", "failures"),
    ("queues", "queues"),
    ("workers", "workers"),
    ("stats", "stats"),
    ("health", "health --max-age 1h"),
    ("gate list", "gate list"),
    ("gate open", "gate open online"),
    ("gate close", "gate close online"),
    ("pause", "pause"),
    ("resume", "resume"),
    ("flows list", "flows list"),
    ("flows show", "flows show 8"),
    ("flows cancel", "flows cancel 8"),
    ("flows retry", "flows retry 8"),
    ("cron list", "cron list"),
    ("cron next", "cron next rotate"),
    ("cron check", "cron check @daily"),
    ("cron run", "cron run rotate"),
    ("cron pause", "cron pause rotate"),
    ("cron resume", "cron resume rotate"),
    ("cron add", "cron add tidy @daily tidy"),
    ("check", "check"),
    ("cron remove", "cron remove tidy"),
    ("retry", "retry 2"),
    ("cancel", "cancel --filter state:blocked --dry-run"),
    ("service", "service systemd"),
    ("doctor", "doctor"),
    ("clone", "clone 12"),
    ("edit", "edit 7 --priority 1"),
    ("reschedule", "reschedule 7 --in 1h"),
    ("run-now", "run-now 7"),
    ("delete", "delete 6"),
    ("prune", "prune --failed 1d"),
    ("migrate", "migrate"),
    ("vacuum", "vacuum"),
    ("backup", "backup copy.db"),
    ("export", "export -o jobs.jsonl"),
    ("import", "import jobs.jsonl --history"),
];

/// The same for those that need no file, or change it.
const MORE: [(&str, &str); 5] = [
    ("enqueue", "enqueue report"),
    ("run", "run -- true"),
    ("drain", "drain -q empty"),
    ("new job", "new job tidy"),
    ("man", "man pages"),
];

/// Commands that print no JSON of this sort, as the guide says.
const WITHOUT: [&str; 4] = ["work", "bench", "completions", "top"];

/// A line of JSON for each line that a job has written; the others print one.
const LONG: [&str; 1] = ["logs"];

/// Sections of the guide to which the lines above do not come.
const UNSEEN: [&str; 2] = ["an-oldest-ready-job", "events"];

/// A place with the sessions' file, and what it lacks: a command that failed, a job with a rate, a dead
/// worker with a job.
fn shop() -> Place {
    let place = place();
    shop_at(&place.path);
    let rated = place.line("enqueue rated --rate api=10/1s,burst,weight=3").id();
    let command = place.script("", "echo out; exit 3");
    assert_eq!((rated.0, command.0), (11, 12));
    place.work().coded(1);
    // It ends with its database.
    place.script("", "echo > started; while [ -e test.db ]; do sleep 0.1; done");
    let worker = place.worker("work --no-cron");
    until("the command runs", || place.file("started").exists());
    drop(worker);
    fs::create_dir(place.file("src")).unwrap();
    place
}

#[test]
fn the_json_of_every_command_is_that_of_the_guide() {
    let place = shop();
    let guide = Guide::read();
    let mut seen = BTreeSet::new();
    for (command, line) in LINES.into_iter().chain(MORE) {
        let words = line.split(' ').take_while(|word| *word != "--");
        let (before, after) = line.split_at(words.collect::<Vec<_>>().join(" ").len());
        let ended = place.line(&format!("{before} --json{after}"));
        assert!(ended.stdout.ends_with("}\n"), "{ended:?}");
        assert!(LONG.contains(&command) || ended.stdout.lines().count() == 1, "{ended:?}");
        for answer in ended.stdout.lines() {
            let value: Value = serde_json::from_str(answer).unwrap();
            assert_eq!(value["v"], 1, "{line}: {value}");
            guide.check(command, &value, &format!("{line}: {value}"), &mut seen);
        }
    }
    let never: Vec<&String> = guide
        .sections
        .keys()
        .filter(|name| !seen.contains(*name) && !UNSEEN.contains(&name.as_str()))
        .collect();
    assert!(never.is_empty(), "in the guide, but nothing printed it: {never:?}");
}

#[test]
fn the_events_are_those_of_the_guide() {
    let place = place();
    place.line("enqueue mail").good();
    let events = Live::start(&place, "events -f");
    events.error_line();
    place.script("--attempts 2", "echo '1/2 half' >&3; [ -e again ] || ! echo > again");
    place.script("", "exit 3");
    place.work().coded(1);
    let guide = Guide::read();
    let mut missing = BTreeSet::from(["enqueued", "started", "progress", "retrying", "failed"]);
    while !missing.is_empty() {
        let event = events.json();
        guide.check("events", &event, &event.to_string(), &mut BTreeSet::new());
        missing.remove(event["event"].as_str().unwrap());
    }
}

#[test]
fn every_command_stands_in_the_guide() {
    let place = place();
    let guide = Guide::read();
    for name in super::everywhere::all_commands(&place) {
        let known = guide.sections.contains_key(&name) || WITHOUT.contains(&name.as_str());
        assert!(known, "`{name}` is on no page");
    }
}

#[test]
fn the_examples_of_the_guide_have_its_fields() {
    let guide = Guide::read();
    let pages = COMMANDS.map(page);
    for (names, text) in pages.iter().flat_map(|page| sections(page, "## ")) {
        let Some((_, example)) = text.split_once("```json\n") else { continue };
        let line = example.split('\n').next().unwrap();
        let value: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
        let documented = &guide.sections[&names[0]];
        for key in value.as_object().unwrap().keys() {
            assert!(documented.contains_key(key) || key == "v", "{names:?}: {key}");
        }
        assert_eq!(value["v"], 1, "{names:?}");
    }
}

#[test]
fn the_columns_of_every_command_are_those_of_the_guide() {
    let place = shop();
    let columns = columns();
    let mut checked = 0;
    for (command, line) in LINES.into_iter().chain(MORE) {
        // Where the columns depend on the first, they are told in words.
        let Some(count) = columns.get(command) else { continue };
        let tsv = place.line(line).stdout;
        for row in tsv.lines() {
            assert_eq!(row.split('\t').count(), *count, "{line}: {row:?}");
            checked += 1;
        }
    }
    assert!(checked > 30, "only {checked} rows");
}

/// How many columns a command has, by the guide's table of them.
fn columns() -> BTreeMap<String, usize> {
    let page = page("cli_output");
    let table = page.split_once("\n# TSV").unwrap().1;
    let mut columns = BTreeMap::new();
    for [names, cells, _] in rows(table) {
        if !cells.contains(';') && !cells.starts_with("none") && names != "command" {
            let count = cells.split(", ").count();
            columns.extend(quoted(&names).into_iter().map(|name| (name, count)));
        }
    }
    columns
}

/// The fields of every section: of a command by its name, of a record by its anchor.
struct Guide {
    sections: BTreeMap<String, BTreeMap<String, String>>,
}

impl Guide {
    fn read() -> Guide {
        let mut all = BTreeMap::new();
        let (commands, records) = (COMMANDS.map(page), page("cli_records"));
        let commands = commands.iter().flat_map(|page| sections(page, "## "));
        for (names, text) in commands.chain(sections(&records, "# ")) {
            let fields: BTreeMap<String, String> = rows(text)
                .into_iter()
                .filter(|row| row[0] != "field")
                .map(|[name, sort, _]| (name.trim_matches('`').to_owned(), sort))
                .collect();
            assert!(!fields.is_empty(), "{names:?} has no fields");
            all.extend(names.into_iter().map(|name| (name, fields.clone())));
        }
        Guide { sections: all }
    }

    /// Whether an object has exactly the fields of a section.
    #[track_caller]
    fn check(&self, section: &str, value: &Value, all: &str, seen: &mut BTreeSet<String>) {
        seen.insert(section.to_owned());
        let fields = self.sections.get(section).unwrap_or_else(|| panic!("no section {section}"));
        let object = value.as_object().unwrap_or_else(|| panic!("{section} is none: {all}"));
        for key in object.keys().filter(|key| *key != "v") {
            assert!(fields.contains_key(key), "{section}: `{key}` is not documented: {all}");
        }
        for (name, sort) in fields {
            match object.get(name) {
                Some(value) => self.check_value(&format!("{section}.{name}"), sort, value, seen),
                None => assert!(sort.ends_with("or absent"), "{section}: no `{name}`: {all}"),
            }
        }
    }

    #[track_caller]
    fn check_value(&self, at: &str, sort: &str, value: &Value, seen: &mut BTreeSet<String>) {
        let wrong = || panic!("{at}: {value} is no {sort}");
        if let Some(sort) = sort.strip_suffix(" or absent") {
            return self.check_value(at, sort, value, seen);
        }
        if let Some(sort) = sort.strip_suffix(" or null") {
            if !value.is_null() {
                self.check_value(at, sort, value, seen);
            }
            return;
        }
        if let Some(sort) = sort.strip_prefix("array of ") {
            for value in value.as_array().unwrap_or_else(wrong) {
                self.check_value(at, sort, value, seen);
            }
            return;
        }
        if let Some((_, anchor)) = sort.split_once('#') {
            return self.check(anchor.trim_end_matches(')'), value, at, seen);
        }
        let fits = match sort {
            "text" => value.is_string(),
            "integer" => value.is_i64() || value.is_u64(),
            "number" => value.is_number(),
            "boolean" => value.is_boolean(),
            "object" => value.is_object(),
            "time" => value.as_str().is_some_and(is_time),
            "JSON" => true,
            _ => panic!("{at}: the guide knows no type {sort:?}"),
        };
        assert!(fits, "{at}: {value} is no {sort}");
    }
}

fn is_time(text: &str) -> bool {
    use time::format_description::well_known::Rfc3339;
    text.ends_with('Z') && time::OffsetDateTime::parse(text, &Rfc3339).is_ok()
}

/// The sections with a table of fields: their names, and their text.
fn sections<'a>(page: &'a str, mark: &str) -> Vec<(Vec<String>, &'a str)> {
    let heading = format!("\n{mark}");
    page.split(&heading)
        .skip(1)
        .map(|text| {
            let (title, text) = text.split_once('\n').unwrap();
            let names = quoted(title);
            let anchor = title.to_lowercase().replace(' ', "-");
            // A section ends where a larger one begins.
            let text = text.split("\n# ").next().unwrap();
            (if names.is_empty() { vec![anchor] } else { names }, text)
        })
        .collect()
}

/// The words between backquotes.
fn quoted(text: &str) -> Vec<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The rows of a table, without the line below its heading.
fn rows(text: &str) -> Vec<[String; 3]> {
    text.lines()
        .filter_map(|line| line.strip_prefix("| ")?.strip_suffix('|'))
        .map(|line| {
            let mut cells = line.split(" |").map(|cell| cell.trim().to_owned());
            std::array::from_fn(|_| cells.next().unwrap_or_default())
        })
        .collect()
}
