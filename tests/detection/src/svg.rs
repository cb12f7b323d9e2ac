//! Plots as SVG, written by hand: a plane of detection time and false alarms, each detector a dot, and the span of
//! detection times. Nothing but what two axes, dots and words need.

use std::fmt::Write as _;

use crate::report::Line;

const WIDTH: f64 = 760.0;
const ROW: f64 = 22.0;
const LEFT: f64 = 190.0;
const RIGHT: f64 = 40.0;
/// About the width of a detector's name.
const WORD: f64 = 110.0;
const OURS: &str = "#c2410c";
const OTHERS: &str = "#475569";

/// Detection times: median to 99th percentile of each, on a logarithmic axis.
pub fn spans(title: &str, lines: &[Line]) -> String {
    let height = 80.0 + ROW * lines.len() as f64;
    let mut svg = open(title, height);
    let axis = Axis::log(1.0, 60.0, LEFT, WIDTH - RIGHT);
    axis.draw(
        &mut svg,
        height - 40.0,
        40.0,
        "seconds from death to verdict: median ● to 99th percentile |",
    );
    for (n, line) in lines.iter().enumerate() {
        let y = 56.0 + ROW * n as f64;
        let (from, to) = (axis.at(line.median_secs), axis.at(line.p99_secs));
        let color = color(line);
        let _ = write!(
            svg,
            "<text x='{x}' y='{ty}' text-anchor='end'>{name}</text>\
             <path d='M{from:.1} {y}H{to:.1}M{to:.1} {up}V{down}' stroke='{color}' stroke-width='3' fill='none'/>\
             <circle cx='{from:.1}' cy='{y}' r='5' fill='{color}'/>",
            x = LEFT - 10.0,
            ty = y + 4.0,
            name = line.name,
            up = y - 6.0,
            down = y + 6.0,
        );
    }
    svg.push_str("</svg>\n");
    svg
}

/// False alarms of each: `figure` per 10,000 box-days on a logarithmic axis; none at all stands at its left end.
pub fn bars(title: &str, words: &str, lines: &[Line], figure: fn(&Line) -> f64) -> String {
    let height = 80.0 + ROW * lines.len() as f64;
    let mut svg = open(title, height);
    let axis = Axis::log(0.01, 100_000.0, LEFT, WIDTH - RIGHT);
    axis.draw(&mut svg, height - 40.0, 40.0, words);
    for (n, line) in lines.iter().enumerate() {
        let y = 56.0 + ROW * n as f64;
        let value = figure(line);
        let _ = write!(
            svg,
            "<text x='{x}' y='{ty}' text-anchor='end'>{name}</text>\
             <path d='M{LEFT} {y}H{to:.1}' stroke='{color}' stroke-width='12'/>\
             <text x='{after:.1}' y='{ty}' font-size='11'>{value}</text>",
            x = LEFT - 10.0,
            ty = y + 4.0,
            name = line.name,
            to = axis.at(value),
            color = color(line),
            after = axis.at(value) + 5.0,
            value = short(value),
        );
    }
    svg.push_str("</svg>\n");
    svg
}

/// The plane: detection median against pages for outages that healed by themselves within five minutes.
pub fn plane(title: &str, lines: &[Line]) -> String {
    let height = 460.0;
    let mut svg = open(title, height);
    let across = Axis::log(1.0, 60.0, 90.0, WIDTH - RIGHT);
    let up = Axis::log(1.0, 100_000.0, height - 60.0, 50.0);
    across.draw(&mut svg, height - 60.0, 50.0, "median detection time, seconds");
    for decade in 0..=5 {
        let value = 10_f64.powi(decade);
        let y = up.at(value);
        let _ = write!(
            svg,
            "<path d='M90 {y:.1}H{right}' stroke='#e2e8f0'/><text x='84' y='{ty:.1}' text-anchor='end' font-size='11'>{value}</text>",
            right = WIDTH - RIGHT,
            ty = y + 4.0,
        );
    }
    let _ = write!(
        svg,
        "<text x='18' y='{middle}' transform='rotate(-90 18 {middle})' text-anchor='middle'>pages for outages that healed in 5 min, per 10,000 box-days</text>",
        middle = height / 2.0,
    );
    let mut taken: Vec<(f64, f64)> = Vec::new();
    for line in lines {
        let (x, y) = (across.at(line.median_secs), up.at(line.pages[2]));
        // Words under words that stand there already.
        let mut word = y;
        while taken
            .iter()
            .any(|(at, of)| (at - x).abs() < WORD && (of - word).abs() < 12.0)
        {
            word += 12.0;
        }
        taken.push((x, word));
        let _ = write!(
            svg,
            "<circle cx='{x:.1}' cy='{y:.1}' r='5' fill='{color}'/><text x='{tx:.1}' y='{ty:.1}' font-size='11'>{name}</text>",
            color = color(line),
            tx = x + 8.0,
            ty = word + 4.0,
            name = line.name,
        );
    }
    svg.push_str("</svg>\n");
    svg
}

fn open(title: &str, height: f64) -> String {
    format!(
        "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {height}' font-family='system-ui, sans-serif' font-size='12' fill='#0f172a'>\
         <rect width='{WIDTH}' height='{height}' fill='#ffffff'/><text x='16' y='24' font-size='15' font-weight='600'>{title}</text>"
    )
}

fn color(line: &Line) -> &'static str {
    if line.name.starts_with("ours") {
        OURS
    } else {
        OTHERS
    }
}

fn short(value: f64) -> String {
    match value {
        0.0 => "none".to_owned(),
        value if value < 10.0 => format!("{value:.2}"),
        value => format!("{value:.0}"),
    }
}

struct Axis {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Axis {
    fn log(low: f64, high: f64, from: f64, to: f64) -> Self {
        Self { low, high, from, to }
    }

    fn at(&self, value: f64) -> f64 {
        let share = (value.clamp(self.low, self.high) / self.low).ln() / (self.high / self.low).ln();
        self.from + share * (self.to - self.from)
    }

    /// Across: ticks at 1, 2 and 5 of each decade (1 only over many decades), and what it shows.
    fn draw(&self, svg: &mut String, bottom: f64, top: f64, words: &str) {
        let many = self.high / self.low > 1000.0;
        let mut decade = self.low;
        while decade <= self.high {
            for step in [1.0, 2.0, 5.0] {
                let value = decade * step;
                if value > self.high || (many && step > 1.0) {
                    continue;
                }
                let x = self.at(value);
                let _ = write!(
                    svg,
                    "<path d='M{x:.1} {top}V{bottom}' stroke='#e2e8f0'/><text x='{x:.1}' y='{y}' text-anchor='middle' font-size='11'>{value}</text>",
                    y = bottom + 15.0,
                );
            }
            decade *= 10.0;
        }
        let _ = write!(
            svg,
            "<text x='{x}' y='{y}' text-anchor='middle'>{words}</text>",
            x = f64::midpoint(self.from, self.to),
            y = bottom + 33.0,
        );
    }
}
