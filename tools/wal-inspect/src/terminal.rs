//! Standard output: how wide it is, tables in it, and colour only where somebody sees it.

use std::{
    borrow::Cow,
    io::{self, ErrorKind, IsTerminal, Write},
    path::Path,
};

use comfy_table::{CellAlignment, Table, presets};
use rustix::fs::{FileType, fstat};
use serde::Serialize;
use terminal_size::{Width, terminal_size_of};

use crate::outcome::Failure;

/// Columns of the terminal; of anything else those of an old one.
pub(crate) fn columns() -> usize {
    let columns = terminal_size_of(io::stdout()).map_or(80, |(Width(columns), _)| columns.into());
    columns.max(COLUMNS_MIN)
}

/// Whether what is printed is on no screen while it is: what reads a pipe can show it at once, as `less` does.
pub(crate) fn is_output_unseen() -> bool {
    let out = io::stdout();
    let kind = fstat(&out).map(|status| FileType::from_raw_mode(status.st_mode));
    !out.is_terminal() && kind.is_ok_and(|kind| kind != FileType::Fifo)
}

/// Prints a result. Styles are taken out unless standard output is a terminal, and none of NO_COLOR, CLICOLOR=0 and
/// TERM=dumb is set. CLICOLOR_FORCE keeps them wherever it goes, as into `less -R`.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut out = anstream::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // The reader has seen enough, as in `| head`.
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// A path as a shell takes it, to be pasted.
pub(crate) fn pasted(path: &Path) -> String {
    let path = path.to_string_lossy();
    shlex::try_quote(&path).map_or_else(|_| path.to_string(), Cow::into_owned)
}

/// A table without lines, numbers to the right, two blanks between columns.
pub(crate) fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header).add_rows(rows);
    for (number, column) in table.column_iter_mut().enumerate() {
        let is_text = TEXT_COLUMNS.contains(&header[number]);
        column.set_cell_alignment(if is_text { CellAlignment::Left } else { CellAlignment::Right });
        column.set_padding((0, 2));
    }
    table.trim_fmt() + "\n"
}

/// Writes `row` as a JSON object on a line of its own.
pub(crate) fn write_json_line(row: &impl Serialize, out: &mut impl Write) -> io::Result<()> {
    serde_json::to_writer(&mut *out, row)?;
    out.write_all(b"\n")
}

/// Each of `rows` as a JSON object on a line of its own.
pub(crate) fn json_lines<Row: Serialize>(
    rows: impl IntoIterator<Item = Row>,
) -> Result<String, Failure> {
    let mut lines = String::new();
    for row in rows {
        lines.push_str(&serde_json::to_string(&row).map_err(io::Error::from)?);
        lines.push('\n');
    }
    Ok(lines)
}

/// Headers of columns that hold no numbers.
const TEXT_COLUMNS: [&str; 3] = ["file", "standing", "way"];

/// Bars and pictures need some room.
const COLUMNS_MIN: usize = 40;
