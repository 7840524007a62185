//! The loop around a login.

use core::cell::{Cell, RefCell};
use core::future::ready;
use core::ops::ControlFlow;
use core::pin::pin;
use core::task::{Context, Poll, Waker};
use core::time::Duration;
use std::sync::Mutex;

use device_flow::client::{
    LoginError, Next, Prompt, Request, Response, Tokens, TransportError, WaitingFor,
};

use crate::support::{
    self, Answer, DEVICE, ISSUED, PENDING, SLOW_DOWN, SUCCESS, TIMEOUT, TOKEN, bearer_a, flow,
    granted, ok, s,
};

/// What the loop did, in order.
#[derive(Debug, PartialEq)]
enum Did {
    Sent(String),
    Showed(String),
    Waited(u64, WaitingFor),
}

/// Runs a login against these answers, on a clock that moves only while the login waits. The user gives up after more than `patience`
/// waits. Returns the outcome, and what the loop did.
fn run(answers: &[Answer<'static>], patience: usize) -> (Result<Tokens, LoginError>, Vec<Did>) {
    let (clock, did) = (Cell::new(s(0)), RefCell::new(Vec::new()));
    let (mut answers, mut waits) = (answers.iter().cloned(), 0);
    let send = |request: Request| {
        did.borrow_mut().push(Did::Sent(request.url().to_owned()));
        answers.next().unwrap()
    };
    let show = |prompt: &Prompt| did.borrow_mut().push(Did::Showed(prompt.user_code.clone()));
    let wait = |span: Duration, waiting_for| {
        did.borrow_mut()
            .push(Did::Waited(span.as_secs(), waiting_for));
        clock.set(clock.get() + span);
        waits += 1;
        if waits > patience {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    };
    let outcome = flow()
        .login()
        .unwrap()
        .run_blocking(|| clock.get(), send, show, wait);
    assert!(answers.next().is_none(), "answers are left");
    (outcome, did.into_inner())
}

#[test]
fn the_loop_asks_shows_waits_and_polls_to_the_end() {
    let answers = [
        ok(200, ISSUED),
        ok(400, PENDING),
        ok(400, SLOW_DOWN),
        TIMEOUT,
        ok(503, ""),
        ok(200, SUCCESS),
    ];
    let (outcome, did) = run(&answers, 10);
    assert_eq!(granted(&outcome.unwrap()), bearer_a());
    let (sent, waited) = (|url: &str| Did::Sent(url.into()), Did::Waited);
    let expected = [
        sent(DEVICE),
        Did::Showed("WDJB-MJHT".into()),
        waited(5, WaitingFor::User),
        sent(TOKEN),
        waited(5, WaitingFor::User),
        sent(TOKEN),
        waited(10, WaitingFor::SlowDown),
        sent(TOKEN),
        waited(
            20,
            WaitingFor::Connection(TransportError::ConnectionTimeout),
        ),
        sent(TOKEN),
        waited(40, WaitingFor::Server(503)),
        sent(TOKEN),
    ];
    assert_eq!(did, expected);
}

#[test]
fn the_loop_ends_where_the_user_gives_up_and_sends_nothing_more() {
    let (outcome, did) = run(&[ok(200, ISSUED), ok(400, PENDING)], 1);
    assert_eq!(outcome, Err(LoginError::Cancelled(None)));
    assert!(matches!(did.last(), Some(Did::Waited(5, _))));
}

#[test]
fn the_loop_ends_with_the_error_of_the_start() {
    let (outcome, did) = run(&[ok(400, r#"{"error":"invalid_scope"}"#)], 1);
    assert!(matches!(outcome, Err(LoginError::Start(_))));
    assert_eq!(did.len(), 1);
}

/// Returns the result of a future that never has to wait.
fn block<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(end) => end,
        Poll::Pending => panic!("nothing in it waits"),
    }
}

#[test]
fn the_asynchronous_loop_does_the_same_and_can_run_on_any_thread() {
    fn on_any_thread<T: Send>(future: T) -> T {
        future
    }
    let clock = Mutex::new(s(0));
    let answers = Mutex::new([ok(200, ISSUED), ok(400, PENDING), ok(200, SUCCESS)].into_iter());
    let mut shown = 0;
    let mut login = flow().login().unwrap();
    let run = on_any_thread(login.run(
        || *clock.lock().unwrap(),
        async |_: Request| {
            let next = answers.lock().unwrap().next();
            ready(next.unwrap()).await
        },
        |_| shown += 1,
        async |span, _| {
            *clock.lock().unwrap() += span;
            ready(ControlFlow::Continue(())).await
        },
    ));
    assert_eq!(granted(&block(run).unwrap()), bearer_a());
    assert_eq!((shown, *clock.lock().unwrap()), (1, s(10)));
}

/// A runtime ends a future by dropping it. A request that was in flight then may have reached the server.
#[test]
fn a_loop_whose_future_was_dropped_in_mid_poll_can_go_on_and_knows_of_the_loss() {
    let mut login = support::issued();
    {
        let run = login.run(
            || s(5),
            async |_: Request| -> Result<Response<Vec<u8>>, TransportError> {
                core::future::pending().await
            },
            |_| (),
            async |_, _| ControlFlow::Continue(()),
        );
        let mut run = pin!(run);
        let mut context = Context::from_waker(Waker::noop());
        assert!(run.as_mut().poll(&mut context).is_pending());
    }
    assert!(matches!(login.next(s(6)), Next::Wait { until } if until == s(16)));
    assert_eq!(
        login.waiting_for(),
        Some(WaitingFor::Connection(TransportError::Other))
    );
}

#[cfg(feature = "http")]
#[test]
fn the_loop_speaks_the_types_of_http() {
    let mut answers = [ISSUED, SUCCESS].into_iter();
    let clock = Cell::new(s(0));
    let outcome = flow().login().unwrap().run_blocking(
        || clock.get(),
        |request: http::Request<String>| {
            assert_eq!(request.method(), http::Method::POST);
            let body = answers.next().unwrap().as_bytes().to_vec();
            Ok(http::Response::new(body))
        },
        |_| (),
        |span, _| {
            clock.set(clock.get() + span);
            ControlFlow::Continue(())
        },
    );
    assert_eq!(granted(&outcome.unwrap()), bearer_a());
}
