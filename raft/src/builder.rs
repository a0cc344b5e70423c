//! Setting up a node.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use kontiki_core::{Instant, State};
use kontiki_disk::Disk;

use crate::{
    Node, Options, StartError, StateMachine,
    applier::{Applier, ApplyQueue},
    bootstrap::{self, FirstStart, Identity},
    clock::Clock,
    driver::{Driver, Neighbours},
    entropy::Entropy,
    fetcher::FetchQueue,
    forward::Forwards,
    node::{Threads, Workers, spawn},
    port::Port,
    shared::Shared,
    snapshots::{
        keeper::{Keeper, KeeperQueue},
        start,
    },
    steps::Steps,
    storage::{self, Storage},
    transport::{Hello, TcpOptions, TcpTransport, Transport},
};

/// Sets up a node; made by [`Node::builder`].
#[derive(Debug)]
#[must_use = "nothing runs before `start`"]
pub struct Builder {
    id: u64,
    directory: PathBuf,
    listen: Option<String>,
    members: Vec<(u64, String)>,
    options: Options,
    disk: Option<Arc<dyn Disk>>,
    transport: Option<Box<dyn Transport>>,
}

impl Builder {
    pub(crate) fn new(id: u64, directory: &Path) -> Self {
        Self {
            id,
            directory: directory.to_owned(),
            listen: None,
            members: Vec::new(),
            options: Options::default(),
            disk: None,
            transport: None,
        }
    }

    /// Where this node listens, `host:port`. By default the address that the initial members name
    /// for it. An address given here is taken before the directory is. Of no use with a
    /// [`transport`](Self::transport) of your own.
    pub fn listen(mut self, address: impl Into<String>) -> Self {
        self.listen = Some(address.into());
        self
    }

    /// All members of a new cluster, this node among them, each with the address (`host:port`, at
    /// most 90 bytes) at which its peers reach it; at most 16.
    ///
    /// Give the same list to every one of them. It is used once, when the data directory is empty:
    /// then the node waits until all of them have been started. Later the cluster's own
    /// configuration counts, and a list that differs is ignored with a warning.
    pub fn initial_members<A: Into<String>>(
        mut self,
        members: impl IntoIterator<Item = (u64, A)>,
    ) -> Self {
        self.members = members.into_iter().map(|(id, address)| (id, address.into())).collect();
        self.members.sort_unstable_by_key(|(id, _)| *id);
        self
    }

    /// Bounds and times; the defaults suit a cluster within one region.
    pub fn options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// Another disk than the real one, for tests.
    pub fn disk(mut self, disk: Arc<dyn Disk>) -> Self {
        self.disk = Some(disk);
        self
    }

    /// Another way to reach the peers than TCP, such as [`Loopback`](crate::Loopback).
    pub fn transport(mut self, transport: Box<dyn Transport>) -> Self {
        self.transport = Some(transport);
        self
    }

    /// Opens the log, begins to listen and starts the node's threads.
    ///
    /// `state_machine` is empty: the log is replayed into it as soon as a leader confirms how much
    /// of it is committed. Returns before the node serves; [`Node::ready`] waits for that.
    ///
    /// The log holds a file open for each of its segments: on the real disk it raises this process's
    /// soft limit of open files as it needs more, up to the hard limit.
    ///
    /// # Errors
    /// See [`StartError`]. Nothing runs and nothing is locked then.
    pub fn start<S: StateMachine>(self, state_machine: S) -> Result<Node<S>, StartError> {
        let (node, workers) = self.assemble(state_machine, Clock::start(), Entropy::System)?;
        let shared = node.shared().clone();
        Threads::start(&shared, workers, spawn)?;
        Ok(node)
    }

    /// The same without threads, with the time and the random numbers that the caller gives: see
    /// [`steps`](crate::steps).
    ///
    /// # Errors
    /// As for [`start`](Self::start).
    pub fn start_in_steps<S: StateMachine>(
        self,
        state_machine: S,
        now: Instant,
        draw: impl FnMut() -> u64 + Send + 'static,
    ) -> Result<Steps<S>, StartError> {
        let (clock, entropy) = (Clock::stepped(now), Entropy::given(draw));
        let (node, workers) = self.assemble(state_machine, clock, entropy)?;
        Ok(Steps::begin(node, workers, now))
    }

    fn assemble<S: StateMachine>(
        mut self,
        mut state_machine: S,
        clock: Clock,
        entropy: Entropy,
    ) -> Result<(Node<S>, Workers<S>), StartError> {
        self.options.check(self.id)?;
        self.check_members()?;
        // A first start that cannot be must not make this directory its own.
        if !storage::is_in_use(&self.directory, self.disk.as_deref()) {
            self.check_own_membership()?;
        }
        // Before the directory: an address that cannot be had claims none.
        let given = match (self.transport.take(), self.listen.take()) {
            (None, Some(address)) => Some(listening(address)?),
            (transport, _) => transport,
        };
        let (id, disk) = (self.id, self.disk.clone());
        let mut storage = Storage::open_with(&self.directory, id, &self.options, disk, &entropy)?;
        storage.begun = start::begin(&mut state_machine, &storage)?;
        let first_start = self.first_start(&storage.state)?;
        let forwards = Forwards::new(&entropy)?;
        let members = match bootstrap::newest(&storage.state) {
            Some(configuration) => bootstrap::addresses(configuration),
            None => self.members.clone(),
        };
        let empty = storage.log.last() == 0;
        let identity =
            Arc::new(Identity::new(self.id, self.members.clone(), &storage.state, empty));
        let shared = Arc::new(Shared::with(id, &self.options, &storage, clock, entropy));
        shared.board.set_applied(storage.begun.at.index.0);
        let mut transport = match given {
            Some(transport) => transport,
            None => listening(own_address(self.id, &members)?)?,
        };
        let port = Arc::new(Port::new(shared.clone(), identity.clone()));
        let hello: Hello = identity.hello();
        let address = transport.start(hello, port)?;
        transport.set_peers(&members);

        let applier = Arc::new(ApplyQueue::default());
        let fetcher = Arc::new(FetchQueue::default());
        let log = storage.log.clone();
        let machine = Applier::new(
            shared.clone(),
            applier.clone(),
            log.clone(),
            state_machine,
            storage.begun.at,
            storage.base.as_ref(),
        );
        let store = storage.store.take().expect("opened with the log");
        let keeper = Keeper::new(shared.clone(), store);
        let jobs = Arc::new(KeeperQueue::default());
        let neighbours =
            Neighbours { transport, applier: applier.clone(), fetcher, keeper: jobs, identity };
        let driver = Driver::new(shared.clone(), storage, first_start, forwards, neighbours);
        let workers = Workers { driver, applier: machine, keeper, log };
        Ok((Node::new(shared, applier, address), workers))
    }

    /// The first start, if the directory has no configuration yet.
    fn first_start(&self, state: &State) -> Result<Option<FirstStart>, StartError> {
        if let Some(configuration) = bootstrap::newest(state) {
            let configured = bootstrap::addresses(configuration);
            if !self.members.is_empty() && self.members != configured {
                tracing::warn!(
                    node = self.id,
                    given = bootstrap::list(&self.members),
                    used = bootstrap::list(&configured),
                    "initial members are ignored: the cluster has a configuration"
                );
            }
            return Ok(None);
        }
        self.check_own_membership()?;
        Ok(Some(FirstStart::new(self.id, state.incarnation, self.members.clone())))
    }

    /// What a first start needs.
    fn check_own_membership(&self) -> Result<(), StartError> {
        if self.members.iter().any(|(id, _)| *id == self.id) {
            return Ok(());
        }
        Err(StartError::Options {
            option: "initial_members",
            reason: format!(
                "the data directory is empty and {:?} does not name node {}",
                bootstrap::list(&self.members),
                self.id
            ),
        })
    }

    fn check_members(&self) -> Result<(), StartError> {
        let reason = if self.members.len() > Hello::MEMBERS_MAX {
            format!("{} members, at most {}", self.members.len(), Hello::MEMBERS_MAX)
        } else if self.members.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            format!("an id occurs twice in {}", bootstrap::list(&self.members))
        } else if self.members.iter().any(|(id, _)| *id == 0) {
            "0 is not an id".to_owned()
        } else {
            return self.members.iter().try_for_each(|(_, address)| check_address(address));
        };
        Err(StartError::Options { option: "initial_members", reason })
    }
}

/// Where the peers reach this node, as they know it.
fn own_address(id: u64, members: &[(u64, String)]) -> Result<String, StartError> {
    let known = members.iter().find(|(member, _)| *member == id);
    known.map(|(_, address)| address.clone()).ok_or_else(|| StartError::Options {
        option: "listen",
        reason: "no address to listen at".to_owned(),
    })
}

/// The default transport, with its address taken.
fn listening(address: String) -> Result<Box<dyn Transport>, StartError> {
    check_address(&address)?;
    let mut transport = TcpTransport::new(address, TcpOptions::default());
    transport.bind()?;
    Ok(Box::new(transport))
}

/// `host:port`, short enough for a configuration. Whether it can be resolved is seen when it is
/// used: names may appear later.
fn check_address(address: &str) -> Result<(), StartError> {
    let valid = address.len() <= Hello::ADDRESS_BYTES_MAX
        && !address.chars().any(char::is_control)
        && address
            .rsplit_once(':')
            .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    if valid { Ok(()) } else { Err(StartError::Address(address.to_owned())) }
}
