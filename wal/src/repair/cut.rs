//! Cutting a log in place: where, what an opening would make of it, and the cut itself.

use std::{io, ops::Range, sync::Arc};

use bytes::Bytes;
use kontiki_disk::{Directory, File};

use crate::{
    Lsn, OpenError,
    catalog::Catalog,
    recovery::{
        check_seal, judge,
        repair::{beginning, remove_one_by_one, rewrite, zero},
        scan::{SegmentFile, io_error},
        walk::{End, Gathered, read_opening},
    },
    repair::survey::Survey,
    segment::{PAGE_BYTES, Segment, file_name},
};

/// What a cut in place would do.
#[derive(Debug)]
pub(super) struct Plan {
    /// The first frame that goes; `None` if all frames stay.
    pub(super) cut: Option<Place>,
    /// Which files lose their trailer page: they are scanned then, and sealed again.
    pub(super) unsealed: Vec<usize>,
    /// Numbers of the segments that are removed, ascending.
    pub(super) removed: Vec<u64>,
}

/// Where a frame lies, or would.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// Which of the survey's files.
    pub(super) number: usize,
    pub(super) offset: u64,
    pub(super) lsn: Lsn,
}

impl Place {
    fn of(end: &End, first: usize) -> Self {
        Self { number: first + end.number, offset: end.offset, lsn: end.lsn }
    }
}

impl Plan {
    /// Plans a cut at the first damaged frame; `Err` in the inner result says why there can be none.
    pub(super) fn of(survey: &Survey) -> Result<Result<Self, String>, OpenError> {
        let cut = match find_cut(survey)? {
            Ok(cut) => cut,
            Err(reason) => return Ok(Err(reason)),
        };
        let stays = cut.map_or(survey.files.len(), |place| place.number + 1);
        let mut unsealed = Vec::new();
        for (number, file) in survey.files[..stays].iter().enumerate() {
            let is_cut = cut.is_some_and(|place| place.number == number);
            let is_live = survey.live_numbers().contains(file.header.sequence);
            if (is_cut && file.was_sealed) || (is_live && check_seal(file)?.is_some()) {
                unsealed.push(number);
            }
        }
        let behind = survey.files[stays..].iter().map(|file| file.header.sequence);
        let mut removed: Vec<u64> = behind.chain(survey.unread.iter().copied()).collect();
        removed.sort_unstable();
        if cut.is_none() && unsealed.is_empty() && removed.is_empty() {
            return Ok(Err("no damaged frame was found to cut at".to_owned()));
        }
        Ok(Ok(Self { cut, unsealed, removed }))
    }

    /// The logs as an opening finds them after the cut; an error if it would be refused.
    pub(super) fn judge(&self, survey: &Survey) -> Result<Catalog, OpenError> {
        let mut files = survey.files.clone();
        for &number in &self.unsealed {
            (files[number].trailer, files[number].was_sealed) = (None, false);
        }
        if let Some(place) = self.cut {
            files.truncate(place.number + 1);
            let file = &mut files[place.number];
            file.file = Arc::new(Shortened { file: Arc::clone(&file.file), end: place.offset });
        }
        judge(&files)
    }

    /// File names of the segments that are changed.
    pub(super) fn changed(&self, survey: &Survey) -> Vec<String> {
        let mut numbers = self.unsealed.clone();
        numbers.extend(self.cut.map(|place| place.number));
        numbers.sort_unstable();
        numbers.dedup();
        numbers.into_iter().map(|number| survey.files[number].name()).collect()
    }

    /// File names of the segments that are removed.
    pub(super) fn removed(&self) -> Vec<String> {
        self.removed.iter().copied().map(file_name).collect()
    }

    /// Cuts. After a stop in the middle an opening is refused as before, or finds what it would have found at the end: the
    /// segment of the cut ends at the damage before what lies behind goes, and what is left of that does not follow on it.
    pub(super) fn perform(
        &self,
        survey: &Survey,
        directory: &dyn Directory,
        backup: &dyn Directory,
    ) -> Result<(), OpenError> {
        for &number in &self.unsealed {
            let file = &survey.files[number];
            // First of all, and for good: a trailer would vouch for frames that are gone.
            erase(file, file.frames_end()..file.header.segment_bytes, backup)?;
        }
        if let Some(place) = self.cut {
            let file = &survey.files[place.number];
            erase(file, place.offset..file.header.segment_bytes, backup)?;
        }
        remove_one_by_one(directory, self.removed.iter().rev().copied().map(file_name))
    }
}

/// Zeros, durably, and the beginning before the rest: zeros can make a damaged frame whole. After a failed sync they could be in
/// the cache only, and the log look whole: so the damage is shown again, and the next repair writes them anew.
fn erase(file: &SegmentFile, range: Range<u64>, backup: &dyn Directory) -> Result<(), OpenError> {
    let zeros = |range: Range<u64>| {
        let written = zero(file, range.clone()).and_then(|()| sync_file(file));
        // That it failed is what the caller has to know.
        written.inspect_err(|_| drop(put_back(file, range, backup)))
    };
    let first = beginning(&range);
    zeros(first.clone())?;
    // The beginning stays away whatever fails here: it shows the damage, too.
    zeros(first.end..range.end)
}

/// Writes what the backup has of a range, as much of it as the disk takes.
fn put_back(file: &SegmentFile, range: Range<u64>, backup: &dyn Directory) -> io::Result<()> {
    let copy = backup.open(&file.name())?;
    let mut bytes = vec![0; usize::try_from(PAGE_BYTES).expect("4096 fits")];
    let mut put = |offset: u64| {
        let step = (range.end - offset).min(PAGE_BYTES);
        let bytes = &mut bytes[..usize::try_from(step).expect("at most a page")];
        copy.read_at(offset, bytes)?;
        file.file.write_at(offset, &[bytes])
    };
    // What one page is refused another one may not be.
    let step = usize::try_from(PAGE_BYTES).expect("4096 fits");
    range.clone().step_by(step).map(&mut put).fold(Ok(()), Result::and)
}

/// Makes durable what an earlier cut has left. If a sync of it failed and a kill followed, its zeros are in the cache only, on
/// pages that count as clean, and a sync alone would do nothing: so all that it can have erased is written over itself.
pub(super) fn write_again(survey: &Survey) -> Result<(), OpenError> {
    for (number, file) in survey.files.iter().enumerate() {
        let start = match survey.resume {
            Some((end, offset)) if end == number => offset,
            _ if file.trailer.is_some() => continue,
            _ => file.frames_end(),
        };
        rewrite(file, start..file.header.segment_bytes)?;
    }
    survey.files.iter().try_for_each(sync_file)
}

/// Makes the bytes of a segment durable.
fn sync_file(file: &SegmentFile) -> Result<(), OpenError> {
    file.file.sync().map_err(|source| io_error("sync", &file.name(), source))
}

/// Where the first damaged frame lies among the segments that are needed, `None` if all are whole; `Err` in the inner result
/// says why nothing can be kept before it.
fn find_cut(survey: &Survey) -> Result<Result<Option<Place>, String>, OpenError> {
    let Some(newest) = survey.newest else {
        return Ok(Err("no segment begins whole".to_owned()));
    };
    let live = survey.live_numbers();
    let needed: Vec<usize> = (0..=newest)
        .filter(|&number| live.contains(survey.files[number].header.sequence))
        .collect();
    let sequence = |number: usize| survey.files[number].header.sequence;
    let runs = needed.chunk_by(|&a, &b| a + 1 == b && sequence(a) + 1 == sequence(b));
    let (mut before, mut next) = (None, 0);
    for run in runs {
        let files = &survey.files[run[0]..=run[run.len() - 1]];
        if live.has_any(next..sequence(run[0])) {
            let missing = "the oldest segment that the log needs is missing or cannot be read";
            return Ok(before.map(Some).ok_or_else(|| missing.to_owned()));
        }
        let Ok(opening) = read_opening(&files[0], None)? else {
            let damaged = "the oldest segment that the log needs does not begin whole";
            return Ok(before.map(Some).ok_or_else(|| damaged.to_owned()));
        };
        let restored = Catalog::restore(sequence(run[0]), opening.checkpoint.clone());
        let mut gathered = Gathered::new(restored);
        let end = gathered.walk(files, opening)?;
        if let Some(place) = contradicted(&gathered, run[0]) {
            return Ok(Ok(Some(place)));
        }
        let place = Place::of(&end, run[0]);
        let is_newest = run[run.len() - 1] == newest;
        let sealed_end = files[end.number].trailer.map(|trailer| trailer.end());
        let is_whole = match is_newest {
            true => end.lsn >= survey.attested && survey.is_end_known(),
            // Behind a gap nothing but a trailer vouches for the last frame before it.
            false => sealed_end == Some(end.lsn),
        };
        if end.number + 1 < files.len() || !is_whole {
            return Ok(Ok(Some(place)));
        }
        (before, next) = (Some(place), sequence(run[run.len() - 1]) + 1);
    }
    Ok(Ok(None))
}

/// The end of the segment before the first whose checkpoint says something else than the frames before it.
fn contradicted(gathered: &Gathered, first: usize) -> Option<Place> {
    let named = &gathered.damage.first()?.segment;
    let number = gathered.segments.iter().position(|segment| segment.name() == *named)?;
    let before: &Segment = gathered.segments.get(number.checked_sub(1)?)?;
    let offset = before.last?.frames_end;
    Some(Place { number: first + number - 1, offset, lsn: before.lsn(offset) })
}

/// A file as it will be: zeros from `end` on.
#[derive(Debug)]
struct Shortened {
    file: Arc<dyn File>,
    end: u64,
}

impl File for Shortened {
    fn len(&self) -> u64 {
        self.file.len()
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.file.read_at(offset, into)?;
        let kept = usize::try_from(self.end.saturating_sub(offset)).unwrap_or(usize::MAX);
        into.iter_mut().skip(kept).for_each(|byte| *byte = 0);
        Ok(())
    }

    fn write_at(&self, _offset: u64, _parts: &[&[u8]]) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn publish(&self, _end: u64) {}

    fn view(self: Arc<Self>, _range: Range<u64>) -> io::Result<Bytes> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
