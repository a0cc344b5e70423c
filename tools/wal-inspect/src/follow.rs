//! `dump --follow`: the frames that a writer appends, as they come.

use std::{
    io::{self, Write},
    path::Path,
    time::Duration,
};

use kontiki_wal::{
    Lsn,
    inspect::{Tail, Tailed, Verdict},
};

use crate::{
    dump::Printer,
    look::Look,
    outcome::{Failure, Outcome},
    stop::Stop,
};

/// Shows what is there, and goes on until everything asked for was shown or nobody wants more.
pub(crate) fn follow(
    directory: &Path,
    mut look: Look,
    printer: &mut Printer<'_>,
) -> Result<Outcome, Failure> {
    let mut follower = Follower { stop: Stop::install()?, next: Lsn(0), printer };
    let mut outcome = Outcome::Whole;
    loop {
        let is_corrupt = matches!(look.scan.verdict(), Verdict::Corrupt(_));
        if is_corrupt && outcome == Outcome::Whole {
            outcome = look.remark(directory);
        }
        let mut tail = look.scan.tail();
        // Nothing comes behind damage that a writer would not open, or that another look has not led past.
        let is_stuck = tail.as_ref().is_none_or(|tail| tail.lsn() <= follower.next);
        let is_over = is_corrupt && (is_stuck || !look.is_live);
        if !follower.show_past(&look, tail.as_ref())? {
            return Ok(outcome);
        }
        let goes_on = match &mut tail {
            _ if is_over => follower.end()?,
            Some(tail) => follower.show_coming(tail, look.ends_in_damage()?)?,
            None => follower.wait()?,
        };
        if !goes_on {
            return Ok(outcome);
        }
        look = Look::at(directory)?;
    }
}

struct Follower<'a, 'b> {
    stop: Stop,
    /// Everything below was shown, or was gone before.
    next: Lsn,
    printer: &'a mut Printer<'b>,
}

impl Follower<'_, '_> {
    /// Shows the frames that lie before `tail`. Like all that follow, returns whether it is to go on.
    fn show_past(&mut self, look: &Look, tail: Option<&Tail>) -> Result<bool, Failure> {
        let end = tail.map_or(Lsn(u64::MAX), Tail::lsn);
        let is_corrupt = matches!(look.scan.verdict(), Verdict::Corrupt(_));
        // What was shown and cannot be read any more is not shown twice, should another look find it whole.
        if end < self.next && !is_corrupt {
            say(&format!(
                "the log ends at lsn {} now: what follows was shown before it was cut",
                end.0
            ));
            self.next = end;
        }
        for frame in look.scan.frames() {
            let frame = frame?;
            if frame.lsn < self.next {
                continue;
            }
            // Later ones have come since the look, or are on their way.
            if frame.lsn >= end {
                break;
            }
            if self.next > Lsn(0) && frame.lsn > self.next {
                let (first, end) = (self.next.0, frame.lsn.0);
                let why = if is_corrupt { "cannot be" } else { "was freed before it could be" };
                say(&format!("lsn {first}..{end} {why} shown"));
            }
            self.next = Lsn(frame.lsn.0 + frame.frame_bytes);
            if self.stop.is_asked() || !self.printer.show(&frame)? {
                return self.end();
            }
        }
        Ok(true)
    }

    /// Shows frames as they come, until another look is needed: also where damage is in their way, for it may be gone then.
    fn show_coming(&mut self, tail: &mut Tail, is_damaged: bool) -> Result<bool, Failure> {
        loop {
            match tail.try_next()? {
                Tailed::Frame(frame) => {
                    self.next = tail.lsn();
                    if self.stop.is_asked() || !self.printer.show(&frame)? {
                        return self.end();
                    }
                }
                Tailed::Nothing if is_damaged => return self.wait(),
                Tailed::Nothing if self.wait()? => {}
                Tailed::Nothing => return Ok(false),
                // Not at once: whatever took the frames away may not be done yet.
                Tailed::Gone => return self.wait(),
            }
        }
    }

    fn wait(&mut self) -> Result<bool, Failure> {
        self.printer.flush()?;
        Ok(self.stop.wait(&io::stdout(), INTERVAL)?)
    }

    fn end(&mut self) -> Result<bool, Failure> {
        self.printer.flush()?;
        Ok(false)
    }
}

fn say(line: &str) {
    // Who reads the frames alone misses nothing of them.
    let _unheard = writeln!(io::stderr(), "wal-inspect: {line}");
}

/// How often a log is looked at that is not growing. `dump --help` says it.
const INTERVAL: Duration = Duration::from_millis(100);
