//! Rate limits: the generic cell rate algorithm.

use core::time::Duration;

use device_flow::digest::QuotaKey;
use device_flow::memory::Memory;
use device_flow::server::{PolicyOptions, RateLimit, RateLimited, RateState, Take};
use proptest::prelude::*;
use serde_json::json;
use time::OffsetDateTime;

use super::policy::{DAY, accepted, secs};
use crate::support::login::{at, stored_at};
use crate::support::{BACKEND, Host, NOW, SECRET, SOURCE, basic, post, server_of};

/// Returns the operation that takes one from a quota with this limit, under a key of the host.
fn taking(limit: RateLimit, now: OffsetDateTime) -> Take {
    limit.take(QuotaKey::of_host("test", &[]), now)
}

fn limit(burst: u32, period: Duration) -> RateLimit {
    RateLimit::new(burst, period).unwrap()
}

/// Returns the operation that only checks whether one is left of this limit, as an exchange asks for it (B1).
fn looking(limit: RateLimit, now: OffsetDateTime) -> Take {
    let server = server_of(accepted(PolicyOptions {
        secret_limit: limit,
        ..PolicyOptions::default()
    }));
    let header = basic(BACKEND, SECRET);
    let request = post("").authorization(Some(&header));
    let mut host = Host::new([]);
    let _ = host.run(server.authenticate(request, SOURCE, now));
    host.takes[0]
}

/// Returns the state with the moment that is so many milliseconds after [`NOW`].
fn state(millis: i64) -> RateState {
    RateState::from_millis(millis_of(NOW) + millis)
}

fn millis_of(moment: OffsetDateTime) -> i64 {
    i64::try_from(moment.unix_timestamp_nanos() / 1_000_000).unwrap()
}

/// A burst may be taken at once. After that, one may be taken whenever a period has passed.
#[test]
fn a_limit_gives_a_burst_at_once_and_then_one_per_period() {
    let limit = limit(3, secs(10));
    let mut stored = None;
    let mut take = |seconds: u64| {
        let taken = taking(limit, NOW + secs(seconds)).apply(stored);
        taken.map(|next| stored = next)
    };
    for _ in 0..3 {
        take(0).unwrap();
    }
    for (second, wait) in [(0, 10), (1, 9), (9, 1)] {
        let RateLimited { retry_after, .. } = take(second).unwrap_err();
        assert_eq!(retry_after, secs(wait));
    }
    take(10).unwrap();
    assert_eq!(take(10).unwrap_err().retry_after, secs(10));
    // After two periods, two may be taken. After a long time the burst may be taken, but not more.
    take(30).unwrap();
    take(30).unwrap();
    assert!(take(30).is_err());
    for _ in 0..3 {
        take(100_000).unwrap();
    }
    assert!(take(100_000).is_err());
}

/// The stored moment is when everything that was taken will have been given back.
#[test]
fn a_take_stores_when_everything_is_given_back() {
    let limit = limit(3, secs(10));
    let take = taking(limit, NOW);
    assert_eq!(take.apply(None), Ok(Some(state(10_000))));
    assert_eq!(take.apply(Some(state(-5_000))), Ok(Some(state(10_000))));
    assert_eq!(take.apply(Some(state(0))), Ok(Some(state(10_000))));
    assert_eq!(take.apply(Some(state(7_000))), Ok(Some(state(17_000))));
    assert_eq!(take.apply(Some(state(20_000))), Ok(Some(state(30_000))));
    let limited = take.apply(Some(state(20_001))).unwrap_err();
    assert_eq!(limited.retry_after, Duration::from_millis(1));
    assert_eq!(limited.seconds(), 1);
}

/// A clock that was ahead locks nobody out. If a stored moment is further ahead than any correct clock can have written, one take is left,
/// and that take corrects the moment.
#[test]
fn a_stored_moment_far_ahead_is_of_a_clock_that_ran_ahead() {
    let limit = limit(3, secs(10));
    // The limit is three periods of ten seconds, and a minute for clocks that differ.
    for ahead in [20_001, 30_000, 90_000] {
        for take in [taking(limit, NOW), looking(limit, NOW)] {
            let limited = take.apply(Some(state(ahead))).unwrap_err();
            let wait = Duration::from_millis(u64::try_from(ahead - 20_000).unwrap());
            assert_eq!(limited.retry_after, wait);
            assert_eq!(take.refused(state(ahead)), limited);
        }
    }
    for ahead in [90_001, 3_600_000, i64::MAX - millis_of(NOW)] {
        assert_eq!(looking(limit, NOW).apply(Some(state(ahead))), Ok(None));
        let next = taking(limit, NOW).apply(Some(state(ahead)));
        assert_eq!(next, Ok(Some(state(30_000))));
    }
    // A moment before all time is treated like any moment in the past.
    let oldest = RateState::from_millis(i64::MIN);
    assert_eq!(
        taking(limit, NOW).apply(Some(oldest)),
        Ok(Some(state(10_000)))
    );
}

/// The same with a store: after two takes while the clock was a day ahead, nobody has to wait a day.
#[test]
fn a_clock_that_was_a_day_ahead_costs_nobody_a_day() {
    let limit = limit(2, secs(60));
    let mut store = Memory::new();
    for _ in 0..2 {
        store.take(&taking(limit, NOW + DAY)).unwrap();
    }
    store.take(&taking(limit, NOW)).unwrap();
    let limited = store.take(&taking(limit, NOW)).unwrap_err();
    assert_eq!(limited.retry_after, secs(60));
    store.take(&taking(limit, NOW + secs(60))).unwrap();
}

#[test]
fn a_look_refuses_like_a_take_and_writes_nothing() {
    let limit = limit(3, secs(10));
    let (look, take) = (looking(limit, NOW), taking(limit, NOW));
    for stored in [None, Some(state(-1)), Some(state(0)), Some(state(20_000))] {
        assert_eq!(look.apply(stored), Ok(None));
        assert!(matches!(take.apply(stored), Ok(Some(_))));
    }
    for stored in [state(20_001), state(29_000), state(50_000)] {
        assert_eq!(look.apply(Some(stored)), take.apply(Some(stored)));
        assert!(look.apply(Some(stored)).is_err());
    }
    let mut store = Memory::new();
    for _ in 0..10 {
        store.take(&look).unwrap();
    }
    for _ in 0..3 {
        store.take(&limit.take(*look.key(), NOW)).unwrap();
    }
    assert!(store.take(&look).is_err());
}

/// A store may refuse by a statement of its own. Then the refusal says when to try again: in one second if a take was given back meanwhile.
#[test]
fn a_refusal_of_the_stores_own_statement_says_when_to_come_back() {
    let take = taking(limit(3, secs(10)), NOW);
    for (ahead, wait) in [
        (25_000, 5_000),
        (30_000, 10_000),
        (20_000, 1_000),
        (0, 1_000),
    ] {
        let limited = take.refused(state(ahead));
        assert_eq!(limited.retry_after, Duration::from_millis(wait));
    }
}

/// The state is not purged sooner, because a delayed request must still find it.
#[test]
fn a_rate_state_may_be_purged_a_minute_after_everything_was_given_back() {
    assert_eq!(state(1_234).purge_at(), NOW + Duration::from_millis(61_234));
    let _ = RateState::from_millis(i64::MAX).purge_at();
    let _ = RateState::from_millis(i64::MIN).purge_at();
}

#[test]
fn a_rate_limit_says_when_to_come_back_in_words() {
    let take = taking(limit(1, secs(90)), NOW);
    let limited = take.apply(Some(state(88_001))).unwrap_err();
    assert_eq!(limited.to_string(), "too many attempts; try again in 89 s");
}

proptest! {
    /// An oracle of the algorithm: a bucket with room for a number of periods, which loses one at each take and fills as time passes.
    #[test]
    fn a_limit_gives_what_a_bucket_that_fills_with_time_gives(
        burst in 1..6_u32,
        period in 1..2_000_u64,
        gaps in prop::collection::vec(prop_oneof![Just(0_u64), 0..3_000_u64, 0..20_000_u64], 1..60),
    ) {
        let limit = limit(burst, Duration::from_millis(period));
        let full = u64::from(burst) * period;
        let (mut level, mut now, mut stored) = (full, NOW, None);
        for gap in gaps {
            now += Duration::from_millis(gap);
            level = full.min(level + gap);
            let look = looking(limit, now).apply(stored);
            match taking(limit, now).apply(stored) {
                Ok(next) => {
                    prop_assert_eq!(look, Ok(None));
                    prop_assert!(level >= period);
                    level -= period;
                    stored = next;
                    prop_assert_eq!(next.unwrap().millis() - millis_of(now), i64::try_from(full - level).unwrap());
                }
                Err(limited) => {
                    prop_assert_eq!(look, Err(limited));
                    prop_assert!(level < period);
                    prop_assert_eq!(limited.retry_after, Duration::from_millis(period - level));
                    // Exactly at that moment one is left, and not earlier.
                    let then = now + limited.retry_after;
                    prop_assert!(taking(limit, then).apply(stored).is_ok());
                    prop_assert!(taking(limit, then - Duration::from_millis(1)).apply(stored).is_err());
                }
            }
            // After its purge time, a state has no effect: a take gives the same as without a state.
            if let Some(state) = stored {
                let gone = state.purge_at();
                prop_assert_eq!(taking(limit, gone).apply(stored), taking(limit, gone).apply(None));
            }
        }
    }

    /// A script of a store that computes with the four numbers gets the same result as `apply`.
    #[test]
    fn the_numbers_of_a_take_do_the_arithmetic_of_apply(
        burst in prop_oneof![1..6_u32, any::<u32>().prop_map(|burst| burst.max(1))],
        period in prop_oneof![1..100_000_u64, 1..=86_400_000_u64],
        stored in prop::option::of(prop_oneof![-100_000..600_000_i64, any::<i64>().prop_map(|far| far / 2)]),
        is_look in any::<bool>(),
    ) {
        let limit = limit(burst, Duration::from_millis(period));
        let take = if is_look { looking(limit, NOW) } else { taking(limit, NOW) };
        let (now, latest) = (take.now_millis(), take.latest_millis());
        let (room, cost) = (take.room_millis(), take.cost_millis());
        prop_assert_eq!(now, millis_of(NOW));
        prop_assert_eq!(cost == 0, is_look);
        let stored = stored.map(state);
        let at = match stored.map(|state| state.millis()) {
            None => now,
            Some(at) if at > latest => now + room,
            Some(at) => at.max(now),
        };
        let wait = at - now - room;
        let wanted = if wait > 0 {
            Err(Duration::from_millis(wait.try_into().unwrap()))
        } else {
            Ok((cost > 0).then(|| RateState::from_millis(at + cost)))
        };
        let said = take.apply(stored).map_err(|limited| limited.retry_after);
        prop_assert_eq!(said, wanted);
    }
}

// The stored form.

/// The stored form is a single number, so that a script of a store can compute with it.
#[test]
fn a_quota_is_one_number_and_is_read_as_it_was_written() {
    let state = RateState::from_millis(stored_at(60_000));
    let form = serde_json::to_value(state).unwrap();
    assert_eq!(form, json!(stored_at(60_000)));
    let read: RateState = serde_json::from_value(form).unwrap();
    assert_eq!(read, state);
    assert_eq!(read.millis(), stored_at(60_000));
    assert_eq!(
        read.purge_at(),
        at(120_000),
        "a minute after everything was given back"
    );
}

#[test]
fn a_quota_that_is_no_number_is_refused() {
    for form in [
        json!(null),
        json!("1"),
        json!(1.5),
        json!({}),
        json!([1, 2]),
    ] {
        assert!(
            serde_json::from_value::<RateState>(form.clone()).is_err(),
            "{form}"
        );
    }
}

/// A stored moment that no clock can have written locks nobody out. If it is in the future, one take is left.
#[test]
fn a_quota_at_the_ends_of_time_only_saturates() {
    let limit = RateLimit::new(5, Duration::from_mins(1)).unwrap();
    for (moment, minutes) in [(i64::MIN, 1), (i64::MAX, 5)] {
        let state: RateState = serde_json::from_value(json!(moment)).unwrap();
        let _ = state.purge_at();
        let take = limit.take(QuotaKey::of_host("test", &[]), NOW);
        let next = take.apply(Some(state)).unwrap().unwrap();
        assert_eq!(next.millis(), stored_at(minutes * 60_000));
        let is_spent = take.apply(Some(next)).is_err();
        assert_eq!(is_spent, moment == i64::MAX);
    }
}
