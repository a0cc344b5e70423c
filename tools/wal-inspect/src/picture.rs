//! A segment as a line of characters: what lies where in its file.

use std::{fmt::Write, ops::Range};

use anstyle::{AnsiColor, Style};

use crate::count::Class;

/// What the characters mean.
pub(crate) const LEGEND: &str =
    "# live, half or more  + live, less  x dead  ? not read  : the log's own  . free";

/// A segment's file in as many cells as there are characters.
#[derive(Debug)]
pub(crate) struct Picture {
    file_bytes: u64,
    /// Bytes of each class in each cell; what belongs to none is the log's own.
    cells: Vec<[u64; Class::COUNT]>,
}

impl Picture {
    /// Of a file in which nothing lies but what is the log's own.
    pub(crate) fn new(file_bytes: u64, cells: usize) -> Self {
        Self { file_bytes, cells: vec![[0; Class::COUNT]; cells] }
    }

    /// Takes in that `range` of the file is of `class`.
    pub(crate) fn add(&mut self, range: &Range<u64>, class: Class) {
        if range.is_empty() {
            // Also of a file that was made just now and has no length yet.
            return;
        }
        let count = self.cells.len() as u64;
        let first = (range.start * count / self.file_bytes).saturating_sub(1);
        for cell in first..count {
            let Range { start, end } = self.cell(cell);
            if start >= range.end {
                break;
            }
            let shared = end.min(range.end).saturating_sub(start.max(range.start));
            let cell = usize::try_from(cell).expect("counted in a usize");
            self.cells[cell][class as usize] += shared;
        }
    }

    /// The picture, styled.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        let characters = (0..).zip(&self.cells).map(|(cell, bytes)| {
            let Range { start, end } = self.cell(cell);
            character(end - start, *bytes)
        });
        let characters: Vec<char> = characters.collect();
        for run in characters.chunk_by(|a, b| style(*a) == style(*b)) {
            let (style, run) = (style(run[0]), run.iter().collect::<String>());
            write!(text, "{style}{run}{style:#}").expect("a String takes everything");
        }
        text
    }

    /// The bytes of the file that a cell stands for.
    fn cell(&self, number: u64) -> Range<u64> {
        let count = self.cells.len() as u64;
        number * self.file_bytes / count..(number + 1) * self.file_bytes / count
    }
}

/// Anything live is seen, for it keeps the segment, and so is what may be live.
fn character(cell_bytes: u64, bytes: [u64; Class::COUNT]) -> char {
    let [live, dead, unread, free] = bytes;
    let own = cell_bytes.saturating_sub(live + dead + unread + free);
    if live * 2 >= cell_bytes && live > 0 {
        '#'
    } else if live > 0 {
        '+'
    } else if unread > 0 {
        '?'
    } else if dead > 0 && dead >= own.max(free) {
        'x'
    } else if own >= free {
        ':'
    } else {
        '.'
    }
}

fn style(character: char) -> Style {
    match character {
        '#' | '+' => AnsiColor::Green.on_default(),
        'x' => AnsiColor::Red.on_default(),
        '?' => AnsiColor::Yellow.on_default(),
        _ => Style::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(picture: &Picture) -> String {
        anstream::adapter::strip_str(&picture.text()).to_string()
    }

    #[test]
    fn each_cell_shows_what_there_is_most_of_and_whatever_lives() {
        let mut picture = Picture::new(1000, 10);
        for (range, class) in [
            (100..260, Class::Live),
            (260..400, Class::Dead),
            (450..460, Class::Live),
            (460..500, Class::Dead),
            (540..600, Class::Dead),
            (600..850, Class::Free),
            (850..890, Class::Dead),
            (890..895, Class::Unread),
            (900..999, Class::Unread),
        ] {
            picture.add(&range, class);
        }
        assert_eq!(plain(&picture), ":##x+x..??");
    }

    #[test]
    fn every_byte_is_in_one_cell_whatever_the_width() {
        for cells in [1, 3, 7, 72, 150] {
            let mut picture = Picture::new(1001, cells);
            let bounds = [0, 1, 13, 14, 500, 777, 1001];
            for (number, pair) in bounds.windows(2).enumerate() {
                let class = if number % 2 == 0 { Class::Live } else { Class::Dead };
                picture.add(&(pair[0]..pair[1]), class);
            }
            for (number, bytes) in (0..).zip(&picture.cells) {
                let cell = picture.cell(number);
                assert_eq!(bytes.iter().sum::<u64>(), cell.end - cell.start, "{cells}: {number}");
            }
        }
    }
}
