//! The frames that a writer appends behind a look at its log.

use std::{collections::BTreeSet, io, sync::Arc};

use kontiki_disk::Directory;

use crate::{
    Lsn, OpenError,
    inspect::{Frame, Frames},
    recovery::scan::{SegmentFile, Window, io_error},
    segment::{FRAMES_AT, sequence_of},
};

/// Goes on where a look at a log ended, frame by frame, as its writer appends; made by [`Scan::tail`](super::Scan::tail).
///
/// A directory that another process writes tells nobody that it has grown, least of all through a map. So there is nothing
/// to wait for: ask again after a while. That costs a few small reads.
#[derive(Debug)]
pub struct Tail {
    directory: Arc<dyn Directory>,
    file: SegmentFile,
    /// Where the next frame will lie, unless the segment is full.
    offset: u64,
    lsn: Lsn,
    /// `header_crc` of the frame before.
    link: u32,
}

/// What a look at the place of the next frame finds.
#[derive(Clone, Debug)]
pub enum Tailed {
    /// The next frame. It is whole; it need not be durable yet.
    Frame(Box<Frame>),
    /// There is no whole one yet.
    Nothing,
    /// What comes next was freed before it was read, or the log does not go on from the frame that was read last. Another
    /// [`Scan`](super::Scan) tells where it stands.
    Gone,
}

/// The segment after the one that is read.
enum Successor {
    /// It has a first frame.
    Begun(SegmentFile),
    /// It has none, or is not there.
    NotYet,
    /// It was freed, or the one that is read was removed.
    Gone,
}

impl Tail {
    pub(super) fn new(
        directory: Arc<dyn Directory>,
        file: SegmentFile,
        offset: u64,
        lsn: Lsn,
        link: u32,
    ) -> Self {
        Self { directory, file, offset, lsn, link }
    }

    /// Where the next frame will lie.
    pub fn lsn(&self) -> Lsn {
        self.lsn
    }

    /// The next frame, if there is one. Never waits.
    ///
    /// # Errors
    /// The disk's, a newer format, or a header page that is damaged.
    pub fn try_next(&mut self) -> Result<Tailed, OpenError> {
        if let Some(frame) = self.read()? {
            return Ok(Tailed::Frame(frame.into()));
        }
        match self.successor()? {
            Successor::Begun(next) => {
                // The writer may have filled this segment between the two looks.
                if let Some(frame) = self.read()? {
                    return Ok(Tailed::Frame(frame.into()));
                }
                (self.file, self.offset) = (next, FRAMES_AT);
                Ok(self.read()?.map_or(Tailed::Gone, |frame| Tailed::Frame(frame.into())))
            }
            Successor::NotYet if self.file.is_still_itself() => Ok(Tailed::Nothing),
            Successor::NotYet | Successor::Gone => Ok(Tailed::Gone),
        }
    }

    /// The whole frame that follows the last one in this segment. A body that is not whole may still be on its way.
    fn read(&mut self) -> Result<Option<Frame>, OpenError> {
        let mut frames = Frames {
            failed: false,
            file: &self.file,
            // A new window each time: an old one holds what was there before.
            window: Window::in_steps(&self.file, STEP_BYTES),
            base: Lsn(self.lsn.0 - (self.offset - FRAMES_AT)),
            offset: self.offset,
            link: Some(self.link),
        };
        let frame = frames.read()?.filter(|frame| frame.body.is_ok());
        if let (Some(frame), Some(link)) = (&frame, frames.link) {
            self.lsn = Lsn(frame.lsn.0 + frame.frame_bytes);
            (self.offset, self.link) = (frames.offset, link);
        }
        Ok(frame)
    }

    fn successor(&self) -> Result<Successor, OpenError> {
        let file = match SegmentFile::open(&*self.directory, self.file.header.sequence + 1) {
            Ok(file) => file,
            Err(OpenError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return self.unmade_successor();
            }
            // Damage, or a file that was used again under the look: another look tells them apart.
            Err(OpenError::Corruption(_)) => return Ok(Successor::Gone),
            Err(error) => return Err(error),
        };
        let first = Window::in_steps(&file, STEP_BYTES).frame(FRAMES_AT, None, None)?;
        let is_begun = first.is_ok_and(|found| found.fault.is_none());
        Ok(if is_begun { Successor::Begun(file) } else { Successor::NotYet })
    }

    /// The next segment was not there a moment ago: it is still to come, unless later ones are there without it.
    fn unmade_successor(&self) -> Result<Successor, OpenError> {
        let path = self.directory.path().display().to_string();
        let listed = self.directory.list().map_err(|source| io_error("list", &path, source))?;
        let there: BTreeSet<u64> =
            listed.iter().filter_map(|(name, _)| sequence_of(name)).collect();
        let current = self.file.header.sequence;
        let was_freed = !there.contains(&(current + 1)) && there.range(current + 2..).count() > 0;
        let is_gone = was_freed || !there.contains(&current);
        Ok(if is_gone { Successor::Gone } else { Successor::NotYet })
    }
}

/// Most frames are shorter.
const STEP_BYTES: u64 = 4 << 10;
