//! `raftd serve`: one node and its clients, from start to stop.

use std::{
    collections::BTreeSet,
    future::pending,
    io::{self, Read as _, Write as _},
    net::SocketAddr,
    path::{Path, PathBuf},
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use clap::Args;
use kontiki::{Event, Node, Read, ReadError, Role, Status};
use tokio::{
    net::TcpListener,
    runtime::Builder,
    sync::{oneshot, watch},
    task::{self, JoinHandle},
    time::{sleep, timeout},
};

use crate::{
    advice, clients,
    failure::{Failure, FailureKind, cannot_start},
    info::ids,
    members::{Members, is_loopback, parse_address},
    service::{Service, Stopping},
    signals::StopSignals,
    store::Store,
};

/// What `raftd serve` is told.
#[derive(Args, Clone, Debug)]
pub(crate) struct ServeOptions {
    /// This node's id among the peers
    #[arg(long, env = "RAFTD_ID", value_parser = clap::value_parser!(u64).range(1..))]
    id: u64,
    /// Directory of this node's log; made if missing, and belongs to this node for good
    #[arg(long, env = "RAFTD_DATA", value_name = "DIR")]
    data: PathBuf,
    /// Where to listen for peers, if not at this node's own entry in --peers, where they reach it
    #[arg(long, env = "RAFTD_LISTEN", value_name = "HOST:PORT", value_parser = parse_address)]
    listen: Option<String>,
    /// All members at the first start, this node included; later the log knows them
    #[arg(long, env = "RAFTD_PEERS", value_name = "1=HOST:PORT,...", value_parser = Members::parse)]
    peers: Members,
    /// Where clients reach this node
    #[arg(
        long,
        env = "RAFTD_CLIENT",
        value_name = "HOST:PORT",
        default_value = "127.0.0.1:6379",
        value_parser = parse_address
    )]
    client: String,
    /// Clients at the same time
    #[arg(
        long,
        env = "RAFTD_MAX_CLIENTS",
        value_name = "COUNT",
        default_value_t = 10_000,
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    max_clients: u32,
    /// Write the next snapshot when at least so many bytes of commands were applied behind the last, and
    /// four times its size
    #[arg(
        long,
        env = "RAFTD_SNAPSHOT_BYTES",
        value_name = "BYTES",
        default_value_t = 64 << 20,
        value_parser = clap::value_parser!(u64).range(1..)
    )]
    snapshot_bytes: u64,
    /// Stop when standard input ends, which it does when the starting program is gone
    #[arg(long, hide = true)]
    exit_with_parent: bool,
}

/// Runs a node until it is asked to stop.
pub(crate) fn run(options: ServeOptions) -> Result<(), Failure> {
    if options.peers.address(options.id).is_none() {
        return Err(Failure::new(
            FailureKind::Usage,
            format!(
                "node {} is not among the peers {}: name it in --peers",
                options.id, options.peers
            ),
        ));
    }
    let own = options.listen.as_deref().or(options.peers.address(options.id));
    if own == Some(options.client.as_str()) {
        return Err(Failure::new(
            FailureKind::Usage,
            format!(
                "{} cannot be for the peers and for the clients: choose another --client",
                options.client
            ),
        ));
    }
    raise_file_limit(options.max_clients);
    let runtime = Builder::new_multi_thread().enable_all().build().map_err(cannot_start)?;
    let result = runtime.block_on(serve(options));
    // A start that is still replaying its log is not waited for: the disk is safe at any moment.
    runtime.shutdown_background();
    result
}

async fn serve(options: ServeOptions) -> Result<(), Failure> {
    let mut signals = StopSignals::install().map_err(cannot_start)?;
    let mut parent_gone = pin!(parent_gone(options.exit_with_parent));
    let listener = bind(&options.client).await?;
    let address = listener.local_addr().map_err(cannot_start)?;

    let id = options.id;
    let clients_max = usize::try_from(options.max_clients).expect("a u32 fits a usize");
    let (peers, data) = (options.peers.clone(), options.data.clone());
    let mut starting = task::spawn_blocking(move || start(&options));
    let node = tokio::select! {
        started = &mut starting => started.expect("starting does not panic")?,
        signal = signals.next() => {
            tracing::info!(id, signal, "stopped while starting");
            return Ok(());
        }
        _ = &mut parent_gone => return Ok(()),
    };

    let met = Arc::new(Mutex::new(BTreeSet::from([id])));
    let mut fatal = watch_events(&node, Arc::clone(&met));
    let waiting = tokio::spawn(tell_of_waiting(node.clone(), peers.clone(), met));
    let (stop, stopping) = watch::channel(false);
    let stopping = Stopping::new(stopping);
    let service = Arc::new(Service::new(node.clone(), address.port(), clients_max, stopping));
    let accepting = tokio::spawn(clients::serve(listener, service));
    let announcing = tokio::spawn(announce(id, node.clone(), address));
    tracing::info!(id, %address, "takes clients");

    let failure = tokio::select! {
        signal = signals.next() => {
            tracing::info!(id, signal, "stopping");
            None
        }
        _ = &mut parent_gone => {
            tracing::info!(id, "the program that started this node is done with it: stopping");
            None
        }
        failure = other_cluster(&node, &peers, &data) => Some(failure),
        Ok(cause) = &mut fatal => {
            let corruption = node.status().corruption;
            let damage = corruption.map(|_| advice::damaged(&data, &peers));
            Some(advice::node_failed(id, &cause, damage))
        }
    };
    announcing.abort();
    waiting.abort();
    stop.send_replace(true);
    tokio::select! {
        () = finish(&node, accepting) => failure.map_or(Ok(()), Err),
        signal = signals.next() => Err(Failure::new(
            FailureKind::Run,
            format!("node {id} stopped at once by a second signal ({signal})"),
        )),
    }
}

/// Clients first: what they wait for is still answered. Then the node.
async fn finish(node: &Node<Store>, mut accepting: JoinHandle<()>) {
    let served = timeout(CLIENTS_STOP, &mut accepting).await;
    node.shutdown().await;
    // Who waited for a leader has an answer only now.
    if served.is_err() && timeout(LAST_REPLIES, accepting).await.is_err() {
        tracing::warn!("some clients did not take their last replies in time");
    }
}

async fn bind(address: &str) -> Result<TcpListener, Failure> {
    warn_if_reachable("clients", address);
    TcpListener::bind(address)
        .await
        .map_err(|error| advice::cannot_listen("clients", address, &error))
}

fn start(options: &ServeOptions) -> Result<Node<Store>, Failure> {
    let own = options.peers.address(options.id).expect("checked by run");
    let listen = options.listen.as_deref().unwrap_or(own);
    warn_if_reachable("peers", listen);
    let mut bounds = kontiki::Options::default();
    bounds.snapshot_log_bytes_min = options.snapshot_bytes;
    Node::builder(options.id, &options.data)
        .listen(listen)
        .options(bounds)
        .initial_members(options.peers.list().iter().cloned())
        .start(Store::default())
        .map_err(|error| advice::start_failed(&error, &options.data, &options.peers))
}

/// Tells whoever started this process that clients are served, or why they are not, in one line on
/// standard output. Not before a read is: after a start the whole log is applied first.
async fn announce(id: u64, node: Node<Store>, address: SocketAddr) {
    let mut told = None;
    let leader = loop {
        let read = node.read(Read::Linearizable, |_: &Store| ()).await;
        let status = node.status();
        match read {
            Ok(()) => match status.leader {
                Some((leader, _)) => break leader,
                // Lost again meanwhile.
                None => task::yield_now().await,
            },
            Err(ReadError::Stopped | ReadError::Fatal(_)) => return,
            Err(ReadError::NotAdmitted(_)) => return print_line(&format!("not-admitted id={id}")),
            Err(error) => {
                tracing::info!(%error, "not ready yet");
                let line = why_not_ready(id, &error, &status);
                if let Some(line) = line.filter(|line| told.as_ref() != Some(line)) {
                    print_line(&line);
                    told = Some(line);
                }
            }
        }
    };
    print_line(&format!("ready id={id} client={address} leader={leader}"));
}

/// What a node lacks that waited in vain, in the words of a line on standard output. Whom a first start
/// waits for is told elsewhere.
fn why_not_ready(id: u64, error: &ReadError, status: &Status) -> Option<String> {
    if is_alone(status) {
        return Some(format!("foreign id={id} members={}", ids(&status.foreign_members)));
    }
    let is_leaderless =
        matches!(error, ReadError::NotLeader { .. }) && status.role != Role::Starting;
    is_leaderless.then(|| "waiting leader".to_owned())
}

/// Without the members that are of another cluster there is no majority.
fn is_alone(status: &Status) -> bool {
    let foreign = status.foreign_members.len();
    foreign > 0 && status.members.len().saturating_sub(foreign) <= status.members.len() / 2
}

/// For whoever started this process; nobody may be listening.
fn print_line(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
    let _ = io::stdout().flush();
}

/// Says once who is missing if the first start takes long: it needs all members. For people, and in
/// a line on standard output for whoever started this process.
async fn tell_of_waiting(node: Node<Store>, peers: Members, met: Arc<Mutex<BTreeSet<u64>>>) {
    sleep(FIRST_START_PAUSE).await;
    if node.status().role != Role::Starting {
        return;
    }
    let missing: Vec<_> = {
        let met = met.lock().unwrap_or_else(PoisonError::into_inner);
        let ids = peers.list().iter().map(|(id, _)| *id);
        ids.filter(|id| !met.contains(id)).map(|id| id.to_string()).collect()
    };
    if !missing.is_empty() {
        let missing = missing.join(",");
        tracing::warn!(missing, "the first start waits until all members have met");
        print_line(&format!("waiting missing={missing}"));
    }
}

/// Resolves if the log knows other members than were given, every one of them: it is the log of
/// another cluster, and its keys are not those that clients look for at this address. A list that
/// still shares a member is only outdated, and the library warns of it.
async fn other_cluster(node: &Node<Store>, peers: &Members, data: &Path) -> Failure {
    // Known well before there can be a leader, and nothing is answered without one.
    let members = loop {
        let members = node.status().members;
        if !members.is_empty() {
            break members;
        }
        sleep(MEMBERS_PAUSE).await;
    };
    if members.iter().any(|(id, address)| peers.address(*id) == Some(address)) {
        return pending().await;
    }
    let found = members.iter().map(|(id, address)| format!("{id}={address}"));
    Failure::new(
        FailureKind::Data,
        format!(
            "data directory {} belongs to the cluster {}, not to {peers}: check --data and --peers",
            data.display(),
            found.collect::<Vec<_>>().join(",")
        ),
    )
}

/// Resolves when standard input ends; never, if nobody asked.
async fn parent_gone(asked: bool) {
    if !asked {
        return pending().await;
    }
    let (gone, noticed) = oneshot::channel();
    thread::spawn(move || {
        let mut buffer = [0; 64];
        while matches!(io::stdin().read(&mut buffer), Ok(bytes) if bytes > 0) {}
        let _ = gone.send(());
    });
    let _ = noticed.await;
}

/// Logs what happens to the node and notes whom it has met; resolves with the cause if it fails.
fn watch_events(node: &Node<Store>, met: Arc<Mutex<BTreeSet<u64>>>) -> oneshot::Receiver<Arc<str>> {
    let (failed, fatal) = oneshot::channel();
    let events = node.events();
    // What failed before the line above is not among the events.
    if let Some(cause) = node.status().fatal {
        let _ = failed.send(cause);
        return fatal;
    }
    thread::spawn(move || {
        for event in events {
            if let Event::Fatal { cause } = event {
                let _ = failed.send(cause);
                return;
            }
            if let Event::PeerConnected { peer } = event {
                met.lock().unwrap_or_else(PoisonError::into_inner).insert(peer);
            }
            log_event(&event);
        }
    });
    fatal
}

fn log_event(event: &Event) {
    match event {
        Event::LeaderChanged { leader: Some(leader), term } => {
            tracing::info!(term, leader, "leader known");
        }
        Event::LeaderChanged { leader: None, term } => tracing::info!(term, "no leader known"),
        Event::PeerConnected { peer } => tracing::info!(peer, "peer connected"),
        Event::PeerLost { peer, reason } => tracing::info!(peer, reason, "peer lost"),
        Event::Lagged(missed) => tracing::info!(missed, "events missed"),
        // The library logs the rest itself.
        _ => {}
    }
}

fn warn_if_reachable(for_whom: &str, address: &str) {
    if !is_loopback(address) {
        tracing::warn!(
            address,
            "listens for {for_whom} beyond this machine, and there is no authentication: \
             whoever reaches it can read and change everything"
        );
    }
}

/// Makes room for so many clients as far as the system allows; without it, fewer are served.
fn raise_file_limit(clients_max: u32) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let wanted = u64::from(clients_max) + FILES_BESIDES_CLIENTS;
    let limit = getrlimit(Resource::Nofile);
    let Some(current) = limit.current.filter(|&current| current < wanted) else { return };
    let raised = limit.maximum.map_or(wanted, |maximum| maximum.min(wanted));
    let raised_limit = Rlimit { current: Some(raised), maximum: limit.maximum };
    if setrlimit(Resource::Nofile, raised_limit).is_err() || raised < wanted {
        tracing::warn!(
            current,
            wanted,
            "the limit of open files allows fewer clients than --max-clients; see ulimit -n"
        );
    }
}

/// The log, the peers and the runtime.
const FILES_BESIDES_CLIENTS: u64 = 256;

/// How long the node goes on for the clients that wait for replies.
const CLIENTS_STOP: Duration = Duration::from_secs(3);

/// How long clients may take to read what the end of the node answers them: only those that read
/// nothing take so long, be there ten thousand that waited.
const LAST_REPLIES: Duration = Duration::from_secs(1);

/// Members that are started together have met by then.
const FIRST_START_PAUSE: Duration = Duration::from_secs(2);

/// How often the node is asked for its members until it knows them.
const MEMBERS_PAUSE: Duration = Duration::from_millis(10);
