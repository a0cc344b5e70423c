//! What must hold in the whole cluster, checked after every input of every node.

use std::collections::BTreeMap;

use kontiki_core::{
    AppendOutcome, Entry, LogIndex, Message, NodeId, Position, ReadId, Role, Status, Term, VoteKind,
};

use crate::disk::{Disk, Image};

#[derive(Default)]
pub(crate) struct Checker {
    /// Every entry that was ever committed, as far as any node knew.
    pub(crate) committed: Vec<Entry>,
    /// The test speaks for some of the nodes, so that their disks prove nothing.
    pub(crate) forged: bool,
    leaders: BTreeMap<Term, NodeId>,
    /// What each node voted in each term, as far as it said so.
    votes: BTreeMap<(NodeId, Term), NodeId>,
    /// Per read: how much was committed when it was asked for.
    reads: BTreeMap<(NodeId, ReadId), LogIndex>,
}

impl Checker {
    /// At most one leader a term, and it has everything that was committed before.
    pub(crate) fn saw_status(&mut self, status: &Status, disk: &Disk) {
        if status.role == Role::Leader {
            let leader = *self.leaders.entry(status.term).or_insert(status.id);
            assert_eq!(leader, status.id, "RAFT-CASE 1: two leaders in term {}", status.term);
            if let Some(last) = self.committed.last()
                && last.term <= status.term
            {
                let held = disk.cached.holds(last.position());
                assert!(held, "leader {} lacks {}", status.id, last.position());
            }
        }
    }

    /// What is said must be durable where it is said.
    pub(crate) fn saw_message(&mut self, from: NodeId, to: NodeId, message: &Message, disk: &Disk) {
        let hard = disk.durable.state.hard;
        match message {
            Message::VoteRequest(request) if request.kind == VoteKind::Real => {
                assert!(hard.term >= request.term, "RAFT-CASE 3: asks before it is durable");
                self.saw_vote(from, request.term, from);
            }
            Message::VoteResponse(response)
                if response.kind == VoteKind::Real && response.granted =>
            {
                assert!(hard.term >= response.term, "RAFT-CASE 3: grants before it is durable");
                self.saw_vote(from, response.term, to);
            }
            Message::AppendResponse(response) => {
                if let AppendOutcome::Matched(matched) = response.outcome {
                    assert!(hard.term >= response.term, "answers in a term that is not durable");
                    let durable = disk.durable.last().index.0;
                    // What a snapshot contains is on the disk with it.
                    let snapshot = disk.snapshot.as_ref().map_or(0, |(s, _)| s.at.index.0);
                    let durable = durable.max(snapshot);
                    assert!(matched.0 <= durable, "RAFT-CASE 15: {matched} of {durable} durable");
                }
            }
            Message::AppendEntries(request) => {
                let mut at = request.previous;
                for entry in request.entries.entries() {
                    assert_eq!(entry.index, at.index.next(), "RAFT-CASE 25: a gap");
                    at = entry.position();
                }
            }
            _ => {}
        }
    }

    fn saw_vote(&mut self, voter: NodeId, term: Term, candidate: NodeId) {
        let vote = *self.votes.entry((voter, term)).or_insert(candidate);
        assert_eq!(vote, candidate, "RAFT-CASE 1: node {voter} votes twice in term {term}");
    }

    /// An entry reaches a state machine: the same one everywhere, durable on a majority.
    pub(crate) fn saw_applied(&mut self, entry: &Entry, disks: &[(bool, &Image)]) {
        let place = usize::try_from(entry.index.0).unwrap() - 1;
        if let Some(known) = self.committed.get(place) {
            assert_eq!(known, entry, "two state machines differ");
            return;
        }
        assert_eq!(place, self.committed.len(), "applied in order");
        let voters = disks.iter().filter(|(voter, _)| *voter).count();
        let holders = disks.iter().filter(|(voter, disk)| *voter && disk.holds(entry.position()));
        assert!(
            self.forged || holders.count() > voters / 2,
            "{} is not on a quorum",
            entry.position()
        );
        self.committed.push(entry.clone());
    }

    pub(crate) fn asks_read(&mut self, node: NodeId, id: ReadId) {
        let committed = LogIndex(self.committed.len() as u64);
        assert!(self.reads.insert((node, id), committed).is_none());
    }

    pub(crate) fn read_ready(&mut self, node: NodeId, id: ReadId, index: LogIndex) {
        let needed = self.reads.remove(&(node, id)).expect("asked once, answered once");
        assert!(index >= needed, "RAFT-CASE 32: a read at {index} misses up to {needed}");
    }

    pub(crate) fn read_failed(&mut self, node: NodeId, id: ReadId) {
        self.reads.remove(&(node, id)).expect("asked once, answered once");
    }

    /// Reads of a process that is no more.
    pub(crate) fn forget_reads(&mut self, node: NodeId) {
        self.reads.retain(|(asker, _), _| *asker != node);
    }

    pub(crate) fn open_reads(&self) -> usize {
        self.reads.len()
    }
}

/// If two logs have one entry in common, they are equal up to it.
pub(crate) fn check_logs_match(images: &[&Image]) {
    for (place, a) in images.iter().enumerate() {
        for b in &images[place + 1..] {
            let first = a.base.index.max(b.base.index).next();
            let from = |image: &Image| image.range(first, LogIndex(u64::MAX));
            check_boundary(a, b);
            check_boundary(b, a);
            let (a, b) = (from(a), from(b));
            let common = a.iter().zip(&b);
            let same =
                common.clone().enumerate().filter(|(_, (x, y))| x.position() == y.position());
            let same = same.map(|(place, _)| place).last();
            if let Some(last) = same {
                for (x, y) in common.take(last + 1) {
                    assert_eq!(x, y, "logs differ below a common entry");
                }
            }
        }
    }
}

/// What a log begins behind is committed: another one that holds as much of what is committed has the same there.
fn check_boundary(begins: &Image, holds: &Image) {
    let at = begins.base;
    let there = holds.range(at.index, at.index.next()).first().map(Entry::position);
    let goes_on = begins.entries.first().map(Entry::position);
    let next = holds.range(at.index.next(), LogIndex(at.index.0 + 2)).first().map(Entry::position);
    if goes_on.is_some() && goes_on == next {
        assert!(there.is_none_or(|there| there == at), "{there:?} before {next:?}, and {at:?}");
    }
}

/// The last position of an image.
pub(crate) fn last_of(image: &Image) -> Position {
    image.last()
}
