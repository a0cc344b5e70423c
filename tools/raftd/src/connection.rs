//! One client's connection: what has arrived is a batch, and its replies are one write.
//!
//! Within a batch, neighbouring writes are proposed together and neighbouring reads share one
//! confirmation of the leader. A read waits for the writes before it, and a write for the reads
//! before it, so a client sees its own pipeline in order.

use std::{io, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use kontiki::Read;
use redis_protocol::resp2::types::BytesFrame;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::{
    info::REDIS_VERSION,
    reply,
    request::{self, Action, ConnectionAction, Query},
    resp::{ProtocolError, REQUEST_BYTES_MAX, Request, RequestReader},
    service::{Seat, Service, Stopping},
};

/// A client and what is known of it.
pub(crate) struct Connection {
    service: Arc<Service>,
    seat: Seat,
    stream: TcpStream,
    stopping: Stopping,
    reader: RequestReader,
    /// Bytes that have arrived and are not yet a whole request.
    input: BytesMut,
    /// Replies that are not yet sent.
    output: BytesMut,
    name: Bytes,
}

/// Requests that are answered together, and what ended the stream of requests, if anything did.
#[derive(Debug)]
struct Batch {
    requests: Vec<Request>,
    error: Option<ProtocolError>,
}

/// Neighbours in a batch that go the same way.
#[derive(Debug)]
enum Run {
    Writes(Vec<Bytes>),
    Reads(Vec<Query>),
    Other(Action),
}

/// Whether the connection lives on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    GoOn,
    Close,
}

impl Connection {
    pub(crate) fn new(service: Arc<Service>, seat: Seat, stream: TcpStream) -> Self {
        Self {
            stopping: service.stopping.clone(),
            service,
            seat,
            stream,
            reader: RequestReader::default(),
            input: BytesMut::new(),
            output: BytesMut::new(),
            name: Bytes::new(),
        }
    }

    /// Serves the client until it goes, or the server stops.
    pub(crate) async fn serve(mut self) {
        let connection = self.seat.connection;
        if let Err(error) = self.run().await {
            tracing::debug!(connection, %error, "client lost");
        }
    }

    async fn run(&mut self) -> io::Result<()> {
        loop {
            let batch = self.take_batch();
            if batch.requests.is_empty() && batch.error.is_none() {
                if self.fill().await? == Next::Close {
                    return Ok(());
                }
                continue;
            }
            self.service.count_commands(batch.requests.len());
            let next = self.answer(batch.requests).await?;
            if let Some(error) = batch.error.filter(|_| next == Next::GoOn) {
                tracing::info!(connection = self.seat.connection, %error, "client closed");
                self.push(&reply::error(format!("ERR {error}"))).await?;
                self.flush().await?;
                return self.linger().await;
            }
            self.flush().await?;
            if next == Next::Close {
                return Ok(());
            }
        }
    }

    /// Takes the requests that are here, up to the bounds of a batch.
    fn take_batch(&mut self) -> Batch {
        let mut batch = Batch { requests: Vec::new(), error: None };
        let bytes_before = self.input.len();
        while batch.requests.len() < BATCH_REQUESTS_MAX
            && bytes_before - self.input.len() < BATCH_BYTES_MAX
        {
            match self.reader.next(&mut self.input) {
                Ok(Some(request)) => batch.requests.push(request),
                Ok(None) => break,
                Err(error) => {
                    batch.error = Some(error);
                    break;
                }
            }
        }
        batch
    }

    /// Waits for more bytes; between requests the server may stop.
    async fn fill(&mut self) -> io::Result<Next> {
        if self.input.is_empty() && self.input.capacity() > BUFFER_BYTES_KEPT {
            self.input = BytesMut::new();
        }
        self.input.reserve(READ_BYTES_MIN);
        tokio::select! {
            read = self.stream.read_buf(&mut self.input) => {
                Ok(if read? == 0 { Next::Close } else { Next::GoOn })
            }
            () = self.stopping.begun() => Ok(Next::Close),
        }
    }

    async fn answer(&mut self, requests: Vec<Request>) -> io::Result<Next> {
        for run in runs(requests.iter().map(request::parse)) {
            match run {
                Run::Writes(commands) => self.write(commands).await?,
                Run::Reads(queries) => self.read(queries).await?,
                Run::Other(action) => {
                    if self.act(action).await? == Next::Close {
                        return Ok(Next::Close);
                    }
                }
            }
        }
        Ok(Next::GoOn)
    }

    async fn write(&mut self, commands: Vec<Bytes>) -> io::Result<()> {
        // Looked at once for all of them: a status is a copy of all that the node knows.
        let mut trouble = None;
        for result in self.service.node.propose_batch(commands).await {
            match result {
                Ok(applied) => self.output.extend_from_slice(&applied.reply),
                Err(error) => {
                    let trouble = trouble.get_or_insert_with(|| self.service.trouble());
                    let frame = reply::propose_error(&error, trouble);
                    reply::write(&mut self.output, &frame);
                }
            }
            self.flush_if_large().await?;
        }
        Ok(())
    }

    async fn read(&mut self, queries: Vec<Query>) -> io::Result<()> {
        let count = queries.len();
        let reading = self.service.node.read(Read::Linearizable, move |store| {
            queries.iter().map(|query| query.answer(store)).collect::<Vec<_>>()
        });
        match reading.await {
            Ok(frames) => {
                for frame in &frames {
                    self.push(frame).await?;
                }
            }
            Err(error) => {
                let frame = reply::read_error(&error, &self.service.trouble());
                for _ in 0..count {
                    self.push(&frame).await?;
                }
            }
        }
        Ok(())
    }

    async fn act(&mut self, action: Action) -> io::Result<Next> {
        let frame = match action {
            Action::Reply(frame) => frame,
            Action::Info(sections) => {
                BytesFrame::BulkString(self.service.info(&sections).await.into())
            }
            Action::Digest => {
                match self.service.node.read(Read::Local, |store| store.digest()).await {
                    Ok(digest) => BytesFrame::SimpleString(format!("{digest:016x}").into()),
                    Err(error) => reply::read_error(&error, &self.service.trouble()),
                }
            }
            Action::Save => match self.service.node.snapshot().await {
                Ok(_) => reply::ok(),
                Err(error) => reply::error(format!("ERR {error}")),
            },
            Action::Connection(ConnectionAction::Drop) => {
                tracing::warn!(connection = self.seat.connection, "a web request: closed");
                return Ok(Next::Close);
            }
            Action::Connection(ConnectionAction::Quit) => {
                self.push(&reply::ok()).await?;
                return Ok(Next::Close);
            }
            Action::Connection(action) => self.introduce(action),
            Action::Write(_) | Action::Read(_) => unreachable!("runs() keeps these apart"),
        };
        self.push(&frame).await?;
        Ok(Next::GoOn)
    }

    /// Answers what concerns who the client is.
    fn introduce(&mut self, action: ConnectionAction) -> BytesFrame {
        match action {
            ConnectionAction::Id => self.id(),
            ConnectionAction::Name => {
                reply::bulk(Some(self.name.clone()).filter(|name| !name.is_empty()))
            }
            ConnectionAction::SetName(name) => {
                self.name = name;
                reply::ok()
            }
            ConnectionAction::Hello(name) => {
                if let Some(name) = name {
                    self.name = name;
                }
                self.greeting()
            }
            ConnectionAction::Reset => {
                self.name = Bytes::new();
                reply::simple("RESET")
            }
            ConnectionAction::Quit | ConnectionAction::Drop => unreachable!("they close"),
        }
    }

    fn greeting(&self) -> BytesFrame {
        BytesFrame::Array(vec![
            reply::text("server"),
            reply::text("redis"),
            reply::text("version"),
            reply::text(REDIS_VERSION),
            reply::text("proto"),
            BytesFrame::Integer(2),
            reply::text("id"),
            self.id(),
            reply::text("mode"),
            reply::text("standalone"),
            reply::text("role"),
            // Every node takes writes: a follower passes them on.
            reply::text("master"),
            reply::text("modules"),
            BytesFrame::Array(Vec::new()),
        ])
    }

    fn id(&self) -> BytesFrame {
        BytesFrame::Integer(i64::try_from(self.seat.connection).unwrap_or(i64::MAX))
    }

    /// Queues a reply. An array goes out part by part: its values may be larger than memory allows.
    async fn push(&mut self, frame: &BytesFrame) -> io::Result<()> {
        let BytesFrame::Array(parts) = frame else {
            reply::write(&mut self.output, frame);
            return self.flush_if_large().await;
        };
        reply::write_array_header(&mut self.output, parts.len());
        for part in parts {
            reply::write(&mut self.output, part);
            self.flush_if_large().await?;
        }
        Ok(())
    }

    async fn flush_if_large(&mut self) -> io::Result<()> {
        if self.output.len() < OUTPUT_BYTES_MAX { Ok(()) } else { self.flush().await }
    }

    async fn flush(&mut self) -> io::Result<()> {
        self.stream.write_all_buf(&mut self.output).await?;
        if self.output.capacity() > BUFFER_BYTES_KEPT {
            self.output = BytesMut::new();
        }
        Ok(())
    }

    /// Ends a connection whose client may still be sending: closing at once would reset it, and
    /// the client would never read why.
    async fn linger(&mut self) -> io::Result<()> {
        self.stream.shutdown().await?;
        self.input.clear();
        let drain = async {
            let mut drained = 0;
            while drained < LINGER_BYTES_MAX {
                self.input.clear();
                match self.stream.read_buf(&mut self.input).await {
                    Ok(0) | Err(_) => break,
                    Ok(bytes) => drained += bytes,
                }
            }
        };
        let _ = timeout(LINGER, drain).await;
        Ok(())
    }
}

/// Puts neighbours that go the same way together. A run of writes stays within what one batch of
/// proposals may take; a single command always does.
fn runs(actions: impl Iterator<Item = Action>) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    let mut write_bytes = 0;
    for action in actions {
        match (action, runs.last_mut()) {
            (Action::Write(command), Some(Run::Writes(commands)))
                if write_bytes + command.len() <= REQUEST_BYTES_MAX =>
            {
                write_bytes += command.len();
                commands.push(command);
            }
            (Action::Write(command), _) => {
                write_bytes = command.len();
                runs.push(Run::Writes(vec![command]));
            }
            (Action::Read(query), Some(Run::Reads(queries))) => queries.push(query),
            (Action::Read(query), _) => runs.push(Run::Reads(vec![query])),
            (other, _) => runs.push(Run::Other(other)),
        }
    }
    runs
}

/// Requests that are answered together at most.
const BATCH_REQUESTS_MAX: usize = 1024;

/// A batch takes no further request once it is so large; one request may be larger by itself.
const BATCH_BYTES_MAX: usize = 1 << 20;

/// Room for each read from the socket.
const READ_BYTES_MIN: usize = 16 << 10;

/// Replies are sent when they are so large, even in the middle of a batch.
const OUTPUT_BYTES_MAX: usize = 256 << 10;

/// An idle connection keeps no more than this in each of its two buffers.
const BUFFER_BYTES_KEPT: usize = 1 << 20;

/// How long, and for how much, a refused client is listened to.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES_MAX: usize = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_that_go_the_same_way_are_one_run() {
        let write = || Action::Write(Bytes::from_static(b"w"));
        let read = || Action::Read(Query::Keys);
        let other = || Action::Reply(reply::ok());
        let actions = [write(), write(), read(), read(), read(), write(), other(), write()];
        let shape: Vec<_> = runs(actions.into_iter())
            .iter()
            .map(|run| match run {
                Run::Writes(commands) => ("writes", commands.len()),
                Run::Reads(queries) => ("reads", queries.len()),
                Run::Other(_) => ("other", 1),
            })
            .collect();
        assert_eq!(
            shape,
            [("writes", 2), ("reads", 3), ("writes", 1), ("other", 1), ("writes", 1)]
        );
    }

    #[test]
    fn a_run_of_writes_is_no_larger_than_one_batch_of_proposals() {
        let command = Bytes::from(vec![0; REQUEST_BYTES_MAX / 2]);
        let actions = (0..5).map(|_| Action::Write(command.clone()));
        let lengths: Vec<_> = runs(actions)
            .iter()
            .map(|run| match run {
                Run::Writes(commands) => commands.len(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(lengths, [2, 2, 1]);
    }
}
