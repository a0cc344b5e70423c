//! What lies behind the end of what can be read, as headers tell that are whole by themselves: entries that were in the log
//! and are in it no more.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    LogId, OpenError,
    catalog::Catalog,
    frame::{FrameKind, Header},
    recovery::scan::{Fault, SegmentFile, Window},
    repair::TermRun,
    segment::FRAMES_AT,
};

/// The entries of one log behind the end.
#[derive(Debug, Default)]
pub(super) struct Beyond {
    /// Those that are whole.
    pub(super) whole: Vec<TermRun>,
    /// Those that are damaged.
    pub(super) lost: Vec<TermRun>,
    /// First and last index of each run before one of these of which nothing is left.
    pub(super) unknown: Vec<(u64, u64)>,
    /// The index that follows on what is known of the log; `None` if anything can.
    next: Option<u64>,
}

/// All that is found behind the end.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) logs: BTreeMap<LogId, Beyond>,
    /// Logs that had a newer state.
    pub(super) states: BTreeSet<LogId>,
}

impl Found {
    /// Looks behind `offset` of the first of `files`, where the logs are those of `catalog`. `fault` is what was found in one
    /// of the files instead of a frame; its header is believed if a single flipped bit explains it.
    pub(super) fn behind(
        files: &[SegmentFile],
        offset: u64,
        fault: Option<&(usize, Fault)>,
        catalog: &Catalog,
    ) -> Result<Self, OpenError> {
        let mut found = Self::default();
        for (number, file) in files.iter().enumerate() {
            let start = if number == 0 { offset } else { FRAMES_AT };
            let fault = fault.filter(|fault| fault.0 == number).map(|fault| &fault.1);
            let mut damaged = fault.and_then(|fault| Some((fault.offset, fault.header?)));
            let (mut window, mut end) = (Window::new(file), start);
            Window::new(file).whole_headers(start, |at, header| {
                // What lies in the body of a frame is none.
                if at < end {
                    return Ok(());
                }
                let is_damaged = found.take_damaged(&mut damaged, at + 1, catalog) == Some(at);
                if !is_damaged {
                    let body = window.frame(at, None, None)?;
                    let is_whole = body.is_ok_and(|found| found.fault.is_none());
                    end = if is_whole { at + header.frame_bytes() } else { end };
                    found.take(header, is_whole, catalog);
                }
                Ok(())
            })?;
            found.take_damaged(&mut damaged, u64::MAX, catalog);
        }
        Ok(found)
    }

    /// Takes the frame that is damaged in its turn, if it lies before `end`; where that was.
    fn take_damaged(
        &mut self,
        damaged: &mut Option<(u64, Header)>,
        end: u64,
        catalog: &Catalog,
    ) -> Option<u64> {
        let (at, header) = damaged.take_if(|damaged| damaged.0 < end)?;
        self.take(&header, false, catalog);
        Some(at)
    }

    fn take(&mut self, header: &Header, is_whole: bool, catalog: &Catalog) {
        let log = header.log;
        let known =
            || Beyond { next: catalog.bounds(log).last.checked_add(1), ..Beyond::default() };
        match header.kind {
            FrameKind::State => {
                self.states.insert(log);
            }
            FrameKind::Reset => {
                self.logs.entry(log).or_insert_with(known).next = Some(header.first_index);
            }
            FrameKind::Forget => self.logs.entry(log).or_insert_with(known).next = None,
            _ => {
                let Some((first, last)) = header.indexes() else { return };
                let beyond = self.logs.entry(log).or_insert_with(known);
                if let Some(next) = beyond.next.filter(|&next| next < first) {
                    beyond.unknown.push((next, first - 1));
                }
                beyond.next = last.checked_add(1);
                let run = TermRun { first, last, term: header.term };
                push_run(if is_whole { &mut beyond.whole } else { &mut beyond.lost }, run);
            }
        }
    }
}

/// Appends a run, to the last one if it goes on there.
fn push_run(runs: &mut Vec<TermRun>, run: TermRun) {
    match runs.last_mut() {
        Some(last) if last.term == run.term && last.last.checked_add(1) == Some(run.first) => {
            last.last = run.last;
        }
        _ => runs.push(run),
    }
}

#[cfg(test)]
mod tests {
    use std::{path::Path, sync::Arc};

    use kontiki_disk::{Access, Disk, MemoryDisk};

    use crate::{
        LogId, Lsn, Wal,
        frame::{self, FrameKind, HEADER_BYTES, Header},
        inspect::{Frame, Scan},
        repair::{Diagnosis, TermRun},
    };

    const UUID: [u8; 16] = [7; 16];

    /// A closed log of four entries, of which the third is `payload`.
    fn written(payload: &[u8]) -> MemoryDisk {
        let disk = MemoryDisk::new();
        let options = Wal::options().segment_bytes(16 << 10).uuid(UUID).without_threads();
        let wal = options.disk(Arc::new(disk.clone())).open("log").unwrap();
        let log = wal.log(LogId(1)).unwrap();
        for entry in [b"one", b"two", payload, b"four"] {
            log.push(entry.to_vec()).unwrap().1.wait().unwrap();
        }
        wal.close().unwrap();
        disk
    }

    fn frames(disk: &MemoryDisk) -> Vec<Frame> {
        let scan = Scan::open_on(disk, "log").unwrap();
        let frames = scan.frames().map(Result::unwrap);
        frames.filter(|frame| frame.kind == FrameKind::Entries).collect()
    }

    /// An entry holds bytes that are a header of entries 50 to 59, whole at this very place.
    #[test]
    fn what_an_entry_holds_is_never_taken_for_a_frame() {
        const AT: u64 = HEADER_BYTES + 4 + 4;
        let place = frames(&written(&[0; 100]))[2].offset;
        let header = Header {
            link: 0,
            body_crc: 0,
            body_len: 0,
            kind: FrameKind::Entries,
            closed: false,
            count: 10,
            log: LogId(1),
            first_index: 50,
            term: 1,
            durable_lsn: Lsn(0),
        };
        let mut payload = [0; 100];
        payload[4..52].copy_from_slice(&header.encode(frame::salt(&UUID, 1), place + AT));
        let disk = written(&payload);
        let frames = frames(&disk);
        assert_eq!(frames[2].offset, place);
        let directory = disk.open_directory(Path::new("log"), Access::Write).unwrap();
        let file = directory.open(&frames[1].file).unwrap();
        file.write_at(frames[1].offset + 24, &[b"two bits and more"]).unwrap();
        drop((file, directory));
        let told = Diagnosis::of_on(&disk, "log").unwrap().salvage.remove(0);
        let run = |first, last| TermRun { first, last, term: 0 };
        assert_eq!((told.kept, told.lost, told.unknown), (vec![run(1, 1)], vec![], vec![(2, 2)]));
        assert_eq!(told.left_out, [run(3, 4)]);
    }
}
