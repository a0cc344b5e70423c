//! The files of a log, one by one: how much is in each, and what it is to the log.

use std::ops::Range;

use kontiki_disk::Directory;

use crate::{
    Lsn, OpenError,
    recovery::scan::{SegmentFile, io_error},
    segment::{FRAMES_AT, PAGE_BYTES, file_name, is_spare, is_temporary},
};

/// One segment as it lies on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentSummary {
    /// Its file's name.
    pub file: String,
    /// Its sequence number.
    pub sequence: u64,
    /// LSN of its first frame; `None` if it does not begin as a segment with frames should, as one that was prepared and
    /// not used yet.
    pub base: Option<Lsn>,
    /// Bytes of its frames, up to the end of the log.
    pub used_bytes: u64,
    /// Length of its index, if it is sealed.
    pub index_bytes: u64,
    /// Length of its file.
    pub segment_bytes: u64,
    /// What it is to the log.
    pub standing: Standing,
}

impl SegmentSummary {
    /// Where no frame lies in its file: between its frames and the index, or the place of the trailer page. Nowhere, if it
    /// is damaged or unknown: frames can lie behind those that were read.
    pub fn free(&self) -> Range<u64> {
        let end = self.segment_bytes.saturating_sub(PAGE_BYTES + self.index_bytes);
        let is_known = !matches!(self.standing, Standing::Damaged | Standing::Unknown);
        if is_known { (FRAMES_AT + self.used_bytes).min(end)..end } else { end..end }
    }
}

/// What a segment's file is to the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Standing {
    /// Full, durable, and with its own index.
    Sealed,
    /// Full: the log goes on in the next one, and this one has no trailer that holds.
    Full,
    /// The one in which whole frames end.
    Active,
    /// Behind the end of the log: it waits for its first frame, or that is not whole.
    Prepared,
    /// Nothing needs it: a frame says so, or a writer has used its file again since it was listed.
    Freed,
    /// It is needed, and its frames cannot be walked, or not all of them.
    Damaged,
    /// Damage before it hides what it is: it has frames, and nothing whole tells where they belong.
    Unknown,
    /// No segment: the file of a freed one that waits to be used again.
    Spare,
    /// No segment yet: a file that gets its name once it is prepared.
    Preparing,
}

/// Bytes of a segment that damage keeps from being read.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unread {
    /// Name of the segment's file.
    pub file: String,
    /// The segment's sequence number.
    pub sequence: u64,
    /// Where they lie in the file: from the damage to where frames went at least, or to the end of the room for frames if
    /// nothing tells. The whole file, if its header page is damaged.
    pub bytes: Range<u64>,
    /// Where they begin in the stream, if that is known.
    pub lsn: Option<Lsn>,
    /// What keeps them from being read.
    pub why: &'static str,
}

impl Unread {
    /// No frame of the segment was read.
    pub(super) fn is_all_of(&self, file: &SegmentFile) -> bool {
        self.sequence == file.header.sequence && self.bytes.start <= FRAMES_AT
    }
}

/// The segments whose header page is damaged, by number and length of their files.
pub(super) fn without_page(segments: &[(u64, u64)]) -> impl Iterator<Item = SegmentSummary> + '_ {
    segments.iter().map(|&(sequence, segment_bytes)| SegmentSummary {
        file: file_name(sequence),
        sequence,
        base: None,
        used_bytes: 0,
        index_bytes: 0,
        segment_bytes,
        standing: Standing::Damaged,
    })
}

/// The files that wait to become a segment, but for those that were used meanwhile.
pub(super) fn spares(
    directory: &dyn Directory,
    segments: &[SegmentFile],
) -> Result<Vec<SegmentSummary>, OpenError> {
    let path = directory.path().display().to_string();
    let listed = directory.list().map_err(|source| io_error("list", &path, source))?;
    let spare = |(file, segment_bytes): (String, u64)| {
        let standing = match &file {
            name if is_spare(name) => Standing::Spare,
            name if is_temporary(name) => Standing::Preparing,
            _ => return None,
        };
        let sequence = u64::from_str_radix(file.split('.').next()?, 16).ok()?;
        let (base, used_bytes, index_bytes) = (None, 0, 0);
        Some(SegmentSummary {
            file,
            sequence,
            base,
            used_bytes,
            index_bytes,
            segment_bytes,
            standing,
        })
    };
    let is_listed = |sequence| segments.iter().any(|file| file.header.sequence == sequence);
    let spares = listed.into_iter().filter_map(spare);
    Ok(spares.filter(|spare| !is_listed(spare.sequence)).collect())
}
