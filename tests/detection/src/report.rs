//! What came of a run, for people: tables in Markdown, the same as JSON. Says no clock time, so that a seed's report is
//! the same byte for byte.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::baseline::BASELINES;
use crate::campaign::{Campaign, Sum};
use crate::qos::{Qos, WRONGS, Wrong};

/// One campaign and its sum.
#[derive(Debug, Clone)]
pub struct Outcome<'a> {
    /// What was run.
    pub campaign: Campaign<'a>,
    /// What came of it.
    pub sum: Sum,
}

/// One line of a table.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// The detector.
    pub name: String,
    /// Detection time of half of the deaths, seconds.
    pub median_secs: f64,
    /// Of 99 in 100.
    pub p99_secs: f64,
    /// The longest.
    pub max_secs: f64,
    /// Deaths not found.
    pub missed: u64,
    /// Dark with nothing the matter, per 10,000 box-days.
    pub false_dark: f64,
    /// By cause, in the order of [`WRONGS`].
    pub wrong: [f64; WRONGS.len()],
    /// Days of one box between two mistakes (T_MR).
    pub recurrence_days: f64,
    /// Mistakes in all.
    pub mistakes: u64,
    /// How long a mistake lasts (T_M), seconds.
    pub mistake_secs: f64,
    /// Query accuracy (P_A): the share of time in which a living box is called so.
    pub accuracy: f64,
    /// Pages per 10,000 box-days: all, healed within one minute, within five.
    pub pages: [f64; 3],
}

impl Outcome<'_> {
    /// Ours first, then the baselines.
    pub fn lines(&self) -> Vec<Line> {
        let ours = if self.campaign.witness {
            "ours, with a witness"
        } else {
            "ours, without a witness"
        };
        let mut lines = vec![self.line(ours.to_owned(), &self.sum.ours)];
        for (baseline, qos) in BASELINES.iter().zip(&self.sum.baselines) {
            lines.push(self.line(baseline.name(), qos));
        }
        lines
    }

    fn line(&self, name: String, qos: &Qos) -> Line {
        let per = 1e4 / self.sum.box_days;
        let mistakes = qos.mistakes();
        let alive_secs = self.sum.box_days * 86_400.0;
        let wrong_secs = qos.wrong_micros as f64 / 1e6;
        Line {
            name,
            median_secs: qos.detection_secs(0.5),
            p99_secs: qos.detection_secs(0.99),
            max_secs: qos.detection_max_secs(),
            missed: qos.missed,
            false_dark: qos.false_dark() as f64 * per,
            wrong: WRONGS.map(|why| qos.of(why) as f64 * per),
            recurrence_days: self.sum.box_days / mistakes.max(1) as f64,
            mistakes,
            mistake_secs: wrong_secs / mistakes.max(1) as f64,
            accuracy: 1.0 - wrong_secs / alive_secs,
            pages: [qos.pages, qos.pages_1_min, qos.pages_5_min].map(|pages| pages as f64 * per),
        }
    }

    /// One word for it.
    pub fn heading(&self) -> String {
        let witness = if self.campaign.witness { "with" } else { "without" };
        format!("{}, {witness} a witness", self.campaign.profile.name)
    }

    /// As Markdown.
    pub fn table(&self) -> String {
        let mut text = String::new();
        let _ = writeln!(
            text,
            "seed {}, {} fleets of {} boxes over {:.0} days: {:.0} box-years, {} deaths found, digest `{:016x}`\n",
            self.campaign.seed,
            self.campaign.fleets,
            self.campaign.profile.sites * self.campaign.profile.boxes_per_site,
            self.campaign.days,
            self.sum.box_days / 365.25,
            self.sum.ours.found,
            self.sum.digest,
        );
        text.push_str(HEAD);
        for line in self.lines() {
            let wrong: Vec<String> = line.wrong.iter().map(|rate| figure(*rate)).collect();
            let pages: Vec<String> = line.pages.iter().map(|rate| figure(*rate)).collect();
            let never = if line.mistakes == 0 { "> " } else { "" };
            let _ = writeln!(
                text,
                "| {} | {:.2} | {:.2} | {:.1} | {} | **{}** | {} | {never}{} | {:.1} | {:.6} | {} |",
                line.name,
                line.median_secs,
                line.p99_secs,
                line.max_secs,
                line.missed,
                figure(line.false_dark),
                wrong.join(" | "),
                figure(line.recurrence_days),
                line.mistake_secs,
                line.accuracy,
                pages.join(" | "),
            );
        }
        self.footnotes(&mut text);
        text
    }

    /// How sure the figures are, and what receivers were told.
    fn footnotes(&self, text: &mut String) {
        let ours = &self.sum.ours;
        let per = 1e4 / self.sum.box_days;
        let (low, high) = poisson_limits(ours.false_dark());
        let _ = writeln!(
            text,
            "\nOurs: {} false in {:.2} million box-days (95 %: {} to {} per 10,000); {} by the server's own doing in {} troubles of \
             the servers (95 %: fewer than {:.5} a trouble). Deaths of a minute at most that were over before they were found, and \
             are in no T_D: {}. Pages about the server itself: {} per 10,000 box-days, about a receiver: {}.",
            ours.false_dark(),
            self.sum.box_days / 1e6,
            figure(low * per),
            figure(high * per),
            ours.of(Wrong::Server),
            self.sum.server_troubles,
            poisson_limits(ours.of(Wrong::Server)).1 / self.sum.server_troubles.max(1) as f64,
            ours.unfound,
            figure(ours.pages_server as f64 * per),
            figure(ours.pages_receiver as f64 * per),
        );
        let told = self.sum.told;
        let _ = writeln!(
            text,
            "\nFrom a death to the page that on-call's receiver has taken: median {:.2} s, p99 {:.2} s. {} notifications to three \
             receivers, {} attempts that failed, {} repeats after a restart; {} lost, {} out of order or without a cause.",
            self.sum.ours.told_secs(0.5),
            self.sum.ours.told_secs(0.99),
            told.taken - told.repeats,
            told.failed,
            told.repeats,
            told.lost,
            told.wrong,
        );
    }

    /// As JSON.
    pub fn json(&self) -> Value {
        let lines: Vec<Value> = self.lines().iter().map(Line::json).collect();
        json!({
            "profile": self.campaign.profile.name, "witness": self.campaign.witness, "seed": self.campaign.seed,
            "fleets": self.campaign.fleets, "days": self.campaign.days, "box_days": self.sum.box_days,
            "own": self.campaign.own, "deaths_found": self.sum.ours.found, "deaths_unfound": self.sum.ours.unfound,
            "server_troubles": self.sum.server_troubles, "pages_server": self.sum.ours.pages_server,
            "digest": format!("{:016x}", self.sum.digest), "detectors": lines,
            "server_caused": self.sum.ours.of(Wrong::Server),
            "told": {
                "median_secs": self.sum.ours.told_secs(0.5), "p99_secs": self.sum.ours.told_secs(0.99),
                "taken": self.sum.told.taken, "repeats": self.sum.told.repeats, "failed": self.sum.told.failed,
                "lost": self.sum.told.lost, "wrong": self.sum.told.wrong,
            },
        })
    }
}

impl Line {
    fn json(&self) -> Value {
        let wrong: serde_json::Map<String, Value> = WRONGS
            .iter()
            .zip(self.wrong)
            .map(|(why, count)| (why.word().to_owned(), count.into()))
            .collect();
        json!({
            "name": self.name, "median_secs": self.median_secs, "p99_secs": self.p99_secs, "max_secs": self.max_secs,
            "missed": self.missed, "false_dark": self.false_dark, "wrong": wrong,
            "recurrence_days": self.recurrence_days, "mistake_secs": self.mistake_secs, "accuracy": self.accuracy,
            "pages": self.pages[0], "pages_1_min": self.pages[1], "pages_5_min": self.pages[2],
        })
    }
}

const HEAD: &str = "\
| detector | T_D median s | T_D p99 s | T_D max s | missed | false dark | fine | short | early | server | crossed | outage | T_MR days | T_M s | P_A | pages | healed in 1 min | in 5 min |
|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|
";

/// The exact 95 % limits of a Poisson mean of which `count` came (Garwood, 1936); of none, the one-sided upper one ("rule of
/// three").
fn poisson_limits(count: u64) -> (f64, f64) {
    // P(X <= k) at this mean.
    let at_most = |k: u64, mean: f64| {
        let mut term = (-mean).exp();
        let mut sum = term;
        for n in 1..=k {
            term *= mean / n as f64;
            sum += term;
        }
        sum
    };
    let solve = |k: u64, wanted: f64| {
        let (mut low, mut high) = (0.0, 20.0 + 3.0 * k as f64);
        for _ in 0..80 {
            let mean = f64::midpoint(low, high);
            if at_most(k, mean) > wanted {
                low = mean;
            } else {
                high = mean;
            }
        }
        low
    };
    match count {
        0 => (0.0, solve(0, 0.05)),
        // Far from zero the two sides are near the square root's.
        count if count > 500 => {
            let spread = 1.96 * (count as f64).sqrt();
            (count as f64 - spread, count as f64 + spread)
        }
        count => (solve(count - 1, 0.975), solve(count, 0.025)),
    }
}

/// Three digits are enough.
fn figure(value: f64) -> String {
    match value {
        0.0 => "0".to_owned(),
        value if value < 0.1 => format!("{value:.3}"),
        value if value < 10.0 => format!("{value:.2}"),
        value => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_those_of_the_tables() {
        let near = |got: (f64, f64), wanted: (f64, f64)| {
            assert!(
                (got.0 - wanted.0).abs() < 0.01 && (got.1 - wanted.1).abs() < 0.01,
                "{got:?}"
            );
        };
        near(poisson_limits(0), (0.0, 3.0));
        near(poisson_limits(2), (0.242, 7.225));
        near(poisson_limits(10), (4.795, 18.39));
    }
}
