//! The layers of the source: imports point down only, and SQL stands only in the store.

use std::fs;
use std::path::{Path, PathBuf};

/// From the ground up. A file may use its own layer and those before it.
const LAYERS: [(&str, &[&str]); 6] = [
    ("ground", &["beside", "clock", "error", "failure", "id", "state"]),
    (
        "deciding",
        &[
            "rules", "new_job", "flow", "record", "unique", "cron", "kinds", "limit", "spread",
            "exported", "finding", "upkeep", "tally",
        ],
    ),
    ("storing", &["store"]),
    ("writing", &["jobs", "job", "context", "middleware", "event", "perform"]),
    ("running", &["engine"]),
    ("faces", &["testing", "cli", "bin", "dashboard"]),
];
/// What stands beside the layers: the front page, which names them all, and the long documents.
const EXEMPT: [&str; 2] = ["lib", "guide"];

/// The one file beside the store that may speak SQL: the bare SQLite that the bench compares with.
const RAW: &str = "cli/bench/raw.rs";

/// What a string literal of SQL starts with. A word that is also plain English counts only with
/// what follows it in SQL.
const SQL: [&str; 26] = [
    "ALTER TABLE",
    "ANALYZE",
    "ATTACH ",
    "BEGIN",
    "COMMIT",
    "CREATE INDEX",
    "CREATE TABLE",
    "CREATE TEMP",
    "CREATE TRIGGER",
    "CREATE UNIQUE",
    "CREATE VIEW",
    "DELETE FROM",
    "DETACH ",
    "DROP ",
    "EXPLAIN ",
    "INSERT INTO",
    "INSERT OR ",
    "PRAGMA ",
    "RELEASE ",
    "REPLACE INTO",
    "ROLLBACK",
    "SAVEPOINT ",
    "SELECT ",
    "UPDATE ",
    "VACUUM",
    "WITH ",
];

#[test]
fn imports_point_down_and_sql_stands_in_the_store_only() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    let files = rust_files(&src);
    assert!(files.len() > 20, "only {} files found in {}", files.len(), src.display());
    for file in files {
        let name = file.strip_prefix(&src).unwrap().to_str().unwrap().to_owned();
        wrong.extend(check(&name, &fs::read_to_string(&file).unwrap()));
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn the_checker_sees_what_is_forbidden_and_nothing_else() {
    let seen = |name: &str, source: &str| check(name, source).len();

    assert_eq!(seen("store/sqlite/x.rs", "use crate::error::Error;\nuse crate::rules::state;"), 0);
    assert_eq!(seen("store/sqlite/x.rs", "use crate::jobs::Jobs;"), 1);
    assert_eq!(
        seen("rules/x.rs", "pub(crate) use crate::{id::JobId, store::{Store, Finish}, job};"),
        2
    );
    assert_eq!(
        seen("context.rs", "fn f() { crate::engine::start() }"),
        1,
        "paths count like imports"
    );
    assert_eq!(seen("jobs.rs", "use crate::Engine;"), 1, "the front page names every layer");
    assert_eq!(seen("clock.rs", "use super::store::Store;"), 1, "super is the root there");
    assert_eq!(seen("rules/mod.rs", "use super::engine::Engine;"), 1);
    assert_eq!(seen("rules/retry.rs", "use super::name; use super::super::engine::Engine;"), 1);
    assert_eq!(seen("store/sqlite/mod.rs", "use super::waiters::Waiters;"), 0);
    assert_eq!(seen("nowhere.rs", ""), 1, "every file belongs to a layer");

    let sql = r#"const NEXT: &str = "  select id FROM legwork_jobs";"#;
    assert_eq!(seen("engine/x.rs", sql), 1);
    assert_eq!(seen("engine/x.rs", "const X: &str = r#\"PRAGMA \"x\" = 1\"#;"), 1);
    assert_eq!(seen("engine/x.rs", "const X: &str = \"\\\n    BEGIN IMMEDIATE\";"), 1);
    assert_eq!(seen("store/sqlite/x.rs", sql), 0);
    assert_eq!(seen("cli/bench/raw.rs", sql), 0);
    assert_eq!(seen("cli/bench/drain.rs", sql), 1);
    assert_eq!(
        seen(
            "jobs.rs",
            "/// `crate::engine` or \"SELECT 1\"\n// \"SELECT 1\"\n/* use crate::engine::X; */"
        ),
        0
    );
    assert_eq!(
        seen("jobs.rs", "const X: &str = \"Selected // use crate::engine; updates \\\" SELECT \";"),
        0
    );
    assert_eq!(
        seen("jobs.rs", "const Q: char = '\"'; use crate::engine::X; const R: char = '\"';"),
        1
    );
    assert_eq!(
        seen(
            "id.rs",
            "#[cfg(test)]\nmod tests { use crate::engine::X; fn f() { g(\"DROP x }\") } }"
        ),
        0
    );
    assert_eq!(seen("id.rs", "#[cfg(test)]\nmod tests;\nuse crate::engine::X;"), 1);
}

fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// What is wrong with one file; `name` is its path under `src/`.
fn check(name: &str, source: &str) -> Vec<String> {
    let module: Vec<&str> = name.trim_end_matches(".rs").split('/').collect();
    if EXEMPT.contains(&module[0]) {
        return Vec::new();
    }
    let Some(own) = layer_of(module[0]) else {
        return vec![format!("{name}: belongs to no layer")];
    };
    // `mod.rs` is its directory's module, the other files are modules inside it.
    let depth = module.len() - usize::from(module.last() == Some(&"mod"));
    let tokens = without_tests(tokens(source));
    let mut wrong = Vec::new();
    for used in roots(&tokens, depth) {
        match layer_of(&used) {
            Some(layer) if layer <= own => {}
            Some(layer) => wrong.push(format!(
                "{name}: {} must not use `{used}` of {}",
                LAYERS[own].0, LAYERS[layer].0
            )),
            None => wrong.push(format!("{name}: uses `crate::{used}`, which belongs to no layer")),
        }
    }
    let texts = tokens.iter().filter_map(|token| match token {
        Token::Text(text) => Some(text),
        _ => None,
    });
    if module[0] != "store" && name != RAW {
        wrong.extend(
            texts
                .filter(|text| is_sql(text))
                .map(|text| format!("{name}: SQL outside store/: {text:?}")),
        );
    }
    wrong
}

fn layer_of(module: &str) -> Option<usize> {
    LAYERS.iter().position(|(_, modules)| modules.contains(&module))
}

fn is_sql(text: &str) -> bool {
    let start: String = text.trim_start_matches(['\\', '\n', ' ', '\t']).chars().take(20).collect();
    let start = start.to_ascii_uppercase();
    // A verb of legwork's own, by its name.
    if ["vacuum", "vacuum_fully"].contains(&text) {
        return false;
    }
    // Prose is written small: only what goes on like SQL is.
    SQL.iter().any(|word| start.starts_with(word))
}

/// The first names after the crate's root in every path: of `crate::`, and of as many `super::` as
/// lead there from a module `depth` levels below it.
fn roots(tokens: &[Token], depth: usize) -> Vec<String> {
    let mut roots = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let start = at;
        at += 1;
        let mut supers = 0;
        match &tokens[start] {
            Token::Word(word) if word == "crate" => {}
            Token::Word(word) if word == "super" => {
                supers = 1;
                while is_path(tokens, at)
                    && tokens.get(at + 2) == Some(&Token::Word("super".into()))
                {
                    supers += 1;
                    at += 3;
                }
            }
            _ => continue,
        }
        if (supers == 0 || supers == depth) && is_path(tokens, at) {
            roots.extend(firsts(&tokens[at + 2..]));
        }
    }
    roots
}

fn is_path(tokens: &[Token], at: usize) -> bool {
    let colon = Some(&Token::Sign(':'));
    tokens.get(at) == colon && tokens.get(at + 1) == colon
}

/// `name` of `name::...`; of `{a::..., b}` each.
fn firsts(path: &[Token]) -> Vec<String> {
    match path.first() {
        Some(Token::Word(word)) => vec![word.clone()],
        Some(Token::Sign('{')) => {
            let mut names = Vec::new();
            let mut depth = 0;
            let mut expected = false;
            for token in path {
                match token {
                    Token::Sign('{') => {
                        depth += 1;
                        expected = depth == 1;
                    }
                    Token::Sign('}') if depth == 1 => break,
                    Token::Sign('}') => depth -= 1,
                    Token::Sign(',') => expected = depth == 1,
                    Token::Word(word) if expected => {
                        names.push(word.clone());
                        expected = false;
                    }
                    _ => {}
                }
            }
            names
        }
        _ => vec!["*".to_owned()],
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    Sign(char),
    /// A string literal, without its quotes.
    Text(String),
}

/// The source without comments and white space.
fn tokens(source: &str) -> Vec<Token> {
    let chars: Vec<char> = source.chars().collect();
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < chars.len() {
        let rest = &chars[at..];
        at += match rest {
            ['/', '/', ..] => until(rest, &['\n']),
            ['/', '*', ..] => comment(rest),
            ['"', ..] => {
                let length = string(rest);
                tokens.push(Token::Text(rest[1..length - 1].iter().collect()));
                length
            }
            ['\'', '\\', ..] => 3 + until(&rest[3..], &['\'']),
            ['\'', _, '\'', ..] => 3,
            [first, ..] if first.is_alphanumeric() || *first == '_' => {
                let length = rest
                    .iter()
                    .position(|c| !c.is_alphanumeric() && *c != '_')
                    .unwrap_or(rest.len());
                match raw_string(rest, length) {
                    Some((text, all)) => {
                        tokens.push(Token::Text(text));
                        all
                    }
                    None => {
                        tokens.push(Token::Word(rest[..length].iter().collect()));
                        length
                    }
                }
            }
            [first, ..] => {
                if !first.is_whitespace() {
                    tokens.push(Token::Sign(*first));
                }
                1
            }
            [] => 1,
        };
    }
    tokens
}

/// The length up to and with `end`, or of all.
fn until(rest: &[char], end: &[char]) -> usize {
    rest.windows(end.len()).position(|window| window == end).map_or(rest.len(), |at| at + end.len())
}

fn comment(rest: &[char]) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < rest.len() {
        match rest[at..] {
            ['/', '*', ..] => (depth, at) = (depth + 1, at + 2),
            ['*', '/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn string(rest: &[char]) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != '"' {
        at += if rest[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

/// A raw string whose prefix is the word of this length, as its text and whole length.
fn raw_string(rest: &[char], word: usize) -> Option<(String, usize)> {
    if !matches!(rest[..word], ['r'] | ['b', 'r'] | ['c', 'r']) {
        return None;
    }
    let hashes = rest[word..].iter().take_while(|c| **c == '#').count();
    if rest.get(word + hashes) != Some(&'"') {
        return None;
    }
    let start = word + hashes + 1;
    let end: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
    let length = until(&rest[start..], &end);
    Some((rest[start..start + length - end.len()].iter().collect(), start + length))
}

/// Leaves out every item under `#[cfg(test)]`.
fn without_tests(tokens: Vec<Token>) -> Vec<Token> {
    let sign = Token::Sign;
    let word = |word: &str| Token::Word(word.to_owned());
    let mark = [sign('#'), sign('['), word("cfg"), sign('('), word("test"), sign(')'), sign(']')];
    let mut kept = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if tokens[at..].starts_with(&mark) {
            at += mark.len() + item(&tokens[at + mark.len()..]);
        } else {
            kept.push(tokens[at].clone());
            at += 1;
        }
    }
    kept
}

/// The length of the item at the start: up to its `;` or the end of its braces.
fn item(tokens: &[Token]) -> usize {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate() {
        match token {
            Token::Sign('{') => depth += 1,
            Token::Sign('}') => depth -= 1,
            Token::Sign(';') => {}
            _ => continue,
        }
        if depth == 0 {
            return at + 1;
        }
    }
    tokens.len()
}
