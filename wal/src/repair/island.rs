//! Frames behind a loss inside a segment: each is whole by itself, and lies where its checksum says.

use crate::{
    Lsn, OpenError,
    inspect::live::Replaced,
    recovery::scan::{SegmentFile, Window},
    segment::lsn_at,
};

/// Frames that follow on each other, behind some that are lost.
#[derive(Clone, Copy, Debug)]
pub(super) struct Island {
    /// Where the first of them begins in the file.
    pub(super) start: u64,
    /// Where the last one ends.
    pub(super) end: u64,
}

/// Those of a segment whose frames cannot be followed further than `from`, and went up to `whole_end`. What they replace goes
/// to `replaced`.
pub(super) fn islands(
    file: &SegmentFile,
    base: Lsn,
    from: u64,
    whole_end: Lsn,
    replaced: &mut Replaced,
) -> Result<Vec<Island>, OpenError> {
    let mut window = Window::new(file);
    let (mut islands, mut end) = (Vec::new(), from);
    Window::new(file).whole_headers(from + 8, |start, _| {
        // What lies in the body of a frame is none.
        if start < end {
            return Ok(());
        }
        let (mut offset, mut link) = (start, None);
        while lsn_at(base, offset) < whole_end
            && let Ok(found) = window.frame(offset, link, Some(lsn_at(base, offset)))?
        {
            replaced.take(lsn_at(base, offset), &found.header);
            (offset, link) = (offset + found.header.frame_bytes(), Some(found.crc));
        }
        if offset > start {
            islands.push(Island { start, end: offset });
            end = offset;
        }
        Ok(())
    })?;
    Ok(islands)
}
