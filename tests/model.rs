//! The server protocol, explored: every interleaving within the bounds that each test states, around real exchanges.
//!
//! Each machine runs twice over: as the contract has it, where every property must hold in every state; and with one fault in
//! the host or its store, where the checker must find the counterexample. `cargo test --test model -- --nocapture` prints the
//! states and the depth of each.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::wildcard_enum_match_arm,
    reason = "a panic is how a test fails"
)]
#![expect(clippy::std_instead_of_alloc, reason = "a test has std")]

mod support;

mod model {
    pub(crate) mod guesses;
    pub(crate) mod login;
    pub(crate) mod lone;
    pub(crate) mod replay;
}

use core::fmt::Debug;
use core::hash::Hash;
use std::time::Instant;

use model::guesses::{self, Clock, Guesses};
use model::login::{
    CLAIMANT, EXPIRED, EXPIRY, FINAL, FOREIGN, Fault, GRACE, Job, KEPT, Login, Machine, NO_LOSS,
    ONE_SUCCESS, OVER, PACED, PURGED, Party, REDEEM_TIME, RETENTION, Start, THEFT, TOO_LATE,
};
use model::lone::{self, Lone, Rate};
use model::replay::Deed;
use stateright::{Checker, HasDiscoveries, Model};

/// Explores all of it; no property may have a counterexample.
fn explore<M>(name: &str, machine: M)
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync,
    M::Action: Clone + Debug + PartialEq,
{
    let start = Instant::now();
    let checker = machine.checker().spawn_bfs().join();
    println!(
        "model {name}: {} states, {} steps, depth {}, {:.1} s",
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth(),
        start.elapsed().as_secs_f32()
    );
    assert!(checker.is_done());
    checker.assert_properties();
}

/// Explores until a counterexample to each of the properties is found, which there must be.
fn refute<M>(name: &str, machine: impl Fn() -> M, properties: &[&'static str])
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync,
    M::Action: Clone + Debug + PartialEq,
{
    for property in properties {
        let found = HasDiscoveries::AnyOf([*property].into());
        let checker = machine().checker().finish_when(found).spawn_bfs().join();
        let path = checker.assert_any_discovery(property).into_actions();
        let steps: Vec<_> = path
            .iter()
            .map(|step| checker.model().format_action(step))
            .collect();
        println!(
            "model {name}, {} states: not {property}",
            checker.unique_state_count()
        );
        println!("    {}", steps.join("\n    "));
    }
}

/// Two polls of the device at once, and one of another client, while Alice withdraws and the store purges.
/// Approved in time or at the last moment; the host may redeem, refuse, revoke, or fail to mint.
fn redemption() -> Machine {
    Machine {
        start: Start::Approved(&[1_000, EXPIRY - 1]),
        tasks: vec![
            (Job::Poll(Party::Owner), 1),
            (Job::Poll(Party::Owner), 1),
            (Job::Poll(Party::Foreign), 1),
            (Job::Decide("alice"), 1),
        ],
        moments: vec![2_000, EXPIRY, EXPIRY + REDEEM_TIME + RETENTION],
        deeds: vec![Deed::Withdraw],
        refuses: true,
        purges: true,
        ..Machine::default()
    }
}

/// Alice and Bob enter; a page of each decides anything at once, hers one after the other too.
fn decisions() -> Machine {
    Machine {
        tasks: vec![
            (Job::Enter("alice"), 1),
            (Job::Enter("bob"), 1),
            (Job::Decide("alice"), 2),
            (Job::Decide("bob"), 1),
        ],
        moments: vec![1_000, EXPIRY],
        deeds: vec![
            Deed::Approve,
            Deed::ApproveLess,
            Deed::Deny,
            Deed::Withdraw,
            Deed::Release,
        ],
        mishaps: 0,
        ..Machine::default()
    }
}

/// Two polls at once, with the paces kept or lost; Alice enters and decides meanwhile; the store purges.
fn pacing() -> Machine {
    Machine {
        tasks: vec![
            (Job::Poll(Party::Owner), 1),
            (Job::Poll(Party::Owner), 1),
            (Job::Enter("alice"), 1),
            (Job::Decide("alice"), 1),
        ],
        moments: vec![1_000, 2_500, EXPIRY, EXPIRY + REDEEM_TIME + RETENTION],
        deeds: vec![Deed::Approve],
        purges: true,
        ..Machine::default()
    }
}

/// A device that refreshes three times, one after the other, and a foreign client that tries its token. Answers of the store
/// and responses are lost.
fn refreshes() -> Machine {
    Machine {
        start: Start::Active,
        tasks: vec![
            (Job::Refresh(Party::Owner), 3),
            (Job::Refresh(Party::Foreign), 1),
            (Job::Revoke(Party::Foreign), 1),
        ],
        moments: vec![5_000, 6_000],
        mishaps: 2,
        ..Machine::default()
    }
}

/// The owner and a thief refresh, at once and one after the other, within the grace and after it.
fn theft() -> Machine {
    Machine {
        start: Start::Active,
        tasks: vec![
            (Job::Refresh(Party::Owner), 2),
            (Job::Refresh(Party::Thief), 2),
        ],
        moments: vec![5_000, 5_000 + GRACE + 1],
        ..Machine::default()
    }
}

/// A device refreshes while its token is revoked, its code is polled again, Alice withdraws, and the host may refuse.
fn ends() -> Machine {
    Machine {
        start: Start::Active,
        tasks: vec![
            (Job::Refresh(Party::Owner), 2),
            (Job::Revoke(Party::Owner), 1),
            (Job::Poll(Party::Owner), 1),
            (Job::Decide("alice"), 1),
        ],
        moments: vec![5_000],
        deeds: vec![Deed::Withdraw],
        refuses: true,
        ..Machine::default()
    }
}

/// Five guesses at once within one period, by clocks that differ; the store may purge at any moment.
fn guesses() -> Guesses {
    Guesses {
        entries: 5,
        moments: vec![0, 30_000, 59_999],
        clock: Clock::Any,
        purges: true,
        fault: None,
    }
}

/// Four guesses over a period, by clocks that differ by as much.
fn guesses_at_any_time() -> Guesses {
    Guesses {
        entries: 4,
        moments: vec![0, 30_000, 60_000],
        purges: false,
        ..guesses()
    }
}

/// Four guesses over two periods of one clock; the store purges.
fn guesses_as_time_goes_on() -> Guesses {
    Guesses {
        entries: 4,
        moments: vec![0, 30_000, 60_000, 90_000, 120_000],
        clock: Clock::Forward,
        ..guesses()
    }
}

/// A minute of polls at the edges of the interval, obedient or not.
fn any_gaps() -> Lone {
    Lone {
        rate: Rate::Any(&[1_250, 3_749, 3_750]),
        loses_paces: true,
        fault: None,
    }
}

/// A minute of polls at each of these rates.
fn fixed_rates() -> Lone {
    Lone {
        rate: Rate::Fixed(&[
            500, 1_000, 2_000, 3_000, 3_749, 3_750, 4_000, 5_000, 7_000, 11_000, 16_000,
        ]),
        ..any_gaps()
    }
}

/// Explores a login. It must have come upon this: by less it would have shown little.
fn explore_login(name: &str, machine: Machine, expected: &str) {
    let covered = machine.covered.clone();
    explore(name, Login::from(machine));
    let covered: Vec<_> = covered.lock().unwrap().iter().cloned().collect();
    assert_eq!(covered.join(" "), expected);
}

fn refute_login(name: &str, machine: Machine, fault: Fault, properties: &[&'static str]) {
    let machine = Machine {
        fault: Some(fault),
        ..machine
    };
    refute(name, || Login::from(machine.clone()), properties);
}

#[test]
fn redemptions_race_with_each_other_and_with_a_withdrawal() {
    explore_login(
        "redemption",
        redemption(),
        "Expired Unavailable Withdraw approval_expired consent_gone duplicate ended foreign_client \
         granted lost_race minting_failed outcome_unknown replay unknown_code",
    );
}

#[test]
fn two_users_claim_release_and_decide_at_once() {
    explore_login(
        "decisions",
        decisions(),
        "Approve ApproveLess ClaimedByAnother Decided Deny Entered Expired ExpiredCode NotYours Release \
         Undecided UnknownCode UsedCode Withdraw",
    );
}

#[test]
fn paces_expiry_and_purge_race_with_a_decision() {
    explore_login(
        "pacing",
        pacing(),
        "Approve Entered Expired ExpiredCode NotYours Unavailable UnknownCode approval_expired duplicate \
         expired granted lost_race outcome_unknown pending repeated replay too_fast unknown_code",
    );
}

#[test]
fn a_device_keeps_its_login_over_lost_answers() {
    explore_login(
        "refreshes",
        refreshes(),
        "foreign_client nothing_to_revoke outcome_unknown refreshed",
    );
}

#[test]
fn a_thief_and_an_owner_who_both_refresh_end_the_login() {
    explore_login(
        "theft",
        theft(),
        "contended ended outcome_unknown refreshed reuse",
    );
}

#[test]
fn refreshes_race_with_revocation_replay_and_withdrawal() {
    explore_login(
        "ends",
        ends(),
        "Unavailable Withdraw consent_gone contended ended minting_failed nothing_to_revoke \
         outcome_unknown refreshed replay revoked",
    );
}

#[test]
fn parallel_guesses_share_no_token() {
    explore("guesses at once", guesses());
    explore("guesses at any time", guesses_at_any_time());
    explore("guesses as time goes on", guesses_as_time_goes_on());
}

#[test]
fn a_lone_device_is_paced_as_promised() {
    explore("any gaps", any_gaps());
    explore("fixed rates", fixed_rates());
}

// Faults: the checks bite.

#[test]
fn without_the_guard_a_code_is_redeemed_twice_and_decisions_are_overwritten() {
    let fault = Fault::NoGuard;
    refute_login(
        "redemption without a guard",
        redemption(),
        fault,
        &[ONE_SUCCESS, FINAL],
    );
    refute_login(
        "decisions without a guard",
        decisions(),
        fault,
        &[FINAL, CLAIMANT],
    );
    refute_login("ends without a guard", ends(), fault, &[FINAL, OVER]);
    refute_login("refreshes without a guard", theft(), fault, &[FINAL]);
}

#[test]
fn a_commit_of_unknown_outcome_taken_for_won_redeems_a_code_twice() {
    let fault = Fault::UnknownIsWon;
    refute_login(
        "redemption with unknown outcomes",
        redemption(),
        fault,
        &[ONE_SUCCESS],
    );
    refute_login(
        "refreshes with unknown outcomes",
        refreshes(),
        fault,
        &[KEPT],
    );
    refute_login("ends with unknown outcomes", ends(), fault, &[OVER]);
}

#[test]
fn with_expiry_ignored_an_expired_code_waits_and_is_claimed_and_redeemed() {
    let fault = Fault::ExpiryIgnored;
    refute_login(
        "pacing at an old time",
        pacing(),
        fault,
        &[EXPIRED, TOO_LATE],
    );
    refute_login("decisions at an old time", decisions(), fault, &[TOO_LATE]);
    refute_login(
        "redemption at an old time",
        redemption(),
        fault,
        &[TOO_LATE],
    );
}

#[test]
fn a_pace_that_carries_the_session_erases_a_decision() {
    let fault = Fault::PaceCarriesTheSession;
    refute_login("pacing with the session", pacing(), fault, &[PACED]);
}

#[test]
fn a_pace_that_bumps_the_version_makes_a_decision_lose() {
    let fault = Fault::PaceBumpsTheVersion;
    refute_login("pacing with the version", pacing(), fault, &[NO_LOSS]);
}

#[test]
fn a_pace_that_inserts_brings_a_purged_session_back() {
    let fault = Fault::PaceRevives;
    refute_login("pacing that inserts", pacing(), fault, &[PURGED]);
}

#[test]
fn a_purge_that_is_early_forgets_what_is_to_be_answered() {
    let fault = Fault::PurgesEarly;
    refute_login(
        "redemption with early purges",
        redemption(),
        fault,
        &[PURGED],
    );
}

#[test]
fn a_host_that_names_the_claimant_lets_anybody_decide() {
    let fault = Fault::NamesTheClaimant;
    refute_login("decisions by anybody", decisions(), fault, &[CLAIMANT]);
}

#[test]
fn a_host_that_takes_every_client_for_the_owner_gives_tokens_to_a_foreign_one() {
    let fault = Fault::EveryClientIsTheOwner;
    refute_login("redemption by any client", redemption(), fault, &[FOREIGN]);
}

#[test]
fn without_the_grace_a_lost_answer_ends_the_login() {
    refute_login(
        "refreshes without grace",
        refreshes(),
        Fault::NoGrace,
        &[KEPT],
    );
}

#[test]
fn with_reuse_ignored_a_theft_stays_unnoticed() {
    let fault = Fault::ReuseIgnored;
    refute_login("theft with reuse ignored", theft(), fault, &[OVER, THEFT]);
}

#[test]
fn guesses_are_shared_where_their_quota_is_not_guarded_or_forgotten() {
    for fault in [
        guesses::Fault::NoGuard,
        guesses::Fault::FailedIsTaken,
        guesses::Fault::PurgesEarly,
    ] {
        let fault = Some(fault);
        refute(
            "guesses",
            || Guesses { fault, ..guesses() },
            &[guesses::PAID],
        );
    }
}

#[test]
fn a_device_is_slowed_down_wrongly_where_the_host_keeps_its_pace_wrongly() {
    let with = |fault| Lone {
        fault: Some(fault),
        loses_paces: false,
        ..any_gaps()
    };
    let forgotten = || with(lone::Fault::IntervalForgotten);
    refute("gaps, the interval forgotten", forgotten, &[lone::INTERVAL]);
    let apart = || with(lone::Fault::ClocksFarApart);
    refute("gaps, the clocks far apart", apart, &[lone::OBEDIENT]);
    let fault = Some(lone::Fault::RejectionsCount);
    let counted = || Lone {
        fault,
        ..fixed_rates()
    };
    refute("rates, rejections counted", counted, &[lone::FIXED]);
}
