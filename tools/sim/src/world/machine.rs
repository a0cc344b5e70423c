//! What the nodes of a world replicate: registers, each with the index that wrote it. What is applied anywhere is held against
//! what was applied elsewhere.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use kontiki::{ApplyContext, Position, SnapshotWriter, StateMachine};

/// A write. Its number is unique in its world, and the value that it writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Command {
    /// Counts from 1.
    pub id: u64,
    /// The register.
    pub key: u8,
    /// Writes only where this is what is there; `Some(0)` where nothing is.
    pub expected: Option<u64>,
}

impl Command {
    /// As an entry carries it, with `filler` bytes behind.
    pub fn encode(&self, filler: usize) -> Bytes {
        let mut bytes = Vec::with_capacity(18 + filler);
        bytes.extend_from_slice(&self.id.to_le_bytes());
        bytes.push(self.key);
        bytes.push(u8::from(self.expected.is_some()));
        bytes.extend_from_slice(&self.expected.unwrap_or(0).to_le_bytes());
        bytes.resize(18 + filler, self.key);
        bytes.into()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let number = |at: usize| Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
        let expected = (*bytes.get(9)? == 1).then_some(number(10)?);
        Some(Self { id: number(0)?, key: *bytes.get(8)?, expected })
    }
}

/// What all nodes together have applied.
#[derive(Debug, Default)]
pub struct Ledger {
    /// By index: the term, and the command with whatever fills it.
    entries: BTreeMap<u64, (u64, Bytes)>,
    /// Where each command was applied.
    places: BTreeMap<u64, u64>,
    /// Index and value of each write of a register, ascending.
    written: BTreeMap<u8, Vec<(u64, u64)>>,
    /// The registers behind all of `entries`.
    state: BTreeMap<u8, u64>,
    /// Snapshots that were taken, from which processes began, and that took the place of what one held.
    pub(super) snapshots: [u64; 3],
    /// Processes that began with what a disk of their state machine's own held.
    pub(super) kept_starts: u64,
    /// What does not hold.
    violation: Option<String>,
}

/// Handles of one ledger are all the same one.
#[derive(Clone, Debug, Default)]
pub struct SharedLedger(Arc<Mutex<Ledger>>);

impl SharedLedger {
    /// The ledger itself.
    pub fn look(&self) -> MutexGuard<'_, Ledger> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ledger {
    /// Where the command of this number was applied, if it was.
    pub fn place(&self, id: u64) -> Option<u64> {
        self.places.get(&id).copied()
    }

    /// Whether that is what was applied at `index`; of a command.
    pub(super) fn holds(&self, index: u64, term: u64, command: &[u8]) -> bool {
        self.entries.get(&index).is_some_and(|(known, bytes)| *known == term && bytes == command)
    }

    /// What a register holds behind entry `index`.
    pub fn value_at(&self, key: u8, index: u64) -> Option<u64> {
        let written = self.written.get(&key)?;
        let after = written.partition_point(|write| write.0 <= index);
        Some(written[after.checked_sub(1)?].1)
    }

    /// Takes what was found wrong.
    pub fn take_violation(&mut self) -> Option<String> {
        self.violation.take()
    }

    /// How many commands were applied.
    pub fn commands(&self) -> usize {
        self.entries.len()
    }

    /// The positions of all commands that were applied.
    pub fn positions(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.entries.iter().map(|(&index, &(term, _))| (index, term))
    }

    /// A node takes in the registers as they were behind the command at `applied`, from an image.
    fn note_image(&mut self, node: u64, applied: u64, state: &BTreeMap<u8, u64>) {
        let keys = self.written.keys().chain(state.keys());
        let differs = |key: &&u8| self.value_at(**key, applied) != state.get(key).copied();
        let wrong = keys.clone().find(differs).copied();
        if applied > 0 && !self.entries.contains_key(&applied) || wrong.is_some() {
            let what = format!(
                "node {node} takes in an image behind {applied} with another register {wrong:?} than there was"
            );
            self.violation.get_or_insert(what);
        }
    }

    /// A node applies a command, after that at `before`; 0 if it is its first.
    pub(super) fn note(&mut self, node: u64, before: u64, position: Position, bytes: &[u8]) {
        let Position { term, index } = position;
        let known_before = self.entries.range(..index).next_back().map_or(0, |(&index, _)| index);
        if known_before != before {
            let what = format!(
                "node {node} applies {position} after {before}, and others have one at {known_before} between"
            );
            self.violation.get_or_insert(what);
        }
        if let Some((known_term, known)) = self.entries.get(&index) {
            if *known_term != term || known != bytes {
                let what = format!(
                    "node {node} applies at {position} what another one did not: that had term {known_term}"
                );
                self.violation.get_or_insert(what);
            }
            return;
        }
        let Some(command) = Command::decode(bytes) else {
            let what = format!("node {node} applies at {position} what nobody proposed");
            self.violation.get_or_insert(what);
            return;
        };
        if self.entries.last_key_value().is_some_and(|(&last, _)| index < last) {
            let what = format!("node {node} applies a command at {position} that others passed by");
            self.violation.get_or_insert(what);
            return;
        }
        self.entries.insert(index, (term, Bytes::copy_from_slice(bytes)));
        if let Some(first) = self.places.insert(command.id, index) {
            let id = command.id;
            let what = format!("command {id} was applied at index {first} and at {index}");
            self.violation.get_or_insert(what);
        }
        if write(&mut self.state, &command) {
            self.written.entry(command.key).or_default().push((index, command.id));
        }
    }
}

/// Whether the command writes.
fn write(state: &mut BTreeMap<u8, u64>, command: &Command) -> bool {
    let held = state.get(&command.key).copied().unwrap_or(0);
    let writes = command.expected.is_none_or(|expected| expected == held);
    if writes {
        state.insert(command.key, command.id);
    }
    writes
}

/// A disk of a state machine's own: the registers as they were behind the command of an index. Handles are all of one disk.
#[derive(Clone, Debug, Default)]
pub struct Kept(Arc<Mutex<(u64, BTreeMap<u8, u64>)>>);

impl Kept {
    fn look(&self) -> MutexGuard<'_, (u64, BTreeMap<u8, u64>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The registers of one node.
#[derive(Debug)]
pub struct Registers {
    node: u64,
    state: BTreeMap<u8, u64>,
    /// Index of the last command.
    applied: u64,
    ledger: SharedLedger,
    kept: Option<Kept>,
}

impl Registers {
    /// Those of a node: empty, or as they are kept.
    pub fn new(node: u64, ledger: SharedLedger, kept: Option<Kept>) -> Self {
        let (applied, state) = kept.as_ref().map(|kept| kept.look().clone()).unwrap_or_default();
        ledger.look().kept_starts += u64::from(applied > 0);
        Self { node, state, applied, ledger, kept }
    }

    /// Makes them durable where they are kept.
    fn keep(&self) {
        if let Some(kept) = &self.kept {
            *kept.look() = (self.applied, self.state.clone());
        }
    }

    /// The value of a register, and the index of the last command that was applied.
    pub fn read(&self, key: u8) -> (Option<u64>, u64) {
        (self.state.get(&key).copied(), self.applied)
    }

    /// All of them.
    pub fn state(&self) -> &BTreeMap<u8, u64> {
        &self.state
    }
}

impl StateMachine for Registers {
    /// The reply is 1 if it wrote, else 0.
    fn apply(&mut self, context: &ApplyContext, command: &[u8]) -> io::Result<Bytes> {
        let position = context.position;
        self.ledger.look().note(self.node, self.applied, position, command);
        self.applied = position.index;
        let Some(command) = Command::decode(command) else { return Ok(Bytes::new()) };
        let wrote = write(&mut self.state, &command);
        // Not behind each command: a start finds less than was applied.
        if position.index.is_multiple_of(KEPT_EVERY) {
            self.keep();
        }
        Ok(Bytes::copy_from_slice(&[u8::from(wrote)]))
    }

    fn snapshot(&self) -> io::Result<Box<dyn SnapshotWriter + Send>> {
        self.ledger.look().snapshots[0] += 1;
        let mut bytes = self.applied.to_le_bytes().to_vec();
        for (&key, value) in &self.state {
            bytes.push(key);
            bytes.extend_from_slice(&value.to_le_bytes());
        }
        Ok(Box::new(Image(bytes)))
    }

    fn restore(&mut self, image: &mut dyn io::Read) -> io::Result<()> {
        let mut bytes = Vec::new();
        image.read_to_end(&mut bytes)?;
        let (applied, pairs) = bytes.split_first_chunk::<8>().ok_or(io::ErrorKind::InvalidData)?;
        let number = |bytes: &[u8]| u64::from_le_bytes(*bytes.first_chunk().expect("eight"));
        let applied = number(applied);
        let state = pairs.chunks_exact(9).map(|pair| (pair[0], number(&pair[1..]))).collect();
        let mut ledger = self.ledger.look();
        ledger.note_image(self.node, applied, &state);
        // A state machine that keeps itself begins anew from an image that its log goes on behind.
        if applied < self.applied {
            let (node, before) = (self.node, self.applied);
            let what = format!("node {node} goes back from {before} to an image behind {applied}");
            ledger.violation.get_or_insert(what);
        }
        ledger.snapshots[if self.applied == 0 { 1 } else { 2 }] += 1;
        drop(ledger);
        (self.applied, self.state) = (applied, state);
        self.keep();
        Ok(())
    }

    fn durable_position(&self) -> Option<Position> {
        let index = self.kept.as_ref()?.look().0;
        let term = self.ledger.look().entries.get(&index).map_or(0, |(term, _)| *term);
        Some(Position { term, index })
    }
}

/// Registers are kept behind the commands whose index is a multiple of this.
const KEPT_EVERY: u64 = 3;

/// The registers at one moment.
struct Image(Vec<u8>);

impl SnapshotWriter for Image {
    fn write_to(self: Box<Self>, out: &mut dyn io::Write) -> io::Result<()> {
        out.write_all(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_read_back_and_a_register_is_swapped_where_it_holds_what_is_expected() {
        let put = Command { id: 7, key: 3, expected: None };
        let swap = Command { id: 8, key: 3, expected: Some(7) };
        for command in [put, swap] {
            assert_eq!(Command::decode(&command.encode(40)), Some(command));
        }
        let mut state = BTreeMap::new();
        assert!(write(&mut state, &put) && write(&mut state, &swap));
        assert!(!write(&mut state, &swap), "it holds 8 by now");
        let fresh = Command { id: 9, key: 4, expected: Some(0) };
        assert!(write(&mut state, &fresh) && !write(&mut state, &fresh));
    }

    #[test]
    fn who_applies_something_else_or_twice_is_told() {
        let command = |id| Command { id, key: 1, expected: None }.encode(0);
        let position = |term, index| Position { term, index };
        let told = |notes: &[(u64, u64, u64, u64)]| {
            let mut ledger = Ledger::default();
            for &(before, term, index, id) in notes {
                ledger.note(1, before, position(term, index), &command(id));
            }
            ledger.take_violation()
        };
        assert_eq!(told(&[(0, 1, 1, 1), (1, 1, 3, 2), (0, 1, 1, 1), (1, 1, 3, 2)]), None);
        for wrong in [
            [(0, 1, 1, 1), (0, 1, 1, 2)],
            [(0, 1, 1, 1), (0, 2, 1, 1)],
            [(0, 1, 1, 1), (1, 1, 2, 1)],
            [(0, 1, 5, 1), (0, 1, 4, 2)],
            [(0, 1, 1, 1), (0, 1, 2, 2)],
            [(0, 1, 1, 1), (1, 1, 1, 1)],
        ] {
            assert!(told(&wrong).is_some(), "{wrong:?}");
        }
    }
}
