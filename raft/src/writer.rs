//! The protocol's writes on their way into the log, in order.

use std::{
    collections::VecDeque,
    io::{self, ErrorKind},
    sync::Arc,
};

use bytes::Bytes;
use kontiki_core::{Batch, Entry, LogIndex, Position, State, WriteSeq};
use kontiki_disk::is_too_many_files;
use kontiki_wal::{AppendError, Log, Pending};
use rustix::io::Errno;

use crate::{
    Event,
    inbox::Completion,
    shared::Shared,
    storage::{self, Storage},
};

/// Hands writes to the log. When the log is full it keeps them until there is room: a write is
/// never skipped and never overtaken. What is applied meanwhile waits for none of them: it is in
/// memory, or durable in the log already.
pub(crate) struct Writer {
    shared: Arc<Shared>,
    log: Log,
    /// The log's directory, for people.
    place: String,
    kept: VecDeque<Write>,
    /// Why what is kept can not be written, while the disk refuses a place for it. Nobody tells
    /// when that ends.
    held: Option<Arc<str>>,
    /// A quarter of a segment, which is also the bound of a single entry.
    piece_bytes_max: usize,
    /// The payloads of one append; kept for its capacity.
    payloads: Vec<Bytes>,
}

/// What is done to the whole log before a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Its entries up to there go.
    Compact { last: LogIndex },
    /// All go, and it goes on behind that.
    Reset { at: Position },
}

/// One write of the protocol, and how much of it the log has taken.
struct Write {
    /// Who waits for it, if somebody does.
    seq: Option<WriteSeq>,
    change: Option<Change>,
    state: Option<State>,
    entries: Batch,
    appended: usize,
    /// Durability of what was taken last; covers all before it.
    pending: Option<Pending>,
}

impl Write {
    /// Whether the log will hold something else up to `last` than it does now.
    fn changes_up_to(&self, last: LogIndex) -> bool {
        let next = self.entries.entries().get(self.appended);
        matches!(self.change, Some(Change::Reset { .. }))
            || next.is_some_and(|entry| entry.index <= last)
    }
}

/// Why the log did not take a write.
enum Refusal {
    /// It will take it later.
    Full,
    /// The disk gives it no further segment; it may later, without saying so.
    Held(Arc<io::Error>),
    Fatal(String),
}

impl Writer {
    pub(crate) fn new(shared: Arc<Shared>, storage: &Storage) -> Self {
        let piece_bytes_max = shared.options.entry_bytes_max();
        Self {
            shared,
            log: storage.log.clone(),
            place: storage.place.clone(),
            kept: VecDeque::new(),
            held: None,
            piece_bytes_max,
            payloads: Vec::new(),
        }
    }

    /// Begins a write; its completion comes to the inbox.
    ///
    /// # Errors
    /// The log can not go on, or broke its contract: the node must stop.
    pub(crate) fn write(
        &mut self,
        seq: WriteSeq,
        state: Option<State>,
        entries: Batch,
    ) -> Result<(), String> {
        self.push(Some(seq), None, state, entries)
    }

    /// Begins a change of the whole log, and the write that comes with it, if one does.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub(crate) fn change(
        &mut self,
        change: Change,
        with: Option<(WriteSeq, State)>,
    ) -> Result<(), String> {
        let (seq, state) = with.unzip();
        // What is kept may wait for the very room that this makes. It passes by that as long as the log holds all that goes, as the
        // protocol has it: it is not to begin anew, and none of that is to be replaced.
        if let Change::Compact { last } = change
            && last.0 <= self.log.last()
            && !self.kept.iter().any(|write| write.changes_up_to(last))
        {
            match self.log.compact_before(last.0 + 1).map_err(refusal) {
                Ok(_) => return Ok(()),
                Err(Refusal::Fatal(cause)) => return Err(cause),
                Err(_) => {}
            }
        }
        self.push(seq, Some(change), state, Batch::default())
    }

    fn push(
        &mut self,
        seq: Option<WriteSeq>,
        change: Option<Change>,
        state: Option<State>,
        entries: Batch,
    ) -> Result<(), String> {
        let write = Write { seq, change, state, entries, appended: 0, pending: None };
        let was_clear = self.kept.is_empty();
        self.kept.push_back(write);
        if was_clear { self.resume() } else { Ok(()) }
    }

    /// True if nothing is kept back: everything the protocol has written is in the log.
    #[cfg(test)]
    pub(crate) fn is_clear(&self) -> bool {
        self.kept.is_empty()
    }

    /// True if [`resume`](Self::resume) must be called by a timer.
    pub(crate) fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// Goes on with what is kept, as far as the log takes it.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub(crate) fn resume(&mut self) -> Result<(), String> {
        while let Some(mut write) = self.kept.pop_front() {
            match self.append(&mut write) {
                Ok(()) => {}
                Err(Refusal::Fatal(cause)) => return Err(cause),
                Err(refusal) => {
                    self.kept.push_front(write);
                    self.ask_for_room(refusal);
                    return Ok(());
                }
            }
        }
        self.hold(None);
        Ok(())
    }

    /// Appends what is left of a write in pieces: entries of one term that fit any segment.
    fn append(&mut self, write: &mut Write) -> Result<(), Refusal> {
        if let Some(change) = write.change {
            let changed = match change {
                Change::Compact { last } => self.log.compact_before(last.0 + 1),
                Change::Reset { at } => self.log.reset(at.index.0 + 1, at.term.0),
            };
            write.pending = Some(changed.map_err(refusal)?);
            write.change = None;
        }
        if let Some(state) = &write.state {
            write.pending = Some(self.log.set_state(state.encode()).map_err(refusal)?);
            write.state = None;
        }
        while let Some(first) = write.entries.entries().get(write.appended) {
            let rest = &write.entries.entries()[write.appended..];
            let mut bytes = 0;
            let fits = |entry: &&Entry| {
                bytes += entry.bytes();
                entry.term == first.term
                    && (entry.index == first.index || bytes <= self.piece_bytes_max)
            };
            let count = rest.iter().take_while(fits).count();
            storage::payloads(&rest[..count], &mut self.payloads);
            let pending = self.log.append(first.index.0, first.term.0, &self.payloads);
            self.payloads.clear();
            write.pending = Some(pending.map_err(refusal)?);
            write.appended += count;
        }
        // Its last part is durable after all others.
        let last = write.pending.take().expect("a write has a change, a state or entries");
        let (shared, Some(seq)) = (self.shared.clone(), write.seq) else { return Ok(()) };
        last.on_durable(move |result| shared.inbox.complete(Completion::Written(seq, result)));
        Ok(())
    }

    fn ask_for_room(&mut self, refusal: Refusal) {
        if let Refusal::Held(error) = refusal {
            return self.hold(Some(held_text(&self.place, &error).into()));
        }
        self.hold(None);
        let shared = self.shared.clone();
        self.log.on_room(move || shared.inbox.complete(Completion::Room));
    }

    /// Notes whether the disk holds writes up, and says it when that changes.
    fn hold(&mut self, held: Option<Arc<str>>) {
        if self.held == held {
            return;
        }
        let (node, shared) = (self.shared.id, &self.shared);
        shared.board.update(|status| status.writes_held = held.clone());
        shared.events.tell(match &held {
            Some(cause) => {
                tracing::error!(node, %cause, "writes wait until the disk takes them again");
                Event::WritesHeld { cause: cause.clone() }
            }
            None => {
                tracing::warn!(node, "the disk takes writes again");
                Event::WritesResumed
            }
        });
        self.held = held;
    }
}

/// What keeps the log from growing, in the disk's own words, and what to do: it is not always full.
fn held_text(place: &str, error: &io::Error) -> String {
    let (what, advice) = match error.kind() {
        ErrorKind::StorageFull => ("the disk is full: ", "make room there"),
        ErrorKind::QuotaExceeded => ("the quota is used up: ", "make room, or raise the quota"),
        ErrorKind::NotFound => ("", "put the directory back as it was"),
        _ if error.raw_os_error() == Some(Errno::NFILE.raw_os_error()) => {
            ("", "raise the system's limit of open files (fs.file-max)")
        }
        _ if is_too_many_files(error) => ("", "raise the limit of open files (ulimit -n)"),
        _ => ("", "see to the cause, then it goes on by itself"),
    };
    format!("{what}cannot make the next segment in {place}: {error}; {advice}")
}

fn refusal(error: AppendError) -> Refusal {
    match error {
        AppendError::Full { .. } => Refusal::Full,
        AppendError::NoSpace { source } | AppendError::TooManyFiles { source } => {
            Refusal::Held(source)
        }
        error => Refusal::Fatal(format!("the log refused a write: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use kontiki_core::{HardState, LogIndex, Term};
    use kontiki_disk::memory::{Kind, MemoryDisk};

    use super::*;
    use crate::{Options, inbox::Arrivals, storage::Storage};

    fn batch(first: u64, count: u64, term: u64) -> Batch {
        let entry = |index| Entry {
            index: LogIndex(index),
            term: Term(term),
            payload: Entry::encode_command(&[7; 2 << 10]),
        };
        (first..first + count).map(entry).collect::<Vec<_>>().into()
    }

    #[test]
    fn whatever_keeps_the_next_segment_from_being_made_the_line_says_what_to_do() {
        for (error, what, advice) in [
            (Errno::NOSPC, "the disk is full: ", "make room there"),
            (Errno::DQUOT, "the quota is used up: ", "raise the quota"),
            (Errno::NOENT, "cannot make", "put the directory back"),
            (Errno::MFILE, "cannot make", "(ulimit -n)"),
            (Errno::NFILE, "cannot make", "(fs.file-max)"),
            (Errno::ACCESS, "cannot make", "see to the cause"),
            (Errno::ROFS, "cannot make", "see to the cause"),
            (Errno::IO, "cannot make", "see to the cause"),
        ] {
            let line = held_text("d/wal", &error.into());
            assert!(line.starts_with(what) && line.contains(advice), "{line}");
            assert!(line.contains(&io::Error::from(error).to_string()), "{line}");
        }
    }

    /// RAFT-CASE 6: a log that is full takes the state of a write before its entries, later.
    #[test]
    fn a_new_term_reaches_a_full_log_before_the_entries_that_were_accepted_in_it() {
        let disk = MemoryDisk::new();
        let options = Options { unsynced_bytes_max: 64 << 10, ..Options::default() };
        let used = Arc::new(disk.clone());
        let storage = Storage::open(Path::new("d"), 1, &options, Some(used)).unwrap();
        let (shared, log) = (Arc::new(Shared::new(1, &options, &storage)), &storage.log);
        let mut writer = Writer::new(shared.clone(), &storage);
        // Of the log's threads two sync.
        let gates = [1, 2].map(|nth| disk.hold(Kind::Sync, nth));
        let (mut seq, mut last) = (0, 0);
        while writer.is_clear() {
            seq += 1;
            writer.write(WriteSeq(seq), None, batch(last + 1, 8, 1)).unwrap();
            last += 8;
        }
        let term_of_state = || {
            let state = State::decode(&log.state().unwrap()).unwrap().unwrap();
            state.hard.term
        };
        let hard = HardState { term: Term(9), vote: None };
        let state = State { hard, ..storage.state.clone() };
        writer.write(WriteSeq(seq + 1), Some(state), batch(last + 1, 40, 9)).unwrap();
        assert_eq!(term_of_state(), Term(0), "it waits behind what waits");

        drop(gates);
        let mut newest = 0;
        while newest <= seq {
            shared.inbox.wait_until(None);
            let mut arrivals = Arrivals::default();
            shared.inbox.take(&mut arrivals);
            for completion in arrivals.completions {
                match completion {
                    Completion::Written(WriteSeq(seq), Ok(())) => newest = seq.max(newest),
                    Completion::Room => writer.resume().unwrap(),
                    other => panic!("{other:?}"),
                }
                let newest = log.term(log.last()).unwrap();
                assert!(newest < 9 || term_of_state() == Term(9), "the entries came first");
            }
        }
        assert!(writer.is_clear());
        assert_eq!((log.last(), term_of_state()), (last + 40, Term(9)));
    }

    /// A writer that the disk gives no further segment; more than 100 entries are in the log, and those behind are kept.
    struct Held {
        disk: MemoryDisk,
        shared: Arc<Shared>,
        log: Log,
        writer: Writer,
        seq: u64,
    }

    impl Held {
        fn new() -> Self {
            let options = Options {
                segment_bytes: 64 << 10,
                command_bytes_max: 4 << 10,
                ..Options::default()
            };
            let disk = MemoryDisk::new();
            let used = Arc::new(disk.clone());
            let storage = Storage::open(Path::new("d"), 1, &options, Some(used)).unwrap();
            let shared = Arc::new(Shared::new(1, &options, &storage));
            let writer = Writer::new(shared.clone(), &storage);
            let mut held = Self { disk, shared, log: storage.log, writer, seq: 0 };
            while held.log.last() < 100 {
                held.write(held.seq * 4 + 1, 1);
                held.clear();
            }
            held.disk.set_capacity(Some(0));
            while !held.writer.is_held() {
                held.write(held.seq * 4 + 1, 1);
                held.hear();
            }
            held
        }

        fn write(&mut self, first: u64, term: u64) {
            self.seq += 1;
            self.writer.write(WriteSeq(self.seq), None, batch(first, 4, term)).unwrap();
        }

        /// What the log says by itself, while it goes on.
        fn hear(&mut self) {
            let mut arrivals = Arrivals::default();
            self.shared.inbox.wait_until(std::time::Instant::now().checked_add(QUICK));
            self.shared.inbox.take(&mut arrivals);
            self.writer.resume().unwrap();
        }

        fn clear(&mut self) {
            while !self.writer.is_clear() {
                self.hear();
            }
        }
    }

    /// Else a full disk would stay full: what is held waits for a segment that only the compaction frees.
    #[test]
    fn a_compaction_passes_by_what_waits_for_the_room_that_it_makes() {
        let mut held = Held::new();
        let last = held.log.last();
        held.writer.change(Change::Compact { last: LogIndex(90) }, None).unwrap();
        assert_eq!(held.log.first(), 91, "at once");
        held.clear();
        assert!(held.log.last() > last, "what was held goes into what was freed");
    }

    /// Found by a reader: a peer's image contained what a write that was kept was to replace, and the log then refused that.
    #[test]
    fn a_compaction_does_not_pass_by_a_write_that_replaces_what_it_drops() {
        let mut held = Held::new();
        held.write(81, 2);
        held.writer.change(Change::Compact { last: LogIndex(83) }, None).unwrap();
        assert_eq!((held.log.first(), held.log.term(80)), (1, Some(1)));
        held.disk.set_capacity(None);
        held.clear();
        assert_eq!((held.log.first(), held.log.last(), held.log.term(83)), (84, 84, Some(2)));
    }

    const QUICK: std::time::Duration = std::time::Duration::from_millis(20);
}
