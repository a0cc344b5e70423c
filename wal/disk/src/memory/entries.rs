//! The names in one directory of the memory disk: what programs see, and what is on the medium.

use std::{collections::BTreeMap, fmt, sync::Arc};

use super::node::Node;

/// Names and the files they stand for.
pub(super) type Names = BTreeMap<Arc<str>, Arc<Node>>;

/// One directory's names twice, and what happened in between.
#[derive(Clone, Debug, Default)]
pub(super) struct Entries {
    /// What programs see.
    pub(super) visible: Names,
    /// What is left if nothing unsynced survives.
    pub(super) durable: Names,
    /// What was done since the last successful sync, in order.
    pub(super) pending: Vec<Change>,
}

/// One thing done to a directory.
#[derive(Clone, Debug)]
pub(super) enum Change {
    /// A new file got `name`.
    Create { name: Arc<str>, node: Arc<Node> },
    /// `node` went from one name to another, over the file that had it.
    Rename { from: Arc<str>, to: Arc<str>, node: Arc<Node>, replaced: Option<Arc<Node>> },
    /// `node` lost its name.
    Remove { name: Arc<str>, node: Arc<Node> },
}

impl Entries {
    pub(super) fn create(&mut self, name: Arc<str>, node: Arc<Node>) {
        self.change(Change::Create { name, node });
    }

    /// False if there is no `from`.
    pub(super) fn rename(&mut self, from: &str, to: &str) -> bool {
        let Some((from, node)) = self.visible.get_key_value(from) else {
            return false;
        };
        let (from, node) = (Arc::clone(from), Arc::clone(node));
        if *from != *to {
            let replaced = self.visible.get(to).cloned();
            self.change(Change::Rename { from, to: to.into(), node, replaced });
        }
        true
    }

    /// False if there is no `name`.
    pub(super) fn remove(&mut self, name: &str) -> bool {
        let Some((name, node)) = self.visible.get_key_value(name) else {
            return false;
        };
        let (name, node) = (Arc::clone(name), Arc::clone(node));
        self.change(Change::Remove { name, node });
        true
    }

    /// The name that a file has by now.
    pub(super) fn name_of(&self, node: &Node) -> Option<&Arc<str>> {
        self.visible.iter().find_map(|(name, there)| (there.id == node.id).then_some(name))
    }

    pub(super) fn sync(&mut self) {
        self.durable = self.visible.clone();
        self.pending.clear();
    }

    /// The names after a power cut that kept the pending changes for which `keep` says so.
    pub(super) fn image(&self, mut keep: impl FnMut(&Change) -> bool) -> Names {
        let mut names = self.durable.clone();
        for change in self.pending.iter().filter(|change| keep(change)) {
            change.apply(&mut names);
        }
        names
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.visible);
        self.pending.push(change);
    }
}

impl Change {
    /// The file and the name it had, or lost, last.
    pub(super) fn newest(&self) -> (&Arc<str>, &Arc<Node>) {
        match self {
            Self::Create { name, node } | Self::Remove { name, node } => (name, node),
            Self::Rename { to, node, .. } => (to, node),
        }
    }

    pub(super) fn each_node(&mut self, mut each: impl FnMut(&mut Arc<Node>)) {
        match self {
            Self::Create { node, .. } | Self::Remove { node, .. } => each(node),
            Self::Rename { node, replaced, .. } => {
                each(node);
                replaced.iter_mut().for_each(each);
            }
        }
    }

    /// Lands where the name it writes is free or stands for what it stood for when this was done;
    /// elsewhere an earlier change was lost that this one needs, and nothing happens. So a rename
    /// may land although the create before it was lost, and a file that was renamed keeps one of
    /// its names.
    fn apply(&self, names: &mut Names) {
        match self {
            Self::Create { name, node } => {
                names.entry(Arc::clone(name)).or_insert_with(|| Arc::clone(node));
            }
            Self::Rename { from, to, node, replaced } => {
                let there = names.get(to);
                if there.is_some_and(|there| {
                    !is(there, node) && !replaced.as_ref().is_some_and(|old| is(there, old))
                }) {
                    return;
                }
                if names.get(from).is_some_and(|there| is(there, node)) {
                    names.remove(from);
                }
                names.insert(Arc::clone(to), Arc::clone(node));
            }
            Self::Remove { name, node } => {
                if names.get(name).is_some_and(|there| is(there, node)) {
                    names.remove(name);
                }
            }
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create { name, .. } => write!(formatter, "create {name}"),
            Self::Rename { from, to, .. } => write!(formatter, "rename {from} to {to}"),
            Self::Remove { name, .. } => write!(formatter, "remove {name}"),
        }
    }
}

fn is(one: &Arc<Node>, other: &Arc<Node>) -> bool {
    one.id == other.id
}
