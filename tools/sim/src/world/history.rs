//! What clients did and saw: held against what the nodes applied, and against what one register does.

use std::fmt::Write;

use crate::{
    linear::{self, Action, Operation, Verdict},
    world::{
        coverage::Coverage,
        machine::{Command, Ledger},
    },
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

/// Holds a history against what was applied, and each register's against what a register does.
///
/// Where the log's own order is one that the clients can have seen, each register is linearizable, as `check_one` has compared
/// what they were told with what was there in that order. The search for an order, which knows nothing of the log, is to say the
/// same wherever it comes to an end.
///
/// # Errors
/// What does not hold.
pub fn check(history: &[Done], ledger: &Ledger, coverage: &mut Coverage) -> Result<(), String> {
    history.iter().try_for_each(|done| check_one(done, ledger))?;
    check_order(history, ledger)?;
    let mut keys: Vec<u8> = history.iter().map(Done::key).collect();
    keys.sort_unstable();
    keys.dedup();
    for key in keys {
        let of_key = history.iter().filter(|done| done.key() == key);
        let operations: Vec<Operation> = of_key.filter_map(Done::operation).collect();
        match linear::check(&operations, STEPS_MAX) {
            Verdict::Linearizable => coverage.count("a search comes to its end"),
            Verdict::Undecided => coverage.count("a search is given up"),
            Verdict::Violated(unplaced) => {
                let mut what = format!("register {key} is not linearizable: no place for");
                for operation in unplaced.iter().take(5) {
                    write!(what, " {operation:?}").expect("a string takes all");
                }
                return Err(what);
            }
        }
    }
    Ok(())
}

/// In the order of the log nothing comes behind what began only after its end. All registers together: it is one log.
fn check_order(history: &[Done], ledger: &Ledger) -> Result<(), String> {
    let mut placed: Vec<((u64, bool), &Done)> = history
        .iter()
        .filter_map(|done| match (done.call, done.outcome) {
            (Call::Write(command), _) => Some(((ledger.place(command.id)?, false), done)),
            (Call::Read { is_local: false, .. }, Outcome::Read { applied, .. }) => {
                Some(((applied, true), done))
            }
            _ => None,
        })
        .collect();
    placed.sort_by_key(|(place, done)| (*place, done.start));
    let mut newest: Option<&Done> = None;
    for (_, done) in placed {
        // What nobody saw the end of may have taken effect later than anything.
        let is_seen = done.outcome != Outcome::Unknown;
        if let Some(before) = newest.filter(|before| is_seen && done.end < before.start) {
            let (later, earlier) = (before.json(), done.json());
            return Err(format!("{later} comes before what had ended when it began: {earlier}"));
        }
        if newest.is_none_or(|before| before.start < done.start) {
            newest = Some(done);
        }
    }
    Ok(())
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
        (Call::Write(Command { id, key, .. }), Outcome::Wrote { done: wrote, index })
            if (ledger.value_at(key, index) == Some(id)) != wrote =>
        {
            wrong("wrote otherwise than told")
        }
        (Call::Read { key, .. }, Outcome::Read { value, applied })
            if ledger.value_at(key, applied) != value =>
        {
            wrong("a value that was not there at that index")
        }
        _ => Ok(()),
    }
}

/// After so many steps the search for an order is given up: with many swaps of unknown outcome it can take for ever.
const STEPS_MAX: u64 = 20_000;

#[cfg(test)]
mod tests {
    use kontiki::Position;

    use super::*;

    const KEY: u8 = 1;

    /// Commands 1, 2, 3 at indexes 1, 2, 3, the third a swap that found what it expected.
    fn ledger() -> Ledger {
        let mut ledger = Ledger::default();
        for (id, expected) in [(1, None), (2, None), (3, Some(2))] {
            let command = Command { id, key: KEY, expected };
            ledger.note(1, id - 1, Position { term: 1, index: id }, &command.encode(0));
        }
        ledger
    }

    fn done(call: Call, start: u64, end: u64, outcome: Outcome) -> Done {
        Done { client: 0, node: 1, call, start, end, outcome }
    }

    fn write(id: u64, start: u64, end: u64) -> Done {
        let call = Call::Write(Command { id, key: KEY, expected: (id == 3).then_some(2) });
        done(call, start, end, Outcome::Wrote { done: true, index: id })
    }

    fn read(value: u64, start: u64, end: u64) -> Done {
        let call = Call::Read { key: KEY, is_local: false };
        done(call, start, end, Outcome::Read { value: Some(value), applied: value })
    }

    fn check(history: &[Done], ledger: &Ledger) -> Result<(), String> {
        super::check(history, ledger, &mut Coverage::default())
    }

    #[test]
    fn what_is_in_the_order_of_the_log_holds() {
        let whole =
            [write(1, 0, 9), write(2, 5, 15), read(1, 6, 30), read(2, 8, 40), write(3, 35, 50)];
        assert_eq!(check(&whole, &ledger()), Ok(()));
        let unseen = Done { outcome: Outcome::Unknown, ..write(1, 0, 3) };
        assert_eq!(check(&[unseen, write(2, 1, 2), read(2, 3, 4)], &ledger()), Ok(()));
    }

    #[test]
    fn what_real_time_or_the_ledger_contradicts_is_told() {
        let otherwise = Outcome::Wrote { done: false, index: 3 };
        let elsewhere = Outcome::Wrote { done: true, index: 2 };
        let never = Outcome::Refused;
        for wrong in [
            vec![write(1, 20, 30), write(2, 0, 10)],
            vec![write(1, 0, 1), write(2, 2, 3), read(1, 4, 5)],
            vec![read(2, 0, 1), write(2, 2, 3)],
            vec![Done { outcome: Outcome::Unknown, ..write(1, 20, 21) }, write(2, 0, 10)],
            vec![Done { outcome: otherwise, ..write(3, 0, 1) }],
            vec![Done { outcome: elsewhere, ..write(1, 0, 1) }],
            vec![Done { outcome: never, ..write(1, 0, 1) }],
        ] {
            assert!(check(&wrong, &ledger()).is_err(), "{wrong:?}");
        }
        let order = check_order(&[write(1, 0, 1), write(2, 2, 3), read(1, 4, 5)], &ledger());
        assert!(order.is_err(), "a stale read, without the search");
    }
}
