//! What an examination of a file finds.

use serde::Serialize;

/// How bad a [`Finding`] is. The worst is the greatest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Severity {
    /// It was looked at, and is as it should be.
    Ok,
    /// Good to know; nothing has to be done.
    Note,
    /// Something does not work as well as it could, or soon will not.
    Warning,
    /// Something does not work, or data is in danger.
    Problem,
}

impl Severity {
    /// `ok`, `note`, `warning` or `problem`.
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Ok => "ok",
            Severity::Note => "note",
            Severity::Warning => "warning",
            Severity::Problem => "problem",
        }
    }
}

impl std::fmt::Display for Severity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// One thing that an examination has found out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Finding {
    /// What sort of finding it is, for programs: a word that never changes, such as `wal_large`. The
    /// [command line's page](crate::guide::cli#doctor) lists them.
    pub code: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What it is about, if there can be several of a code: a kind, a queue, the name of a file.
    pub of: Option<String>,
    /// What was found, as a sentence.
    pub says: String,
    /// What to do about it; empty if nothing has to be done.
    pub advice: String,
}

impl Finding {
    pub(crate) fn new(code: &'static str, severity: Severity, says: impl Into<String>) -> Finding {
        Finding { code, severity, of: None, says: says.into(), advice: String::new() }
    }

    pub(crate) fn ok(code: &'static str, says: impl Into<String>) -> Finding {
        Finding::new(code, Severity::Ok, says)
    }

    pub(crate) fn note(code: &'static str, says: impl Into<String>) -> Finding {
        Finding::new(code, Severity::Note, says)
    }

    pub(crate) fn warning(code: &'static str, says: impl Into<String>) -> Finding {
        Finding::new(code, Severity::Warning, says)
    }

    pub(crate) fn problem(code: &'static str, says: impl Into<String>) -> Finding {
        Finding::new(code, Severity::Problem, says)
    }

    pub(crate) fn of(self, of: impl Into<String>) -> Finding {
        Finding { of: Some(of.into()), ..self }
    }

    pub(crate) fn advice(self, advice: impl Into<String>) -> Finding {
        Finding { advice: advice.into(), ..self }
    }
}

/// What [`Jobs::examine`](crate::Jobs::examine) has found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// Whether legwork can work on the file. If not, one of the problems says why.
    pub usable: bool,
    /// What was found, the worst first.
    pub findings: Vec<Finding>,
}

impl Report {
    pub(crate) fn new(usable: bool, mut findings: Vec<Finding>) -> Report {
        findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        Report { usable, findings }
    }

    /// How bad the worst of it is; [`Severity::Ok`] if there is nothing.
    pub fn worst(&self) -> Severity {
        self.findings.iter().map(|finding| finding.severity).max().unwrap_or(Severity::Ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_stands_first_and_equals_stay_in_their_order() {
        let found =
            vec![Finding::ok("a", ""), Finding::problem("b", ""), Finding::problem("c", "")];
        let report = Report::new(true, found);
        let codes: Vec<&str> = report.findings.iter().map(|finding| finding.code).collect();
        assert_eq!((codes, report.worst()), (vec!["b", "c", "a"], Severity::Problem));
        assert_eq!(Report::new(true, Vec::new()).worst(), Severity::Ok);
    }
}
