//! One measured figure: what legwork did, what bare SQLite did, and whether the reach is met.

use serde::Serialize;

use super::describe::Description;

/// What legwork is to reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Reach {
    /// The ratio of legwork to raw is no larger than this: for times.
    RatioAtMost(f64),
    /// The ratio of legwork to raw is no smaller than this: for rates.
    RatioAtLeast(f64),
    /// legwork's figure itself is no larger than this.
    AtMost(f64),
    /// Only told.
    Told,
}

/// One measured figure.
#[derive(Clone, Debug)]
pub(super) struct Figure {
    /// What was measured, among the figures of one experiment.
    pub(super) measure: String,
    pub(super) unit: &'static str,
    /// `None`: it never happened.
    pub(super) legwork: Option<f64>,
    /// `None`: there is nothing to compare with.
    pub(super) raw: Option<f64>,
    pub(super) reach: Reach,
    /// What the reader should know, such as why there is no figure.
    pub(super) note: Option<String>,
}

impl Figure {
    /// legwork against raw.
    pub(super) fn new(
        measure: impl Into<String>,
        unit: &'static str,
        raw: f64,
        legwork: f64,
        reach: Reach,
    ) -> Figure {
        Figure { raw: Some(raw), ..Figure::alone(measure, unit, legwork, reach) }
    }

    /// A figure of legwork that nothing raw stands against.
    pub(super) fn alone(
        measure: impl Into<String>,
        unit: &'static str,
        legwork: f64,
        reach: Reach,
    ) -> Figure {
        Figure {
            measure: measure.into(),
            unit,
            legwork: Some(legwork),
            raw: None,
            reach,
            note: None,
        }
    }

    pub(super) fn note(mut self, note: impl Into<String>) -> Figure {
        self.note = Some(note.into());
        self
    }

    fn ratio(&self) -> Option<f64> {
        self.legwork.zip(self.raw).filter(|(_, raw)| *raw > 0.0).map(|(legwork, raw)| legwork / raw)
    }

    /// Whether the reach is met; `None`: there is none.
    fn ok(&self) -> Option<bool> {
        let meets = |found: Option<f64>, meets: &dyn Fn(f64) -> bool| found.is_some_and(meets);
        match self.reach {
            Reach::RatioAtMost(most) => Some(meets(self.ratio(), &|ratio| ratio <= most)),
            Reach::RatioAtLeast(least) => Some(meets(self.ratio(), &|ratio| ratio >= least)),
            Reach::AtMost(most) => Some(meets(self.legwork, &|figure| figure <= most)),
            Reach::Told => None,
        }
    }

    /// One line of JSON, with what describes the run.
    pub(super) fn json(&self, name: &str, run: &Description) -> String {
        let (reach, reach_of) = match self.reach {
            Reach::RatioAtMost(most) => (Some(most), Some("ratio at most")),
            Reach::RatioAtLeast(least) => (Some(least), Some("ratio at least")),
            Reach::AtMost(most) => (Some(most), Some("legwork at most")),
            Reach::Told => (None, None),
        };
        serde_json::to_string(&Line {
            v: 1,
            name,
            legwork: self.legwork.map(rounded),
            raw: self.raw.map(rounded),
            unit: self.unit,
            ratio: self.ratio().map(rounded),
            reach: reach.map(rounded),
            ok: self.ok(),
            measure: &self.measure,
            reach_of,
            note: self.note.as_deref(),
            run,
        })
        .expect("numbers and texts are JSON")
    }

    /// One line of the table for people.
    pub(super) fn line(&self, name: &str) -> String {
        let number = |number: Option<f64>| number.map_or("-".to_owned(), readable);
        let reach = match self.reach {
            Reach::RatioAtMost(most) => format!("<= {most} x"),
            Reach::RatioAtLeast(least) => format!(">= {least} x"),
            Reach::AtMost(most) => format!("<= {}", readable(most)),
            Reach::Told => "-".to_owned(),
        };
        let ok = match self.ok() {
            Some(true) => "ok",
            Some(false) => "MISSED",
            None => "-",
        };
        let legwork = self.legwork.map_or("never".to_owned(), readable);
        let ratio = self.ratio().map_or("-".to_owned(), |ratio| format!("{ratio:.2}"));
        let measure = format!("{}, {}", self.measure, self.unit);
        let line = row([name, &measure, &legwork, &number(self.raw), &ratio, &reach, ok]);
        match &self.note {
            Some(note) => format!("{line}\n{:21} ({note})", ""),
            None => line,
        }
    }
}

/// The names of the table's columns.
pub(super) fn head() -> String {
    row(["name", "measure", "legwork", "raw", "ratio", "reach", "ok"])
}

/// Columns of a fixed width, so that each line can be printed as soon as it is known.
fn row([name, measure, legwork, raw, ratio, reach, ok]: [&str; 7]) -> String {
    format!("{name:<21} {measure:<38} {legwork:>10} {raw:>10} {ratio:>7}  {reach:<9} {ok}")
}

#[derive(Serialize)]
struct Line<'a> {
    v: u32,
    name: &'a str,
    legwork: Option<f64>,
    raw: Option<f64>,
    unit: &'a str,
    ratio: Option<f64>,
    reach: Option<f64>,
    ok: Option<bool>,
    measure: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reach_of: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'a str>,
    run: &'a Description,
}

/// Four digits: more than the measurement holds.
fn rounded(number: f64) -> f64 {
    if number == 0.0 || !number.is_finite() {
        return number;
    }
    let scale = 10f64.powi(3 - number.abs().log10().floor() as i32);
    (number * scale).round() / scale
}

fn readable(number: f64) -> String {
    let number = rounded(number);
    match number.abs() {
        large if large >= 1e6 => format!("{:.2} M", number / 1e6),
        large if large >= 1e4 => format!("{:.1} k", number / 1e3),
        large if large >= 100.0 || number == number.trunc() => format!("{number:.0}"),
        _ => format!("{number:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ok(raw: f64, legwork: f64, reach: Reach) -> Option<bool> {
        Figure::new("m", "u", raw, legwork, reach).ok()
    }

    #[test]
    fn a_reach_is_met_at_its_very_bound() {
        assert_eq!(ok(100.0, 140.0, Reach::RatioAtMost(1.4)), Some(true));
        assert_eq!(ok(100.0, 141.0, Reach::RatioAtMost(1.4)), Some(false));
        assert_eq!(ok(100.0, 70.0, Reach::RatioAtLeast(0.7)), Some(true));
        assert_eq!(ok(100.0, 69.0, Reach::RatioAtLeast(0.7)), Some(false));
        assert_eq!(ok(1.0, 50.0, Reach::AtMost(50.0)), Some(true));
        assert_eq!(ok(1.0, 51.0, Reach::AtMost(50.0)), Some(false));
        assert_eq!(ok(1.0, 1.0, Reach::Told), None);
    }

    #[test]
    fn what_never_happened_meets_no_reach() {
        let never = |reach| Figure { legwork: None, ..Figure::new("m", "u", 1.0, 1.0, reach) };
        assert_eq!(never(Reach::RatioAtMost(2.0)).ok(), Some(false));
        assert_eq!(never(Reach::AtMost(2.0)).ok(), Some(false));
        assert!(never(Reach::AtMost(2.0)).line("start").contains("never"));
    }

    #[test]
    fn numbers_are_cut_to_what_they_hold() {
        assert_eq!(rounded(151_234.56), 151_200.0);
        assert_eq!(rounded(0.719_96), 0.72);
        assert_eq!(rounded(0.0), 0.0);
        assert_eq!(readable(151_234.0), "151.2 k");
        assert_eq!(readable(1_500_000.0), "1.50 M");
        assert_eq!(readable(126.0), "126");
        assert_eq!(readable(0.5), "0.50");
    }
}
