//! Columns that line up, and colour where a person looks.

use std::io::IsTerminal;

/// How a cell is to be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    Plain,
    Good,
    Odd,
    Bad,
}

/// One cell.
pub(crate) struct Cell(String, Tone);

impl Cell {
    #[expect(
        clippy::needless_pass_by_value,
        reason = "callers give numbers, words and texts alike"
    )]
    pub(crate) fn plain(text: impl ToString) -> Self {
        Self(clean(&text.to_string()), Tone::Plain)
    }

    #[expect(
        clippy::needless_pass_by_value,
        reason = "callers give numbers, words and texts alike"
    )]
    pub(crate) fn toned(text: impl ToString, tone: Tone) -> Self {
        Self(clean(&text.to_string()), tone)
    }
}

/// Rows below a head, each column as wide as its widest cell; the last one is not filled up.
pub(crate) fn render(head: &[&str], rows: &[Vec<Cell>]) -> String {
    let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let width = |column: usize| {
        let cells = rows
            .iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.0.chars().count());
        cells
            .chain(head.get(column).map(|title| title.len()))
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut out = String::new();
    let titles: Vec<Cell> = head.iter().map(Cell::plain).collect();
    line(&mut out, &titles, &widths, colour.then_some("\x1b[1m"));
    for row in rows {
        line(&mut out, row, &widths, colour.then_some(""));
    }
    out
}

fn line(out: &mut String, cells: &[Cell], widths: &[usize], colour: Option<&str>) {
    for (column, Cell(text, tone)) in cells.iter().enumerate() {
        let code = match (colour, tone) {
            (None, _) => "",
            (Some(base), Tone::Plain) => base,
            (Some(_), Tone::Good) => "\x1b[32m",
            (Some(_), Tone::Odd) => "\x1b[33m",
            (Some(_), Tone::Bad) => "\x1b[31m",
        };
        out.push_str(code);
        out.push_str(text);
        if !code.is_empty() {
            out.push_str("\x1b[0m");
        }
        if column + 1 < cells.len() {
            let width = widths.get(column).copied().unwrap_or(0);
            out.extend(std::iter::repeat_n(
                ' ',
                width.saturating_sub(text.chars().count()) + 2,
            ));
        }
    }
    out.push('\n');
}

/// What boxes send must not steer a terminal.
fn clean(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_nothing_steers_the_terminal() {
        let rows = vec![
            vec![
                Cell::plain("box-1"),
                Cell::toned("dark", Tone::Bad),
                Cell::plain("#"),
            ],
            vec![Cell::plain("b"), Cell::plain("\x1b[2Jlive"), Cell::plain("#")],
        ];
        let text = render(&["NAME", "STATE", "#"], &rows);
        let at: Vec<_> = text
            .lines()
            .map(|line| line.chars().position(|c| c == '#'))
            .collect();
        assert_eq!(at[0], at[1]);
        assert_eq!(at[1], at[2]);
        assert!(!text.contains('\x1b'), "{text:?}");
    }
}
