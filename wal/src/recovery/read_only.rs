//! Opening a directory for reading: no lock, no change, and as much as can be shown.

use std::{collections::BTreeMap, io, path::Path, sync::Arc};

use kontiki_disk::Access;

use crate::{
    Corruption, Lsn, OpenError, Options,
    core::Core,
    header::SegmentHeader,
    mode::Mode,
    recovery::{
        look::{Depth, Look, settle},
        scan::io_error,
    },
    segment::{FRAMES_AT, Room, Segment},
    stream::{self, Stream},
};

/// Opens what is in `path` for reading, and what is damaged in it.
pub(crate) fn open_read_only(
    options: &Options,
    path: &Path,
) -> Result<(Core, Vec<Corruption>), OpenError> {
    let shown = path.display().to_string();
    let directory = options.disk_or_real().open_directory(path, Access::Read);
    let directory = directory.map_err(|source| io_error("open", &shown, source))?;
    let mut look = settle(&*directory, Depth::Newest)?;
    look.gathered.catalog.drop_missing(&look.older.spans);
    let header = match look.files.first() {
        Some(file) => file.header.clone(),
        None => return Err(no_log(&shown, &look.damage)),
    };
    let stream = stream(&header, &mut look);
    let core = Core::new(directory, options, look.gathered.catalog, stream, Mode::ReadOnly);
    Ok((core, look.damage))
}

fn stream(header: &SegmentHeader, look: &mut Look) -> Stream {
    let segments = look.older.segments.drain(..).chain(look.gathered.segments.drain(..));
    let mut segments: BTreeMap<u64, Segment> =
        segments.map(|segment| (segment.sequence, segment)).collect();
    if segments.is_empty() {
        let file = &look.files[0];
        let segment = Segment::new(&file.header, Lsn(0), Arc::clone(&file.file));
        segments.insert(segment.sequence, segment);
    }
    let offset = look.end.map_or(FRAMES_AT, |(_, offset)| offset);
    let segment_bytes = segments.last_key_value().map_or(0, |(_, segment)| segment.bytes);
    let room = Room { segment_bytes, offset, index_bytes: look.index_bytes };
    let end = stream::End {
        nonce: 0,
        room,
        last_crc: look.last_crc,
        attested: look.end_lsn,
        changed: look.end_lsn,
        closed: false,
        mark: None,
    };
    Stream::new(header, header.segment_bytes, segments, end)
}

fn no_log(directory: &str, damage: &[Corruption]) -> OpenError {
    match damage.first() {
        Some(corruption) => OpenError::Corruption(corruption.clone()),
        None => {
            io_error("open", directory, io::Error::new(io::ErrorKind::NotFound, "no log is there"))
        }
    }
}
