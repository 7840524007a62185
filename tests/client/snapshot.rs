//! Rows P17 and P18: a login that outlives its process.

use core::time::Duration;

use device_flow::client::{
    DeviceFlow, Endpoints, Login, Next, Response, ResumeError, Snapshot, TransportError, WaitingFor,
};
use serde_json::{Value, json};

use super::login::{BY_CLOCK, poll, told_interval, wake};
use crate::support::{
    DEVICE, ISSUED, PENDING, POLL, SLOW_DOWN, TIMEOUT, TOKEN, answered, endpoints, ends, flow,
    issued, issued_with, ok, over, posted, s, sends, start_at, whole,
};

/// Returns the stored form of a snapshot.
fn stored(snapshot: &Snapshot) -> Value {
    serde_json::to_value(snapshot).unwrap()
}

/// Returns the snapshot after it was written and read again.
fn revived(snapshot: &Snapshot) -> Snapshot {
    serde_json::from_str(&serde_json::to_string(snapshot).unwrap()).unwrap()
}

pub(super) fn resume(snapshot: &Snapshot, elapsed: Option<u64>, now: u64) -> Login {
    flow()
        .resume(revived(snapshot), elapsed.map(s), s(now))
        .unwrap()
}

#[test]
fn p17_a_snapshot_has_spans_and_a_digest_and_no_endpoint_and_no_secret() {
    let flow = DeviceFlow::new(endpoints(), "cli")
        .secret_basic("s3cret")
        .scope("openid");
    let (login, _) = start_at(&flow, s(1000), ok(200, ISSUED), s(1001)).unwrap();
    let login = poll(login, 1006, ok(503, ""));
    let snapshot = login.snapshot(s(1009)).unwrap().stamped(s(1_790_000_000));
    let mut form = stored(&snapshot);
    let digest = form["client"].take();
    let expected = json!({
        "v": 2,
        "device_code": "GmRhmhcxhwAzkoEqiMEg_DnyEysNkuNhszIySk9eS",
        "client": null,
        "lifetime": {"secs": 300, "nanos": 0},
        "left": {"secs": 291, "nanos": 0},
        "wait": {"secs": 7, "nanos": 0},
        "min_interval": {"secs": 5, "nanos": 0},
        "failures": 1,
        "last_poll": "ahead",
        "lost": true,
        "waiting_for": {"server": 503},
        "taken_at": {"secs": 1_790_000_000, "nanos": 0},
    });
    assert_eq!(form, expected);
    assert_eq!(digest.as_str().unwrap().len(), 43);
}

#[test]
fn p17_in_flight_counts_as_lost() {
    // As if the request had failed at 7: the wait is twice the interval from then on.
    let form = stored(&sends(&mut issued(), s(5)).snapshot(s(7)).unwrap());
    assert_eq!(form["wait"], json!({"secs": 10, "nanos": 0}));
    assert_eq!(form["lost"], json!(true));
    assert_eq!(form["failures"], json!(1));
    assert_eq!(form["waiting_for"], json!({"connection": "other"}));
    // The same holds if nobody holds the request any more.
    let mut login = issued();
    drop(sends(&mut login, s(5)));
    assert_eq!(stored(&login.snapshot(s(7)).unwrap()), form);
    // The last poll is not repeated.
    let snapshot = sends(&mut issued(), s(300)).snapshot(s(301)).unwrap();
    let login = resume(&snapshot, Some(0), 0);
    assert_eq!(
        ends(login, s(0)),
        BY_CLOCK(WaitingFor::Connection(TransportError::Other))
    );
}

#[test]
fn p17_what_this_version_did_not_write_is_refused() {
    let good = stored(&issued().snapshot(s(1)).unwrap());
    assert!(serde_json::from_value::<Snapshot>(good.clone()).is_ok());
    let span = |secs: u64| json!({"secs": secs, "nanos": 0});
    for (name, value) in [
        ("v", json!(0)),
        ("v", json!(1)),
        ("v", json!(3)),
        ("v", json!(null)),
        ("device_code", json!("")),
        ("client", json!("short")),
        ("lifetime", span(0)),
        ("left", span(301)),
        ("left", json!({"secs": -1, "nanos": 0})),
        ("wait", json!("5")),
        // No back-off is longer than a minute, no `Retry-After` is longer than the lifetime, and no jitter is longer than the interval.
        ("wait", json!({"secs": 305, "nanos": 1})),
        ("min_interval", span(301)),
        ("failures", json!(-1)),
        ("last_poll", json!("sent")),
        ("last_poll", json!("maybe")),
        ("unknown", json!(1)),
    ] {
        let mut bad = good.clone();
        bad[name] = value.clone();
        assert!(
            serde_json::from_value::<Snapshot>(bad).is_err(),
            "{name} {value}"
        );
    }
    for name in good.as_object().unwrap().keys() {
        let mut bad = good.clone();
        bad.as_object_mut().unwrap().remove(name);
        let optional = ["waiting_for", "taken_at"].contains(&&**name);
        assert_eq!(
            serde_json::from_value::<Snapshot>(bad).is_ok(),
            optional,
            "{name}"
        );
    }
}

#[test]
fn p18_resumed_it_goes_on_where_it_was() {
    let snapshot = poll(issued(), 5, ok(400, SLOW_DOWN))
        .snapshot(s(6))
        .unwrap();
    // The next poll is due in 9 s, and the deadline is in 294 s.
    let login = resume(&snapshot, Some(4), 1000);
    assert_eq!(login.deadline(), Some(s(1290)));
    assert_eq!(wake(login, 1000), s(1005));
    let mut login = resume(&snapshot, Some(9), 1000);
    let request = sends(&mut login, s(1000)).request().clone();
    assert_eq!(whole(&request), posted(TOKEN, POLL));
    let login = poll(resume(&snapshot, Some(9), 1000), 1000, ok(400, PENDING));
    assert_eq!(wake(login, 1000), s(1010));
    assert_eq!(
        over(answered(
            resume(&snapshot, Some(1_000_000), 0),
            s(0),
            ok(400, PENDING),
            s(0)
        )),
        BY_CLOCK(WaitingFor::User)
    );
}

#[test]
fn p18_where_the_time_is_not_known_it_waits_one_interval() {
    let snapshot = poll(issued(), 5, ok(400, SLOW_DOWN))
        .snapshot(s(14))
        .unwrap();
    assert_eq!(wake(resume(&snapshot, None, 50), 50), s(60));
}

#[test]
fn p18_the_wall_clock_tells_the_time_unless_it_went_back() {
    let snapshot = issued().snapshot(s(0)).unwrap();
    assert_eq!(snapshot.elapsed(s(1000)), None);
    let snapshot = revived(&snapshot.stamped(s(1000)));
    assert_eq!(snapshot.elapsed(s(1007)), Some(s(7)));
    assert_eq!(snapshot.elapsed(s(999)), None);
}

#[test]
fn p18_another_client_or_other_endpoints_are_refused() {
    let snapshot = issued().snapshot(s(1)).unwrap();
    let other = "https://other.example/";
    for flow in [
        DeviceFlow::new(endpoints(), "other"),
        DeviceFlow::new(Endpoints::new(DEVICE, other).unwrap(), "cli"),
        DeviceFlow::new(Endpoints::new(other, TOKEN).unwrap(), "cli"),
    ] {
        let error = flow.resume(snapshot.clone(), None, s(0)).unwrap_err();
        assert_eq!(error, ResumeError::Mismatch);
    }
    assert!(flow().scope("openid").resume(snapshot, None, s(0)).is_ok());
}

#[test]
fn p18_an_interval_under_one_second_is_refused() {
    let mut form = stored(&issued().snapshot(s(1)).unwrap());
    form["min_interval"] = json!({"secs": 1, "nanos": 0});
    assert!(serde_json::from_value::<Snapshot>(form.clone()).is_ok());
    form["min_interval"] = json!({"secs": 0, "nanos": 999_999_999});
    assert!(serde_json::from_value::<Snapshot>(form).is_err());
}

#[test]
fn p17_there_is_no_snapshot_before_the_prompt_was_shown() {
    let mut login = flow().login().unwrap();
    assert!(login.snapshot(s(0)).is_none());
    let ask = sends(&mut login, s(0));
    assert!(ask.snapshot(s(0)).is_none());
    ask.answer(ok(200, ISSUED), s(0));
    assert!(login.snapshot(s(0)).is_none());
    assert!(matches!(login.next(s(0)), Next::Show(_)));
    assert!(login.snapshot(s(0)).is_some());
}

/// A snapshot that was written can be read, whatever happened before.
#[test]
fn p17_every_snapshot_can_be_read_back() {
    let retry = |seconds| Ok(Response::new(429, "").retry_after(seconds));
    let interval = told_interval("slow_down", &json!(3600));
    for (interval_of_start, lifetime) in [(5, 300), (1, 1), (300, 300), (301, 300), (7200, 100)] {
        for answer in [
            TIMEOUT,
            retry("1000000"),
            ok(400, &interval),
            ok(400, PENDING),
        ] {
            let mut login = issued_with(&flow(), interval_of_start, lifetime);
            login.jitter(Duration::MAX);
            let mut now = s(0);
            loop {
                let _ = revived(&login.snapshot(now).unwrap());
                let _ = revived(&login.snapshot(now + s(50)).unwrap());
                match login.next(now) {
                    Next::Wait { until } => now = until,
                    Next::Send(ask) => {
                        let _ = revived(&ask.snapshot(now).unwrap());
                        ask.answer(answer.clone(), now);
                        login.jitter(Duration::MAX);
                    }
                    Next::Show(_) => panic!("it was shown"),
                    Next::Done(_) => break,
                }
                if login.deadline().is_none() {
                    break;
                }
            }
        }
    }
}
