//! Puts the figures and plots of a run into docs/detection.md: between its marks, nothing else of it is touched.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};

use crate::report::Outcome;
use crate::svg;

const BEGIN: &str = "<!-- figures: cargo xtask sim --write-docs -->";
const END: &str = "<!-- end of the figures -->";

/// Writes both, under the repository's root.
pub fn write(root: &Path, outcomes: &[Outcome<'_>]) -> Result<()> {
    let folder = root.join("docs/detection");
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut figures = String::new();
    for outcome in outcomes {
        let witness = if outcome.campaign.witness {
            "witness"
        } else {
            "alone"
        };
        let stem = format!("{}-{witness}", outcome.campaign.profile.name);
        let lines = outcome.lines();
        let heading = outcome.heading();
        let plots = [
            ("times", svg::spans(&format!("Detection time: {heading}"), &lines)),
            (
                "false",
                svg::bars(
                    &format!("False alarms: {heading}"),
                    "false darks per 10,000 box-days",
                    &lines,
                    |line| line.false_dark,
                ),
            ),
            ("plane", svg::plane(&format!("Both: {heading}"), &lines)),
        ];
        let _ = writeln!(figures, "### {heading}\n\n{}", outcome.table());
        for (what, plot) in plots {
            let name = format!("{stem}-{what}.svg");
            save(&folder.join(&name), &plot)?;
            let _ = writeln!(figures, "![{what}: {heading}](detection/{name})");
        }
        figures.push('\n');
    }
    let json: Vec<_> = outcomes.iter().map(Outcome::json).collect();
    save(
        &folder.join("figures.json"),
        &format!("{}\n", serde_json::to_string_pretty(&json)?),
    )?;
    let path = root.join("docs/detection.md");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let (before, rest) = text
        .split_once(BEGIN)
        .context("docs/detection.md has lost its first mark")?;
    let (_, after) = rest
        .split_once(END)
        .context("docs/detection.md has lost its second mark")?;
    save(&path, &format!("{before}{BEGIN}\n\n{figures}{END}{after}"))
}

fn save(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
