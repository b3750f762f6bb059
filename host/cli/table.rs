//! Aligned tables for people.

/// Rows below their headings, each column as wide as its widest cell.
pub struct Table {
    rows: Vec<Vec<String>>,
}

/// A cell that is longer is cut: the value itself is in `--json`.
const WIDEST: usize = 60;

impl Table {
    pub fn new(headings: &[&str]) -> Table {
        Table { rows: vec![headings.iter().map(|heading| (*heading).to_owned()).collect()] }
    }

    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|cell| cut(&cell)).collect());
    }

    /// The table without a line feed at its end.
    pub fn text(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let line = |row: &Vec<String>| {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        };
        self.rows.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}

fn cut(cell: &str) -> String {
    let flat = cell.replace(['\n', '\r', '\t'], " ");
    match flat.char_indices().nth(WIDEST) {
        Some((end, _)) => format!("{}…", &flat[..end]),
        None => flat,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_by_characters_and_long_cells_cut() {
        let mut table = Table::new(&["a", "b"]);
        table.row(["é".to_owned(), "x\ny".to_owned()]);
        table.row(["long".to_owned(), "z".repeat(100)]);
        assert_eq!(table.text(), format!("a     b\né     x y\nlong  {}…", "z".repeat(60)));
    }
}
