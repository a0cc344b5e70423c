//! Checking a segment by itself: all its frames, its index and its trailer, in one pass; and whether the next one goes on
//! from there. Segments are checked side by side, so none waits for what another one says.

use crc32fast::Hasher;

use crate::{
    Corruption, Lsn, OpenError,
    inspect::{Counts, Replaced},
    recovery::{
        replay::Replay,
        scan::{Fault, SegmentFile, Window},
        walk::{Expected, Opening, read_opening},
    },
    segment::{FRAMES_AT, Last, PAGE_BYTES, lsn_at},
    trailer::Trailer,
};

/// A segment to check.
#[derive(Clone, Copy, Debug)]
pub(super) struct Check<'a> {
    pub(super) file: &'a SegmentFile,
    /// LSN of its first frame; if that is not known none is read.
    pub(super) base: Option<Lsn>,
    /// Where the log ends.
    pub(super) end: Lsn,
    /// How far its frames were durable for certain, where it is not sealed and something behind it tells.
    pub(super) reaches: Option<Lsn>,
    /// What its frames say is held against its checkpoint, its index, and each other.
    pub(super) is_deep: bool,
}

/// What a check finds.
#[derive(Debug)]
pub(crate) struct Checked {
    /// Where the chain of whole headers ends, at the end of the log at the latest.
    pub(crate) used_end: u64,
    pub(crate) counts: Counts,
    /// What the frames up to there replace.
    pub(crate) replaced: Replaced,
    /// What is wrong with it, in the order of its frames; of one that is not sealed, in front of where they end.
    pub(super) damage: Vec<Corruption>,
    /// False if a writer has used the file again meanwhile.
    pub(super) is_itself: bool,
    /// `None` if its frames were not read up to its end.
    pub(super) ending: Option<Ending>,
}

/// What the next segment must go on from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ending {
    is_sealed: bool,
    sequence: u64,
    lsn: Lsn,
    /// `header_crc` of the last frame.
    crc: u32,
    replayed: Option<Replayed>,
}

/// What only a deep check tells of an ending.
#[derive(Clone, Copy, Debug)]
pub(super) struct Replayed {
    /// The largest watermark so far.
    pub(super) watermark: Lsn,
    /// Checksum of the checkpoint that must follow; `None` if damage hides it.
    pub(super) checkpoint_crc: Option<u32>,
}

impl Check<'_> {
    pub(super) fn run(&self) -> Result<Checked, OpenError> {
        let mut checked = Checked {
            used_end: FRAMES_AT,
            counts: Counts::default(),
            replaced: Replaced::default(),
            damage: Vec::new(),
            is_itself: true,
            ending: None,
        };
        let mut faults = match self.base {
            Some(base) => self.check_frames(base, &mut checked)?,
            None => Vec::new(),
        };
        if self.file.trailer.is_none() {
            // Whether what lies where its frames end was durable is told by what lies behind it, or by who walks it.
            faults.retain(|fault| match self.base.zip(self.reaches) {
                Some((base, end)) => lsn_at(base, fault.offset) < end,
                None => fault.offset < checked.used_end,
            });
        }
        faults.extend(check_seal(self.file)?);
        checked.damage = faults.iter().map(|fault| self.file.corruption(fault)).collect();
        checked.is_itself = self.file.is_still_itself();
        Ok(checked)
    }

    /// Reads every frame: what is wrong with them, in their order.
    fn check_frames(&self, base: Lsn, checked: &mut Checked) -> Result<Vec<Fault>, OpenError> {
        let (file, mut faults) = (self.file, Vec::new());
        let mut replay = if self.is_deep { Some(Replay::begin(file, &mut faults)?) } else { None };
        let mut window = Window::new(file);
        let frames_end = file.trailer.map_or(file.frames_end(), |trailer| trailer.frames_end);
        let (mut offset, mut link) = (FRAMES_AT, None);
        while offset < frames_end {
            let lsn = lsn_at(base, offset);
            let found = match window.frame(offset, link, Some(lsn))? {
                Ok(found) => found,
                Err(fault) => {
                    faults.push(fault);
                    break;
                }
            };
            if let Some(replay) = &mut replay {
                faults.extend(replay.take(&found, window.body(&found)?));
            }
            (offset, link) = (offset + found.header.frame_bytes(), Some(found.crc));
            checked.counts.take(&found.header);
            if lsn < self.end {
                checked.replaced.take(lsn, &found.header);
                checked.used_end = offset;
            }
            faults.extend(found.fault);
        }
        let last = Last { frames_end: offset, crc: link.unwrap_or(0) };
        if let Some(trailer) = file.trailer
            && (trailer.frames_end, trailer.last_crc) != (last.frames_end, last.crc)
        {
            // That they end too early was told already.
            let is_told = offset < trailer.frames_end;
            faults.extend((!is_told).then(|| unlike_trailer(&trailer, last)));
            return Ok(faults);
        }
        let (is_sealed, sequence) = (file.trailer.is_some(), file.header.sequence);
        let (lsn, crc) = (lsn_at(base, offset), last.crc);
        let replayed = replay.map(|replay| replay.finish(file, last, &mut faults));
        checked.ending = Some(Ending { is_sealed, sequence, lsn, crc, replayed });
        Ok(faults)
    }
}

impl Ending {
    /// What in the segment of `next` contradicts this one, which is the last before it: between them is none, or only freed
    /// ones.
    pub(super) fn contradiction(
        &self,
        next: &SegmentFile,
    ) -> Result<Option<Corruption>, OpenError> {
        let is_next = self.sequence + 1 == next.header.sequence;
        let expected = Expected { base: self.lsn, previous: self.sequence, link: self.crc };
        let fault = match read_opening(next, is_next.then_some(expected))? {
            Ok(opening) => self.contradicted(&opening, is_next),
            // Where the frames of a segment that is not sealed end is told by who walks it.
            Err(fault) => Some(fault).filter(|_| self.is_sealed),
        };
        // What a writer has used again meanwhile was freed.
        let fault = fault.filter(|_| next.is_still_itself());
        Ok(fault.map(|fault| next.corruption(&fault)))
    }

    fn contradicted(&self, opening: &Opening, is_next: bool) -> Option<Fault> {
        if opening.base < self.lsn {
            return Some(opening.fault("base LSN of a segment", self.lsn.0, opening.base.0));
        }
        let Replayed { watermark, checkpoint_crc } = self.replayed?;
        if opening.watermark() < watermark {
            let (expected, found) = (watermark.0, opening.watermark().0);
            return Some(opening.fault(WATERMARK_DESCENDS, expected, found));
        }
        let follows = checkpoint_crc.filter(|_| is_next)?;
        opening.checkpoint_fault(follows)
    }
}

/// The frames of a sealed segment end elsewhere than its trailer says.
fn unlike_trailer(trailer: &Trailer, last: Last) -> Fault {
    let (expected, found) = (trailer.last_crc.into(), last.crc.into());
    let (what, header) = ("last frame of a sealed segment", None);
    Fault { offset: last.frames_end, what, expected, found, header }
}

/// Reads what makes a segment a sealed one: its trailer and its index. One that is not sealed yet has nothing to check.
pub(crate) fn check_seal(file: &SegmentFile) -> Result<Option<Fault>, OpenError> {
    let bytes = file.header.segment_bytes;
    let Some(trailer) = file.trailer else {
        let offset = bytes - PAGE_BYTES;
        let what = "trailer page of a sealed segment";
        let fault = Fault { offset, what, expected: 0, found: 0, header: None };
        return Ok(file.was_sealed.then_some(fault));
    };
    let mut window = Window::in_steps(file, INDEX_STEP_BYTES);
    let offset = trailer.index_at(bytes);
    let (mut at, end) = (offset, offset + trailer.index_bytes());
    let mut crc = Hasher::new();
    while at < end {
        let step = end.min(at + INDEX_STEP_BYTES);
        crc.update(window.bytes(at..step)?);
        at = step;
    }
    let (expected, found) = (trailer.index_crc.into(), crc.finalize().into());
    let fault = Fault { offset, what: "checksum of an index", expected, found, header: None };
    Ok((expected != found).then_some(fault))
}

/// How much of an index is in memory at a time: it can be as long as the segment.
const INDEX_STEP_BYTES: u64 = 256 << 10;

/// A group is written when everything before it is durable, so each one attests more than the one before.
pub(super) const WATERMARK_DESCENDS: &str = "watermark below that of a frame before";

#[cfg(test)]
mod tests;
