//! What the demo says of its nodes, and when that is the end of it.

use std::{collections::BTreeSet, path::PathBuf};

use crate::{
    child::ChildEvent,
    failure::{Failure, FailureKind},
    places::{IDS, NODES, client_port, data_directory},
};

/// What has happened so far, as far as later lines depend on it.
#[derive(Debug)]
pub(crate) struct Story {
    port: u16,
    data: PathBuf,
    leader_announced: bool,
    /// Nodes that the others have to do without.
    lost: BTreeSet<u64>,
    /// Whom nodes wait for, because a first start needs all.
    waited_for: BTreeSet<u64>,
}

impl Story {
    pub(crate) fn new(port: u16, data: PathBuf) -> Self {
        Self {
            port,
            data,
            leader_announced: false,
            lost: BTreeSet::new(),
            waited_for: BTreeSet::new(),
        }
    }

    pub(crate) fn leader_announced(&self) -> bool {
        self.leader_announced
    }

    /// Tells `say` of an event, line by line; a failure ends the demo.
    pub(crate) fn tell(
        &mut self,
        event: ChildEvent,
        say: &mut dyn FnMut(String),
    ) -> Result<(), Failure> {
        match event {
            ChildEvent::Ready { id, process, leader } => {
                self.begun();
                self.lost.remove(&id);
                let leads = if leader == id.to_string() {
                    ", and leads".to_owned()
                } else {
                    format!("; node {leader} leads")
                };
                say(format!("node {id} serves in process {process}{leads}"));
                if !std::mem::replace(&mut self.leader_announced, true) {
                    self.lost.iter().for_each(|id| self.tell_of_loss(*id, say));
                    say(self.what_to_try(id));
                }
                Ok(())
            }
            ChildEvent::Died { id, how } => {
                say(format!("node {id} {how}; it is started again"));
                Ok(())
            }
            ChildEvent::Waits { missing } => {
                self.waited_for.extend(missing);
                let gone = self.lost.intersection(&self.waited_for).next();
                gone.map_or(Ok(()), |id| Err(cannot_begin(*id)))
            }
            ChildEvent::GaveUp { id, how } => {
                say(format!("node {id} {how}; it is not started again"));
                if self.waited_for.contains(&id) {
                    return Err(cannot_begin(id));
                }
                self.lose(id, say)
            }
            ChildEvent::NotAdmitted { id } => self.leave_out(
                id,
                &format!(
                    "node {id} is not admitted: the cluster takes only its old directory back, and"
                ),
                "was emptied or exchanged",
                say,
            ),
            ChildEvent::Foreign { id, members } => self.leave_out(
                id,
                &format!("node {id} is of another cluster than nodes {members}:"),
                "does not belong to theirs",
                say,
            ),
        }
    }

    /// There is a cluster: what is missing from here on is not missing at a first start.
    fn begun(&mut self) {
        self.waited_for.clear();
    }

    /// A node that runs and takes no part, because of its directory; told once.
    fn leave_out(
        &mut self,
        id: u64,
        why: &str,
        of_directory: &str,
        say: &mut dyn FnMut(String),
    ) -> Result<(), Failure> {
        self.begun();
        if !self.lost.contains(&id) {
            say(format!("{why} {} {of_directory}", data_directory(&self.data, id).display()));
        }
        self.lose(id, say)
    }

    /// One node less; a failure if too few are left.
    fn lose(&mut self, id: u64, say: &mut dyn FnMut(String)) -> Result<(), Failure> {
        if !self.lost.insert(id) {
            return Ok(());
        }
        if self.lost.len() > NODES / 2 {
            let lost = self.lost.iter().map(u64::to_string).collect::<Vec<_>>().join(" and ");
            let text = format!(
                "nodes {lost} are gone, so nothing can be served: put right what is said above, \
                 then start again. Until then keep {}: if anything was acknowledged, it may be on \
                 them alone",
                self.data.display()
            );
            return Err(Failure::new(FailureKind::Run, text));
        }
        // Before anybody serves it may be a first start, which nobody goes on with.
        if self.leader_announced {
            self.tell_of_loss(id, say);
        }
        Ok(())
    }

    fn tell_of_loss(&self, id: u64, say: &mut dyn FnMut(String)) {
        say(format!("the others can go on without node {id}, they have all that was acknowledged"));
        say(format!(
            "nothing can take its place yet: keep {}, and start the demo again if node {id} can be \
             put right",
            self.data.display()
        ));
    }

    /// Clients of the node that serves, and of those that are not lost.
    fn what_to_try(&self, id: u64) -> String {
        let others = IDS.into_iter().filter(|other| *other != id && !self.lost.contains(other));
        let ports = others.map(|other| client_port(self.port, other).to_string());
        format!(
            "try: redis-cli -p {}     (or {})",
            client_port(self.port, id),
            ports.collect::<Vec<_>>().join(", ")
        )
    }
}

fn cannot_begin(id: u64) -> Failure {
    let text = format!(
        "node {id} cannot start and is waited for, because a first start needs all three: put \
         right what it said, then start again"
    );
    Failure::new(FailureKind::Run, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said of these events, the failure last.
    fn told(events: impl IntoIterator<Item = ChildEvent>) -> Vec<String> {
        let mut story = Story::new(7001, PathBuf::from("d"));
        let mut lines = Vec::new();
        for event in events {
            if let Err(failure) = story.tell(event, &mut |line| lines.push(line)) {
                lines.push(failure.to_string());
                break;
            }
        }
        lines
    }

    fn ready(id: u64) -> ChildEvent {
        ChildEvent::Ready { id, process: 7, leader: "2".to_owned() }
    }

    fn gave_up(id: u64) -> ChildEvent {
        ChildEvent::GaveUp { id, how: "ended with exit code 4".to_owned() }
    }

    fn waits(missing: u64) -> ChildEvent {
        ChildEvent::Waits { missing: vec![missing] }
    }

    fn assert_last(events: impl IntoIterator<Item = ChildEvent>, text: &str) {
        let lines = told(events);
        assert!(lines.last().is_some_and(|line| line.contains(text)), "{text}: {lines:?}");
    }

    #[test]
    fn a_first_start_ends_with_a_node_that_is_waited_for_in_either_order() {
        assert_last([waits(3), gave_up(3)], "node 3 cannot start and is waited for");
        assert_last([gave_up(3), waits(3)], "node 3 cannot start and is waited for");
    }

    #[test]
    fn a_node_that_was_late_at_the_first_start_is_a_loss_like_another_when_all_have_met() {
        let begun = || [waits(3), ready(2), ready(3), ready(1)];
        assert_last(begun().into_iter().chain([gave_up(3)]), "if node 3 can be put right");
        let gone = [waits(3), ChildEvent::NotAdmitted { id: 1 }, gave_up(3)];
        assert_last(gone, "nodes 1 and 3 are gone");
    }

    #[test]
    fn two_losses_end_it_and_what_only_they_may_hold_is_to_be_kept() {
        let foreign = || ChildEvent::Foreign { id: 1, members: "2,3".to_owned() };
        for first in [gave_up(1), ChildEvent::NotAdmitted { id: 1 }, foreign()] {
            let lines = told([first, ready(2), gave_up(3)]);
            let [.., last] = &lines[..] else { panic!("{lines:?}") };
            assert!(last.contains("nodes 1 and 3 are gone"), "{last}");
            assert!(last.contains("keep d: if anything was acknowledged"), "{last}");
        }
    }

    #[test]
    fn a_node_that_comes_back_is_no_loss_any_more() {
        let back = [ready(2), ChildEvent::NotAdmitted { id: 1 }, ready(1), gave_up(3)];
        assert_last(back, "if node 3 can be put right");
    }

    #[test]
    fn a_loss_is_told_once_and_its_port_is_not_one_to_try() {
        let lost = || ChildEvent::NotAdmitted { id: 1 };
        let lines = told([lost(), ready(2), lost(), gave_up(1)]);
        let count = |text: &str| lines.iter().filter(|line| line.contains(text)).count();
        assert_eq!(
            count(
                "node 1 is not admitted: the cluster takes only its old directory back, and d/1 was emptied"
            ),
            1,
            "{lines:?}"
        );
        assert_eq!(count("nothing can take its place"), 1, "{lines:?}");
        assert_eq!(count("try: redis-cli -p 7002     (or 7003)"), 1, "{lines:?}");
    }

    #[test]
    fn the_others_are_spoken_of_when_one_of_them_serves() {
        let lines = told([gave_up(1), ready(3)]);
        assert_eq!(lines[0], "node 1 ended with exit code 4; it is not started again");
        assert_eq!(lines[1], "node 3 serves in process 7; node 2 leads");
        assert!(lines[2].starts_with("the others can go on without node 1, they have all"));
    }
}
