//! Proposals and reads: to the own protocol, to the leader, or into a bounded wait for one.

use std::mem;

use bytes::Bytes;
use kontiki_core::{Instant, ProposeError as Refusal};

use crate::{
    ProposeError, ReadError, Role,
    applier::Work,
    driver::Driver,
    envelope,
    error::Closing,
    proposal::{Group, PeerAnswer},
    storage::GROUP,
    transport::MESSAGE_BYTES_MAX,
};

impl Driver {
    /// Gives the backlog to whoever leads, in order. Without a leader it waits.
    pub(super) fn place_proposals(&mut self) {
        let bytes_max = self.shared.options.turn_bytes_max;
        if self.standing.role == Role::Leader {
            if !self.backlog.is_empty() {
                let (payloads, groups) = self.backlog.take(bytes_max);
                self.propose(payloads, groups.into_iter().map(|(_, group)| group).collect());
                self.more = !self.backlog.is_empty();
            }
            return;
        }
        let Some(leader) = self.standing.leader else { return };
        while self.forward_at.is_none() && !self.backlog.is_empty() {
            let (payloads, groups) = self.backlog.take(bytes_max);
            self.forward(leader, payloads, groups);
        }
    }

    /// Proposes here; the places in the log go to the applier before any of them can be applied.
    fn propose(&mut self, payloads: Vec<Bytes>, groups: Vec<Group>) {
        let Some(core) = &mut self.core else { return };
        match core.propose(self.now, payloads) {
            Ok(first) => {
                let deadline = self.now + self.shared.options.proposal_timeout;
                self.work.push(Work::Register { first, deadline, groups });
                self.feed(|_, _| {});
            }
            Err(refusal) => {
                let error = self.refusal(refusal);
                for group in groups {
                    group.fail(|_| error.clone(), &mut self.settled);
                }
            }
        }
    }

    /// Says whether the protocol has room for what the next turn proposes, if that has changed.
    pub(super) fn publish_room(&mut self) {
        let bytes = self.shared.options.turn_weight_max();
        let overloaded = self.core.as_ref().is_some_and(|core| !core.has_room(bytes));
        if mem::replace(&mut self.overloaded, overloaded) != overloaded {
            self.shared.inbox.set_overloaded(overloaded);
        }
    }

    /// Passes proposals on, once: what the transport has taken is never sent again (RAFT-CASE 65).
    fn forward(&mut self, leader: u64, payloads: Vec<Bytes>, groups: Vec<(Instant, Group)>) {
        let id = self.forwards.next_id();
        let message = envelope::encode_propose(id, &payloads);
        if !self.transport.send(leader, GROUP, message) {
            self.forward_at = Some(self.later());
            return self.backlog.put_back(payloads, groups);
        }
        let deadline = self.now + self.shared.options.proposal_timeout;
        let groups = groups.into_iter().map(|(_, group)| group).collect();
        self.forwards.sent(id, leader, deadline, groups);
    }

    /// Proposes what a follower passed on; one hop, so only a leader does.
    pub(super) fn propose_for_peer(&mut self, peer: u64, id: u64, payloads: Vec<Bytes>) {
        let (count, longest) =
            (payloads.len(), payloads.iter().map(|payload| payload.len() - 1).max().unwrap_or(0));
        let bytes = payloads.iter().map(|payload| payload.len() - 1).sum();
        let refused = if self.standing.role != Role::Leader {
            Some(ProposeError::NotLeader { hint: self.leader_hint() })
        } else if longest > self.shared.options.command_bytes_max {
            let limit = self.shared.options.command_bytes_max;
            Some(ProposeError::TooLarge { bytes: longest, limit })
        } else {
            self.shared.inbox.admit_forwarded(count, bytes).err()
        };
        match refused {
            Some(error) => {
                self.answer_peer(PeerAnswer { peer, id, results: vec![Err(error); count] });
            }
            None => self.propose(payloads, vec![Group::of_peer(count, bytes, peer, id)]),
        }
    }

    /// Tells a follower what became of its proposals. An answer that is lost is an unknown outcome
    /// there.
    pub(super) fn answer_peer(&mut self, answer: PeerAnswer) {
        let count = answer.results.len();
        let mut message = envelope::encode_outcome(answer.id, &answer.results);
        if message.iter().map(Bytes::len).sum::<usize>() > MESSAGE_BYTES_MAX {
            let unknown = answer.results.into_iter().map(|result| {
                let applied = result?;
                Err(ProposeError::Unknown { position: Some(applied.position) })
            });
            message = envelope::encode_outcome(answer.id, &unknown.collect::<Vec<_>>());
        }
        if !self.transport.send(answer.peer, GROUP, message) {
            self.lost_answers += count;
        }
    }

    /// Asks for an index for all reads that wait, if somebody may have one.
    pub(super) fn ask_reads(&mut self) {
        if self.standing.leader.is_none() || self.ask_at.is_some() {
            return;
        }
        if let Some(id) = self.reads.ask() {
            self.feed(|core, now| core.read(now, id));
        }
    }

    /// Ends what has waited too long.
    pub(super) fn expire_requests(&mut self) {
        while let Some(group) = self.backlog.take_expired(self.now) {
            let hint = self.leader_hint();
            group.fail(|_| ProposeError::NotLeader { hint: hint.clone() }, &mut self.settled);
        }
        for job in self.reads.take_expired(self.now) {
            match self.leader_hint() {
                None => job.fail(ReadError::NotLeader { hint: None }),
                Some(_) => job.fail(ReadError::TimedOut),
            }
        }
    }

    /// Ends everything that was given to nobody yet.
    pub(super) fn refuse_requests(&mut self, why: &Closing) {
        let (_, untaken) = self.backlog.take(usize::MAX);
        for (_, group) in untaken {
            group.fail(|_| why.untaken(), &mut self.settled);
        }
        for job in self.reads.take_all() {
            job.fail(why.read());
        }
    }

    /// Who leads, with the address that the members know.
    pub(super) fn leader_hint(&self) -> Option<(u64, String)> {
        let leader = self.standing.leader?;
        self.members.iter().find(|(id, _)| *id == leader).cloned()
    }

    fn refusal(&self, refusal: Refusal) -> ProposeError {
        match refusal {
            Refusal::Overloaded { .. } => ProposeError::Overloaded,
            Refusal::TooLarge { bytes, limit } => ProposeError::TooLarge { bytes, limit },
            // Also what this version does not know: nothing was appended.
            _ => ProposeError::NotLeader { hint: self.leader_hint() },
        }
    }
}
