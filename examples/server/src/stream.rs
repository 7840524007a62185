//! The stream of a connection, with a time for what a peer sends between two answers.
//!
//! The library has one limit for the wait until the next request and for its head. Here they differ. A device keeps its connection
//! from poll to poll, 5 s apart at first and 10 s after a `slow_down`, so that a limit which suits a head would close it exactly
//! when the device polls again, and some polls would get lost. A head that has begun must come soon.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use crate::config::Limits;

/// How often a connection has come to a request or to the end of an answer: odd while a request is being answered.
#[derive(Clone, Debug, Default)]
pub(crate) struct Turns(Arc<AtomicUsize>);

impl Turns {
    /// Begins with an answer, or ends it.
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
    /// Whether something of a head has come.
    has_begun: bool,
    timer: Pin<Box<Sleep>>,
}

impl<S> Stream<S> {
    /// A connection that was just made. Its first head has begun: there is no reason to connect and to say nothing.
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
