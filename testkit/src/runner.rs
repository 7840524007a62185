//! How racing operations are run.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Barrier};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, ScopedJoinHandle, Thread};

use device_flow::server::Store;

use crate::operation::{Answer, Operation};

/// Runs operations at the same time, and returns the answers in the order of the operations.
pub(crate) trait Runner {
    async fn all<S: Store>(&self, store: &S, operations: &[Operation], round: u32) -> Vec<Answer>;
}

/// Polls the operations side by side in one task.
pub(crate) struct Asynchronous;

impl Runner for Asynchronous {
    async fn all<S: Store>(&self, store: &S, operations: &[Operation], round: u32) -> Vec<Answer> {
        let mut running: Vec<_> = operations
            .iter()
            .map(|operation| Running::Waiting(Box::pin(operation.run(store))))
            .collect();
        // In each round another operation is polled first.
        let first = usize::try_from(round).unwrap_or_default() % running.len().max(1);
        std::future::poll_fn(|context| {
            let mut is_done = true;
            let (before, after) = running.split_at_mut(first);
            for one in after.iter_mut().chain(before) {
                is_done &= one.poll(context);
            }
            if is_done {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
        running.into_iter().filter_map(Running::answer).collect()
    }
}

enum Running<F> {
    Waiting(Pin<Box<F>>),
    Done(Answer),
}

impl<F: Future<Output = Answer>> Running<F> {
    /// Polls the operation, and returns whether it is done.
    fn poll(&mut self, context: &mut Context<'_>) -> bool {
        if let Self::Waiting(future) = self
            && let Poll::Ready(answer) = future.as_mut().poll(context)
        {
            *self = Self::Done(answer);
        }
        matches!(self, Self::Done(_))
    }

    fn answer(self) -> Option<Answer> {
        match self {
            Self::Done(answer) => Some(answer),
            Self::Waiting(_) => None,
        }
    }
}

/// Runs each operation on a thread of its own. All begin together, apart from a short delay that differs from round to round.
pub(crate) struct Threads;

impl Runner for Threads {
    async fn all<S: Store>(&self, store: &S, operations: &[Operation], round: u32) -> Vec<Answer> {
        if let [operation] = operations {
            return vec![operation.run(store).await];
        }
        let together = &Barrier::new(operations.len());
        thread::scope(|scope| {
            let workers = (0_u32..).zip(operations).map(|(place, operation)| {
                scope.spawn(move || {
                    together.wait();
                    let turns = place.wrapping_mul(round.wrapping_mul(7) % 64);
                    (0..turns).for_each(|_| std::hint::spin_loop());
                    block_on(operation.run(store))
                })
            });
            let workers: Vec<_> = workers.collect();
            let answers = workers.into_iter().map(ScopedJoinHandle::join);
            answers
                .map(|answer| answer.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect()
        })
    }
}

/// Blocks this thread until the future is ready.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(answer) => return answer,
            Poll::Pending => thread::park(),
        }
    }
}
