//! Takes connections in, as many as allowed, and sees them out when the server stops.

use std::{sync::Arc, time::Duration};

use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{connection::Connection, reply, service::Service};

/// Accepts clients until the server stops, then waits until each has its last replies.
pub(crate) async fn serve(listener: TcpListener, service: Arc<Service>) {
    let mut stopping = service.stopping.clone();
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => admit(&mut connections, &service, stream),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a client; trying again");
                    // Most often out of file descriptors, which only time gives back.
                    sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(ended) = connections.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "a connection's task failed");
                }
            }
            () = stopping.begun() => break,
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

fn admit(connections: &mut JoinSet<()>, service: &Arc<Service>, stream: TcpStream) {
    // Replies leave in one write each; waiting for more would only delay them.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "client lost before it was served");
        return;
    }
    match service.seat() {
        Some(seat) => {
            connections.spawn(Connection::new(Arc::clone(service), seat, stream).serve());
        }
        None => {
            tracing::warn!(clients_max = service.clients_max, "too many clients: one refused");
            connections.spawn(refuse(stream));
        }
    }
}

async fn refuse(mut stream: TcpStream) {
    let line = reply::encode(&reply::error("ERR max number of clients reached"));
    // Whoever does not read this is dropped all the same.
    let _ = timeout(REFUSAL, stream.write_all(&line)).await;
}

const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const REFUSAL: Duration = Duration::from_secs(1);
