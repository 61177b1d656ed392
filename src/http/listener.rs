//! Connections, with bounds: so many at once, and each must come to an answer in time. Somebody who opens connections and says nothing must neither use
//! up the daemon's file descriptors, which it needs for its journal, nor keep health and metrics from those who ask for them: where all places are
//! taken, the connection that has been without an answer for longest makes room.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep};

/// Connections at once.
const MOST: usize = 64;
/// From the beginning to the first answer.
const FIRST: Duration = Duration::from_secs(10);
/// From one answer to the next. Longer than the usual interval of scrapes.
const IDLE: Duration = Duration::from_secs(150);

/// See the module.
pub(super) struct Bounded {
    listener: TcpListener,
    places: Arc<Places>,
    first: Duration,
    idle: Duration,
}

impl Bounded {
    pub(super) fn new(listener: TcpListener) -> Self {
        Self::with_bounds(listener, MOST, FIRST, IDLE)
    }

    pub(super) fn with_bounds(listener: TcpListener, most: usize, first: Duration, idle: Duration) -> Self {
        Self {
            listener,
            places: Arc::new(Places {
                most,
                taken: Mutex::default(),
            }),
            first,
            idle,
        }
    }
}

impl axum::serve::Listener for Bounded {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        // axum's own accept logs errors and waits where the system is out of descriptors.
        let (stream, peer) = axum::serve::Listener::accept(&mut self.listener).await;
        let (number, leave) = self.places.enter();
        let connection = Connection {
            stream,
            limit: Box::pin(tokio::time::sleep(self.first)),
            idle: self.idle,
            leave,
            number,
            places: Arc::clone(&self.places),
        };
        (connection, peer)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// Who is connected.
struct Places {
    most: usize,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    next: u64,
    open: HashMap<u64, Place>,
}

/// When a connection was opened or got its last answer, and how to end it.
struct Place {
    at: Instant,
    leave: oneshot::Sender<()>,
}

impl Places {
    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Take a place; the one that has been without an answer for longest goes where there is none.
    fn enter(&self) -> (u64, oneshot::Receiver<()>) {
        let mut taken = self.taken();
        while taken.open.len() >= self.most.max(1) {
            let oldest = taken
                .open
                .iter()
                .min_by_key(|(number, place)| (place.at, **number))
                .map(|(number, _)| *number);
            let Some(place) = oldest.and_then(|number| taken.open.remove(&number)) else {
                break;
            };
            // It may be gone already.
            let _ = place.leave.send(());
        }
        let (leave, asked) = oneshot::channel();
        taken.next += 1;
        let number = taken.next;
        let at = Instant::now();
        taken.open.insert(number, Place { at, leave });
        (number, asked)
    }

    fn answered(&self, number: u64) {
        if let Some(place) = self.taken().open.get_mut(&number) {
            place.at = Instant::now();
        }
    }
}

/// One connection. Only what we write counts as going on: a sender that trickles gains no time.
pub(super) struct Connection {
    stream: TcpStream,
    limit: Pin<Box<Sleep>>,
    idle: Duration,
    /// Says that somebody else needs the place.
    leave: oneshot::Receiver<()>,
    number: u64,
    places: Arc<Places>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.places.taken().open.remove(&self.number);
    }
}

impl Connection {
    fn or_late<T>(&mut self, context: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            return polled;
        }
        if self.limit.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        if Pin::new(&mut self.leave).poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Poll::Pending
    }
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_read(context, buffer);
        this.or_late(context, polled)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_write(context, bytes);
        if let Poll::Ready(Ok(_)) = polled {
            this.limit.as_mut().reset(Instant::now() + this.idle);
            this.places.answered(this.number);
        }
        this.or_late(context, polled)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}
