//! What becomes of messages and connections.

use std::collections::BTreeMap;

use bytes::Bytes;
use kontiki::steps::{is_of_image, protocol_message};

use crate::world::{
    World,
    agenda::Event,
    network::{Lane, Sent},
    parameters::{MS, Rules},
};

/// What stands between the nodes at the moment.
#[derive(Debug)]
pub(super) struct Links {
    rules: Rules,
    /// How many faults stop messages from one to another.
    blocked: BTreeMap<(u64, u64), u64>,
    /// How much longer they take.
    clogged: BTreeMap<(u64, u64), u64>,
    /// When the last message that keeps its place arrives, and the last piece of an image.
    last: BTreeMap<(u64, u64, Lane), u64>,
}

impl Links {
    pub(super) fn new(rules: Rules) -> Self {
        Self { rules, blocked: BTreeMap::new(), clogged: BTreeMap::new(), last: BTreeMap::new() }
    }

    pub(super) fn block(&mut self, links: &[(u64, u64)]) {
        links.iter().for_each(|&link| *self.blocked.entry(link).or_default() += 1);
    }

    pub(super) fn unblock(&mut self, links: &[(u64, u64)]) {
        for link in links {
            if let Some(count) = self.blocked.get_mut(link) {
                *count = count.saturating_sub(1);
            }
        }
    }

    pub(super) fn clog(&mut self, link: (u64, u64), delay: u64) {
        *self.clogged.entry(link).or_default() += delay;
    }

    pub(super) fn unclog(&mut self, link: (u64, u64), delay: u64) {
        if let Some(sum) = self.clogged.get_mut(&link) {
            *sum = sum.saturating_sub(delay);
        }
    }

    /// From now on nothing goes wrong.
    pub(super) fn heal(&mut self) {
        self.rules = Rules::CALM;
        self.blocked.clear();
        self.clogged.clear();
    }

    fn is_blocked(&self, from: u64, to: u64) -> bool {
        self.blocked.get(&(from, to)).is_some_and(|&count| count > 0)
    }
}

/// What happened to a message at a node, and with which other one, as a line of the trace.
fn told(event: &str, node: u64, peer: u64, message: &Bytes) -> String {
    let known = protocol_message(message);
    let term = known.as_ref().map_or(0, |known| known.term().0);
    let text = known.map_or_else(|| "Other".to_owned(), |known| format!("{known:?}"));
    let kind = text.split('(').next().unwrap_or_default();
    let escaped = text.replace('\\', "\\\\").replace('"', "\\\"");
    let bytes = message.len();
    format!(
        "\"node\":{node},\"event\":\"{event}\",\"peer\":{peer},\"kind\":\"{kind}\",\"term\":{term},\"bytes\":{bytes},\"message\":\"{escaped}\""
    )
}

impl World<'_> {
    /// Puts what was sent on its way.
    pub(super) fn carry(&mut self) -> Result<(), String> {
        self.coverage.add_to("a message finds a full queue", self.network.take_refused());
        for sent in self.network.take_sent() {
            let message = protocol_message(&sent.message);
            if let Some(message) = &message {
                let host = usize::try_from(sent.from - 1).expect("a few nodes");
                self.checks.hear(&self.hosts[host], sent.to, message)?;
            }
            self.note(|| told("send", sent.from, sent.to, &sent.message));
            self.send(sent, message.is_some());
        }
        Ok(())
    }

    fn send(&mut self, sent: Sent, is_protocol: bool) {
        let (link, rules) = ((sent.from, sent.to), self.links.rules);
        if self.links.is_blocked(link.0, link.1) {
            return self.note(|| told("blocked", link.0, link.1, &sent.message));
        }
        if self.random.chance(rules.loss) {
            self.note(|| told("lost", link.0, link.1, &sent.message));
            return self.coverage.count("a message is lost");
        }
        let repeats = if is_protocol {
            self.random.chance(rules.repeats)
        } else {
            is_of_image(&sent.message) && self.repeats.chance(rules.repeats)
        };
        for _ in 0..=u64::from(repeats) {
            let (least, most) = rules.delay;
            let clogged = self.links.clogged.get(&link).copied().unwrap_or(0);
            let mut at = self.now + least + self.random.below(most - least + 1) + clogged;
            let last = self.links.last.entry((link.0, link.1, sent.lane)).or_default();
            if is_protocol && self.random.chance(rules.overtakes) {
                if at < *last {
                    self.coverage.count("a message overtakes");
                }
            } else {
                at = at.max(*last + 1);
                *last = at;
            }
            self.queue(at - self.now, Event::Deliver(Box::new(sent.clone())));
        }
        if repeats {
            self.coverage.count("a message comes twice");
        }
        if is_protocol && rules.repeats > 0 && self.parameters.is_aimed && self.lates.chance(1) {
            let after = self.lates.between(500, 5_000) * MS;
            self.queue(after, Event::Deliver(Box::new(sent.again())));
        }
    }

    pub(super) fn deliver(&mut self, sent: &Sent) -> Result<(), String> {
        let (from, to) = (sent.from, sent.to);
        let delivered = self.network.deliver(sent);
        let delivered = delivered
            .map_err(|reason| format!("node {to} does not know what node {from} says: {reason}"))?;
        self.note(|| told(if delivered { "receive" } else { "too late" }, to, from, &sent.message));
        if delivered {
            if sent.is_late {
                self.coverage.count("a message comes again after seconds");
            }
            self.plan(usize::try_from(to - 1).expect("a few nodes"));
        }
        Ok(())
    }

    /// Nodes that want to be connected are, now and then, where nothing is between them.
    pub(super) fn connect(&mut self) {
        for (a, b) in self.network.unconnected() {
            let host = |id: u64| &self.hosts[usize::try_from(id - 1).expect("a few nodes")];
            let is_paused = host(a).paused_until > self.now || host(b).paused_until > self.now;
            let is_blocked = self.links.is_blocked(a, b) || self.links.is_blocked(b, a);
            if !is_paused && !is_blocked && self.random.chance(70) {
                self.network.connect(a, b);
                self.plan_of(a, b);
            }
        }
        let pause = self.random.between(5, 40) * MS;
        self.queue(pause, Event::Connect);
    }

    pub(super) fn break_connection(&mut self, a: u64, b: u64) {
        if self.parameters.is_aimed && self.ways.chance(40) {
            if self.network.break_way(a, b) {
                self.coverage.count("one direction of a connection breaks");
                self.plan_of(a, b);
            }
        } else if self.network.has_connection(a, b) {
            self.coverage.count("a connection breaks");
            self.network.disconnect(a, b, "the world breaks it");
            self.plan_of(a, b);
        }
    }

    fn plan_of(&mut self, a: u64, b: u64) {
        for id in [a, b] {
            self.plan(usize::try_from(id - 1).expect("a few nodes"));
        }
    }

    /// Whoever is connected over these links learns some time later that nothing comes any more.
    pub(super) fn break_later(&mut self, links: impl IntoIterator<Item = (u64, u64)>) {
        for (a, b) in links {
            let after = self.random.between(1, 2_000) * MS;
            self.queue(after, Event::Break { a, b });
        }
    }
}
