//! A replicated counter: three nodes in one process, each with its own durable log. Run it twice: it goes on.

use std::{env, error::Error, io, process::ExitCode};

use bytes::Bytes;
use kontiki::{ApplyContext, Loopback, Node, Read, SnapshotWriter, StateMachine};

/// What is replicated: every member adds the same numbers in the same order.
#[derive(Clone, Default)]
struct Counter(u64);

impl StateMachine for Counter {
    fn apply(&mut self, _: &ApplyContext, command: &[u8]) -> io::Result<Bytes> {
        self.0 += u64::from(command.first().copied().unwrap_or(0));
        Ok(Bytes::copy_from_slice(&self.0.to_le_bytes()))
    }

    fn snapshot(&self) -> io::Result<Box<dyn SnapshotWriter + Send>> {
        Ok(Box::new(self.clone()))
    }

    fn restore(&mut self, image: &mut dyn io::Read) -> io::Result<()> {
        let mut bytes = [0; 8];
        image.read_exact(&mut bytes).map(|()| self.0 = u64::from_le_bytes(bytes))
    }
}

impl SnapshotWriter for Counter {
    fn write_to(self: Box<Self>, out: &mut dyn io::Write) -> io::Result<()> {
        out.write_all(&self.0.to_le_bytes())
    }
}

fn main() -> ExitCode {
    run().inspect_err(|error| eprintln!("counter: {error}")).map_or(1_u8, |()| 0).into()
}

fn run() -> Result<(), Box<dyn Error>> {
    let directory = env::args().nth(1).unwrap_or_else(|| "counter-data".to_owned());
    if directory.starts_with('-') {
        println!("usage: counter [DIRECTORY]");
        return Ok(());
    }
    let hub = Loopback::new(); // Without it the nodes talk TCP, at the addresses below.
    let members = [(1, "localhost:7001"), (2, "localhost:7002"), (3, "localhost:7003")];
    let mut nodes = Vec::new();
    for (id, _) in members {
        let builder = Node::builder(id, format!("{directory}/{id}")).initial_members(members);
        nodes.push(builder.transport(hub.transport(id)).start(Counter::default())?);
    }
    for node in &nodes {
        let applied = node.propose(vec![1]).wait()?; // Any member takes it; `.await` works as well.
        println!("node {} adds one: entry {}", node.status().id, applied.position.index);
    }
    let value = nodes[2].read(Read::Linearizable, |counter: &Counter| counter.0).wait()?;
    println!("the counter stands at {value}; run it again to go on from {directory}");
    nodes.iter().for_each(|node| node.shutdown().wait());
    Ok(())
}
