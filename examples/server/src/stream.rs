//! The stream of a connection, with time limits for what a peer sends between two answers.
//!
//! The library has one time limit for two waits: for the next request to begin, and for its head. Here the limits differ. A device keeps
//! its connection from poll to poll, 5 s at first and 10 s after a `slow_down`. With a limit that suits a head, the server would close the
//! connection just when the device polls again, and some polls would be lost. A head that has begun must arrive soon.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use crate::config::Limits;

/// Counts the requests and the ends of answers of a connection. The number is odd while a request is being answered.
#[derive(Clone, Debug, Default)]
pub(crate) struct Turns(Arc<AtomicUsize>);

impl Turns {
    /// Notes that an answer begins or ends.
    pub(crate) fn advance(&self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }
}

/// The stream.
pub(crate) struct Stream<S> {
    inner: S,
    head: Duration,
    idle: Duration,
    turns: Turns,
    /// The turn for which the timer runs.
    turn: usize,
    /// Whether a part of a head has arrived.
    has_begun: bool,
    timer: Pin<Box<Sleep>>,
}

impl<S> Stream<S> {
    /// Returns the stream of a new connection. It counts as one whose head has begun, because nobody needs to connect without sending.
    pub(crate) fn new(inner: S, limits: &Limits, turns: Turns) -> Self {
        let head = Duration::from_secs(limits.header_timeout);
        Self {
            inner,
            head,
            idle: Duration::from_secs(limits.idle_timeout),
            turns,
            turn: 0,
            has_begun: true,
            timer: Box::pin(sleep(head)),
        }
    }

    fn restart(&mut self, limit: Duration) {
        self.timer.as_mut().reset(Instant::now() + limit);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Stream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let turn = self.turns.0.load(Ordering::Acquire);
        if turn != self.turn {
            self.turn = turn;
            self.has_begun = false;
            let idle = self.idle;
            self.restart(idle);
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(cx, buf);
        let is_answering = turn % 2 == 1;
        match read {
            Poll::Ready(read) => {
                if !is_answering && !self.has_begun && buf.filled().len() > before {
                    self.has_begun = true;
                    let head = self.head;
                    self.restart(head);
                }
                Poll::Ready(read)
            }
            Poll::Pending if is_answering => Poll::Pending,
            Poll::Pending => {
                ready!(self.timer.as_mut().poll(cx));
                if self.has_begun {
                    Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
                } else {
                    Poll::Ready(Ok(())) // as if the peer had closed
                }
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Stream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, octets)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}
