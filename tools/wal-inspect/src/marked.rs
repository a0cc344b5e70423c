//! What is said of the mark that an earlier repair has left.

use std::path::{Path, PathBuf};

use kontiki_wal::repair::{Mark, Stage};
use serde::Serialize;

use crate::{outcome::Failure, terminal::pasted};

/// A log that has a mark.
pub(crate) struct Marked {
    mark: Mark,
    directory: PathBuf,
}

/// A mark for programs.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct MarkRow {
    stage: &'static str,
    losses: Vec<String>,
}

impl Marked {
    /// The mark in `directory`, if there is one.
    pub(crate) fn of(directory: &Path) -> Result<Option<Self>, Failure> {
        let mark = Mark::of(directory)?;
        Ok(mark.map(|mark| Self { mark, directory: directory.to_owned() }))
    }

    /// The repair was begun and has not ended: the log is not opened.
    pub(crate) fn is_unfinished(&self) -> bool {
        self.mark.stage != Stage::Done
    }

    /// What that means for the log, in one line.
    pub(crate) fn line(&self) -> String {
        let directory = pasted(&self.directory);
        match self.mark.stage {
            Stage::Cutting => format!(
                "unfinished: a cut in place was begun and not ended, and the log is not opened before it is: do it again with \
                 `wal-inspect repair {directory} --truncate-tail --yes`"
            ),
            Stage::Salvaging => format!(
                "unfinished: a salvage into {directory} was begun and not ended, and the log is not opened: remove that \
                 directory, and salvage again"
            ),
            Stage::Done => {
                let file = self.directory.join(Mark::FILE);
                format!(
                    "marked: {} says what a repair took; no node starts from it",
                    file.display()
                )
            }
        }
    }

    /// The same, and a line for each loss.
    pub(crate) fn text(&self) -> String {
        format!("{}\n{}", self.line(), losses_text(&self.mark))
    }

    pub(crate) fn row(&self) -> MarkRow {
        MarkRow::of(&self.mark)
    }
}

impl MarkRow {
    pub(crate) fn of(mark: &Mark) -> Self {
        Self { stage: stage_name(mark.stage), losses: mark.losses.clone() }
    }
}

/// A line for each loss.
pub(crate) fn losses_text(mark: &Mark) -> String {
    let lines = mark.losses.iter().map(|loss| format!("an earlier repair: {loss}\n"));
    lines.collect()
}

/// As it stands in the file.
fn stage_name(stage: Stage) -> &'static str {
    match stage {
        Stage::Cutting => "cutting",
        Stage::Salvaging => "salvaging",
        Stage::Done => "done",
    }
}
