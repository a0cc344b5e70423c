//! What is said of the mark that an earlier repair has left.

use kontiki_wal::repair::{Mark, Stage};

/// A line for each loss, after what is to be done.
pub(super) fn mark_text(mark: &Mark) -> String {
    let mut text = match mark.stage {
        Stage::Done => String::new(),
        Stage::Cutting | Stage::Salvaging => UNFINISHED.to_owned(),
    };
    for loss in &mark.losses {
        text.push_str(&format!("lost by a repair before: {loss}\n"));
    }
    text
}

/// As it stands in the file.
pub(super) fn stage_name(stage: Stage) -> &'static str {
    match stage {
        Stage::Cutting => "cutting",
        Stage::Salvaging => "salvaging",
        Stage::Done => "done",
    }
}

const UNFINISHED: &str = "\
unfinished: a cut in place was begun and not ended, and the log is not opened before it is:
--truncate-tail --yes again
";
