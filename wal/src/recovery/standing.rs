//! What each segment is to its log, and what of it damage keeps from being read.

use std::{cmp::Ordering, slice};

use crate::{
    Lsn, OpenError,
    frame::HEADER_BYTES,
    inspect::{Standing, Unread},
    recovery::{
        look::Look,
        scan::{SegmentFile, Window},
        walk::behind,
    },
    segment::{FRAMES_AT, file_name, lsn_at},
};

impl Look {
    /// What the segment of each of `files` is to the log.
    pub(crate) fn standings(&self) -> Result<Vec<Standing>, OpenError> {
        let read_end = |sequence| self.checked.get(&sequence).map(|(_, checked)| checked.used_end);
        let files = self.files.iter().enumerate();
        files.map(|(number, file)| self.standing(number, read_end(file.header.sequence))).collect()
    }

    /// What the segment of one of `files` is to the log; `read_end` is where its whole frames end, if it has a place in the
    /// stream.
    fn standing(&self, number: usize, read_end: Option<u64>) -> Result<Standing, OpenError> {
        let file = &self.files[number];
        let place = self.end.map_or(Ordering::Greater, |(end, _)| number.cmp(&end));
        let is_needed = self.gathered.catalog.segments.numbers().contains(file.header.sequence);
        // The end's segment is not opened yet if the one before it is sealed and it has no whole first frames.
        let is_freed = place == Ordering::Less && !is_needed;
        if is_freed || (place != Ordering::Greater && !file.is_still_itself()) {
            return Ok(Standing::Freed);
        }
        let Some(read_end) = read_end else { return self.standing_without_place(file, place) };
        Ok(match (file.trailer, place) {
            (Some(trailer), _) if read_end < trailer.frames_end => Standing::Damaged,
            (Some(_), _) => Standing::Sealed,
            (None, _) if self.is_damaged_at(file, |offset| offset == read_end) => Standing::Damaged,
            (None, Ordering::Less) => Standing::Full,
            (None, Ordering::Equal) => Standing::Active,
            // It does not begin whole.
            (None, Ordering::Greater) => return self.standing_without_place(file, place),
        })
    }

    /// The same for a segment that was not walked, and is not freed.
    fn standing_without_place(
        &self,
        file: &SegmentFile,
        place: Ordering,
    ) -> Result<Standing, OpenError> {
        if place == Ordering::Less || self.is_damaged_at(file, |offset| offset >= FRAMES_AT) {
            return Ok(Standing::Damaged);
        }
        if self.damage.is_empty() {
            return Ok(Standing::Prepared);
        }
        // The walk did not come this far, and what it did not read may be needed.
        let has_frames = file.was_sealed || behind(slice::from_ref(file), FRAMES_AT)?.headers > 0;
        Ok(if has_frames { Standing::Unknown } else { Standing::Prepared })
    }

    fn is_damaged_at(&self, file: &SegmentFile, is_there: impl Fn(u64) -> bool) -> bool {
        let name = file.name();
        self.damage.iter().any(|found| found.segment == name && is_there(found.offset))
    }

    /// What was not read, in the order of the segments, which are to the log what `standings` says. Nothing if nothing is
    /// damaged: what a crash leaves is torn.
    pub(crate) fn not_read(&self, standings: &[Standing]) -> Result<Vec<Unread>, OpenError> {
        if self.damage.is_empty() {
            return Ok(Vec::new());
        }
        let mut found: Vec<Unread> = Vec::new();
        for &(sequence, bytes) in &self.unread {
            let (file, lsn, why) =
                (file_name(sequence), None, "its header page or its length does not hold");
            found.push(Unread { file, sequence, bytes: 0..bytes, lsn, why });
        }
        for (number, (file, standing)) in self.files.iter().zip(standings).enumerate() {
            if matches!(standing, Standing::Damaged | Standing::Unknown) {
                found.extend(self.not_read_of(number, file)?);
            }
        }
        found.sort_by_key(|unread| unread.sequence);
        Ok(found)
    }

    fn not_read_of(&self, number: usize, file: &SegmentFile) -> Result<Option<Unread>, OpenError> {
        let sequence = file.header.sequence;
        let placed = self.checked.get(&sequence).map(|(base, checked)| (*base, checked.used_end));
        let start = placed.map_or(FRAMES_AT, |placed| placed.1);
        let known_end = match (file.trailer, placed) {
            (Some(trailer), _) => trailer.frames_end,
            (None, Some((base, _))) => self.attested_end(number, base),
            (None, None) => start,
        };
        let behind = behind(slice::from_ref(file), start)?.frames_end;
        let end = known_end.max(if file.trailer.is_none() { behind } else { 0 });
        let end = end.min(file.frames_end());
        // Where nothing tells how far frames went they can have gone all the way.
        let is_open = placed.is_none() || self.is_damaged_at(file, |offset| offset == start);
        let is_written =
            Window::new(file).bytes(start..start + HEADER_BYTES)?.iter().any(|&b| b != 0);
        let end = if end <= start && is_open && is_written { file.frames_end() } else { end };
        let why = match start {
            FRAMES_AT => "it does not begin as a segment should",
            _ => "no frame there follows on the one before",
        };
        let lsn = placed.map(|(base, start)| lsn_at(base, start));
        Ok((start < end).then(|| Unread {
            file: file.name(),
            sequence,
            bytes: start..end,
            lsn,
            why,
        }))
    }

    /// How far the frames of a segment without a trailer went at least: up to the next one, or to what is attested.
    fn attested_end(&self, number: usize, base: Lsn) -> u64 {
        let sequence = self.files[number].header.sequence;
        let next = self.checked.get(&(sequence + 1)).map(|(base, _)| *base);
        let fault = self.fault.as_ref().filter(|fault| fault.0 == number);
        let frame = fault.and_then(|(_, fault)| Some((fault.offset, fault.header?.frame_bytes())));
        let is_last = self.end.is_some_and(|end| end.0 == number);
        let lsn = next.or(is_last.then_some(self.attested)).unwrap_or(base);
        let end = lsn.0.saturating_sub(base.0).saturating_add(FRAMES_AT);
        end.max(frame.map_or(0, |(offset, bytes)| offset + bytes))
    }
}
