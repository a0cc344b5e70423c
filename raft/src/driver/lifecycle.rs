//! From the first start to the end of a node.

use std::{
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use kontiki_core::{NodeId, Raft, Role as CoreRole, State, Term};
use kontiki_wal::Wal;

use crate::{
    Event, Position, Role,
    applier::{Work, panic_text},
    bootstrap::{addresses, newest},
    driver::{Driver, Standing},
    error::Closing,
    inbox::{Arrivals, Completion},
    transport::Hello,
};

impl Driver {
    /// Somebody said an acceptable hello; it matters only during the first start.
    pub(super) fn hear(&mut self, hello: &Hello) {
        let Some(first_start) = self.first_start.as_mut().filter(|_| self.forming.is_none()) else {
            return;
        };
        if let Some(state) = first_start.hear(hello) {
            self.form(state);
        }
    }

    /// Makes the first configuration durable. Nobody hears of it before.
    pub(super) fn form(&mut self, state: State) {
        let shared = self.shared.clone();
        match self.storage.log.set_state(state.encode()) {
            Ok(pending) => {
                pending.on_durable(move |result| shared.inbox.complete(Completion::Formed(result)))
            }
            Err(error) => return self.fail(format!("the log refused the configuration: {error}")),
        }
        self.forming = Some(state);
    }

    /// The first configuration is durable: the node takes part from now on.
    pub(super) fn formed(&mut self) {
        let Some(state) = self.forming.take() else { return };
        let cluster = state.cluster.0;
        tracing::info!(node = self.shared.id, cluster = %format!("{cluster:016x}"), "cluster formed");
        self.first_start = None;
        self.identity.form(&state);
        self.storage.state = state;
        self.transport.set_hello(self.identity.hello());
        self.shared.events.tell(Event::ClusterFormed { cluster });
        self.start_core();
    }

    /// Starts the protocol on what the disk holds.
    pub(super) fn start_core(&mut self) {
        let recovered = self.storage.recovered();
        self.members = newest(&recovered.state).map(addresses).unwrap_or_default();
        self.transport.set_peers(&self.members);
        let (cluster, incarnation) = (recovered.state.cluster.0, recovered.state.incarnation.0);
        let (members, first) = (self.members.clone(), recovered.compacted.index.0 + 1);
        let snapshot = recovered.snapshot.as_ref().map_or(Position::default(), |s| s.at.into());
        self.shared.board.update(|status| {
            (status.log_first, status.snapshot) = (first, snapshot);
            (status.cluster, status.incarnation, status.members) = (cluster, incarnation, members);
        });
        let mut config = self.shared.options.config(self.shared.id);
        config.applies_durable_only = self.storage.begun.keeps_itself;
        let core = self.shared.entropy.draw().map_err(|error| error.to_string()).and_then(|seed| {
            Raft::new(config, recovered, seed, self.now).map_err(|error| error.to_string())
        });
        match core {
            Ok(core) => {
                let status = core.status();
                self.core = Some(core);
                self.stand(status.role, status.term, status.leader);
                self.feed(|_, _| {});
            }
            Err(cause) => self.fail(format!("cannot start on what the disk holds: {cause}")),
        }
    }

    /// The cluster knows this node with another disk: it has promised things there that this disk
    /// does not know, so it must never vote (RAFT-CASE 27, RAFT-CASE 45).
    /// A node that has begun to make a configuration durable is beyond that, as it is after a
    /// restart: whoever says this belongs to another cluster.
    pub(super) fn not_admitted(&mut self, peer: u64, reason: &str) {
        if self.first_start.is_none() || self.forming.is_some() {
            return;
        }
        tracing::error!(node = self.shared.id, peer, reason, "this node is not admitted");
        self.first_start = None;
        self.change(Standing { role: Role::NotAdmitted, term: 0, leader: None });
        self.shared.events.tell(Event::NotAdmitted { peer });
        // It will never serve: nobody is left to wait for that.
        let barred = Closing::NotAdmitted(reason.into());
        self.shared.inbox.bar(barred.clone());
        self.barred = Some(barred);
    }

    /// The protocol says who leads.
    pub(super) fn stand(&mut self, role: CoreRole, term: Term, leader: Option<NodeId>) {
        let role = match role {
            CoreRole::Leader => Role::Leader,
            CoreRole::PreCandidate | CoreRole::Candidate => Role::Candidate,
            CoreRole::Follower | CoreRole::Learner => Role::Follower,
        };
        self.change(Standing { role, term: term.0, leader: leader.map(|leader| leader.0) });
    }

    /// Takes a new standing and draws the consequences for those who wait.
    fn change(&mut self, standing: Standing) {
        let before = mem::replace(&mut self.standing, standing);
        let (node, Standing { role, term, leader }) = (self.shared.id, standing);
        if before.role != role {
            self.forget_followers();
            tracing::info!(node, from = ?before.role, to = ?role, term, "role changed");
            self.shared.events.tell(Event::RoleChanged { from: before.role, to: role, term });
        }
        if before.leader != leader {
            self.shared.events.tell(Event::LeaderChanged { leader, term });
        }
        // A leader that is merely in doubt may still answer what it was asked.
        let is_doubt = leader.is_none() && standing == Standing { leader, ..before };
        if !is_doubt {
            self.forwards.lose_all_but(leader, &mut self.settled);
        }
        let hint = self.leader_hint();
        self.shared.board.update(|status| {
            (status.role, status.term, status.leader) = (role, term, hint);
        });
        if before.leader.is_some() != leader.is_some() {
            self.shared.inbox.set_serving(leader.is_some());
        }
        (self.forward_at, self.ask_at) = (None, None);
    }

    pub(super) fn report_regress(&self, peer: u64, matched: u64, reported: u64) {
        tracing::warn!(
            node = self.shared.id,
            peer,
            matched,
            reported,
            "a peer has less than it had acknowledged: it lost its disk, or lies"
        );
        self.shared.events.tell(Event::PeerRegressed { peer, matched, reported });
    }

    /// Ends the node: the protocol hears and says nothing more.
    pub(super) fn fail(&mut self, cause: impl Into<Arc<str>>) {
        self.core = None;
        self.has_failed = true;
        self.forget_followers();
        self.shared.fail(cause.into());
    }

    /// Writes down where the log stands, if it moved; the rest is written down when it changes.
    pub(super) fn publish_status(&mut self) {
        let Some(cursors) = self.core.as_ref().map(Raft::cursors) else { return };
        if mem::replace(&mut self.published, cursors) == cursors {
            return;
        }
        self.shared.board.update(|status| {
            status.last = cursors.last.into();
            status.durable = cursors.durable.0;
            status.committed = cursors.committed.0;
        });
    }

    /// Answers everybody who still waits here and ends the neighbours. The inbox is closed.
    ///
    /// Returns the log, the last thing to be closed.
    pub(crate) fn stop(mut self) -> Wal {
        let closing = self.shared.inbox.closed().unwrap_or(Closing::Stopped);
        self.core = None;
        // A transport of the application's own may panic: nobody who waits here shall pay for it.
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.transport.stop())) {
            let (node, panic) = (self.shared.id, panic_text(panic.as_ref()));
            tracing::error!(node, panic, "the transport panicked while it was stopped");
        }
        let mut arrivals = Arrivals::default();
        self.shared.inbox.take(&mut arrivals);
        self.backlog.extend(&mut arrivals.payloads, &mut arrivals.groups, self.now);
        self.reads.extend(&mut arrivals.reads, self.now);
        self.refuse_requests(&closing);
        for group in self.forwards.take_all() {
            group.fail(|_| closing.open(None), &mut self.settled);
        }
        self.work.push(Work::Close(closing));
        self.applier.extend(&mut self.work);
        self.fetcher.close();
        self.images.keeper.close();
        self.shared.inbox.settle(&mut self.settled);
        self.storage.wal
    }
}
