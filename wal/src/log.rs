//! One log of the stream: appending, cutting, reading.

use std::{ops::Range, sync::Arc};

use byteorder::{ByteOrder, LittleEndian};
use bytes::Bytes;

use crate::{
    AppendError, Bounds, Entries, Follow, FollowError, LogId, Lsn, Pending, Wal,
    catalog::{Change, LogCatalog, Plan},
    core::{Need, too_large},
    frame::{COUNT_MAX, FrameKind, Header},
    index::FRAME_BYTES,
    segment::{entry_bytes_max, state_bytes_max},
};

/// One log; made by [`Wal::log`]. Cheap to clone; all clones are one log.
#[derive(Clone, Debug)]
pub struct Log {
    wal: Wal,
    id: LogId,
}

impl Log {
    pub(crate) fn new(wal: Wal, id: LogId) -> Self {
        Self { wal, id }
    }

    /// The log's id.
    pub fn id(&self) -> LogId {
        self.id
    }

    /// Appends entries with consecutive indexes from `first_index` on, all of `term`. A first index at or below the last
    /// one replaces the suffix. All are readable when this returns, and durable when the `Pending` resolves. Never blocks.
    ///
    /// # Errors
    /// `Empty`, `TooLarge`, `Gap`, `Compacted`, `Beyond` if the last index would be too large, `TermDecreases`, `Full`,
    /// `LogFull`, `CheckpointTooLarge`, `NoSpace`, `TooManyFiles`, `Wal`; nothing was taken.
    pub fn append(
        &self,
        first_index: u64,
        term: u64,
        entries: &[Bytes],
    ) -> Result<Pending, AppendError> {
        self.append_at(Some(first_index), Some(term), entries).map(|(_, pending)| pending)
    }

    /// Appends one entry after the last with the last term; for users without Raft. Returns its index.
    ///
    /// # Errors
    /// As for [`Log::append`].
    pub fn push(&self, bytes: impl Into<Bytes>) -> Result<(u64, Pending), AppendError> {
        self.append_at(None, None, &[bytes.into()])
    }

    fn append_at(
        &self,
        first: Option<u64>,
        term: Option<u64>,
        entries: &[Bytes],
    ) -> Result<(u64, Pending), AppendError> {
        let limit = entry_bytes_max(self.wal.core().segment_bytes);
        if frame_count(entries, limit)? == entries.len() {
            let (mut stack, mut heap) = ([0; STACK_BYTES], Vec::new());
            let head = match stack.get_mut(..head_bytes(entries)) {
                Some(head) => head,
                None => {
                    heap.resize(head_bytes(entries), 0);
                    &mut heap[..]
                }
            };
            return self.append_frames(first, term, &[EntriesFrame::new(entries, head)]);
        }
        let (mut parts, mut rest) = (Vec::new(), entries);
        while !rest.is_empty() {
            let (part, more) = rest.split_at(frame_count(rest, limit)?);
            parts.push((part, vec![0; head_bytes(part)]));
            rest = more;
        }
        let frames: Vec<EntriesFrame<'_>> =
            parts.iter_mut().map(|(part, head)| EntriesFrame::new(part, head)).collect();
        self.append_frames(first, term, &frames)
    }

    fn append_frames(
        &self,
        first: Option<u64>,
        term: Option<u64>,
        frames: &[EntriesFrame<'_>],
    ) -> Result<(u64, Pending), AppendError> {
        let core = self.wal.core();
        let count = frames.iter().map(|frame| u64::from(frame.header.count)).sum();
        let mut state = core.lock_open()?;
        let plan = state.catalog.plan_append(self.id, first, term, count)?;
        let Plan { first, term, growth, mut index_bytes } = plan;
        let sizes = frames.iter().map(|frame| frame.header.frame_bytes());
        core.check_room(
            &mut state,
            sizes,
            Need { index_bytes: Some(index_bytes), growth, kept_bytes: 0 },
        )?;
        let mut next = first;
        for EntriesFrame { header, head, entries } in frames {
            let header = Header { log: self.id, first_index: next, term, ..*header };
            state.put_entries(&header, head, entries, index_bytes);
            next += u64::from(header.count);
            index_bytes = FRAME_BYTES;
        }
        state.statistics.entries_appended += count;
        let end = state.stream.end();
        core.appended(state);
        Ok((first, Pending::new(Arc::clone(core), end)))
    }

    /// Replaces the log's state: opaque bytes beside the entries, in one order with them. At most 4 KiB, and an eighth
    /// of a segment.
    ///
    /// # Errors
    /// `TooLarge`, `CheckpointTooLarge`, `Full`, `NoSpace`, `TooManyFiles`, `Wal`; nothing was taken.
    pub fn set_state(&self, state: impl Into<Bytes>) -> Result<Pending, AppendError> {
        // A copy: the caller's buffer may be a small part of a large one.
        let state = Bytes::copy_from_slice(&state.into());
        let (bytes, limit) = (state.len() as u64, state_bytes_max(self.wal.core().segment_bytes));
        if bytes > limit {
            return Err(too_large(bytes, limit));
        }
        let header = Header::new(FrameKind::State, self.id, &state);
        self.upkeep(|_| Ok(Some((Change::State(state.clone()), header))), &state)
    }

    /// The state that was set last, durable or not.
    pub fn state(&self) -> Option<Bytes> {
        self.look(|log| log.bounds.state.clone()).flatten()
    }

    /// Cuts all entries after `last`. Nothing happens if there are none.
    ///
    /// # Errors
    /// `Compacted` if `last` is below the entry before the first; `Full`, `NoSpace`, `TooManyFiles`, `Wal`; nothing was taken.
    pub fn truncate_after(&self, last: u64) -> Result<Pending, AppendError> {
        self.upkeep(
            |bounds| {
                if last >= bounds.last {
                    return Ok(None);
                }
                Ok(Some(self.frame(FrameKind::Truncate, Change::Truncate { first: last + 1 })))
            },
            &[],
        )
    }

    /// Drops all entries before `first`, keeping the term of the last of them. Nothing happens if there are none.
    ///
    /// # Errors
    /// `Beyond` if `first` is beyond the last index plus one; `Full`, `NoSpace`, `TooManyFiles`, `Wal`; nothing was taken.
    pub fn compact_before(&self, first: u64) -> Result<Pending, AppendError> {
        self.upkeep(
            |bounds| {
                if first <= bounds.first {
                    return Ok(None);
                }
                let Some(term_before) = bounds.term(first - 1) else {
                    return Err(AppendError::Beyond { index: first, limit: bounds.last + 1 });
                };
                Ok(Some(self.frame(FrameKind::Compact, Change::Compact { first, term_before })))
            },
            &[],
        )
    }

    /// Drops all entries and goes on at `next_index`, after an entry of `term_before`. Keeps the state, allows a gap.
    ///
    /// # Errors
    /// `Compacted` if `next_index` is 0; `CheckpointTooLarge` of a log that is not there yet; `Full`, `NoSpace`,
    /// `TooManyFiles`, `Wal`; nothing was taken.
    pub fn reset(&self, next_index: u64, term_before: u64) -> Result<Pending, AppendError> {
        let change = Change::Reset { next: next_index, term_before };
        self.upkeep(|_| Ok(Some(self.frame(FrameKind::Reset, change))), &[])
    }

    /// Drops the log with its entries and its state; an append begins it anew at index 1.
    ///
    /// # Errors
    /// `CheckpointTooLarge` of a log that is not there; `Full`, `NoSpace`, `TooManyFiles`, `Wal`; nothing was taken.
    pub fn forget(&self) -> Result<Pending, AppendError> {
        self.upkeep(|_| Ok(Some(self.frame(FrameKind::Forget, Change::Forget))), &[])
    }

    fn upkeep(
        &self,
        plan: impl FnOnce(&Bounds) -> Result<Option<(Change, Header)>, AppendError>,
        body: &[u8],
    ) -> Result<Pending, AppendError> {
        let core = self.wal.core();
        let end = core.append_upkeep(self.id, plan, body)?;
        Ok(Pending::new(Arc::clone(core), end))
    }

    /// A change that needs no body, with the header that carries it.
    fn frame(&self, kind: FrameKind, change: Change) -> (Change, Header) {
        let (first_index, term) = match change {
            Change::Truncate { first } => (first, 0),
            Change::Compact { first, term_before } => (first, term_before),
            Change::Reset { next, term_before } => (next, term_before),
            _ => (0, 0),
        };
        let header = Header { first_index, term, ..Header::new(kind, self.id, &[]) };
        (change, header)
    }

    /// First index in the log; `last + 1` when it is empty.
    pub fn first(&self) -> u64 {
        self.look(|log| log.bounds.first).unwrap_or(1)
    }

    /// Last index in the log; `first - 1` when it is empty.
    pub fn last(&self) -> u64 {
        self.look(|log| log.bounds.last).unwrap_or(0)
    }

    /// Term of an entry in the log, or of the one before the first. Reads no entry.
    pub fn term(&self, index: u64) -> Option<u64> {
        match self.look(|log| log.bounds.term(index)) {
            Some(term) => term,
            None => (index == 0).then_some(0),
        }
    }

    /// First index and term of each run of entries with one term, ascending.
    pub fn runs(&self) -> Vec<(u64, u64)> {
        self.look(|log| log.bounds.runs.to_vec()).unwrap_or_default()
    }

    /// The entries of `range` in order, durable or not, until `bytes_max` is passed; at least one. Ends early at the
    /// log's end, and where the log is cut while it is read, with the frame that is being read at that moment.
    pub fn read(&self, range: Range<u64>, bytes_max: usize) -> Entries {
        Entries::new(self.wal.clone(), self.id, range, bytes_max)
    }

    /// Follows the log from index `from` on, `last + 1` at most: every entry that becomes durable, once and in order, and
    /// what cuts entries off again.
    ///
    /// # Errors
    /// `Compacted` if `from` is below the first index or beyond the end.
    pub fn follow(&self, from: u64) -> Result<Follow, FollowError> {
        Follow::new(self.wal.clone(), self.id, from)
    }

    /// Calls `callback` once when an append that was `Full`, `NoSpace` or `TooManyFiles` is worth another try: on a thread
    /// of the log or of another waiter, or here; with no lock held.
    pub fn on_room(&self, callback: impl FnOnce() + Send + 'static) {
        self.wal.core().on_room(Box::new(callback));
    }

    fn look<T>(&self, look: impl FnOnce(&LogCatalog) -> T) -> Option<T> {
        self.wal.core().state.lock().catalog.log(self.id).map(look)
    }
}

/// A frame of entries, all but its place and number made before the lock is taken.
struct EntriesFrame<'a> {
    header: Header,
    /// What the body begins with: the table, and behind it the bytes of small entries, gathered to be checksummed and copied at
    /// once.
    head: &'a [u8],
    /// Entries whose bytes are not gathered.
    entries: &'a [Bytes],
}

/// How many of `entries` go into the first frame, which is bounded by the count that fits its header and by the size of one
/// largest entry.
fn frame_count(entries: &[Bytes], entry_bytes_max: u64) -> Result<usize, AppendError> {
    if entries.is_empty() {
        return Err(AppendError::Empty);
    }
    let mut payload = 0;
    for (number, entry) in entries.iter().enumerate() {
        let bytes = entry.len() as u64;
        if bytes > entry_bytes_max {
            return Err(too_large(bytes, entry_bytes_max));
        }
        // The table counts, so that many empty entries are no larger frame than one large one.
        if number > 0 && (payload + bytes + 4 > entry_bytes_max || number == COUNT_MAX) {
            return Ok(number);
        }
        payload += bytes + 4;
    }
    Ok(entries.len())
}

/// Length of a frame's head: the table, and its entries' bytes if they are gathered. To copy many small ones once more costs
/// less than to checksum each by itself; a few are not worth it, since what was just written in pieces is slow to read.
fn head_bytes(entries: &[Bytes]) -> usize {
    let table = entries.len() * 4;
    if entries.len() < GATHERED_MIN {
        return table;
    }
    let bytes: usize = entries.iter().map(Bytes::len).sum();
    if bytes / entries.len() <= GATHERED_BYTES_MAX { table + bytes } else { table }
}

impl<'a> EntriesFrame<'a> {
    /// Of `entries`; `head`, of the length that they need, is written.
    fn new(entries: &'a [Bytes], head: &'a mut [u8]) -> Self {
        let (table, mut gathered) = head.split_at_mut(entries.len() * 4);
        let mut end = 0;
        for (entry, place) in entries.iter().zip(table.chunks_exact_mut(4)) {
            end += u32::try_from(entry.len()).expect("a frame is bounded by the largest entry");
            LittleEndian::write_u32(place, end);
        }
        let is_gathered = !gathered.is_empty();
        if is_gathered {
            for entry in entries {
                let (place, rest) = gathered.split_at_mut(entry.len());
                place.copy_from_slice(entry);
                gathered = rest;
            }
        }
        let count = u16::try_from(entries.len()).expect("at most 65535 entries");
        let entries = if is_gathered { &[] } else { entries };
        let mut crc = crc32fast::Hasher::new();
        crc.update(head);
        entries.iter().for_each(|entry| crc.update(entry));
        let header = Header {
            link: 0,
            body_crc: crc.finalize(),
            body_len: u32::from(count) * 4 + end,
            kind: FrameKind::Entries,
            closed: false,
            count,
            log: LogId(0),
            first_index: 0,
            term: 0,
            durable_lsn: Lsn(0),
        };
        Self { header, head, entries }
    }
}

/// A head that fits is made on the stack: an append of a few entries allocates nothing.
const STACK_BYTES: usize = 64;
/// So many entries of so many bytes on average are gathered.
const GATHERED_BYTES_MAX: usize = 256;
const GATHERED_MIN: usize = 8;
