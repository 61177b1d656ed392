//! A connection on which the other side may say only so much before it is our turn again. What a mail server sends is read line by line into memory,
//! and a line has no end until the server says so: without a bound it decides how much memory the guard takes.

use lettre::transport::smtp::client::AsyncTokioStream;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Most bytes of one reply. RFC 5321 allows 512 a line; the longest real ones (`EHLO`, certificates) have a few thousand.
pub(super) const MOST: usize = 64 * 1024;

/// See the module.
#[derive(Debug)]
pub(super) struct Limited<S> {
    stream: S,
    /// Bytes since we wrote last.
    heard: usize,
}

impl<S> Limited<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, heard: 0 }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Limited<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.heard >= MOST {
            let what = format!("the server's reply is longer than {MOST} bytes");
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, what)));
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut this.stream).poll_read(context, buffer);
        this.heard += buffer.filled().len() - before;
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Limited<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_write(context, bytes);
        if matches!(polled, Poll::Ready(Ok(count)) if count > 0) {
            this.heard = 0;
        }
        polled
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

impl AsyncTokioStream for Limited<TcpStream> {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.stream.peer_addr()
    }
}

impl AsyncTokioStream for Limited<tokio_rustls::client::TlsStream<Limited<TcpStream>>> {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.stream.get_ref().0.peer_addr()
    }
}
