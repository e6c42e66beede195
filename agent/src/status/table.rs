//! Columns of text.
//!
//! Owns: their width, and what of a value is fit for a terminal. Must not know: what the values mean.
//!
//! What a token claims is anybody's text: a control character in it could rewrite what the admin's terminal
//! shows.

/// The longest cell, in characters: an ARN with the longest name of a role fits in, AWS's sentence may not.
const LONGEST_CELL: usize = 160;
/// Between two columns.
const GAP: &str = "  ";

/// Lines of text in columns as wide as their longest cell; the last one is not padded.
pub(super) fn table<const N: usize>(head: [&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let head = head.map(str::to_owned);
    let rows: Vec<[String; N]> =
        std::iter::once(head).chain(rows.map(|row| row.map(|cell| shown(&cell)))).collect();
    let widths: Vec<usize> = (0..N)
        .map(|column| rows.iter().filter_map(|row| row.get(column)).map(|cell| width(cell)).max())
        .map(Option::unwrap_or_default)
        .collect();
    let lines = rows.iter().map(|row| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        let line = cells.collect::<Vec<_>>().join(GAP);
        format!("{}\n", line.trim_end())
    });
    lines.collect()
}

/// A value as one short piece of a line; `-` for none.
pub(super) fn shown(value: &str) -> String {
    if value.is_empty() {
        return "-".to_owned();
    }
    let plain = fit_for_terminal(value);
    match plain.char_indices().nth(LONGEST_CELL) {
        None => plain,
        Some((end, _)) => format!("{}…", plain.get(..end).unwrap_or_default()),
    }
}

/// The text with `?` for each character that steers a terminal or turns the direction of writing.
pub(super) fn fit_for_terminal(text: &str) -> String {
    let steers = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|c| if steers(c) { '?' } else { c }).collect()
}

fn width(cell: &str) -> usize {
    cell.chars().count()
}

#[cfg(test)]
mod tests {
    use super::{shown, table};

    #[test]
    fn columns_are_as_wide_as_their_longest_cell_and_nothing_is_empty() {
        let rows = [["shop".to_owned(), "cart".to_owned()], ["kube-system".to_owned(), String::new()]];
        let expected = "NAMESPACE    POD\nshop         cart\nkube-system  -\n";
        assert_eq!(table(["NAMESPACE", "POD"], rows.into_iter()), expected);
    }

    #[test]
    fn what_a_stranger_claims_cannot_steer_the_terminal_or_fill_it() {
        assert_eq!(shown("a\u{1b}[2Jb\r\nc\u{202e}d"), "a?[2Jb??c?d");
        let long = shown(&"é".repeat(5_000));
        assert_eq!((long.chars().count(), long.chars().last()), (161, Some('…')));
    }
}
