//! What a log must hold: the same operations on plain vectors, and the real log seen the same way.

use std::{
    collections::BTreeMap,
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use bytes::Bytes;
use kontiki_wal::{AppendError, LogId, Pending, Wal};

/// Everything that one `Wal` holds, by log. A log without entries, state or history is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct World {
    logs: BTreeMap<LogId, Arc<LogModel>>,
}

/// One log.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct LogModel {
    /// Index of the first entry.
    pub first: u64,
    /// Term of the entry before the first.
    pub term_before: u64,
    /// Term and bytes of every entry.
    pub entries: Vec<(u64, Bytes)>,
    /// The state, once set.
    pub state: Option<Bytes>,
}

/// One operation on one log; the arguments are those of the log's method.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "named as the arguments of the log's methods")]
pub enum Operation {
    /// `Log::append`.
    Append { first_index: u64, term: u64, entries: Vec<Bytes> },
    /// `Log::push`.
    Push { bytes: Bytes },
    /// `Log::set_state`.
    SetState { state: Bytes },
    /// `Log::truncate_after`.
    Truncate { last: u64 },
    /// `Log::compact_before`.
    Compact { first: u64 },
    /// `Log::reset`.
    Reset { next_index: u64, term_before: u64 },
    /// `Log::forget`.
    Forget,
}

impl World {
    /// The log, empty if nothing was ever done to it.
    pub fn log(&self, log: LogId) -> Arc<LogModel> {
        self.logs.get(&log).cloned().unwrap_or_default()
    }

    /// The world after an operation that the log accepts.
    #[must_use]
    pub fn after(&self, log: LogId, operation: &Operation) -> Self {
        let mut model = (*self.log(log)).clone();
        model.apply(operation);
        let mut world = self.clone();
        world.set(log, model);
        world
    }

    /// What `wal` holds, read through its public surface.
    ///
    /// # Panics
    /// If the log cannot be read, or contradicts itself.
    pub fn of(wal: &Wal) -> Self {
        let mut world = Self::default();
        for log in wal.logs() {
            world.set(log, LogModel::of(wal, log));
        }
        world
    }

    /// A number that two different worlds do not share in practice.
    pub fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        hasher.finish()
    }

    fn set(&mut self, log: LogId, model: LogModel) {
        if model == LogModel::default() {
            self.logs.remove(&log);
        } else {
            self.logs.insert(log, Arc::new(model));
        }
    }
}

impl Default for LogModel {
    fn default() -> Self {
        Self { first: 1, term_before: 0, entries: Vec::new(), state: None }
    }
}

impl LogModel {
    /// Index of the last entry; the one before the first if there is none.
    pub fn last(&self) -> u64 {
        self.first + self.entries.len() as u64 - 1
    }

    /// Term of the last entry.
    pub fn last_term(&self) -> u64 {
        self.term(self.last())
    }

    /// Term of an entry, or of the one before the first.
    ///
    /// # Panics
    /// If `index` is neither.
    pub fn term(&self, index: u64) -> u64 {
        if index + 1 == self.first { self.term_before } else { self.entries[self.at(index)].0 }
    }

    fn apply(&mut self, operation: &Operation) {
        match operation {
            Operation::Append { first_index, term, entries } => {
                self.entries.truncate(self.at(*first_index));
                self.entries.extend(entries.iter().map(|bytes| (*term, bytes.clone())));
            }
            Operation::Push { bytes } => self.entries.push((self.last_term(), bytes.clone())),
            Operation::SetState { state } => self.state = Some(state.clone()),
            Operation::Truncate { last } => self.entries.truncate(self.at(last + 1)),
            Operation::Compact { first } => {
                self.term_before = self.term(first - 1);
                self.entries.drain(..self.at(*first));
                self.first = *first;
            }
            Operation::Reset { next_index, term_before } => {
                self.entries.clear();
                (self.first, self.term_before) = (*next_index, *term_before);
            }
            Operation::Forget => *self = Self::default(),
        }
    }

    fn of(wal: &Wal, log: LogId) -> Self {
        let log = wal.log(log).expect("an open wal has every log");
        let (first, last) = (log.first(), log.last());
        let mut entries = Vec::new();
        for entry in log.read(first..last + 1, usize::MAX) {
            let entry = entry.expect("an open log can be read");
            assert_eq!(entry.index, first + entries.len() as u64, "entries come in order");
            assert_eq!(log.term(entry.index), Some(entry.term), "runs and entries agree");
            // A copy: a view that is kept would keep its segment from being used again.
            entries.push((entry.term, Bytes::copy_from_slice(&entry.bytes)));
        }
        assert_eq!(first + entries.len() as u64, last + 1, "every entry up to the last is read");
        let term_before = log.term(first - 1).unwrap_or_default();
        Self { first, term_before, entries, state: log.state() }
    }

    fn at(&self, index: u64) -> usize {
        usize::try_from(index - self.first).expect("indexes in tests are small")
    }
}

/// Short enough to be read in a failure: bytes are told by length and hash.
impl fmt::Debug for LogModel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short = |bytes: &Bytes| {
            let mut hasher = DefaultHasher::new();
            bytes.hash(&mut hasher);
            format!("{}#{:04x}", bytes.len(), hasher.finish() & 0xffff)
        };
        let Self { first, term_before, entries, state } = self;
        write!(formatter, "{first}.. after term {term_before}:")?;
        for (term, bytes) in entries {
            write!(formatter, " {term}/{}", short(bytes))?;
        }
        write!(formatter, ", state {}", state.as_ref().map_or("none".to_string(), short))
    }
}

impl Operation {
    /// Does it to the real log.
    ///
    /// # Errors
    /// What the log says; then nothing was taken.
    pub fn perform(&self, wal: &Wal, log: LogId) -> Result<Pending, AppendError> {
        let log = wal.log(log)?;
        match self {
            Self::Append { first_index, term, entries } => log.append(*first_index, *term, entries),
            Self::Push { bytes } => log.push(bytes.clone()).map(|(_, pending)| pending),
            Self::SetState { state } => log.set_state(state.clone()),
            Self::Truncate { last } => log.truncate_after(*last),
            Self::Compact { first } => log.compact_before(*first),
            Self::Reset { next_index, term_before } => log.reset(*next_index, *term_before),
            Self::Forget => log.forget(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(texts: &[&'static str]) -> Vec<Bytes> {
        texts.iter().map(|text| Bytes::from_static(text.as_bytes())).collect()
    }

    #[test]
    fn operations_do_what_their_names_say() {
        let log = LogId(1);
        let entries = bytes(&["a", "b", "c", "d"]);
        let world = World::default()
            .after(log, &Operation::Append { first_index: 1, term: 1, entries })
            .after(log, &Operation::Append { first_index: 3, term: 2, entries: bytes(&["C"]) })
            .after(log, &Operation::Push { bytes: Bytes::from_static(b"e") })
            .after(log, &Operation::SetState { state: Bytes::from_static(b"s") })
            .after(log, &Operation::Compact { first: 3 });
        let model = world.log(log);
        assert_eq!((model.first, model.last(), model.term_before), (3, 4, 1));
        assert_eq!(model.last_term(), 2);

        let model = world.after(log, &Operation::Truncate { last: 2 }).log(log);
        assert_eq!((model.first, model.last(), model.last_term()), (3, 2, 1));
        let reset = Operation::Reset { next_index: 9, term_before: 7 };
        let model = world.after(log, &reset).log(log);
        assert_eq!((model.first, model.last(), model.last_term()), (9, 8, 7));
        assert!(model.state.is_some(), "a reset keeps the state");
        assert_eq!(world.after(log, &Operation::Forget), World::default());
    }
}
