//! Tables in Markdown, so that what was printed can be kept as it is.

use crate::rounds::{Measured, Spread};

/// Prints a row.
pub fn print_row<const CELLS: usize>(cells: [&str; CELLS]) {
    println!("| {} |", cells.join(" | "));
}

/// Prints the names of the columns.
pub fn print_head<const CELLS: usize>(cells: [&str; CELLS]) {
    print_row(cells);
    print_row(["---"; CELLS]);
}

/// Prints the names of the columns of `print_contest`.
pub fn print_contest_head() {
    print_head([
        "work",
        "by",
        "entries/s",
        "the first as a share",
        "p50 / p99 / p99.9 us",
        "flushes per group",
        "KiB per group",
    ]);
}

/// Prints a line for each contender; the first one's rate as a share of each other one's.
pub fn print_contest(work: &str, group_entries: usize, all: &[Measured]) {
    for (number, measured) in all.iter().enumerate() {
        let share = match number {
            0 => String::new(),
            _ => share(all[0].share_of(measured)),
        };
        let [flushes, kib] = device(measured);
        print_row([
            if number == 0 { work } else { "" },
            measured.name,
            &rate(measured.rate(), group_entries as f64),
            &share,
            &measured.latencies.text_us(),
            &flushes,
            &kib,
        ]);
    }
}

/// A rate with its range, `factor` times what was measured: entries, where groups were counted.
pub fn rate(spread: Spread, factor: f64) -> String {
    let [median, least, greatest] =
        [spread.median, spread.least, spread.greatest].map(|rate| thousands(rate * factor));
    format!("{median} ({least} .. {greatest})")
}

/// A share with its range.
pub fn share(spread: Spread) -> String {
    let Spread { median, least, greatest } = spread;
    format!("**{median:.2}** ({least:.2} .. {greatest:.2})")
}

/// Flushes and KiB that the device counted for one group.
pub fn device(measured: &Measured) -> [String; 2] {
    match measured.device {
        Some(counted) => [counted.flushes, counted.kib_written].map(|count| format!("{count:.2}")),
        None => ["-", "-"].map(str::to_owned),
    }
}

/// `1234.5` as `1,235`.
fn thousands(figure: f64) -> String {
    let digits = format!("{figure:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
