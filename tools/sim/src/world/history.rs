//! What clients did and saw: held against what the nodes applied, and against what one register does.

use std::fmt::Write;

use crate::{
    linear::{self, Action, Operation, Verdict},
    world::machine::{Command, Ledger},
};

/// What a client asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// A write.
    Write(Command),
    /// A read; `is_local` of whatever is applied.
    Read {
        /// The register.
        key: u8,
        /// Of whatever is applied where it is asked for.
        is_local: bool,
    },
}

/// What it heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The command was applied at `index`, and wrote if `done`.
    Wrote {
        /// It wrote.
        done: bool,
        /// Where it was applied.
        index: u64,
    },
    /// The value, and the index of the last command that was applied then.
    Read {
        /// `None` where nothing was written.
        value: Option<u64>,
        /// The last command's.
        applied: u64,
    },
    /// It had no effect, and never will.
    Refused,
    /// Nobody knows.
    Unknown,
}

/// One operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done {
    /// Which client.
    pub client: usize,
    /// On which node.
    pub node: u64,
    /// What it asked for,
    pub call: Call,
    /// when,
    pub start: u64,
    /// until when it waited,
    pub end: u64,
    /// and what it heard.
    pub outcome: Outcome,
}

impl Done {
    /// As the search for an order takes it; `None` if it shows nothing.
    fn operation(&self) -> Option<Operation> {
        let Self { call, start, end, outcome, .. } = *self;
        let (end, action) = match (call, outcome) {
            (Call::Write(Command { id, expected: None, .. }), Outcome::Wrote { .. }) => {
                (Some(end), Action::Put(id))
            }
            (Call::Write(Command { id, expected: None, .. }), Outcome::Unknown) => {
                (None, Action::Put(id))
            }
            (
                Call::Write(Command { id, expected: Some(expected), .. }),
                Outcome::Wrote { done, .. },
            ) => (Some(end), Action::Swap { expected, new: id, done: Some(done) }),
            (Call::Write(Command { id, expected: Some(expected), .. }), Outcome::Unknown) => {
                (None, Action::Swap { expected, new: id, done: None })
            }
            (Call::Read { is_local: false, .. }, Outcome::Read { value, .. }) => {
                (Some(end), Action::Get(value.unwrap_or(0)))
            }
            _ => return None,
        };
        Some(Operation { start, end, action })
    }

    /// A read of whatever is applied.
    pub(crate) fn is_local(&self) -> bool {
        matches!(self.call, Call::Read { is_local: true, .. })
    }

    fn key(&self) -> u8 {
        match self.call {
            Call::Write(command) => command.key,
            Call::Read { key, .. } => key,
        }
    }

    /// One line of JSON: see the crate's README.
    pub fn json(&self) -> String {
        let Self { client, node, start, end, .. } = self;
        let mut line = format!("{{\"client\":{client},\"node\":{node},\"key\":{}", self.key());
        let kind = match self.call {
            Call::Write(Command { expected: None, .. }) => "put",
            Call::Write(_) => "swap",
            Call::Read { is_local: false, .. } => "read",
            Call::Read { .. } => "read_local",
        };
        let mut put = |text: String| line.push_str(&text);
        put(format!(",\"kind\":\"{kind}\""));
        if let Call::Write(Command { id, expected, .. }) = self.call {
            put(format!(",\"value\":{id}"));
            expected.iter().for_each(|expected| put(format!(",\"expected\":{expected}")));
        }
        put(match self.outcome {
            Outcome::Wrote { done, index } => {
                format!(",\"result\":\"applied\",\"wrote\":{done},\"index\":{index}")
            }
            Outcome::Read { value, applied } => {
                let value = value.unwrap_or(0);
                format!(",\"result\":\"read\",\"value\":{value},\"index\":{applied}")
            }
            Outcome::Refused => ",\"result\":\"refused\"".to_owned(),
            Outcome::Unknown => ",\"result\":\"unknown\"".to_owned(),
        });
        put(format!(",\"start\":{start},\"end\":{end}}}"));
        line
    }
}

/// What was found in a history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Operations whose end was seen.
    pub ended: usize,
    /// Registers for which the search was given up.
    pub undecided: usize,
}

/// Holds a history against what was applied, and each register's against what a register does.
///
/// # Errors
/// What does not hold.
pub fn check(history: &[Done], ledger: &Ledger) -> Result<Found, String> {
    history.iter().try_for_each(|done| check_one(done, ledger))?;
    let mut found = Found::default();
    let mut keys: Vec<u8> = history.iter().map(Done::key).collect();
    keys.sort_unstable();
    keys.dedup();
    for key in keys {
        let of_key = history.iter().filter(|done| done.key() == key);
        let operations: Vec<Operation> = of_key.filter_map(Done::operation).collect();
        found.ended += operations.iter().filter(|operation| operation.end.is_some()).count();
        match linear::check(&operations, STEPS_MAX) {
            Verdict::Linearizable => {}
            Verdict::Undecided => found.undecided += 1,
            Verdict::Violated(unplaced) => {
                let mut what = format!("register {key} is not linearizable: no place for");
                for operation in unplaced.iter().take(5) {
                    write!(what, " {operation:?}").expect("a string takes all");
                }
                return Err(what);
            }
        }
    }
    Ok(found)
}

/// What the nodes applied is what the client was told.
fn check_one(done: &Done, ledger: &Ledger) -> Result<(), String> {
    let wrong = |what: &str| Err(format!("{what}: {}", done.json()));
    match (done.call, done.outcome) {
        (Call::Write(command), Outcome::Refused) if ledger.place(command.id).is_some() => {
            wrong("certainly not applied, and applied")
        }
        (Call::Write(command), Outcome::Wrote { index, .. })
            if ledger.place(command.id) != Some(index) =>
        {
            wrong("applied elsewhere than told")
        }
        (Call::Read { key, .. }, Outcome::Read { value, applied })
            if ledger.value_at(key, applied) != value =>
        {
            wrong("a value that was not there at that index")
        }
        _ => Ok(()),
    }
}

/// After so many steps the search for an order is given up.
const STEPS_MAX: u64 = 2_000_000;
