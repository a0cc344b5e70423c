//! What must hold after every step of a world, whatever went wrong before: the safety properties of Raft (Ongaro and Ousterhout
//! 2014, figure 3), and that nobody acknowledges what is not on a disk.

use std::collections::BTreeMap;

use kontiki_core::{
    AppendOutcome, AppendResponse, Incarnation, Message, Position, Role, State, VoteKind,
};
use kontiki_wal::Log;

use crate::world::{
    host::{Host, LOG},
    machine::Ledger,
};

/// What was seen of one node.
#[derive(Debug, Default)]
struct Seen {
    term: u64,
    committed: u64,
    /// What is committed up to here was compared with what others have committed.
    checked: u64,
    /// The terms of the entries that are durable there, from index 1.
    durable: Vec<u64>,
    /// How many were durable there before its last turn.
    durable_before: usize,
    /// Counts what it has called durable, and the terms that it has spoken in.
    claims: u64,
    /// The newest term that it has vouched for in a message, whatever became of its process since.
    said: u64,
    is_leader: bool,
    /// Where its newest image ends, as it has said.
    image_end: u64,
    /// By which its disk is known.
    name: Option<Incarnation>,
    /// Its last turn ended with a failure, and its disk cannot be asked what it had by then: the terms of its log, as far as which
    /// it may still vouch for entries.
    unseen: Vec<u64>,
}

/// What was seen of all.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    nodes: BTreeMap<u64, Seen>,
    /// Who led in each term.
    leaders: BTreeMap<u64, u64>,
    /// The terms of what is committed, from index 1, each with the term of the node that was seen to know it first.
    committed: Vec<(u64, u64)>,
    /// By index and term of an entry: the term of the one before.
    before: BTreeMap<(u64, u64), u64>,
    /// Whom each node has given its vote in each term.
    votes: BTreeMap<(u64, u64), u64>,
    majority: usize,
}

/// What a look at a node found that is worth counting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct News {
    /// It leads, and did not before.
    pub(crate) leads: bool,
    /// It has cut entries off that were durable.
    pub(crate) truncated: bool,
    /// So many entries are committed that nobody had committed before.
    pub(crate) commits: u64,
}

impl Checks {
    pub(crate) fn new(majority: usize) -> Self {
        Self { majority, ..Self::default() }
    }

    /// How many entries are committed.
    pub(crate) fn committed(&self) -> u64 {
        self.committed.len() as u64
    }

    /// The terms of what is committed up to `index`, all of which an image contains.
    fn committed_to(&self, index: u64) -> Result<Vec<u64>, String> {
        let end = usize::try_from(index).expect("a short log");
        let terms = self.committed.get(..end).map(|all| all.iter().map(|&(term, _)| term));
        terms.map(Iterator::collect).ok_or_else(|| {
            format!("an image ends at {index}, and {} entries are committed", self.committed.len())
        })
    }

    /// Grows with everything that a node has claimed.
    pub(crate) fn claims(&self, id: u64) -> u64 {
        self.nodes.get(&id).map_or(0, |seen| seen.claims)
    }

    /// Whether a node has called an entry durable, and has not cut it off since.
    pub(crate) fn has_claimed(&self, id: u64, index: u64, term: u64) -> bool {
        let place = usize::try_from(index - 1).expect("a short log");
        let seen = self.nodes.get(&id);
        seen.is_some_and(|seen| seen.durable.get(place) == Some(&term))
    }

    /// Whom a node has told that it votes for in a term; 0 if nobody.
    pub(crate) fn vote(&self, id: u64, term: u64) -> u64 {
        self.votes.get(&(id, term)).copied().unwrap_or(0)
    }

    /// Looks at a node that has just done a turn.
    pub(crate) fn observe(&mut self, host: &Host) -> Result<News, String> {
        let Some(steps) = &host.steps else { return Ok(News::default()) };
        let seen = self.nodes.entry(host.id).or_default();
        seen.durable_before = seen.durable.len();
        let Some(core) = steps.core() else {
            self.take_failed(host)?;
            return Ok(News::default());
        };
        core.check();
        let (id, status, cursors) = (host.id, core.status(), core.cursors());
        let compacted = status.compacted.index.0;
        let log = steps.wal().log(LOG).map_err(|error| error.to_string())?;
        self.nodes.entry(id).or_default().unseen.clear();
        let mut news = News {
            truncated: self.take_durable(id, cursors.durable.0, &log, compacted)?,
            ..News::default()
        };
        for Position { term, index } in [status.snapshot, status.compacted] {
            let place = usize::try_from(index.0).expect("a short log").checked_sub(1);
            let known = place.and_then(|place| self.committed.get(place));
            if known.is_some_and(|known| known.0 != term.0) {
                return Err(format!(
                    "node {id} has a snapshot or a log that begins behind {term}/{index}, where another term was committed"
                ));
            }
        }
        let seen = self.nodes.entry(id).or_default();
        seen.image_end = seen.image_end.max(status.snapshot.index.0);
        let (term, committed) = (status.term.0, cursors.committed.0);
        if term < seen.term || committed < seen.committed {
            let (old_term, old) = (seen.term, seen.committed);
            return Err(format!(
                "node {id} goes back from term {old_term}, commit {old} to term {term}, commit {committed}"
            ));
        }
        (seen.term, seen.committed) = (term, committed);
        let leads = status.role == Role::Leader;
        let led = std::mem::replace(&mut seen.is_leader, leads);
        news.leads = leads && !led;
        // The log still shows the entries that a queued write replaces: then only those that are durable are the protocol's.
        let is_level = log.last() == cursors.last.index.0
            && log.term(log.last()).unwrap_or(0) == cursors.last.term.0;
        let known = if is_level { u64::MAX } else { cursors.durable.0 };
        while let Some(index) = self.nodes.get(&id).map(|seen| seen.checked + 1)
            && index <= committed.min(known)
            && let Some(term) = term_of(&self.committed, &log, compacted, index)
        {
            news.commits += u64::from(index > self.committed());
            self.take_committed(id, index, term)?;
            self.nodes.entry(id).or_default().checked = index;
        }
        if leads {
            self.take_leader(id, term)?;
        }
        if news.leads {
            self.check_completeness(id, term, known, &log, compacted)?;
        }
        Ok(news)
    }

    /// What is durable on a node by its own account; true if something that was is gone.
    fn take_durable(
        &mut self,
        id: u64,
        durable: u64,
        log: &Log,
        compacted: u64,
    ) -> Result<bool, String> {
        let seen = self.nodes.entry(id).or_default();
        let held = seen.durable.len();
        let end = usize::try_from(durable).expect("a short log");
        while let Some(&term) = seen.durable.last()
            && (seen.durable.len() > end
                || term_of(&self.committed, log, compacted, seen.durable.len() as u64)
                    != Some(term))
        {
            seen.durable.pop();
            expect_uncommitted(&self.committed, id, seen.durable.len(), term, seen.term)?;
        }
        let truncated = seen.durable.len() < held;
        for index in seen.durable.len() as u64 + 1..=durable {
            let term = term_of(&self.committed, log, compacted, index)
                .ok_or_else(|| format!("node {id} vouches for index {index}, and has it not"))?;
            let before = seen.durable.last().copied().unwrap_or(0);
            seen.durable.push(term);
            seen.claims += 1;
            let known = *self.before.entry((index, term)).or_insert(before);
            if known != before {
                return Err(format!(
                    "node {id} has term {before} before entry {index} of term {term}, another one {known}"
                ));
            }
        }
        Ok(truncated)
    }

    /// An entry is committed as one node knows.
    fn take_committed(&mut self, id: u64, index: u64, term: u64) -> Result<(), String> {
        let place = usize::try_from(index - 1).expect("a short log");
        if let Some(&(known, _)) = self.committed.get(place) {
            if known != term {
                return Err(format!(
                    "node {id} has committed term {term} at index {index}, another one term {known}"
                ));
            }
            return Ok(());
        }
        if place != self.committed.len() {
            return Err(format!(
                "node {id} has committed index {index}, and nobody the one before"
            ));
        }
        let known_in = self.nodes.get(&id).map_or(0, |seen| seen.term);
        self.committed.push((term, known_in));
        let holds = |seen: &&Seen| seen.durable.get(place) == Some(&term);
        let holders = self.nodes.values().filter(holds).count();
        if holders < self.majority {
            return Err(format!(
                "node {id} has committed index {index} of term {term}, which is durable on {holders} nodes"
            ));
        }
        Ok(())
    }

    fn take_leader(&mut self, id: u64, term: u64) -> Result<(), String> {
        let known = *self.leaders.entry(term).or_insert(id);
        if known != id {
            return Err(format!("nodes {known} and {id} lead in term {term}"));
        }
        Ok(())
    }

    /// A new leader has what was committed in earlier terms, as far as its log can be asked. It may itself not know yet that
    /// there are later ones.
    fn check_completeness(
        &self,
        id: u64,
        term: u64,
        known: u64,
        log: &Log,
        compacted: u64,
    ) -> Result<(), String> {
        let was_earlier = |&(_, known_in): &(u64, u64)| known_in < term;
        let Some(place) = self.committed.iter().rposition(was_earlier) else { return Ok(()) };
        let (index, committed) = (place as u64 + 1, self.committed[place].0);
        if index <= known && term_of(&self.committed, log, compacted, index) != Some(committed) {
            return Err(format!(
                "node {id} leads in term {term} without the committed entry {index}"
            ));
        }
        Ok(())
    }

    /// Looks at what a node says, which has been observed since it decided to.
    pub(crate) fn hear(&mut self, host: &Host, to: u64, message: &Message) -> Result<(), String> {
        let from = host.id;
        if matches!(message, Message::AppendEntries(_) | Message::InstallSnapshot(_)) {
            self.take_leader(from, message.term().0)?;
        }
        let seen = self.nodes.entry(from).or_default();
        let vouches = match message {
            Message::VoteRequest(request) => request.kind == VoteKind::Real,
            Message::VoteResponse(response) => response.kind == VoteKind::Real,
            Message::AppendEntries(_)
            | Message::InstallSnapshot(_)
            | Message::AppendResponse(_) => true,
            _ => false,
        };
        let term = message.term().0;
        if vouches && term < seen.said {
            return Err(format!(
                "node {from} speaks in term {term}, and did in {} before",
                seen.said
            ));
        }
        if vouches {
            seen.claims += u64::from(term > seen.said);
            seen.said = term;
        }
        if let Message::InstallSnapshot(offer) = message {
            let Position { term, index } = offer.at;
            let place = usize::try_from(index.0).expect("a short log").checked_sub(1);
            let known = place.and_then(|place| self.committed.get(place));
            if known.is_none_or(|known| known.0 != term.0) {
                return Err(format!(
                    "node {from} offers a snapshot up to {term}/{index}, where {known:?} is committed"
                ));
            }
        }
        if let Message::AppendResponse(response) = message {
            return self.take_acknowledgement(host, response);
        }
        let candidate = match message {
            Message::VoteRequest(request) if request.kind == VoteKind::Real => from,
            Message::VoteResponse(response)
                if response.kind == VoteKind::Real && response.granted =>
            {
                to
            }
            _ => return Ok(()),
        };
        let voted = *self.votes.entry((from, term)).or_insert(candidate);
        if voted != candidate {
            return Err(format!(
                "node {from} votes for {voted} and for {candidate} in term {term}"
            ));
        }
        Ok(())
    }

    /// Looks at the answer to an append: what it acknowledges is durable.
    fn take_acknowledgement(
        &mut self,
        host: &Host,
        response: &AppendResponse,
    ) -> Result<(), String> {
        let AppendOutcome::Matched(matched) = response.outcome else { return Ok(()) };
        let seen = self.nodes.entry(host.id).or_default();
        let index = usize::try_from(matched.0).expect("a short log");
        let durable = seen.durable.len();
        // One turn may answer the old leader and then cut off for the new one what it has vouched for.
        let core = host.steps.as_ref().and_then(|steps| steps.core());
        let is_later = core.is_some_and(|core| core.status().term > response.term);
        let before = if is_later { seen.durable_before } else { 0 };
        if index <= durable.max(before) {
            return Ok(());
        }
        if index <= seen.unseen.len() {
            seen.durable.extend_from_slice(&seen.unseen[durable..index]);
            return Ok(());
        }
        if is_later && was_cut_off(host, matched.0, response.term.0)? {
            return Ok(());
        }
        Err(format!(
            "node {} acknowledges index {index}, and {durable} are durable there, {before} before its turn: {response:?}",
            host.id
        ))
    }

    /// Looks at the disk of a node whose last turn ended with a failure: what it learned of its log in that turn, it does not tell
    /// any more.
    fn take_failed(&mut self, host: &Host) -> Result<(), String> {
        let Some(steps) = &host.steps else { return Ok(()) };
        let log = steps.wal().log(LOG).map_err(|error| error.to_string())?;
        if host.is_sound() && !host.is_doubtful() {
            self.compare_disk(host)?;
            // What the log has replaced since, the disk can still have as it was.
            let held = host.durable()?;
            let in_image = held.image_end.max(log.first() - 1);
            let mut stands = self.committed_to(in_image)?;
            stands.extend(
                (in_image + 1..).map_while(|index| {
                    held.term(index).filter(|&term| log.term(index) == Some(term))
                }),
            );
            let seen = self.nodes.entry(host.id).or_default();
            for (place, &term) in seen.durable.iter().enumerate().skip(stands.len()) {
                expect_uncommitted(&self.committed, host.id, place, term, seen.term)?;
            }
            seen.durable = stands;
        } else {
            let committed = &self.committed;
            let terms = (1..=log.last()).map_while(|index| term_of(committed, &log, 0, index));
            let terms: Vec<u64> = terms.collect();
            self.nodes.entry(host.id).or_default().unseen = terms;
        }
        Ok(())
    }

    /// What a node has called durable, and what it has vouched for, is what its disk holds, were the power cut now and nothing
    /// kept that was not synced.
    pub(crate) fn compare_disk(&self, host: &Host) -> Result<(), String> {
        let (id, Some(seen)) = (host.id, self.nodes.get(&host.id)) else { return Ok(()) };
        if seen.durable.is_empty() && seen.said == 0 {
            return Ok(());
        }
        let held = host.durable().map_err(|what| format!("node {id}'s disk: {what}"))?;
        // A log that does not hold the end of the image is begun anew behind it, now or by the next start.
        let end = usize::try_from(held.image_end).expect("a short log").checked_sub(1);
        let said_there = end.and_then(|end| seen.durable.get(end).copied());
        let goes_on = end.is_none()
            || held.image_end + 1 == held.first
            || held.term(held.image_end).is_some_and(|term| said_there == Some(term));
        for (index, &said) in (1..).zip(&seen.durable) {
            let term = held.term(index);
            let has_to_be = if goes_on { index >= held.first } else { index > held.image_end };
            if has_to_be && term != Some(said) {
                return Err(format!(
                    "node {id} has called entry {index} of term {said} durable, and its disk holds there {term:?}"
                ));
            }
        }
        self.check_promises(id, seen.said, held.state.as_ref())
            .map_err(|what| format!("{what}, by its disk"))
    }

    /// The newest term that a node has spoken in is the one that it remembers, or an earlier one than that; so is its vote.
    fn check_promises(&self, id: u64, said: u64, state: Option<&State>) -> Result<(), String> {
        let hard = state.map(|state| state.hard).unwrap_or_default();
        let vote = self.votes.get(&(id, hard.term.0)).copied();
        let remembered = hard.vote.map(|vote| vote.0);
        if hard.term.0 < said || vote.is_some() && vote != remembered {
            let term = hard.term;
            return Err(format!(
                "node {id} has spoken in term {said} and voted for {vote:?}, and remembers {term} and {remembered:?}"
            ));
        }
        Ok(())
    }

    /// What was applied is what was committed.
    pub(crate) fn compare_applied(&self, ledger: &Ledger) -> Result<(), String> {
        for (index, term) in ledger.positions() {
            let place = usize::try_from(index - 1).expect("a short log");
            if self.committed.get(place).map(|committed| committed.0) != Some(term) {
                return Err(format!("entry {index} of term {term} was applied and not committed"));
            }
        }
        Ok(())
    }

    /// A node has started on what its disk holds: what was durable there still is. False if it is not.
    pub(crate) fn take_start(&mut self, host: &Host) -> Result<bool, String> {
        let Some(steps) = &host.steps else { return Ok(true) };
        let log = steps.wal().log(LOG).map_err(|error| error.to_string())?;
        let committed: Vec<u64> = self.committed.iter().map(|&(term, _)| term).collect();
        let seen = self.nodes.entry(host.id).or_default();
        (seen.committed, seen.checked, seen.is_leader) = (0, 0, false);
        seen.durable_before = 0;
        seen.unseen.clear();
        seen.term = steps.core().map_or(0, |core| core.status().term.0);
        // A log that began anew behind a snapshot has given up what contradicts that.
        let base = steps.core().map_or(0, |core| core.status().snapshot.index.0);
        let place = usize::try_from(base).expect("a short log");
        let is_at = |terms: &[u64]| place == 0 || terms.get(place - 1) == committed.get(place - 1);
        if !is_at(&seen.durable) {
            seen.durable = committed[..place.min(committed.len())].to_vec();
        }
        let mut terms = (1..).zip(&seen.durable);
        let are_entries_kept = terms.all(|(index, &term)| {
            index < log.first() && index <= base || log.term(index) == Some(term)
        });
        let state = log.state().and_then(|bytes| State::decode(&bytes).ok().flatten());
        // What is in an image that was visible stays committed and applied.
        let is_image_kept = steps.core().is_none() || base >= seen.image_end || host.is_doubtful();
        // Who has lost everything calls himself something new.
        let name = state.as_ref().map(|state| state.incarnation);
        let is_known = !host.was_member || name == seen.name;
        seen.name = name;
        let said = seen.said;
        let is_kept = is_known
            && are_entries_kept
            && is_image_kept
            && self.check_promises(host.id, said, state.as_ref()).is_ok();
        if is_kept {
            self.take_durable(host.id, log.last(), &log, 0)?;
        }
        Ok(is_kept)
    }
}

/// Whether an entry that a node has acknowledged to the leader of `term` was durable there, though neither before nor behind the turn
/// in which it did: one that was paused may learn that, say it, and cut the entry off for a later leader, all in one turn. By then
/// its disk still has the entry, and its log another one or none.
fn was_cut_off(host: &Host, index: u64, term: u64) -> Result<bool, String> {
    let Some(steps) = &host.steps else { return Ok(false) };
    if !host.is_sound() || host.is_doubtful() {
        return Ok(true); // Its disk is not asked.
    }
    let log = steps.wal().log(LOG).map_err(|error| error.to_string())?;
    let held = host.durable()?.term(index);
    Ok(held.is_some_and(|held| held <= term && log.term(index) != Some(held)))
}

/// A node that was in the term `known` has cut off an entry of the term `was` that was durable there. If it has not heard of the
/// leader that has committed it, it is none of those that were counted, and may do so for a leader before that one, whose message
/// it hears only now.
fn expect_uncommitted(
    committed: &[(u64, u64)],
    id: u64,
    place: usize,
    was: u64,
    known: u64,
) -> Result<(), String> {
    match committed.get(place) {
        Some(&(term, since)) if term == was && known >= since => Err(format!(
            "node {id} has cut off entry {} of term {term}, which was durable there and is committed",
            place + 1
        )),
        _ => Ok(()),
    }
}

/// The term of an entry: what is not in the log any more, or will not be once what waits for the log is done, is in a snapshot, and
/// committed.
fn term_of(committed: &[(u64, u64)], log: &Log, compacted: u64, index: u64) -> Option<u64> {
    if index >= log.first() && index > compacted {
        return log.term(index);
    }
    let place = usize::try_from(index.checked_sub(1)?).expect("a short log");
    committed.get(place).map(|&(term, _)| term)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_committed_is_cut_off_only_by_who_has_not_heard_of_the_leader_that_committed_it() {
        // Entry 2 of term 1 was committed by the leader of term 9.
        let committed = [(1, 1), (1, 9)];
        let expect = |was, known| expect_uncommitted(&committed, 3, 1, was, known).is_ok();
        assert!(expect(1, 8), "it follows a leader before that one");
        assert!(expect(7, 9), "another entry");
        assert!(!expect(1, 9) && !expect(1, 10));
    }
}
